"""Captures of real places: what is known of them comes out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from latent3d.data.captures.reading import read_capture
from latent3d.geometry.rays import unproject


@pytest.mark.parametrize(
    ("name", "layout", "frames", "missing"),
    [
        ("posed_fox", None, 50, 0),
        ("posed_fox", "transforms", 50, 17),
        ("posed_rgbd_dining_room", None, 5, 0),
        ("gobjaverse_views_sample", None, 40, 0),
        ("lego_loader_test", None, 2, 0),
        ("re10k_trajectories/0c11dbe781b1c11c.txt", None, 16, 0),
        ("garden_points_cameras", None, 3, 0),
        ("camera_paths_custom/example_1", None, 500, 0),
    ],
)
def test_real_captures(shared_data, name, layout, frames, missing):
    capture = read_capture(shared_data(name), layout=layout)
    assert (len(capture), len(capture.missing), capture.problems) == (frames, missing, ())
    if capture.has_pictures:
        views = capture.load([0, frames - 1], 32, 40)
        assert views.images.shape == (2, 3, 32, 40)
        assert bool(torch.isfinite(views.images).all())


def test_fox_is_the_same_from_both_of_its_files(shared_data):
    one, two = (read_capture(shared_data("posed_fox"), layout=name) for name in ("cameras.json", "transforms"))
    np.testing.assert_allclose(one.c2w, two.c2w, atol=1e-9)
    assert [frame.name for frame in one.frames] == [frame.name for frame in two.frames]


def test_gobjaverse_depth_is_z_depth_and_agrees_between_views(shared_data):
    """Points of one view, moved into its neighbour, lie on the surface that the neighbour's depth map tells."""
    views = read_capture(shared_data("gobjaverse_views_sample")).load([0, 1], 256, 256)
    points = unproject(views.cameras[0], views.depths[0])[views.depths[0, 0] > 0]
    pixels, depth = views.cameras[1].project(points)
    x, y = (pixels[:, i].floor().long().clamp(0, 255) for i in (0, 1))
    seen = views.depths[1, 0, y, x]
    assert float(((seen - depth).abs() < 0.01)[seen > 0].float().mean()) > 0.7


def test_cameras_of_plain_photos_agree_with_known_ones(tmp_path, shared_data):
    """Estimated poses equal the published ones up to one similarity: compare turns, and ratios of distances."""
    pytest.importorskip("pycolmap")
    known = read_capture(shared_data("posed_fox"))
    chosen = known.frames[:8]
    for frame in chosen:
        with Image.open(frame.picture) as picture:
            picture.resize((360, 640)).save(tmp_path / frame.picture.name)
    capture = read_capture(tmp_path)
    assert (capture.layout, len(capture), capture.metric) == ("photos", 8, False)
    truth = np.stack([frame.c2w for frame in chosen])
    turns = [pose[0, :3, :3].T @ pose[:, :3, :3] for pose in (capture.c2w, truth)]
    angle = np.degrees(np.arccos(np.clip((np.einsum("nij,nij->n", *turns) - 1) / 2, -1, 1)))
    assert angle.max() < 1.5
    lengths = [np.linalg.norm(pose[1:, :3, 3] - pose[0, :3, 3], axis=1) for pose in (capture.c2w, truth)]
    ratio = lengths[0] / lengths[1]
    assert np.ptp(ratio[2:]) < 0.1 * ratio.mean()
