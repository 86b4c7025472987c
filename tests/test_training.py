"""Training learns, averages its weights as it says, and goes on exactly where it was stopped."""

import shutil
import signal
import time
from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from edm_lesson import LessonError
from edm_lesson.checkpoints import load_checkpoint, load_denoiser, save_checkpoint
from edm_lesson.config import load_config
from edm_lesson.data import Images
from edm_lesson.designs import DESIGNS
from edm_lesson.losses import EDMLoss
from edm_lesson.samplers import sample_images
from edm_lesson.training import Trainer, ema_decay, learning_rate_share, make_ema, train_step
from edm_lesson.training import trainer as trainer_module
from edm_lesson.training.step import RANDOM_STREAMS, batch_indices, choose_precision, seed_for
from edm_lesson.training.trainer import deferred_signals

CPU = {"device": "cpu"}


def short(*overrides, images=320):
    every = ["training.log_every=64", "training.save_every=128", "training.sample_every=0", "training.warmup=64"]
    return load_config("smoke", [f"training.images={images}", *every, *overrides])


@pytest.fixture(scope="module")
def few():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (100, 1, 28, 28), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.randint(0, 3, (100,), generator=generator))


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in [*trainer.denoiser.parameters(), *trainer.ema.parameters()]])


def test_a_tiny_run_learns_and_its_samples_beat_noise(mnist):
    trainer = Trainer(load_config("smoke", ["training.images=6400"]), mnist, **CPU).train(progress=False)
    losses = [loss for _, loss in trainer.losses]
    assert losses[0] > 0.7, "the loss starts near 1"
    assert losses[-1] < 0.5 * losses[0], losses

    digits = mnist.batch(slice(2000)).flatten(1)

    def distance(images):
        return torch.cdist(images.clamp(-1, 1).flatten(1), digits).min(1).values.mean().item()

    samples = sample_images(trainer.ema_denoiser, 16)
    shuffled = digits[
        :16, torch.randperm(784, generator=torch.Generator().manual_seed(0))
    ]  # the right pixels, no strokes
    noise = torch.randn(16, 784, generator=torch.Generator().manual_seed(0))
    assert distance(samples) < 0.8 * distance(shuffled) < distance(noise)


