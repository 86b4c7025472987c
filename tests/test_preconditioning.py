"""The preconditionings: their coefficients, EDM's promise of unit variance, and what they take and refuse."""

import math
from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edm_lesson.checks import per_image
from edm_lesson.losses import EDMLoss
from edm_lesson.preconditioning import Centered, EDMPrecond, IDDPMPrecond, VEPrecond, VPPrecond
from edm_lesson.schedules import iddpm_table


class Echo(torch.nn.Module):
    """A network that answers with its input and remembers what it was given."""

    img_channels, img_resolution, label_dim = 1, 4, 3

    def forward(self, x, c_noise, class_labels=None, augment_labels=None):
        self.seen = x, c_noise, class_labels, augment_labels
        return x


def images(batch=4):
    return torch.randn(batch, 1, 4, 4, generator=torch.Generator().manual_seed(0))


ALL = [EDMPrecond, VPPrecond, VEPrecond, IDDPMPrecond]


@pytest.mark.parametrize("sigma", [0.002, 0.5, 7.0, 80.0])
def test_coefficients_are_those_of_table_1(sigma):
    sd = 0.6
    c_skip, c_out, c_in, c_noise = (c.item() for c in EDMPrecond(Echo(), sd).coefficients(torch.tensor(sigma).double()))
    assert c_skip == pytest.approx(sd**2 / (sigma**2 + sd**2))
    assert c_out == pytest.approx(sigma * sd / math.sqrt(sigma**2 + sd**2))
    assert c_in == pytest.approx(1 / math.sqrt(sigma**2 + sd**2))
    assert c_noise == pytest.approx(math.log(sigma) / 4)
    assert EDMLoss(sigma_data=sd).weight(sigma) * c_out**2 == pytest.approx(1), "lambda is 1 / c_out squared"


def test_the_denoiser_puts_them_together():
    denoiser, x, sigma = EDMPrecond(Echo(), 0.5), images(), torch.tensor([0.1, 1.0, 5.0, 80.0])
    total = (sigma**2 + 0.25)[:, None, None, None]
    expected = 0.25 / total * x + sigma[:, None, None, None] * 0.5 / total.sqrt() * (x / total.sqrt())
    torch.testing.assert_close(denoiser(x, sigma), expected)
    torch.testing.assert_close(denoiser.network.seen[1], sigma.log() / 4)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("sigma", [0.01, 0.3, 1.0, 10.0, 80.0])
def test_input_and_target_have_unit_variance_with_the_standard_deviation_of_mnist(mnist, sigma, center):
    y = (mnist.batch(slice(2000)) - (mnist.mean() if center else 0)).double()
    denoiser = EDMPrecond(Echo(), y.std().item())
    x = y + sigma * torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    c_skip, c_out, c_in, _ = denoiser.coefficients(torch.tensor(sigma, dtype=torch.float64))
    assert (c_in * x).var().item() == pytest.approx(1, abs=0.01)
    assert ((y - c_skip * x) / c_out).var().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 1.0, 10.0, 80.0])
def test_second_moments_are_one_with_the_rms_of_mnist(mnist, sigma):
    y = mnist.batch(slice(2000)).double()
    denoiser = EDMPrecond(Echo(), (y**2).mean().sqrt().item())
    x = y + sigma * torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    c_skip, c_out, c_in, _ = denoiser.coefficients(torch.tensor(sigma, dtype=torch.float64))
    assert ((c_in * x) ** 2).mean().item() == pytest.approx(1, abs=0.01)
    assert (((y - c_skip * x) / c_out) ** 2).mean().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    "sigma",
    [2.0, 2, torch.tensor(2.0), torch.tensor([2.0]), torch.full((4,), 2.0), torch.full((4, 1, 1, 1), 2.0).double()],
)
def test_sigma_may_have_any_of_the_usual_shapes(sigma):
    denoiser, x = EDMPrecond(Echo()), images()
    torch.testing.assert_close(denoiser(x, sigma), denoiser(x, 2.0))
    assert denoiser.network.seen[1].shape == (4,)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_answer_is_float32(dtype):
    assert EDMPrecond(Echo())(images().to(dtype), 1.0).dtype == torch.float32


def test_labels_may_be_integers_one_hot_or_none():
    denoiser, x = EDMPrecond(Echo()), images()
    one_hot = torch.eye(3)[[2, 0, 1, 1]]
    for labels in (torch.tensor([2, 0, 1, 1]), torch.tensor([2, 0, 1, 1], dtype=torch.int32), [2, 0, 1, 1], one_hot):
        denoiser(x, 1.0, labels, augment_labels="augmented")
        torch.testing.assert_close(denoiser.network.seen[2], one_hot)
    assert denoiser.network.seen[3] == "augmented"
    denoiser(x, 1.0)
    assert (denoiser.network.seen[2] == 0).all()


