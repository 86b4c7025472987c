"""The samplers: order of accuracy, churn, cost, foreign denoisers and samplers, seeds, and bad calls."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edm_lesson.designs import DESIGNS
from edm_lesson.ideal import GaussianDenoiser, IdealDenoiser
from edm_lesson.preconditioning import EDMPrecond
from edm_lesson.samplers import (
    SeededNoise,
    add_churn,
    edm_sampler,
    euler_step,
    heun_step,
    images,
    sample_images,
)
from edm_lesson.schedules import edm_sigmas

MNIST = GaussianDenoiser(-0.739, 0.616)


def latents(batch=3, size=4, dtype=torch.float64, seed=0):
    return torch.randn(batch, 1, size, size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def error(step, num_steps):
    """How far from the exact path the steps end at sigma_min."""
    sigmas = edm_sigmas(num_steps)[:-1].tolist()
    x = start = latents() * sigmas[0]
    for sigma, sigma_next in pairwise(sigmas):
        x, _ = step(MNIST, x, sigma, sigma_next)
    return (x - MNIST.path(start, sigmas[0], sigmas[-1])).abs().max().item()


@pytest.mark.parametrize("num_steps", [65, 130, 260])
@pytest.mark.parametrize(("step", "order"), [(euler_step, 1), (heun_step, 2)])
def test_euler_is_first_and_heun_second_order(step, order, num_steps):
    measured = math.log2(error(step, num_steps) / error(step, 2 * num_steps))
    assert measured == pytest.approx(order, abs=0.05)


def end(num_steps, **churn):
    return edm_sampler(MNIST, latents(1, 200), num_steps=num_steps, **churn)


def test_through_the_last_step_heun_measures_a_little_more_than_2():
    start = latents() * 80

    def off(num_steps):
        return (edm_sampler(MNIST, latents(), num_steps=num_steps) - MNIST.path(start, 80, 0)).abs().max().item()

    assert 2.05 < math.log2(off(65) / off(130)) < 2.20


def test_eighteen_steps_inflate_the_spread():
    scale = latents(1, 200).std().item()
    assert end(18).std().item() / scale == pytest.approx(0.648, abs=0.001)
    assert end(256).std().item() / scale == pytest.approx(0.616, abs=0.001)


@pytest.mark.parametrize(("num_steps", "std"), [(256, 0.617), (18, 0.689)])
def test_churn_keeps_the_spread_only_when_steps_are_many(num_steps, std):
    generator = torch.Generator().manual_seed(1)

    def randn_like(x):
        return torch.randn(x.shape, dtype=x.dtype, generator=generator)

    measured = end(num_steps, S_churn=40, randn_like=randn_like).std().item()
    assert measured == pytest.approx(std, abs=4 * std / math.sqrt(2 * 200 * 200))


@pytest.mark.parametrize("num_steps", [1, 2, 18])
def test_it_costs_two_evaluations_a_step_less_one(num_steps):
    seen = []

    def counting(x, sigma):
        seen.append(sigma)
        return MNIST(x, sigma)

    edm_sampler(counting, latents(), num_steps=num_steps)
    assert len(seen) == 2 * num_steps - 1
    assert all(sigma.shape == (3,) and (sigma > 0).all() for sigma in seen)


def test_one_step_is_one_guess():
    torch.testing.assert_close(edm_sampler(MNIST, latents(), num_steps=1), MNIST(latents() * 80, 80.0))


def test_without_churn_no_noise_is_drawn():
    def never(_):
        raise AssertionError("noise was drawn")

    edm_sampler(MNIST, latents(), randn_like=never)
    edm_sampler(MNIST, latents(), S_churn=40, S_min=100, randn_like=never)
    x = latents()
    assert add_churn(x, 1.0, 18, S_churn=0, randn_like=never)[0] is x


def test_churn_raises_the_noise_to_the_level_it_says():
    x, sigma = torch.zeros(1, 1, 300, 300), 2.0
    for S_churn, gamma in [(1.8, 0.1), (1000, math.sqrt(2) - 1)]:
        raised, sigma_hat = add_churn(x, sigma, 18, S_churn, S_noise=1.003)
        assert sigma_hat == pytest.approx(sigma * (1 + gamma))
        assert raised.std().item() == pytest.approx(1.003 * math.sqrt(sigma_hat**2 - sigma**2), rel=0.02)
    for S_min, S_max in [(2.1, 50), (0, 1.9)]:
        assert add_churn(x, sigma, 18, 40, S_min, S_max) == (x, sigma)


@pytest.mark.parametrize("S_churn", [0, 10])
def test_the_callback_is_told_where_each_step_starts(S_churn):
    calls = []
    edm_sampler(MNIST, latents(), num_steps=5, S_churn=S_churn, callback=lambda *call: calls.append(call))
    assert [call[0] for call in calls] == list(range(5))
    for (_, sigma, x, denoised), level in zip(calls, edm_sigmas(5).tolist(), strict=False):
        torch.testing.assert_close(denoised, MNIST(x, sigma))
        assert sigma == pytest.approx(level * (math.sqrt(2) if S_churn else 1))


class TableDenoiser:
    """A foreign denoiser that knows only some noise levels and refuses all others."""

    table = torch.tensor([0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0], dtype=torch.float64)
    sigma_min, sigma_max = 0.01, 10.0

    def __init__(self):
        self.seen = []

    def round_sigma(self, sigma):
        return self.table[(self.table - sigma).abs().argmin()]

    def __call__(self, x, sigma):
        self.seen.append(sigma[0].item())
        return MNIST(x, sigma)


@pytest.mark.parametrize("S_churn", [0, 5])
def test_range_and_levels_are_those_of_the_denoiser(S_churn):
    denoiser = TableDenoiser()
    edm_sampler(denoiser, latents(), num_steps=9, S_churn=S_churn)
    assert set(denoiser.seen) <= set(denoiser.table.tolist())
    assert (denoiser.seen[0], denoiser.seen[-1]) == (10.0, 0.01)


class Limited:
    """A denoiser that states a range and refuses more noise."""

    sigma_min, sigma_max = 0.002, 80.0

    def __call__(self, x, sigma):
        assert (sigma <= self.sigma_max * (1 + 1e-12)).all(), f"asked for {sigma.max():g}"  # rounding aside
        return MNIST(x, sigma)


@pytest.mark.parametrize("sampler", [edm_sampler, *(design.sample for design in DESIGNS.values())])
def test_churn_asks_for_no_more_noise_than_the_denoiser_knows(sampler):
    levels = []
    sampler(Limited(), latents(), num_steps=18, S_churn=40, callback=lambda *call: levels.append(call[1]))
    assert levels[0] == 80
    assert sum(raised == pytest.approx(80) for raised in levels) < 5, "only those that would exceed it are clipped"


def test_a_range_that_the_denoiser_does_not_know_at_all_is_refused():
    with pytest.raises(ValueError, match=r"asked for sigma from 20 to 80, but this denoiser knows only 0\.01 to 10"):
        edm_sampler(TableDenoiser(), latents(), sigma_min=20)


def test_it_drives_a_k_diffusion_style_denoiser():
    def foreign(x, sigma):
        assert x.dtype == sigma.dtype == torch.float32
        return MNIST(x, sigma[(...,) + (None,) * (x.ndim - sigma.ndim)])

    x = latents(dtype=torch.float32)
    torch.testing.assert_close(edm_sampler(foreign, x), edm_sampler(MNIST, x.double()).float(), atol=1e-4, rtol=1e-4)


def test_it_drives_an_nvlabs_style_denoiser():
    class Foreign(torch.nn.Module):
        sigma_min, sigma_max, label_dim, img_channels = 0, float("inf"), 10, 1

        def forward(self, x, sigma, class_labels=None, force_fp32=False):
            sigma = sigma.to(torch.float32).reshape(-1, 1, 1, 1)
            assert class_labels.shape == (3, 10)
            return MNIST(x.to(torch.float32), sigma)

        def round_sigma(self, sigma):
            return torch.as_tensor(sigma)

    x = latents(dtype=torch.float32)
    expected = edm_sampler(MNIST, x.double()).float()
    torch.testing.assert_close(edm_sampler(Foreign(), x, torch.eye(10)[:3]), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(edm_sampler(Foreign(), x, torch.arange(3)), expected, atol=1e-4, rtol=1e-4)


def test_other_samplers_drive_our_denoiser(make_denoiser):
    denoiser, x = make_denoiser(), latents(2, 28, torch.float32)
    expected = edm_sampler(denoiser, x, num_steps=6)
    sigmas = edm_sigmas(6)

    with torch.no_grad():
        k_diffusion, s_in = x * sigmas[0].float(), x.new_ones(len(x))
        for sigma, sigma_next in pairwise(sigmas.float()):
            d = (k_diffusion - denoiser(k_diffusion, sigma * s_in)) / sigma
            x_next = k_diffusion + (sigma_next - sigma) * d
            if sigma_next > 0:
                d_next = (x_next - denoiser(x_next, sigma_next * s_in)) / sigma_next
                x_next = k_diffusion + (sigma_next - sigma) * (d + d_next) / 2
            k_diffusion = x_next

        nvlabs = x.to(torch.float64) * sigmas[0]
        for t, t_next in pairwise(denoiser.round_sigma(sigmas)):
            slope = (nvlabs - denoiser(nvlabs, t, None).to(torch.float64)) / t
            x_next = nvlabs + (t_next - t) * slope
            if t_next > 0:
                slope_next = (x_next - denoiser(x_next, t_next, None).to(torch.float64)) / t_next
                x_next = nvlabs + (t_next - t) * (slope + slope_next) / 2
            nvlabs = x_next

    torch.testing.assert_close(k_diffusion, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(nvlabs.float(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_result_is_like_the_latents_and_tracks_no_gradients(make_denoiser, dtype):
    result = edm_sampler(make_denoiser(), latents(2, 28, dtype), num_steps=2)
    assert (result.dtype, result.shape, result.requires_grad) == (dtype, (2, 1, 28, 28), False)


@pytest.mark.parametrize("churn", [{}, {"S_churn": 10}])
def test_a_seed_gives_the_same_image_in_any_batch(make_denoiser, churn):
    denoiser = make_denoiser()
    together = sample_images(denoiser, 5, seed=3, num_steps=4, **churn)
    apart = sample_images(denoiser, 5, seed=3, batch_size=2, num_steps=4, **churn)
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        together[2:3], sample_images(denoiser, 1, seed=3, first=2, num_steps=4, **churn), atol=1e-4, rtol=1e-4
    )
    assert (together[0] - together[1]).abs().max() > 0.01, "different seeds give different images"


def test_two_seeds_share_no_image_and_seed_0_has_those_it_always_had(monkeypatch):
    seeds: list[int] = []

    def keep(numbers, device):
        seeds.extend(numbers)
        return SeededNoise(numbers, device)

    def numbers_of(seed, **settings):
        seeds.clear()
        sample_images(IdealDenoiser(latents(2)), 3, seed=seed, num_steps=1, **settings)
        return list(seeds)

    monkeypatch.setattr(images, "SeededNoise", keep)
    assert numbers_of(0) == [0, 1, 2]
    assert numbers_of(0, first=7) == [7, 8, 9]
    begin = [numbers_of(seed)[0] for seed in (*range(300), 1234, 2**31, 2**32 - 1)]
    gaps = [(two - one) % 2**32 for one, two in zip(sorted(begin), [*sorted(begin)[1:], min(begin)], strict=True)]
    assert min(gaps) > 100_000, "as many images of one seed come before those of another"
    assert numbers_of(2**32 - 1) == [(begin[-1] + i) % 2**32 for i in range(3)], "PyTorch takes 32 bits of a seed"
    with pytest.raises(ValueError, match="seed is 4294967296; it must be a whole number from 0 to 4294967295"):
        sample_images(IdealDenoiser(latents(2)), 3, seed=2**32)


def test_noise_of_several_seeds_must_fit_the_batch():
    noise = SeededNoise(range(3))
    assert noise.latents((1, 200, 200)).std().item() == pytest.approx(1, abs=0.01)
    with pytest.raises(ValueError, match="x holds 2 images, but there are 3 seeds"):
        noise.randn_like(torch.zeros(2, 1, 4, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 0}, "num_steps is 0"),
        ({"num_steps": 2.5}, "num_steps is 2.5"),
        ({"sigma_min": 80}, "sigma_min is 80 and sigma_max is 80"),
        ({"sigma_min": -0.1}, "sigma_min is -0.1"),
        ({"sigma_max": math.nan}, "sigma_max is nan"),
        ({"rho": 0}, "rho is 0"),
        ({"S_churn": -1}, "S_churn is -1"),
        ({"S_noise": -1}, "S_noise is -1"),
        ({"S_min": 5, "S_max": 1}, "S_min is 5 and S_max is 1"),
        ({"latents": torch.full((1, 1, 28, 28), math.nan)}, "latents contains NaN"),
        ({"latents": torch.zeros(28, 28)}, r"latents is torch.float32 of shape \(28, 28\)"),
        ({"latents": torch.zeros(1, 3, 28, 28)}, r"latents has shape \(1, 3, 28, 28\); it must be \(batch, 1, "),
        ({"class_labels": torch.tensor([3])}, "class_labels contains 3; this model's classes are 0 to 2"),
    ],
)
def test_bad_calls_are_refused_with_the_value(make_denoiser, change, message):
    arguments = {"latents": torch.zeros(1, 1, 28, 28), **change}
    with pytest.raises(ValueError, match=message):
        edm_sampler(make_denoiser(label_dim=3), **arguments)


NUMBER = st.one_of(st.floats(1e-6, 1e6), st.floats(), st.integers(-2, 100))


@settings(deadline=None)
@given(st.integers(-1, 12), NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER)
def test_any_settings_give_finite_images_or_a_value_error(
    num_steps, sigma_min, sigma_max, rho, S_churn, S_min, S_max, S_noise
):
    names = {
        "sigma_min": sigma_min,
        "sigma_max": sigma_max,
        "rho": rho,
        "S_churn": S_churn,
        "S_min": S_min,
        "S_max": S_max,
    }
    try:
        result = edm_sampler(MNIST, latents(1, 2), num_steps=num_steps, S_noise=min(S_noise, 1e3), **names)
    except ValueError:
        return
    assert torch.isfinite(result).all()


@pytest.mark.parametrize(
    ("denoiser", "found"),
    [
        (lambda x, sigma: x.mean(1, keepdim=True), r"answers \(2, 1, 4, 4\) to x of shape \(2, 3, 4, 4\)"),
        (lambda x, sigma: x.mean((1, 2, 3)), r"answers \(2,\) to x of shape \(2, 3, 4, 4\)"),
        (lambda x, sigma: x[:1], r"answers \(1, 3, 4, 4\)"),
        (lambda x, sigma: torch.cat([x, x], dim=1), r"answers \(2, 6, 4, 4\)"),
    ],
)
@pytest.mark.parametrize("sampler", [edm_sampler, DESIGNS["vp"].sample])
def test_an_answer_that_is_not_shaped_like_x_is_refused(sampler, denoiser, found):
    with pytest.raises(ValueError, match=found):
        sampler(denoiser, torch.randn(2, 3, 4, 4), num_steps=2)


def test_a_level_that_the_latents_round_to_zero_is_refused():
    with pytest.raises(ValueError, match=r"sigma contains 1\.0.*e-20; as torch.float16, noise levels must be above 0"):
        edm_sampler(lambda x, sigma: x, latents(dtype=torch.float16), num_steps=2, sigma_min=1e-20, sigma_max=1.0)


def test_images_are_drawn_from_a_denoiser_that_is_no_module():
    data = latents(5, dtype=torch.float32, seed=9)
    samples = sample_images(IdealDenoiser(data), 3, first=2, batch_size=2)
    expected = edm_sampler(IdealDenoiser(data), SeededNoise([2, 3, 4]).latents((1, 4, 4)))
    torch.testing.assert_close(samples, expected, atol=1e-4, rtol=1e-4)
    assert torch.cdist(samples.flatten(1), data.flatten(1)).min(1).values.max() < 0.05


@pytest.mark.parametrize("denoiser", [MNIST, lambda x, sigma: x, EDMPrecond(torch.nn.Identity())])
def test_a_denoiser_that_does_not_say_its_size_is_refused(denoiser):
    with pytest.raises(ValueError, match=r"img_channels and img_resolution.* call a sampler.* with latents"):
        sample_images(denoiser, 2)


@pytest.mark.parametrize("classes", [[], (), torch.tensor([], dtype=torch.int64)])
def test_no_classes_to_draw_are_refused(make_denoiser, classes):
    with pytest.raises(ValueError, match=r"len\(classes\) is 0; it must be a whole number, 1 or more"):
        sample_images(make_denoiser(label_dim=3), 2, classes=classes)
