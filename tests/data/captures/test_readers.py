"""Every layout gives the cameras and pictures that were put into it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from data.captures.places import (
    FLIP,
    FOCAL,
    HEIGHT,
    WIDTH,
    k_matrix,
    photograph,
    poses,
    write_colmap,
    write_pictures,
    write_transforms,
)
from latent3d.data.captures.pictures import VideoMoment
from latent3d.data.captures.reading import LAYOUTS, find_captures, read_capture
from latent3d.data.captures.realestate import extract_clip
from latent3d.io.camera_files import read_cameras, write_cameras
from latent3d.io.video import write_video


def check(capture, layout: str, c2w: np.ndarray | None = None, atol: float = 1e-6) -> None:
    c2w = poses() if c2w is None else c2w
    assert capture.layout == layout
    np.testing.assert_allclose(capture.c2w, c2w, atol=atol)
    views = capture.load([2, 0], HEIGHT, WIDTH)
    assert not capture.problems
    assert not capture.missing
    np.testing.assert_allclose(views.cameras.k[0].numpy(), k_matrix(), rtol=1e-4)
    truth = photograph(c2w[2])[0] / 255.0
    assert np.abs(views.images[0].permute(1, 2, 0).numpy() - truth).mean() < 0.01


def test_transforms(tmp_path):
    write_transforms(tmp_path)
    check(read_capture(tmp_path), "transforms")
    check(read_capture(tmp_path / "transforms.json"), "transforms")


def test_intrinsics_per_frame_and_missing_pictures(tmp_path):
    content = write_transforms(tmp_path)
    for key in ("w", "h", "fl_x", "fl_y", "cx", "cy"):
        value = content.pop(key)
        for frame in content["frames"]:
            frame[key] = value
    content["frames"][1]["fl_x"] = 2 * FOCAL
    (tmp_path / "images" / "004.png").unlink()
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    capture = read_capture(tmp_path)
    assert capture.missing == ("images/004.png",)
    assert len(capture) == 5
    assert [frame.k[0, 0] for frame in capture.frames[:3]] == [FOCAL, 2 * FOCAL, FOCAL]


def test_reduced_copies_as_in_dl3dv(tmp_path):
    content = write_transforms(tmp_path)
    (tmp_path / "images").rename(tmp_path / "images_4")
    for key in ("w", "h", "fl_x", "fl_y", "cx", "cy"):
        content[key] *= 4
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    check(read_capture(tmp_path), "transforms")


def test_scannetpp(tmp_path):
    content = write_transforms(tmp_path / "dslr" / "nerfstudio")
    (tmp_path / "dslr" / "nerfstudio" / "images").rename(tmp_path / "dslr" / "resized_images")
    for frame in content["frames"]:
        frame["file_path"] = frame["file_path"].removeprefix("images/")
    content["test_frames"] = [content["frames"].pop()]
    (tmp_path / "dslr" / "nerfstudio" / "transforms.json").write_text(json.dumps(content))
    capture = read_capture(tmp_path)
    check(capture, "scannetpp")
    assert capture.metric


def test_blender(tmp_path):
    content = write_transforms(tmp_path)
    (tmp_path / "transforms.json").unlink()
    frames = content["frames"]
    for frame in frames:
        frame["file_path"] = "./" + frame["file_path"].removesuffix(".png")
    angle = 2 * np.arctan(0.5 * WIDTH / FOCAL)
    for name, part in (("train", frames[:4]), ("test", frames[4:])):
        (tmp_path / f"transforms_{name}.json").write_text(json.dumps({"camera_angle_x": angle, "frames": part}))
    check(read_capture(tmp_path), "blender")


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("model", "params"),
    [
        (0, [FOCAL, WIDTH / 2, HEIGHT / 2]),
        (1, [FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2]),
        (2, [FOCAL, WIDTH / 2, HEIGHT / 2, 0.0]),
        (3, [FOCAL, WIDTH / 2, HEIGHT / 2, 0.0, 0.0]),
        (4, [FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2, 0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_colmap(tmp_path, binary, model, params):
    write_colmap(tmp_path, binary, model, params)
    capture = read_capture(tmp_path)
    check(capture, "colmap")
    np.testing.assert_allclose(capture.points, [[0, 0, 0.5], [-0.5, 0.25, 0]])


def test_colmap_lenses(tmp_path):
    cases = {2: ([0.1], (0.1, 0, 0, 0), False), 3: ([0.1, 0.2], (0.1, 0.2, 0, 0), False)}
    cases |= {8: ([0.1], (0.1, 0, 0, 0), True), 9: ([0.1, 0.02], (0.1, 0.02, 0, 0), True)}
    for model, (rest, expected, fisheye) in cases.items():
        write_colmap(tmp_path / str(model), True, model, [FOCAL, WIDTH / 2, HEIGHT / 2, *rest])
        lens = read_capture(tmp_path / str(model)).frames[0].lens
        assert (lens.coefficients, lens.fisheye) == (expected, fisheye)
    write_colmap(tmp_path / "5", True, 5, [FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2, 0.1, 0.0, 0.0, 0.0])
    assert read_capture(tmp_path / "5").frames[0].lens.fisheye
    write_colmap(tmp_path / "7", True, 7, [FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2, 0.9])
    with pytest.raises(ValueError, match="camera model FOV is not read; undistort"):
        read_capture(tmp_path / "7")


def realestate_text(times: list[int]) -> str:
    lines = ["https://films.example/watch"]
    for time, pose in zip(times, poses(), strict=True):
        w2c = np.linalg.inv(pose)[:3].ravel()
        numbers = [FOCAL / WIDTH, FOCAL / HEIGHT, 0.5, 0.5, 0, 0, *w2c]
        lines.append(f"{time} " + " ".join(f"{value:.9f}" for value in numbers))
    return "\n".join(lines) + "\n"


def test_realestate_with_frames(tmp_path):
    times = [1000 * i for i in range(6)]
    (tmp_path / "clip.txt").write_text(realestate_text(times))
    write_pictures(tmp_path / "clip", poses(), [f"{time}.png" for time in times])
    check(read_capture(tmp_path), "realestate10k")
    (tmp_path / "clip" / "3000.png").unlink()
    assert read_capture(tmp_path / "clip.txt").missing == ("3000",)


def test_realestate_with_a_film_and_its_extraction(tmp_path):
    times = [200_000 * (i + 1) for i in range(6)]
    (tmp_path / "clip.txt").write_text(realestate_text(times))
    # Ten pictures a second: the wanted moments are every second one from the third.
    pictures = [photograph(poses()[max(0, min(5, (i - 2) // 2))])[0] for i in range(15)]
    write_video(
        tmp_path / "clip.mp4", [torch.from_numpy(p).permute(2, 0, 1) / 255 for p in pictures], fps=10, quality=8
    )
    capture = read_capture(tmp_path / "clip.txt")
    assert all(isinstance(frame.picture, VideoMoment) for frame in capture.frames)
    views = capture.load([4, 1], HEIGHT, WIDTH)
    for image, index in zip(views.images, (4, 1), strict=True):
        errors = [
            float((image.permute(1, 2, 0) - torch.from_numpy(photograph(p)[0]) / 255).abs().mean()) for p in poses()
        ]
        assert int(np.argmin(errors)) == index
    written = extract_clip(capture, tmp_path / "clip")
    assert [path.name for path in written] == [f"{time}.png" for time in times]
    (tmp_path / "clip.mp4").unlink()
    again = read_capture(tmp_path / "clip.txt")
    torch.testing.assert_close(again.load([4, 1], HEIGHT, WIDTH).images, views.images)
    with pytest.raises(ValueError, match="not read from a film"):
        extract_clip(again, tmp_path / "clip")


def test_a_film_that_ends_too_early_is_named(tmp_path):
    (tmp_path / "clip.txt").write_text(realestate_text([100_000 * i for i in (1, 2, 3, 4, 5, 90)]))
    write_video(tmp_path / "clip.mp4", torch.rand(8, 3, HEIGHT, WIDTH), fps=10)
    with pytest.raises(ValueError, match=r"no picture at 9\.000 s"):
        read_capture(tmp_path).load([5], 32, 32)


def depth_png(path, pose, unit: float = 0.001, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray((photograph(pose, *size)[1] / unit).round().astype(np.uint16)).save(path)


def check_depth(capture) -> None:
    assert capture.metric
    depths = capture.load([3], HEIGHT, WIDTH).depths
    truth = photograph(poses()[3])[1]
    assert np.median(np.abs(depths[0, 0].numpy() - truth)) < 2e-3


def test_arkit_apps(tmp_path):
    write_pictures(tmp_path, poses(), [f"frame_{i:05d}.png" for i in range(6)])
    for i, pose in enumerate(poses()):
        content = {"cameraPoseARFrame": (pose @ FLIP).ravel().tolist(), "intrinsics": k_matrix().ravel().tolist()}
        (tmp_path / f"frame_{i:05d}.json").write_text(json.dumps(content))
        depth_png(tmp_path / f"depth_{i:05d}.png", pose, size=(HEIGHT // 2, WIDTH // 2))
    capture = read_capture(tmp_path)
    check(capture, "arkit")
    assert capture.metric
    truth = photograph(poses()[3], HEIGHT // 2, WIDTH // 2)[1]
    # Half the resolution: each stored pixel covers a block of two by two.
    depth = capture.load([3], HEIGHT, WIDTH).depths[0, 0].numpy()
    np.testing.assert_allclose(depth[::2, 1::2], truth, atol=1e-3)


def test_arkitscenes(tmp_path):
    names = [f"4711_{100 + i / 10:.3f}" for i in range(6)]
    write_pictures(tmp_path / "lowres_wide", poses(), [f"{name}.png" for name in names])
    (tmp_path / "lowres_wide_intrinsics").mkdir()
    import cv2

    lines = []
    for i, (name, pose) in enumerate(zip(names, poses(), strict=True)):
        pincam = f"{WIDTH} {HEIGHT} {FOCAL} {FOCAL} {WIDTH / 2} {HEIGHT / 2}"
        (tmp_path / "lowres_wide_intrinsics" / f"{name}.pincam").write_text(pincam)
        w2c = np.linalg.inv(pose)
        vector = cv2.Rodrigues(w2c[:3, :3])[0].ravel()
        lines.append(" ".join(f"{v:.9f}" for v in (100 + i / 10, *vector, *w2c[:3, 3])))
        depth_png(tmp_path / "lowres_depth" / f"{name}.png", pose)
    (tmp_path / "lowres_wide.traj").write_text("\n".join(lines))
    capture = read_capture(tmp_path)
    check(capture, "arkitscenes")
    check_depth(capture)


def test_scannet(tmp_path):
    write_pictures(tmp_path / "color", poses(), [f"{2 * i}.png" for i in range(6)])
    (tmp_path / "pose").mkdir()
    for i, pose in enumerate(poses()):
        np.savetxt(tmp_path / "pose" / f"{2 * i}.txt", pose)
        depth_png(tmp_path / "depth" / f"{2 * i}.png", pose)
    (tmp_path / "pose" / "99.txt").write_text("-inf " * 16)
    with pytest.raises(FileNotFoundError, match="write fx fy cx cy"):
        read_capture(tmp_path)
    (tmp_path / "intrinsic").mkdir()
    full = np.eye(4)
    full[:3, :3] = k_matrix()
    np.savetxt(tmp_path / "intrinsic" / "intrinsic_color.txt", full)
    assert read_capture(tmp_path).missing == ("99",)
    (tmp_path / "pose" / "99.txt").unlink()
    capture = read_capture(tmp_path)
    check(capture, "scannet")
    check_depth(capture)


def test_seven_scenes(tmp_path):
    write_pictures(tmp_path, poses(), [f"frame-{i:06d}.color.png" for i in range(6)])
    for i, pose in enumerate(poses()):
        np.savetxt(tmp_path / f"frame-{i:06d}.pose.txt", pose)
        depth_png(tmp_path / f"frame-{i:06d}.depth.png", pose)
    (tmp_path / "intrinsics.txt").write_text(f"{FOCAL} {FOCAL} {WIDTH / 2} {HEIGHT / 2}")
    capture = read_capture(tmp_path)
    check(capture, "7scenes")
    check_depth(capture)


def test_tum(tmp_path):
    from scipy.spatial.transform import Rotation

    write_pictures(tmp_path / "rgb", poses())
    rgb, depth, truth = ["# time file"], [], []
    for i, pose in enumerate(poses()):
        depth_png(tmp_path / "depth" / f"{i:03d}.png", pose, unit=1 / 5000)
        rgb.append(f"{10 + i}.00 rgb/{i:03d}.png")
        depth.append(f"{10 + i}.02 depth/{i:03d}.png")
        quaternion = Rotation.from_matrix(pose[:3, :3]).as_quat()
        truth.append(" ".join(f"{v:.9f}" for v in (10.01 + i, *pose[:3, 3], *quaternion)))
    for name, lines in (("rgb", rgb), ("depth", depth), ("groundtruth", truth)):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "intrinsics.txt").write_text(f"{FOCAL} {FOCAL} {WIDTH / 2} {HEIGHT / 2}")
    capture = read_capture(tmp_path)
    check(capture, "tum")
    check_depth(capture)


def test_own_cameras_agree_with_the_file_reader(tmp_path):
    write_transforms(tmp_path)
    capture = read_capture(tmp_path)
    cameras = capture.cameras(None, HEIGHT, WIDTH).to(torch.float64)
    write_cameras(tmp_path / "cameras.json", cameras, [frame.name for frame in capture.frames])
    again = read_capture(tmp_path)
    check(again, "cameras.json")
    assert "transforms" in " ".join(again.notes)
    known = read_cameras(tmp_path / "cameras.json").cameras
    torch.testing.assert_close(again.cameras(None, HEIGHT, WIDTH).w2c, known.w2c)
    check(read_capture(tmp_path, layout="transforms"), "transforms")


def test_load_agrees_with_cameras_under_cutting(tmp_path):
    write_transforms(tmp_path, k1=0.05)
    capture = read_capture(tmp_path)
    views = capture.load([0, 5], 48, 40)
    cameras = capture.cameras([0, 5], 48, 40)
    torch.testing.assert_close(views.cameras.k, cameras.k)
    torch.testing.assert_close(views.cameras.w2c, cameras.w2c)
    assert views.depths is None


def test_scaling_scales_translations_points_and_depths(tmp_path):
    write_transforms(tmp_path)
    capture = read_capture(tmp_path)
    double = capture.scaled(2.0)
    np.testing.assert_allclose(double.c2w[:, :3, 3], 2 * capture.c2w[:, :3, 3])
    np.testing.assert_allclose(double.c2w[:, :3, :3], capture.c2w[:, :3, :3])
    with pytest.raises(ValueError, match="positive"):
        capture.scaled(float("nan"))


def test_finding_captures(tmp_path):
    write_transforms(tmp_path / "b")
    shutil.copytree(tmp_path / "b", tmp_path / "a")
    (tmp_path / "notes").mkdir()
    assert find_captures(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert find_captures(tmp_path / "a") == [tmp_path / "a"]
    with pytest.raises(ValueError, match="no capture"):
        find_captures(tmp_path / "notes")


def test_photos_without_poses_ask_for_pycolmap(tmp_path, monkeypatch):
    import sys

    from latent3d.optional import MissingPackageError

    monkeypatch.setitem(sys.modules, "pycolmap", None)
    write_pictures(tmp_path, poses())
    with pytest.raises(MissingPackageError, match=r"pip install 'latent3d\[poses\]'"):
        read_capture(tmp_path)


def test_unknown_layout_and_places(tmp_path):
    with pytest.raises(FileNotFoundError, match="check the name"):
        read_capture(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no capture that can be recognised"):
        read_capture(tmp_path)
    with pytest.raises(ValueError, match="choose one of"):
        read_capture(tmp_path, layout="polaroid")
    for layout in LAYOUTS:
        with pytest.raises(ValueError, match=f"not a capture of the layout {layout}"):
            read_capture(tmp_path, layout=layout)
