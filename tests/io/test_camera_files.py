"""cameras.json and RealEstate10K files: there and back, real data, and everything that must be refused."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.rotations import quaternion_to_matrix
from latent3d.io.camera_files import match_references, read_cameras, read_realestate, write_cameras


def some_cameras(n: int = 3, height: int = 48, width: int = 64, seed: int = 0) -> Cameras:
    generator = torch.Generator().manual_seed(seed)
    c2w = torch.eye(4, dtype=torch.float64).repeat(n, 1, 1)
    quaternions = torch.nn.functional.normalize(torch.randn(n, 4, generator=generator, dtype=torch.float64), dim=-1)
    c2w[:, :3, :3] = quaternion_to_matrix(quaternions)
    c2w[:, :3, 3] = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return Cameras.from_fov(c2w, 60.0, height, width)


def content(tmp_path, n: int = 3) -> dict:
    write_cameras(tmp_path / "good.json", some_cameras(n))
    return json.loads((tmp_path / "good.json").read_text())


def test_round_trip(tmp_path):
    cameras = some_cameras()
    images, marks = ["a.png", None, "b/c.png"], [True, False, True]
    write_cameras(tmp_path / "c.json", cameras, images, marks)
    back = read_cameras(tmp_path / "c.json", dtype=torch.float64)
    assert torch.allclose(back.cameras.w2c, cameras.w2c, atol=1e-12)
    assert torch.allclose(back.cameras.k, cameras.k, atol=1e-12)
    assert (back.cameras.height, back.cameras.width) == (48, 64)
    assert back.images == tuple(images)
    assert back.is_reference == tuple(marks)
    assert back.notes == ()
    assert read_cameras(tmp_path / "c.json").cameras.w2c.dtype == torch.float32


@given(
    st.lists(st.floats(-1e5, 1e5), min_size=3, max_size=3),
    st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: sum(v * v for v in q) > 1e-2),
    st.floats(10, 150),
    st.integers(1, 5000),
    st.integers(1, 5000),
)
def test_any_camera_round_trips(tmp_path_factory, center, quaternion, fov, height, width):
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = quaternion_to_matrix(
        torch.nn.functional.normalize(torch.tensor(quaternion, dtype=torch.float64), dim=-1)
    )
    pose[:3, 3] = torch.tensor(center, dtype=torch.float64)
    cameras = Cameras.from_fov(pose[None], fov, height, width)
    # Square pixels at an extreme aspect leave the range of plausible focal lengths; scale one side back into it.
    k = cameras.k.clone()
    k[:, 1, 1] = k[:, 0, 0] / width * height
    cameras = Cameras(cameras.w2c, k, height, width)
    path = tmp_path_factory.mktemp("cameras") / "c.json"
    write_cameras(path, cameras)
    back = read_cameras(path, dtype=torch.float64).cameras
    assert torch.allclose(back.c2w, cameras.c2w, rtol=1e-9, atol=1e-8)
    assert torch.allclose(back.k, cameras.k)


KEYS = st.sampled_from(["frames", "K", "camera_to_world", "width", "height", "image"])
LEAVES = st.none() | st.booleans() | st.floats() | st.text(max_size=5)
ANY_JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)


@given(ANY_JSON)
def test_any_json_is_refused_with_the_file_name(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("cameras") / "odd.json"
    path.write_text(json.dumps(value))
    with pytest.raises(ValueError, match=r"odd\.json"):
        read_cameras(path)


@given(st.data())
def test_any_change_of_a_value_is_a_sentence_or_valid_cameras(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cameras")
    changed = content(folder, 2)
    frame = changed["frames"][data.draw(st.integers(0, 1))]
    name = data.draw(st.sampled_from(["K", "camera_to_world"]))
    row, column = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))
    frame[name][row][column] = data.draw(st.one_of(st.floats(), st.none(), st.text(max_size=3), st.booleans()))
    (folder / "odd.json").write_text(json.dumps(changed))
    try:
        back = read_cameras(folder / "odd.json", dtype=torch.float64).cameras
    except ValueError as error:
        assert "odd.json" in str(error)  # noqa: PT017
    else:
        rotation = back.w2c[:, :3, :3]
        assert torch.allclose(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(2, 3, 3), atol=1e-9)
        assert torch.isfinite(back.k).all()


def edited(change):
    def apply(good: dict) -> str:
        good = copy.deepcopy(good)
        change(good)
        return json.dumps(good)

    return apply


def set_pose(row: int, column: int, value):
    return edited(lambda good: good["frames"][1]["camera_to_world"][row].__setitem__(column, value))


def negate_column(good: dict) -> None:
    for row in good["frames"][1]["camera_to_world"][:3]:
        row[1] = -row[1]


def double_rotation(good: dict) -> None:
    for row in good["frames"][1]["camera_to_world"][:3]:
        row[:3] = [2 * value for value in row[:3]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_pose(0, 3, float("nan")), "holds NaN"),
        (set_pose(0, 3, float("inf")), "holds Infinity"),
        (lambda good: json.dumps(good).replace('"width": 64', '"width": 1e999'), "whole number"),
        (set_pose(0, 0, "one"), "frame 1: 'camera_to_world' holds 'one'"),
        (set_pose(0, 0, True), "not a number"),
        (set_pose(0, 0, 10**400), "not finite"),
        (set_pose(1, 3, 1e9), "units away"),
        (set_pose(3, 0, 0.5), "last row"),
        (edited(double_rotation), "frame 1: the upper left 3x3 is not a rotation"),
        (edited(negate_column), "mirror image"),
        (edited(lambda good: good["frames"][1]["camera_to_world"].pop()), "4 rows of 4 numbers"),
        (edited(lambda good: good["frames"][1].pop("K")), "'K' must be 3 rows of 3"),
        (edited(lambda good: good["frames"][1]["K"][0].__setitem__(0, -50.0)), "focal lengths"),
        (edited(lambda good: good["frames"][1]["K"][0].__setitem__(0, 0.9)), None),
        (edited(lambda good: good["frames"][1]["K"][0].__setitem__(0, 0.0009)), "focal lengths"),
        (edited(lambda good: good["frames"][1]["K"][0].__setitem__(1, 3.0)), "without skew"),
        (edited(lambda good: good["frames"][1]["K"][0].__setitem__(2, 1e6)), "principal point"),
        (edited(lambda good: good["frames"][1].update(width=10)), "share one aspect"),
        (edited(lambda good: good["frames"][1].update(width=-64)), "whole number of pixels"),
        (edited(lambda good: good["frames"][1].update(image=7)), "must be a file name"),
        (edited(lambda good: good["frames"][1].update(is_reference=1)), "true or false"),
        (edited(lambda good: good["frames"][1].update(dist="none")), "list of numbers"),
        (edited(lambda good: good.update(frames=[])), "0 frames"),
        (edited(lambda good: good.update(frames={})), "no list 'frames'"),
        (edited(lambda good: good.update(version=2)), "version 1"),
        (edited(lambda good: good["frames"].__setitem__(1, 5)), "must be an object"),
        (lambda good: "{", "not valid JSON"),
        (lambda good: "[" * 100_000, "not valid JSON"),
        (lambda good: "\udcff", "not valid JSON"),
    ],
)
def test_bad_files_give_one_sentence(tmp_path, change, words):
    path = tmp_path / "bad.json"
    path.write_text(change(content(tmp_path)), errors="surrogateescape")
    if words is None:
        assert len(read_cameras(path).cameras) == 3
        return
    with pytest.raises(ValueError, match=words) as caught:
        read_cameras(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no camera file"):
        read_cameras(tmp_path / "none.json")


def test_rounded_poses_become_exact_rotations(tmp_path):
    rounded = content(tmp_path)
    for frame in rounded["frames"]:
        frame["camera_to_world"] = [[round(value, 4) for value in row] for row in frame["camera_to_world"]]
    (tmp_path / "r.json").write_text(json.dumps(rounded))
    rotation = read_cameras(tmp_path / "r.json", dtype=torch.float64).cameras.w2c[:, :3, :3]
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(3, 3, 3), atol=1e-12)


def test_frames_of_several_sizes_are_scaled_to_the_first(tmp_path):
    mixed = content(tmp_path)
    mixed["frames"][2] |= {
        "width": 128,
        "height": 96,
        "K": [[2 * v for v in r] for r in mixed["frames"][2]["K"][:2]] + [[0, 0, 1]],
    }
    (tmp_path / "m.json").write_text(json.dumps(mixed))
    file = read_cameras(tmp_path / "m.json", dtype=torch.float64)
    assert torch.allclose(file.cameras.k[2], some_cameras().k[2])
    assert any("scaled to 64 x 48" in note for note in file.notes)


def test_writer_refuses_what_is_not_finite(tmp_path):
    cameras = some_cameras()
    cameras.w2c[0, 0, 3] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        write_cameras(tmp_path / "c.json", cameras)
    with pytest.raises(ValueError, match="3 cameras need 3 image names"):
        write_cameras(tmp_path / "c.json", some_cameras(), images=["a"])
    assert list(tmp_path.iterdir()) == []


def file_with(tmp_path, images, marks=None):
    n = len(images)
    write_cameras(tmp_path / "c.json", some_cameras(n), images, marks)
    return read_cameras(tmp_path / "c.json"), tmp_path / "c.json"


def test_references_are_found_by_name_mark_or_order(tmp_path):
    file, path = file_with(tmp_path, ["x/a.jpg", None, "x/b.jpg", "y/a.jpg"])
    assert match_references(file, ["elsewhere/b.jpg"], path) == [2]
    (tmp_path / "y").mkdir()
    (tmp_path / "y/a.jpg").write_bytes(b"")
    assert match_references(file, [tmp_path / "y/a.jpg", "b.jpg"], path) == [3, 2]
    with pytest.raises(ValueError, match="2 frames for the image"):
        match_references(file, ["a.jpg"], path)
    with pytest.raises(ValueError, match="no frame for the image"):
        match_references(file, ["c.jpg"], path)
    with pytest.raises(ValueError, match="belong to one frame"):
        match_references(file, ["b.jpg", "other/b.jpg"], path)

    file, path = file_with(tmp_path, [None] * 4, [False, True, False, True])
    assert match_references(file, ["p.jpg", "q.jpg"], path) == [1, 3]
    with pytest.raises(ValueError, match="marks 2 references but 1 images"):
        match_references(file, ["p.jpg"], path)

    file, path = file_with(tmp_path, [None] * 4)
    assert match_references(file, ["p.jpg", "q.jpg"], path) == [0, 1]
    with pytest.raises(ValueError, match=r"5 images were given but .* has only 4 cameras"):
        match_references(file, ["p"] * 5, path)


def test_real_posed_folders(shared_data):
    """Derived OpenCV cameras of real captures read, and look at a common place."""
    path = shared_data("posed_fox/cameras.json")
    file = read_cameras(path, dtype=torch.float64)
    assert len(file.cameras) == 50
    assert file.images[0] == "images/0001.jpg"
    assert any("lens distortion" in note for note in file.notes)
    # The fox stands in the middle: rays through the image centres nearly meet, in front of every camera.
    c2w = file.cameras.c2w
    center, axis = c2w[:, :3, 3], c2w[:, :3, 2]
    across = torch.eye(3, dtype=torch.float64) - axis[:, :, None] * axis[:, None, :]
    meet = torch.linalg.solve(across.sum(0), (across @ center[:, :, None]).sum(0))[:, 0]
    depth = ((meet - center) * axis).sum(-1)
    assert (depth > 0).all()
    room = read_cameras(shared_data("posed_rgbd_dining_room/cameras.json"))
    assert len(room.cameras) == 5
    assert room.cameras.width == 640


def test_realestate_files(shared_data):
    folder = shared_data("re10k_trajectories")
    for path in sorted(folder.glob("*.txt")):
        cameras, seconds = read_realestate(path, 360, 640)
        line = path.read_text().splitlines()[1].split()
        assert (seconds[1:] > seconds[:-1]).all()
        assert float(cameras.k[0, 0, 0]) == pytest.approx(float(line[1]) * 640)
        assert float(cameras.k[0, 1, 1]) == pytest.approx(float(line[2]) * 360)
        assert torch.allclose(cameras.w2c[0, :3].flatten(), torch.tensor([float(v) for v in line[7:]]), atol=1e-5)
        identity = cameras.w2c[:, :3, :3] @ cameras.w2c[:, :3, :3].mT
        assert torch.allclose(identity, torch.eye(3).expand_as(identity), atol=1e-5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no camera"),
        ("url\n1 2 3\n", "line 2: expected 19 numbers"),
        ("url\n" + "nan " * 19, "19 numbers"),
        ("url\n" + "1 " * 19, "not a rotation"),
    ],
)
def test_bad_realestate_files(tmp_path, text, words):
    (tmp_path / "c.txt").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_realestate(tmp_path / "c.txt", 10, 10)
    with pytest.raises(FileNotFoundError):
        read_realestate(tmp_path / "none.txt", 10, 10)
