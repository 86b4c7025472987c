"""The augmentation: what happens to a picture is what its labels say, as often as asked for, and nothing else does."""

import math

import pytest
import torch
import torch.nn.functional as F

from edm_lesson.augment import AugmentPipe, affine, compose, flip, resample, rotate, scale, stretch, translate
from edm_lesson.losses import EDMLoss
from edm_lesson.networks import ADM, DDPMpp, LessonUNet, NCSNpp
from edm_lesson.preconditioning import EDMPrecond

NOTHING = {"xflip": 0, "yflip": 0, "scale": 0, "rotate": 0, "aniso": 0, "translate": 0}
COLUMNS = {"xflip": [0], "yflip": [1], "scale": [2], "rotate": [3, 4], "aniso": [5, 6], "translate": [7, 8]}
BLOB = (12.0, -7.0)  # right and down from the centre, so this is right of it and above


def numbers(*values):
    return torch.tensor(values, dtype=torch.float32)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def only(name, p=1.0):
    return AugmentPipe(p, **{**NOTHING, name: 1})


def noise(*shape):
    return torch.randn(shape, generator=seeded(99))


def blobs(batch, size=64):
    """Pictures of one round spot at BLOB."""
    at = torch.arange(size) - (size - 1) / 2
    spot = torch.exp(-((at[None] - BLOB[0]) ** 2 + (at[:, None] - BLOB[1]) ** 2) / (2 * 3.0**2))
    return spot.expand(batch, 1, size, size)


def follow(labels, point, size):
    """Where `point` goes, (x right, y up) from the centre, one transformation after another, as nine labels say."""
    xflip, yflip, grow, cos_1, sin, along, across, right, down = labels.tolist()
    z = complex(*point)
    z = complex(-z.real if xflip else z.real, -z.imag if yflip else z.imag)
    z *= 2 ** (0.2 * grow)
    z *= complex(cos_1 + 1, sin)
    n = math.copysign(math.hypot(along, across), along)
    if n:
        axis = complex(along, across) / n
        z *= axis.conjugate()
        z = complex(z.real * 2 ** (0.2 * n), z.imag / 2 ** (0.2 * n)) * axis
    return z + complex(right, -down) * size / 8


@pytest.mark.parametrize("name", [*NOTHING, "all"])
def test_the_labels_say_where_each_point_of_the_picture_went(name):
    augment = AugmentPipe(p=1) if name == "all" else only(name)
    images, labels = augment(blobs(200), seeded())
    seen = 0
    for image, label in zip(images[:, 0], labels, strict=True):
        z = follow(label, (BLOB[0], -BLOB[1]), 64)
        column, row = round(z.real + 31.5), round(31.5 - z.imag)
        if 0 <= column < 64 and 0 <= row < 64:
            seen += 1
            assert image[row, column] > 0.8, f"{name}: the spot is not where the labels {label.tolist()} say"
    assert seen > 100


@pytest.mark.parametrize("name", NOTHING)
def test_a_transformation_alone_fills_its_own_labels_only(name):
    _, labels = only(name)(noise(500, 1, 4, 4), seeded())
    columns = COLUMNS[name]
    assert labels[:, columns].any(), "nothing happened"
    assert not labels[:, [i for i in range(AugmentPipe.label_dim) if i not in columns]].any()
    happened = labels.any(dim=1).float().mean().item()
    assert happened == pytest.approx(0.5, abs=0.07) if "flip" in name else happened == 1


@pytest.mark.parametrize(
    ("step", "label"),
    [
        (flip(numbers(0), numbers(0)), (0, 0)),
        (scale(numbers(0)), (0,)),
        (rotate(numbers(0)), (0, 0)),
        (stretch(numbers(0), numbers(0)), (0, 0)),
        (translate(numbers(0), numbers(0), 28, 28), (0, 0)),
    ],
)
def test_no_amount_is_the_identity_with_labels_zero(step, label):
    assert torch.equal(step[0], torch.eye(3)[None])
    assert torch.equal(step[1], numbers(*label)[None])


