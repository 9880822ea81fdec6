"""Where the pixels of one view land in another view, for a set of depth hypotheses."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.geometry.cameras import Cameras, invert_rigid
from latent3d.geometry.precision import full_precision

MIN_DEPTH = 1e-3
"""Points nearer than this to the other camera's plane are invalid, in scene units."""


@full_precision
def plane_sweep_positions(
    query: Cameras, other: Cameras, depths: Float[Tensor, "*s"], height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Project every pixel of ``query``, at every depth hypothesis, into ``other``.

    x_other ~ z K2 R K1^-1 x + K2 t with (R, t) from query to other camera axes: linear in z, so a sweep costs one
    matrix product per pixel and an addition per hypothesis.

    Args:
        query, other: cameras of the same batch shape (...).
        depths: z-depths in the query camera, scene units: (s,) for all pixels, or (..., s, height, width).
        height, width: feature grid, for both views; intrinsics are scaled to it.

    Returns:
        positions (..., s, height, width, 2) in pixels of the grid (centre of the first at 0.5), and a mask
        (..., s, height, width), 1.0 where the point lies in front of the other camera and inside its image.
    """
    query, other = query.resized(height, width), other.resized(height, width)
    relative = other.w2c @ invert_rigid(query.w2c)
    x = torch.arange(width, device=query.k.device, dtype=query.k.dtype) + 0.5
    y = torch.arange(height, device=query.k.device, dtype=query.k.dtype) + 0.5
    grid = torch.stack([*torch.meshgrid(x, y, indexing="xy"), x.new_ones(height, width)])
    turn = other.k @ relative[..., :3, :3] @ torch.linalg.inv(query.k)
    shift = (other.k @ relative[..., :3, 3:])[..., None, :, :, None]
    ray = (turn @ grid.flatten(1)).unflatten(-1, (height, width))[..., None, :, :, :]
    z = depths[:, None, None] if depths.ndim == 1 else depths
    point = z[..., None, :, :] * ray + shift
    depth = point[..., 2, :, :]
    front = depth > MIN_DEPTH
    safe = torch.where(front, depth, torch.ones_like(depth))
    u, v = point[..., 0, :, :] / safe, point[..., 1, :, :] / safe
    inside = front & (u > 0) & (u < width) & (v > 0) & (v < height)
    positions = torch.stack([u, v], -1)
    # Far-away positions are moved outside by a bounded amount, so that sampling never meets huge numbers.
    positions = torch.where(
        front[..., None], positions.clamp(-2 * width, 3 * width), positions.new_tensor(-2.0 * width)
    )
    return positions, inside.to(depth.dtype)
