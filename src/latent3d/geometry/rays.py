"""Rays of pinhole cameras: pixel centres, directions, Plücker maps and the lift from z-depth to points.

Letters: H, W image size in pixels; ``...`` the batch shape of the cameras.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.precision import full_precision


def pixel_grid(
    height: int, width: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Float[Tensor, "height width 2"]:
    """Positions (x, y) of the pixel centres in pixels, the first being (0.5, 0.5); shape (H, W, 2)."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=dtype, device=device) + 0.5,
        torch.arange(width, dtype=dtype, device=device) + 0.5,
        indexing="ij",
    )
    return torch.stack([x, y], -1)


def invert_intrinsics(k: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Inverse of upper triangular intrinsics, in closed form (works in every dtype, adds no solver's rounding)."""
    fx, skew, cx = k[..., 0, 0], k[..., 0, 1], k[..., 0, 2]
    fy, cy = k[..., 1, 1], k[..., 1, 2]
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    entries = [1 / fx, -skew / (fx * fy), (skew * cy / fy - cx) / fx, zero, 1 / fy, -cy / fy, zero, zero, one]
    return rearrange(torch.stack(entries, -1), "... (row column) -> ... row column", row=3)


@full_precision
def rays_z1(pixels: Float[Tensor, "*#batch n 2"], cameras: Cameras) -> Float[Tensor, "... n 3"]:
    """World-axes ray of each pixel position with z = 1 in the camera: R_c2w K^-1 (x, y, 1).

    A point at z-depth d is ``centre + d * ray``. pixels: (..., N, 2) in pixels, or (N, 2) shared by all cameras; result
    (..., N, 3).
    """
    to_world = cameras.w2c[..., :3, :3].mT @ invert_intrinsics(cameras.k)
    return pixels @ to_world[..., :2].mT + to_world[..., None, :, 2]


def normalized_ray_z1(cameras: Cameras) -> Float[Tensor, "*batch height width 3"]:
    """`rays_z1` of every pixel centre, (..., H, W, 3): ``centre + z * ray`` is the point at z-depth z."""
    grid = pixel_grid(cameras.height, cameras.width, dtype=cameras.k.dtype, device=cameras.k.device)
    return rearrange(
        rays_z1(rearrange(grid, "h w c -> (h w) c"), cameras), "... (h w) c -> ... h w c", h=cameras.height
    )


def camera_rays(
    cameras: Cameras,
) -> tuple[Float[Tensor, "*batch height width 3"], Float[Tensor, "*batch height width 3"]]:
    """Origins and unit directions in world coordinates through the pixel centres, (..., H, W, 3) each."""
    rays = normalized_ray_z1(cameras)
    directions = rays / rays.norm(dim=-1, keepdim=True)
    return cameras.centers[..., None, None, :].expand_as(directions), directions


def plucker_map(cameras: Cameras) -> Float[Tensor, "*batch 6 height width"]:
    """Plücker coordinates of the pixels' rays, concat(o x d, d), in world axes, (..., 6, H, W).

    o is the camera centre in scene units and d the unit direction (channel order of CameraCtrl, arXiv 2404.02101).
    The moment o x d is the same for every point o of a ray, so the map names the line and not the camera.
    """
    origins, directions = camera_rays(cameras)
    moments = torch.linalg.cross(origins, directions, dim=-1)
    return rearrange(torch.cat([moments, directions], -1), "... h w c -> ... c h w")


def unproject(
    cameras: Cameras, depths: Float[Tensor, "*batch 1 height width"]
) -> Float[Tensor, "*batch height width 3"]:
    """World points of the pixels at z-depths (..., 1, H, W) in scene units, (..., H, W, 3).

    Raises:
        ValueError: if the depth maps are not of the cameras' image size.
    """
    if depths.shape[-2:] != (cameras.height, cameras.width):
        raise ValueError(
            f"depth maps of {depths.shape[-1]}x{depths.shape[-2]} pixels do not fit cameras of "
            f"{cameras.width}x{cameras.height}; call cameras.resized() first"
        )
    depth = rearrange(depths, "... 1 h w -> ... h w 1")
    return cameras.centers[..., None, None, :] + depth * normalized_ray_z1(cameras)
