"""The losses: where they sample sigma, and what they are before anything is learned."""

import math

import pytest
import torch

from edm_lesson.augment import AugmentPipe
from edm_lesson.losses import EDMLoss, IDDPMLoss, VELoss, VPLoss
from edm_lesson.networks import LessonUNet
from edm_lesson.preconditioning import EDMPrecond, IDDPMPrecond, VEPrecond, VPPrecond
from edm_lesson.schedules import VPSchedule, iddpm_table


def test_sigma_is_log_normal():
    log_sigma = EDMLoss(P_mean=-0.7, P_std=1.4).sample_sigma(100_000, torch.Generator().manual_seed(0)).log()
    assert log_sigma.mean().item() == pytest.approx(-0.7, abs=0.02)
    assert log_sigma.std().item() == pytest.approx(1.4, abs=0.02)
    assert ((log_sigma + 0.7).abs() < 1.4).float().mean().item() == pytest.approx(math.erf(1 / math.sqrt(2)), abs=0.01)


class FixedSigma(EDMLoss):
    def __init__(self, sigma, sigma_data):
        super().__init__(sigma_data=sigma_data)
        self.sigma = sigma

    def sample_sigma(self, batch, generator=None, device=None):
        return torch.full((batch,), self.sigma, device=device)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 1.0, 5.0, 80.0])
@pytest.mark.parametrize("choice", ["paper", "std", "rms"])
def test_the_first_loss_is_that_of_theory(mnist, sigma, choice):
    statistics = mnist.statistics()
    sd = {"paper": 0.5}.get(choice) or statistics[choice]
    expected = (sigma**2 * statistics["rms"] ** 2 + sd**4) / (sd**2 * (sigma**2 + sd**2))
    if choice == "rms":
        assert expected == pytest.approx(1)
    if choice == "paper" and sigma == 80:
        assert expected == pytest.approx(3.70, abs=0.01)
    if choice == "std" and sigma == 80:
        assert expected == pytest.approx(2.44, abs=0.01)

    untrained = EDMPrecond(LessonUNet(model_channels=8, channel_mult=(1,), num_blocks=1, patch_size=4), sd)
    y = mnist.batch(torch.randperm(60_000, generator=torch.Generator().manual_seed(0))[:3000])
    with torch.no_grad():
        loss = FixedSigma(sigma, sd)(untrained, y, generator=torch.Generator().manual_seed(1))
    assert loss.shape == y.shape
    assert loss.mean().item() == pytest.approx(expected, rel=0.02)


def test_a_generator_makes_it_repeatable_and_augmentation_reaches_the_denoiser():
    seen = []

    def denoiser(x, sigma, class_labels, augment_labels):
        seen.append((x, class_labels, augment_labels))
        return x

    loss, y = EDMLoss(), torch.zeros(3, 1, 4, 4)
    values = [
        loss(
            denoiser, y, "classes", lambda images, generator: (images + 10, "labels"), torch.Generator().manual_seed(5)
        )
        for _ in range(2)
    ]
    torch.testing.assert_close(*values)
    assert seen[0][1:] == ("classes", "labels")
    assert seen[0][0].mean() > 5, "the augmented images are the ones that get noise"


def test_the_generator_draws_the_augmentation_too_and_sigma_before_it():
    loss, y, augment = EDMLoss(), torch.rand(6, 1, 8, 8), AugmentPipe(p=1)

    def value(seed):
        return loss(lambda x, *_: x, y, augment=augment, generator=torch.Generator().manual_seed(seed))

    told = []
    loss(lambda x, sigma, *_: told.append(sigma) or x, y, None, augment, torch.Generator().manual_seed(0))
    assert torch.equal(told[0].flatten(), loss.sample_sigma(6, torch.Generator().manual_seed(0)))
    assert torch.equal(value(0), value(0))
    assert not torch.equal(value(0), value(1))


@pytest.mark.parametrize("settings", [{"P_std": 0}, {"P_std": -1}, {"sigma_data": 0}, {"P_mean": math.nan}])
def test_impossible_settings_are_refused_with_the_value(settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        EDMLoss(**settings)


def test_images_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"images is torch\.uint8"):
        EDMLoss()(lambda *_: None, torch.zeros(2, 1, 4, 4, dtype=torch.uint8))


OLDER = [(VPLoss, VPPrecond), (VELoss, VEPrecond), (IDDPMLoss, IDDPMPrecond)]


def draws(loss, batch=100_000):
    return loss.sample_sigma(batch, torch.Generator().manual_seed(0))


def assert_even(values, low, high):
    """As many `values` in each tenth of the way from `low` to `high`, and none outside."""
    assert values.min() >= low - 1e-4 * abs(high - low)
    assert values.max() <= high + 1e-4 * abs(high - low)
    counts = torch.histc(values, 10, low, high) / len(values)
    torch.testing.assert_close(counts, torch.full((10,), 0.1), rtol=0, atol=5 * (0.09 / len(values)) ** 0.5)


def test_vp_draws_times_evenly():
    assert_even(VPSchedule().sigma_inv(draws(VPLoss())), 1e-5, 1)
    assert draws(VPLoss(epsilon_t=0.5)).min() >= VPSchedule().sigma(0.5) * 0.9999


def test_ve_draws_ln_sigma_evenly():
    assert_even(draws(VELoss(0.1, 10.0)).log(), math.log(0.1), math.log(10))


def test_iddpm_draws_from_its_table_evenly():
    u, sigma = iddpm_table()[:-1].float(), draws(IDDPMLoss())
    index = torch.searchsorted(u.flip(0), sigma)
    assert torch.equal(u.flip(0)[index], sigma), "nothing but levels of the table"
    assert_even(index.float(), 0, 1000)
    assert len(index.unique()) == 1000


@pytest.mark.parametrize(("loss", "precond"), OLDER)
def test_the_weight_is_the_inverse_of_c_out_squared(loss, precond):
    sigma = torch.logspace(-2, 1.9, 9)
    c_out = precond(None).coefficients(sigma)[1]
    torch.testing.assert_close(loss().weight(sigma) * c_out**2, torch.ones(9))


@pytest.mark.parametrize(("loss", "precond"), OLDER)
def test_before_training_the_loss_of_the_older_designs_is_one(loss, precond):
    silent = precond(lambda x, *_: torch.zeros_like(x))
    value = loss()(silent, torch.rand(500, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    assert value.mean().item() == pytest.approx(1, abs=0.03), "asked for the noise, it says none: off by its variance"


@pytest.mark.parametrize("loss", [EDMLoss, VPLoss, VELoss, IDDPMLoss])
def test_sigma_is_float32_on_the_device_and_repeatable(loss):
    assert torch.equal(draws(loss(), 8), draws(loss(), 8))
    sigma = loss().sample_sigma(5, device="meta")  # a device without values: nothing waits for it
    assert (sigma.shape, sigma.dtype, sigma.device.type) == ((5,), torch.float32, "meta")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VPLoss(beta_d=-1), "beta_d is -1"),
        (lambda: VPLoss(epsilon_t=1), "epsilon_t is 1"),
        (lambda: VELoss(sigma_min=0), "sigma_min is 0"),
        (lambda: VELoss(sigma_min=3, sigma_max=2), "sigma_min must be smaller"),
        (lambda: IDDPMLoss(M=0), "M is 0"),
    ],
)
def test_impossible_older_losses_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
