"""Epipolar geometry of two or more pinhole cameras: relative disparity, fundamental matrix, segments and samples.

Everything rests on one line: the point of a query pixel x at z-depth d appears in another camera at

    p(w) ~ H x + w e,   w = 1 / d,   H = K' R K^-1,   e = K' t,   (R, t) from the query camera to the other,

which is linear in the inverse depth w, so clipping to the image and to the front of the camera is linear as well.

Letters: B... batch shape, N other views, P query pixels, h w size of the query (and sampled) grid, S samples per line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.precision import full_precision
from latent3d.geometry.rays import invert_intrinsics, pixel_grid

OUTSIDE_PX = 2.0
"""Positions stay within this distance of the image; points behind a camera get it in both axes, so that sampling with
zero padding reads zero there."""
BEHIND = 1e-3
"""A point counts as before a camera if its z-depth is above this fraction of the near depth of the query."""


@dataclass(frozen=True)
class EpipolarSegments:
    """What another image shows of the query rays between near and far.

    Attributes:
        start, end: positions in pixels of the visible part's near and far end, (..., P, 2); they lie outside the image
            where nothing is visible.
        start_depth, end_depth: z-depths of the two ends in the query camera, scene units, (..., P).
        valid: whether any part is visible, (..., P).
    """

    start: Float[Tensor, "*batch p 2"]
    end: Float[Tensor, "*batch p 2"]
    start_depth: Float[Tensor, "*batch p"]
    end_depth: Float[Tensor, "*batch p"]
    valid: Bool[Tensor, "*batch p"]


@dataclass(frozen=True)
class EpipolarSamples:
    """S samples on the epipolar line of every query pixel in each of N other views, from near to far.

    Attributes:
        positions: (x, y) in pixels of the other views' (h, w) grid, the first pixel's centre being (0.5, 0.5),
            (..., N, h, w, S, 2). Always finite; outside the image where ``valid`` is false.
        valid: in front of the other camera and inside its image, (..., N, h, w, S).
        depths: z-depth of the sample in the *query* camera, scene units, (..., N, h, w, S).
    """

    positions: Float[Tensor, "*batch n h w s 2"]
    valid: Bool[Tensor, "*batch n h w s"]
    depths: Float[Tensor, "*batch n h w s"]

    def sampling_grid(self) -> Float[Tensor, "*batch n h w s 2"]:
        """Positions for `torch.nn.functional.grid_sample` with ``align_corners=False``: the image spans [-1, 1]."""
        height, width = self.valid.shape[-3:-1]
        return self.positions * (2 / self.positions.new_tensor([width, height])) - 1


def relative_disparity_to_depth(
    relative: Float[Tensor, "*batch"], near: float | Tensor, far: float | Tensor
) -> Float[Tensor, "*out"]:
    """depth(r) = 1 / ((1 - r) (1/near - 1/far) + 1/far): r = 0 is near, r = 1 is far (pixelSplat, arXiv 2312.12337)."""
    return 1 / ((1 - relative) * (1 / near - 1 / far) + 1 / far)


def depth_to_relative_disparity(
    depth: Float[Tensor, "*batch"], near: float | Tensor, far: float | Tensor
) -> Float[Tensor, "*out"]:
    """r = 1 - (1/depth - 1/far) / (1/near - 1/far), the inverse of `relative_disparity_to_depth`."""
    return 1 - (1 / depth - 1 / far) / (1 / near - 1 / far)


@full_precision
def fundamental_matrix(first: Cameras, second: Cameras) -> Float[Tensor, "*batch 3 3"]:
    """F = K2^-T [t]_x R K1^-1 with x_cam2 = R x_cam1 + t (OpenCV axes): x2^T F x1 = 0 for pixels of one point.

    F is zero for cameras with a common centre, whose images constrain no depth.
    """
    relative = second.w2c @ first.c2w
    rotation, (x, y, z) = relative[..., :3, :3], relative[..., :3, 3].unbind(-1)
    zero = torch.zeros_like(x)
    cross = rearrange(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1), "... (r c) -> ... r c", r=3)
    return invert_intrinsics(second.k).mT @ cross @ rotation @ invert_intrinsics(first.k)


@full_precision
def symmetric_epipolar_distance(
    fundamental: Float[Tensor, "*batch 3 3"],
    first_pixels: Float[Tensor, "*batch p 2"],
    second_pixels: Float[Tensor, "*batch p 2"],
) -> Float[Tensor, "*batch p"]:
    """SED of P pixel pairs in pixels: mean distance of each pixel to the other's epipolar line.

    SED = (|x2^T F x1| / |(F x1)_12| + |x1^T F^T x2| / |(F^T x2)_12|) / 2 (Yu et al. 2023, arXiv 2304.10700).
    """
    one = torch.ones_like(first_pixels[..., :1])
    x1, x2 = torch.cat([first_pixels, one], -1), torch.cat([second_pixels, one], -1)
    line2, line1 = x1 @ fundamental.mT, x2 @ fundamental
    error = (x2 * line2).sum(-1).abs()
    return (error / line2[..., :2].norm(dim=-1) + error / line1[..., :2].norm(dim=-1)) / 2


@dataclass(frozen=True)
class _Lines:
    """Epipolar lines p(w) ~ a + w e and the range of w to look at. a: (..., P, 3); e: (..., 1, 3); w: (..., 1)."""

    a: Tensor
    e: Tensor
    near: Tensor
    far: Tensor
    height: int
    width: int

    def before(self) -> tuple[Tensor, Tensor]:
        """z' - BEHIND * near >= 0 as a constraint c + w s >= 0 (z' = (a_z + w e_z) / w)."""
        return self.a[..., 2], self.e[..., 2] - BEHIND / self.near

    def clip(self) -> tuple[Tensor, Tensor, Tensor]:
        """Inverse depths (near end, far end) of what the other image shows, and whether that is anything: (..., P).

        Liang and Barsky (1984) with five linear constraints: four sides of the image and the front of the camera.
        """
        (ax, ay, az), (ex, ey, ez) = self.a.unbind(-1), self.e.unbind(-1)
        sides = [(ax, ex), (self.width * az - ax, self.width * ez - ex)]
        sides += [(ay, ey), (self.height * az - ay, self.height * ez - ey), self.before()]
        low, high = self.far.expand_as(ax), self.near.expand_as(ax)
        valid = torch.ones_like(ax, dtype=torch.bool)
        for constant, slope in sides:
            slope = slope.expand_as(constant)
            crossing = -constant / torch.where(slope == 0, torch.ones_like(slope), slope)
            low = torch.where(slope > 0, torch.maximum(low, crossing), low)
            high = torch.where(slope < 0, torch.minimum(high, crossing), high)
            valid = valid & ((slope != 0) | (constant >= 0))
        valid = valid & (low <= high)
        return torch.where(valid, high, self.near), torch.where(valid, low, self.far), valid

    def at(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (..., P, S, 2) at inverse depths w (..., P, S), and which of them the other camera sees."""
        (x, y, z) = (self.a[..., None, i] + w * self.e[..., None, i] for i in range(3))
        # In front of the camera means z / w > BEHIND * near; positions behind it would be mirror images.
        front = z > BEHIND / self.near[..., None] * w
        z = torch.where(front, z, torch.ones_like(z))
        x, y = x / z, y / z
        seen = front & (x >= 0) & (x <= self.width) & (y >= 0) & (y <= self.height)
        outside = torch.full_like(x, -OUTSIDE_PX)
        x = torch.where(front, x.clamp(-OUTSIDE_PX, self.width + OUTSIDE_PX), outside)
        y = torch.where(front, y.clamp(-OUTSIDE_PX, self.height + OUTSIDE_PX), outside)
        return torch.stack([x, y], -1), seen


