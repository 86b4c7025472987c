"""Table 1's columns as designs: each is what the table says, and their rows go together in any combination."""

import dataclasses
import itertools

import pytest
import torch

from edm_lesson.config import load_config
from edm_lesson.designs import DESIGNS, build_denoiser, build_loss
from edm_lesson.ideal import GaussianDenoiser
from edm_lesson.losses import EDMLoss
from edm_lesson.preconditioning import EDMPrecond, VPPrecond
from edm_lesson.samplers import edm_sampler
from edm_lesson.schedules import (
    LinearSchedule,
    VESchedule,
    VPSchedule,
    edm_sigmas,
    iddpm_sigmas,
    unscaled,
    ve_sigmas,
    vp_scale,
    vp_sigmas,
)

NAMES = ("vp", "ve", "iddpm", "edm")


def latents(batch=2, size=28, dtype=torch.float32):
    return torch.randn(batch, 1, size, size, dtype=dtype, generator=torch.Generator().manual_seed(0))


def test_there_are_the_four_columns_of_table_1():
    assert DESIGNS.keys() == set(NAMES)
    rows = {
        name: (design.solver, design.schedule, design.scale, design.sigma_min, design.sigma_max)
        for name, design in DESIGNS.items()
    }
    assert rows == {
        "vp": ("euler", VPSchedule, vp_scale, pytest.approx(0.010486, abs=1e-6), pytest.approx(152.16697, abs=1e-5)),
        "ve": ("euler", VESchedule, unscaled, 0.02, 100.0),
        "iddpm": ("euler", LinearSchedule, unscaled, 0.002, 81.0),
        "edm": ("heun", LinearSchedule, unscaled, 0.002, 80.0),
    }
    for name, sigmas in zip(NAMES, (vp_sigmas, ve_sigmas, iddpm_sigmas, edm_sigmas), strict=True):
        torch.testing.assert_close(DESIGNS[name].rows(GaussianDenoiser(), 18)["levels"], sigmas(18))


def test_the_edm_column_is_what_the_course_trains_and_samples(make_denoiser):
    config, design, denoiser = load_config("smoke"), DESIGNS["edm"], make_denoiser()
    ours, theirs = build_denoiser(config), design.precond(denoiser.network, sigma_data=config.sigma_data)
    assert type(ours) is type(theirs) is EDMPrecond
    assert ours.sigma_data == theirs.sigma_data
    assert type(build_loss(config)) is design.loss is EDMLoss
    torch.testing.assert_close(design.sample(denoiser, latents()), edm_sampler(denoiser, latents()))


@pytest.mark.parametrize("precond", NAMES)
@pytest.mark.parametrize("loss", NAMES)
def test_any_network_trains_and_samples_with_any_rows(make_denoiser, precond, loss):
    network = make_denoiser(channel_mult=(1,)).network
    design = dataclasses.replace(DESIGNS[precond], loss=DESIGNS[loss].loss)
    denoiser = design.precond(network)
    value = design.loss()(denoiser, latents(), generator=torch.Generator().manual_seed(0))
    assert value.shape == (2, 1, 28, 28)
    value.mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters() if parameter.grad is not None)
    for sampler in NAMES:
        images = DESIGNS[sampler].sample(denoiser, latents(), num_steps=2)
        assert torch.isfinite(images).all()


class Line(torch.nn.Module):
    """The smallest network that can learn a Gaussian: a line in x for each of a few steps of c_noise."""

    img_channels, img_resolution, label_dim = 1, 2, 0

    def __init__(self, low, high, knots=24):
        super().__init__()
        self.register_buffer("knots", torch.linspace(low, high, knots))
        self.slope, self.shift = (torch.nn.Parameter(torch.zeros(knots)) for _ in range(2))

    def forward(self, x, c_noise, class_labels=None, augment_labels=None):
        near = torch.softmax(-(((c_noise[:, None] - self.knots) / (self.knots[1] - self.knots[0])) ** 2), dim=1)
        slope, shift = (near @ values for values in (self.slope, self.shift))
        return slope[:, None, None, None] * x + shift[:, None, None, None]


@pytest.fixture(scope="module", params=NAMES)
def trained(request):
    """A denoiser of N(0.4, 0.5^2), trained in one column of the table."""
    torch.manual_seed(0)
    design = DESIGNS[request.param]
    edges = design.precond(Line(0, 1))
    sigma = torch.tensor([max(edges.sigma_min, 0.002), min(edges.sigma_max, 150.0)], dtype=torch.float64)
    denoiser = design.precond(Line(*edges.coefficients(sigma)[3].tolist()))
    loss = design.loss()
    optimizer = torch.optim.Adam(denoiser.parameters(), 0.05)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
    for _ in range(200):
        optimizer.zero_grad()
        loss(denoiser, 0.4 + 0.5 * torch.randn(512, 1, 2, 2)).mean().backward()
        optimizer.step()
        decay.step()
    return denoiser.requires_grad_(False)


@pytest.mark.parametrize("sampler", NAMES)
def test_a_network_trained_in_one_column_is_sampled_with_anothers_sampler(trained, sampler):
    exact = GaussianDenoiser(0.4, 0.5)
    exact.sigma_min, exact.sigma_max, exact.round_sigma = trained.sigma_min, trained.sigma_max, trained.round_sigma
    images, expected = (
        DESIGNS[sampler].sample(denoiser, latents(500, 2), num_steps=32) for denoiser in (trained, exact)
    )
    assert (images - expected).square().mean().sqrt() < 0.03, "what it learned is not what the sampler asks for"


def test_settings_of_a_call_come_before_the_designs_own():
    gaussian, x = GaussianDenoiser(), latents(2, 4, torch.float64)
    edm = {"solver": "heun", "levels": edm_sigmas(18), "schedule": LinearSchedule(), "scale": unscaled}
    for design in DESIGNS.values():
        torch.testing.assert_close(design.sample(gaussian, x, **edm), edm_sampler(gaussian, x))
    ours = DESIGNS["edm"].sample(gaussian, x, num_steps=5, sigma_min=0.01, sigma_max=9.0, rho=3.0)
    torch.testing.assert_close(ours, edm_sampler(gaussian, x, num_steps=5, sigma_min=0.01, sigma_max=9.0, rho=3.0))


def test_the_four_samplers_agree_on_the_gaussian_when_steps_are_many():
    gaussian, x = GaussianDenoiser(), latents(1, 32, torch.float64)
    spreads = {name: design.sample(gaussian, x, num_steps=400).std().item() for name, design in DESIGNS.items()}
    assert spreads == pytest.approx(dict.fromkeys(NAMES, 0.5 * x.std().item()), rel=0.06)
    assert all(abs(spreads[one] - spreads[other]) > 1e-5 for one, other in itertools.combinations(NAMES, 2))


def test_settings_reach_the_classes_that_they_are_for():
    config = load_config("smoke", ["sigma_data=0.9", "loss.P_mean=-0.5", "design.preconditioning=vp"])
    denoiser, loss = build_denoiser(config), build_loss(config)
    assert type(denoiser) is VPPrecond, "which takes no sigma_data"
    assert (loss.sigma_data, loss.P_mean) == (0.9, -0.5)


def test_a_design_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DESIGNS["vp"].loss = EDMLoss
