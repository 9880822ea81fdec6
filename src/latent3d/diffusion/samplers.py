"""Samplers: iterators over a plain callable. Progress bars, previews and aborts live outside, around the loop.

``denoise(z, sigma)`` gives the clean estimate ``z0``, or ``(z0, aux)`` with anything the caller wants to see in the
record of the step. Without ``frozen``, sigma is a tensor of shape (); with it, sigma has the mask's shape and is 0 on
frozen frames. ``frozen`` is a boolean mask over leading axes of the latents, such as (M,) for latents (M, C, h, w):
frozen frames enter every call as they are and come out bit-identical.

Levels are those of `diffusion.schedules`: falling, N + 1 of them for N steps. Latents are in VE form (z = z0 + sigma
eps); the flow samplers take ``velocity(x, t)`` and the straight path x = (1 - t) z0 + t eps.

Network calls for N steps that end at 0: Euler and DDIM N, Heun 2 N - 1, midpoint and flow Heun 2 N, inversion
N (1 + refinements).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latent3d.diffusion.parameterization import match_leading, noise_from_z0, z0_from_velocity

Network = Callable[[Tensor, Tensor], Any]


@dataclass(frozen=True)
class SamplerStep:
    """One step of a sampler.

    Attributes:
        step: 0, 1, ..., N - 1.
        sigma, sigma_next: levels before and after the step (times t for the flow samplers).
        latents: after the step, at ``sigma_next``.
        z0: the clean estimate at the start of the step; frozen frames hold their latents.
        aux: what the network returned beside z0 (or beside the velocity) in that call, or None.
    """

    step: int
    sigma: float
    sigma_next: float
    latents: Tensor
    z0: Tensor
    aux: Any = None


def initial_latents(
    known: Tensor, sigma: float | Tensor, *, frozen: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Start of sampling: sigma eps, except frozen frames, which keep ``known`` (only its shape matters elsewhere)."""
    device = known.device if generator is None else generator.device
    noise = torch.randn(known.shape, generator=generator, device=device, dtype=known.dtype).to(known.device)
    return _keep(known, float(sigma) * noise, frozen)


