"""EDM's loss: where it samples sigma, and what it is before anything is learned."""

import math

import pytest
import torch

from edm_lesson.losses import EDMLoss
from edm_lesson.networks import LessonUNet
from edm_lesson.preconditioning import EDMPrecond


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
        loss(denoiser, y, "classes", lambda images: (images + 10, "labels"), torch.Generator().manual_seed(5))
        for _ in range(2)
    ]
    torch.testing.assert_close(*values)
    assert seen[0][1:] == ("classes", "labels")
    assert seen[0][0].mean() > 5, "the augmented images are the ones that get noise"


@pytest.mark.parametrize("settings", [{"P_std": 0}, {"P_std": -1}, {"sigma_data": 0}, {"P_mean": math.nan}])
def test_impossible_settings_are_refused_with_the_value(settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        EDMLoss(**settings)


def test_images_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"images is torch\.uint8"):
        EDMLoss()(lambda *_: None, torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
