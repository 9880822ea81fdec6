"""What a renderer returns, and the thresholds that all splatting back ends share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

ALPHA_MIN = 1 / 255
"""A splat's contribution below this counts as none."""
ALPHA_MAX = 0.99
"""A splat's contribution is clamped to this."""
TRANSMITTANCE_MIN = 1e-4
"""Exclusive stop: the first splat that would leave this transmittance or less is not blended and ends the pixel."""
LOW_PASS_PX = 0.3
"""Added to the diagonal of every projected 2D covariance, in square pixels (3DGS; called 0.3 px)."""
NEAR = 0.01
"""Splats with z-depth at or below this are dropped, in scene units."""


@dataclass(frozen=True)
class Rendering:
    """What V cameras see.

    Attributes:
        rgb: colours composited over the background, (V, 3, H, W), or None if the scene has no colour.
        features: feature channels composited over zero, (V, C, H, W), or None.
        depth: expected z-depth sum(w z) / max(alpha, 1e-6) in scene units, (V, 1, H, W).
        alpha: 1 - final transmittance, in [0, 1], (V, 1, H, W).
    """

    rgb: Float[Tensor, "v 3 h w"] | None
    features: Float[Tensor, "v c h w"] | None
    depth: Float[Tensor, "v 1 h w"]
    alpha: Float[Tensor, "v 1 h w"]


def stack(renders: list[Rendering], name: str) -> Tensor:
    """One channel of several renderings as a batch (b, v, ., h, w)."""
    return torch.stack([getattr(render, name) for render in renders])