def test_the_matrices_and_labels_of_known_amounts():
    matrix, label = flip(numbers(1), numbers(0))
    assert matrix[0].tolist() == [[-1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert label.tolist() == [[1, 0]]
    matrix, label = scale(numbers(5))
    torch.testing.assert_close(
        matrix[0], torch.diag(numbers(0.5, 0.5, 1))
    )  # twice as large: half as far from the centre
    assert label.tolist() == [[5]]
    matrix, label = rotate(numbers(math.pi / 6))
    torch.testing.assert_close(matrix[0, :2, :2], numbers(3**0.5, -1, 1, 3**0.5).reshape(2, 2) / 2)
    torch.testing.assert_close(label, numbers(3**0.5 / 2 - 1, 0.5)[None])
    matrix, label = stretch(numbers(5), numbers(math.pi / 2))
    torch.testing.assert_close(matrix[0], torch.diag(numbers(2, 0.5, 1)))  # twice as high, half as wide
    torch.testing.assert_close(label, numbers(0, 5)[None])
    matrix, label = translate(numbers(1), numbers(-2), width=32, height=64)
    assert matrix[0].tolist() == [[1, 0, -4], [0, 1, 16], [0, 0, 1]]
    assert label.tolist() == [[1, -2]]


def test_stretching_keeps_the_area_and_its_axis():
    n, angle = noise(50), 3 * noise(50)
    matrix, label = stretch(n, angle)
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(50))
    axis = torch.stack([angle.cos(), -angle.sin()], dim=1)[:, :, None]  # y points down
    torch.testing.assert_close(matrix[:, :2, :2] @ axis, axis * 2 ** (-0.2 * n)[:, None, None])
    torch.testing.assert_close(label.norm(dim=1), n.abs())


def test_compose_is_the_product_of_matrices():
    a, b = noise(5, 3, 3), noise(5, 3, 3).flip(0)
    torch.testing.assert_close(compose(a, b), a @ b)


def test_each_happens_as_often_as_the_reference_says():
    _, labels = AugmentPipe(p=0.12).draw(torch.empty(100_000, 1, 2, 2), seeded())
    happened = torch.stack([labels[:, columns].any(dim=1) for columns in COLUMNS.values()], dim=1).double()
    expected = torch.tensor([0.5, 0.06, 0.12, 0.12, 0.12, 0.12], dtype=torch.float64)
    torch.testing.assert_close(happened.mean(0), expected, atol=0.005, rtol=0)
    untouched = (~labels.any(dim=1)).double().mean().item()
    assert untouched == pytest.approx(0.5 * 0.94 * 0.88**4, abs=0.005)
    assert untouched == pytest.approx(0.28, abs=0.01)
    together = torch.cov(happened.T) - torch.diag(expected * (1 - expected))
    assert together.abs().max() < 0.005, "whether one happens must not depend on another"


def test_the_amounts_are_distributed_as_in_the_paper():
    _, labels = AugmentPipe(p=1).draw(torch.empty(100_000, 1, 2, 2), seeded())
    for column in (2, 7, 8):
        assert labels[:, column].mean().item() == pytest.approx(0, abs=0.02)
        assert labels[:, column].std().item() == pytest.approx(1, abs=0.02)
    assert torch.corrcoef(labels[:, 7:].T)[0, 1].abs() < 0.02, "right and down are drawn apart"

    angle = torch.atan2(labels[:, 4], labels[:, 3] + 1)
    torch.testing.assert_close(
        angle.histc(8, -math.pi, math.pi) / len(angle), torch.full((8,), 1 / 8), atol=0.005, rtol=0
    )

    assert labels[:, 5:7].norm(dim=1).square().mean().item() == pytest.approx(1, abs=0.02)
    turned = labels[:, 6] != 0
    assert turned.double().mean().item() == pytest.approx(0.5, abs=0.01)
    axis = torch.atan(labels[turned, 6] / labels[turned, 5])
    shares = axis.histc(8, -math.pi / 2, math.pi / 2) / len(axis)
    torch.testing.assert_close(shares, torch.full((8,), 1 / 8), atol=0.01, rtol=0)
    assert (labels[:, 5] > 0).double().mean().item() == pytest.approx(0.5, abs=0.01), "shrunk as often as stretched"


@pytest.mark.parametrize("multiplier", [0, 0.5, 1, 1e8])
def test_a_multiplier_changes_how_often(multiplier):
    _, labels = AugmentPipe(p=0.4, **dict.fromkeys(NOTHING, multiplier)).draw(torch.empty(20_000, 1, 2, 2), seeded())
    for name, columns in COLUMNS.items():
        expected = min(multiplier if name == "xflip" else 0.4 * multiplier, 1) * (0.5 if "flip" in name else 1)
        assert labels[:, columns].any(dim=1).double().mean().item() == pytest.approx(expected, abs=0.02), name


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [7, 28])
def test_turning_by_90_degrees_is_rot90(turns, size):
    images = noise(3, 1, size, size)
    matrix, _ = rotate(torch.full((3,), turns * math.pi / 2))
    torch.testing.assert_close(resample(images, matrix), torch.rot90(images, turns, (2, 3)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("x", "y", "dims"), [(1, 0, (3,)), (0, 1, (2,)), (1, 1, (2, 3))])
def test_flips_are_flips(x, y, dims):
    images = noise(2, 3, 28, 20)
    flipped = resample(images, flip(torch.full((2,), float(x)), torch.full((2,), float(y)))[0])
    torch.testing.assert_close(flipped, images.flip(dims), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, -5), (-2, 7)])
