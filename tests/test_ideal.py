"""The exact denoisers against autograd, limits and the exact path."""

import math

import pytest
import torch

from edm_lesson.ideal import GaussianDenoiser, IdealDenoiser, score
from edm_lesson.samplers import edm_sampler


def points(n=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 2, 3, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_it_is_x_plus_sigma_squared_times_the_score(sigma):
    y, x = points(5), points(7, seed=1).requires_grad_()
    exponents = -((x[:, None] - y[None]) ** 2).flatten(2).sum(2) / (2 * sigma**2)
    (gradient,) = torch.autograd.grad(exponents.logsumexp(1).sum(), x)  # ln p(x; sigma) up to a constant
    x = x.detach()
    ideal = IdealDenoiser(y)
    torch.testing.assert_close(ideal(x, sigma), x + sigma**2 * gradient)
    torch.testing.assert_close(score(ideal, x, sigma), gradient)
    torch.testing.assert_close(score(ideal, x, torch.full((7,), sigma)), gradient, rtol=1e-5, atol=1e-6)


def test_it_tends_to_the_nearest_point_and_to_the_mean():
    y, x = points(5), points(7, seed=1)
    nearest = torch.cdist(x.flatten(1), y.flatten(1)).argmin(1)
    torch.testing.assert_close(IdealDenoiser(y)(x, 1e-3), y[nearest])
    torch.testing.assert_close(IdealDenoiser(y)(x, 1e5), y.mean(0, keepdim=True).expand(7, 1, 2, 3), rtol=0, atol=1e-4)
    torch.testing.assert_close(IdealDenoiser(y).weights(x, 0.7).sum(1), torch.ones(7, dtype=torch.float64))


def test_sampling_with_it_lands_on_digits_of_the_data(mnist):
    y = mnist.batch(slice(1000))
    samples = edm_sampler(IdealDenoiser(y), torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    distance = torch.cdist(samples.flatten(1), y.flatten(1)).min(1).values
    assert distance.max() < 0.05, f"{distance.tolist()}; two different digits are about 10 apart"


def test_the_gaussian_denoiser_is_the_mean_of_the_posterior():
    generator = torch.Generator().manual_seed(0)
    y = 0.3 + 0.7 * torch.randn(400_000, 1, 1, 1, generator=generator, dtype=torch.float64)
    noisy = y + 1.5 * torch.randn(y.shape, generator=generator, dtype=torch.float64)
    near = (noisy - 1.0).abs() < 0.02
    answer = GaussianDenoiser(0.3, 0.7)(torch.ones(1, 1, 1, 1), 1.5).item()
    assert y[near].mean().item() == pytest.approx(answer, abs=4 * 0.65 / math.sqrt(near.sum()))


def test_the_gaussian_path_solves_the_ode():
    gaussian, x = GaussianDenoiser(-0.7, 0.6), points(3)
    sigma, h = 1.3, 1e-5
    slope = (gaussian.path(x, sigma, sigma + h) - gaussian.path(x, sigma, sigma - h)) / (2 * h)
    torch.testing.assert_close(slope, (x - gaussian(x, sigma)) / sigma, rtol=1e-6, atol=1e-8)


def test_images_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 4\)"):
        IdealDenoiser(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="NaN"):
        IdealDenoiser(torch.full((2, 1, 2, 2), math.nan))
    with pytest.raises(ValueError, match="std is 0"):
        GaussianDenoiser(0, 0)
    with pytest.raises(ValueError, match="sigma contains -1"):
        GaussianDenoiser()(torch.zeros(1, 1, 2, 2), -1)


def test_images_or_x_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"len\(images\) is 0; it must be a whole number, 1 or more"):
        IdealDenoiser(points()[:0])
    ideal = IdealDenoiser(points())
    for shape in [(4, 1, 3, 2), (4, 1, 1, 6), (4, 1, 2, 2), (4, 2, 2, 3)]:
        for call in (ideal, ideal.weights):
            with pytest.raises(ValueError, match=rf"x has shape \({shape[0]}, .*; it must be \(batch, 1, 2, 3\)"):
                call(torch.zeros(shape, dtype=torch.float64), 1.0)
    with pytest.raises(ValueError, match=r"of shape \(2, 3\)"):
        ideal(torch.zeros(2, 3), 1.0)


@pytest.mark.parametrize("images_dtype", [torch.float32, torch.float64])
def test_x_may_have_another_dtype_than_the_images(images_dtype):
    y, x = points(5).to(images_dtype), points(7, seed=1)
    ideal = IdealDenoiser(y)
    for dtype, least in [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)]:
        given = x.to(dtype)
        distance = ((given.double()[:, None] - y.double()[None]) ** 2).flatten(2).sum(2)
        expected = (-distance / (2 * 0.7**2)).softmax(1) @ y.double().flatten(1)
        answer = ideal(given, 0.7)
        assert answer.dtype == dtype
        tolerance = max(least, 1e-12 if images_dtype == torch.float64 else 1e-5)  # in the images' dtype
        torch.testing.assert_close(answer.double().flatten(1), expected, rtol=tolerance, atol=tolerance)
    assert ideal.images is y