@full_precision
def _lines(pixels: Tensor, first: Cameras, second: Cameras, near: float | Tensor, far: float | Tensor) -> _Lines:
    if not isinstance(near, Tensor) and not isinstance(far, Tensor) and not 0 < near < far:
        raise ValueError(f"depths must satisfy 0 < near < far, found near = {near} and far = {far}")
    relative = second.w2c @ first.c2w
    homography = second.k @ relative[..., :3, :3] @ invert_intrinsics(first.k)
    a = pixels @ homography[..., :2].mT + homography[..., None, :, 2]
    e = (second.k @ relative[..., :3, 3:]).mT
    w_near, w_far = (1 / torch.as_tensor(depth, dtype=a.dtype, device=a.device)[..., None] for depth in (near, far))
    return _Lines(a, e, w_near, w_far, second.height, second.width)


def epipolar_segments(
    pixels: Float[Tensor, "*#batch p 2"],
    first: Cameras,
    second: Cameras,
    near: float | Tensor,
    far: float | Tensor,
) -> EpipolarSegments:
    """Segments in ``second`` of the rays through ``pixels`` of ``first`` between two z-depths, clipped to the image.

    pixels: (..., P, 2) in pixels of ``first``; near, far: z-depths in ``first``, scene units, floats or (...) tensors.
    Parts of a ray behind the second camera are cut off. Cameras with a common centre give segments of one point.

    Raises:
        ValueError: unless 0 < near < far (checked for floats).
    """
    lines = _lines(pixels, first, second, near, far)
    start, end, valid = lines.clip()
    ends, _ = lines.at(torch.stack([start, end], -1))
    ends = torch.where(valid[..., None, None], ends, torch.full_like(ends, -OUTSIDE_PX))
    return EpipolarSegments(ends[..., 0, :], ends[..., 1, :], 1 / start, 1 / end, valid)


