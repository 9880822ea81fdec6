"""One bounded coordinate for depth: r in [0, 1] from near to far, evenly spaced in disparity or in log depth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from latent3d.config import Config


@dataclass(frozen=True, kw_only=True)
class DepthRange(Config):
    """Map between z-depth in scene units and the relative coordinate r.

    ``disparity``: depth(r) = 1 / ((1 - r)(1/near - 1/far) + 1/far), pixelSplat's relative disparity; suits matching at
    one baseline. ``log``: depth(r) = near^(1-r) far^r; equal steps are equal relative errors, which suits metric scenes
    with a wide range.
    """

    near: float = 0.3
    far: float = 30.0
    spacing: Literal["disparity", "log"] = "disparity"

    def __post_init__(self) -> None:
        if not 0 < self.near < self.far:
            raise ValueError(f"the depth range needs 0 < near < far, got near {self.near} and far {self.far}")

    @property
    def log_ratio(self) -> float:
        """ln(far / near): a step dr in ``log`` spacing is a relative depth error of about dr times this."""
        return math.log(self.far / self.near)

    def depth(self, r: Tensor) -> Tensor:
        """Relative coordinate in [0, 1] -> z-depth."""
        if self.spacing == "log":
            return self.near * torch.exp(r * self.log_ratio)
        return 1.0 / ((1 - r) * (1 / self.near - 1 / self.far) + 1 / self.far)

    def relative(self, depth: Tensor) -> Tensor:
        """z-depth -> relative coordinate, clamped to [0, 1]."""
        depth = depth.clamp(self.near, self.far)
        if self.spacing == "log":
            return torch.log(depth / self.near) / self.log_ratio
        return 1 - (1 / depth - 1 / self.far) / (1 / self.near - 1 / self.far)
