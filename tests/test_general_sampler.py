"""The general sampler: EDM's as a special case, order of accuracy, other designs' samplers, and bad calls."""

import inspect
import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from edm_lesson.designs import DESIGNS
from edm_lesson.ideal import GaussianDenoiser
from edm_lesson.preconditioning import IDDPMPrecond, VEPrecond, VPPrecond
from edm_lesson.samplers import clip_range, edm_sampler, general_sampler
from edm_lesson.samplers.general import solver_step
from edm_lesson.schedules import (
    LinearSchedule,
    VESchedule,
    VPSchedule,
    edm_sigmas,
    iddpm_sigmas,
    iddpm_table,
    unscaled,
    ve_sigmas,
    vp_scale,
    vp_sigmas,
)

MNIST = GaussianDenoiser(-0.739, 0.616)
SOLVERS, COLUMNS = ("euler", "heun"), ("edm", "vp", "ve", "iddpm")
PROCESSES = list(itertools.product((LinearSchedule, VPSchedule, VESchedule), (unscaled, vp_scale)))


def draw(denoiser, latents, class_labels=None, *, column="edm", schedule=LinearSchedule, scale=unscaled, **settings):
    """Images by the levels of a column and any other rows; with Heun's step where nothing else is said."""
    design = replace(DESIGNS[column], solver="heun", schedule=schedule, scale=scale)
    return design.sample(denoiser, latents, class_labels, **settings)


