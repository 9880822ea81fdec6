"""What is wrong with a capture is counted and named; a capture of nothing but that is one sentence."""

from __future__ import annotations

import copy
import json
import math
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data.captures.places import photograph, poses, write_colmap, write_pictures, write_transforms
from latent3d.data.captures import colmap, exr, realestate, renders
from latent3d.data.captures.collect import Reading, rigid
from latent3d.data.captures.lens import Lens, undistort, undistorted_intrinsics
from latent3d.data.captures.pictures import DepthFile, read_depth
from latent3d.data.captures.reading import read_capture

FEW = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def spoiled(tmp_path, change) -> object:
    """A capture of which the second frame, or the head, was changed."""
    content = write_transforms(tmp_path)
    change(content, content["frames"][1])
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    return read_capture(tmp_path)


def pose_entry(row: int, column: int, value: float):
    def change(_, frame):
        frame["transform_matrix"][row][column] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (pose_entry(0, 3, math.nan), "not finite"),
        (pose_entry(1, 3, math.inf), "not finite"),
        (pose_entry(0, 0, 3.0), "not a rotation"),
        (pose_entry(0, 3, 1e9), "units away"),
        (pose_entry(3, 0, 1.0), "transposed"),
        (lambda _, f: f.update(transform_matrix=[[1, 2], [3]]), "the pose"),
        (lambda _, f: f.update(transform_matrix=np.diag([-1.0, 1, 1, 1]).tolist()), "mirror image"),
        (lambda _, f: f.pop("transform_matrix"), "the pose"),
        (lambda _, f: f.update(fl_x=0.0), "focal length"),
        (lambda _, f: f.update(fl_x="wide"), "'fl_x' must be a finite number"),
        (lambda _, f: f.update(cx=1e5), "principal point"),
        (lambda _, f: f.update(w=60), "but its camera is for"),
        (lambda _, f: f.update(k1=-40.0), "fold the picture over"),
        (lambda _, f: f.update(camera_model="EQUIRECTANGULAR"), "camera model"),
        (lambda _, f: f.update(file_path="images/000.png"), "twice"),
        (lambda c, _: c["frames"].__setitem__(1, "frame"), "must be an object"),
    ],
)
def test_one_bad_frame_is_named_and_the_others_stay(tmp_path, change, reason):
    capture = spoiled(tmp_path, change)
    assert len(capture) == 5
    assert len(capture.problems) == 1
    assert reason in capture.problems[0]


def test_pictures_that_cannot_be_read(tmp_path):
    write_transforms(tmp_path)
    whole = (tmp_path / "images" / "001.png").read_bytes()
    (tmp_path / "images" / "001.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "images" / "002.png").write_bytes(b"no picture")
    (tmp_path / "images" / "003.png").unlink()
    capture = read_capture(tmp_path)
    assert (len(capture), capture.missing) == (4, ("images/003.png",))
    assert "002.png' is not a picture" in capture.problems[0]
    calls = []
    verified = capture.verified(lambda: calls.append(1))
    assert (len(verified), len(calls)) == (3, 4)
    assert "damaged or cut short" in verified.problems[1]
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match="no usable frame; the first problem"):
        capture.verified()


def test_no_usable_frame_is_one_sentence(tmp_path):
    write_transforms(tmp_path, fl_x=0)
    with pytest.raises(ValueError, match="no usable frame: 0 pictures are missing, 6 frames are unusable") as error:
        read_capture(tmp_path)
    assert "\n" not in str(error.value)
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="6 pictures are missing"):
        read_capture(tmp_path)


def test_turned_pictures_follow_their_cameras(tmp_path):
    """Cameras are solved on stored pixels: the EXIF tag turns a picture only where the stated aspect asks for it."""
    write_transforms(tmp_path)
    before = read_capture(tmp_path).load([0], 60, 80).images
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(tmp_path / "images" / "000.png") as picture:
        picture.load()
        picture.save(tmp_path / "images" / "000.png", exif=exif)
    assert bool((read_capture(tmp_path).load([0], 60, 80).images == before).all())
    # Stored lying down, stated upright: now the tag counts. Tag 6 is undone by a quarter turn clockwise.
    lying = Image.fromarray(np.rot90(photograph(poses()[0])[0]).copy())
    lying.save(tmp_path / "images" / "000.png", exif=exif)
    assert bool((read_capture(tmp_path).load([0], 60, 80).images == before).all())


@pytest.mark.parametrize("name", ["transforms.json", "cameras.json", "transforms_train.json"])
@pytest.mark.parametrize(
    "text", ["", "{", '{"frames": [', "[]", '{"frames": 3}', "\x00\xff", '{"frames": []}', "[" * 9999]
)
def test_broken_json(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"transforms|cameras|usable"):
        read_capture(tmp_path)


