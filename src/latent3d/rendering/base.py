"""What a renderer returns, and the thresholds that all splatting back ends share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

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


Precision = Literal["tf32", "tf32x3", "ieee", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True, kw_only=True)
class TritonOptions:
    """How the Triton back end multiplies, and whether it may wait for the device.

    Attributes:
        precision: of the products of channels with weights; alpha, transmittance and depth are float32 always. Relative
            errors are about 3e-4 for ``"tf32"`` and 2e-3 for ``"bf16"``; ``"tf32x3"`` and ``"ieee"`` keep float32.
            float64 is computed in float64.
        entries: room for pairs of splat and tile (8 x 8 pixels, all views together). If None they are counted first,
            for which the host waits for the device. If given, the host neither waits nor looks at any value, so that
            the call fits in a CUDA graph: NaN in the input is not looked for, and pictures that need more room are NaN.

    Raises:
        ValueError: for another precision, or no room.
    """

    precision: Precision = "tf32"
    entries: int | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision '{self.precision}'; choose one of {', '.join(PRECISIONS)}")
        if self.entries is not None and self.entries < 1:
            raise ValueError(f"room for entries must be positive, got {self.entries}; None counts them")


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
