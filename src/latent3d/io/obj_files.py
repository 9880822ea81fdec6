"""Wavefront .obj with its materials (.mtl) and textures: reading and writing.

The format fixes no axes; files are taken and written as most exporters do, y-up with the front towards +z, and turned
as glTF is. Its texture coordinates run upwards. Colours (``Kd``, and the colours that some exporters put after a
vertex) are taken as sRGB, as viewers do, but ``Kd`` as linear in files that name Blender, which writes it so. Where a
material has a texture (``map_Kd``) its ``Kd`` does not count: exporters leave any grey there, and most viewers ignore
it. Transparency (``d``, ``Tr``, which exporters confuse) is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from latent3d.io.gltf_reader import FROM_GLTF, find_beside
from latent3d.io.mesh_parts import MeshFileError, Part, linear_from_srgb
from latent3d.io.texture_atlas import decode_texture
from latent3d.representations.mesh import Mesh

_OPTION_VALUES = {"-o": 3, "-s": 3, "-t": 3, "-mm": 2}
"""How many values an option of a texture statement has at most; the others have one."""


@dataclass
class _Material:
    """``color``: linear, (3,). ``texture``: sRGB, (T, U, 3)."""

    color: np.ndarray | None = None
    texture: np.ndarray | None = None


@dataclass
class _Group:
    """Corners of triangles of one material: numbers of position, texture coordinate and normal (-1 none)."""

    corners: list[tuple[int, int, int]] = field(default_factory=list)


def read_obj(path: Path) -> list[Part]:
    """The parts of the file, one for each material; faces of more than three corners are cut into fans.

    Raises:
        MeshFileError: for what the user can mend. Damaged files surface as almost any error.
    """
    points: list[list[float]] = []
    colors: list[list[float]] = []
    coordinates: list[list[float]] = []
    normals: list[list[float]] = []
    groups: dict[str, _Group] = {}
    materials: dict[str, _Material] = {}
    current = groups.setdefault("", _Group())
    for line in _lines(path):
        word, _, rest = line.partition(" ")
        if word == "v":
            values = [float(value) for value in rest.split()]
            points.append(values[:3])
            if len(values) >= 6:
                colors.append(values[-3:])
        elif word == "vt":
            coordinates.append([float(value) for value in (*rest.split(), "0")[:2]])
        elif word == "vn":
            normals.append([float(value) for value in rest.split()[:3]])
        elif word == "f":
            counts = (len(points), len(coordinates), len(normals))
            ring = [_corner(text, counts) for text in rest.split()]
            current.corners += [corner for i in range(1, len(ring) - 1) for corner in (ring[0], ring[i], ring[i + 1])]
        elif word == "usemtl":
            current = groups.setdefault(rest.strip(), _Group())
        elif word == "mtllib":
            materials |= _read_materials(find_beside(path, rest, "material library"))
    used = [name for name, group in groups.items() if group.corners]
    missing = [name for name in used if name and name not in materials]
    if missing and materials:
        raise MeshFileError(f"its material '{missing[0]}' is in none of its material libraries; export it again")
    table = np.array(points, np.float64).reshape(len(points), 3) @ FROM_GLTF.T
    tints = linear_from_srgb(np.array(colors, np.float64)) if points and len(colors) == len(points) else None
    turned = np.array(normals, np.float64).reshape(-1, 3) @ FROM_GLTF.T
    flipped = np.array(coordinates, np.float64).reshape(-1, 2) * [1, -1] + [0, 1]
    return [_part(groups[name], materials.get(name, _Material()), table, flipped, turned, tints) for name in used]


def _part(group: _Group, material: _Material, points, coordinates, normals, tints) -> Part:
    corners = np.array(group.corners, np.int64).reshape(-1, 3, 3)
    faces, places, turns = corners.transpose(2, 0, 1)
    if (faces < 0).any() or (corners.max((0, 1)) >= [len(points), len(coordinates), len(normals)]).any():
        raise MeshFileError("a face names a vertex, coordinate or normal that is not there")
    textured = material.texture is not None
    if textured and (places < 0).any() and not (places < 0).all():
        raise MeshFileError("some faces of a textured material have no texture coordinates; export it again")
    unit = None
    if (turns >= 0).all():
        unit = normals[turns] / np.maximum(np.linalg.norm(normals[turns], axis=-1, keepdims=True), 1e-20)
    return Part(
        vertices=points,
        faces=faces,
        uvs=coordinates[places] if textured and (places >= 0).all() else None,
        normals=unit,
        colors=None if tints is None or textured else tints[faces],
        factor=None if textured or material.color is None or tints is not None else material.color,
        texture=material.texture,
    )


def _lines(path: Path) -> list[str]:
    """Statements with single spaces after their first word, without comments; continued lines are joined."""
    text = path.read_bytes().decode("utf-8", errors="surrogateescape").replace("\\\r\n", " ").replace("\\\n", " ")
    words = (line.split("#", 1)[0].strip().split(None, 1) for line in text.splitlines())
    return [" ".join(parts) for parts in words if parts]


def _corner(text: str, counts: tuple[int, int, int]) -> tuple[int, int, int]:
    """Numbers from 0 of 'v', 'v/vt', 'v//vn' or 'v/vt/vn', counted from 1 or backwards from -1; -1 where none is."""
    numbers = [int(part) if part else 0 for part in (*text.split("/"), "", "")[:3]]
    if any(number < -count for number, count in zip(numbers, counts, strict=True)):
        raise MeshFileError("a face names a vertex, coordinate or normal that is not there")
    a, b, c = (n - 1 if n >= 0 else count + n for n, count in zip(numbers, counts, strict=True))
    return a, b, c


def _read_materials(path: Path) -> dict[str, _Material]:
    """Materials of an .mtl file by name."""
    found: dict[str, _Material] = {}
    pictures: dict[Path, np.ndarray] = {}
    current = _Material()
    linear = path.read_bytes()[:80].startswith(b"# Blender")
    for line in _lines(path):
        word, _, rest = line.partition(" ")
        if word == "newmtl":
            current = found.setdefault(rest.strip(), _Material())
        elif word == "Kd":
            color = np.array([float(value) for value in rest.split()[:3]])
            current.color = color if linear else linear_from_srgb(color)
        elif word.lower() == "map_kd":
            place = find_beside(path, _texture_name(rest), "texture")
            if place not in pictures:
                try:
                    pictures[place] = decode_texture(place.read_bytes())
                except ValueError as error:
                    raise MeshFileError(f"its texture '{place.name}' cannot be used: {error}") from error
            current.texture = pictures[place]
    return found


def _texture_name(text: str) -> str:
    """The file name of a texture statement: what follows its options. Names may hold spaces."""
    rest = text.strip()
    while rest.startswith("-"):
        option, _, rest = rest.partition(" ")
        rest = rest.strip()
        for _ in range(_OPTION_VALUES.get(option, 1)):
            value, _, after = rest.partition(" ")
            if option in _OPTION_VALUES and not _is_number(value):
                break
            rest = after.strip()
    return rest.strip('"')


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def obj_texts(mesh: Mesh, stem: str) -> tuple[str, str | None]:
    """Contents of the .obj and, for a mesh with a texture, of the .mtl.

    The .mtl is to be called ``stem``.mtl and the texture ``stem``.png.
    """
    vertices = mesh.vertices.detach().cpu().double().numpy() @ FROM_GLTF
    textured = mesh.texture is not None and mesh.uvs is not None
    tints = None if textured or mesh.colors is None else mesh.colors.detach().cpu().clamp(0, 1).numpy()
    rows = vertices if tints is None else np.concatenate([vertices, tints], 1)
    lines = ["# latent3d, y up", *([f"mtllib {stem}.mtl", "usemtl surface"] if textured else [])]
    lines += ["v " + " ".join(f"{value:.8g}" for value in row) for row in rows]
    faces = mesh.faces.detach().cpu().numpy()
    corners = [np.char.mod("%d", faces + 1)]
    for word, values in (("vt", mesh.uvs if textured else None), ("vn", mesh.normals)):
        if values is None:
            corners.append(np.full(faces.shape, ""))
            continue
        array = values.detach().cpu().double().numpy().reshape(faces.size, -1)
        array = array * [1, -1] + [0, 1] if word == "vt" else array @ FROM_GLTF
        unique, number = np.unique(array, axis=0, return_inverse=True)
        lines += [f"{word} " + " ".join(f"{value:.8g}" for value in row) for row in unique]
        corners.append(np.char.mod("%d", number.reshape(faces.shape) + 1))
    joined = ["/".join(texts).rstrip("/") for texts in zip(*(c.reshape(-1) for c in corners), strict=True)]
    lines += ["f " + " ".join(joined[i : i + 3]) for i in range(0, len(joined), 3)]
    material = f"newmtl surface\nKd 1 1 1\nmap_Kd {stem}.png\n" if textured else None
    return "\n".join(lines) + "\n", material
