"""The multistep sampler: order of accuracy, exactness, cost, agreement with a public package; and Gaussian jumps."""

import importlib.util
import math
import sys
from itertools import pairwise
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

from edm_lesson.designs import DESIGNS, SAMPLERS
from edm_lesson.ideal import GaussianDenoiser, GaussianJump, IdealDenoiser
from edm_lesson.preconditioning import IDDPMPrecond
from edm_lesson.samplers import dpmpp_2m_sampler, edm_sampler, sample_images
from edm_lesson.schedules import edm_sigmas

MNIST = GaussianDenoiser(-0.7386, 0.6162)
NEAR_GEOMETRIC = 1e3  # a rho with which levels are almost even in ln sigma


def latents(batch=3, size=4, dtype=torch.float64, seed=0):
    return torch.randn(batch, 1, size, size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def error(num_steps, **levels):
    """How far from the exact path's D at sigma_min the sampler ends."""
    ended = dpmpp_2m_sampler(MNIST, latents(), num_steps=num_steps, **levels)
    sigma_min = levels.get("sigma_min", 0.05)
    return (ended - MNIST(MNIST.path(80 * latents(), 80, sigma_min), sigma_min)).abs().max().item()


@pytest.mark.parametrize("levels", [{}, {"rho": NEAR_GEOMETRIC}, {"sigma_min": 0.002}])
@pytest.mark.parametrize("num_steps", [65, 129])
def test_it_is_of_second_order(levels, num_steps):
    measured = math.log2(error(num_steps, **levels) / error(2 * num_steps - 1, **levels))
    assert measured == pytest.approx(2, abs=0.06)


def test_with_as_many_evaluations_it_is_nearer_than_heun():
    exact = MNIST.path(80 * latents(), 80, 0)
    for num_steps in (8, 18):
        heun = edm_sampler(MNIST, latents(), num_steps=num_steps) - exact
        multistep = dpmpp_2m_sampler(MNIST, latents(), num_steps=2 * num_steps - 1) - exact
        assert multistep.abs().max() < heun.abs().max() / 2


def test_one_answer_for_all_levels_is_the_image_however_few_the_steps():
    image = latents(1, seed=1)
    for num_steps in (1, 2, 5):
        ended = dpmpp_2m_sampler(lambda x, sigma: image.expand_as(x), latents(), num_steps=num_steps)
        torch.testing.assert_close(ended, image.expand_as(ended))


def test_each_step_goes_to_the_middle_of_a_line_in_ln_sigma():
    a, b, calls = latents(1, seed=1), latents(1, seed=2), []

    def line(x, sigma):
        return (a + b * sigma.log().reshape(-1, 1, 1, 1)).expand_as(x)

    ended = dpmpp_2m_sampler(line, latents(), num_steps=6, callback=lambda *call: calls.append(call))
    for (step, sigma, x, denoised), (_, sigma_next, x_next, _) in pairwise(calls):
        constant = a + b * (math.log(sigma * sigma_next) / 2 if step else math.log(sigma))  # the first is Euler's
        torch.testing.assert_close(x_next, constant + sigma_next / sigma * (x - constant))
        torch.testing.assert_close(denoised, line(x, torch.tensor(sigma)))
    torch.testing.assert_close(ended, line(x, torch.tensor(0.05, dtype=torch.float64)))
    assert [(step, round(sigma, 6)) for step, sigma, _, _ in calls] == [
        (step, round(sigma, 6)) for step, sigma in enumerate(edm_sigmas(6, 0.05)[:-1].tolist())
    ]


@pytest.fixture
def k_diffusion(monkeypatch):
    """k-diffusion's samplers, without what the others there need, so `pip install --no-deps k-diffusion` is enough."""
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None:
        pytest.skip("k-diffusion is not installed")
    for name in ("scipy", "torchdiffeq", "torchsde", "k_diffusion", "k_diffusion.utils"):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    file = Path(spec.submodule_search_locations[0], "sampling.py")
    spec = importlib.util.spec_from_file_location("k_diffusion.sampling", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("rho", [7.0, 1.0, NEAR_GEOMETRIC])
@pytest.mark.parametrize("num_steps", [1, 2, 8, 33])
def test_it_agrees_with_k_diffusion(k_diffusion, make_denoiser, num_steps, rho):
    sigmas, x = edm_sigmas(num_steps, 0.05, rho=rho), latents()
    theirs = k_diffusion.sample_dpmpp_2m(MNIST, x * sigmas[0], sigmas, disable=True)
    torch.testing.assert_close(dpmpp_2m_sampler(MNIST, x, num_steps=num_steps, rho=rho), theirs, atol=1e-9, rtol=1e-9)
    denoiser, x = make_denoiser(), latents(2, 28, torch.float32)
    theirs = k_diffusion.sample_dpmpp_2m(denoiser, x * sigmas[0].float(), sigmas.float(), disable=True)
    ours = dpmpp_2m_sampler(denoiser, x, num_steps=num_steps, rho=rho)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def test_levels_that_a_coarse_table_makes_one_do_no_harm():
    denoiser, x, asked = IDDPMPrecond(lambda x, *_: x / 2, M=12), latents(dtype=torch.float32), []
    ended = dpmpp_2m_sampler(denoiser, x, num_steps=40, callback=lambda *call: asked.append(call[1]))
    assert len(asked) == 40
    assert len(set(asked)) < 12
    assert torch.isfinite(ended).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_result_is_like_the_latents_and_tracks_no_gradients(make_denoiser, dtype):
    result = dpmpp_2m_sampler(make_denoiser(), latents(2, 28, dtype), num_steps=2)
    assert (result.dtype, result.shape, result.requires_grad) == (dtype, (2, 1, 28, 28), False)


@pytest.mark.parametrize("sampler", [dpmpp_2m_sampler, SAMPLERS["dpmpp_2m"].sample])
def test_an_image_does_not_depend_on_its_batch(make_denoiser, sampler):
    denoiser = make_denoiser(label_dim=3)
    settings = {"sampler": sampler, "num_steps": 4, "classes": [2, 0, 1]}
    together = sample_images(denoiser, 5, **settings)
    torch.testing.assert_close(together, sample_images(denoiser, 5, batch_size=2, **settings), atol=1e-4, rtol=1e-4)
    assert (together[0] - together[3]).abs().max() > 0.01, "the same class, another seed"
    labels = torch.tensor([2, 0, 1, 2, 0])
    noise = torch.stack([torch.randn(1, 28, 28, generator=torch.Generator().manual_seed(i)) for i in range(5)])
    torch.testing.assert_close(together, dpmpp_2m_sampler(denoiser, noise, labels, num_steps=4), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 0}, "num_steps is 0"),
        ({"sigma_min": 80}, "sigma_min is 80 and sigma_max is 80"),
        ({"rho": 0}, "rho is 0"),
        ({"latents": torch.full((1, 1, 4, 4), math.nan)}, "latents contains NaN"),
    ],
)
def test_bad_calls_are_refused_with_the_value(change, message):
    with pytest.raises(ValueError, match=message):
        dpmpp_2m_sampler(MNIST, **{"latents": latents(), **change})


