"""Reading glTF 2.0 (.gltf with its files, .glb): geometry, materials' base colours and the scene's transforms.

glTF is y-up with the front towards +z; positions and normals are turned to this project's axes, z-up with the front
towards -y: (x, y, z) -> (x, -z, y). Base colour only: metalness, roughness, emission, normal maps, transparency, skins,
morph targets and cameras are left out; a part whose base colour is fully transparent is dropped. Understood extensions:
KHR_texture_transform, KHR_mesh_quantization, KHR_materials_unlit, KHR_materials_pbrSpecularGlossiness (its diffuse
colour), EXT_texture_webp.
"""

from __future__ import annotations

import base64
import json
import math
import struct
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np

from latent3d.io.mesh_parts import MeshFileError, Part
from latent3d.io.texture_atlas import decode_texture

FROM_GLTF = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""Turns glTF's axes into this project's."""
TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
COMPRESSIONS = ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression")
TRIANGLES, STRIP, FAN = 4, 5, 6
REPEAT, MIRROR, CLAMP = 10497, 33648, 33071
MAX_DEPTH = 256
"""Scene graphs deeper than this are taken for loops."""
MAX_COUNT = 2**26
"""An accessor without data promises at most this many entries."""


def read_gltf(path: Path) -> list[Part]:
    """The parts of the file's scene.

    Raises:
        MeshFileError: for what the user can mend. Damaged files surface as almost any error.
    """
    return _Document(path).parts()


class _Document:
    """The JSON of a file, with what it points to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        data = path.read_bytes()
        self.binary = b""
        if data[:4] == b"glTF":
            data, self.binary = _chunks(data)
        self.json: dict[str, Any] = json.loads(data.decode("utf-8-sig"))
        version = str(self.json["asset"]["version"])
        if not version.startswith("2."):
            raise MeshFileError(f"it is glTF {version}, and only glTF 2 is read; export it again")
        needed = self.json.get("extensionsRequired", [])
        packed = [name for name in needed if name in COMPRESSIONS or name == "KHR_texture_basisu"]
        if packed:
            raise MeshFileError(f"it is compressed with {packed[0]}, which is not read; export it without compression")
        self._buffers: dict[int, bytes] = {}
        self._textures: dict[tuple[int, bool, bool], np.ndarray] = {}

    def parts(self) -> list[Part]:
        nodes = self.json.get("nodes", [])
        scenes = self.json.get("scenes", [])
        if scenes:
            roots = scenes[self.json.get("scene", 0)].get("nodes", [])
        else:
            children = {child for node in nodes for child in node.get("children", [])}
            roots = [number for number in range(len(nodes)) if number not in children]
        found: list[Part] = []
        stack = [(number, np.eye(4), 0) for number in reversed(roots)]
        while stack:
            number, outer, depth = stack.pop()
            if depth > MAX_DEPTH:
                raise MeshFileError("its scene graph runs in a circle")
            node = nodes[number]
            matrix = outer @ _matrix(node)
            stack += [(child, matrix, depth + 1) for child in reversed(node.get("children", []))]
            if "mesh" in node:
                for primitive in self.json["meshes"][node["mesh"]]["primitives"]:
                    found += self._part(primitive, matrix)
        return found

    def _part(self, primitive: dict, matrix: np.ndarray) -> list[Part]:
        """A primitive in world axes; none for points, lines and what is fully transparent."""
        packed = [name for name in primitive.get("extensions", {}) if name in COMPRESSIONS]
        if packed and "POSITION" not in primitive["attributes"]:
            raise MeshFileError(f"it is compressed with {packed[0]}, which is not read; export it without compression")
        material = self._material(primitive.get("material"))
        if primitive.get("mode", TRIANGLES) not in (TRIANGLES, STRIP, FAN) or material is None:
            return []
        attributes = {name: self.accessor(number) for name, number in primitive["attributes"].items() if name[0] != "_"}
        points = attributes["POSITION"]
        order = self.accessor(primitive["indices"]).reshape(-1) if "indices" in primitive else np.arange(len(points))
        faces = _faces(order.astype(np.int64), primitive.get("mode", TRIANGLES))
        if len(faces) and faces.max() >= len(points):
            raise MeshFileError(f"a face names a vertex outside the {len(points)} there are")
        turn = FROM_GLTF @ matrix[:3, :3]
        if np.linalg.det(turn) < 0:
            faces = faces[:, ::-1]
        normals = attributes.get("NORMAL")
        if normals is not None:
            normals = _unit(normals @ _cofactors(turn).T)[faces]
        colors = attributes.get("COLOR_0")
        factor, texture, coordinates, place = material
        uvs = attributes.get(f"TEXCOORD_{coordinates}")
        part = Part(
            vertices=points @ turn.T + FROM_GLTF @ matrix[:3, 3],
            faces=faces,
            uvs=None if uvs is None or texture is None else place(uvs)[faces],
            normals=normals,
            colors=None if colors is None or np.allclose(colors[:, :3], 1) else colors[:, :3][faces],
            factor=factor,
            texture=texture,
        )
        return [part]

    def _material(self, number: int | None):
        """Linear factor, texture, number of its coordinates and what takes these to the texture; None if invisible."""
        if number is None:
            return None, None, 0, lambda uvs: uvs
        material = self.json["materials"][number]
        glossy = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness")
        if glossy is not None:
            values, link = glossy.get("diffuseFactor"), glossy.get("diffuseTexture")
        else:
            metallic = material.get("pbrMetallicRoughness", {})
            values, link = metallic.get("baseColorFactor"), metallic.get("baseColorTexture")
        if material.get("alphaMode") == "BLEND" and values and values[3] == 0:
            return None
        factor = None if values is None else np.array(values[:3], np.float64)
        if link is None:
            return factor, None, 0, lambda uvs: uvs
        move = link.get("extensions", {}).get("KHR_texture_transform", {})
        texture, repeat = self._texture(link["index"])
        coordinates = move.get("texCoord", link.get("texCoord", 0))

        def place(uvs: np.ndarray) -> np.ndarray:
            angle = move.get("rotation", 0.0)
            cos, sin = math.cos(angle), math.sin(angle)
            scaled = uvs * np.array(move.get("scale", [1, 1]))
            return repeat(scaled @ np.array([[cos, -sin], [sin, cos]]) + np.array(move.get("offset", [0, 0])))

        return factor, texture, coordinates, place

    def _texture(self, number: int):
        """The picture (T, U, 3), mirrored beside itself where it is to repeat so, and what its wrapping does to uvs."""
        texture = self.json["textures"][number]
        extensions = texture.get("extensions", {})
        source = texture.get("source", extensions.get("EXT_texture_webp", {}).get("source"))
        if source is None:
            name = next(iter(extensions), "no format")
            raise MeshFileError(f"a texture is stored as {name}, which is not read; export it as PNG or JPEG")
        sampler = self.json["samplers"][texture["sampler"]] if "sampler" in texture else {}
        wraps = [sampler.get("wrapS", REPEAT), sampler.get("wrapT", REPEAT)]
        mirrors = (wraps[0] == MIRROR, wraps[1] == MIRROR)
        clamps = np.array(wraps) == CLAMP
        key = (source, *mirrors)
        if key not in self._textures:
            picture = self._image(source)
            picture = np.concatenate([picture, picture[:, ::-1]], 1) if mirrors[0] else picture
            self._textures[key] = np.concatenate([picture, picture[::-1]], 0) if mirrors[1] else picture
        shrink = np.where(mirrors, 0.5, 1.0)
        return self._textures[key], lambda uvs: np.where(clamps, np.clip(uvs, 0, 1), uvs) * shrink

    def _image(self, number: int) -> np.ndarray:
        image = self.json["images"][number]
        if "bufferView" in image:
            name, data = f"the texture {number} inside it", self._view(image["bufferView"])
        else:
            name, data = f"its texture '{image['uri'][:80]}'", self._resource(image["uri"], "texture")
        try:
            return decode_texture(data)
        except ValueError as error:
            raise MeshFileError(f"{name} cannot be used: {error}") from error

    def _resource(self, uri: str, kind: str) -> bytes:
        """What a relative address or a data address holds."""
        if uri.startswith("data:"):
            return base64.b64decode(uri.split(",", 1)[1], validate=True)
        return find_beside(self.path, urllib.parse.unquote(uri), kind).read_bytes()

    def _view(self, number: int) -> bytes:
        view = self.json["bufferViews"][number]
        buffer, offset = view["buffer"], view.get("byteOffset", 0)
        if buffer not in self._buffers:
            entry = self.json["buffers"][buffer]
            self._buffers[buffer] = self._resource(entry["uri"], "buffer") if "uri" in entry else self.binary
        data = self._buffers[buffer][offset : offset + view["byteLength"]]
        if offset < 0 or len(data) < view["byteLength"]:
            raise MeshFileError("it is cut short: data it points to are not there")
        return data

    def accessor(self, number: int) -> np.ndarray:
        """Values (count, width): float64, normalised integers brought to [0, 1] or [-1, 1]; indices as integers."""
        accessor = self.json["accessors"][number]
        width, kind = WIDTHS[accessor["type"]], np.dtype(TYPES[accessor["componentType"]])
        values = self._entries(accessor, accessor["count"], width, kind)
        sparse = accessor.get("sparse")
        if sparse:
            count, where = sparse["count"], sparse["indices"]
            values = values.copy()
            places = self._entries(where, count, 1, np.dtype(TYPES[where["componentType"]]))[:, 0]
            values[places] = self._entries(sparse["values"], count, width, kind)
        if accessor.get("normalized"):
            return np.maximum(values / np.iinfo(kind).max, -1.0)
        return values.astype(np.float64) if width > 1 else values

    def _entries(self, source: dict, count: int, width: int, kind: np.dtype) -> np.ndarray:
        if not 0 <= count <= MAX_COUNT:
            raise MeshFileError(f"it promises {count} entries of one kind; that cannot be right")
        if "bufferView" not in source:
            return np.zeros((count, width), kind)
        data, start = self._view(source["bufferView"]), source.get("byteOffset", 0)
        size = width * kind.itemsize
        stride = self.json["bufferViews"][source["bufferView"]].get("byteStride", size)
        if count and (start < 0 or stride < size or start + (count - 1) * stride + size > len(data)):
            raise MeshFileError("it is cut short: data it points to are not there")
        return np.ndarray((count, width), kind, data, start, (stride, kind.itemsize)) if count else np.zeros((0, width))