@pytest.mark.parametrize("part", ["cameras.bin", "images.bin", "points3D.bin"])
def test_a_binary_model_cut_anywhere(tmp_path, part):
    model = write_colmap(tmp_path, binary=True)
    whole = (model / part).read_bytes()
    for length in range(0, len(whole), 7):
        (model / part).write_bytes(whole[:length])
        if part == "points3D.bin":
            assert "sparse points were left out" in " ".join(read_capture(tmp_path).notes)
        else:
            with pytest.raises(ValueError, match=part.replace(".", r"\.")):
                read_capture(tmp_path)


def refusal(action) -> str | None:
    """What a ValueError says, or None where the action succeeds; any other error passes through."""
    try:
        action()
    except ValueError as error:
        return str(error)
    return None


@FEW
@given(st.binary(max_size=200), st.sampled_from(["read_cameras_binary", "read_images_binary", "read_points_binary"]))
def test_any_bytes_are_a_model_or_a_sentence(tmp_path, data, reader):
    path = tmp_path / "some.bin"
    path.write_bytes(data)
    assert "some.bin" in (refusal(lambda: getattr(colmap, reader)(path)) or "some.bin")


@FEW
@given(st.text(max_size=200), st.sampled_from(["read_cameras_text", "read_images_text", "read_points_text"]))
def test_any_text_is_a_model_or_a_sentence(tmp_path, text, reader):
    path = tmp_path / "some.txt"
    path.write_text(text, encoding="utf-8", errors="replace")
    assert "some.txt" in (refusal(lambda: getattr(colmap, reader)(path)) or "some.txt")


def test_a_huge_count_is_refused_without_reading_it(tmp_path):
    (tmp_path / "cameras.bin").write_bytes(struct.pack("<Q", 2**60))
    with pytest.raises(ValueError, match="too short for them"):
        colmap.read_cameras_binary(tmp_path / "cameras.bin")


LEAVES = st.none() | st.booleans() | st.floats() | st.text(max_size=4) | st.integers()
KEYS = st.sampled_from(
    ["frames", "file_path", "transform_matrix", "fl_x", "w", "h", "cx", "k1", "camera_model", "file", "K"]
)
ANY = st.recursive(LEAVES, lambda x: st.lists(x, max_size=4) | st.dictionaries(KEYS, x, max_size=4), max_leaves=12)


@FEW
@given(ANY, st.sampled_from(["transforms.json", "cameras.json", "transforms_test.json"]))
def test_any_json_is_refused_in_a_sentence(tmp_path, value, name):
    folder = tmp_path / name.removesuffix(".json")
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(value))
    with pytest.raises(ValueError):
        read_capture(folder)


@pytest.fixture(scope="module")
def a_place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    return folder, write_transforms(folder)


@FEW
@given(st.data())
def test_any_value_anywhere_in_a_frame_spoils_at_most_that_frame(a_place, data):
    folder, content = a_place
    content = copy.deepcopy(content)
    frame = content["frames"][data.draw(st.integers(0, 5))]
    frame[data.draw(KEYS)] = data.draw(ANY)
    (folder / "transforms.json").write_text(json.dumps(content))
    capture = read_capture(folder)
    assert len(capture) + len(capture.missing) + len(capture.problems) == 6
    assert len(capture) >= 5


@FEW
@given(st.lists(st.text(max_size=30) | st.floats().map(lambda v: " ".join([repr(v)] * 19)), max_size=5))
def test_any_realestate_text_is_read_or_refused(tmp_path, lines):
    path = tmp_path / "clip.txt"
    path.write_text("address\n" + "\n".join(lines), encoding="utf-8", errors="replace")
    with pytest.raises(ValueError, match="no usable frame"):
        realestate.read_realestate_clip(path, Reading())


@FEW
@given(st.binary(max_size=300))
def test_any_bytes_are_arrays_or_a_sentence(tmp_path, data):
    (tmp_path / "cameras.npz").write_bytes(data)
    with pytest.raises(ValueError, match=r"cameras\.npz"):
        renders.read_arrays(tmp_path / "cameras.npz", Reading())


