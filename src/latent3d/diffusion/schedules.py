"""Noise levels: the sequence a sampler walks down, and the distributions that training draws from.

Every sequence is one-dimensional, falls strictly, and ends at 0 = data, so N steps have N + 1 entries.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.diffusion.parameterization import sigma_from_alpha_bar


def karras_sigmas(
    steps: int, *, sigma_min: float = 0.002, sigma_max: float = 700.0, rho: float = 7.0
) -> Float[Tensor, " levels"]:
    """sigma_i = (sigma_max^(1/rho) + i / (N - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho, then 0.

    Karras et al. 2022, eq. 5; the default range is Stable Video Diffusion's. One step is sigma_max -> 0. Float64.

    Raises:
        ValueError: for a number of steps below 1, or a range that does not satisfy 0 < sigma_min < sigma_max.
    """
    _check_steps(steps)
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"need 0 < sigma_min < sigma_max, found {sigma_min} and {sigma_max}")
    ramp = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return _with_zero((top + ramp * (bottom - top)) ** rho)


def scaled_linear_betas(
    count: int = 1000, *, start: float = 0.00085, end: float = 0.012
) -> Float[Tensor, " timesteps"]:
    """DDPM's betas as Stable Diffusion has them: linear in sqrt(beta)."""
    return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float64) ** 2


def sigmas_from_betas(betas: Float[Tensor, " timesteps"]) -> Float[Tensor, " timesteps"]:
    """sigma of each DDPM timestep, rising: sqrt((1 - abar) / abar), abar the cumulative product of 1 - beta."""
    return sigma_from_alpha_bar((1 - betas).cumprod(dim=0))


def ddpm_sigmas(steps: int, betas: Float[Tensor, " timesteps"] | None = None) -> Float[Tensor, " levels"]:
    """N levels spread evenly over the timesteps of a DDPM schedule (both ends included), then 0.

    Levels between two timesteps are interpolated linearly in sigma. Default betas: `scaled_linear_betas`.

    Raises:
        ValueError: for a number of steps below 1 or above the number of timesteps.
    """
    table = sigmas_from_betas(scaled_linear_betas() if betas is None else betas.double())
    _check_steps(steps)
    if steps > len(table):
        raise ValueError(f"{steps} steps from a schedule of {len(table)} timesteps; ask for fewer steps")
    position = torch.linspace(len(table) - 1, 0, steps, dtype=torch.float64)
    low = position.floor().long()
    high = (low + 1).clamp(max=len(table) - 1)
    return _with_zero(torch.lerp(table[low], table[high], position - low))


def cosine_alpha_bar(time: Float[Tensor, "*n"], offset: float = 0.008) -> Float[Tensor, "*n"]:
    """abar(t) = cos^2(pi/2 (t + s) / (1 + s)) / cos^2(pi/2 s / (1 + s)), t in [0, 1] (Nichol and Dhariwal 2021)."""
    angle = 0.5 * torch.pi * (time + offset) / (1 + offset)
    start = torch.cos(torch.as_tensor(0.5 * torch.pi * offset / (1 + offset), dtype=time.dtype, device=time.device))
    return (torch.cos(angle) / start).square()


def cosine_sigmas(steps: int, *, sigma_max: float = 700.0, offset: float = 0.008) -> Float[Tensor, " levels"]:
    """N levels of the cosine schedule at evenly spaced times 1, 1 - 1/N, ..., then 0; capped at ``sigma_max``.

    The schedule reaches infinity at t = 1, so its first level is the cap.

    Raises:
        ValueError: for a number of steps below 1, or a cap below the schedule's second level.
    """
    _check_steps(steps)
    time = 1 - torch.arange(1, steps, dtype=torch.float64) / steps
    rest = sigma_from_alpha_bar(cosine_alpha_bar(time, offset))
    if len(rest) and rest[0] >= sigma_max:
        raise ValueError(f"sigma_max {sigma_max} must exceed {float(rest[0]):.4g}, the second of {steps} cosine levels")
    return _with_zero(torch.cat([torch.tensor([sigma_max], dtype=torch.float64), rest]))


def lognormal_sigmas(
    shape: tuple[int, ...],
    *,
    mean: float = 0.7,
    std: float = 1.6,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Training levels of the given shape, ln sigma ~ N(mean, std^2) (EDM), on the generator's device.

    The defaults are those of fine-tuning SVD with cameras (CameraCtrl).
    """
    return (mean + std * _normal(shape, generator, dtype)).exp()


def flow_times(steps: int, *, shift: float = 1.0) -> Float[Tensor, " levels"]:
    """t from 1 to 0 in N even steps, then moved towards noise by `shift_times`. Float64.

    Raises:
        ValueError: for a number of steps below 1 or a shift that is not positive.
    """
    _check_steps(steps)
    return shift_times(torch.arange(steps, -1, -1, dtype=torch.float64) / steps, shift)


def shift_times(time: Float[Tensor, "*n"], shift: float) -> Float[Tensor, "*n"]:
    """t' = s t / (1 + (s - 1) t): the same as multiplying sigma = t / (1 - t) by s (Esser et al. 2024, eq. 23).

    Raises:
        ValueError: for a shift that is not positive.
    """
    if shift <= 0:
        raise ValueError(f"a shift must be positive, found {shift}")
    return shift * time / (1 + (shift - 1) * time)


def logit_normal_times(
    shape: tuple[int, ...],
    *,
    mean: float = 0.0,
    std: float = 1.0,
    shift: float = 1.0,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Training times of the given shape for flow matching, logit(t) ~ N(mean, std^2), then shifted."""
    return shift_times(torch.sigmoid(mean + std * _normal(shape, generator, dtype)), shift)


def _normal(shape: tuple[int, ...], generator: torch.Generator | None, dtype: torch.dtype) -> Tensor:
    device = "cpu" if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device, dtype=dtype)


def _with_zero(levels: Tensor) -> Tensor:
    return torch.cat([levels, levels.new_zeros(1)])


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"a sampler needs at least one step, found {steps}")
