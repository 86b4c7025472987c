"""The lesson U-Net: sizes, labels, gradients, and that it starts by answering nothing."""

import pytest
import torch

from edm_lesson.networks import LessonUNet, PositionalEmbedding, SelfAttention
from edm_lesson.preconditioning import EDMPrecond

SMALL = {"model_channels": 8, "channel_mult": (1, 2), "num_blocks": 1}


@pytest.mark.parametrize("patch_size", [1, 2])
@pytest.mark.parametrize(("resolution", "channels"), [(28, 1), (32, 1), (28, 3), (32, 3)])
def test_the_answer_is_shaped_like_the_question(resolution, channels, patch_size):
    attention = (resolution // patch_size // 2,)
    network = LessonUNet(
        resolution, channels, patch_size=patch_size, attn_resolutions=attention, label_dim=10, augment_dim=9, **SMALL
    )
    x = torch.randn(2, channels, resolution, resolution)
    assert network(x, torch.randn(2)).shape == x.shape
    assert network(x, torch.randn(2), torch.eye(10)[:2], torch.randn(2, 9)).shape == x.shape
    assert (network.img_resolution, network.img_channels, network.label_dim) == (resolution, channels, 10)


def test_before_training_the_denoiser_only_scales_its_input():
    denoiser, x = EDMPrecond(LessonUNet(**SMALL, attn_resolutions=(14,)), 0.5), torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(denoiser(x, 2.0), 0.25 / 4.25 * x)


def test_every_weight_learns():
    torch.manual_seed(0)
    network = LessonUNet(**SMALL, attn_resolutions=(14,), label_dim=3, augment_dim=2)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    x, labels = torch.randn(3, 1, 28, 28), torch.eye(3)
    for _ in range(6):  # layers that start at zero hold those before them back for a step
        optimizer.zero_grad()
        (
            (network(x, torch.tensor([-1.0, 0.0, 1.0]), labels, torch.randn(3, 2)) - torch.randn_like(x)) ** 2
        ).mean().backward()
        optimizer.step()
    still = [name for name, parameter in network.named_parameters() if torch.equal(parameter, before[name])]
    assert not still


def test_noise_level_class_and_augmentation_change_the_answer(make_denoiser):
    network = make_denoiser(label_dim=3, augment_dim=2).network
    x, c_noise, labels, augment = torch.randn(1, 1, 28, 28), torch.zeros(1), torch.eye(3)[:1], torch.zeros(1, 2)
    answer = network(x, c_noise, labels, augment)
    for other in [
        (c_noise + 1, labels, augment),
        (c_noise, torch.eye(3)[1:2], augment),
        (c_noise, labels, augment + 1),
    ]:
        assert (network(x, *other) - answer).abs().max() > 1e-4
    torch.testing.assert_close(network(x, c_noise, labels, None), answer)


def test_label_dropout_hides_the_class_of_some_images_in_training_only(make_denoiser):
    network = make_denoiser(img_resolution=4, label_dim=3, label_dropout=0.5).network
    x, labels, c_noise = torch.randn(1, 1, 4, 4).expand(400, 1, 4, 4), torch.eye(3)[:1].expand(400, 3), torch.zeros(400)
    told, untold = network(x, c_noise, labels), network(x, c_noise)
    found = network.train()(x, c_noise, labels)
    is_told, is_untold = ((found - case).abs().amax((1, 2, 3)) < 1e-5 for case in (told, untold))
    assert (is_told ^ is_untold).all()
    assert is_untold.float().mean().item() == pytest.approx(0.5, abs=0.1)
    torch.testing.assert_close(network.eval()(x, c_noise, labels), told)


@pytest.mark.parametrize("settings", [{}, {"attn_resolutions": (14,)}, {"patch_size": 2, "attn_resolutions": (7,)}])
def test_an_image_does_not_depend_on_its_neighbours_in_the_batch(make_denoiser, settings):
    denoiser, x, sigma = make_denoiser(**settings), torch.randn(5, 1, 28, 28), torch.tensor([0.1, 0.5, 1.0, 5.0, 50.0])
    torch.testing.assert_close(denoiser(x[2:3], sigma[2:3]), denoiser(x, sigma)[2:3], atol=1e-5, rtol=1e-4)


def test_attention_sees_every_pixel_and_the_order_of_pixels_does_not_matter():
    torch.manual_seed(0)
    attention = SelfAttention(8, num_heads=2)
    torch.nn.init.normal_(attention.proj.weight)
    x = torch.randn(1, 8, 4, 4)
    order = torch.randperm(16)
    shuffled = x.flatten(2)[:, :, order].reshape(x.shape)
    torch.testing.assert_close(
        attention(shuffled).flatten(2), attention(x).flatten(2)[:, :, order], atol=1e-5, rtol=1e-4
    )
    changed = x.clone()
    changed[0, :, 3, 3] += 5
    assert ((attention(changed) - attention(x))[0, :, 0, 0].abs() > 1e-4).any()


def test_the_embedding_is_cosines_and_sines():
    embedding = PositionalEmbedding(8)(torch.tensor([0.0, 1.5]))
    torch.testing.assert_close(embedding[0], torch.tensor([1.0] * 4 + [0.0] * 4))
    assert embedding[1, 0].item() == pytest.approx(torch.tensor(1.5).cos().item())
    torch.testing.assert_close((embedding[1, :4] ** 2 + embedding[1, 4:] ** 2), torch.ones(4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"img_resolution": 30, "channel_mult": (1, 2, 2), "attn_resolutions": ()},
            "img_resolution is 30;.* a multiple of 4",
        ),
        ({"attn_resolutions": (8,)}, r"attn_resolutions contains 8; the resolutions of this network are \[28, 14\]"),
        ({"dropout": -0.1}, "dropout probability has to be between 0 and 1, but got -0.1"),
        ({"label_dropout": 1.5}, "probability has to be between 0 and 1, but got 1.5"),
    ],
)
def test_impossible_networks_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LessonUNet(**{**SMALL, "attn_resolutions": (), **settings})


def test_images_that_the_levels_do_not_divide_are_refused(make_denoiser):
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        make_denoiser()(torch.zeros(1, 1, 27, 28), 1.0)
