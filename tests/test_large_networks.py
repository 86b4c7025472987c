"""DDPM++, NCSN++ and ADM: sizes counted on the reference, what they are made of, and that they learn."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edm_lesson.networks import ADM, DDPMpp, NCSNpp, ResidualBlock, SelfAttention
from edm_lesson.networks.paper import FourierEmbedding, Resample, Style, UNetBlock
from edm_lesson.preconditioning import EDMPrecond

THREE = pytest.mark.parametrize("network_type", [DDPMpp, NCSNpp, ADM])
SMALL = {"model_channels": 8, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (8,), "img_resolution": 16}


@pytest.fixture
def make():
    """A small network in evaluation mode with random weights throughout, so that none hides behind a zero."""

    def make(network_type, seed=0, **settings):
        torch.manual_seed(seed)
        network = network_type(**{**SMALL, **settings})
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.1)
        return network.eval()

    return make


def full_size(network_type, **settings):
    with torch.device("meta"):
        return network_type(**settings)


def inputs(batch=2, channels=1, resolution=16, classes=3, seed=1):
    """x, c_noise, one-hot labels and two augmentation labels for `batch` images."""
    torch.manual_seed(seed)
    x = torch.randn(batch, channels, resolution, resolution)
    return x, torch.randn(batch), torch.eye(classes)[torch.arange(batch) % classes], torch.randn(batch, 2)


@pytest.mark.parametrize(
    ("settings", "ddpmpp", "ncsnpp", "adm"),
    [
        ({}, 55_725_825, 56_384_001, 279_617_281),
        ({"augment_dim": 9}, 55_726_977, 56_386_305, 279_619_009),
        ({"img_channels": 3}, 55_732_739, 56_395_523, 279_624_195),
        ({"img_channels": 3, "augment_dim": 9, "label_dim": 10}, 55_735_299, 56_400_643, 279_633_603),
    ],
)
def test_parameters_are_as_many_as_the_reference_has(settings, ddpmpp, ncsnpp, adm):
    found = [sum(p.numel() for p in full_size(kind, **settings).parameters()) for kind in (DDPMpp, NCSNpp, ADM)]
    assert found == [ddpmpp, ncsnpp, adm]


@pytest.mark.parametrize(
    ("network_type", "attending"),
    [
        # level by level: the encoder's blocks, the bottleneck's two, the decoder's blocks; 0 for no attention
        (DDPMpp, [[0] * 4, [1] * 4, [0] * 4, [1, 0], [0] * 5, [0, 0, 0, 0, 1], [0] * 5]),
        (NCSNpp, [[0] * 4, [1] * 4, [0] * 4, [1, 0], [0] * 5, [0, 0, 0, 0, 1], [0] * 5]),
        (ADM, [[3] * 3, [6] * 3, [9] * 3, [0] * 3, [12, 0], [0] * 4, [9] * 4, [6] * 4, [3] * 4]),
    ],
)
def test_blocks_attend_where_the_paper_has_it_with_as_many_heads(network_type, attending):
    network = full_size(network_type)
    levels = [*network.encoder, network.bottleneck, *network.decoder]
    heads = [[getattr(block.attention, "num_heads", 0) for block in level] for level in levels]
    assert heads == attending
    assert not any(isinstance(block.attention, SelfAttention) for block in [*network.downs, *network.ups])


@THREE
@pytest.mark.parametrize(("resolution", "channels"), [(28, 1), (32, 1), (28, 3), (32, 3)])
def test_the_answer_is_shaped_like_the_question(make, network_type, resolution, channels):
    settings = {"channel_mult": (1, 2, 2), "label_dim": 3, "augment_dim": 2, "attn_resolutions": (resolution // 4,)}
    network = make(network_type, img_resolution=resolution, img_channels=channels, **settings)
    x, c_noise, labels, augment = inputs(2, channels, resolution)
    assert network(x, c_noise).shape == network(x, c_noise, labels, augment).shape == x.shape
    assert (network.img_resolution, network.img_channels, network.label_dim) == (resolution, channels, 3)


@THREE
def test_patches_of_two_make_a_quarter_of_the_pixels(make, network_type):
    network = make(network_type, img_channels=3, patch_size=2, attn_resolutions=(4,))
    seen = []
    network.conv_in.register_forward_hook(lambda module, args, output: seen.append(args[0].shape))
    assert network(*inputs(2, 3)[:2]).shape == (2, 3, 16, 16)
    assert seen == [(2, 12, 8, 8)]


@THREE
def test_before_training_the_denoiser_only_scales_its_input(network_type):
    denoiser, x = EDMPrecond(network_type(**SMALL, label_dim=3), 0.5), torch.randn(3, 1, 16, 16)
    torch.testing.assert_close(denoiser(x, 2.0, torch.arange(3)), 0.25 / 4.25 * x)


@THREE
def test_at_the_start_no_layer_is_given_next_to_nothing(network_type):
    """In DDPM++ each of the sums on the way to the bottom halves the variance of what is passed on: to 3e-9."""
    torch.manual_seed(0)
    settings = {"num_blocks": 4, "channel_mult": (2, 2, 2), "attn_resolutions": (16,), "img_resolution": 32}
    network, seen = network_type(model_channels=16, **settings).eval(), {}
    for name, module in network.named_modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_hook(lambda module, args, output, name=name: seen.update({name: output.std()}))
    with torch.no_grad():
        network(torch.randn(1, 1, 32, 32), torch.zeros(1))
    weak = {name: std.item() for name, std in seen.items() if std < 0.03}
    assert len(seen) > 60
    assert not weak


@THREE
def test_the_loss_falls_and_every_weight_learns(network_type):
    torch.manual_seed(0)
    network = network_type(**SMALL, label_dim=3, augment_dim=2)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    x, c_noise, labels, augment = inputs(6)
    target = F.avg_pool2d(x, 3, 1, 1) + labels[:, :1, None, None] + c_noise[:, None, None, None]
    losses = []
    for _ in range(25):
        loss = ((network(x, c_noise, labels, augment) - target) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    still = [name for name, parameter in network.named_parameters() if torch.equal(parameter, before[name])]
    assert not still


@THREE
def test_noise_level_class_and_augmentation_change_the_answer(make, network_type):
    network = make(network_type, label_dim=3, augment_dim=2)
    x, c_noise, labels, augment = inputs()
    answer = network(x, c_noise, labels, augment)
    for others in [(c_noise + 1, labels, augment), (c_noise, labels.roll(1, 1), augment), (c_noise, labels, -augment)]:
        assert ((network(x, *others) - answer).abs().amax((1, 2, 3)) > 1e-4).all()
    nothing = network(x, c_noise, torch.zeros(2, 3), torch.zeros(2, 2))
    torch.testing.assert_close(network(x, c_noise), nothing)


@THREE
def test_one_hot_labels_arrive_with_a_mean_square_of_1(make, network_type):
    network, seen = make(network_type, label_dim=5), []
    network.label_embedding.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    network(*inputs(5, classes=5)[:3])
    assert seen[0].square().mean().item() == pytest.approx(1)


@THREE
def test_an_image_does_not_depend_on_its_neighbours_in_the_batch(make, network_type):
    network = make(network_type, label_dim=3, augment_dim=2)
    everything = inputs(5)
    alone = network(*[value[2:3] for value in everything])
    torch.testing.assert_close(alone, network(*everything)[2:3], atol=1e-5, rtol=1e-4)


@THREE
def test_chance_plays_a_part_in_training_only(make, network_type):
    network, question = make(network_type, label_dim=3, label_dropout=0.5, dropout=0.5), inputs()[:3]
    assert torch.equal(network(*question), network(*question))
    network.train()
    assert not torch.equal(network(*question), network(*question))


@THREE
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_label_dropout_hides_the_class_of_a_share_of_the_images(make, network_type, share):
    network = make(network_type, label_dim=3, label_dropout=share, dropout=0.0)
    x, c_noise, labels = (value.repeat(200, *[1] * (value.ndim - 1)) for value in inputs(1, resolution=2)[:3])
    told, untold = network(x, c_noise, labels), network(x, c_noise)
    answer = network.train()(x, c_noise, labels)
    is_told, is_untold = ((answer - case).abs().amax((1, 2, 3)) < 1e-5 for case in (told, untold))
    assert (is_told ^ is_untold).all()
    assert is_untold.float().mean().item() == pytest.approx(share, abs=0.1)
    assert torch.equal(network(x, c_noise), network.eval()(x, c_noise))  # nothing to hide


@THREE
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.0125)])
def test_half_precision_stays_close(make, network_type, dtype, tolerance):
    network, question = make(network_type, label_dim=3, augment_dim=2), inputs()

    def run(enabled):
        network.zero_grad()
        with torch.autocast("cpu", dtype, enabled=enabled):
            answer = network(*question).float()
        (answer**2).mean().backward()
        return answer.detach(), torch.cat([parameter.grad.flatten() for parameter in network.parameters()])

    try:
        halves = run(True)
    except RuntimeError as error:
        pytest.skip(f"this processor does not compute in {dtype}: {error}")
    for half, full in zip(halves, run(False), strict=True):
        assert half.isfinite().all()
        assert (half - full).norm() < tolerance * full.norm()


@THREE
def test_memory_order_does_not_matter(make, network_type):
    network, question = make(network_type), inputs()[:2]
    answer = network(*question)
    network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(*question), answer, atol=1e-5, rtol=1e-4)


def test_a_training_step_compiles_into_one_graph(make):
    network = make(NCSNpp, label_dim=3, augment_dim=2, label_dropout=0.5, attn_resolutions=()).train()
    compiled, question = torch.compile(network, fullgraph=True, backend="eager"), inputs()
    torch.manual_seed(0)
    answer = compiled(*question)
    torch.manual_seed(0)
    torch.testing.assert_close(answer, network(*question))
    assert answer.requires_grad


@pytest.mark.parametrize(
    ("network_type", "settings", "message"),
    [
        (DDPMpp, {"img_resolution": 30}, "img_resolution is 30; 3 levels need a multiple of 4. Pad the images"),
        (DDPMpp, {"img_resolution": 28}, r"attn_resolutions contains 16; .* are \[28, 14, 7\]"),
        (NCSNpp, {"img_resolution": 28, "attn_resolutions": (14, 16)}, r"contains 16; .* are \[28, 14, 7\]"),
        (ADM, {"img_resolution": 28}, "img_resolution is 28; 4 levels need a multiple of 8"),
        (ADM, {"attn_resolutions": (64,)}, r"contains 64; .* are \[32, 16, 8, 4\]"),
        (DDPMpp, {"label_dropout": 1.5}, "probability has to be between 0 and 1, but got 1.5"),
        (DDPMpp, {"dropout": -0.1}, "dropout probability has to be between 0 and 1, but got -0.1"),
    ],
)
def test_impossible_networks_are_refused(network_type, settings, message):
    with pytest.raises(ValueError, match=message):
        full_size(network_type, **settings)


@THREE
def test_images_that_the_levels_do_not_divide_are_refused(make, network_type):
    network = make(network_type)
    with pytest.raises(RuntimeError, match=r"[Ss]ize"):
        network(torch.zeros(1, 1, 16, 15), torch.zeros(1))


def filtered(x, taps, rows):
    """`taps` along the height of x, beginning at each of `rows`; beyond its border x is zero."""
    padded = F.pad(x, (0, 0, 8, 8))
    weights = torch.tensor(taps) / sum(taps)
    return torch.stack([sum(w * padded[..., 8 + row + k, :] for k, w in enumerate(weights)) for row in rows], dim=-2)


@pytest.mark.parametrize(("taps", "start"), [((1, 1), 0), ((1, 3, 3, 1), -1)])
def test_going_down_filters_rows_and_columns_and_keeps_every_second(taps, start):
    x = torch.randn(2, 3, 8, 12)
    expected = filtered(filtered(x, taps, range(start, start + 8, 2)).mT, taps, range(start, start + 12, 2)).mT
    torch.testing.assert_close(Resample(taps, 0.5)(x), expected)


@pytest.mark.parametrize(("taps", "start"), [((1, 1), -1), ((1, 3, 3, 1), -2)])
def test_factor_1_filters_between_the_pixels(taps, start):
    x = torch.randn(2, 3, 8, 12)
    expected = filtered(filtered(x, taps, range(start, start + 9)).mT, taps, range(start, start + 13)).mT
    torch.testing.assert_close(Resample(taps, 1)(x), expected)


def test_two_taps_take_means_of_four_pixels_and_repeat_pixels():
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(Resample((1, 1), 0.5)(x), F.avg_pool2d(x, 2))
    torch.testing.assert_close(Resample((1, 1), 2)(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_four_taps_interpolate_linearly_on_the_way_up():
    x = torch.randn(2, 3, 8, 8)
    expected = F.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(Resample((1, 3, 3, 1), 2)(x)[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
def test_resampling_keeps_brightness(taps):
    """Constant images stay as they are inside the border, and the mean of what does not touch it stays exactly."""
    for factor in (0.5, 1, 2):
        inside = Resample(taps, factor)(torch.full((1, 2, 8, 8), 0.7))[..., 2:-2, 2:-2]
        torch.testing.assert_close(inside, torch.full_like(inside, 0.7))
    x = F.pad(torch.rand(2, 3, 6, 6), (2, 2, 2, 2))
    for factor in (0.5, 2):
        torch.testing.assert_close(Resample(taps, factor)(x).mean((2, 3)), x.mean((2, 3)))


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
def test_going_up_is_four_times_the_transpose_of_going_down(taps):
    high, low = torch.randn(1, 3, 8, 8), torch.randn(1, 3, 4, 4)
    up, down = (Resample(taps, 2)(low) * high).sum(), (Resample(taps, 0.5)(high) * low).sum()
    torch.testing.assert_close(up, 4 * down)


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
def test_the_residual_encoders_convolution_sees_the_image_before_it_is_halved(taps):
    """It is the same to convolve, filter and halve, but for the border; at a quarter of the cost."""
    conv, x = nn.Conv2d(3, 5, 3), torch.randn(1, 3, 16, 16)
    halved = F.conv2d(Resample(taps, 1)(x), conv.weight, conv.bias, stride=2)
    expected = Resample(taps, 0.5)(F.conv2d(x, conv.weight, conv.bias, padding=1))
    assert halved.shape == expected.shape
    torch.testing.assert_close(halved[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1e-5, rtol=1e-4)


def test_the_residual_encoder_adds_what_it_makes_of_the_level_above(make):
    network, caught = make(NCSNpp, channel_mult=(1, 2, 2)), {}
    for name in ["downs.0", "residuals.0", "encoder.1.0", "downs.1", "residuals.1", "encoder.2.0"]:
        network.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: caught.update({name: (args[0], output)})
        )
    x = inputs()[0]
    network(x, torch.zeros(2))
    assert torch.equal(caught["residuals.0"][0], x)
    assert torch.equal(caught["residuals.1"][0], caught["encoder.1.0"][0])
    for level in (0, 1):
        both = caught[f"downs.{level}"][1] + caught[f"residuals.{level}"][1]
        torch.testing.assert_close(caught[f"encoder.{level + 1}.0"][0], both * math.sqrt(0.5))


@pytest.mark.parametrize(("network_type", "passed_on"), [(DDPMpp, math.sqrt(0.5)), (NCSNpp, math.sqrt(0.5)), (ADM, 1)])
def test_blocks_of_a_new_network_pass_on_their_input_scaled(network_type, passed_on):
    network, x, emb = network_type(**SMALL), torch.randn(2, 16, 8, 8), torch.randn(2, 32)
    torch.testing.assert_close(network.bottleneck[1](x, emb), x * passed_on)
    torch.testing.assert_close(network.bottleneck[0](x, emb), x * passed_on**2)  # it attends: two sums


def test_the_papers_block_is_the_lessons_block_that_can_do_more():
    torch.manual_seed(0)
    lesson, paper = ResidualBlock(8, 16, 4, attention=True), UNetBlock(8, 16, 4, attention=True)
    for parameter in lesson.parameters():
        nn.init.normal_(parameter)
    paper.load_state_dict(lesson.state_dict())
    x, emb = torch.randn(2, 8, 6, 6), torch.randn(2, 4)
    assert torch.equal(paper(x, emb), lesson(x, emb))


@pytest.mark.parametrize("attention", [False, True])
def test_a_new_block_passes_on_its_input_scaled_once_a_sum(attention):
    style = Style(skip_scale=math.sqrt(0.5), head_channels=4)
    block, x = UNetBlock(8, 8, 4, attention=attention, style=style), torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(block(x, torch.randn(2, 4)), x * (0.5 if attention else math.sqrt(0.5)))


@pytest.mark.parametrize("factor", [0.5, 2])
def test_a_block_resamples_both_of_its_branches(factor):
    torch.manual_seed(0)
    resample = Resample((1, 1), factor)
    block = UNetBlock(4, 4, 4, resample=resample, style=Style(adaptive_scale=False))
    x, emb = torch.randn(2, 4, 6, 6), torch.randn(2, 4)
    nn.init.normal_(block.conv1.weight)
    h = block.conv0(resample(F.silu(block.norm0(x)))) + block.affine(emb)[:, :, None, None]
    torch.testing.assert_close(block(x, emb), resample(x) + block.conv1(F.silu(block.norm1(h))))


@pytest.mark.parametrize(("network_type", "projected"), [(DDPMpp, True), (NCSNpp, True), (ADM, False)])
def test_only_ddpmpp_and_ncsnpp_project_the_shortcut_of_resampling_blocks(network_type, projected):
    network = network_type(**SMALL)
    assert [isinstance(block.skip, nn.Conv2d) for block in [*network.downs, *network.ups]] == [projected] * 2


def test_fourier_frequencies_are_saved_but_not_trained(make):
    first, second = make(NCSNpp, seed=0), make(NCSNpp, seed=1)
    question = inputs()[:2]
    assert not torch.equal(first.embedding.frequencies, second.embedding.frequencies)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(*question), second(*question))
    assert not list(first.embedding.parameters())


def test_fourier_frequencies_are_normal_with_a_deviation_of_16_turns():
    torch.manual_seed(0)
    embedding = FourierEmbedding(20_000)
    turns = embedding.frequencies / (2 * math.pi)
    assert turns.std().item() == pytest.approx(16, rel=0.03)
    assert abs(turns.mean().item()) < 0.5
    cosines, sines = embedding(torch.tensor([0.01]))[0].chunk(2)
    angles = torch.atan2(sines, cosines)
    within = turns.abs() * 0.01 < 0.49  # of a turn: nearly all
    torch.testing.assert_close(angles[within], 2 * math.pi * 0.01 * turns[within], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(embedding(torch.zeros(1))[0], torch.cat([torch.ones(10_000), torch.zeros(10_000)]))
