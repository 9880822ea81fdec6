"""One object of LN3Diff++ as its feature planes, with what the decoders make of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.rendering.surface import field_to_mesh
from latent3d.representations.mesh import Mesh
from latent3d.representations.triplane import TriPlane
from latent3d.representations.views import Views
from latent3d.systems.ln3diff import LN3DiffSystem

MESH_RESOLUTION = 96
"""Cells along each side of the box for meshes of the field."""
SURFACE_DENSITY = 10.0
"""Volume density, per scene unit, at which the field's surface is taken."""
COVERED = 0.5
"""A pixel shows the object, and has a depth, where its alpha is above this."""


@dataclass(frozen=True)
class DecodedObject:
    """An object.

    Attributes:
        system: whose decoders turn the planes into pictures and a mesh.
        planes: of this object, without batch axis.
    """

    system: LN3DiffSystem
    planes: TriPlane

    @property
    def batch(self) -> TriPlane:
        """The planes with a batch axis of one."""
        return self.planes[None]

    @torch.no_grad()
    def views(self, cameras: Cameras) -> Views:
        """The field as cameras (V,) see it: pictures over white with alphas, and depths where the object covers."""
        seen = self.system.render(self.batch, cameras.to(self.planes.planes.device)[None])
        depth = torch.where(seen.alpha > COVERED, seen.depth, torch.zeros_like(seen.depth))
        return Views(seen.rgb[0, :, :3].clamp(0, 1), cameras, depth[0], alphas=seen.alpha[0])

    @torch.no_grad()
    def mesh(self, resolution: int = MESH_RESOLUTION) -> Mesh:
        """The surface with vertex colours: by the FlexiCubes decoder where the weights have one, at its own resolution,
        else where the field's density passes `SURFACE_DENSITY`.

        Raises:
            ValueError: if the object is empty.
        """
        if self.system.mesh is not None:
            return self.system.mesh.surfaces(self.batch)[0].mesh
        look = self.system.field_of(self.batch)

        def density(points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
            return look(points[None])[0][0]

        def color(points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
            return look(points[None])[1][0, :, :3].clamp(0, 1)

        return field_to_mesh(
            density, self.planes.half_size, resolution=resolution, threshold=SURFACE_DENSITY, colors=color,
            min_share=0.01, device=self.planes.planes.device,
        )  # fmt: skip
