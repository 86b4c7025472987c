"""Whatever numbers, ranges and shapes they are asked for: finite results, or a ValueError.

What is no number or no image is refused by whoever notices first; it must not give a result that its number would not.
"""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edm_lesson.augment import AugmentPipe
from edm_lesson.designs import DESIGNS
from edm_lesson.ideal import GaussianDenoiser
from edm_lesson.losses import EDMLoss
from edm_lesson.preconditioning import EDMPrecond, IDDPMPrecond, VEPrecond, VPPrecond
from edm_lesson.samplers import add_churn, edm_sampler, sample_images
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

GENEROUS = settings(deadline=None)
EXTREME = st.one_of(st.floats(), st.sampled_from([0, -1, 1e308, 5e-324, -0.0]))
OTHER = [
    *(None, True, "2", b"2", 1j, [1], (), {}, 10**400, -(10**400), Fraction(1, 3), Fraction(7), Decimal("0.5")),
    *(np.float32(0.5), np.float64(7), np.int64(5), np.int32(5), np.uint8(3), np.array(2.0), np.ones(2)),
    *(torch.tensor(0.5), torch.tensor(3), torch.ones(2)),
]


def mostly(sensible, *odd):
    """Strategies: the `sensible` one in 15 of 16 examples, one of the `odd` in the other."""
    return st.integers(0, 15).flatmap(lambda k: st.one_of(*(odd or (EXTREME,))) if k == 7 else sensible)


WHOLE = mostly(st.integers(1, 12), st.integers(-2, 60), EXTREME)
NUMBER = st.one_of(st.floats(1e-4, 100), st.floats(1e-30, 1e16), st.integers(-2, 90), EXTREME)
SHARE = mostly(st.floats(1e-6, 0.9))
LOW, HIGH = mostly(st.floats(1e-6, 1)), mostly(st.one_of(st.floats(2, 200), st.floats(2, 1e15), st.integers(2, 10**6)))
DTYPES = st.sampled_from(
    [
        *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
        *(torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e5m2),
    ]
)
FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


SCHEDULES = {
    edm_sigmas: (LOW, HIGH, mostly(st.floats(1, 30))),
    ve_sigmas: (LOW, HIGH),
    vp_sigmas: (mostly(st.floats(0, 100)), mostly(st.floats(0, 60)), SHARE),
    iddpm_sigmas: (LOW, HIGH, SHARE, st.floats(1e-6, 10), mostly(st.integers(20, 60))),
}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.__name__)
@GENEROUS
@given(data=st.data())
def test_levels_for_any_arguments(schedule, data):
    num_steps, numbers = data.draw(WHOLE), data.draw(st.tuples(*SCHEDULES[schedule]))
    try:
        sigmas = schedule(num_steps, *numbers)
    except ValueError:
        return
    assert sigmas.shape == (int(num_steps) + 1,)
    assert sigmas.dtype == torch.float64
    assert sigmas.isfinite().all()
    assert (sigmas.diff() <= 0).all()
    assert sigmas[-1] == 0
    if schedule is iddpm_sigmas:
        assert set(sigmas.tolist()) <= set(iddpm_table(*numbers[2:]).tolist())


@st.composite
def schedules(draw):
    """A schedule, and the lowest time at which it has noise."""
    kind = draw(st.sampled_from([LinearSchedule, VESchedule, VPSchedule, VPSchedule.from_range]))
    numbers = draw(st.tuples(NUMBER, NUMBER)) + ((draw(SHARE),) if kind == VPSchedule.from_range else ())
    try:
        if kind == VPSchedule.from_range:
            return kind(*numbers), float(numbers[2])
        schedule = kind(*(numbers if kind is VPSchedule else ()))
    except ValueError:
        return VPSchedule(), 1e-3
    return (schedule, 1e-3) if kind is not VPSchedule or schedule.beta_min >= 0 else (VPSchedule(), 1e-3)


@GENEROUS
@given(schedules(), st.lists(st.integers(0, 3), max_size=3), st.sampled_from([torch.float32, torch.float64]))
def test_schedules_keep_any_shape_and_both_precisions(chosen, shape, dtype):
    schedule, lowest = chosen
    t = 1 - (1 - lowest) * torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    sigma = schedule.sigma(t)
    for values in (sigma, schedule.sigma_deriv(t), schedule.sigma_inv(sigma)):
        assert (values.shape, values.dtype) == (t.shape, t.dtype)
    if dtype == torch.float64:  # in float32 the highest levels are infinite
        for values in (sigma, schedule.sigma_deriv(t), *vp_scale(sigma)):
            assert torch.as_tensor(values).isfinite().all()
        torch.testing.assert_close(schedule.sigma_inv(sigma), t, rtol=1e-5, atol=1e-9)


