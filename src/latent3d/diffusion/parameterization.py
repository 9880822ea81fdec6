"""What a denoiser may predict, and the scalings around it: one function per equation.

Two ways to write a noisy latent, with the same information:

- VE (variance exploding): z = z0 + sigma eps, with sigma from 0 = data upwards. The package's default.
- VP (variance preserving): x = alpha z0 + s eps with alpha^2 + s^2 = 1. Then sigma = s / alpha and x = c_in(sigma) z.

and the straight path of flow matching, x = (1 - t) z0 + t eps with t from 0 = data to 1 = noise, sigma = t / (1 - t).

A noise level ``sigma`` (or ``t``) is a number or a tensor whose axes are the *leading* axes of the latents: for latents
(B, M, C, h, w) a level may have shape (), (B,) or (B, M). A level 0 is allowed everywhere: such frames are clean.

Sources: Karras et al. 2022 (EDM), Table 1; Salimans and Ho 2022 (v); Blattmann et al. 2023 (SVD); Lipman et al. 2023
and Esser et al. 2024 (straight flow).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SIGMA_FLOOR = 0.002  # level that stands for "clean" where a logarithm is taken: sigma_min of SVD


def match_leading(level: Tensor | float, like: Tensor) -> Tensor:
    """The level as a tensor that broadcasts against ``like``, its axes being the leading axes of ``like``.

    Raises:
        ValueError: when the axes do not fit.
    """
    level = torch.as_tensor(level, dtype=like.dtype, device=like.device)
    lead = like.shape[: level.ndim]
    if level.ndim > like.ndim or any(a not in (1, b) for a, b in zip(level.shape, lead, strict=True)):
        raise ValueError(
            f"a level of shape {tuple(level.shape)} does not fit latents of shape {tuple(like.shape)}; "
            "its axes must be their leading axes"
        )
    return level.reshape(level.shape + (1,) * (like.ndim - level.ndim))


# ---------------------------------------------------------------------------------------------------------------------
# Preconditioning of v-prediction in VE form, data of unit variance. Each takes and returns levels, no latents.
# ---------------------------------------------------------------------------------------------------------------------


def c_in(sigma: Tensor) -> Tensor:
    """c_in = 1 / sqrt(sigma^2 + 1): brings z to unit variance; it also maps VE latents to VP latents."""
    return (sigma.square() + 1).rsqrt()


def c_skip(sigma: Tensor) -> Tensor:
    """c_skip = 1 / (sigma^2 + 1)."""
    return 1 / (sigma.square() + 1)


def c_out(sigma: Tensor) -> Tensor:
    """c_out = -sigma / sqrt(sigma^2 + 1); 0 on clean frames."""
    return -sigma * c_in(sigma)


def c_noise(sigma: Tensor) -> Tensor:
    """c_noise = ln(sigma) / 4, what the network is told; clean frames count as sigma = `SIGMA_FLOOR`."""
    return 0.25 * sigma.clamp(min=SIGMA_FLOOR).log()


def loss_weight(sigma: Tensor) -> Tensor:
    """w = (sigma^2 + 1) / sigma^2 on |z0_hat - z0|^2, so that w c_out^2 = 1: plain mean square error on v.

    A clean frame has nothing to predict; its weight is 0.
    """
    squared = sigma.square()
    return torch.where(squared > 0, (squared + 1) / torch.where(squared > 0, squared, 1), 0)


def precondition_v(network: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """``denoise(z, sigma) -> z0`` from a network F that predicts v: c_skip z + c_out F(c_in z, c_noise)."""

    def denoise(z: Tensor, sigma: Tensor) -> Tensor:
        sigma = torch.as_tensor(sigma, dtype=z.dtype, device=z.device)
        return z0_from_v(z, network(vp_from_ve(z, sigma), c_noise(sigma)), sigma)

    return denoise


# ---------------------------------------------------------------------------------------------------------------------
# VE form
# ---------------------------------------------------------------------------------------------------------------------


def add_noise(z0: Tensor, noise: Tensor, sigma: Tensor | float) -> Tensor:
    """z = z0 + sigma eps."""
    return z0 + match_leading(sigma, z0) * noise


def v_from_noise(z0: Tensor, noise: Tensor, sigma: Tensor | float) -> Tensor:
    """v = (eps - sigma z0) / sqrt(sigma^2 + 1)."""
    level = match_leading(sigma, z0)
    return (noise - level * z0) * c_in(level)


def z0_from_v(z: Tensor, v: Tensor, sigma: Tensor | float) -> Tensor:
    """z0 = c_skip z + c_out v; z itself where sigma = 0."""
    level = match_leading(sigma, z)
    return c_skip(level) * z + c_out(level) * v


def v_from_z0(z: Tensor, z0: Tensor, sigma: Tensor | float) -> Tensor:
    """Inverse of `z0_from_v`: v = ((z - z0) / sigma - sigma z0) / sqrt(sigma^2 + 1), linear in (z, z0).

    Where sigma = 0 the noise, hence v, is undetermined; the noise is then taken as 0.
    """
    return v_from_noise(z0, noise_from_z0(z, z0, sigma), sigma)


def noise_from_z0(z: Tensor, z0: Tensor, sigma: Tensor | float) -> Tensor:
    """eps = (z - z0) / sigma, which is also dz/dsigma of the probability-flow equation; 0 where sigma = 0."""
    level = match_leading(sigma, z)
    return torch.where(level > 0, (z - z0) / torch.where(level > 0, level, 1), 0)


def z0_from_noise(z: Tensor, noise: Tensor, sigma: Tensor | float) -> Tensor:
    """z0 = z - sigma eps."""
    return z - match_leading(sigma, z) * noise


# ---------------------------------------------------------------------------------------------------------------------
# VP form
# ---------------------------------------------------------------------------------------------------------------------


def alpha_and_s(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """(alpha, s) of the VP form: alpha = 1 / sqrt(sigma^2 + 1), s = sigma alpha."""
    alpha = c_in(sigma)
    return alpha, sigma * alpha


def sigma_from_alpha_bar(alpha_bar: Tensor) -> Tensor:
    """sigma = sqrt((1 - abar) / abar), with abar = alpha^2 the cumulative product of DDPM."""
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def alpha_bar_from_sigma(sigma: Tensor) -> Tensor:
    """abar = 1 / (sigma^2 + 1)."""
    return 1 / (sigma.square() + 1)


def vp_from_ve(z: Tensor, sigma: Tensor | float) -> Tensor:
    """x = c_in z."""
    return z * c_in(match_leading(sigma, z))


def ve_from_vp(x: Tensor, sigma: Tensor | float) -> Tensor:
    """z = x sqrt(sigma^2 + 1)."""
    return x * (match_leading(sigma, x).square() + 1).sqrt()


def z0_from_v_vp(x: Tensor, v: Tensor, sigma: Tensor | float) -> Tensor:
    """z0 = alpha x - s v."""
    alpha, s = alpha_and_s(match_leading(sigma, x))
    return alpha * x - s * v


def noise_from_v_vp(x: Tensor, v: Tensor, sigma: Tensor | float) -> Tensor:
    """eps = s x + alpha v."""
    alpha, s = alpha_and_s(match_leading(sigma, x))
    return s * x + alpha * v


def mix_noise(x: Tensor, noise: Tensor, sigma: Tensor | float, share: Tensor | float) -> Tensor:
    """eps = s (1 - a) x + a eps': a normal prior's noise and a network's, a per channel (Vahdat et al. 2021, eq. 8).

    s x is the expected noise where the data are standard normal, so a network with a near 0 begins there. In terms of v
    the same mixture is v = a v'. ``share`` a broadcasts against the latents from the right, as (C, 1, 1) does.
    """
    _, s = alpha_and_s(match_leading(sigma, x))
    return s * (1 - share) * x + share * noise


def z0_from_noise_vp(x: Tensor, noise: Tensor, sigma: Tensor | float) -> Tensor:
    """z0 = (x - s eps) / alpha."""
    alpha, s = alpha_and_s(match_leading(sigma, x))
    return (x - s * noise) / alpha


# ---------------------------------------------------------------------------------------------------------------------
# Straight flow: x = (1 - t) z0 + t eps, velocity u = dx/dt = eps - z0
# ---------------------------------------------------------------------------------------------------------------------


def flow_interpolate(z0: Tensor, noise: Tensor, time: Tensor | float) -> Tensor:
    """x = (1 - t) z0 + t eps."""
    t = match_leading(time, z0)
    return (1 - t) * z0 + t * noise


def velocity_from_noise(z0: Tensor, noise: Tensor) -> Tensor:
    """u = eps - z0."""
    return noise - z0


def z0_from_velocity(x: Tensor, velocity: Tensor, time: Tensor | float) -> Tensor:
    """z0 = x - t u."""
    return x - match_leading(time, x) * velocity


def noise_from_velocity(x: Tensor, velocity: Tensor, time: Tensor | float) -> Tensor:
    """eps = x + (1 - t) u."""
    return x + (1 - match_leading(time, x)) * velocity


def velocity_from_z0(x: Tensor, z0: Tensor, time: Tensor | float) -> Tensor:
    """u = (x - z0) / t; where t = 0 the noise is taken as 0, so u = -z0."""
    t = match_leading(time, x)
    return torch.where(t > 0, (x - z0) / torch.where(t > 0, t, 1), -z0)


def sigma_from_time(time: Tensor) -> Tensor:
    """sigma = t / (1 - t), infinite at t = 1."""
    return time / (1 - time)


def time_from_sigma(sigma: Tensor) -> Tensor:
    """t = sigma / (1 + sigma)."""
    return sigma / (1 + sigma)


def flow_from_ve(z: Tensor, sigma: Tensor | float) -> Tensor:
    """x = z / (1 + sigma): the flow's latent at t = sigma / (1 + sigma)."""
    return z / (1 + match_leading(sigma, z))