def epipolar_samples(
    query: Cameras,
    others: Cameras,
    num_samples: int,
    near: float | Tensor,
    far: float | Tensor,
    height: int,
    width: int,
    spacing: Literal["disparity", "segment"] = "disparity",
) -> EpipolarSamples:
    """S samples along the epipolar line of every pixel of an (h, w) query grid in each of N other views.

    Spacings, with i = 0 .. S-1 from near to far:
      - "disparity": at relative disparities (i + 0.5)/S of the query ray, the same depth hypotheses in all views, as in
        a plane sweep;
      - "segment": at (i + 0.5)/S between the projections of near and far, clipped to the image, with the depth that
        triangulates each (pixelSplat, arXiv 2312.12337). All samples of a line are valid, or none.

    Args:
        query: batch shape (...), any image size; others: batch shape (..., N).
        num_samples: S.
        near, far: z-depths in the query cameras in scene units; floats, or tensors that broadcast to (...).
        height, width: size in pixels of the feature grids, of the query and of the other views alike.

    Raises:
        ValueError: unless 0 < near < far (checked for floats), or for an unknown spacing.
    """
    query, others = query.resized(height, width), others.resized(height, width)
    grid = rearrange(pixel_grid(height, width, dtype=query.k.dtype, device=query.k.device), "h w c -> (h w) c")
    near, far = (depth[..., None] if isinstance(depth, Tensor) else depth for depth in (near, far))
    lines = _lines(grid, query[..., None], others, near, far)
    fraction = (torch.arange(num_samples, dtype=grid.dtype, device=grid.device) + 0.5) / num_samples
    if spacing == "disparity":
        w = (lines.near[..., None] + (lines.far - lines.near)[..., None] * fraction).expand(*lines.a.shape[:-1], -1)
        positions, valid = lines.at(w)
    elif spacing == "segment":
        start, end, visible = lines.clip()
        # Equal steps in the image are perspective-weighted steps in w: each end counts by its nearness z'/w to the
        # other camera. With a common centre z' is constant, and the steps become equal in w.
        z_start, z_end = (lines.a[..., 2] + end_w * lines.e[..., 2] for end_w in (start, end))
        from_start, from_end = z_end[..., None] * (1 - fraction), z_start[..., None] * fraction
        total = torch.where(visible[..., None], from_start + from_end, torch.ones_like(from_start))
        w = (start[..., None] * from_start + end[..., None] * from_end) / total
        w = torch.where(visible[..., None], w, lines.near[..., None] + (lines.far - lines.near)[..., None] * fraction)
        positions, _ = lines.at(w)
        valid = visible[..., None].expand_as(w)
        positions = torch.where(valid[..., None], positions, torch.full_like(positions, -OUTSIDE_PX))
    else:
        raise ValueError(f"unknown spacing '{spacing}'; choose 'disparity' or 'segment'")
    shape = "... (h w) s -> ... h w s"
    return EpipolarSamples(
        positions=rearrange(positions, "... (h w) s c -> ... h w s c", h=height),
        valid=rearrange(valid, shape, h=height),
        depths=rearrange(1 / w, shape, h=height),
    )