@pytest.mark.parametrize("half_life", [32, 1000])
def test_after_its_half_life_the_ema_holds_half_of_the_start(half_life):
    start, model = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    ema = make_ema(start, lambda: ema_decay(8, half_life))
    for _ in range(half_life // 8):
        ema.update_parameters(model)
    for averaged, first, last in zip(ema.parameters(), start.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(averaged, (first + last) / 2)


def test_the_ema_ramps_up_with_the_images_seen():
    assert ema_decay(10, 1000, images_seen=200, rampup=0.05) == pytest.approx(0.5)
    assert ema_decay(10, 1000, images_seen=10**6, rampup=0.05) == pytest.approx(0.5**0.01)
    assert ema_decay(10, 1000, images_seen=0) == 0
    assert ema_decay(10, 0) == 0


def test_every_epoch_visits_every_image_once_in_a_new_order():
    order = torch.cat([batch_indices(step, 7, 10, seed=1) for step in range(10)])
    epochs = order.reshape(7, 10)
    assert all(epoch.sort().values.tolist() == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) > 1
    assert batch_indices(0, 25, 10).bincount().tolist().count(3) == 5, "a batch may be larger than the data"
    assert not torch.equal(batch_indices(0, 7, 100, seed=1), batch_indices(0, 7, 100, seed=2))


def test_the_learning_rate_rises_and_falls_to_zero():
    settings = load_config("smoke", ["training.images=1000", "training.warmup=100", "training.batch_size=10"]).training
    rates = [learning_rate_share(seen, settings) for seen in range(0, 1001, 10)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1, abs=0.03)
    assert rates[50] == pytest.approx(0.5)
    assert rates[-1] == 0
    assert learning_rate_share(0, load_config("smoke", ["training.warmup=0"]).training) == 1


@pytest.mark.parametrize("stop", [64, 176])
def test_a_resumed_run_ends_with_the_weights_of_one_that_was_never_stopped(few, tmp_path, stop):
    settings = short("network.dropout=0.2", "network.label_dim=3")
    whole = Trainer(settings, few, **CPU).train(progress=False)
    Trainer(settings, few, tmp_path, **CPU).train(until=stop, progress=False)
    torch.manual_seed(12345)
    resumed = Trainer(settings, few, tmp_path, **CPU).resume()
    assert resumed.images_seen == stop
    resumed.train(progress=False)
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.losses[-1] == whole.losses[-1]


@pytest.mark.parametrize(
    ("number", "raised"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit), (signal.SIGHUP, SystemExit)],
)
def test_a_run_interrupted_in_the_midst_of_a_step_goes_on_exactly(few, tmp_path, number, raised):
    def leave(*_):
        raise SystemExit

    trainer = Trainer(short(), few, tmp_path, **CPU)
    loss, calls = trainer.loss, []

    def interrupting(*arguments, **settings):
        calls.append(1)
        if len(calls) == 7:
            signal.raise_signal(number)
        return loss(*arguments, **settings)

    trainer.loss = interrupting
    before = {each: signal.signal(each, leave) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.raises(raised) as stop:
            trainer.train(progress=False)
        assert signal.getsignal(signal.SIGTERM) is leave, "what was there before is put back"
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert stop.value.__notes__ == [
        f"Stopped and saved after 112 images. Go on with: edm-lesson train --resume --out {tmp_path}"
    ]
    assert trainer.images_seen == 7 * 16, "the step was finished, and no other begun"
    shutil.copytree(tmp_path, tmp_path / "copy")
    resumed = Trainer(short(), few, tmp_path / "copy", **CPU).resume().train(progress=False)
    again = trainer.train(progress=False)
    whole = Trainer(short(), few, **CPU).train(progress=False)
    assert torch.equal(weights(resumed), weights(whole))
    assert torch.equal(weights(again), weights(whole))
    assert resumed.losses == again.losses == whole.losses


@pytest.mark.parametrize("augment", [(), ("augment.p=1",)])
def test_a_loss_that_is_not_finite_stops_the_run_and_spares_its_checkpoint(few, tmp_path, augment):
    class Failing(EDMLoss):
        levels = ()

        def sample_sigma(self, *arguments, **settings):
            self.levels = [*self.levels, super().sample_sigma(*arguments, **settings)]
            return self.levels[-1]

        def __call__(self, *arguments, **settings):
            value = super().__call__(*arguments, **settings)
            return value * float("nan") if len(self.levels) == 11 else value

    trainer = Trainer(short(*augment), few, tmp_path, **CPU)
    trainer.loss = Failing()
    with pytest.raises(LessonError, match=r"loss is nan at step 10, after 160 images") as stop:
        trainer.train(progress=False)
    drawn = trainer.loss.levels[10]
    assert f"with sigma from {drawn.min():.3g} to {drawn.max():.3g}" in str(stop.value)
    assert f"last good checkpoint is {tmp_path / 'checkpoint.safetensors'}, after 128 images" in str(stop.value)
    assert load_checkpoint(tmp_path / "checkpoint.safetensors").state["images_seen"] == 128
    with pytest.raises(LessonError, match="nan at step 10"):
        trainer.train(progress=False)


def test_weights_that_are_not_finite_are_never_saved(few, tmp_path):
    trainer = Trainer(short(), few, tmp_path, **CPU).train(until=64, progress=False)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    next(trainer.denoiser.parameters()).data[0] = float("inf")
    with pytest.raises(LessonError, match=r"weights are not finite at step 3.*after 64 images"):
        trainer.save()
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


class Broken(Exception):
    """What nobody expects."""


def break_in(trainer, what, tmp_path, monkeypatch):
    """Make training end by itself after 80 images, when that of 64 was logged and none was saved."""

    def fail(*_, **__):
        if trainer.images_seen >= 80:
            raise Broken

    if what == "callback":
        return fail
    if what == "bar":
        monkeypatch.setattr(trainer_module.tqdm, "update", fail)
    elif what == "folder":
        monkeypatch.setattr(trainer_module.tqdm, "update", lambda *_: shutil.rmtree(tmp_path, ignore_errors=True))
    elif what == "Ctrl-C":  # a second one, in the midst of a step
        loss = trainer.loss
        monkeypatch.setattr(trainer, "loss", lambda *a, **b: fail() or loss(*a, **b))
    return None


@pytest.mark.parametrize("what", ["callback", "bar", "folder", "Ctrl-C"])
def test_whatever_ends_training_what_was_learned_is_saved_and_told(few, tmp_path, monkeypatch, what):
    settings, folder = short("training.save_every=1000", "training.log_every=16"), tmp_path / "run"
    whole = Trainer(settings, few, **CPU).train(progress=False)
    trainer = Trainer(settings, few, folder, **CPU)
    with monkeypatch.context() as patch, pytest.raises((Broken, OSError)) as stop:
        trainer.train(callback=break_in(trainer, what, folder, patch))
    seen = trainer.images_seen
    assert seen == (32 if what == "folder" else 80)
    go_on = f"Go on with: edm-lesson train --resume --out {folder}"
    assert stop.value.__notes__ == [f"Stopped and saved after {seen} images. {go_on}"]
    resumed = Trainer(settings, few, folder, **CPU).resume()
    assert resumed.images_seen == seen
    assert torch.equal(weights(resumed.train(progress=False)), weights(whole))
    assert resumed.losses == whole.losses


def test_where_nothing_was_learned_an_error_leaves_no_checkpoint(few, tmp_path, monkeypatch):
    trainer = Trainer(short(), few, tmp_path, **CPU)
    monkeypatch.setattr(trainer, "loss", None)
    with pytest.raises(TypeError) as stop:
        trainer.train(progress=False)
    assert not hasattr(stop.value, "__notes__")
    Trainer(short(), few, tmp_path, **CPU).train(until=16, progress=False)


def test_a_step_that_was_cut_in_two_is_not_saved(few, tmp_path, monkeypatch):
    trainer = Trainer(short(), few, tmp_path, **CPU).train(until=64, progress=False)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.ema, "update_parameters", interrupt)  # the weights have moved, their average hasn't
    with pytest.raises(KeyboardInterrupt) as stop:
        trainer.train(progress=False)
    assert stop.value.__notes__ == ["What was learned since the last checkpoint is not saved."]
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    monkeypatch.undo()
    whole = Trainer(short(), few, **CPU).train(progress=False)
    assert torch.equal(weights(trainer.resume().train(progress=False)), weights(whole))


def test_a_copy_that_does_not_wait_is_of_memory_that_is_kept(few, monkeypatch):
    copies, to = [], torch.Tensor.to

    def watch(tensor, *arguments, **settings):
        if settings.pop("non_blocking", False):
            copies.append(tensor.is_pinned())
        return to(tensor, *arguments, **settings)

    trainer = Trainer(short(), few, **CPU)
    monkeypatch.setattr(torch.Tensor, "to", watch)
    trainer.step()
    assert copies == []
    trainer._gpus = [0]  # as on CUDA, whose pinned memory is kept until it was copied
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: True)
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: nullcontext())
    trainer.step()
    assert copies == [True]


