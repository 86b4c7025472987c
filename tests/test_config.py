"""Configurations are read strictly, and mistakes are told with what would have been right."""

from dataclasses import asdict

import pytest
import torch

from edm_lesson import LessonError
from edm_lesson.config import config_from_dict, config_names, config_to_yaml, load_config
from edm_lesson.designs import DESIGNS, build_denoiser, build_loss, build_network
from edm_lesson.losses import EDMLoss
from edm_lesson.networks import ADM, DDPMpp, LessonUNet, NCSNpp
from edm_lesson.preconditioning import VPPrecond


@pytest.mark.parametrize("name", config_names())
def test_every_configuration_builds_and_survives_a_round_trip(name):
    config = load_config(name)
    assert config_from_dict(asdict(config)) == config
    smaller = ["network.model_channels=8", "network.num_blocks=1", "network.label_dropout=0.1"]
    config = load_config(name, smaller)  # ADM as it is takes seconds
    denoiser, loss = build_denoiser(config), build_loss(config)
    assert type(denoiser) is DESIGNS[config.design.preconditioning].precond
    assert type(loss) is DESIGNS[config.design.loss].loss
    if config.design.loss == "edm":
        assert denoiser.sigma_data == loss.sigma_data == config.sigma_data
    assert denoiser.img_resolution == config.data.img_resolution


@pytest.mark.parametrize(
    ("name", "column", "network", "million_parameters"),
    [
        ("lesson", "edm", LessonUNet, 1.27),
        ("edm", "edm", DDPMpp, 55.7),
        ("ddpmpp", "vp", DDPMpp, 55.7),
        ("ncsnpp", "ve", NCSNpp, 56.4),
        ("adm", "iddpm", ADM, 279.6),
    ],
)
def test_the_configurations_pair_the_rows_as_the_paper_does(name, column, network, million_parameters):
    config = load_config(name)
    assert set(vars(config.design).values()) == {column}
    with torch.device("meta"):
        built = build_network(config)
    assert type(built) is network
    count = sum(parameter.numel() for parameter in built.parameters())
    assert count / 1e6 == pytest.approx(million_parameters, abs=0.05)


def test_rows_of_different_columns_can_be_mixed():
    config = load_config("smoke", ["design.preconditioning=vp", "design.sampler=ve"])
    assert type(build_denoiser(config)) is VPPrecond
    assert type(build_loss(config)) is EDMLoss
    assert config.design.sampler == "ve"


def test_a_file_is_read_and_what_it_leaves_out_has_defaults(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "sigma_data: 0.7\ntraining:\n  learning_rate: 3e-4\n  batch_size: 1_000\nnetwork: {channel_mult: [1, 2, 4]}\n"
    )
    config = load_config(path)
    assert (config.sigma_data, config.training.learning_rate, config.training.batch_size) == (0.7, 3e-4, 1000)
    assert config.network.channel_mult == (1, 2, 4)
    assert config.data.name == "mnist"


