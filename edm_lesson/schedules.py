"""Noise levels: where a sampler stops on its way from pure noise to an image (Table 1, "time steps").

Every function `*_sigmas` returns float64 levels of shape (num_steps + 1,) on the CPU, descending, the last one 0.
sigma is the standard deviation of the noise, in the units of the images (which live in [-1, 1]).

Images and noise come with time as x = s(t) (y + sigma(t) n) (Table 1, "schedule" and "scaling"). A schedule is
sigma(t): times and levels are tensors of any shape, whose dtype is kept, or numbers, which become float64 tensors. A
scale is a function from sigma to s and ds/dsigma.
"""

import math

import torch
from torch import Tensor

from edm_lesson.checks import check_count, check_levels, checked, fraction, not_negative


@checked(check_levels)
def edm_sigmas(num_steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """The levels of EDM: evenly spaced once the `rho`-th root is taken (Eq. 5). One step goes from `sigma_max` to 0."""
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    lo, hi = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    sigmas = ((1 - ramp) * hi + ramp * lo) ** rho  # Eq. 5
    return torch.cat([sigmas, sigmas.new_zeros(1)])  # sigma_N = 0


def check_betas(beta_d: float, beta_min: float, epsilon_s: float = 1.0) -> None:
    """Refuse a VP schedule without noise at time `epsilon_s`, or with more at time 1 than float32 can square."""
    low, high = beta_d * epsilon_s / 2 + beta_min, beta_d / 2 + beta_min
    if not (low > 0 and high <= 70):
        raise ValueError(f"beta_d is {beta_d!r}, beta_min is {beta_min!r}; there is no noise at first, or too much.")


@checked(check_betas, num_steps=check_count, beta_d=not_negative, epsilon_s=fraction)
def vp_sigmas(num_steps: int, beta_d: float = 19.9, beta_min: float = 0.1, epsilon_s: float = 1e-3) -> Tensor:
    """The levels of the variance-preserving SDE, 152.17 to 0.010486: time even from 1 to `epsilon_s` (Table 1, VP)."""
    t = 1 + torch.linspace(0, 1, num_steps, dtype=torch.float64) * (epsilon_s - 1)
    sigmas = torch.expm1(beta_d * t**2 / 2 + beta_min * t).sqrt()  # expm1: exp(.) - 1 loses small sigma
    return torch.cat([sigmas, sigmas.new_zeros(1)])


@checked(check_levels)
def ve_sigmas(num_steps: int, sigma_min: float = 0.02, sigma_max: float = 100.0) -> Tensor:
    """The levels of the variance-exploding SDE: a geometric sequence (Table 1, VE)."""
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    t = sigma_max**2 * (sigma_min**2 / sigma_max**2) ** ramp
    return torch.cat([t.sqrt(), t.new_zeros(1)])  # sigma(t) = sqrt(t)


@checked(C_1=fraction, C_2=not_negative, M=check_count)
def iddpm_table(C_1: float = 0.001, C_2: float = 0.008, M: int = 1000) -> Tensor:
    """The levels u_0 = 20291.17 > ... > u_999 = 0.00642 > u_M = 0 of an iDDPM network: float64 (M + 1,) (Table 1)."""

    def alpha_bar(j):
        return math.sin(math.pi / 2 * j / (M * (C_2 + 1))) ** 2

    u = [0.0]
    for j in range(M, 0, -1):
        u.append(math.sqrt((u[-1] ** 2 + 1) / max(alpha_bar(j - 1) / alpha_bar(j), C_1) - 1))
    return torch.tensor(u[::-1], dtype=torch.float64)


def check_table(num_steps: int, sigma_min: float, sigma_max: float, C_1: float, C_2: float, M: int) -> None:
    """Refuse more steps than iDDPM's table has levels from `sigma_max` down to `sigma_min`: two would be the same."""
    u = iddpm_table(C_1, C_2, M)
    if num_steps > (found := ((u >= sigma_min) & (u <= sigma_max)).sum().item()):
        span = f"{sigma_min:g} to {sigma_max:g}"
        raise ValueError(f"num_steps is {num_steps}, but iDDPM's table has {found} levels from {span}; take fewer.")


@checked(check_levels, check_table)
def iddpm_sigmas(
    num_steps: int, sigma_min: float = 0.002, sigma_max: float = 81.0,
    C_1: float = 0.001, C_2: float = 0.008, M: int = 1000,
) -> Tensor:  # fmt: skip
    """The levels of iDDPM: even among those of `iddpm_table` in the range; 81 leaves out eight (Table 1, j_0 = 8)."""
    u = iddpm_table(C_1, C_2, M)
    u = u[(u >= sigma_min) & (u <= sigma_max)]
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    index = (ramp * (len(u) - 1) + 0.5).floor().long()
    return torch.cat([u[index], u.new_zeros(1)])  # u_M = 0


class LinearSchedule:
    """Time is the noise level: sigma(t) = t (Table 1, iDDPM and EDM)."""

    @classmethod
    def from_range(cls, sigma_min: float, sigma_max: float) -> "LinearSchedule":
        """The schedule, which fits any range."""
        return cls()

    def sigma(self, t: Tensor | float) -> Tensor:
        """The noise level at time `t`."""
        return as_tensor(t)

    def sigma_inv(self, sigma: Tensor | float) -> Tensor:
        """The time of the noise level `sigma`."""
        return as_tensor(sigma)

    def sigma_deriv(self, t: Tensor | float) -> Tensor:
        """d sigma / dt."""
        return torch.ones_like(as_tensor(t))


class VESchedule(LinearSchedule):
    """The variance-exploding SDE: the variance is the time, sigma(t) = sqrt(t) (Table 1, VE)."""

    def sigma(self, t: Tensor | float) -> Tensor:
        return as_tensor(t).sqrt()

    def sigma_inv(self, sigma: Tensor | float) -> Tensor:
        return as_tensor(sigma) ** 2

    def sigma_deriv(self, t: Tensor | float) -> Tensor:
        return 0.5 / as_tensor(t).sqrt()


def check_vp_range(sigma_min: float, sigma_max: float, epsilon_s: float) -> None:
    """Refuse a range that no VP schedule spans while rising faster and faster, or whose `sigma_min` float64 loses."""
    low, high = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
    limits = 1e-8 * epsilon_s**2 * high, epsilon_s * high
    if not limits[0] <= low <= limits[1]:
        least, most = (math.sqrt(math.expm1(limit)) for limit in limits)
        wanted = f"with this sigma_max and epsilon_s VP's noise can begin at {least:.3g} to {most:.3g}"
        raise ValueError(f"sigma_min is {sigma_min!r}; {wanted}. Change one of them, or take another schedule.")


class VPSchedule(LinearSchedule):
    """The variance-preserving SDE: sigma(t)^2 = exp(beta_d t^2 / 2 + beta_min t) - 1 (Table 1, VP)."""

    @checked(check_betas, beta_d=not_negative)
    def __init__(self, beta_d: float = 19.9, beta_min: float = 0.1):
        self.beta_d, self.beta_min = beta_d, beta_min

    @classmethod
    @checked(check_levels, check_vp_range, epsilon_s=fraction)
    def from_range(cls, sigma_min: float, sigma_max: float, epsilon_s: float = 1e-3) -> "VPSchedule":
        """The schedule whose noise is `sigma_min` at time `epsilon_s` and `sigma_max` at time 1."""
        low, high = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
        beta_d = 2 * (low / epsilon_s - high) / (epsilon_s - 1)
        return cls(beta_d, high - beta_d / 2)

    def exponent(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """ln(sigma^2 + 1) at time `t`, and its derivative."""
        t = as_tensor(t)
        return self.beta_d * t**2 / 2 + self.beta_min * t, self.beta_d * t + self.beta_min

    def sigma(self, t: Tensor | float) -> Tensor:
        return self.exponent(t)[0].expm1().sqrt()  # expm1: exp(.) - 1 loses small sigma

    def sigma_inv(self, sigma: Tensor | float) -> Tensor:
        exponent = (as_tensor(sigma) ** 2).log1p()
        root = (self.beta_min**2 + 2 * self.beta_d * exponent).sqrt()
        return 2 * exponent / (self.beta_min + root)  # not (root - beta_min) / beta_d, which loses small t

    def sigma_deriv(self, t: Tensor | float) -> Tensor:
        sigma = self.sigma(t)
        return self.exponent(t)[1] / 2 * (sigma + 1 / sigma)


def vp_levels(num_steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """The levels of VP over any range: `vp_sigmas` of the schedule that fits it."""
    schedule = VPSchedule.from_range(sigma_min, sigma_max)
    return vp_sigmas(num_steps, schedule.beta_d, schedule.beta_min)


def unscaled(sigma: float) -> tuple[float, float]:
    """The scale of VE, iDDPM and EDM at the noise level `sigma`: s = 1, and ds/dsigma = 0 (Table 1, "scaling")."""
    return 1.0, 0.0


def vp_scale(sigma: float) -> tuple[float, float]:
    """The scale of VP at the noise level `sigma`: s = 1 / sqrt(sigma^2 + 1), and ds/dsigma (Table 1, "scaling")."""
    s = (sigma**2 + 1) ** -0.5
    return s, -sigma * s**3


def as_tensor(t: Tensor | float) -> Tensor:
    """A tensor as it is; a number in float64."""
    return t if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64)