def test_moving_by_whole_pixels_rolls_the_inside_and_mirrors_the_border(right, down):
    images = noise(2, 1, 32, 32)
    matrix, _ = translate(torch.full((2,), right / 4), torch.full((2,), down / 4), 32, 32)
    moved = resample(images, matrix)
    rolled = images.roll((down, right), (2, 3))
    torch.testing.assert_close(moved[..., 8:-8, 8:-8], rolled[..., 8:-8, 8:-8], atol=1e-4, rtol=0)
    mirrored = F.pad(images, (8, 8, 8, 8), mode="reflect")[..., 8 - down : 40 - down, 8 - right : 40 - right]
    torch.testing.assert_close(moved, mirrored, atol=1e-4, rtol=0)


def waves(x, y):
    """A picture known everywhere, not only at pixels; its shortest wave is 6 pixels long."""
    return torch.sin(x + 0.2 * y) + 0.5 * torch.cos(0.7 * y - 0.3 * x + 1) + 0.3 * torch.sin(0.3 * x + 0.1 * y)


def test_between_pixels_a_picture_is_what_it_would_have_been_there():
    y, x = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(32) - 15.5, indexing="ij")
    images = waves(x, y).expand(100, 1, 32, 32)
    matrix, _ = AugmentPipe(p=1).draw(images, seeded())
    places = torch.einsum("bij,jp->bip", matrix, torch.stack([x.flatten(), y.flatten(), torch.ones(32 * 32)]))
    expected = waves(places[:, 0], places[:, 1]).reshape(100, 1, 32, 32)
    inside = (places[:, :2].abs().amax(1) < 13).reshape(100, 1, 32, 32)
    error = (resample(images, matrix) - expected)[inside].square().mean().sqrt().item()
    linear = F.grid_sample(
        images, places[:, :2].mT.reshape(100, 32, 32, 2) / 15.5, padding_mode="reflection", align_corners=True
    )
    error_of_linear = (linear - expected)[inside].square().mean().sqrt().item()
    assert error < 0.03
    assert error < 0.5 * error_of_linear


def test_what_was_enlarged_can_be_shrunk_again():
    at = torch.arange(32) - 15.5
    images = waves(at[None], at[:, None]).expand(20, 1, 32, 32)
    n = torch.linspace(0.2, 2, 20)
    again = resample(resample(images, scale(n)[0]), scale(-n)[0])
    error = (again - images)[..., 8:-8, 8:-8].square().mean().sqrt()
    assert error < 0.03 * images.std()
    torch.testing.assert_close(compose(scale(n)[0], scale(-n)[0]), torch.eye(3).expand(20, 3, 3))