def test_overrides_change_single_settings():
    config = load_config(
        "smoke", ["training.batch_size=7", "network.attn_resolutions=[14]", "data.center=true", "sigma_data=1"]
    )
    assert (config.training.batch_size, config.network.attn_resolutions, config.data.center) == (7, (14,), True)
    assert config.sigma_data == 1.0
    assert load_config("smoke", ["training.clip_norm=inf"]).training.clip_norm == float("inf")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainin: {}", "unknown key trainin .did you mean 'training'"),
        ("training: {batchsize: 3}", r"unknown key training\.batchsize .did you mean 'batch_size'"),
        ("training: {batch_size: many}", r"training\.batch_size is 'many'; it must be a whole number"),
        ("training: {batch_size: 2.5}", r"training\.batch_size is 2\.5; it must be a whole number"),
        ("training: {batch_size: true}", r"training\.batch_size is True; it must be a whole number"),
        ("training: {batch_size: 0}", r"training\.batch_size is 0; it must be a whole number from 1 to 1000000"),
        ("training: {learning_rate: -1}", r"training\.learning_rate is -1\.0"),
        ("training: {clip_norm: 0}", r"training\.clip_norm is 0\.0; it must be a number above 0"),
        ("training: {sample_every: -1}", r"training\.sample_every is -1; it must be a whole number, 0 or more"),
        ("training: {minutes: 3}", r"unknown key training\.minutes"),
        ("training: {precision: bf8}", "precision is 'bf8'; it must be one of auto, float32, bf16, fp16"),
        ("network: {name: ddpm}", r"network\.name is 'ddpm'; it must be one of lesson, ddpmpp, ncsnpp, adm"),
        ("design: {loss: ddim}", r"design\.loss is 'ddim'; it must be one of vp, ve, iddpm, edm"),
        ("{design: {loss: vp}, loss: {P_mean: 0}}", r"loss\.P_mean is 0\.0 .* design\.loss is vp: leave them out"),
        ("augment: {q: 1}", r"unknown key augment\.q"),
        ("network: {channel_mult: 2}", r"network\.channel_mult is 2; it must be a list"),
        ("network: {channel_mult: []}", r"len\(network\.channel_mult\) is 0; it must be a whole number, 1 or more"),
        ("network: {num_blocks: 0}", r"network\.num_blocks is 0; it must be a whole number, 1 or more"),
        ("network: {model_channels: 10}", r"network\.model_channels is 10; it must be a multiple of 4"),
        ("network: {channel_mult: [a]}", r"network\.channel_mult is \['a'\]; it must be a list of whole numbers"),
        ("data: {center: maybe}", r"data\.center is 'maybe'; it must be true or false"),
        ("data: mnist", "data is 'mnist'; it must be a section"),
        ("sigma_data: 0", r"sigma_data is 0\.0; it must be a finite number, 1e-06 or more, 1e\+06 or less"),
        ("{design: {preconditioning: vp, loss: vp}, sigma_data: .nan}", "sigma_data is nan"),
        ("sigma_data: 1\nsigma_data: 2", "(?s)is not valid YAML.*duplicate key sigma_data"),
        ("data: {name: '${oc.env:HOME}'}", r"data\.name is '\$\{oc.env:HOME\}'; references are not followed"),
        ("network: {channel_mult: [1, '${sigma_data}']}", r"channel_mult is \[1, '\$\{sigma_data\}'\]; references"),
        ("training: {seed: 4294967296}", r"training\.seed is 4294967296; .* from 0 to 4294967295"),
        (f"data: {'x' * 1_100_000}", "give a file of at most 1 MB"),
        ("sigma_data: '???'", r"sigma_data is '\?\?\?'; .* write the value"),
        ("[1, 2]", "the file is .* it must be a section"),
        ("{unclosed", "is not valid YAML"),
        ("sigma_data: !!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, text, message):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises((LessonError, ValueError), match=message):
        load_config(path)


def test_an_unknown_configuration_and_a_bad_override_are_named():
    with pytest.raises(LessonError, match=r"no configuration 'leson' .did you mean 'lesson'"):
        load_config("leson")
    with pytest.raises(LessonError, match="'batch_size' is no setting"):
        load_config("smoke", ["batch_size"])
    with pytest.raises(LessonError, match=r"sigma_data is \{'x': 1\}; it must be a number"):
        load_config("smoke", ["sigma_data.x=1"])


def test_a_small_file_that_would_unfold_to_gigabytes_is_refused(tmp_path):
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 10))
    (tmp_path / "bomb.yaml").write_text(bomb)
    with pytest.raises(LessonError, match=r"bomb\.yaml is not valid YAML: .*exceeds"):
        load_config(tmp_path / "bomb.yaml")


OVER = ["training.clip_norm=inf", "training.learning_rate=1e-5"]


def test_what_is_written_is_read_again_and_so_is_the_spelling_of_version_0_1(tmp_path):
    config = load_config("edm", [*OVER, "data.center=true"])
    (tmp_path / "config.yaml").write_text(config_to_yaml(config))
    assert load_config(tmp_path / "config.yaml") == config
    tree = asdict(config)
    tree["data"]["centre"] = tree["data"].pop("center")
    assert config_from_dict(tree) == load_config("edm", [*OVER, "data.centre=true"]) == config
