"""Noise levels against the paper's figures, schedules against autograd, and for any number: sense or a ValueError."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

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

ALL = [edm_sigmas, vp_sigmas, ve_sigmas, iddpm_sigmas]
SENSIBLE = st.floats(1e-9, 1e9)
ANY_NUMBER = st.one_of(SENSIBLE, SENSIBLE, SENSIBLE, st.floats(), st.sampled_from([0, 1, -1]))


def test_edm_levels_are_those_of_the_paper():
    expected = [80, 57.586, 40.786, 28.375, 19.352, 12.910, 8.401, 5.315, 3.257, 1.923, 1.088, 0.5853, 0.2964]
    expected += [0.1395, 0.05995, 0.02293, 0.007528, 0.002, 0]
    torch.testing.assert_close(edm_sigmas(18), torch.tensor(expected, dtype=torch.float64), rtol=2e-4, atol=0)


def test_vp_levels_begin_and_end_where_the_paper_says():
    sigmas = vp_sigmas(100)
    assert sigmas[0].item() == pytest.approx(152.16697, abs=1e-5)
    assert sigmas[-2].item() == pytest.approx(0.010486, abs=1e-6)


def test_ve_levels_are_a_geometric_sequence():
    sigmas = ve_sigmas(10)[:-1]
    assert sigmas[0].item() == pytest.approx(100)
    assert sigmas[-1].item() == pytest.approx(0.02)
    ratios = sigmas[1:] / sigmas[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand(9))


def test_the_iddpm_table_is_that_of_the_paper():
    u = iddpm_table()
    assert u.shape == (1001,)
    assert u[0].item() == pytest.approx(20291.17, abs=0.01)
    assert u[999].item() == pytest.approx(0.00642, abs=1e-5)
    assert u[1000] == 0
    kept = u[(u >= 0.002) & (u <= 81)]
    assert len(kept) == 992
    assert kept[0].item() == pytest.approx(80.2037, abs=1e-4)
    torch.testing.assert_close(iddpm_sigmas(992)[:-1], kept)


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("num_steps", [1, 2, 18, 500])
def test_levels_descend_to_zero(schedule, num_steps):
    sigmas = schedule(num_steps)
    assert sigmas.dtype == torch.float64
    assert sigmas.shape == (num_steps + 1,)
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()
    assert sigmas[0] == schedule(2)[0], "one step, too, starts at the top"


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("num_steps", [0, -1, 2.5, float("nan"), "18", None])
def test_num_steps_must_be_a_whole_number(schedule, num_steps):
    with pytest.raises(ValueError, match="num_steps is"):
        schedule(num_steps)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma_min": 0}, "sigma_min is 0"),
        ({"sigma_min": -1}, "sigma_min is -1"),
        ({"sigma_max": float("nan")}, "sigma_max is nan"),
        ({"sigma_min": 2, "sigma_max": 1}, "sigma_min is 2 and sigma_max is 1"),
        ({"rho": 0}, "rho is 0"),
    ],
)
def test_impossible_ranges_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        edm_sigmas(18, **settings)


def test_iddpm_refuses_more_steps_than_its_table_has():
    with pytest.raises(ValueError, match=r"num_steps is 993, but iDDPM's table has 992 levels from 0\.002 to 81"):
        iddpm_sigmas(993)


@pytest.mark.parametrize("M", [None, "2", 1j, 0, 2.5])
def test_iddpm_refuses_a_table_without_a_whole_number_of_entries(M):
    with pytest.raises(ValueError, match=r"M is .* whole number"):
        iddpm_sigmas(5, M=M)


@given(num_steps=st.integers(-2, 60), sigma_min=ANY_NUMBER, sigma_max=ANY_NUMBER, rho=ANY_NUMBER)
def test_edm_and_ve_give_finite_levels_or_a_value_error(num_steps, sigma_min, sigma_max, rho):
    for schedule, extra in ((edm_sigmas, (rho,)), (ve_sigmas, ())):
        try:
            sigmas = schedule(num_steps, sigma_min, sigma_max, *extra)
        except ValueError:
            continue
        assert torch.isfinite(sigmas).all()
        assert (sigmas.diff() <= 0).all()
        assert sigmas[0].item() == pytest.approx(sigma_max, rel=1e-6)
        assert num_steps == 1 or sigmas[-2].item() == pytest.approx(sigma_min, rel=1e-6)


@given(num_steps=st.integers(-2, 60), beta_d=ANY_NUMBER, beta_min=ANY_NUMBER, epsilon_s=ANY_NUMBER)
def test_vp_gives_finite_levels_or_a_value_error(num_steps, beta_d, beta_min, epsilon_s):
    try:
        sigmas = vp_sigmas(num_steps, beta_d, beta_min, epsilon_s)
    except ValueError:
        return
    assert torch.isfinite(sigmas).all()
    assert (sigmas.diff() <= 0).all()


SCHEDULES = [LinearSchedule(), VESchedule(), VPSchedule(), VPSchedule.from_range(0.002, 80)]
by_name = pytest.mark.parametrize("schedule", SCHEDULES, ids=["linear", "ve", "vp", "vp for EDM's range"])


def times():
    return torch.logspace(-2.9, 0, 20, dtype=torch.float64)


def test_the_schedules_are_those_of_table_1():
    t = times()
    growth = torch.exp(19.9 / 2 * t**2 + 0.1 * t)
    torch.testing.assert_close(VPSchedule().sigma(t), (growth - 1).sqrt())
    torch.testing.assert_close(vp_scale(VPSchedule().sigma(t))[0], growth**-0.5)
    torch.testing.assert_close(VESchedule().sigma(t), t**0.5)
    torch.testing.assert_close(LinearSchedule().sigma(t), t)
    assert unscaled(t) == (1, 0)


@by_name
def test_derivatives_are_those_of_autograd(schedule):
    t = times().requires_grad_()
    (gradient,) = torch.autograd.grad(schedule.sigma(t).sum(), t)
    torch.testing.assert_close(schedule.sigma_deriv(t), gradient, rtol=1e-10, atol=1e-12)
    s, s_deriv = vp_scale(t)
    (gradient,) = torch.autograd.grad(s.sum(), t)
    torch.testing.assert_close(s_deriv, gradient, rtol=1e-10, atol=1e-12)


@by_name
def test_the_inverse_leads_back_to_the_time(schedule):
    torch.testing.assert_close(schedule.sigma_inv(schedule.sigma(times())), times(), rtol=1e-10, atol=0)


def test_small_times_keep_their_digits_in_float32():
    exact = math.sqrt(math.expm1(19.9 / 2 * 1e-10 + 0.1 * 1e-5))
    sigma = VPSchedule().sigma(torch.tensor(1e-5))
    assert sigma.dtype == torch.float32
    assert sigma.item() == pytest.approx(exact, rel=1e-6), "exp(.) - 1 would be 2.4 % off"
    assert VPSchedule().sigma_inv(sigma).item() == pytest.approx(1e-5, rel=1e-5)


@by_name
def test_numbers_become_float64_tensors(schedule):
    for function in (schedule.sigma, schedule.sigma_inv, schedule.sigma_deriv):
        value = function(0.3)
        assert (value.dtype, value.shape) == (torch.float64, ())
        torch.testing.assert_close(value, function(torch.tensor([0.3], dtype=torch.float64))[0])


def test_vp_ends_where_the_paper_says_and_preserves_the_variance():
    schedule = VPSchedule()
    assert schedule.sigma(1).item() == pytest.approx(152.16697, abs=1e-5)
    assert schedule.sigma(1e-3).item() == pytest.approx(0.010486, abs=1e-6)
    t = 1 + torch.linspace(0, 1, 30, dtype=torch.float64) * (1e-3 - 1)
    torch.testing.assert_close(schedule.sigma(t), vp_sigmas(30)[:-1])


def test_vp_is_recovered_from_its_range():
    schedule = VPSchedule()
    again = VPSchedule.from_range(schedule.sigma(1e-3).item(), schedule.sigma(1).item())
    assert (again.beta_d, again.beta_min) == pytest.approx((19.9, 0.1), rel=1e-9)
    other = VPSchedule.from_range(0.02, 100, epsilon_s=0.01)
    assert (other.sigma(0.01).item(), other.sigma(1).item()) == pytest.approx((0.02, 100))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VPSchedule(beta_d=-1), "beta_d is -1"),
        (lambda: VPSchedule(beta_min=-10), "beta_min is -10"),
        (lambda: VPSchedule(0, 0), "there is no noise at first"),
        (lambda: VPSchedule(200, 0), "beta_d is 200, .* or too much"),
        (lambda: VPSchedule.from_range(0.3, 80), r"sigma_min is 0\.3; .* begin at .* to 0\.0938"),
        (lambda: VPSchedule.from_range(80, 0.3), "sigma_min must be smaller"),
        (lambda: VPSchedule.from_range(0.002, 80, 1.0), "epsilon_s is 1.0"),
        (lambda: vp_sigmas(18, 0.0, -0.1), "beta_min is -0.1"),
    ],
)
def test_impossible_schedules_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@given(sigma_min=ANY_NUMBER, sigma_max=ANY_NUMBER, epsilon_s=st.one_of(st.floats(1e-5, 0.9), st.floats()))
def test_vp_meets_any_range_or_refuses_it(sigma_min, sigma_max, epsilon_s):
    try:
        schedule = VPSchedule.from_range(sigma_min, sigma_max, epsilon_s)
    except ValueError:
        return
    sigma = schedule.sigma(torch.linspace(epsilon_s, 1, 9, dtype=torch.float64))
    assert (sigma.diff() > 0).all()
    assert (sigma[0].item(), sigma[-1].item()) == pytest.approx((sigma_min, sigma_max), rel=1e-4)
    assert schedule.sigma_inv(sigma[0]).item() == pytest.approx(epsilon_s, rel=1e-4)
