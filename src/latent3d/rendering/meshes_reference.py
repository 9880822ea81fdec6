"""The slow twin of the mesh rasteriser: every face against every pixel, in plain torch.

Letters: V views, F faces, H, W pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.precision import full_precision
from latent3d.rendering.base import NEAR
from latent3d.rendering.meshes import Fragments
from latent3d.representations.mesh import Mesh


@full_precision
def projected_corners(mesh: Mesh, cameras: Cameras) -> Float[Tensor, "v f 3 3"]:
    """K (R x + t) of the corners of all faces: pixel position times z-depth, then z-depth."""
    local = mesh.vertices @ cameras.w2c[:, :3, :3].mT + cameras.w2c[:, None, :3, 3]
    return (local @ cameras.k.mT)[:, mesh.faces]


def edge_functions(corners: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3 3"]:
    """(b x c, c x a, a x b) of projected corners a, b, c; a corner's weight at p = (x, y, 1) is as its row . p."""
    a, b, c = corners.unbind(-2)
    cross = torch.linalg.cross
    return torch.stack([cross(b, c, dim=-1), cross(c, a, dim=-1), cross(a, b, dim=-1)], -2)


def rasterize_reference(mesh: Mesh, cameras: Cameras, *, supersample: int = 1, near: float = NEAR) -> Fragments:
    """As `rasterize`, at a cost of V F H W, in float64."""
    dtype = mesh.vertices.dtype
    mesh = Mesh(vertices=mesh.vertices.double(), faces=mesh.faces)
    cameras = cameras.to(torch.float64).resized(cameras.height * supersample, cameras.width * supersample)
    corners = projected_corners(mesh, cameras)
    edges, volumes = edge_functions(corners), torch.linalg.det(corners)
    y, x = torch.meshgrid(
        torch.arange(cameras.height, dtype=torch.float64) + 0.5,
        torch.arange(cameras.width, dtype=torch.float64) + 0.5,
        indexing="ij",
    )
    pixels = torch.stack([x, y, torch.ones_like(x)], -1)
    sign = torch.where(volumes < 0, -1.0, 1.0)[..., None, None, None]
    values = sign * torch.einsum("vfcp,hwp->vfhwc", edges, pixels)
    total = values.sum(-1)
    depth = volumes.abs()[..., None, None] / total
    seen = (values >= 0).all(-1) & (total > 0) & (volumes != 0)[..., None, None] & (depth >= near)
    nearest, faces = torch.where(seen, depth, torch.inf).min(1)
    empty = ~torch.isfinite(nearest)
    weights = values / total[..., None]
    chosen = weights.gather(1, faces[:, None, ..., None].expand(-1, 1, -1, -1, 3)).squeeze(1)
    return Fragments(
        faces=torch.where(empty, -1, faces),
        barycentric=torch.where(empty[..., None], 0.0, chosen).to(dtype),
        depth=torch.where(empty, 0.0, nearest).to(dtype),
    )
