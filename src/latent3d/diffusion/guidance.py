"""Classifier-free guidance (Ho and Salimans 2022). Scale 1 means conditional only, and costs no second call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.diffusion.parameterization import match_leading


def guide(conditional: Tensor, unconditional: Tensor, scale: Tensor | float) -> Tensor:
    """D = D_u + w (D_c - D_u), for z0, v, eps or a velocity alike; w has leading axes of the latents."""
    return torch.lerp(unconditional, conditional, match_leading(scale, conditional).expand_as(conditional))


def linear_ramp(frames: int, start: float, end: float) -> Float[Tensor, " frames"]:
    """A scale per frame from ``start`` on the first to ``end`` on the last, as SVD ramps it over a clip."""
    return torch.linspace(start, end, frames, dtype=torch.float64)


@dataclass(frozen=True)
class GuidedDenoiser:
    """``denoise(z, level) -> z0`` or ``(z0, aux)`` out of a conditional and an unconditional one.

    The aux of the conditional call is passed on: a scene that travels there is the conditional scene, never a mixture.

    Attributes:
        conditional, unconditional: callables (z, level) -> z0 or (z0, aux); velocities work as well.
        scale: a number, or a tensor over leading axes of the latents, such as `linear_ramp` over frames.
        interval: levels (low, high], outside which only the conditional call is made (Kynkäänniemi et al. 2024);
            with a level per frame the largest decides.
        both: gives what the two callables give, as a pair, by one call of a doubled batch; None calls them in turn.
    """

    conditional: Callable[[Tensor, Tensor], Any]
    unconditional: Callable[[Tensor, Tensor], Any]
    scale: float | Tensor = 1.0
    interval: tuple[float, float] | None = None
    both: Callable[[Tensor, Tensor], tuple[Any, Any]] | None = None

    def __post_init__(self) -> None:
        if self.interval is not None and not self.interval[0] < self.interval[1]:
            raise ValueError(f"a guidance interval needs low < high, found {self.interval}")

    def is_active(self, level: Tensor | float) -> bool:
        """Whether a call at this level needs the unconditional branch."""
        if bool((torch.as_tensor(self.scale) == 1).all()):
            return False
        if self.interval is None:
            return True
        low, high = self.interval
        return low < float(torch.as_tensor(level).max()) <= high

    def __call__(self, z: Tensor, level: Tensor) -> Any:
        if not self.is_active(level):
            return self.conditional(z, level)
        if self.both is None:
            out, other = self.conditional(z, level), self.unconditional(z, level)
        else:
            out, other = self.both(z, level)
        estimate, *aux = out if isinstance(out, tuple) else (out,)
        guided = guide(estimate, other[0] if isinstance(other, tuple) else other, self.scale)
        return (guided, *aux) if aux else guided