def test_by_its_word_it_stands_where_a_design_stands():
    multistep = SAMPLERS["dpmpp_2m"]
    assert SAMPLERS.keys() == DESIGNS.keys() | {"dpmpp_2m"}
    asked = []
    unused = {"S_min": 0.0, "S_max": math.inf, "S_noise": 1.0, "S_churn": 0.0, "randn_like": None, "solver": "dpmpp_2m"}
    ended = multistep.sample(MNIST, latents(), num_steps=5, callback=lambda *call: asked.append(call[1]), **unused)
    torch.testing.assert_close(ended, dpmpp_2m_sampler(MNIST, latents(), num_steps=5))
    assert (multistep.sigma_max, multistep.sigma_min) == pytest.approx((asked[0], asked[-1]))
    assert (multistep.nfe(5), DESIGNS["edm"].nfe(5), DESIGNS["vp"].nfe(5)) == (5, 9, 5)
    for wrong in ({"S_churn": 10.0}, {"solver": "heun"}):
        with pytest.raises(ValueError, match="dpmpp_2m takes neither S_churn nor another solver"):
            multistep.sample(MNIST, latents(), **wrong)


@pytest.fixture(scope="module")
def correlated():
    """Images of pixels that hang together, their mean and their covariance, (d,) and (d, d)."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(16, 16, dtype=torch.float64, generator=generator) / 4
    pixels = 0.3 + torch.randn(500, 16, dtype=torch.float64, generator=generator) @ mix
    away = pixels - pixels.mean(0)
    return pixels.reshape(-1, 1, 4, 4), pixels.mean(0), away.T @ away / 499


def posterior_mean(mean, covariance):
    """The exact denoiser of a Gaussian."""

    def denoise(x, sigma):
        kalman = covariance @ torch.linalg.inv(covariance + sigma[0] ** 2 * torch.eye(len(mean), dtype=x.dtype))
        return (mean + (x.flatten(1) - mean) @ kalman.T).reshape(x.shape)

    return denoise


def test_the_jump_is_where_many_steps_lead(correlated):
    images, mean, covariance = correlated
    jump, x, calls = GaussianJump(images), latents(), []
    denoise = posterior_mean(mean, covariance)
    edm_sampler(denoise, x, num_steps=400, sigma_min=0.5, callback=lambda *call: calls.append(call))
    _, sigma, there, _ = calls[-1]
    assert sigma == pytest.approx(0.5)
    torch.testing.assert_close(0.5 * jump(x, 80.0, 0.5), there, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sampler", [edm_sampler, dpmpp_2m_sampler, DESIGNS["vp"].sample, SAMPLERS["dpmpp_2m"].sample])
def test_any_sampler_starts_from_a_jump(correlated, sampler):
    images, mean, covariance = correlated
    jump, denoise, x = GaussianJump(images), posterior_mean(mean, covariance), latents()
    exact = 1e-6 * jump(x, 80.0, 1e-6)
    whole = (sampler(denoise, x, num_steps=12, sigma_max=80.0) - exact).abs().max()
    jumped = (sampler(denoise, jump(x, 80.0, 4.0), num_steps=12, sigma_max=4.0) - exact).abs().max()
    assert jumped < whole / 2


def test_digits_at_high_noise_go_almost_where_the_jump_does(mnist):
    images, x, calls = mnist.batch(slice(500)), latents(8, 28, torch.float32), []
    edm_sampler(IdealDenoiser(images), x, num_steps=30, sigma_min=12.0, callback=lambda *call: calls.append(call))
    there = calls[-1][2].float()
    off = {"jump": 12 * GaussianJump(images)(x, 80.0, 12.0) - there, "noise of that level": 12 * x - there}
    off = {start: distance.flatten(1).norm(dim=1).mean().item() for start, distance in off.items()}
    assert off["jump"] < 0.6, "two digits are about 10 apart"
    assert off["noise of that level"] > 15


def test_jumps_add_up_and_keep_what_latents_are(correlated):
    jump, x = GaussianJump(correlated[0].float()), latents(dtype=torch.float32)
    jumped = jump(jump(x, 80.0, 20.0), 20.0, 5.0)
    assert (jumped.dtype, jumped.shape) == (x.dtype, x.shape)
    torch.testing.assert_close(jumped, jump(x, 80.0, 5.0))
    torch.testing.assert_close(jump(x, 80.0, 80.0), x)


def test_pixels_that_never_change_lose_all_their_noise():
    images = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1) * torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    x = torch.ones(1, 1, 1, 2)
    jumped = 0.01 * GaussianJump(images)(x, 80.0, 0.01)
    torch.testing.assert_close(jumped.flatten(), torch.tensor([80 * math.sqrt(2.0001 / 6402), 0.01]))


def test_images_that_make_no_covariance_are_refused():
    for images in (torch.zeros(3, 4), torch.full((2, 1, 2, 2), math.nan), torch.zeros(0, 1, 2, 2)):
        with pytest.raises(ValueError, match="images"):
            GaussianJump(images)
