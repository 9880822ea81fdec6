"""Readers of single objects: real samples, and every layout written by hand and read back."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from data.tiny_objects import box
from latent3d.data.captures.exr import read_exr
from latent3d.data.captures.reading import read_capture
from latent3d.data.objects import extent, moved, object_of, read_faces, read_object, read_objects, upright
from latent3d.geometry.cameras import Cameras, invert_rigid
from latent3d.geometry.object_cameras import sphere, upper_hemisphere
from latent3d.geometry.rays import unproject
from latent3d.geometry.rotations import look_at
from latent3d.io.camera_files import write_cameras
from latent3d.io.object_pictures import DEPTH_UNIT, read_normals, write_object_pictures
from latent3d.rendering.meshes import render_mesh

SIDES = (0.9, 0.5, 0.7)


@pytest.fixture(scope="module")
def views():
    """A box that fills the unit box along x, seen from all around."""
    return render_mesh(box(SIDES), sphere(6, 1, 2.3, size=48))


def save_rgba(path, views, number, alpha=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    cover = views.alphas[number].movedim(0, -1).numpy()
    own = 1 - (1 - views.images[number].movedim(0, -1).numpy()) / np.maximum(cover, 1e-6)
    rgba = np.rint(np.concatenate([own * (cover > 0), cover], -1) * 255).clip(0, 255).astype(np.uint8)
    Image.fromarray(rgba if alpha else np.ascontiguousarray(rgba[..., :3])).save(path)


def save_exr(path, **channels):
    """Uncompressed scan lines, half floats, channels by name."""
    names = sorted(channels)
    height, width = channels[names[0]].shape
    listed = b"".join(name.encode() + b"\0" + struct.pack("<iiii", 1, 0, 1, 1) for name in names) + b"\0"
    box_ = struct.pack("<4i", 0, 0, width - 1, height - 1)
    header = b"".join(
        name + b"\0" + kind + b"\0" + struct.pack("<i", len(data)) + data
        for name, kind, data in (
            (b"channels", b"chlist", listed),
            (b"compression", b"compression", b"\0"),
            (b"dataWindow", b"box2i", box_),
            (b"displayWindow", b"box2i", box_),
            (b"lineOrder", b"lineOrder", b"\0"),
            (b"pixelAspectRatio", b"float", struct.pack("<f", 1)),
            (b"screenWindowCenter", b"v2f", struct.pack("<ff", 0, 0)),
            (b"screenWindowWidth", b"float", struct.pack("<f", 1)),
        )
    )
    head = b"\x76\x2f\x31\x01" + struct.pack("<i", 2) + header + b"\0"
    lines = [b"".join(np.asarray(channels[name][y], "<f2").tobytes() for name in names) for y in range(height)]
    start, chunks, table = len(head) + 8 * height, b"", b""
    for y, line in enumerate(lines):
        table += struct.pack("<Q", start + len(chunks))
        chunks += struct.pack("<ii", y, len(line)) + line
    path.write_bytes(head + table + chunks)


def shapenet(folder, views, *, depth=True, alpha=True):
    for number in range(len(views)):
        save_rgba(folder / "rgb" / f"{number:06d}.png", views, number, alpha)
        (folder / "pose").mkdir(exist_ok=True)
        values = " ".join(f"{value:.8f}" for value in views.cameras.c2w[number].flatten().tolist())
        (folder / "pose" / f"{number:06d}.txt").write_text(values + "\n")
        if depth:
            far = torch.where(views.depths[number, 0] > 0, views.depths[number, 0], torch.tensor(65504.0))
            save_exr(folder / "rgb" / f"{number:06d}_depth0001.exr", V=far.numpy())
    return folder


def test_the_exr_writer_of_these_tests_is_right(tmp_path):
    values = np.arange(12, dtype=np.float16).reshape(3, 4)
    save_exr(tmp_path / "a.exr", V=values, A=values + 20)
    found = read_exr(tmp_path / "a.exr")
    assert (found["V"] == values).all()
    assert (found["A"] == values + 20).all()


def test_our_own_pictures_come_back(views, tmp_path):
    write_object_pictures(tmp_path, views)
    found = read_object(tmp_path, 48, fit=False)
    assert found.notes == ()
    assert found.frames == tuple(f"rgba/{number:03d}.png" for number in range(6))
    assert (found.views.alphas - views.alphas).abs().max() <= 0.5 / 255 + 1e-6
    assert (found.views.images - views.images).abs().max() < 2.5 / 255
    torch.testing.assert_close(found.views.cameras.w2c, views.cameras.w2c, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.views.cameras.k, views.cameras.k)
    assert (found.views.depths - views.depths).abs().max() <= DEPTH_UNIT
    assert (found.views.normals - views.normals).abs().max() < 0.01
    stored = np.asarray(Image.open(tmp_path / "depth" / "000.png"))
    assert stored.dtype == np.uint16
    frame = json.loads((tmp_path / "cameras.json").read_text())["frames"][0]
    assert (frame["depth"], frame["normal"]) == ("depth/000.png", "normal/000.png")
    with pytest.raises(ValueError, match="alphas, depths and normals"):
        write_object_pictures(tmp_path / "x", replace(views, normals=None))
    with pytest.raises(ValueError, match="more than the 6"):
        write_object_pictures(tmp_path / "x", replace(views, depths=views.depths * 4))
    with pytest.raises(FileNotFoundError, match="no picture of normals"):
        read_normals(tmp_path / "normal" / "999.png")
    with pytest.raises(ValueError, match="8 bits"):
        read_normals(tmp_path / "depth" / "000.png")


def test_an_object_anywhere_in_any_size_comes_back_to_the_box(views, tmp_path):
    """Moved, enlarged and with +y up in the files: +z up and filling the box when read."""
    y_up = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    elsewhere = moved(views, turn=y_up, centre=torch.tensor([0.4, -0.8, 0.2]), scale=2.0)
    shapenet(tmp_path, replace(elsewhere, cameras=at_shapenet_focal(elsewhere.cameras)))
    raw = read_object(tmp_path, 48, fit=False)
    torch.testing.assert_close(raw.views.cameras.w2c, elsewhere.cameras.w2c, rtol=0, atol=1e-5)
    found = read_object(tmp_path, 48)
    assert "The object was turned so that +z is up." in found.notes
    low, high = extent(found.views)
    torch.testing.assert_close(-low, high, rtol=0, atol=0.01)
    assert float((high - low).max()) == pytest.approx(0.9, abs=1e-4)


def at_shapenet_focal(cameras):
    k = cameras.k.clone()
    k[..., 0, 0] = k[..., 1, 1] = 525 / 512 * cameras.width
    return replace(cameras, k=k)


def test_shapenet_renderings(tmp_path):
    cameras = at_shapenet_focal(upper_hemisphere(5, 2, 1.9, size=48))
    views = render_mesh(box(SIDES), cameras)
    shapenet(tmp_path, views)
    capture = read_capture(tmp_path)
    assert capture.layout == "shapenet"
    found = read_object(tmp_path, 48)
    assert len(found.views) == 5
    torch.testing.assert_close(found.views.cameras.k, cameras.k, rtol=0, atol=1e-4)
    low, high = extent(found.views)
    torch.testing.assert_close(high - low, torch.tensor(SIDES), rtol=0, atol=0.05)
    torch.testing.assert_close(found.views.cameras.centers, cameras.centers, rtol=0.06, atol=0.03)
    inside = found.views.depths > 0
    assert (found.views.alphas[inside] > 0).all()
    (tmp_path / "intrinsics.txt").write_text("262.5 128 128 0.\n0. 0. 0.\n1.\n256 256\n")
    torch.testing.assert_close(read_object(tmp_path, 48).views.cameras.k, cameras.k, rtol=0, atol=1e-4)
    (tmp_path / "intrinsics.txt").write_text("262.5\n")
    with pytest.raises(ValueError, match="must begin with a focal length"):
        read_object(tmp_path, 48)


def test_without_depth_the_outlines_tell_the_extent(tmp_path):
    views = render_mesh(box(SIDES), at_shapenet_focal(sphere(16, 5, 2.6, size=48)))
    shapenet(tmp_path, moved(views, centre=torch.tensor([1.0, 2.0, -1.0]), scale=1.7), depth=False)
    found = read_object(tmp_path, 48)
    assert found.views.depths is None
    low, high = extent(found.views)
    torch.testing.assert_close(-low, high, rtol=0, atol=0.03)
    distance = found.views.cameras.centers.norm(dim=-1)  # a hull holds its object, so that it ends up a little small
    assert (distance < 2.65).all()
    assert (distance > 2.2).all()


def test_thin_things_have_an_extent_too(tmp_path):
    views = render_mesh(box((0.9, 0.3, 0.01)), at_shapenet_focal(sphere(12, 5, 2.3, size=96)))
    low, high = extent(replace(views, depths=None))
    assert 0.88 < float((high - low)[0]) < 0.98
    assert float((high - low)[2]) < 0.2


def test_masks_in_a_folder_of_their_own(tmp_path):
    views = render_mesh(box(SIDES), at_shapenet_focal(sphere(4, 5, 2.0, size=48)))
    shapenet(tmp_path, views, depth=False, alpha=False)
    with pytest.raises(ValueError, match="background is not known: it has neither alpha, nor a mask, nor depth"):
        read_object(tmp_path, 48)
    assert read_object(tmp_path, 48, masked=False).views.alphas is None
    (tmp_path / "mask").mkdir()
    for number in range(4):
        mask = (views.alphas[number, 0].numpy() * 255).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / "mask" / f"{number:06d}.png")
    found = read_object(tmp_path, 48, fit=False)
    torch.testing.assert_close(found.views.alphas, views.alphas, rtol=0, atol=0.01)
    assert (found.views.images - views.images)[views.alphas.expand_as(views.images) > 0.99].abs().max() < 0.01
    assert (found.views.images[(views.alphas == 0).expand_as(views.images)] == 1).all()


def test_empty_and_broken_views_are_left_out_with_a_sentence(tmp_path):
    views = render_mesh(box(SIDES), at_shapenet_focal(sphere(5, 5, 2.0, size=48)))
    shapenet(tmp_path, views)
    Image.fromarray(np.zeros((48, 48, 4), np.uint8)).save(tmp_path / "rgb" / "000000.png")
    save_exr(tmp_path / "rgb" / "000001_depth0001.exr", V=np.full((48, 48), 65504.0))
    (tmp_path / "rgb" / "000002_depth0001.exr").unlink()
    (tmp_path / "pose" / "000003.txt").write_text("1 2 3")
    found = read_object(tmp_path, 48)
    assert found.frames == ("000004",)
    for words in (
        "000000: nothing of the object is to be seen: its mask is empty (view left out)",
        "000001: its depth is empty (view left out)",
        "000002: its depth is missing (view left out)",
    ):
        assert words in found.notes
    assert any(note.startswith("000003: the pose must be") for note in found.notes)
    (tmp_path / "rgb" / "000004.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="no usable view of an object"):
        read_object(tmp_path, 48)


def test_a_folder_of_objects_gives_those_that_can_be_read(tmp_path):
    views = render_mesh(box(SIDES), at_shapenet_focal(sphere(3, 5, 2.0, size=48)))
    for name in ("a", "b", "c"):
        shapenet(tmp_path / name, views)
    for path in (tmp_path / "b" / "rgb").glob("*.png"):
        Image.fromarray(np.zeros((48, 48, 4), np.uint8)).save(path)
    heard = []
    assert [found.name for found in read_objects([tmp_path], 48, say=heard.append)] == ["a", "c"]
    assert len(heard) == 1
    assert heard[0].startswith("left out: ")
    assert "mask is empty" in heard[0]


def test_outlines_that_do_not_meet_are_refused(tmp_path):
    views = render_mesh(box(SIDES), at_shapenet_focal(sphere(4, 5, 2.0, size=48)))
    alphas = torch.zeros_like(views.alphas)
    for number, (y, x) in enumerate(((2, 2), (40, 40), (2, 40), (40, 2))):
        alphas[number, :, y : y + 4, x : x + 4] = 1
    shapenet(tmp_path, replace(views, alphas=alphas), depth=False)
    with pytest.raises(ValueError, match="outlines of its views do not meet"):
        read_object(tmp_path, 48)


def test_faces_in_the_layout_of_eg3d(tmp_path):
    """The camera in front (+z, y up) becomes one at -y with z up; pixels and distance stay."""
    eyes = torch.tensor([[0.0, 0.0, 2.7], [1.35, 0.4, 2.3]])
    c2w = look_at(eyes, torch.zeros(2, 3), torch.tensor([[0.0, 1.0, 0.0]]).expand(2, 3))
    focal = 4.2647
    labels = []
    for number in range(2):
        save = tmp_path / "00000" / f"img{number:08d}.png"
        save.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), 40 + number, np.uint8)).save(save)
        values = [*c2w[number].flatten().tolist(), focal, 0, 0.5, 0, focal, 0.5, 0, 0, 1]
        labels.append([f"00000/{save.name}", values])
    labels += [["00000/gone.png", labels[0][1]], ["00000/img00000000.png", [1.0] * 7]]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    heard = []
    found = list(read_faces(tmp_path, 32, say=heard.append))
    assert [face.name for face in found] == ["00000/img00000000.png", "00000/img00000001.png"]
    assert len(heard) == 2
    front = found[0].views
    assert front.alphas is None
    torch.testing.assert_close(front.cameras.centers, torch.tensor([[0.0, -2.7, 0.0]]), rtol=0, atol=1e-5)
    torch.testing.assert_close(front.cameras.k[0, 0], torch.tensor([focal * 32, 0, 16.0]))
    pixel, _ = front.cameras.project(torch.tensor([[[0.0, 0.0, 0.3]]]))
    assert pixel[0, 0, 1] < 16
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": None}))
    with pytest.raises(ValueError, match="no list 'labels'"):
        list(read_faces(tmp_path, 32, say=heard.append))


def test_moving_keeps_pictures_and_carries_depth_and_normals(views):
    turn = torch.linalg.qr(torch.randn(3, 3)).Q
    turn = turn * torch.det(turn)
    centre = torch.tensor([0.2, -0.1, 0.3])
    after = moved(views, turn=turn, centre=centre, scale=1.7)
    points = torch.randn(6, 5, 3) * 0.4
    pixels, depth = views.cameras.project(points)
    same, deeper = after.cameras.project(1.7 * (points @ turn.T - centre))
    torch.testing.assert_close(same, pixels, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(deeper, 1.7 * depth)
    known = views.depths[:, 0] > 0
    expected = 1.7 * (unproject(views.cameras, views.depths)[known] @ turn.T - centre)
    torch.testing.assert_close(unproject(after.cameras, after.depths)[known], expected, rtol=1e-4, atol=1e-4)
    turned = views.normals.movedim(1, -1)[known] @ turn.T
    torch.testing.assert_close(after.normals.movedim(1, -1)[known], turned, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_upward_axis_is_found(axis, sign):
    cameras = upper_hemisphere(12, 3)
    up = torch.nn.functional.one_hot(torch.tensor(axis), 3).float() * sign
    other = torch.nn.functional.one_hot(torch.tensor((axis + 1) % 3), 3).float()
    turn = torch.stack([other, torch.linalg.cross(up, other), up]).T  # brings +z to `up`
    assert torch.det(turn) == pytest.approx(1)
    w2c = cameras.w2c.clone()
    w2c[:, :3, :3] = w2c[:, :3, :3] @ turn.T
    found = upright(replace(cameras, w2c=w2c))
    torch.testing.assert_close(found @ up, torch.tensor([0.0, 0, 1]))
    assert torch.det(found) == pytest.approx(1)
    if (axis, sign) == (2, 1.0):
        assert torch.equal(found, torch.eye(3))


def test_an_unclear_upward_axis_changes_nothing():
    tilted = Cameras.from_fov(invert_rigid(look_at(torch.tensor([[1.0, 1, 1]]), torch.zeros(1, 3))), 40.0, 8, 8)
    w2c = tilted.w2c.clone()
    w2c[0, 1, :3] = -torch.ones(3) / math.sqrt(3)
    assert torch.equal(upright(replace(tilted, w2c=w2c)), torch.eye(3))


def test_real_gobjaverse_object(shared_data):
    """Depth, normals and outlines of a real rendering belong together, also where its depths are mixed at edges."""
    capture = read_capture(shared_data("gobjaverse_views_sample/10120"))
    found = object_of(replace(capture, frames=capture.frames[::8]), 96)
    views = found.views
    assert (len(views), found.notes) == (5, ())
    low, high = extent(views)
    assert float((high - low).max()) == pytest.approx(0.9, abs=1e-4)
    assert high[2] == pytest.approx(0.45, abs=1e-4)  # a deer, tallest along z
    assert 1.5 < views.cameras.centers.norm(dim=-1).min() < views.cameras.centers.norm(dim=-1).max() < 2.5
    known = views.depths[:, 0] > 0
    points, normals = unproject(views.cameras, views.depths), views.normals.movedim(1, -1)
    torch.testing.assert_close(normals[known].norm(dim=-1), torch.ones(int(known.sum())), rtol=0, atol=1e-3)
    towards = torch.nn.functional.normalize(views.cameras.centers[:, None, None] - points, dim=-1)
    assert ((towards * normals).sum(-1)[known] > 0).float().mean() > 0.97
    across, down = points[:, 1:-1, 2:] - points[:, 1:-1, :-2], points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    smooth = (across.norm(dim=-1) < 0.05) & (down.norm(dim=-1) < 0.05) & known[:, 1:-1, 1:-1]
    flat = torch.nn.functional.normalize(torch.linalg.cross(down, across), dim=-1)
    assert (flat * normals[:, 1:-1, 1:-1]).sum(-1)[smooth].median() > 0.85


def test_real_blender_scene(shared_data):
    found = read_object(shared_data("lego_loader_test/lego_test"), 64)
    assert len(found.views) == 2
    assert 0.05 < found.views.alphas.mean() < 0.5
    assert found.views.depths is None
    assert (found.views.images[(found.views.alphas == 0).expand_as(found.views.images)] == 1).all()


def test_plain_views_without_normals(views, tmp_path):
    for number in range(3):
        save_rgba(tmp_path / "views" / f"{number}.png", views, number)
    write_cameras(tmp_path / "cameras.json", views.cameras[:3], [f"views/{number}.png" for number in range(3)])
    found = read_object(tmp_path, 48, fit=False)
    assert found.views.normals is None
    assert found.views.depths is None
    torch.testing.assert_close(found.views.alphas, views.alphas[:3], rtol=0, atol=0.01)