def find_beside(path: Path, name: str, kind: str) -> Path:
    """The file that ``path`` calls ``name``: relative to it, else of that last name beside it.

    Raises:
        MeshFileError: naming the missing file.
    """
    if "://" in name:
        raise MeshFileError(f"its {kind} '{name[:120]}' is on the network; download it and put it beside the file")
    relative = Path(name.strip().replace("\\", "/"))
    for candidate in (path.parent / relative, path.parent / relative.name):
        if relative.name and candidate.is_file():
            return candidate
    raise MeshFileError(f"its {kind} '{name[:120]}' is missing; put that file beside it")


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    """JSON and binary chunk of a GLB container."""
    _, version, length = struct.unpack_from("<4sII", data)
    if version != 2:
        raise MeshFileError(f"it is GLB version {version}, and only version 2 is read; export it again")
    if length > len(data):
        raise MeshFileError(f"it is cut short: {length} bytes are promised and {len(data)} are there")
    found: dict[int, bytes] = {}
    place = 12
    while place + 8 <= length:
        size, kind = struct.unpack_from("<II", data, place)
        found.setdefault(kind, data[place + 8 : place + 8 + size])
        place += 8 + size
    return found[0x4E4F534A], found.get(0x004E4942, b"")


def _matrix(node: dict) -> np.ndarray:
    """Transform of a node: its matrix (stored by columns) or translation * rotation (x, y, z, w) * scale."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    x, y, z, w = np.array(node.get("rotation", [0, 0, 0, 1]), np.float64)
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.array(node.get("scale", [1, 1, 1]), np.float64)
    matrix[:3, 3] = node.get("translation", [0, 0, 0])
    return matrix


def _faces(order: np.ndarray, mode: int) -> np.ndarray:
    """Vertex numbers of triangles (F, 3) from a list, a strip (every second one turned over) or a fan."""
    if mode == TRIANGLES:
        return order[: len(order) // 3 * 3].reshape(-1, 3)
    if len(order) < 3:
        return np.zeros((0, 3), np.int64)
    if mode == FAN:
        return np.stack([np.full(len(order) - 2, order[0]), order[1:-1], order[2:]], -1)
    faces = np.stack([order[:-2], order[1:-1], order[2:]], -1)
    faces[1::2] = faces[1::2, [1, 0, 2]]
    return faces


def _cofactors(matrix: np.ndarray) -> np.ndarray:
    """det(M) M^-T, which takes normals along with a transform, whether it can be inverted or not."""
    a, b, c = matrix
    return np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)]) * (-1 if np.linalg.det(matrix) < 0 else 1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-20)