def latents(batch=3, size=4, dtype=torch.float64, seed=0):
    return torch.randn(batch, 1, size, size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def seeded(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, dtype=x.dtype, generator=generator)


def watch(denoiser=MNIST, x=None, **settings):
    """The levels of a sampler's steps, and what it had at each."""
    calls = []
    draw(denoiser, latents() if x is None else x, callback=lambda *call: calls.append(call), **settings)
    return [call[1] for call in calls], [call[2] for call in calls]


def test_what_it_shares_with_edm_sampler_has_the_same_defaults():
    edm, general = (inspect.signature(sampler).parameters for sampler in (edm_sampler, general_sampler))
    assert edm.keys() - general.keys() == {"num_steps", "sigma_min", "sigma_max", "rho"}, "which make its levels"
    assert all(edm[name].default == general[name].default for name in edm.keys() & general.keys())
    assert (DESIGNS["edm"].sigma_min, DESIGNS["edm"].sigma_max) == (edm["sigma_min"].default, edm["sigma_max"].default)


@pytest.mark.parametrize("S_churn", [0, 20])
@pytest.mark.parametrize("num_steps", [1, 2, 18])
def test_edm_sampler_is_a_special_case(S_churn, num_steps):
    churn = {"S_churn": S_churn, "S_min": 0.05, "S_max": 50.0, "S_noise": 1.003}
    expected = edm_sampler(MNIST, latents(), num_steps=num_steps, randn_like=seeded(), **churn)
    rows = {"levels": edm_sigmas(num_steps), "schedule": LinearSchedule(), "scale": unscaled}
    torch.testing.assert_close(general_sampler(MNIST, latents(), randn_like=seeded(), **rows, **churn), expected)
    by_design = DESIGNS["edm"].sample(MNIST, latents(), num_steps=num_steps, randn_like=seeded(), **churn)
    torch.testing.assert_close(by_design, expected)


def test_edm_sampler_is_a_special_case_for_a_network_too(make_denoiser):
    denoiser, x, labels = make_denoiser(label_dim=3), latents(2, 28, torch.float32), torch.tensor([2, 0])
    calls = {sampler: [] for sampler in (edm_sampler, DESIGNS["edm"].sample)}
    ends = [
        sampler(
            denoiser, x, labels, num_steps=4, S_churn=2, randn_like=seeded(), callback=lambda *c, s=seen: s.append(c)
        )
        for sampler, seen in calls.items()
    ]
    torch.testing.assert_close(*ends)
    assert ends[0].dtype == torch.float32
    for ours, theirs in zip(*calls.values(), strict=True):
        torch.testing.assert_close(ours, theirs)


def end_error(num_steps, denoiser=MNIST, **settings):
    """How far from the exact path a sampler is at its lowest level."""
    levels, states = watch(denoiser, num_steps=num_steps, **settings)
    return (states[-1] - denoiser.path(states[0], levels[0], levels[-1])).abs().max().item()


def order(coarse, fine, **settings):
    return math.log2(end_error(coarse, **settings) / end_error(fine, **settings))


@pytest.mark.parametrize(("schedule", "scale"), PROCESSES)
@pytest.mark.parametrize("column", COLUMNS)
def test_euler_is_first_and_heun_second_order_in_any_coordinates(column, schedule, scale):
    process = {"column": column, "schedule": schedule, "scale": scale}
    if column == "iddpm":
        process["sigma_max"] = iddpm_table()[39].item()  # leaves 961 levels, so that steps halve exactly
    assert order(121, 241, solver="euler", **process) == pytest.approx(1, abs=0.07)
    assert order(121, 241, solver="heun", **process) == pytest.approx(2, abs=0.08)


@pytest.mark.parametrize(("schedule", "scale"), PROCESSES)
@pytest.mark.parametrize("alpha", [0.5, 2 / 3])
def test_other_second_order_steps_are_of_second_order_at_least(alpha, schedule, scale):
    pixels = GaussianDenoiser(-0.739)
    pixels.std = torch.linspace(0.1, 2, 16, dtype=torch.float64).reshape(4, 4)  # so that no error cancels by chance
    assert order(121, 241, denoiser=pixels, alpha=alpha, schedule=schedule, scale=scale) > 1.8


def test_the_three_second_order_methods_differ():
    ends = [draw(MNIST, latents(), alpha=alpha) for alpha in (0.5, 2 / 3, 1.0)]
    assert all((one - other).abs().max() > 1e-4 for one, other in itertools.combinations(ends, 2))


def test_the_midpoint_method_asks_in_the_middle():
    seen = []

    def watching(x, sigma):
        seen.append(sigma[0].item())
        return MNIST(x, sigma)

    draw(watching, latents(), num_steps=2, sigma_min=1.0, sigma_max=9.0, alpha=0.5)
    assert seen == pytest.approx([9, 5, 1])


@pytest.mark.parametrize(("schedule", "scale"), PROCESSES[1:])
def test_the_same_levels_end_at_the_same_images_in_any_coordinates(schedule, scale):
    """The solver's error is all the difference, and falls with the square of the number of steps."""

    def difference(num_steps):
        straight = draw(MNIST, latents(), num_steps=num_steps)
        other = draw(MNIST, latents(), num_steps=num_steps, schedule=schedule, scale=scale)
        return (other - straight).abs().max().item()

    coarse, fine = difference(64), difference(128)
    assert 1e-4 < fine < 0.02
    assert 3.5 < coarse / fine < 5


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(("schedule", "scale"), PROCESSES)
def test_every_combination_samples_the_gaussian(solver, column, schedule, scale):
    rows = {"solver": solver, "column": column, "schedule": schedule, "scale": scale}
    calls = []
    images = draw(MNIST, latents(1, 64), num_steps=256, callback=lambda *c: calls.append(c), **rows)
    _, sigma, x, _ = calls[0]
    expected = MNIST.path(x, sigma, 0)
    tolerance = 0.10 if solver == "euler" else 0.01
    if column == "iddpm" and schedule is not LinearSchedule and scale is unscaled:
        tolerance = 0.30 if solver == "euler" else 0.08  # its steps are long at high noise, where these run steep
    assert images.std().item() == pytest.approx(expected.std().item(), rel=tolerance)
    assert images.mean().item() == pytest.approx(expected.mean().item(), abs=0.02)


@pytest.mark.parametrize(("schedule", "scale"), PROCESSES)
def test_churn_keeps_the_spread_under_any_scaling(schedule, scale):
    x, rows = latents(1, 100), {"schedule": schedule, "scale": scale}
    images = draw(MNIST, x, num_steps=128, S_churn=20, randn_like=seeded(), **rows)
    assert images.std().item() == pytest.approx(0.616, rel=0.05)


@pytest.mark.parametrize(("schedule", "scale"), PROCESSES)
def test_churn_raises_the_noise_to_the_level_it_says(schedule, scale):
    x = latents(1, 200)
    levels, states = watch(x=x, num_steps=1, S_churn=1, randn_like=seeded(), schedule=schedule, scale=scale)
    assert levels == pytest.approx([80 * math.sqrt(2)])
    assert states[0].std().item() == pytest.approx(80 * math.sqrt(2), rel=0.02)
    expected = 80 * x + 80 * seeded()(x)  # variances add up, whatever the scale
    torch.testing.assert_close(states[0], expected)


@pytest.mark.parametrize(("schedule", "scale"), PROCESSES)
def test_without_churn_no_noise_is_drawn(schedule, scale):
    def never(_):
        raise AssertionError("noise was drawn")

    draw(MNIST, latents(), randn_like=never, schedule=schedule, scale=scale)
    draw(MNIST, latents(), S_churn=40, S_min=100, randn_like=never, schedule=schedule, scale=scale)


@pytest.mark.parametrize("num_steps", [1, 2, 9])
@pytest.mark.parametrize(("solver", "per_step", "less"), [("euler", 1, 0), ("heun", 2, 1)])
def test_euler_costs_one_evaluation_a_step_and_heun_two_less_one(solver, per_step, less, num_steps):
    seen = []

    def counting(x, sigma):
        seen.append(sigma)
        return MNIST(x, sigma)

    draw(counting, latents(), solver=solver, num_steps=num_steps)
    assert len(seen) == per_step * num_steps - less
    assert all(sigma.shape == (3,) and (sigma > 0).all() for sigma in seen)


def test_one_step_is_one_guess_wherever_it_starts():
    for column, (schedule, scale) in itertools.product(COLUMNS, PROCESSES):
        rows = {"column": column, "schedule": schedule, "scale": scale, "num_steps": 1}
        (sigma,), (x,) = watch(**rows)
        end = draw(MNIST, latents(), **rows)
        share = {LinearSchedule: 1.0, VESchedule: 0.5}.get(schedule)
        if scale is unscaled and share:  # the slope of sqrt(t) halves on the way to 0
            torch.testing.assert_close(end, x + share * (MNIST(x, sigma) - x))
        assert torch.isfinite(end).all()


def test_the_levels_are_those_of_the_schedules():
    for column, sigmas in [("edm", edm_sigmas), ("vp", vp_sigmas), ("ve", ve_sigmas), ("iddpm", iddpm_sigmas)]:
        for num_steps in (1, 2, 18):
            levels, _ = watch(column=column, num_steps=num_steps)
            assert levels == pytest.approx(sigmas(num_steps)[:-1].tolist(), rel=1e-9), column


@pytest.mark.parametrize("precond", [VPPrecond, VEPrecond, IDDPMPrecond])
@pytest.mark.parametrize("column", COLUMNS)
def test_range_and_levels_are_those_of_the_denoiser(column, precond):
    denoiser, design = precond(lambda x, *_: x.sin()), DESIGNS[column]
    ends = [*clip_range(denoiser, design.sigma_min, design.sigma_max)][::-1]
    if column == "iddpm":
        table = iddpm_table()
        kept = table[(table >= ends[1]) & (table <= ends[0])]
        ends = [kept[0].item(), kept[-1].item()]
    expected = [denoiser.round_sigma(torch.tensor(end, dtype=torch.float64)).item() for end in ends]
    levels, _ = watch(denoiser, latents(2, 4, torch.float32), column=column, num_steps=9)
    assert [levels[0], levels[-1]] == pytest.approx(expected, rel=1e-9)
    assert precond is not IDDPMPrecond or set(levels) <= set(denoiser.levels.tolist())


def test_churn_too_stops_at_levels_of_the_denoiser():
    denoiser = IDDPMPrecond(lambda x, *_: x.sin())
    calm, raised = (watch(denoiser, latents(2, 4, torch.float32), num_steps=9, S_churn=churn)[0] for churn in (0, 2))
    assert sum(higher > level for level, higher in zip(calm, raised, strict=True)) >= 7, "all but the lowest"
    assert set(raised) <= set(denoiser.levels.tolist())


def test_a_range_may_be_chosen_and_one_end_of_it():
    levels, _ = watch(sigma_min=0.05, num_steps=5)
    assert (levels[0], levels[-1]) == pytest.approx((80, 0.05))
    levels, _ = watch(sigma_min=0.05, sigma_max=20.0, num_steps=5, column="vp")
    assert (levels[0], levels[-1]) == pytest.approx((20, 0.05))
    rows, seen = {"schedule": VPSchedule(), "scale": vp_scale, "callback": lambda *call: seen.append(call[1])}, []
    for mine in (vp_sigmas(5, epsilon_s=0.1), iddpm_sigmas(5, M=100, C_2=0.01)):
        seen.clear()
        general_sampler(MNIST, latents(), levels=mine, **rows)
        assert seen == mine[:-1].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"solver": "rk45"}, "solver is 'rk45'; it must be one of euler, heun"),
        ({"alpha": 0}, "alpha is 0"),
        ({"alpha": 1.1}, "alpha is 1.1"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"num_steps": 993, "column": "iddpm"}, "num_steps is 993, but .* has 992 levels"),
        ({"column": "iddpm", "sigma_min": 49.0, "sigma_max": 49.1}, "has 0 levels from 49 to 49.1"),
        ({"schedule": VPSchedule, "sigma_min": 1.0}, r"sigma_min is 1\.0; .* can begin at .* to 0\.0938"),
        ({"sigma_min": 5.0, "sigma_max": 2.0}, "sigma_min must be smaller"),
        ({"sigma_min": -1.0}, r"sigma_min is -1\.0"),
        ({"sigma_min": 100.0, "sigma_max": 200.0}, r"from 100 to 200, but this denoiser knows only 0\.02 to 50"),
        ({"sigma_max": 0.01}, r"from 0\.002 to 0\.01, but this denoiser knows only 0\.02 to 50"),
        ({"rho": 0}, "rho is 0"),
        ({"S_churn": -1}, "S_churn is -1"),
        ({"levels": torch.tensor([])}, r"levels are \[\]; they must descend, and end with 0"),
        ({"levels": torch.tensor([0.0])}, r"levels are \[0\.0\]; they must descend, and end with 0"),
        ({"levels": torch.tensor([2.0, 1.0])}, r"levels are \[2\.0, 1\.0\]; they must descend, and end with 0"),
        ({"levels": torch.tensor([1.0, 2.0, 0.0])}, r"they must descend, and end with 0"),
        ({"levels": torch.tensor([100.0, 0.0])}, r"but this denoiser knows only 0\.02 to 50"),
        ({"latents": torch.full((1, 1, 4, 4), math.nan)}, "latents contains NaN"),
        ({"latents": torch.zeros(4, 4)}, r"latents is torch.float32 of shape \(4, 4\)"),
    ],
)
def test_bad_calls_are_refused_with_what_would_work(change, message):
    denoiser = GaussianDenoiser(-0.739, 0.616)
    if not {"num_steps", "schedule"} & change.keys():
        denoiser.sigma_min, denoiser.sigma_max = 0.02, 50.0
    with pytest.raises(ValueError, match=message):
        draw(denoiser, **{"latents": torch.zeros(1, 1, 4, 4), **change})