def test_a_picture_that_is_not_square_is_turned_without_being_squeezed():
    images = noise(1, 1, 20, 32)
    turned = resample(images, rotate(numbers(math.pi / 2))[0])
    assert turned.shape == images.shape
    middle = images[..., 6:26]  # as wide as high
    torch.testing.assert_close(turned[..., 6:26], torch.rot90(middle, 1, (2, 3)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_labels_are_zero_exactly_where_the_image_is_untouched(channels):
    images = noise(400, channels, 8, 8)
    augmented, labels = AugmentPipe(p=0.12)(images, seeded())
    same = (augmented == images).flatten(1).all(1)
    assert torch.equal(same, ~labels.any(dim=1))
    assert 0.2 < same.double().mean() < 0.36


@pytest.mark.parametrize("augment", [AugmentPipe(p=0), AugmentPipe(p=1, **NOTHING)])
def test_with_nothing_to_do_images_pass_bit_for_bit(augment):
    images = noise(20, 1, 28, 28)
    augmented, labels = augment(images)
    assert torch.equal(augmented, images)
    assert torch.equal(labels, torch.zeros(20, 9))


def test_a_generator_makes_it_repeatable_and_leaves_other_random_numbers_alone():
    augment, images = AugmentPipe(p=0.5), noise(30, 1, 8, 8)
    state = torch.get_rng_state()
    first, again, other = (augment(images, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


def test_every_image_gets_its_own_transformation():
    images = noise(1, 1, 8, 8).expand(50, -1, -1, -1)
    augmented, labels = AugmentPipe(p=1)(images, seeded())
    assert len(labels.unique(dim=0)) == 50
    assert len(augmented.flatten(1).unique(dim=0)) == 50
    assert torch.equal(images, noise(1, 1, 8, 8).expand(50, -1, -1, -1)), "the images given were written to"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(6, 1, 28, 28), (6, 3, 12, 20), (0, 1, 28, 28)])
def test_shape_and_dtype_are_kept(dtype, shape):
    images = noise(*shape).to(dtype)
    augmented, labels = AugmentPipe(p=1)(images, seeded())
    assert (augmented.shape, augmented.dtype, augmented.device) == (images.shape, dtype, images.device)
    assert (labels.shape, labels.dtype, labels.device) == (
        (shape[0], AugmentPipe.label_dim),
        torch.float32,
        images.device,
    )
    exact, _ = AugmentPipe(p=1)(images.double(), seeded())
    torch.testing.assert_close(augmented.double(), exact, atol=4 * torch.finfo(dtype).eps + 1e-4, rtol=0.01)


def test_no_value_is_waited_for():
    augmented, labels = AugmentPipe()(torch.empty(4, 3, 32, 32, device="meta"))  # there are no values on it
    assert augmented.device.type == labels.device.type == "meta"
    assert augmented.shape == (4, 3, 32, 32)


def test_half_precision_around_it_makes_nothing_coarser():
    images = noise(10, 1, 28, 28)
    plain = AugmentPipe(p=1)(images, seeded())
    with torch.autocast("cpu", torch.bfloat16):
        inside = AugmentPipe(p=1)(images, seeded())
    torch.testing.assert_close(inside, plain)


def test_the_channels_of_a_picture_move_together():
    images = noise(40, 3, 16, 16)
    augmented, labels = AugmentPipe(p=0.5)(images, seeded())
    for channel in range(3):
        alone, alone_labels = AugmentPipe(p=0.5)(images[:, channel : channel + 1], seeded())
        assert torch.equal(alone_labels, labels)
        torch.testing.assert_close(augmented[:, channel : channel + 1], alone)


def test_no_colour_is_made_up_outside_the_frame():
    images = noise(40, 3, 16, 16)
    offset = numbers(-0.7, 0.2, 3).reshape(3, 1, 1)
    augmented, _ = AugmentPipe(p=1)(images, seeded())
    shifted, _ = AugmentPipe(p=1)(images + offset, seeded())
    torch.testing.assert_close(shifted, augmented + offset, atol=1e-5, rtol=1e-5)


def test_a_loss_hands_the_labels_to_a_denoiser_that_has_room_for_them(make_denoiser):
    denoiser, augment = make_denoiser(img_resolution=8, augment_dim=AugmentPipe.label_dim), AugmentPipe(p=1)
    images = noise(4, 1, 8, 8)
    torch.manual_seed(0)
    with torch.no_grad():
        loss = EDMLoss()(denoiser, images, augment=augment, generator=seeded())
        torch.manual_seed(0)
        unlabelled = EDMLoss()(denoiser, images, augment=lambda *args: (augment(*args)[0], None), generator=seeded())
    assert loss.shape == images.shape
    assert not torch.allclose(loss, unlabelled), "the denoiser did not look at the labels"


@pytest.mark.parametrize("network_type", [LessonUNet, DDPMpp, NCSNpp, ADM])
def test_a_network_that_has_no_room_for_labels_does_not_pass_over_them(network_type):
    """It would learn to draw turned digits, and nobody would know why."""
    small = {"model_channels": 8, "channel_mult": (1,), "num_blocks": 1, "attn_resolutions": ()}
    denoiser, augment = EDMPrecond(network_type(8, **small)), AugmentPipe(p=1)
    with pytest.raises(TypeError):
        EDMLoss()(denoiser, noise(4, 1, 8, 8), augment=augment)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(5, 1, 8, 8, dtype=torch.uint8), r"images is torch\.uint8"),
        (torch.zeros(1, 8, 8), r"shape \(1, 8, 8\)"),
    ],
)
def test_images_that_it_can_not_take_are_refused_even_when_nothing_is_to_be_done(images, message):
    for p in (0, 0.12):
        with pytest.raises(ValueError, match=message):
            AugmentPipe(p)(images)


@pytest.mark.parametrize(
    ("name", "value"), [("p", -0.1), ("p", 1.5), ("p", math.nan), *((name, -1) for name in NOTHING), ("scale", "much")]
)
def test_impossible_settings_are_refused_with_the_value(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value!r}; it must be a finite number"):
        AugmentPipe(**{name: value})


def test_affine_lays_out_its_rows():
    matrix = affine(numbers(1, 7), 2, 3, 4, 5, 6)
    assert matrix.tolist() == [[[x, 2, 5], [3, 4, 6], [0, 0, 1]] for x in (1, 7)]
