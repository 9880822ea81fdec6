"""Meshes and files that several tests read, and how to look at them."""

from __future__ import annotations

import base64
import json
import math

import numpy as np
import torch
from PIL import Image

from latent3d.geometry.cameras import Cameras
from latent3d.rendering.meshes import render_mesh
from latent3d.representations.mesh import Mesh

SUFFIXES = (".glb", ".obj", ".ply")


def prism(kind: str = "plain") -> Mesh:
    """A tetrahedron that looks different from everywhere; its front corner is at -y, its top at +z."""
    vertices = torch.tensor([[0.0, -0.4, 0], [0.3, 0.2, 0], [-0.3, 0.2, 0], [0, 0, 0.5]])
    faces = torch.tensor([[0, 1, 3], [1, 2, 3], [2, 0, 3], [0, 2, 1]])
    g = torch.Generator().manual_seed(3)
    if kind == "plain":
        return Mesh(vertices=vertices, faces=faces)
    if kind == "colored":
        return Mesh(vertices=vertices, faces=faces, colors=torch.rand(4, 3, generator=g))
    texture = (torch.rand(3, 6, 8, generator=g) * 255).round() / 255
    normals = torch.nn.functional.normalize(vertices[faces] - vertices.mean(0), dim=-1)
    return Mesh(vertices=vertices, faces=faces, uvs=torch.rand(4, 3, 2, generator=g), texture=texture, normals=normals)


def looks(mesh: Mesh, light=None) -> torch.Tensor:
    """Four pictures around and one from above."""
    poses = []
    for angle, lift in [(0.1, 0.4), (1.7, 0.4), (3.3, 0.4), (4.8, 0.4), (0.2, 1.4)]:
        place = 1.7 * torch.tensor(
            [math.cos(lift) * math.sin(angle), -math.cos(lift) * math.cos(angle), math.sin(lift)]
        )
        z = -place / place.norm()
        x = torch.nn.functional.normalize(torch.linalg.cross(z, torch.tensor([0.0, 0, 1])), dim=0)
        pose = torch.eye(4)
        pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = x, torch.linalg.cross(z, x), z, place
        poses.append(pose)
    return render_mesh(mesh, Cameras.from_fov(torch.stack(poses), 40.0, 40, 40), light=light).images


def gltf(tmp_path, meshes: list[dict], materials: list[dict], nodes: list[dict] | None = None, **more):
    """A .gltf with data addresses; each mesh is a dictionary of arrays by attribute name, and "indices", "material"."""
    buffers, views, accessors, primitives = [], [], [], []
    kinds = {"float32": 5126, "uint32": 5125, "uint16": 5123, "uint8": 5121}

    def put(values: np.ndarray, **extra) -> int:
        data = values.tobytes()
        uri = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
        buffers.append({"uri": uri, "byteLength": len(data)})
        views.append({"buffer": len(buffers) - 1, "byteLength": len(data)})
        width = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}[1 if values.ndim == 1 else values.shape[1]]
        accessors.append(
            {"bufferView": len(views) - 1, "count": len(values), "componentType": kinds[str(values.dtype)]}
            | {"type": width} | extra
        )  # fmt: skip
        return len(accessors) - 1

    for mesh in meshes:
        arrays = {k: v for k, v in mesh.items() if isinstance(v, np.ndarray) and k != "indices"}
        primitive = {"attributes": {k: put(v, normalized=v.dtype == np.uint8) for k, v in arrays.items()}}
        if "indices" in mesh:
            primitive["indices"] = put(mesh["indices"])
        primitives.append(primitive | {k: v for k, v in mesh.items() if k in ("material", "mode")})
    nodes = nodes or [{"mesh": i} for i in range(len(meshes))]
    text = {
        "asset": {"version": "2.0"}, "scene": 0,
        "scenes": [{"nodes": [0] if "children" in nodes[0] else list(range(len(nodes)))}],
        "nodes": nodes, "meshes": [{"primitives": [p]} for p in primitives], "materials": materials,
        "accessors": accessors, "bufferViews": views, "buffers": buffers, **more,
    }  # fmt: skip
    path = tmp_path / "made.gltf"
    path.write_text(json.dumps(text))
    return path


SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
QUAD = np.array([0, 1, 2, 0, 2, 3], np.uint16)
UV = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)


def picture_file(tmp_path, name: str, *colors: tuple[int, int, int]) -> None:
    """A picture of vertical stripes, 8 texels each."""
    stripes = np.repeat(np.array(colors, np.uint8)[None], 8, 1).repeat(8, 0)
    Image.fromarray(stripes).save(tmp_path / name)


def seen(mesh: Mesh, place: tuple[float, float, float], towards: tuple[float, float, float] = (0, 1, 0)) -> list[float]:
    """Unlit colour of the surface at a point, seen from half a unit in front of it."""
    z = torch.tensor(towards, dtype=torch.float32)
    x = torch.linalg.cross(z, torch.tensor([0.0, 0, 1]))
    pose = torch.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = x, torch.linalg.cross(z, x), z
    pose[:3, 3] = torch.tensor(place) - 0.5 * z
    return render_mesh(mesh, Cameras.from_fov(pose[None], 0.5, 1, 1), light=None).images.flatten().tolist()
