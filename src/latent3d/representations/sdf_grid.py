"""`SdfGrid`: a signed field on a regular grid, whose zero set is a surface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

CUBE_WEIGHTS = 21
"""Per cell: 8 of its corners (alpha), 12 of its edges (beta), 1 of its vertex (gamma), in this order."""


@dataclass(frozen=True)
class SdfGrid:
    """A field on the (n+1)^3 points of a grid over [-half_size, half_size]^3; axes in the order x, y, z.

    Attributes:
        values: negative inside, zero and positive outside; a distance in scene units or anything that grows outwards,
            (n+1, n+1, n+1).
        half_size: half the side of the box in scene units.
        deformation: offsets of the grid's points in scene units, (n+1, n+1, n+1, 3), or None. Cells cannot fold as long
            as each component stays within half a cell, see `bounded_deformation`.
        weights: how each cell places its vertex (FlexiCubes, Shen et al. 2023): real numbers without bounds, 0 =
            neutral, the order as in `CUBE_WEIGHTS`, (n, n, n, 21), or None for all neutral.
        colors: sRGB in [0, 1] at the grid's points, (n+1, n+1, n+1, 3), or None.
    """

    values: Float[Tensor, "m m m"]
    half_size: float
    deformation: Float[Tensor, "m m m 3"] | None = None
    weights: Float[Tensor, "n n n 21"] | None = None
    colors: Float[Tensor, "m m m 3"] | None = None

    def __post_init__(self) -> None:
        if self.resolution < 1:
            raise ValueError("a grid needs at least two points along each axis")
        if self.weights is not None and self.weights.shape[0] != self.resolution:
            raise ValueError(
                f"a grid of {self.resolution} cells a side needs as many weights, found {self.weights.shape[0]}"
            )

    @property
    def resolution(self) -> int:
        """Number n of cells along each axis."""
        return self.values.shape[0] - 1

    @property
    def spacing(self) -> float:
        """Side of a cell in scene units."""
        return 2 * self.half_size / self.resolution

    def positions(self, index: Int[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
        """Where the grid's points with these numbers along x, y and z lie, deformation included."""
        regular = index.to(self.values.dtype) * self.spacing - self.half_size
        if self.deformation is None:
            return regular
        return regular + self.deformation[tuple(index.unbind(-1))]

    def closed(self) -> SdfGrid:
        """The same field, but outside on the border of the grid, so that its surface has no rim."""
        border = torch.ones_like(self.values, dtype=torch.bool)
        border[1:-1, 1:-1, 1:-1] = False
        floor = torch.full_like(self.values, 1e-3 * self.spacing)
        return replace(self, values=torch.where(border, torch.maximum(self.values, floor), self.values))

    @staticmethod
    def from_function(
        function: Callable[[Tensor], Tensor], half_size: float, resolution: int, *, dtype: torch.dtype = torch.float32
    ) -> SdfGrid:
        """Sample a function that maps points (N, 3) to values (N,), negative inside, on a grid of ``resolution``^3
        cells."""
        points = grid_points(half_size, resolution, dtype=dtype)
        return SdfGrid(function(points.reshape(-1, 3)).reshape(points.shape[:3]), half_size)


def grid_points(
    half_size: float,
    resolution: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "m m m 3"]:
    """Points of the undeformed grid, where a network is asked for what an `SdfGrid` holds, (n+1, n+1, n+1, 3)."""
    axis = torch.linspace(-half_size, half_size, resolution + 1, dtype=dtype, device=device)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)


def bounded_deformation(raw: Float[Tensor, "*m 3"], spacing: float, share: float = 0.5) -> Float[Tensor, "*m 3"]:
    """Offsets in scene units from a network's output: tanh(raw) times a ``share`` of a cell of side ``spacing``."""
    return torch.tanh(raw) * (share * spacing)
