"""Table 1's columns as designs: each is what the table says, and their rows go together in any combination."""

import dataclasses
import itertools
import math

import pytest
import torch

from edm_lesson.config import load_config
from edm_lesson.designs import DESIGNS, build_denoiser, build_loss
from edm_lesson.ideal import GaussianDenoiser
from edm_lesson.losses import EDMLoss
from edm_lesson.preconditioning import EDMPrecond
from edm_lesson.samplers import edm_sampler

NAMES = ("vp", "ve", "iddpm", "edm")


def latents(batch=2, size=28, dtype=torch.float32):
    return torch.randn(batch, 1, size, size, dtype=dtype, generator=torch.Generator().manual_seed(0))


def test_there_are_the_four_columns_of_table_1():
    assert DESIGNS.keys() == set(NAMES)
    rows = {name: [*design.sampler.values()] for name, design in DESIGNS.items()}
    assert rows == {
        "vp": ["euler", "vp", "vp", "vp"],
        "ve": ["euler", "ve", "ve", "none"],
        "iddpm": ["euler", "iddpm", "linear", "none"],
        "edm": ["heun", "edm", "linear", "none"],
    }


def test_the_edm_column_is_what_the_course_trains_and_samples(make_denoiser):
    config, design, denoiser = load_config("smoke"), DESIGNS["edm"], make_denoiser()
    ours, theirs = build_denoiser(config), design.build_denoiser(denoiser.network, sigma_data=config.sigma_data)
    assert type(ours) is type(theirs) is EDMPrecond
    assert ours.sigma_data == theirs.sigma_data
    assert type(build_loss(config)) is type(design.build_loss()) is EDMLoss
    torch.testing.assert_close(design.sample(denoiser, latents()), edm_sampler(denoiser, latents()))


@pytest.mark.parametrize("precond", NAMES)
@pytest.mark.parametrize("loss", NAMES)
def test_any_network_trains_and_samples_with_any_rows(make_denoiser, precond, loss):
    network = make_denoiser(channel_mult=(1,)).network
    design = dataclasses.replace(DESIGNS[precond], loss=DESIGNS[loss].loss)
    denoiser = design.build_denoiser(network)
    value = design.build_loss()(denoiser, latents(), generator=torch.Generator().manual_seed(0))
    assert value.shape == (2, 1, 28, 28)
    value.mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters() if parameter.grad is not None)
    for sampler in NAMES:
        mixed = dataclasses.replace(design, sampler=DESIGNS[sampler].sampler)
        images = mixed.sample(denoiser, latents(), num_steps=2)
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
    edges = design.build_denoiser(Line(0, 1))
    sigma = torch.tensor([max(edges.sigma_min, 0.002), min(edges.sigma_max, 150.0)], dtype=torch.float64)
    denoiser = design.build_denoiser(Line(*edges.coefficients(sigma)[3].tolist()))
    loss = design.build_loss()
    optimizer = torch.optim.Adam(denoiser.parameters(), 0.05)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    for _ in range(400):
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
    edm = {"solver": "heun", "discretization": "edm", "schedule": "linear", "scaling": "none"}
    for design in DESIGNS.values():
        torch.testing.assert_close(design.sample(gaussian, x, **edm), edm_sampler(gaussian, x))


def test_the_four_samplers_agree_on_the_gaussian_when_steps_are_many():
    gaussian, x = GaussianDenoiser(), latents(1, 32, torch.float64)
    spreads = {name: design.sample(gaussian, x, num_steps=400).std().item() for name, design in DESIGNS.items()}
    assert spreads == pytest.approx(dict.fromkeys(NAMES, 0.5 * x.std().item()), rel=0.06)
    assert all(abs(spreads[one] - spreads[other]) > 1e-5 for one, other in itertools.combinations(NAMES, 2))


def test_settings_reach_the_classes_that_they_are_for():
    assert DESIGNS["vp"].build_denoiser(None, beta_d=10.0).sigma_max == pytest.approx(math.sqrt(math.expm1(5.1)))
    assert DESIGNS["ve"].build_loss(sigma_max=50.0).sigma_max == 50
    with pytest.raises(TypeError, match="sigma_data"):
        DESIGNS["vp"].build_loss(sigma_data=0.5)


def test_a_design_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DESIGNS["vp"].loss = EDMLoss