@pytest.mark.parametrize(
    ("x", "sigma", "labels", "message"),
    [
        (torch.zeros(4, 4), 1.0, None, r"\(4, 4\)"),
        (torch.zeros(4, 2, 4, 4), 1.0, None, r"x has shape \(4, 2, 4, 4\); it must be \(batch, 1, height, width\)"),
        (torch.zeros(4, 1, 4, 4, dtype=torch.uint8), 1.0, None, "uint8"),
        (images(), -1.0, None, "sigma contains -1.0"),
        (images(), 0, None, "sigma contains 0"),
        (images(), math.nan, None, "sigma contains nan"),
        (images(), math.inf, None, "sigma contains inf"),
        (images(), torch.tensor([1.0, 2.0, -3.0, 4.0]), None, "sigma contains -3.0"),
        (images(), torch.ones(3), None, r"\(3,\)"),
        (images(), 1.0, torch.tensor([0, 1, 2, 3]), "class_labels contains 3"),
        (images(), 1.0, torch.tensor([0, -1, 2, 1]), "class_labels contains -1"),
        (images(), 1.0, torch.tensor([0, 1]), r"\(2,\)"),
        (images(), 1.0, torch.zeros(4, 5), r"\(4, 5\)"),
        (images(), 1.0, torch.zeros(4), "float32"),
    ],
)
def test_bad_calls_are_refused_with_the_value(x, sigma, labels, message):
    with pytest.raises(ValueError, match=message):
        EDMPrecond(Echo())(x, sigma, labels)


def test_labels_for_a_model_without_classes_are_refused(make_denoiser):
    with pytest.raises(ValueError, match="no classes"):
        make_denoiser()(torch.zeros(2, 1, 28, 28), 1.0, torch.tensor([0, 1]))


@pytest.mark.parametrize("sigma_data", [0, -1, math.nan, math.inf, "0.5"])
def test_sigma_data_must_be_positive(sigma_data):
    with pytest.raises(ValueError, match="sigma_data is"):
        EDMPrecond(Echo(), sigma_data)


@pytest.mark.parametrize("precond", ALL)
@given(sigma=st.one_of(st.floats(1e-6, 1e6), st.floats(width=32)))
def test_any_sigma_gives_finite_images_or_a_value_error(precond, sigma):
    try:
        denoised = precond(Echo())(images(), sigma)
    except ValueError:
        return
    assert torch.isfinite(denoised).all()


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_any_sigma_data_gives_finite_images(sigma, sigma_data):
    assert torch.isfinite(EDMPrecond(Echo(), sigma_data)(images(), sigma)).all()


def test_half_precision_stays_finite_and_close(make_denoiser):
    denoiser, x = make_denoiser(), torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    exact = denoiser(x, 0.7)
    with torch.autocast("cpu", torch.bfloat16):
        half = denoiser(x, 0.7)
    assert half.dtype == torch.float32
    assert (half - exact).abs().max() < 0.05 * exact.abs().max()


def test_it_compiles_without_a_break_in_the_graph(make_denoiser):
    denoiser, x = make_denoiser(label_dim=3), torch.randn(2, 1, 28, 28)
    sigma, labels = torch.tensor([0.5, 2.0]), torch.tensor([0, 2])
    compiled = torch.compile(denoiser, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, sigma, labels), denoiser(x, sigma, labels))


@pytest.mark.parametrize("precond", [VPPrecond, VEPrecond, IDDPMPrecond])
def test_the_older_designs_compile_as_well(precond):
    denoiser, sigma = precond(lambda x, c_noise, *_: x + c_noise[:, None, None, None]), torch.tensor([0.5, 2.0])
    compiled = torch.compile(denoiser, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images(2), sigma), denoiser(images(2), sigma))


@pytest.mark.parametrize("precond", ALL)
def test_a_device_is_never_waited_for(precond):
    denoiser = precond(Echo()).to("meta")  # where there are no values to look at
    assert denoiser(images().to("meta"), torch.ones(4, device="meta")).shape == (4, 1, 4, 4)


@pytest.mark.parametrize("precond", [EDMPrecond, VPPrecond, VEPrecond])
def test_round_sigma_changes_nothing_where_all_levels_are_known(precond):
    assert precond(Echo()).round_sigma(0.123) == torch.tensor(0.123)


