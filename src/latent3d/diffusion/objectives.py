"""Training losses of diffusion and of flow matching, with a mask over frames."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.diffusion.parameterization import (
    add_noise,
    flow_interpolate,
    loss_weight,
    match_leading,
    velocity_from_noise,
)


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Float[Tensor, ""]:
    """Mean over the entries where ``mask`` holds; the mask's axes are leading axes of ``values``.

    An all-false mask gives 0 with zero gradient, so that a batch without targets does not poison a step.
    """
    if mask is None:
        return values.mean()
    weights = match_leading(mask.to(values.dtype), values).expand_as(values)
    # where, not a product: an infinite value outside the mask must not turn the sum into NaN
    return torch.where(weights > 0, values * weights, 0).sum() / weights.sum().clamp(min=1)


def v_loss(v: Tensor, target: Tensor, mask: Tensor | None = None) -> Float[Tensor, ""]:
    """mean |v_hat - v|^2 over the frames of the mask (targets, not references)."""
    return masked_mean((v - target).square(), mask)


def z0_loss(
    z0_hat: Tensor,
    z0: Tensor,
    sigma: Tensor | float,
    mask: Tensor | None = None,
    *,
    weight: Callable[[Tensor], Tensor] = loss_weight,
) -> Float[Tensor, ""]:
    """mean w(sigma) |z0_hat - z0|^2. The default w = (sigma^2 + 1) / sigma^2 makes it the `v_loss` of v-prediction."""
    return masked_mean(weight(match_leading(sigma, z0)) * (z0_hat - z0).square(), mask)


def min_snr_weight(gamma: float = 5.0) -> Callable[[Tensor], Tensor]:
    """w = min(1 / sigma^2, gamma) on |z0_hat - z0|^2: the signal-to-noise ratio, capped (Hang et al. 2023)."""

    def weight(sigma: Tensor) -> Tensor:
        return torch.minimum(sigma.square().reciprocal(), torch.full_like(sigma, gamma))

    return weight


def diffusion_loss(
    denoise: Callable[[Tensor, Tensor], Tensor],
    z0: Tensor,
    sigma: Tensor,
    noise: Tensor,
    mask: Tensor | None = None,
    *,
    weight: Callable[[Tensor], Tensor] = loss_weight,
) -> Float[Tensor, ""]:
    """One denoising step's loss: z = z0 + sigma eps, then `z0_loss` of ``denoise(z, sigma)``.

    ``sigma`` has leading axes of z0. With a mask, frames outside it stay clean: their sigma is set to 0.
    """
    if mask is not None:
        sigma = torch.where(mask, sigma, 0)
    return z0_loss(denoise(add_noise(z0, noise, sigma), sigma), z0, sigma, mask, weight=weight)


def flow_matching_loss(
    velocity: Callable[[Tensor, Tensor], Tensor],
    z0: Tensor,
    time: Tensor,
    noise: Tensor,
    mask: Tensor | None = None,
) -> Float[Tensor, ""]:
    """mean |u(x_t, t) - (eps - z0)|^2 on the straight path (Lipman et al. 2023).

    ``time`` has leading axes of z0. With a mask, frames outside it stay clean: their time is set to 0.
    """
    if mask is not None:
        time = torch.where(mask, time, 0)
    predicted = velocity(flow_interpolate(z0, noise, time), time)
    return masked_mean((predicted - velocity_from_noise(z0, noise)).square(), mask)
