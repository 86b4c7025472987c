"""The general sampler: EDM's as a special case, order of accuracy, other designs' samplers, and bad calls."""

import inspect
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from edm_lesson.ideal import GaussianDenoiser
from edm_lesson.preconditioning import IDDPMPrecond, VEPrecond, VPPrecond
from edm_lesson.samplers import edm_sampler, general_sampler
from edm_lesson.samplers.general import default_range, scale, solver_step, time_steps
from edm_lesson.schedules import edm_sigmas, iddpm_sigmas, iddpm_table, ve_sigmas, vp_sigmas

MNIST = GaussianDenoiser(-0.739, 0.616)
SOLVERS, DISCRETIZATIONS = ("euler", "heun"), ("edm", "vp", "ve", "iddpm")
PROCESSES = list(itertools.product(("linear", "vp", "ve"), ("none", "vp")))


def latents(batch=3, size=4, dtype=torch.float64, seed=0):
    return torch.randn(batch, 1, size, size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def seeded(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, dtype=x.dtype, generator=generator)


def watch(denoiser=MNIST, x=None, **settings):
    """The levels of a sampler's steps, and what it had at each."""
    calls = []
    general_sampler(denoiser, latents() if x is None else x, callback=lambda *call: calls.append(call), **settings)
    return [call[1] for call in calls], [call[2] for call in calls]


def test_its_defaults_are_those_of_edm_sampler():
    edm, general = (inspect.signature(sampler).parameters for sampler in (edm_sampler, general_sampler))
    assert edm.keys() <= general.keys()
    differ = {name for name in edm if edm[name].default != general[name].default}
    assert differ == {"sigma_min", "sigma_max"}
    assert default_range("edm") == (edm["sigma_min"].default, edm["sigma_max"].default)


@pytest.mark.parametrize("S_churn", [0, 20])
@pytest.mark.parametrize("num_steps", [1, 2, 18])
def test_edm_sampler_is_a_special_case(S_churn, num_steps):
    churn = {"S_churn": S_churn, "S_min": 0.05, "S_max": 50.0, "S_noise": 1.003, "num_steps": num_steps}
    expected = edm_sampler(MNIST, latents(), randn_like=seeded(), **churn)
    torch.testing.assert_close(general_sampler(MNIST, latents(), randn_like=seeded(), **churn), expected)


def test_edm_sampler_is_a_special_case_for_a_network_too(make_denoiser):
    denoiser, x, labels = make_denoiser(label_dim=3), latents(2, 28, torch.float32), torch.tensor([2, 0])
    calls = {sampler: [] for sampler in (edm_sampler, general_sampler)}
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


@pytest.mark.parametrize(("schedule", "scaling"), PROCESSES)
@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
def test_euler_is_first_and_heun_second_order_in_any_coordinates(discretization, schedule, scaling):
    process = {"discretization": discretization, "schedule": schedule, "scaling": scaling}
    if discretization == "iddpm":
        process["sigma_max"] = iddpm_table()[39].item()  # leaves 961 levels, so that steps halve exactly
    assert order(121, 241, solver="euler", **process) == pytest.approx(1, abs=0.07)
    assert order(121, 241, solver="heun", **process) == pytest.approx(2, abs=0.08)


@pytest.mark.parametrize(("schedule", "scaling"), PROCESSES)
@pytest.mark.parametrize("alpha", [0.5, 2 / 3])
def test_other_second_order_steps_are_of_second_order_at_least(alpha, schedule, scaling):
    pixels = GaussianDenoiser(-0.739)
    pixels.std = torch.linspace(0.1, 2, 16, dtype=torch.float64).reshape(4, 4)  # so that no error cancels by chance
    assert order(121, 241, denoiser=pixels, alpha=alpha, schedule=schedule, scaling=scaling) > 1.8


def test_the_three_second_order_methods_differ():
    ends = [general_sampler(MNIST, latents(), alpha=alpha) for alpha in (0.5, 2 / 3, 1.0)]
    assert all((one - other).abs().max() > 1e-4 for one, other in itertools.combinations(ends, 2))


def test_the_midpoint_method_asks_in_the_middle():
    seen = []

    def watching(x, sigma):
        seen.append(sigma[0].item())
        return MNIST(x, sigma)

    general_sampler(watching, latents(), num_steps=2, sigma_min=1.0, sigma_max=9.0, alpha=0.5)
    assert seen == pytest.approx([9, 5, 1])


@pytest.mark.parametrize(("schedule", "scaling"), PROCESSES[1:])
def test_the_same_levels_end_at_the_same_images_in_any_coordinates(schedule, scaling):
    """The solver's error is all the difference, and falls with the square of the number of steps."""

    def difference(num_steps):
        straight = general_sampler(MNIST, latents(), num_steps=num_steps)
        other = general_sampler(MNIST, latents(), num_steps=num_steps, schedule=schedule, scaling=scaling)
        return (other - straight).abs().max().item()

    coarse, fine = difference(64), difference(128)
    assert 1e-4 < fine < 0.02
    assert 3.5 < coarse / fine < 5


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
@pytest.mark.parametrize(("schedule", "scaling"), PROCESSES)
def test_every_combination_samples_the_gaussian(solver, discretization, schedule, scaling):
    rows = {"solver": solver, "discretization": discretization, "schedule": schedule, "scaling": scaling}
    calls = []
    images = general_sampler(MNIST, latents(1, 64), num_steps=256, callback=lambda *c: calls.append(c), **rows)
    _, sigma, x, _ = calls[0]
    expected = MNIST.path(x, sigma, 0)
    tolerance = 0.10 if solver == "euler" else 0.01
    if discretization == "iddpm" and schedule != "linear" and scaling == "none":
        tolerance = 0.30 if solver == "euler" else 0.08  # its steps are long at high noise, where these run steep
    assert images.std().item() == pytest.approx(expected.std().item(), rel=tolerance)
    assert images.mean().item() == pytest.approx(expected.mean().item(), abs=0.02)


@pytest.mark.parametrize(("schedule", "scaling"), PROCESSES)
def test_churn_keeps_the_spread_under_any_scaling(schedule, scaling):
    x, rows = latents(1, 100), {"schedule": schedule, "scaling": scaling}
    images = general_sampler(MNIST, x, num_steps=128, S_churn=20, randn_like=seeded(), **rows)
    assert images.std().item() == pytest.approx(0.616, rel=0.05)


@pytest.mark.parametrize(("schedule", "scaling"), PROCESSES)
def test_churn_raises_the_noise_to_the_level_it_says(schedule, scaling):
    x = latents(1, 200)
    levels, states = watch(x=x, num_steps=1, S_churn=1, randn_like=seeded(), schedule=schedule, scaling=scaling)
    assert levels == pytest.approx([80 * math.sqrt(2)])
    assert states[0].std().item() == pytest.approx(80 * math.sqrt(2), rel=0.02)
    expected = 80 * x + 80 * seeded()(x)  # variances add up, whatever the scale
    torch.testing.assert_close(states[0], expected)


@pytest.mark.parametrize(("schedule", "scaling"), PROCESSES)
def test_without_churn_no_noise_is_drawn(schedule, scaling):
    def never(_):
        raise AssertionError("noise was drawn")

    general_sampler(MNIST, latents(), randn_like=never, schedule=schedule, scaling=scaling)
    general_sampler(MNIST, latents(), S_churn=40, S_min=100, randn_like=never, schedule=schedule, scaling=scaling)


@pytest.mark.parametrize("num_steps", [1, 2, 9])
@pytest.mark.parametrize(("solver", "per_step", "less"), [("euler", 1, 0), ("heun", 2, 1)])
def test_euler_costs_one_evaluation_a_step_and_heun_two_less_one(solver, per_step, less, num_steps):
    seen = []

    def counting(x, sigma):
        seen.append(sigma)
        return MNIST(x, sigma)

    general_sampler(counting, latents(), solver=solver, num_steps=num_steps)
    assert len(seen) == per_step * num_steps - less
    assert all(sigma.shape == (3,) and (sigma > 0).all() for sigma in seen)


def test_one_step_is_one_guess_wherever_it_starts():
    for discretization, (schedule, scaling) in itertools.product(DISCRETIZATIONS, PROCESSES):
        rows = {"discretization": discretization, "schedule": schedule, "scaling": scaling, "num_steps": 1}
        (sigma,), (x,) = watch(**rows)
        end = general_sampler(MNIST, latents(), **rows)
        share = {"linear": 1.0, "ve": 0.5}.get(schedule)
        if scaling == "none" and share:  # the slope of sqrt(t) halves on the way to 0
            torch.testing.assert_close(end, x + share * (MNIST(x, sigma) - x))
        assert torch.isfinite(end).all()


def test_the_levels_are_those_of_the_schedules():
    for discretization, sigmas in [("edm", edm_sigmas), ("vp", vp_sigmas), ("ve", ve_sigmas), ("iddpm", iddpm_sigmas)]:
        for num_steps in (1, 2, 18):
            levels, _ = watch(discretization=discretization, num_steps=num_steps)
            assert levels == pytest.approx(sigmas(num_steps)[:-1].tolist(), rel=1e-9), discretization


@pytest.mark.parametrize("precond", [VPPrecond, VEPrecond, IDDPMPrecond])
@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
def test_range_and_levels_are_those_of_the_denoiser(discretization, precond):
    denoiser = precond(lambda x, *_: x.sin())
    lowest, highest = default_range(discretization)
    ends = [min(highest, denoiser.sigma_max), max(lowest, denoiser.sigma_min)]
    if discretization == "iddpm":
        table = iddpm_table()
        kept = table[(table >= ends[1]) & (table <= ends[0])]
        ends = [kept[0].item(), kept[-1].item()]
    expected = [denoiser.round_sigma(torch.tensor(end, dtype=torch.float64)).item() for end in ends]
    levels, _ = watch(denoiser, latents(2, 4, torch.float32), discretization=discretization, num_steps=9)
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
    levels, _ = watch(sigma_min=0.05, sigma_max=20.0, num_steps=5, discretization="vp")
    assert (levels[0], levels[-1]) == pytest.approx((20, 0.05))
    levels, _ = watch(num_steps=5, discretization="vp", epsilon_s=0.1)
    assert levels == pytest.approx(vp_sigmas(5, epsilon_s=0.1)[:-1].tolist())
    levels, _ = watch(num_steps=5, discretization="iddpm", M=100, C_2=0.01)
    assert set(levels) <= set(iddpm_table(M=100, C_2=0.01).tolist())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"solver": "rk45"}, "solver is 'rk45'; it must be one of euler, heun"),
        ({"discretization": "ddim"}, "discretization is 'ddim'; it must be one of edm, vp, ve, iddpm"),
        ({"schedule": "cosine"}, "schedule is 'cosine'; it must be one of linear, vp, ve"),
        ({"scaling": None}, "scaling is None; it must be one of none, vp"),
        ({"solver": ["heun"]}, r"solver is \['heun'\]"),
        ({"alpha": 0}, "alpha is 0"),
        ({"alpha": 1.1}, "alpha is 1.1"),
        ({"epsilon_s": 0}, "epsilon_s is 0"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"num_steps": 993, "discretization": "iddpm"}, "num_steps is 993, but .* has 992 levels"),
        ({"discretization": "iddpm", "sigma_min": 49.0, "sigma_max": 49.1}, "has 0 levels from 49 to 49.1"),
        ({"schedule": "vp", "sigma_min": 1.0}, r"sigma_min is 1\.0; .* can begin at .* to 0\.0938"),
        ({"sigma_min": 5.0, "sigma_max": 2.0}, "sigma_min must be smaller"),
        ({"sigma_min": 100.0, "sigma_max": 200.0}, r"from 100 to 200, but this denoiser knows only 0\.02 to 50"),
        ({"sigma_max": 0.01}, r"from 0\.002 to 0\.01, but this denoiser knows only 0\.02 to 50"),
        ({"rho": 0}, "rho is 0"),
        ({"S_churn": -1}, "S_churn is -1"),
        ({"C_1": 0, "discretization": "iddpm"}, "C_1 is 0"),
        ({"latents": torch.full((1, 1, 4, 4), math.nan)}, "latents contains NaN"),
        ({"latents": torch.zeros(4, 4)}, r"latents is torch.float32 of shape \(4, 4\)"),
    ],
)
def test_bad_calls_are_refused_with_what_would_work(change, message):
    denoiser = GaussianDenoiser(-0.739, 0.616)
    if not {"num_steps", "schedule"} & change.keys():
        denoiser.sigma_min, denoiser.sigma_max = 0.02, 50.0
    with pytest.raises(ValueError, match=message):
        general_sampler(denoiser, **{"latents": torch.zeros(1, 1, 4, 4), **change})