def euler_step(z: Tensor, z0: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """z' = z + (sigma' - sigma) (z - z0) / sigma, written as z0 + (sigma' / sigma) (z - z0): exactly z0 at 0."""
    return z0 + (sigma_next / sigma) * (z - z0)


def sample_euler(
    denoise: Network, latents: Tensor, sigmas: Tensor, *, frozen: Tensor | None = None
) -> Iterator[SamplerStep]:
    """Euler on dz/dsigma = (z - z0(z, sigma)) / sigma: order 1, N calls. GGS and SVD sample with it."""
    for step, sigma, sigma_next in _walk(sigmas):
        z0, aux = _denoise(denoise, latents, sigma, frozen)
        latents = _keep(latents, euler_step(latents, z0, sigma, sigma_next), frozen)
        yield SamplerStep(step, sigma, sigma_next, latents, z0, aux)


def sample_heun(
    denoise: Network, latents: Tensor, sigmas: Tensor, *, frozen: Tensor | None = None
) -> Iterator[SamplerStep]:
    """Heun's method (Karras et al. 2022, alg. 1): order 2, two calls a step but one in a step to 0, so 2 N - 1."""
    for step, sigma, sigma_next in _walk(sigmas):
        z0, aux = _denoise(denoise, latents, sigma, frozen)
        moved = _keep(latents, euler_step(latents, z0, sigma, sigma_next), frozen)
        if sigma_next > 0:
            z0_next, _ = _denoise(denoise, moved, sigma_next, frozen)
            slope = 0.5 * (noise_from_z0(latents, z0, sigma) + noise_from_z0(moved, z0_next, sigma_next))
            moved = _keep(latents, latents + (sigma_next - sigma) * slope, frozen)
        latents = moved
        yield SamplerStep(step, sigma, sigma_next, latents, z0, aux)


def ddim_step(z: Tensor, z0: Tensor, sigma: float, sigma_next: float, eta: float, noise: Tensor | None) -> Tensor:
    """z' = z0 + sqrt(sigma'^2 - s^2) eps + s xi, s = eta sigma' sqrt(1 - sigma'^2 / sigma^2), eps = (z - z0) / sigma.

    Song et al. 2021, eq. 12 and 16, divided by alpha' (VE form). eta = 0 is the Euler step, eta = 1 ancestral DDPM.
    """
    fresh = eta * sigma_next * (1 - (sigma_next / sigma) ** 2) ** 0.5
    kept = (sigma_next**2 - fresh**2) ** 0.5
    moved = euler_step(z, z0, sigma, kept)
    return moved if noise is None or fresh == 0 else moved + fresh * noise


def sample_ddim(
    denoise: Network,
    latents: Tensor,
    sigmas: Tensor,
    *,
    eta: float = 0.0,
    frozen: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[SamplerStep]:
    """DDIM with any share eta in [0, 1] of fresh noise: N calls. In VE form eta = 0 coincides with `sample_euler`.

    Raises:
        ValueError: for eta outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], found {eta}")
    device = latents.device if generator is None else generator.device
    for step, sigma, sigma_next in _walk(sigmas):
        z0, aux = _denoise(denoise, latents, sigma, frozen)
        noise = None
        if eta > 0 and sigma_next > 0:
            noise = torch.randn(latents.shape, generator=generator, device=device, dtype=latents.dtype)
            noise = noise.to(latents.device)
        latents = _keep(latents, ddim_step(latents, z0, sigma, sigma_next, eta, noise), frozen)
        yield SamplerStep(step, sigma, sigma_next, latents, z0, aux)


def invert_ddim(
    denoise: Network, latents: Tensor, sigmas: Tensor, *, refinements: int = 0, frozen: Tensor | None = None
) -> Iterator[SamplerStep]:
    """From clean latents up to the noise that `sample_ddim` (eta = 0) turns into them. N (1 + refinements) calls.

    ``sigmas`` are the sampler's own, falling; they are walked backwards. A DDIM step down from level a to b is
    z_b = z_a + (b - a) eps(z_a, a), so the step up solves z_a = z_b + (a - b) eps(z_a, a) for z_a. The first guess
    evaluates eps at z_b (DDIM inversion as commonly done); each refinement is one more fixed-point iteration, and the
    round trip becomes exact as they grow in number.

    Raises:
        ValueError: for a negative number of refinements.
    """
    if refinements < 0:
        raise ValueError(f"refinements cannot be negative, found {refinements}")
    for step, (_, upper, lower) in enumerate(reversed(list(_walk(sigmas)))):
        guess = latents
        for _ in range(1 + refinements):
            z0, aux = _denoise(denoise, guess, upper, frozen)
            guess = _keep(latents, latents + (upper - lower) * noise_from_z0(guess, z0, upper), frozen)
        latents = guess
        yield SamplerStep(step, lower, upper, latents, z0, aux)


def sample_flow_euler(
    velocity: Network, latents: Tensor, times: Tensor, *, frozen: Tensor | None = None
) -> Iterator[SamplerStep]:
    """Euler on dx/dt = u(x, t): order 1, N calls."""
    for step, time, time_next in _walk(times):
        u, aux = _call(velocity, latents, time, frozen)
        z0 = _flow_z0(latents, u, time, frozen)
        latents = _keep(latents, latents + (time_next - time) * u, frozen)
        yield SamplerStep(step, time, time_next, latents, z0, aux)


def sample_flow_heun(
    velocity: Network, latents: Tensor, times: Tensor, *, frozen: Tensor | None = None
) -> Iterator[SamplerStep]:
    """Heun's method on dx/dt = u(x, t): order 2, 2 N calls, the velocity being defined at t = 0 too."""
    for step, time, time_next in _walk(times):
        u, aux = _call(velocity, latents, time, frozen)
        moved = _keep(latents, latents + (time_next - time) * u, frozen)
        u_next, _ = _call(velocity, moved, time_next, frozen)
        z0 = _flow_z0(latents, u, time, frozen)
        latents = _keep(latents, latents + (time_next - time) * 0.5 * (u + u_next), frozen)
        yield SamplerStep(step, time, time_next, latents, z0, aux)


def sample_flow_midpoint(
    velocity: Network, latents: Tensor, times: Tensor, *, frozen: Tensor | None = None
) -> Iterator[SamplerStep]:
    """The midpoint rule on dx/dt = u(x, t): order 2, 2 N calls."""
    for step, time, time_next in _walk(times):
        u, aux = _call(velocity, latents, time, frozen)
        halfway = 0.5 * (time + time_next)
        middle = _keep(latents, latents + (halfway - time) * u, frozen)
        u_middle, _ = _call(velocity, middle, halfway, frozen)
        z0 = _flow_z0(latents, u, time, frozen)
        latents = _keep(latents, latents + (time_next - time) * u_middle, frozen)
        yield SamplerStep(step, time, time_next, latents, z0, aux)


def _walk(levels: Tensor) -> Iterator[tuple[int, float, float]]:
    values = [float(level) for level in levels]
    falling = all(a > b for a, b in itertools.pairwise(values))
    if len(values) < 2 or not falling or values[-1] < 0:
        raise ValueError("levels must be at least two numbers that fall strictly and end at 0 or above")
    return iter([(step, values[step], values[step + 1]) for step in range(len(values) - 1)])


def _call(network: Network, latents: Tensor, level: float, frozen: Tensor | None) -> tuple[Tensor, Any]:
    """One network call at this level, 0 on frozen frames."""
    levels = torch.full((), level, dtype=latents.dtype, device=latents.device)
    if frozen is not None:
        levels = torch.where(frozen, torch.zeros_like(levels), levels)
    out = network(latents, levels)
    out, aux = out if isinstance(out, tuple) else (out, None)
    return out, aux


def _denoise(network: Network, latents: Tensor, sigma: float, frozen: Tensor | None) -> tuple[Tensor, Any]:
    z0, aux = _call(network, latents, sigma, frozen)
    return _keep(latents, z0, frozen), aux


def _flow_z0(latents: Tensor, velocity: Tensor, time: float, frozen: Tensor | None) -> Tensor:
    return _keep(latents, z0_from_velocity(latents, velocity, time), frozen)


def _keep(old: Tensor, new: Tensor, frozen: Tensor | None) -> Tensor:
    """``new``, with the frozen frames of ``old``."""
    if frozen is None:
        return new
    mask = match_leading(frozen.to(old.dtype), old) > 0
    return torch.where(mask, old, new)
