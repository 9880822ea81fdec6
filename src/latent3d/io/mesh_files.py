"""Meshes from files and to files: .glb, .gltf, .obj with all their materials, .ply, .stl and .off.

| format | axes of the file | colour |
|---|---|---|
| .glb, .gltf | y-up, front +z (by its specification) | textures, factors, colours per vertex |
| .obj | y-up, front +z (the format fixes none; most exporters write this) | textures, ``Kd``, colours per vertex |
| .ply, .stl, .off | as they are: z-up, front -y | .ply and .off: per vertex, per face, .ply: texture |

In memory axes are always z-up, front -y. Several materials become one texture (`mesh_parts.assemble`).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latent3d.io.atomic import output_file, write_bytes, write_text
from latent3d.io.gltf_reader import read_gltf
from latent3d.io.gltf_writer import glb_bytes
from latent3d.io.mesh_parts import MeshFileError, Part, assemble, linear_from_srgb
from latent3d.io.obj_files import obj_texts, read_obj
from latent3d.io.texture_atlas import encode_png
from latent3d.representations.mesh import Mesh

READABLE = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
WRITABLE = (".glb", ".obj", ".ply")
MAX_BYTES = 2**31
"""Larger files are refused before they are read."""


def read_mesh(path: str | Path) -> Mesh:
    """Read a mesh with its colours; see the table above for axes.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file, if its kind is not known, it is damaged, holds no faces, or a texture, buffer or
            material file that it names is missing.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no mesh file '{path}'; check the name")
    if path.is_dir():
        raise ValueError(f"'{path}' is a folder; give a mesh file")
    kind = path.suffix.lower()
    if kind not in READABLE:
        raise ValueError(f"'{path}' is no mesh file that can be read; give one of {', '.join(READABLE)}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise MeshFileError(f"it is larger than {MAX_BYTES // 2**20} MiB")
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged numbers; the checks on the way decide
            readers = {".glb": read_gltf, ".gltf": read_gltf, ".obj": read_obj}
            return assemble(readers.get(kind, _read_plain)(path))
    except MeshFileError as error:
        raise ValueError(f"the mesh file '{path}' cannot be used: {error}") from error
    except PermissionError:
        raise
    except Exception as error:  # structures of many programs: damaged data surfaces as almost any type
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"the mesh file '{path}' is damaged or cut short ({reason[:200]}); export or download it again"
        ) from error


def write_mesh(path: str | Path, mesh: Mesh) -> None:
    """Write a mesh: .glb (all in one file), .obj (for a texture with a .mtl and a .png
    beside it), .ply (for a texture with a .png beside it).

    Every file appears whole or not at all; the one named comes last.

    Raises:
        ValueError: for another suffix, a mesh without faces, or values that are not finite.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in WRITABLE:
        raise ValueError(f"a mesh cannot be written as '{path.name}'; choose one of {', '.join(WRITABLE)}")
    if not len(mesh):
        raise ValueError(f"the mesh has no faces; '{path}' was not written")
    for name in ("vertices", "colors", "uvs", "texture", "normals"):
        values = getattr(mesh, name)
        if values is not None and not bool(torch.isfinite(values).all()):
            raise ValueError(f"the mesh holds values that are not finite in '{name}'; '{path}' was not written")
    if kind == ".glb":
        write_bytes(path, glb_bytes(mesh))
        return
    if mesh.texture is not None:
        write_bytes(path.with_suffix(".png"), encode_png(mesh.texture.detach().cpu().permute(1, 2, 0).numpy()))
    if kind == ".ply":
        _write_ply(path, mesh)
        return
    geometry, materials = obj_texts(mesh, path.stem)
    if materials is not None:
        write_text(path.with_suffix(".mtl"), materials)
    write_text(path, geometry)


def _read_plain(path: Path) -> list[Part]:
    """Formats without scenes and materials, by trimesh."""
    import trimesh

    with path.open("rb") as file:
        resolver = trimesh.resolvers.FilePathResolver(str(path))
        loaded = trimesh.load(file, file_type=path.suffix[1:].lower(), process=False, resolver=resolver)
    if not isinstance(loaded, trimesh.Trimesh):
        raise MeshFileError("it holds points but no faces; give a mesh")
    faces = np.asarray(loaded.faces, np.int64)
    visual: Any = loaded.visual
    colors = texture = uvs = None
    if visual.kind == "face":
        colors = np.repeat(np.asarray(visual.face_colors)[:, None, :3] / 255.0, 3, 1)
    elif visual.kind == "vertex":
        colors = (np.asarray(visual.vertex_colors)[:, :3] / 255.0)[faces]
    elif visual.kind == "texture" and getattr(visual.material, "image", None) is not None:
        texture = np.asarray(visual.material.image.convert("RGB"), np.float32) / 255
        uvs = (np.asarray(visual.uv, np.float64) * [1, -1] + [0, 1])[faces]
    return [
        Part(
            vertices=np.asarray(loaded.vertices, np.float64),
            faces=faces,
            colors=None if colors is None else linear_from_srgb(colors),
            uvs=uvs,
            texture=texture,
        )
    ]


def _write_ply(path: Path, mesh: Mesh) -> None:
    """Binary .ply; a texture's coordinates go to the faces, as MeshLab writes them (v upwards)."""
    vertices, faces = mesh.vertices.detach().cpu().numpy(), mesh.faces.detach().cpu().numpy()
    textured = mesh.texture is not None and mesh.uvs is not None
    fields = [(axis, "<f4") for axis in "xyz"]
    colored = mesh.colors is not None and not textured
    fields += [(name, "u1") for name in ("red", "green", "blue")] if colored else []
    points = np.empty(len(vertices), fields)
    for axis, name in enumerate("xyz"):
        points[name] = vertices[:, axis]
    if mesh.colors is not None and colored:
        levels = (mesh.colors.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        for channel, name in enumerate(("red", "green", "blue")):
            points[name] = levels[:, channel]
    rings = np.empty(len(faces), [("n", "u1"), ("i", "<i4", 3), *([("m", "u1"), ("t", "<f4", 6)] if textured else [])])
    rings["n"], rings["i"] = 3, faces
    if mesh.uvs is not None and textured:
        rings["m"], rings["t"] = 6, (mesh.uvs.detach().cpu().numpy() * [1, -1] + [0, 1]).reshape(-1, 6)
    header = ["ply", "format binary_little_endian 1.0", "comment written by latent3d"]
    header += [f"comment TextureFile {path.stem}.png"] if textured else []
    header += [f"element vertex {len(points)}"]
    header += [f"property {'float' if kind == '<f4' else 'uchar'} {name}" for name, kind in fields]
    header += [f"element face {len(rings)}", "property list uchar int vertex_indices"]
    header += ["property list uchar float texcoord"] if textured else []
    with output_file(path) as temporary, temporary.open("wb") as file:
        file.write("\n".join([*header, "end_header", ""]).encode("ascii"))
        file.write(points.tobytes())
        file.write(rings.tobytes())