def test_class_labels_are_handed_on():
    seen = []

    def denoiser(x, sigma, class_labels):
        seen.append(class_labels)
        return MNIST(x, sigma)

    labels = torch.tensor([2, 0, 1])
    general_sampler(denoiser, latents(), labels, num_steps=3)
    assert len(seen) == 5
    assert all(label is labels for label in seen)


def test_class_labels_change_the_images_and_are_checked(make_denoiser):
    denoiser, x = make_denoiser(label_dim=3), latents(1, 28, torch.float32)
    first, second = (general_sampler(denoiser, x, torch.tensor([k]), num_steps=2) for k in (0, 1))
    assert (first - second).abs().max() > 1e-4
    with pytest.raises(ValueError, match="class_labels contains 3"):
        general_sampler(denoiser, x, torch.tensor([3]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_result_is_like_the_latents_and_tracks_no_gradients(make_denoiser, dtype):
    result = general_sampler(make_denoiser(), latents(2, 28, dtype), num_steps=2, schedule="vp", scaling="vp")
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
    ours = general_sampler(denoiser, latents(), solver="euler", discretization="iddpm", num_steps=20)
    torch.testing.assert_close(ours, xbar)


@pytest.mark.parametrize(("schedule", "scaling"), [("linear", "none"), ("linear", "vp")])
def test_a_flow_is_the_euler_step_in_other_coordinates(schedule, scaling):
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
        return general_sampler(
            denoiser, latents(), solver="euler", num_steps=num_steps, schedule=schedule, scaling=scaling
        )

    if scaling == "none":
        torch.testing.assert_close(ours(20), flow(20))
    else:  # other coordinates, another Euler step: the same images in the limit only
        coarse, fine = ((ours(n) - flow(n)).abs().max() for n in (100, 800))
        assert 1e-6 < fine < coarse / 4


WORDS = st.tuples(*map(st.sampled_from, (SOLVERS, DISCRETIZATIONS, ("linear", "vp", "ve"), ("none", "vp"))))


def mostly(*sensible):
    """One of the `sensible` strategies in most examples, any number in the others."""
    return st.integers(0, 15).flatmap(lambda k: st.floats() if k == 0 else st.one_of(*sensible))


@hypothesis_settings(deadline=None)
@given(
    words=WORDS,
    num_steps=st.integers(0, 8),
    sigma_min=mostly(st.none(), st.floats(1e-9, 10)),
    sigma_max=mostly(st.none(), st.floats(0.1, 1e15)),
    alpha=mostly(st.floats(0.01, 1)),
    rho=mostly(st.floats(1, 100)),
    epsilon_s=mostly(st.floats(1e-6, 0.9)),
    S_churn=mostly(st.floats(0, 100)),
    S_noise=mostly(st.floats(0, 1e3)),
)
def test_any_settings_give_finite_images_or_a_value_error(
    words, num_steps, sigma_min, sigma_max, alpha, rho, epsilon_s, S_churn, S_noise
):
    rows = dict(zip(("solver", "discretization", "schedule", "scaling"), words, strict=True))
    numbers = {"alpha": alpha, "rho": rho, "epsilon_s": epsilon_s, "S_churn": S_churn, "S_noise": min(S_noise, 1e3)}
    try:
        result = general_sampler(
            MNIST, latents(1, 2), num_steps=num_steps, sigma_min=sigma_min, sigma_max=sigma_max, M=50, **rows, **numbers
        )
    except ValueError:
        return
    assert torch.isfinite(result).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: time_steps("edmm", 18, 0.002, 80.0), "discretization is 'edmm'; it must be one of edm, vp, ve, iddpm"),
        (lambda: default_range("edmm"), "discretization is 'edmm'"),
        (lambda: scale("vpp", 1.0), "scaling is 'vpp'; it must be one of none, vp"),
        (lambda: solver_step(None, None, 1.0, 0.5, "heunn"), "solver is 'heunn'; it must be one of euler, heun"),
    ],
)
def test_the_pieces_refuse_an_unknown_word_as_well(call, message):
    with pytest.raises(ValueError, match=message):
        call()