@pytest.mark.parametrize("t", [1e-5, 1e-3, 0.2, 1.0])
def test_vp_is_that_of_table_1(t):
    sigma = math.sqrt(math.expm1(19.9 / 2 * t**2 + 0.1 * t))
    coefficients = VPPrecond(Echo()).coefficients(torch.tensor(sigma).double())
    expected = 1, -sigma, 1 / math.sqrt(sigma**2 + 1), 999 * t
    assert [c.item() for c in coefficients] == pytest.approx(expected)
    assert VPPrecond(Echo()).coefficients(torch.tensor(sigma))[3].item() == pytest.approx(999 * t, rel=1e-5)


@pytest.mark.parametrize("sigma", [0.02, 1.0, 100.0])
def test_ve_is_that_of_table_1(sigma):
    coefficients = VEPrecond(Echo()).coefficients(torch.tensor(sigma).double())
    assert [c.item() for c in coefficients] == pytest.approx((1, sigma, 1, math.log(sigma / 2)))


@pytest.mark.parametrize("j", [0, 8, 500, 999])
@pytest.mark.parametrize("between", [0.0, 0.4, -0.4])
def test_iddpm_is_that_of_table_1(j, between):
    u = iddpm_table()
    sigma = (u[j] + between * abs(u[max(j - 1, 0) if between > 0 else j + 1] - u[j])).item()
    coefficients = IDDPMPrecond(Echo()).coefficients(torch.tensor(sigma))
    expected = 1, -sigma, 1 / math.sqrt(sigma**2 + 1), 999 - j
    assert [c.item() for c in coefficients] == pytest.approx(expected)


def test_each_design_answers_from_its_lowest_to_its_highest_level():
    vp, ve, iddpm = VPPrecond(Echo()), VEPrecond(Echo()), IDDPMPrecond(Echo())
    lowest = math.sqrt(math.expm1(19.9 / 2 * 1e-10 + 0.1 * 1e-5))
    assert (vp.sigma_min, vp.sigma_max) == pytest.approx((lowest, 152.16697))
    assert (ve.sigma_min, ve.sigma_max) == (0.02, 100)
    assert (iddpm.sigma_min, iddpm.sigma_max) == pytest.approx((0.00642, 20291.17), rel=1e-3)
    small = IDDPMPrecond(Echo(), M=10)
    assert (small.sigma_min, small.sigma_max) == (iddpm_table(M=10)[9].item(), iddpm_table(M=10)[0].item())


@pytest.mark.parametrize("precond", [VPPrecond, VEPrecond, IDDPMPrecond])
def test_a_network_that_knows_the_noise_gives_the_clean_image_back(precond):
    noise = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    sign = -1 if precond is VEPrecond else 1
    denoiser, sigma = precond(lambda *_: sign * noise), torch.tensor([0.02, 0.5, 5.0, 90.0])
    x = images() + sigma[:, None, None, None] * noise
    torch.testing.assert_close(denoiser(x, sigma), images(), rtol=0, atol=1e-4)


def test_iddpm_rounds_to_the_nearest_level_of_its_table():
    denoiser, u = IDDPMPrecond(Echo()), iddpm_table()[:-1]
    assert torch.equal(denoiser.round_sigma(u), u), "its own levels stay as they are"
    asked = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).mul(8).sub(3).exp()
    expected = [min(u.tolist(), key=lambda level: abs(level - sigma)) for sigma in asked.tolist()]
    assert denoiser.round_sigma(asked).tolist() == expected
    assert denoiser.round_sigma(1e-9) == u[-1].float(), "no noise at all is no level to denoise at"
    assert denoiser.round_sigma(asked.reshape(5, 10).float()).shape == (5, 10)
    assert denoiser.round_sigma(torch.tensor(80)).item() == pytest.approx(80.2037, abs=1e-3)


def test_the_table_is_no_part_of_a_checkpoint(make_denoiser):
    network = make_denoiser().network
    assert IDDPMPrecond(network).state_dict().keys() == EDMPrecond(network).state_dict().keys()


@pytest.mark.parametrize("precond", ALL)
def test_it_exports_with_any_number_of_images(precond):
    batch = torch.export.Dim("batch", min=2, max=64)
    dynamic = {"x": {0: batch}, "sigma": {0: batch}, "class_labels": {0: batch}, "augment_labels": None}
    denoiser = precond(Echo())
    example = images(), torch.full((4,), 0.5), torch.tensor([0, 1, 2, 0]), None
    exported = torch.export.export(denoiser, example, dynamic_shapes=dynamic).module()
    x, sigma, labels = images(7), torch.linspace(0.1, 3, 7), torch.arange(7) % 3
    torch.testing.assert_close(exported(x, sigma, labels, None), denoiser(x, sigma, labels))


