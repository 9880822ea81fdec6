"""`TriPlane`: features on three axis-aligned planes, which stand for a volume."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PLANE_AXES = ((0, 1), (1, 2), (2, 0))
"""World axes along the columns and the rows of each plane: (x, y), (y, z), (z, x)."""


@dataclass(frozen=True)
class TriPlane:
    """Three feature planes over the box [-half_size, half_size]^3 of one object, or of a batch.

    Attributes:
        planes: (..., 3, C, H, W); plane p spans the world axes `PLANE_AXES`[p], the first along the columns, from left
            to right, the second along the rows, from top to bottom. The box's faces are the outer borders of the outer
            pixels (align_corners=False).
        half_size: half the side of the box in scene units.
    """

    planes: Tensor
    half_size: float

    def __post_init__(self) -> None:
        if self.planes.ndim < 4 or self.planes.shape[-4] != 3:
            raise ValueError(f"tri-planes have shape (..., 3, C, H, W), found {tuple(self.planes.shape)}")

    @property
    def shape(self) -> torch.Size:
        """Leading (batch) shape."""
        return self.planes.shape[:-4]

    def __getitem__(self, index) -> TriPlane:
        return TriPlane(self.planes[index], self.half_size)