def test_a_step_reads_nothing_back_from_the_device(few):
    class Reads(TorchDispatchMode):
        found = 0

        def __torch_dispatch__(self, function, types, arguments=(), settings=None):
            if function is torch.ops.aten._local_scalar_dense.default and arguments[0].is_floating_point():
                self.found += 1
            return function(*arguments, **(settings or {}))

    trainer = Trainer(short(), few, **CPU)
    with Reads() as reads:
        trainer.step()
        assert reads.found == 0
        trainer.step().item()
    assert reads.found == 1, "this test notices what it should"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_does_not_wait_for_the_gpu(few):
    trainer = Trainer(short("data.center=true"), few, device="cuda")
    trainer.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_resuming_with_another_configuration_is_refused(few, tmp_path):
    Trainer(short(), few, tmp_path, **CPU).train(until=64, progress=False)
    with pytest.raises(LessonError, match=r"started with training .*'learning_rate': 0\.004.*choose another folder"):
        Trainer(short("training.learning_rate=1e-3"), few, tmp_path, **CPU).resume()
    with pytest.raises(LessonError, match="There is no checkpoint"):
        Trainer(short(), few, tmp_path / "nowhere", **CPU).resume()


@pytest.mark.parametrize("change", ["fewer", "other pixels", "other labels"])
def test_resuming_with_other_images_is_refused(few, tmp_path, change):
    config = short("network.label_dim=3")
    Trainer(config, few, tmp_path, **CPU).train(until=64, progress=False)
    pixels, labels = few.pixels.clone(), few.labels.clone()
    if change == "fewer":
        pixels, labels = pixels[:-1], labels[:-1]
    elif change == "other pixels":
        pixels[-1, 0, 0, 0] ^= 1
    else:
        labels[-1] = (labels[-1] + 1) % 3
    trainer, count = Trainer(config, Images(pixels, labels), tmp_path, **CPU), len(pixels)
    known = r"\{{'digest': '\w{{12}}', 'shape': \[{}, 1, 28, 28\]\}}"
    expected = f"started with images {known.format(100)}, not {known.format(count)}"
    with pytest.raises(LessonError, match=expected):
        trainer.resume()
    assert trainer.images_seen == 0
    copies = Images(few.pixels.clone(), few.labels.clone())
    assert Trainer(config, copies, tmp_path, **CPU).resume().images_seen == 64


