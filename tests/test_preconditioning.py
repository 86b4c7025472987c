"""EDM's preconditioning: its coefficients, its promise of unit variance, and what it takes and refuses."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edm_lesson.losses import EDMLoss
from edm_lesson.preconditioning import EDMPrecond


class Echo(torch.nn.Module):
    """A network that answers with its input and remembers what it was given."""

    img_channels, img_resolution, label_dim = 1, 4, 3

    def forward(self, x, c_noise, class_labels=None, augment_labels=None):
        self.seen = x, c_noise, class_labels, augment_labels
        return x


def images(batch=4):
    return torch.randn(batch, 1, 4, 4, generator=torch.Generator().manual_seed(0))


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


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("sigma", [0.01, 0.3, 1.0, 10.0, 80.0])
def test_input_and_target_have_unit_variance_with_the_standard_deviation_of_mnist(mnist, sigma, centre):
    y = (mnist.centred() if centre else mnist).batch(slice(2000)).double()
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
        (torch.zeros(4, 2, 4, 4), 1.0, None, "2 channels"),
        (torch.zeros(4, 1, 4, 4, dtype=torch.uint8), 1.0, None, "uint8"),
        (images(), -1.0, None, "sigma is -1.0"),
        (images(), 0, None, "sigma is 0"),
        (images(), math.nan, None, "sigma is nan"),
        (images(), math.inf, None, "sigma is inf"),
        (images(), "1", None, "sigma is '1'"),
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


@given(st.one_of(st.floats(1e-6, 1e6), st.floats(width=32)), st.floats(1e-6, 1e6))
def test_any_sigma_gives_finite_images_or_a_value_error(sigma, sigma_data):
    try:
        denoised = EDMPrecond(Echo(), sigma_data)(images(), sigma)
    except ValueError:
        return
    assert torch.isfinite(denoised).all()


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


def test_round_sigma_changes_nothing():
    assert EDMPrecond(Echo()).round_sigma(0.123) == torch.tensor(0.123)
