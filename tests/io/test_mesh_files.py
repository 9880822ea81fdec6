"""Mesh files: there and back, other people's readers, materials, and real files."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess

import numpy as np
import pytest
import torch
import trimesh

from latent3d.io.mesh_files import read_mesh, write_mesh
from latent3d.io.mesh_parts import Part, assemble, linear_from_srgb, srgb_from_linear
from latent3d.io.texture_atlas import PADDING, pack
from latent3d.representations.mesh import Mesh
from tests.io.mesh_samples import QUAD, SQUARE, SUFFIXES, UV, gltf, looks, picture_file, prism, seen


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["plain", "colored", "textured"])
def test_there_and_back(tmp_path, suffix, kind):
    mesh = prism(kind)
    write_mesh(tmp_path / f"a b{suffix}", mesh)
    back = read_mesh(tmp_path / f"a b{suffix}")
    assert len(back) == len(mesh)
    assert torch.allclose(back.corners(), mesh.corners(), atol=1e-6)
    assert (back.texture is None) == (mesh.texture is None)
    if kind == "colored":
        assert torch.allclose(back.colors[back.faces], mesh.colors[mesh.faces], atol=2e-3)
    if kind == "textured":
        assert torch.equal(back.texture, mesh.texture)
        assert torch.allclose(back.uvs, mesh.uvs, atol=1e-6)
        if suffix != ".ply":
            assert torch.allclose(back.normals, mesh.normals, atol=1e-6)
    assert torch.allclose(looks(back), looks(mesh), atol=5e-3)
    assert {path.suffix for path in tmp_path.iterdir()} <= {suffix, ".mtl", ".png"}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["colored", "textured"])
def test_others_readers_agree(tmp_path, suffix, kind):
    mesh = prism(kind)
    write_mesh(tmp_path / f"m{suffix}", mesh)
    other = trimesh.load(tmp_path / f"m{suffix}", force="mesh", process=False)
    turned = other.vertices[other.faces] @ (
        np.eye(3) if suffix == ".ply" else np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    )
    assert np.allclose(turned, mesh.corners().numpy(), atol=1e-6)
    assert other.volume > 0
    if kind == "textured":
        material = other.visual.material
        image = material.image if hasattr(material, "image") else material.baseColorTexture
        assert np.array_equal(np.asarray(image.convert("RGB")), (mesh.texture * 255).round().permute(1, 2, 0).numpy())
        assert np.allclose(other.visual.uv[other.faces] * [1, -1] + [0, 1], mesh.uvs.numpy(), atol=1e-5)
    elif suffix != ".glb":  # trimesh takes glTF's linear colours as they are
        assert np.allclose(other.visual.vertex_colors[other.faces][..., :3] / 255, mesh.colors[mesh.faces], atol=3e-3)


def test_axes_of_gltf_are_y_up_with_the_front_towards_z(tmp_path):
    write_mesh(tmp_path / "m.glb", prism())
    stored = trimesh.load(tmp_path / "m.glb", force="mesh").vertices
    assert np.allclose(stored[stored[:, 1].argmax()], [0, 0.5, 0])
    assert np.allclose(stored[stored[:, 2].argmax()], [0, 0, 0.4])


@pytest.mark.parametrize("kind", ["plain", "colored", "textured"])
def test_the_public_validator_finds_no_fault(tmp_path, kind):
    """Needs node and its package gltf-validator (npm install -g gltf-validator)."""
    if shutil.which("node") is None:
        pytest.skip("needs node")
    roots = subprocess.run(["npm", "root", "-g"], capture_output=True, text=True, check=False).stdout.strip()
    write_mesh(tmp_path / "m.glb", prism(kind))
    code = (
        "const v = require('gltf-validator');"
        f"v.validateBytes(new Uint8Array(require('fs').readFileSync({str(tmp_path / 'm.glb')!r})))"
        ".then(r => console.log(JSON.stringify(r.issues)))"
    )
    environment = {"NODE_PATH": f"{roots}:{os.environ.get('NODE_PATH', '')}"}
    run = subprocess.run(
        [shutil.which("node"), "-e", code], capture_output=True, text=True, env=environment, check=False
    )
    if "Cannot find module" in run.stderr:
        pytest.skip("needs the node package gltf-validator")
    issues = json.loads(run.stdout)
    assert issues["numErrors"] == issues["numWarnings"] == 0, issues


def test_transforms_of_the_scene_multiply_and_mirrors_keep_the_outside_out(tmp_path):
    nodes = [
        {"children": [1, 2], "scale": [2, 2, 2], "translation": [1, 0, 0]},
        {"mesh": 0, "rotation": [0, 0, math.sin(math.pi / 4), math.cos(math.pi / 4)]},
        {"mesh": 0, "scale": [-1, 1, 1]},
    ]
    normals = np.tile(np.array([[0, 0, 1]], np.float32), (4, 1))
    mesh = {"POSITION": SQUARE, "NORMAL": normals, "indices": QUAD}
    back = read_mesh(gltf(tmp_path, [mesh], [], nodes))
    low, high = back.corners()[:2].amin((0, 1)), back.corners()[:2].amax((0, 1))
    assert torch.allclose(low, torch.tensor([-1.0, 0, 0]), atol=1e-6)
    assert torch.allclose(high, torch.tensor([1.0, 0, 2]), atol=1e-6)
    assert torch.allclose(back.face_normals(), torch.tensor([0.0, -1, 0]).expand(4, 3), atol=1e-6)
    assert torch.allclose(back.normals, torch.tensor([0.0, -1, 0]).expand(4, 3, 3), atol=1e-6)


def test_strips_and_fans_are_the_same_square(tmp_path):
    strip = SQUARE[[0, 1, 3, 2]]
    for mode, points in ((5, strip), (6, SQUARE)):
        back = read_mesh(gltf(tmp_path, [{"POSITION": points, "mode": mode}], []))
        assert torch.allclose(back.face_normals(), torch.tensor([[0.0, -1, 0]] * 2))
        assert (
            float(torch.linalg.cross(*(back.corners()[:, i] - back.corners()[:, 0] for i in (1, 2))).norm(dim=-1).sum())
            == 2
        )


def test_base_colours_of_gltf_are_linear_and_multiply(tmp_path):
    """Vertex colours (normalised bytes) times factor times texture, all in linear light."""
    colors = np.tile(np.array([[255, 127, 255]], np.uint8), (4, 1))
    factor = {"pbrMetallicRoughness": {"baseColorFactor": [0.5, 1, 0.25, 1]}}
    plain = read_mesh(
        gltf(tmp_path, [{"POSITION": SQUARE, "COLOR_0": colors, "indices": QUAD, "material": 0}], [factor])
    )
    expected = srgb_from_linear(np.array([0.5, 127 / 255, 0.25]))
    assert np.allclose(plain.colors, expected, atol=1e-6)
    picture_file(tmp_path, "t.png", (200, 100, 50))
    factor["pbrMetallicRoughness"]["baseColorTexture"] = {"index": 0}
    mesh = {"POSITION": SQUARE, "COLOR_0": colors, "TEXCOORD_0": UV, "indices": QUAD, "material": 0}
    back = read_mesh(gltf(tmp_path, [mesh], [factor], textures=[{"source": 0}], images=[{"uri": "t.png"}]))
    texture = linear_from_srgb(np.array([200, 100, 50]) / 255)
    expected = srgb_from_linear(texture * np.array([0.5, 127 / 255, 0.25]))
    assert np.allclose(seen(back, (0.4, 0, 0.7)), expected, atol=2e-3)


def test_texture_transform_mirror_and_clamp(tmp_path):
    picture_file(tmp_path, "t.png", (255, 0, 0), (0, 0, 255))
    mesh = {"POSITION": SQUARE, "TEXCOORD_0": UV, "indices": QUAD, "material": 0}

    def made(sampler: dict, scale: float, offset: float) -> Mesh:
        move = {"KHR_texture_transform": {"scale": [scale, 1], "offset": [offset, 0]}}
        link = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0, "extensions": move}}}
        more = {"textures": [{"source": 0, "sampler": 0}], "images": [{"uri": "t.png"}], "samplers": [sampler]}
        return read_mesh(gltf(tmp_path, [mesh], [link], **more))

    red, blue = [1.0, 0, 0], [0.0, 0, 1]
    assert seen(made({}, 2, 0), (0.1, 0, 0.5)) == pytest.approx(red, abs=1e-3)
    assert seen(made({}, 2, 0), (0.6, 0, 0.5)) == pytest.approx(red, abs=1e-3)
    assert seen(made({}, 1, 0.5), (0.2, 0, 0.5)) == pytest.approx(blue, abs=1e-3)
    mirrored = made({"wrapS": 33648, "wrapT": 10497}, 2, 0)
    assert seen(mirrored, (0.6, 0, 0.5)) == pytest.approx(blue, abs=1e-3)
    assert seen(mirrored, (0.95, 0, 0.5)) == pytest.approx(red, abs=1e-3)
    assert seen(made({"wrapS": 33071}, 1, 1), (0.6, 0, 0.5)) == pytest.approx(blue, abs=1e-3)


def test_several_materials_of_all_kinds_become_one_picture(tmp_path):
    """Texture, repeating texture, plain factor, colours per vertex: every one looks as it did."""
    picture_file(tmp_path, "a b.png", (255, 0, 0), (0, 255, 0))
    corner = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], np.float32)
    texture = {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}
    plain = {"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 1, 1]}}
    at = [SQUARE + np.array([2 * i, 0, 0], np.float32) for i in range(4)]
    meshes = [
        {"POSITION": at[0], "TEXCOORD_0": UV, "indices": QUAD, "material": 0},
        {"POSITION": at[1], "TEXCOORD_0": UV * 2 - 5, "indices": QUAD, "material": 0},
        {"POSITION": at[2], "indices": QUAD, "material": 1},
        {"POSITION": at[3], "COLOR_0": corner, "indices": QUAD, "material": 2},
    ]
    more = {"textures": [{"source": 0}], "images": [{"uri": "a%20b.png"}]}
    mesh = read_mesh(gltf(tmp_path, meshes, [texture, plain, {}], **more))
    assert mesh.texture is not None
    assert mesh.uvs.min() >= 0
    assert mesh.uvs.max() <= 1
    expected = {
        (0.2, 0.5): [1, 0, 0], (0.8, 0.5): [0, 1, 0], (2.1, 0.5): [1, 0, 0], (2.4, 0.2): [0, 1, 0],
        (2.6, 0.9): [1, 0, 0], (4.5, 0.5): [0, 0, 1], (6.003, 0.003): [1, 0, 0], (6.997, 0.003): [0, 1, 0],
        (6.997, 0.996): [0, 0, 1],
    }  # fmt: skip
    for (x, z), color in expected.items():
        assert seen(mesh, (x, 0, z)) == pytest.approx(color, abs=0.07), (x, z)


def test_points_lines_and_invisible_parts_are_left_out(tmp_path):
    glass = {"alphaMode": "BLEND", "pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0]}}
    meshes = [{"POSITION": SQUARE, "indices": QUAD}, {"POSITION": SQUARE, "mode": 1},
              {"POSITION": SQUARE, "indices": QUAD, "material": 0}]  # fmt: skip
    assert len(read_mesh(gltf(tmp_path, meshes, [glass]))) == 2
    with pytest.raises(ValueError, match=r"made\.gltf.*no faces"):
        read_mesh(gltf(tmp_path, meshes[1:], [glass]))


def test_obj_statements(tmp_path):
    """A fan of a square, numbers from the end, colours per vertex, continued lines, comments."""
    (tmp_path / "m.obj").write_text(
        "# made by hand\nv 0 0 0 1 0 0\nv 1 0 0 1 0 0\nv 1 1 0 \\\n 0 0 1\nv 0 1 0 0 0 1 # last\nf -4 -3 -2 -1\n"
    )
    mesh = read_mesh(tmp_path / "m.obj")
    assert len(mesh) == 2
    assert torch.allclose(mesh.face_normals(), torch.tensor([[0.0, -1, 0]] * 2))
    assert seen(mesh, (0.5, 0, 0.002)) == pytest.approx([1, 0, 0], abs=0.05)


def test_obj_texture_statements_with_options_and_spaces(tmp_path):
    picture_file(tmp_path, "my picture.png", (255, 0, 0), (0, 0, 255))
    (tmp_path / "two words.mtl").write_text(
        "newmtl one two\nKd 0.1 0.1 0.1\nmap_Kd -s 1 1 -bm 0.5 folder\\my picture.png\n"
    )
    (tmp_path / "m.obj").write_text(
        "mtllib two words.mtl\nusemtl one two\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
        "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nf 1/1 2/2 3/3 4/4\n"
    )
    mesh = read_mesh(tmp_path / "m.obj")
    assert seen(mesh, (0.2, 0, 0.5)) == pytest.approx([1, 0, 0], abs=1e-3)
    assert seen(mesh, (0.8, 0, 0.5)) == pytest.approx([0, 0, 1], abs=1e-3)


@pytest.mark.parametrize("suffix", [".stl", ".off", ".ply"])
def test_plain_formats_keep_their_axes(tmp_path, suffix):
    box = trimesh.creation.box(extents=(1, 2, 3))
    box.export(tmp_path / f"b{suffix}")
    mesh = read_mesh(tmp_path / f"b{suffix}")
    low, high = mesh.bounds()
    assert len(mesh) == 12
    assert mesh.vertices.shape == (8, 3)
    assert torch.allclose(high - low, torch.tensor([1.0, 2, 3]))


def test_packing_keeps_every_picture_and_its_border():
    g = np.random.default_rng(0)
    tiles = [g.random((rows, columns, 3), np.float32) for rows, columns in [(5, 9), (1, 1), (30, 3), (8, 8)]]
    atlas, move = pack(tiles)
    for tile, (scale, shift) in zip(tiles, move, strict=True):
        left, top = np.round(shift * [atlas.shape[1], atlas.shape[0]]).astype(int)
        width, height = np.round(scale * [atlas.shape[1], atlas.shape[0]]).astype(int)
        assert np.array_equal(atlas[top : top + height, left : left + width], tile)
        assert np.array_equal(atlas[top - PADDING : top, left], np.repeat(tile[:1, 0], PADDING, 0))


def test_colour_curves_are_inverse():
    values = np.linspace(0, 1, 257)
    assert np.allclose(srgb_from_linear(linear_from_srgb(values)), values, atol=1e-7)
    assert linear_from_srgb(np.array(0.5)) == pytest.approx(0.21404114)


def test_faces_without_extent_go():
    part = Part(SQUARE.astype(float), np.array([[0, 1, 2], [1, 1, 2]]))
    assert len(assemble([part])) == 1


@pytest.mark.parametrize(
    ("name", "faces"),
    [
        ("mesh_avocado/avocado.gltf", 682), ("mesh_avocado/avocado.obj", 682), ("mesh_pizza/pizza.obj", 960),
        ("mesh_fuze_bottle/fuze.obj", 1000), ("mesh_fuze_bottle/BoxTextured.glb", 12),
    ],
)  # fmt: skip
def test_real_files(shared_data, name, faces):
    mesh = read_mesh(shared_data(name)).fitted(0.45)
    assert len(mesh) == faces
    assert mesh.texture is not None
    pictures = looks(mesh)
    assert (pictures.std((2, 3)) > 0.02).all()


def test_two_formats_of_one_object_look_the_same(shared_data):
    first, second = (
        read_mesh(shared_data(f"mesh_avocado/avocado.{suffix}")).fitted(0.45) for suffix in ("gltf", "obj")
    )
    assert (looks(first) - looks(second)).abs().mean() < 2e-3


def test_all_meshes_of_the_pack_load(shared_data):
    paths = sorted(shared_data("meshes_kaykit_dungeon").glob("*.glb"))
    assert len(paths) == 129
    for path in paths[::8]:
        mesh = read_mesh(path)
        theirs = trimesh.load(path, force="mesh")
        low, high = mesh.bounds()
        assert abs(len(mesh) - len(theirs.faces)) <= 0.05 * len(mesh)  # faces without area are dropped
        assert np.allclose(high - low, theirs.extents[[0, 2, 1]], atol=1e-5)
        # Up in the file is up here, and its front is towards -y.
        assert low[2] == pytest.approx(theirs.bounds[0, 1], abs=1e-5)
        assert low[1] == pytest.approx(-theirs.bounds[1, 2], abs=1e-5)