@pytest.mark.parametrize("shape", [(4, 2, 4, 4), (4, 3, 4, 4), (1, 1, 4, 4), (4, 1, 1, 4), (4, 16)])
def test_a_network_that_answers_in_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=rf"answers \({shape[0]}, {shape[1]}.* must answer in the same shape"):
        IDDPMPrecond(lambda *_: torch.zeros(shape))(images(), 1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VPPrecond(Echo(), M=0), "M is 0"),
        (lambda: VPPrecond(Echo(), beta_d=-1), "beta_d is -1"),
        (lambda: VPPrecond(Echo(), epsilon_t=0), "epsilon_t is 0"),
        (lambda: VEPrecond(Echo(), sigma_min=0), "sigma_min is 0"),
        (lambda: VEPrecond(Echo(), sigma_max=0.01), "sigma_min must be smaller"),
        (lambda: IDDPMPrecond(Echo(), M=1.5), "M is 1.5"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "sigma",
    [1e-60, 7e-46, torch.tensor(1e-60, dtype=torch.float64), torch.tensor([1.0, 1.0, 1e-60, 1.0]).double() * 1e-9],
)
def test_a_level_that_float32_rounds_to_zero_is_refused(sigma):
    with pytest.raises(ValueError, match=r"sigma contains .*; as torch\.float32, noise levels must be above 0"):
        EDMPrecond(Echo())(images(), sigma)


def test_a_level_is_refused_exactly_where_the_dtype_of_x_has_no_number_for_it():
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        for exponent in range(-340, 15):
            sigma, x = 10.0**exponent, torch.zeros(1, 1, 2, 2, dtype=dtype)
            held = torch.tensor(sigma, dtype=dtype)
            if 0 < held.item() < math.inf:
                assert per_image(sigma, x).item() == held.item()
                assert per_image(torch.tensor(sigma, dtype=torch.float64), x).item() == held.item()
                continue
            for level in (sigma, torch.tensor(sigma, dtype=torch.float64)):
                with pytest.raises(ValueError, match="sigma"):
                    per_image(level, x)
    assert per_image(1e-60, torch.zeros(1, 1, 2, 2, dtype=torch.float64)).item() == 1e-60
    with pytest.raises(ValueError, match="sigma contains inf"):
        per_image(torch.tensor(math.inf, dtype=torch.float16), images())


def test_augmentation_labels_compile_into_one_graph(make_denoiser):
    denoiser, labels = make_denoiser(augment_dim=2), torch.rand(2, 2, generator=torch.Generator().manual_seed(0))
    x, sigma = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(1)), torch.tensor([0.1, 0.7])
    compiled = torch.compile(denoiser, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, sigma, None, labels), denoiser(x, sigma, None, labels))
    assert not torch.equal(denoiser(x, sigma, None, labels), denoiser(x, sigma)), "the labels count"


def test_a_mean_is_taken_off_before_and_added_after_whatever_it_wraps(make_denoiser):
    inner, mean = make_denoiser(img_channels=3, img_resolution=8, label_dim=4), torch.tensor([0.3, -0.5, 0.0])
    denoiser = Centered(inner, mean.reshape(-1, 1, 1))
    x, sigma, labels = torch.randn(2, 3, 8, 8), torch.tensor([0.5, 20.0]), torch.tensor([3, 1])
    expected = inner(x - mean.reshape(-1, 1, 1), sigma, labels) + mean.reshape(-1, 1, 1)
    assert torch.equal(denoiser(x, sigma, labels), expected)
    for name in ("img_channels", "img_resolution", "label_dim", "sigma_min", "sigma_max"):
        assert getattr(denoiser, name) == getattr(inner, name)
    assert denoiser.round_sigma(0.7) == inner.round_sigma(0.7)
    with pytest.raises(ValueError, match=r"x has shape \(2, 1, 8, 8\); it must be \(batch, 3, "):
        denoiser(x[:, :1], sigma, labels)  # a mean of three channels would spread one over three
    assert denoiser.state_dict()["mean"].flatten().tolist() == mean.tolist()
    same = deepcopy(denoiser)
    same.mean.zero_()
    assert torch.equal(same(x, sigma, labels), inner(x, sigma, labels))
    assert same.round_sigma.__self__ is same.denoiser, "a copy asks its own"
    assert torch.equal(denoiser(x, sigma, labels), expected)


def test_training_on_a_mean_that_is_taken_off_is_training_on_centered_images(make_denoiser):
    inner, images, mean = make_denoiser(img_resolution=8), torch.randn(4, 1, 8, 8) - 0.7, -0.7
    loss = EDMLoss()
    plain = loss(inner, images - mean, generator=torch.Generator().manual_seed(0))
    wrapped = loss(Centered(inner, mean), images, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(wrapped, plain, rtol=1e-3, atol=1e-4)