def test_levels_that_the_denoiser_does_not_know_are_its_nearest():
    denoiser, seen = GaussianDenoiser(-0.739, 0.616), []
    denoiser.sigma_min, denoiser.sigma_max = 0.02, 50.0
    rows = {"levels": torch.tensor([80.0, 1.0, 0.01, 0.0]), "schedule": LinearSchedule(), "scale": unscaled}
    general_sampler(denoiser, latents(), **rows, callback=lambda *call: seen.append(call[1]))
    assert seen == [50.0, 1.0, 0.02]


def test_class_labels_are_handed_on():
    seen = []

    def denoiser(x, sigma, class_labels):
        seen.append(class_labels)
        return MNIST(x, sigma)

    labels = torch.tensor([2, 0, 1])
    draw(denoiser, latents(), labels, num_steps=3)
    assert len(seen) == 5
    assert all(label is labels for label in seen)


def test_class_labels_change_the_images_and_are_checked(make_denoiser):
    denoiser, x = make_denoiser(label_dim=3), latents(1, 28, torch.float32)
    first, second = (draw(denoiser, x, torch.tensor([k]), num_steps=2) for k in (0, 1))
    assert (first - second).abs().max() > 1e-4
    with pytest.raises(ValueError, match="class_labels contains 3"):
        draw(denoiser, x, torch.tensor([3]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_result_is_like_the_latents_and_tracks_no_gradients(make_denoiser, dtype):
    result = draw(make_denoiser(), latents(2, 28, dtype), num_steps=2, schedule=VPSchedule, scale=vp_scale)
    assert (result.dtype, result.shape, result.requires_grad) == (dtype, (2, 1, 28, 28), False)


def wobble(x, level):
    """Stands for a trained network: no straight line in x, and different at every level."""
    return (1.3 * x).sin() * (0.5 + level) + 0.2 * x.roll(1, -1)


def test_ddim_is_the_euler_step_in_other_coordinates():
    """One language: a network that predicts DDPM's noise from xbar = sqrt(abar) x is a denoiser (iDDPM + DDIM)."""

    def predict_noise(xbar, abar):
        return wobble(xbar, abar)

    def denoiser(x, sigma):
        sigma = sigma.reshape(-1, 1, 1, 1)
        abar = 1 / (sigma**2 + 1)
        return x - sigma * predict_noise(abar.sqrt() * x, abar)

    sigmas = iddpm_sigmas(20)
    abars = 1 / (sigmas**2 + 1)
    xbar = (1 - abars[0]).sqrt() * latents()
    for abar, abar_next in itertools.pairwise(abars):
        noise = predict_noise(xbar, abar)
        clean = (xbar - (1 - abar).sqrt() * noise) / abar.sqrt()
        xbar = abar_next.sqrt() * clean + (1 - abar_next).sqrt() * noise  # DDIM
    ours = draw(denoiser, latents(), solver="euler", column="iddpm", num_steps=20)
    torch.testing.assert_close(ours, xbar)


@pytest.mark.parametrize("scale", [unscaled, vp_scale])
def test_a_flow_is_the_euler_step_in_other_coordinates(scale):
    """One language: a network that predicts the velocity n - y from z = (1 - t) y + t n is a denoiser."""

    def velocity(z, t):
        return wobble(z, t)

    def denoiser(x, sigma):
        sigma = sigma.reshape(-1, 1, 1, 1)
        t, z = sigma / (1 + sigma), x / (1 + sigma)
        return z - t * velocity(z, t)

    def flow(num_steps):
        times = edm_sigmas(num_steps) / (1 + edm_sigmas(num_steps))
        z = times[0] * latents()
        for t, t_next in itertools.pairwise(times):
            z = z + (t_next - t) * velocity(z, t)  # Euler, along a straight line in t
        return z

    def ours(num_steps):
        return draw(denoiser, latents(), solver="euler", num_steps=num_steps, scale=scale)

    if scale is unscaled:
        torch.testing.assert_close(ours(20), flow(20))
    else:  # other coordinates, another Euler step: the same images in the limit only
        coarse, fine = ((ours(n) - flow(n)).abs().max() for n in (100, 800))
        assert 1e-6 < fine < coarse / 4


ROWS = st.tuples(*map(st.sampled_from, (SOLVERS, COLUMNS, PROCESSES)))


def mostly(*sensible):
    """One of the `sensible` strategies in most examples, any number in the others."""
    return st.integers(0, 15).flatmap(lambda k: st.floats() if k == 0 else st.one_of(*sensible))


@hypothesis_settings(deadline=None)
@given(
    chosen=ROWS,
    num_steps=st.integers(0, 8),
    sigma_min=mostly(st.none(), st.floats(1e-9, 10)),
    sigma_max=mostly(st.none(), st.floats(0.1, 1e15)),
    alpha=mostly(st.floats(0.01, 1)),
    S_churn=mostly(st.floats(0, 100)),
    S_noise=mostly(st.floats(0, 1e3)),
)
def test_any_settings_give_finite_images_or_a_value_error(
    chosen, num_steps, sigma_min, sigma_max, alpha, S_churn, S_noise
):
    solver, column, (schedule, scale) = chosen
    rows = {"solver": solver, "column": column, "schedule": schedule, "scale": scale}
    numbers = {"alpha": alpha, "S_churn": S_churn, "S_noise": min(S_noise, 1e3)}
    try:
        result = draw(
            MNIST, latents(1, 2), num_steps=num_steps, sigma_min=sigma_min, sigma_max=sigma_max, **rows, **numbers
        )
    except ValueError:
        return
    assert torch.isfinite(result).all()


def test_a_step_refuses_an_unknown_word_as_well():
    with pytest.raises(ValueError, match="solver is 'heunn'; it must be one of euler, heun"):
        solver_step(None, None, 1.0, 0.5, "heunn")
