"""Mesh files that are missing, unsupported or damaged: refused by name, and nothing half-written."""

from __future__ import annotations

import base64
import json
import struct

import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from latent3d.io.gltf_writer import glb_bytes
from latent3d.io.mesh_files import read_mesh, write_mesh
from latent3d.representations.mesh import Mesh
from tests.io.mesh_samples import QUAD, SQUARE, SUFFIXES, UV, gltf, prism


def test_missing_files_are_named(tmp_path):
    mesh = {"POSITION": SQUARE, "TEXCOORD_0": UV, "indices": QUAD, "material": 0}
    link = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}
    path = gltf(tmp_path, [mesh], [link], textures=[{"source": 0}], images=[{"uri": "gone%20here.png"}])
    with pytest.raises(ValueError, match=r"made\.gltf.*texture 'gone here\.png' is missing"):
        read_mesh(path)
    (tmp_path / "m.obj").write_text("mtllib gone.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nf 1 2 3\n")
    with pytest.raises(ValueError, match=r"m\.obj.*material library 'gone\.mtl' is missing"):
        read_mesh(tmp_path / "m.obj")
    with pytest.raises(FileNotFoundError, match=r"none\.glb"):
        read_mesh(tmp_path / "none.glb")
    (tmp_path / "m.fbx").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"m\.fbx.*give one of \.glb"):
        read_mesh(tmp_path / "m.fbx")


def test_compressed_files_are_refused_by_name(tmp_path):
    path = gltf(tmp_path, [{"POSITION": SQUARE}], [], extensionsRequired=["KHR_draco_mesh_compression"])
    with pytest.raises(ValueError, match="KHR_draco_mesh_compression"):
        read_mesh(path)


def test_scenes_in_a_circle_are_refused(tmp_path):
    nodes = [{"children": [1]}, {"children": [0], "mesh": 0}]
    with pytest.raises(ValueError, match="circle"):
        read_mesh(gltf(tmp_path, [{"POSITION": SQUARE, "indices": QUAD}], [], nodes))


def test_nothing_is_written_of_a_broken_mesh(tmp_path):
    broken = Mesh(vertices=torch.full((3, 3), torch.nan), faces=torch.tensor([[0, 1, 2]]))
    empty = Mesh(vertices=torch.zeros(0, 3), faces=torch.zeros(0, 3, dtype=torch.long))
    for suffix in SUFFIXES:
        with pytest.raises(ValueError, match="not finite"):
            write_mesh(tmp_path / f"m{suffix}", broken)
        with pytest.raises(ValueError, match="no faces"):
            write_mesh(tmp_path / f"m{suffix}", empty)
    with pytest.raises(ValueError, match=r"choose one of \.glb"):
        write_mesh(tmp_path / "m.fbx", prism())
    assert not list(tmp_path.iterdir())


def _files() -> dict[str, bytes]:
    """One healthy file of each kind."""
    import tempfile
    from pathlib import Path

    found = {".glb": glb_bytes(prism("textured"))}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for suffix in (".obj", ".ply"):
            write_mesh(folder / f"m{suffix}", prism("colored"))
            text = (folder / f"m{suffix}").read_bytes()
            found[suffix] = text.replace(b"mtllib m.mtl", b"").replace(b"usemtl surface", b"")
        for suffix in (".stl", ".off"):
            trimesh.creation.box().export(folder / f"m{suffix}")
            found[suffix] = (folder / f"m{suffix}").read_bytes()
    glb = found[".glb"]
    length = struct.unpack_from("<I", glb, 12)[0]
    text = json.loads(glb[20 : 20 + length])
    data = base64.b64encode(glb[28 + length :]).decode()
    text["buffers"][0]["uri"] = f"data:application/octet-stream;base64,{data}"
    return found | {".gltf": json.dumps(text).encode()}


FILES = _files()


@settings(max_examples=200)
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=4)), max_size=4),
    st.one_of(st.none(), st.floats(0, 1)),
)
def test_damaged_files_are_refused_by_name_or_read(tmp_path_factory, suffix, changes, cut):
    data = bytearray(FILES[suffix])
    for place, values in changes:
        start = int(place * len(data))
        data[start : start + len(values)] = values
    if cut is not None:
        data = data[: int(cut * len(data))]
    path = tmp_path_factory.getbasetemp() / f"damaged file{suffix}"
    path.write_bytes(data)
    message, mesh = str(path), None
    try:
        mesh = read_mesh(path)
    except ValueError as error:
        message = str(error)
    assert str(path) in message
    if mesh is not None:
        assert torch.isfinite(mesh.vertices).all()
        assert mesh.faces.max() < len(mesh.vertices)


@pytest.mark.parametrize("suffix", sorted(FILES))
def test_the_files_for_damage_are_healthy(tmp_path, suffix):
    (tmp_path / f"m{suffix}").write_bytes(FILES[suffix])
    assert len(read_mesh(tmp_path / f"m{suffix}")) in (4, 12)