class Echo(torch.nn.Module):
    img_channels, img_resolution, label_dim = 1, 4, 3

    def forward(self, x, c_noise, class_labels=None, augment_labels=None):
        return x


PRECONDS = [EDMPrecond(Echo()), VPPrecond(Echo()), VEPrecond(Echo()), IDDPMPrecond(Echo(), M=50)]


@st.composite
def tensors(draw, shape, dtypes, low=-3.0, high=3.0):
    """A tensor, mostly of that shape, with values from `low` to `high`."""
    shape = draw(mostly(st.just(shape), st.lists(st.integers(0, 3), max_size=5)))
    values = torch.rand(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 9)))) * (high - low) + low
    return values.to(draw(dtypes))


MOSTLY_FLOAT = mostly(st.sampled_from(sorted(FLOATS, key=str)), DTYPES)


@st.composite
def batches(draw):
    """Images, noise levels and labels, mostly of the same number."""
    batch = draw(st.integers(0, 3))
    images = tensors((batch, 1, 4, 4), MOSTLY_FLOAT)
    levels = [tensors((batch, *more), MOSTLY_FLOAT, 0.01, 90) for more in ((), (1, 1, 1))]
    integers = tensors((batch,), mostly(st.sampled_from([torch.int64, torch.uint8]), DTYPES), 0, 2.9)
    one_hot = tensors((batch, 3), mostly(st.sampled_from([torch.float32, torch.int64]), DTYPES), 0, 1)
    listed = st.lists(st.integers(0, 2), min_size=batch, max_size=batch)
    labels = mostly(st.one_of(st.none(), integers, one_hot, listed))
    return draw(mostly(images)), draw(mostly(st.one_of(st.floats(1e-3, 1e3), *levels), NUMBER)), draw(labels)


def numeric(*values):
    """Whether all tensors hold what images, noise levels and labels are made of."""
    return all(getattr(value, "dtype", torch.float32) in FLOATS | {torch.int64, torch.uint8} for value in values)


@pytest.mark.parametrize("precond", PRECONDS, ids=lambda precond: type(precond).__name__)
@GENEROUS
@given(batch=batches())
def test_preconditioning_for_any_images_levels_and_labels(precond, batch):
    x, sigma, labels = batch
    try:
        denoised = precond(x, sigma, labels)
    except Exception as error:
        if numeric(x, sigma, labels) and not isinstance(error, ValueError):
            raise
        return
    assert denoised.shape == x.shape
    assert denoised.dtype == torch.float32
    assert denoised.isfinite().all()


@GENEROUS
@given(st.sampled_from([EDMPrecond, VPPrecond, VEPrecond, IDDPMPrecond]), st.data(), mostly(st.floats(1e-6, 1e6)))
def test_preconditioning_with_any_settings(kind, data, sigma):
    strategies = {EDMPrecond: (HIGH,), VPPrecond: (HIGH, LOW), VEPrecond: (LOW, HIGH), IDDPMPrecond: (SHARE, LOW)}
    try:
        denoised = kind(Echo(), *data.draw(st.tuples(*strategies[kind])))(torch.ones(1, 1, 4, 4), sigma)
    except ValueError:
        return
    assert denoised.isfinite().all()


@st.composite
def sampler_calls(draw):
    """A sampler and settings, of which most make sense."""
    churn = {"S_churn": st.floats(0, 100), "S_min": st.floats(0, 1), "S_max": st.floats(1, 90), "S_noise": SHARE}
    numbers = {"sigma_min": LOW, "sigma_max": HIGH, "rho": mostly(st.floats(1, 30))}
    numbers |= {name: mostly(sensible) for name, sensible in churn.items()}
    chosen = {name: draw(numbers[name]) for name in draw(st.sets(st.sampled_from(sorted(numbers)), max_size=3))}
    if draw(st.booleans()):
        return edm_sampler, chosen
    chosen.pop("rho", None)
    schedule = draw(st.sampled_from([LinearSchedule, VPSchedule, VESchedule]))
    rows = {"schedule": schedule, "scale": draw(st.sampled_from([unscaled, vp_scale]))}
    design = replace(DESIGNS[draw(st.sampled_from(sorted(DESIGNS)))], **rows)
    chosen["solver"] = "else" if draw(st.integers(0, 15)) == 7 else draw(st.sampled_from(["euler", "heun"]))
    return design.sample, chosen | draw(st.dictionaries(st.just("alpha"), SHARE))


