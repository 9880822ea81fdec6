"""Writing GLB: one mesh, one material, everything in one file (glTF 2.0).

Positions and normals are turned from this project's axes (z-up, front -y) to glTF's (y-up, front +z).
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

from latent3d.io.gltf_reader import CLAMP, FROM_GLTF, REPEAT
from latent3d.io.mesh_parts import UV_SLACK, linear_from_srgb
from latent3d.io.texture_atlas import encode_png
from latent3d.representations.mesh import Mesh

ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, UNSIGNED_INT, FLOAT = 34962, 34963, 5125, 5126


def glb_bytes(mesh: Mesh) -> bytes:
    """A GLB file: texture as PNG, else colours per vertex, else plain; seen from both sides, not metallic.

    A vertex whose faces differ in texture coordinates or normals is written once for each. Without normals viewers
    shade flat, as the format asks.
    """
    columns, faces = _vertices(mesh)
    blob, views, accessors = bytearray(), [], []

    def add(data: bytes, target: int | None = None) -> int:
        blob.extend(b"\0" * (-len(blob) % 4))
        views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": len(data)})
        if target is not None:
            views[-1]["target"] = target
        blob.extend(data)
        return len(views) - 1

    attributes = {}
    for name, values in columns.items():
        view = add(values.astype("<f4").tobytes(), ARRAY_BUFFER)
        accessors.append(
            {"bufferView": view, "componentType": FLOAT, "count": len(values), "type": f"VEC{values.shape[1]}"}
        )
        attributes[name] = len(accessors) - 1
    position = accessors[attributes["POSITION"]]
    exact = columns["POSITION"].astype(np.float32)
    position["min"], position["max"] = exact.min(0).tolist(), exact.max(0).tolist()
    view = add(faces.astype("<u4").tobytes(), ELEMENT_ARRAY_BUFFER)
    accessors.append({"bufferView": view, "componentType": UNSIGNED_INT, "count": faces.size, "type": "SCALAR"})
    material: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "latent3d"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": len(accessors) - 1, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": material, "doubleSided": True}],
    }
    if mesh.texture is not None and mesh.uvs is not None:
        picture = add(encode_png(mesh.texture.detach().cpu().permute(1, 2, 0).numpy()))
        repeats = bool(((mesh.uvs < -UV_SLACK) | (mesh.uvs > 1 + UV_SLACK)).any())
        wrap = REPEAT if repeats else CLAMP
        material["baseColorTexture"] = {"index": 0}
        document["textures"] = [{"source": 0, "sampler": 0}]
        document["samplers"] = [{"wrapS": wrap, "wrapT": wrap, "magFilter": 9729, "minFilter": 9987}]
        document["images"] = [{"bufferView": picture, "mimeType": "image/png"}]
    blob.extend(b"\0" * (-len(blob) % 4))
    document |= {"accessors": accessors, "bufferViews": views, "buffers": [{"byteLength": len(blob)}]}
    text = json.dumps(document, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(blob), 0x004E4942) + bytes(blob)
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def _vertices(mesh: Mesh) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Attributes of the vertices that differ in any of them, and faces (F, 3) that name these."""
    faces = mesh.faces.detach().cpu().numpy()
    corners = {"POSITION": mesh.vertices.detach().cpu().numpy()[faces] @ FROM_GLTF}
    if mesh.normals is not None:
        normals = mesh.normals.detach().cpu().double().numpy() @ FROM_GLTF
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        corners["NORMAL"] = np.where(length > 0, normals / np.maximum(length, 1e-20), [0.0, 1.0, 0.0])
    if mesh.texture is not None and mesh.uvs is not None:
        corners["TEXCOORD_0"] = mesh.uvs.detach().cpu().numpy()
    elif mesh.colors is not None:
        corners["COLOR_0"] = linear_from_srgb(mesh.colors.detach().cpu().clamp(0, 1).numpy())[faces]
    rows = np.concatenate([values.reshape(len(faces) * 3, -1) for values in corners.values()], 1).astype("<f4")
    _, first, number = np.unique(rows.view(f"V{4 * rows.shape[1]}").reshape(-1), return_index=True, return_inverse=True)
    columns, start = {}, 0
    for name, values in corners.items():
        columns[name] = rows[first, start : start + values.shape[-1]]
        start += values.shape[-1]
    return columns, number.reshape(-1, 3)