def test_depth_maps(tmp_path):
    values = np.array([[0, 1000], [2500, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "d.png")
    depth = read_depth(DepthFile(tmp_path / "d.png", 0.001, most=65534))
    np.testing.assert_allclose(depth, [[0, 1], [2.5, 0]])
    np.save(tmp_path / "d.npy", np.array([[np.nan, -1.0], [2.0, np.inf]]))
    np.testing.assert_allclose(read_depth(DepthFile(tmp_path / "d.npy", 2.0)), [[0, 0], [4, 0]])
    (tmp_path / "d.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ValueError, match="not an array"):
        read_depth(DepthFile(tmp_path / "d.npy", 1.0))
    np.save(tmp_path / "d.npy", np.zeros((2, 2, 3)))
    with pytest.raises(ValueError, match="one number per pixel"):
        read_depth(DepthFile(tmp_path / "d.npy", 1.0))
    with pytest.raises(FileNotFoundError, match="no depth map"):
        read_depth(DepthFile(tmp_path / "none.png", 1.0))


def test_a_real_exr_cut_anywhere_is_refused(tmp_path, shared_data):
    whole = shared_data("gobjaverse_views_sample/10120/00000/00000_nd.exr").read_bytes()
    (tmp_path / "a.exr").write_bytes(whole)
    channels = exr.read_exr(tmp_path / "a.exr")
    assert sorted(channels) == ["A", "B", "G", "R"]
    normal = np.stack([channels[name] for name in "RGB"]).astype(float)[:, channels["A"] > 0]
    assert abs(float(np.median(np.linalg.norm(normal, axis=0))) - 1) < 0.05
    for length in (0, 3, 30, 200, 700, 5000, len(whole) - 1):
        (tmp_path / "a.exr").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a\.exr"):
            exr.read_exr(tmp_path / "a.exr")


@pytest.mark.parametrize(
    "lens",
    [Lens((0.1, -0.05, 0.002, -0.001)), Lens((-0.2, 0.03, 0.0, 0.0, 0.01)), Lens((0.05, 0.01, 0.0, 0.0), fisheye=True)],
)
def test_distortion_agrees_with_opencv(lens):
    import cv2

    rays = np.random.default_rng(0).uniform(-0.6, 0.6, (50, 2))
    k = np.array([[150.0, 0, 80], [0, 140.0, 60], [0, 0, 1]])
    points = np.concatenate([rays, np.ones((50, 1))], 1)[:, None]
    project = cv2.fisheye.projectPoints if lens.fisheye else cv2.projectPoints
    zero = np.zeros(3)
    theirs = project(points, zero, zero, k, np.array(lens.coefficients))[0][:, 0]
    np.testing.assert_allclose(lens.distort(rays) * k[[0, 1], [0, 1]] + k[:2, 2], theirs, atol=1e-6)
    # The undistorted picture needs no pixel from outside, and a slightly wider one would.
    new = undistorted_intrinsics(lens, k, 120, 160)
    border = np.array([[0, 0], [160, 0], [160, 120], [0, 120], [80, 0], [80, 120], [0, 60], [160, 60]])
    bent = lens.distort((border - new[:2, 2]) / new[[0, 1], [0, 1]]) * k[[0, 1], [0, 1]] + k[:2, 2]
    assert bent.min() >= -1e-6
    assert (bent <= np.array([160, 120]) + 1e-6).all()
    assert min(bent.min(), (np.array([160, 120]) - bent).min()) < 2


def test_a_distorted_grid_becomes_straight():
    """A picture that stores its own pixels' rays: after undistortion every pixel shows the ray of a pinhole."""
    lens, k = Lens((-0.15, 0.02, 0.001, 0.0)), np.array([[150.0, 0, 82], [0, 150.0, 58], [0, 0, 1]])
    y, x = np.mgrid[:120, :160] + 0.5
    stored = np.stack([x, y, 0 * x], -1).astype(np.float32)
    picture, new = undistort(stored, lens, k)
    rays = (np.stack([x, y], -1) - new[:2, 2]) / new[[0, 1], [0, 1]]
    expected = lens.distort(rays) * 150.0 + k[:2, 2]
    np.testing.assert_allclose(picture[2:-2, 2:-2, :2], expected[2:-2, 2:-2], atol=0.05)


def test_rounding_of_text_files_is_undone():
    pose = poses()[1].round(4)
    matrix = rigid(pose)
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(matrix, pose, atol=2e-4)


def test_depth_follows_the_undistortion_of_its_picture(tmp_path):
    """Where the picture shows the step between the two planes, the depth does too."""
    content = write_transforms(tmp_path, k1=0.1, k2=0.0, p1=0.0, p2=0.0)
    write_pictures(tmp_path / "images", poses())
    for frame, pose in zip(content["frames"], poses(), strict=True):
        depth = photograph(pose)[1]
        (tmp_path / "images" / "x").parent.mkdir(exist_ok=True)
        name = frame["file_path"].replace(".png", ".npy")
        np.save(tmp_path / name, depth)
        grey = np.repeat((depth * 60).clip(0, 255)[..., None], 3, -1).astype(np.uint8)
        Image.fromarray(grey).save(tmp_path / frame["file_path"])
        frame["depth_file_path"] = name
    (tmp_path / "transforms.json").write_text(json.dumps({**content, "integer_depth_scale": 1.0}))
    views = read_capture(tmp_path).load([4], 80, 80)
    shown = views.images[0, 0] * 255 / 60
    assert float((shown - views.depths[0, 0]).abs().median()) < 0.01