DENOISERS = [GaussianDenoiser(-0.7, 0.6), *PRECONDS]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(DENOISERS), batches(), WHOLE, sampler_calls())
def test_samplers_for_any_latents_labels_and_settings(denoiser, batch, num_steps, call):
    (latents, _, labels), (sampler, chosen) = batch, call
    labels = labels if denoiser in PRECONDS else None
    try:
        images = sampler(denoiser, latents, labels, num_steps=num_steps, **chosen)
    except Exception as error:
        if numeric(latents, labels) and not isinstance(error, ValueError):
            raise
        return
    assert images.shape == latents.shape
    assert images.dtype == latents.dtype
    if sampler is edm_sampler or images.dtype != torch.float16:  # where a step of VP's or VE's schedule can overflow
        assert images.isfinite().all()


@GENEROUS
@given(WHOLE, WHOLE, st.one_of(st.none(), st.lists(st.integers(0, 3), min_size=1, max_size=3)), WHOLE)
def test_images_in_any_number(num_samples, seed, classes, batch_size):
    try:
        images = sample_images(PRECONDS[0], num_samples, seed=seed, classes=classes, batch_size=batch_size, num_steps=1)
    except ValueError:
        return
    assert images.shape == (num_samples, 1, 4, 4)
    assert images.isfinite().all()


CALLS = {
    "num_steps": lambda value: edm_sigmas(value),
    "sigma_min": lambda value: edm_sigmas(5, sigma_min=value),
    "rho": lambda value: edm_sigmas(5, rho=value),
    "beta_d": lambda value: vp_sigmas(5, beta_d=value),
    "sigma_max": lambda value: ve_sigmas(5, sigma_max=value),
    "M": lambda value: iddpm_table(M=value),
    "VP's range": lambda value: VPSchedule.from_range(0.002, value).sigma(0.5),
    "sigma_data": lambda value: EDMPrecond(Echo(), value)(torch.ones(2, 1, 4, 4), 0.5),
    "sigma": lambda value: PRECONDS[0](torch.ones(2, 1, 4, 4), value),
    "mean": lambda value: GaussianDenoiser(value)(torch.ones(2, 1, 4, 4), 0.5),
    "P_std": lambda value: EDMLoss(P_std=value).sample_sigma(3, torch.Generator().manual_seed(0)),
    "p": lambda value: AugmentPipe(value)(torch.ones(2, 1, 4, 4), torch.Generator().manual_seed(0))[1],
    "S_churn": lambda value: edm_sampler(PRECONDS[0], torch.ones(2, 1, 4, 4), num_steps=2, S_churn=value, S_noise=0.0),
    "num_samples": lambda value: sample_images(PRECONDS[0], value, num_steps=1),
}


@pytest.mark.parametrize("value", OTHER, ids=lambda value: f"{type(value).__name__} {value}"[:24])
@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_plain_number_is_refused_or_taken_as_its_number(name, value):
    try:
        result = CALLS[name](value)
    except Exception:
        return
    number = float(np.asarray(value).ravel()[0])
    expected = CALLS[name](int(number) if name in ("num_steps", "M", "num_samples") else number)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6, check_dtype=False)


FINE = st.sampled_from([torch.float32, torch.float64])


@GENEROUS
@given(tensors((2, 1, 4, 4), FINE), st.floats(1e-4, 1e4), st.integers(1, 40), st.floats(0, 1e6), st.floats(0, 9))
def test_churn_never_lowers_the_noise(x, sigma, num_steps, S_churn, S_noise):
    churned, raised = add_churn(x, sigma, num_steps, S_churn, S_noise=S_noise)
    assert sigma <= raised <= sigma * 2**0.5 * (1 + 1e-12)
    assert (churned.shape, churned.dtype) == (x.shape, x.dtype)
    assert churned.isfinite().all()
