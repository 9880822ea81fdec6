"""Perspective projection of 3D Gaussians to screen ellipses (EWA splatting), in plain torch.

Letters: V views, N splats. This is the twin of the projection inside the numba kernels, and the way gradients reach
the cameras. All back ends share the formulas here; only `ALPHA_MIN` decides what may be culled, so culling is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latent3d.geometry.rotations import quaternion_to_matrix
from latent3d.rendering.base import ALPHA_MIN

ANTIALIAS_FLOOR = 0.005
"""Least factor by which anti-aliasing may lower an opacity."""
LEAST_ALPHA = 1e-6
"""The expected depth is divided by at least this alpha."""
JACOBIAN_MARGIN = 0.15
"""The Jacobian is taken at most this part of the image's width or height outside the image."""
LEAST_NORM = 1e-12
"""Quaternions shorter than this are divided by it instead of their length, as in `normalize_quaternion`."""
EXTENT_SLACK = 1e-4
"""Relative and absolute (pixels) slack on a splat's extent, so that rounding never culls a pixel that counts."""


@dataclass(frozen=True)
class ProjectedSplats:
    """N splats on the screens of V cameras.

    Attributes:
        means: centres in pixels, (V, N, 2).
        conics: inverse of the blurred 2D covariance as (a, b, c), sigma = (a dx^2 + c dy^2) / 2 + b dx dy, (V, N, 3).
        depths: z-depth in scene units, (V, N).
        opacities: opacity after anti-aliasing, (V, N).
        extents: half width and height in pixels of the region with alpha >= `ALPHA_MIN`, no history, (V, N, 2).
        visible: in front of the near plane, opaque enough to count and representable, (V, N).
    """

    means: Float[Tensor, "v n 2"]
    conics: Float[Tensor, "v n 3"]
    depths: Float[Tensor, "v n"]
    opacities: Float[Tensor, "v n"]
    extents: Float[Tensor, "v n 2"]
    visible: Bool[Tensor, "v n"]


def project_splats(
    means: Float[Tensor, "n 3"],
    quaternions: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    w2c: Float[Tensor, "v 4 4"],
    k: Float[Tensor, "v 3 3"],
    height: int,
    width: int,
    low_pass: float,
    near: float,
    antialiased: bool,
) -> ProjectedSplats:
    """First-order projection of the splats (EWA splatting, Zwicker et al. 2001; 3DGS, Kerbl et al. 2023, sec. 4).

    With p = R m + t and u = px / pz, v = py / pz, the rows of the Jacobian times R are A = fx / pz (r0 - u r2) and
    B = fy / pz (r1 - v r2), u and v clamped near the image. With M = R_splat diag(s), P = M^T A and Q = M^T B the
    2D covariance is [[P.P, P.Q], [P.Q, Q.Q]] + low_pass I. Its determinant is summed from positive terms,
    |P x Q|^2 + low_pass (P.P + Q.Q) + low_pass^2, so that float32 never loses it for long thin splats.
    """
    rotation, translation = w2c[:, :3, :3], w2c[:, :3, 3]
    # sums of products, not matrix products: those would be rounded under autocast, in the backward pass even here
    local = (rotation[:, None] * means[None, :, None]).sum(-1) + translation[:, None]
    px, py, depth = local.unbind(-1)
    in_front = depth > near
    inverse_z = 1 / torch.where(in_front, depth, torch.ones_like(depth))
    fx, fy, cx, cy = (k[:, i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    u, v = px * inverse_z, py * inverse_z
    margin_x, margin_y = JACOBIAN_MARGIN * width / fx, JACOBIAN_MARGIN * height / fy
    uc = torch.minimum(torch.maximum(u, -cx / fx - margin_x), (width - cx) / fx + margin_x)
    vc = torch.minimum(torch.maximum(v, -cy / fy - margin_y), (height - cy) / fy + margin_y)
    r0, r1, r2 = (rotation[:, None, i] for i in range(3))
    row_a = (fx * inverse_z)[..., None] * (r0 - uc[..., None] * r2)
    row_b = (fy * inverse_z)[..., None] * (r1 - vc[..., None] * r2)
    axes = quaternion_to_matrix(quaternions) * scales[:, None]
    p, q = ((row[..., None] * axes).sum(-2) for row in (row_a, row_b))
    pp, pq, qq = (p * p).sum(-1), (p * q).sum(-1), (q * q).sum(-1)
    determinant_raw = torch.linalg.cross(p, q).square().sum(-1)
    determinant = determinant_raw + low_pass * (pp + qq) + low_pass**2
    conics = torch.stack([(qq + low_pass) / determinant, -pq / determinant, (pp + low_pass) / determinant], -1)
    opacities = opacities.expand_as(depth)
    if antialiased:
        opacities = opacities * (determinant_raw / determinant).clamp_min(ANTIALIAS_FLOOR**2).sqrt()
    with torch.no_grad():
        representable = torch.isfinite(determinant) & torch.isfinite(local).all(-1)
        visible = in_front & (opacities >= ALPHA_MIN) & representable
        cutoff = 2 * torch.log(opacities.clamp_min(ALPHA_MIN) / ALPHA_MIN)
        covariance = torch.stack([pp, qq], -1) + low_pass
        extents = (cutoff[..., None] * covariance).sqrt() * (1 + EXTENT_SLACK) + EXTENT_SLACK
    return ProjectedSplats(
        means=torch.stack([fx * u + cx, fy * v + cy], -1),
        conics=conics,
        depths=depth,
        opacities=opacities,
        extents=extents,
        visible=visible,
    )


@torch.no_grad()
def tile_rectangles(projected: ProjectedSplats, height: int, width: int, tile: int) -> Int[Tensor, "v n 4"]:
    """Tiles that each splat can touch, as int32 (first column, first row, past-last column, past-last row).

    Invisible splats get an empty rectangle of zeros.
    """
    columns, rows = -(-width // tile), -(-height // tile)
    low = torch.floor((projected.means - projected.extents - 0.5) / tile)
    high = torch.floor((projected.means + projected.extents - 0.5) / tile) + 1
    corners = torch.cat([low, high], -1).nan_to_num()
    limits = corners.new_tensor([columns, rows, columns, rows])
    corners = torch.minimum(corners.clamp_min(0), limits)
    return (corners * projected.visible[..., None]).to(torch.int32)