def test_labels_that_are_not_trained_on_may_change(few, tmp_path):
    Trainer(short(), few, tmp_path, **CPU).train(until=64, progress=False)
    unlabelled = Images(few.pixels, torch.zeros_like(few.labels))
    assert Trainer(short(), unlabelled, tmp_path, **CPU).resume().images_seen == 64


def test_a_checkpoint_that_does_not_say_which_images_it_saw_is_resumed(few, tmp_path):
    Trainer(short(), few, tmp_path, **CPU).train(until=64, progress=False)
    path = tmp_path / "checkpoint.safetensors"
    older = load_checkpoint(path)
    del older.state["data"]
    save_checkpoint(path, older.config, older.tensors, **older.state)
    Trainer(short(), few, tmp_path, **CPU).resume().train(until=128, progress=False)
    assert load_checkpoint(path).state["data"]["shape"] == [100, 1, 28, 28]


def test_a_trainer_without_a_folder_has_nothing_to_resume(few):
    with pytest.raises(LessonError, match="run_dir is None; to resume, give the trainer the folder of a run"):
        Trainer(short(), few, **CPU).resume()


def test_training_until_image_0_saves_the_start(few, tmp_path):
    assert Trainer(short(), few, tmp_path, **CPU).train(until=0, progress=False).images_seen == 0
    resumed = Trainer(short(), few, tmp_path, **CPU).resume().train(progress=False)
    assert torch.equal(weights(resumed), weights(Trainer(short(), few, **CPU).train(progress=False)))


@pytest.mark.parametrize("train", [lambda trainer: trainer.train(progress=False), Trainer.step])
def test_training_leaves_the_random_numbers_of_others_alone(few, train):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    train(Trainer(short(images=64), few, **CPU))
    assert torch.equal(torch.rand(4), expected)


def test_what_is_drawn_for_weights_order_and_noise_has_seeds_of_its_own():
    seeds = [{seed_for(stream, number, seed=5) for number in range(1000)} for stream in RANDOM_STREAMS]
    assert len(set.union(*seeds)) == 3 * 1000
    assert seed_for("noise", 0, seed=5) != seed_for("noise", 0, seed=6)


@pytest.mark.parametrize(("before", "after"), [("float32", "fp16"), ("fp16", "float32")])
def test_a_run_goes_on_where_auto_is_another_precision(few, tmp_path, monkeypatch, before, after):
    def automatic(name):
        monkeypatch.setattr(trainer_module, "choose_precision", lambda _, device: choose_precision(name, device))

    automatic(before)
    Trainer(short(), few, tmp_path, **CPU).train(until=16, progress=False)
    automatic(after)
    with pytest.warns(UserWarning, match="won't end bitwise as if never interrupted: precision was float"):
        resumed = Trainer(short(), few, tmp_path, **CPU).resume().train(until=32, progress=False)
    assert resumed.scaler.is_enabled() == (after == "fp16")
    assert resumed.images_seen == 32
    assert torch.isfinite(weights(resumed)).all()


@pytest.mark.parametrize(("patience", "held"), [(60, 3), (0, 1)])
def test_a_second_ctrl_c_is_let_through_unless_it_comes_at_once(patience, held):
    passed = []

    def press_three_times():
        with deferred_signals(patience):
            for _ in range(3):  # the second at once: torchrun passes on what the terminal has sent already
                signal.raise_signal(signal.SIGINT)
                passed.append(True)
                time.sleep(0.01)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        press_three_times()
    assert len(passed) == held
    assert signal.getsignal(signal.SIGINT) is before


def test_the_seed_decides(few):
    first, same, other = (
        Trainer(short(f"training.seed={seed}", images=64), few, **CPU).train(progress=False) for seed in (1, 1, 2)
    )
    assert torch.equal(weights(first), weights(same))
    assert not torch.equal(weights(first), weights(other))


def test_half_precision_trains(few):
    trainer = Trainer(short("training.precision=bf16"), few, **CPU).train(progress=False)
    assert torch.isfinite(weights(trainer)).all()
    exact = Trainer(short("training.precision=float32"), few, **CPU).train(progress=False)
    assert trainer.losses[-1][1] == pytest.approx(exact.losses[-1][1], rel=0.05)


def test_a_step_goes_down_the_loss():
    model = torch.nn.Linear(4, 4, bias=False)
    images = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def loss(denoiser, x, class_labels):
        return (denoiser(x) - x) ** 2

    values = [train_step(model, loss, optimizer, images).item() for _ in range(300)]
    assert values[-1] < 0.01 * values[0]


def long_gradient(denoiser, images, class_labels):
    return 100 * denoiser(images)


