"""Small meshes and cameras around them, for the tests of mesh rendering."""

from __future__ import annotations

import math

import torch
import trimesh

from latent3d.geometry.cameras import Cameras
from latent3d.representations.mesh import Mesh


def ball(subdivisions: int = 2, radius: float = 0.4, dtype: torch.dtype = torch.float64, smooth: bool = False) -> Mesh:
    shape = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    vertices, faces = torch.tensor(shape.vertices, dtype=dtype), torch.tensor(shape.faces)
    normals = (vertices / radius)[faces] if smooth else None
    return Mesh(vertices=vertices, faces=faces, colors=vertices / (2 * radius) + 0.5, normals=normals)


def scattered(count: int = 30, dtype: torch.dtype = torch.float64) -> Mesh:
    """Triangles all over the place that cross one another; some reach behind the cameras of `around`."""
    generator = torch.Generator().manual_seed(count)
    vertices = torch.randn(3 * count, 3, generator=generator, dtype=dtype) * 0.7
    return Mesh(vertices=vertices, faces=torch.arange(3 * count).reshape(count, 3))


def square(y: float = 0.0, half: float = 0.8 * math.tan(math.radians(20))) -> Mesh:
    """A square in the plane of x and z, its outside towards -y, with a texture of four colours: red and green above.

    Unless told otherwise it just fills the middle half of the first picture of `around`.
    """
    vertices = torch.tensor([[-half, y, -half], [half, y, -half], [half, y, half], [-half, y, half]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    uv = torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    texture = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]]])
    return Mesh(vertices=vertices, faces=faces, uvs=uv[faces], texture=texture)


def around(count: int = 2, size: int = 24, distance: float = 1.6, dtype: torch.dtype = torch.float64) -> Cameras:
    """Cameras on a rising circle, the first in front (at -y, looking along +y) and level, all looking at the origin."""
    poses = []
    for i in range(count):
        angle, lift = 2 * math.pi * i / count, 0.5 * i / count
        place = distance * torch.tensor(
            [math.cos(lift) * math.sin(angle), -math.cos(lift) * math.cos(angle), math.sin(lift)], dtype=dtype
        )
        z = -place / place.norm()
        x = torch.nn.functional.normalize(torch.linalg.cross(z, z.new_tensor([0.0, 0.0, 1.0])), dim=0)
        pose = torch.eye(4, dtype=dtype)
        pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = x, torch.linalg.cross(z, x), z, place
        poses.append(pose)
    return Cameras.from_fov(torch.stack(poses), 40.0, size, size)
