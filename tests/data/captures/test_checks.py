"""Axis conventions are told apart by pictures, sizes are measured rightly, and the sheet draws what it should."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.captures.places import FLIP, photograph, poses, write_transforms
from latent3d.data.captures.axes import judge_axes, looking_away
from latent3d.data.captures.drawing import Canvas, frustum, line_in_image, world_axes
from latent3d.data.captures.matches import CONVENTIONS, choose_pairs, match_pairs, reread
from latent3d.data.captures.reading import read_capture
from latent3d.data.captures.scale import measure, metric_factor
from latent3d.data.captures.sheet import WIDTH, check_capture, draw_sheet


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    write_transforms(folder)
    return folder


@pytest.mark.parametrize(("axes", "inverse"), CONVENTIONS)
def test_every_wrong_reading_is_recognised_and_mended(place, axes, inverse):
    capture = read_capture(place, axes=axes, inverse=inverse)
    verdict = judge_axes(capture, match_pairs(capture, 4))
    assert verdict.best == ("opengl", False)
    assert verdict.is_right == ((axes, inverse) == ("opengl", False))
    assert verdict.shares[("opengl", False)] > 0.8
    if axes == "opencv":
        assert "--axes opengl" in verdict.sentence
    if inverse:
        assert "leave out --inverse" in verdict.sentence or "--axes" in verdict.sentence


def test_a_file_in_opencv_axes_is_mended_by_the_option_that_is_offered(tmp_path):
    content = write_transforms(tmp_path)
    for frame in content["frames"]:
        frame["transform_matrix"] = (np.array(frame["transform_matrix"]) @ FLIP).tolist()
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    wrong = check_capture(read_capture(tmp_path), 3)
    assert not wrong.is_good
    assert "--axes opencv" in wrong.axes.sentence
    assert check_capture(read_capture(tmp_path, axes="opencv"), 3).is_good


@pytest.mark.parametrize("now", CONVENTIONS)
def test_rereading_is_what_reading_would_have_given(place, now):
    first = read_capture(place, axes=now[0], inverse=now[1])
    for wanted in CONVENTIONS:
        second = read_capture(place, axes=wanted[0], inverse=wanted[1])
        np.testing.assert_allclose(reread(torch.from_numpy(first.c2w), now, wanted).numpy(), second.c2w, atol=1e-9)


def test_poses_of_other_pictures_fit_no_convention(tmp_path):
    content = write_transforms(tmp_path)
    matrices = [frame["transform_matrix"] for frame in content["frames"]]
    for frame, other in zip(content["frames"], (3, 0, 5, 1, 4, 2), strict=True):
        turn = np.eye(4)
        turn[:3, :3] = np.linalg.qr(np.random.default_rng(other).normal(size=(3, 3)))[0]
        turn *= np.sign(np.linalg.det(turn[:3, :3])) if np.linalg.det(turn[:3, :3]) < 0 else 1
        turn[3, 3] = 1
        frame["transform_matrix"] = (np.array(matrices[other]) @ turn).tolist()
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    verdict = judge_axes(capture := read_capture(tmp_path), match_pairs(capture, 4))
    assert verdict.is_right
    assert not verdict.matches or "are they of these pictures" in verdict.sentence


def test_cameras_alone(place):
    ring = np.concatenate([poses(5), poses(5) @ np.diag([-1.0, 1, -1, 1])])
    around = ring.copy()
    around[5:, :3, 3] = -ring[5:, :3, 3]
    assert looking_away(around) == 0
    assert looking_away(around @ FLIP) == 1
    walk = np.tile(np.eye(4), (5, 1, 1))
    walk[:, 2, 3] = np.arange(5)
    assert looking_away(walk) is None
    assert looking_away(around[:2]) is None


def test_real_captures_are_read_in_their_axes(shared_data):
    for name in ("posed_fox", "posed_rgbd_dining_room", "gobjaverse_views_sample"):
        capture = read_capture(shared_data(name))
        verdict = judge_axes(capture, match_pairs(capture, 3))
        assert verdict.is_right
        assert verdict.shares[verdict.now] > 5 * max(s for r, s in verdict.shares.items() if r != verdict.now)


def test_pairs_need_a_baseline(place):
    capture = read_capture(place)
    pairs = choose_pairs(capture, 3)
    assert pairs
    assert all(a < b for a, b in pairs)
    still = capture.scaled(1e-15)
    assert choose_pairs(still, 3) == []


def test_measured_sizes(place):
    capture = read_capture(place)
    scale = measure(capture, match_pairs(capture, 4))
    steps = np.linalg.norm(np.diff(poses()[:, :3, 3], axis=0), axis=1)
    assert scale.step == pytest.approx(np.median(steps))
    assert scale.extent == pytest.approx(np.linalg.norm(poses()[0, :3, 3] - poses()[-1, :3, 3]))
    truth = np.stack([photograph(pose)[1] for pose in poses()])
    assert 0.99 * truth.min() < scale.depth[0] < scale.depth[1] < scale.depth[2] < 1.01 * truth.max()
    assert scale.depth[1] == pytest.approx(np.median(truth), rel=0.1)
    twice = capture.scaled(2.0)
    assert measure(twice, match_pairs(twice, 4)).depth[1] == pytest.approx(2 * scale.depth[1], rel=1e-6)


def test_metric_factor():
    scene = np.array([1.0, 2.0, 0.0, 4.0, 1.0])
    assert metric_factor(np.array([3.0, 6.0, 1.0, 12.0, 0.0]), scene) == pytest.approx(3)
    with pytest.raises(ValueError, match="no pixel"):
        metric_factor(np.zeros(3), np.ones(3))


def test_lines_in_the_picture():
    np.testing.assert_allclose(line_in_image([0, 1, -5], 10, 20), [[0, 5], [20, 5]])
    np.testing.assert_allclose(line_in_image([1, 0, -5], 10, 20), [[5, 0], [5, 10]])
    np.testing.assert_allclose(line_in_image([1, -1, 0], 10, 20), [[0, 0], [10, 10]])
    assert line_in_image([0, 1, -50], 10, 20) is None


def test_views_from_above_and_the_side():
    pose = np.eye(4)
    right, forward, up = world_axes(pose[None])
    np.testing.assert_allclose([right, forward, up], [[1, 0, 0], [0, 0, 1], [0, -1, 0]], atol=1e-12)
    corners = frustum(pose, np.array([[50.0, 0, 40], [0, 50, 30], [0, 0, 1]]), 60, 80, 2.0)
    np.testing.assert_allclose(corners[[0, 1, 3]], [[0, 0, 0], [-1.6, -1.2, 2], [1.6, 1.2, 2]])
    canvas = Canvas.around(np.array([[0.0, 0.0], [2.0, 1.0]]), (200, 200), margin=0)
    np.testing.assert_allclose(canvas(np.array([[0.0, 0.0], [2.0, 1.0]])), [[0, 150], [200, 50]])


def test_the_sheet(place, tmp_path):
    check = check_capture(read_capture(place), 3)
    assert check.is_good
    assert check.lines[0].startswith("6 frames; 160 x 120 pixels, 56 degrees across")
    sheet = draw_sheet(check)
    assert sheet.width == WIDTH
    colors = np.asarray(sheet.resize((360, sheet.height // 4))).reshape(-1, 3)
    assert len(np.unique(colors // 32, axis=0)) > 60


def test_a_sheet_without_pictures_shows_none(place):
    """It does not change with what is in the pictures, as long as that was measured before."""
    check = check_capture(read_capture(place), 3)
    assert len(check.pairs) > 0
    bare = np.asarray(draw_sheet(check, pictures=False))
    assert len(bare) < len(np.asarray(draw_sheet(check)))
    negative = [replace(pair, views=replace(pair.views, images=1 - pair.views.images)) for pair in check.pairs]
    assert np.array_equal(np.asarray(draw_sheet(replace(check, pairs=tuple(negative)), pictures=False)), bare)
    assert not np.array_equal(
        np.asarray(draw_sheet(replace(check, pairs=tuple(negative)))), np.asarray(draw_sheet(check))
    )


def test_sheets_of_cameras_only_one_frame_and_many_problems(tmp_path, place):
    content = write_transforms(tmp_path)
    content["frames"] = content["frames"][:1] + [{"file_path": f"images/gone{i}.png"} for i in range(9)]
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    check = check_capture(read_capture(tmp_path))
    assert "9 missing" in check.lines[0]
    assert "3 more" in check.lines[-1]
    assert draw_sheet(check).width == WIDTH
    cameras = {
        "width": 64,
        "height": 48,
        "frames": [{"camera_to_world": pose.tolist(), "K": [[60, 0, 32], [0, 60, 24], [0, 0, 1]]} for pose in poses()],
    }
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "cameras.json").write_text(json.dumps(cameras))
    bare = read_capture(tmp_path / "bare")
    assert not bare.has_pictures
    assert draw_sheet(check_capture(bare)).width == WIDTH
    with pytest.raises(ValueError, match="cameras only"):
        bare.load([0], 16, 16)