@pytest.mark.parametrize("scaler", [None, torch.amp.GradScaler("cpu", init_scale=1024.0)])
def test_clipping_bounds_the_norm_of_the_gradient_and_keeps_its_direction(scaler):
    moves = {}
    for clip_norm in (0.5, 1e6):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 4)
        start = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        optimizer = torch.optim.SGD(model.parameters(), 1.0)
        train_step(model, long_gradient, optimizer, torch.ones(8, 4), clip_norm=clip_norm, scaler=scaler)
        moves[clip_norm] = start - torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    assert moves[0.5].norm() == pytest.approx(0.5, rel=1e-3)
    assert moves[1e6].norm() == pytest.approx(25 * (20**0.5), rel=1e-3), "the gradient itself"
    torch.testing.assert_close(moves[0.5] / moves[0.5].norm(), moves[1e6] / moves[1e6].norm(), rtol=1e-3, atol=1e-4)


def test_a_scaler_skips_a_step_whose_gradient_overflows():
    model, scaler = torch.nn.Linear(4, 4), torch.amp.GradScaler("cpu", init_scale=1e38)
    start = model.weight.detach().clone()
    value = train_step(
        model, long_gradient, torch.optim.SGD(model.parameters(), 1.0), torch.ones(8, 4), clip_norm=1.0, scaler=scaler
    )
    assert value.isfinite()
    assert torch.equal(model.weight, start)
    assert scaler.get_scale() < 1e38


def test_precision_is_the_one_named_or_the_fastest_that_the_device_multiplies():
    assert choose_precision("float32", "cpu") == torch.float32
    assert choose_precision("bf16", "cpu") == torch.bfloat16
    assert choose_precision("fp16", "cuda") == torch.float16
    assert choose_precision("auto", "mps") == torch.float32
    assert choose_precision("auto", "cpu") in (torch.float32, torch.bfloat16)


def test_a_torch_that_does_not_tell_what_the_processor_can_trains_in_float32(monkeypatch):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert choose_precision("auto", "cpu") == torch.float32


def test_images_and_labels_that_do_not_fit_the_configuration_are_refused(few):
    with pytest.raises(ValueError, match=r"The images are \(1, 28, 28\).*\(3, 28, 28\)"):
        Trainer(short("data.img_channels=3"), few, **CPU)
    with pytest.raises(ValueError, match=r"The labels go up to 2; network\.label_dim is 2"):
        Trainer(short("network.label_dim=2"), few, **CPU)


@pytest.mark.parametrize("name", ["edm", "ddpmpp", "ncsnpp", "adm"])
@pytest.mark.parametrize("img_channels", [1, 3])
def test_each_large_configuration_trains_resumes_exactly_and_is_sampled(name, img_channels, tmp_path):
    small = ["network.model_channels=8", "network.num_blocks=1", "network.label_dim=3", "network.label_dropout=0.1"]
    length = ["images=24", "batch_size=4", "warmup=8", "log_every=8", "save_every=8", "sample_every=0"]
    settings = [*small, *(f"training.{each}" for each in length), f"data.img_channels={img_channels}", "augment.p=0.5"]
    config = load_config(name, settings)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (16, img_channels, 32, 32), dtype=torch.uint8, generator=generator)
    images = Images(pixels, torch.arange(16) % 3)

    straight = Trainer(config, images, **CPU).train(progress=False)
    Trainer(config, images, tmp_path, **CPU).train(until=8, progress=False)
    resumed = Trainer(config, images, tmp_path, **CPU).resume().train(progress=False)
    assert torch.equal(weights(resumed), weights(straight))

    resumed.save_denoiser(tmp_path / "denoiser.safetensors")
    denoiser = load_denoiser(tmp_path / "denoiser.safetensors", "cpu")
    settings = {"classes": [0, 2], "num_steps": 2, "sampler": DESIGNS[denoiser.config.design.sampler].sample}
    samples = sample_images(denoiser, 2, **settings)
    assert samples.shape == (2, img_channels, 32, 32)
    assert torch.isfinite(samples).all()


def test_augmented_images_and_their_labels_reach_the_network(few):
    config = short("augment.p=1", "training.batch_size=8")
    trainer, seen = Trainer(config, few, **CPU), {}
    hook = trainer.denoiser.network.register_forward_pre_hook(lambda network, inputs: seen.update(labels=inputs[3]))
    trainer.step()
    hook.remove()
    assert seen["labels"].shape == (8, 9)
    assert (seen["labels"][:, 3:5] != 0).any(dim=1).all(), "every image is turned at probability 1"
    plain = trainer.ema_denoiser(few.batch(slice(2)), 1.0)
    assert torch.equal(plain, trainer.ema_denoiser(few.batch(slice(2)), 1.0, None, torch.zeros(2, 9)))
