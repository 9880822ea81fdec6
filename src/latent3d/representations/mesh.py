"""`Mesh`: triangles with colour, per vertex or from a texture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh of one object.

    Attributes:
        vertices: positions in scene units, (N, 3).
        faces: vertex numbers, counter-clockwise seen from outside, (F, 3).
        colors: sRGB in [0, 1] per vertex, (N, 3), or None.
        uvs: texture coordinates of the corners of each face, u to the right and v *down* from the texture's upper left
            corner, in [0, 1], (F, 3, 2), or None.
        texture: sRGB in [0, 1], (3, T, U), or None. Where it is given, so are ``uvs``, and it outranks ``colors``.
        normals: unit normals of the corners of each face, (F, 3, 3); None for flat shading.
    """

    vertices: Float[Tensor, "n 3"]
    faces: Int[Tensor, "f 3"]
    colors: Float[Tensor, "n 3"] | None = None
    uvs: Float[Tensor, "f 3 2"] | None = None
    texture: Float[Tensor, "3 t u"] | None = None
    normals: Float[Tensor, "f 3 3"] | None = None

    def __post_init__(self) -> None:
        if self.texture is not None and self.uvs is None:
            raise ValueError("a mesh with a texture needs the texture coordinates `uvs` of its faces")

    def __len__(self) -> int:
        """Number of faces."""
        return self.faces.shape[0]

    def corners(self) -> Float[Tensor, "f 3 3"]:
        """Positions of the corners of each face."""
        return self.vertices[self.faces]

    def face_normals(self) -> Float[Tensor, "f 3"]:
        """Unit normals of the faces, outwards by the right-hand rule; zero for faces without area."""
        a, b, c = self.corners().unbind(1)
        return torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a, dim=-1), dim=-1)

    def bounds(self) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
        """Smallest and largest coordinates of the vertices that faces use."""
        used = self.corners().reshape(-1, 3)
        return used.amin(0), used.amax(0)

    def fitted(self, half_size: float) -> Mesh:
        """Moved and scaled evenly so that the longest side of its box just fits [-half_size, half_size]^3.

        Raises:
            ValueError: for a mesh without extent.
        """
        low, high = self.bounds()
        longest = float((high - low).max())
        if longest <= 0:
            raise ValueError("the mesh has no extent: all its vertices coincide")
        return replace(self, vertices=(self.vertices - (low + high) / 2) * (2 * half_size / longest))
