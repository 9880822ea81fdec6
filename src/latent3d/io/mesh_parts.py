"""Pieces of a mesh as files hold them, each with its own material, and how they become one `Mesh`.

A file may give every piece its own texture and colour; `Mesh` has one texture. `assemble` therefore packs all textures
into one picture. Colours of a piece multiply, in linear light: texture times colour per corner times one factor.

Letters: N vertices, F faces, T, U rows and columns of a texture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from latent3d.io.texture_atlas import bake_faces, fold_repeats, pack
from latent3d.representations.mesh import Mesh

UV_SLACK = 1e-4
"""Texture coordinates this far outside [0, 1] do not yet make a texture repeat."""


class MeshFileError(ValueError):
    """A sentence for the user about a mesh file, to be shown as it is."""


@dataclass(frozen=True)
class Part:
    """Faces that share one material.

    Attributes:
        vertices: positions in this project's axes, (N, 3).
        faces: vertex numbers, (F, 3).
        uvs: texture coordinates of the corners, v down from the upper left corner, (F, 3, 2), or None.
        normals: unit normals of the corners, (F, 3, 3), or None.
        colors: linear colour of the corners, (F, 3, 3), or None.
        factor: linear colour of the whole part, (3,), or None where the file gives none.
        texture: sRGB in [0, 1], (T, U, 3), or None.
    """

    vertices: np.ndarray
    faces: np.ndarray
    uvs: np.ndarray | None = None
    normals: np.ndarray | None = None
    colors: np.ndarray | None = None
    factor: np.ndarray | None = None
    texture: np.ndarray | None = None


def linear_from_srgb(values: np.ndarray) -> np.ndarray:
    """Linear light from sRGB values in [0, 1] (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((np.maximum(values, 0) + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(values: np.ndarray) -> np.ndarray:
    """sRGB values from linear light; light above 1 is cut."""
    values = np.clip(values, 0.0, 1.0)
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)


def assemble(parts: list[Part]) -> Mesh:
    """One mesh of all parts, float32: corners at equal positions become one vertex, faces without extent are dropped.

    - No part has a texture: colours per vertex (vertices of different colour stay apart), none if no part has any.
    - All parts share one texture and have no other colour: that texture, and coordinates as they are, repeats included.
    - Otherwise an atlas: every texture once per factor, as often beside itself as its coordinates repeat; every face
      with colours per corner gets its own few texels.

    Raises:
        MeshFileError: for values that are not finite, faces without their vertices, or no face with extent.
    """
    parts = [_checked(part) for part in parts]
    parts = [part for part in parts if len(part.faces)]
    if not parts:
        raise MeshFileError("it has no faces with extent")
    textured = any(part.texture is not None for part in parts)
    texture, uvs, colors = None, None, None
    if textured:
        texture, uvs = _one_texture(parts)
    elif any(part.colors is not None or part.factor is not None for part in parts):
        colors = np.concatenate([srgb_from_linear(_corner_colors(part)) for part in parts])
    positions = np.concatenate([part.vertices[part.faces] for part in parts])
    vertices, faces, vertex_colors = _welded(positions, colors)
    normals = None
    if any(part.normals is not None for part in parts):
        normals = np.concatenate([_flat_normals(part) if part.normals is None else part.normals for part in parts])
    return Mesh(
        vertices=_tensor(vertices),
        faces=torch.from_numpy(faces),
        colors=None if vertex_colors is None else _tensor(vertex_colors),
        uvs=None if uvs is None else _tensor(uvs),
        texture=None if texture is None else _tensor(texture.transpose(2, 0, 1)),
        normals=None if normals is None else _tensor(normals),
    )


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def _checked(part: Part) -> Part:
    """The part without faces that have no extent, its uvs dropped where it has no texture."""
    count = len(part.vertices)
    if len(part.faces) and (part.faces.min() < 0 or part.faces.max() >= count):
        raise MeshFileError(f"a face names a vertex outside the {count} there are")
    fields = {name: getattr(part, name) for name in ("vertices", "uvs", "normals", "colors", "factor")}
    for name, values in fields.items():
        if values is not None and not np.isfinite(values).all():
            raise MeshFileError(f"its {name} hold values that are not finite")
    with np.errstate(over="ignore"):
        if not np.isfinite(part.vertices.astype(np.float32)).all():
            raise MeshFileError("its vertices hold values too large for single precision")
    a, b, c = part.vertices[part.faces].transpose(1, 0, 2)
    keep = np.any(np.cross(b - a, c - a) != 0, axis=1)
    uvs, normals, colors = (
        None if values is None else values[keep] for values in (part.uvs, part.normals, part.colors)
    )
    texture, factor = part.texture, part.factor
    if texture is not None and uvs is None:
        # A texture without coordinates shows its first texel everywhere; nothing more can be known of it.
        factor = linear_from_srgb(texture[0, 0]) * (1.0 if factor is None else factor)
        texture = None
    uvs = None if texture is None else uvs
    return Part(part.vertices, part.faces[keep], uvs, normals, colors, factor, texture)


def _corner_colors(part: Part) -> np.ndarray:
    """Linear colours of the corners (F, 3, 3) of a part without texture."""
    colors = np.ones((len(part.faces), 3, 3)) if part.colors is None else part.colors
    return colors * (1.0 if part.factor is None else part.factor)


def _flat_normals(part: Part) -> np.ndarray:
    a, b, c = part.vertices[part.faces].transpose(1, 0, 2)
    normal = np.cross(b - a, c - a)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return np.repeat(normal[:, None], 3, 1)


def _welded(positions: np.ndarray, colors: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Vertices (N, 3), faces (F, 3) and colours (N, 3) from corners (F, 3, 3): equal ones become one."""
    corners = positions.reshape(-1, 3).astype(np.float32) + np.float32(0)  # no negative zero: bytes are compared
    rows = corners if colors is None else np.concatenate([corners, colors.reshape(-1, 3).astype(np.float32)], 1)
    keys = np.ascontiguousarray(rows).view([("", np.float32)] * rows.shape[1]).reshape(-1)
    _, first, number = np.unique(keys.view(f"V{4 * rows.shape[1]}"), return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))  # in the order of the file, not of their bytes
    unique = rows[np.sort(first)]
    faces = place[number.reshape(-1)].reshape(-1, 3).astype(np.int64)
    return unique[:, :3], faces, None if colors is None else unique[:, 3:]


def _one_texture(parts: list[Part]) -> tuple[np.ndarray, np.ndarray]:
    """The texture (T, U, 3) and the coordinates (F, 3, 2) of all parts."""
    first = parts[0].texture
    shared = all(part.texture is first and _plain(part) for part in parts)
    if shared and first is not None:
        return first, np.concatenate([part.uvs for part in parts if part.uvs is not None])
    tiles: list[np.ndarray] = []
    places: list[tuple[int, np.ndarray]] = []
    known: dict[tuple, int] = {}
    for part in parts:
        factor = np.ones(3) if part.factor is None else part.factor
        if part.texture is not None and part.uvs is not None and part.colors is None:
            uvs, repeats = fold_repeats(part.uvs, UV_SLACK)
            key = (id(part.texture), repeats, tuple(factor))
            if key not in known:
                picture = np.tile(part.texture, (repeats[1], repeats[0], 1))
                known[key] = len(tiles)
                tiles.append(picture if np.allclose(factor, 1) else _tinted(picture, factor))
            places.append((known[key], uvs / np.array(repeats)))
        elif part.texture is None and part.colors is None:
            key = tuple(factor)
            if key not in known:
                known[key] = len(tiles)
                tiles.append(np.broadcast_to(srgb_from_linear(factor), (2, 2, 3)))
            places.append((known[key], np.full((len(part.faces), 3, 2), 0.5)))
        else:
            colors = np.ones((len(part.faces), 3, 3)) if part.colors is None else part.colors
            linear = None if part.texture is None else linear_from_srgb(part.texture)
            baked, uvs = bake_faces(linear, part.uvs, colors * factor)
            places.append((len(tiles), uvs))
            tiles.append(srgb_from_linear(baked))
    atlas, move = pack(tiles)
    return atlas, np.concatenate([uvs * move[tile, 0] + move[tile, 1] for tile, uvs in places])


def _plain(part: Part) -> bool:
    """Whether the texture alone is the part's colour."""
    return part.colors is None and (part.factor is None or np.allclose(part.factor, 1))


def _tinted(texture: np.ndarray, factor: np.ndarray) -> np.ndarray:
    return srgb_from_linear(linear_from_srgb(texture) * factor)
