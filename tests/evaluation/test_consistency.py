import math

import numpy as np
import pytest
import torch

from latent3d.evaluation.consistency import TSEDConfig, TSEDPairs, sift_features, tsed
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.epipolar import fundamental_matrix, symmetric_epipolar_distance

from .plane_world import plane_clip

X1, X2 = torch.tensor([[100.0, 140.0]], dtype=torch.float64), torch.tensor([[60.0, 150.0]], dtype=torch.float64)


def _pair(flip: bool) -> tuple[Cameras, Cameras]:
    k = torch.tensor([[256.0, 0, 128], [0, 256, 128], [0, 0, 1]], dtype=torch.float64)
    second = torch.eye(4, dtype=torch.float64)
    second[0, 0] = second[2, 2] = math.cos(0.2)
    second[0, 2], second[2, 0] = math.sin(0.2), -math.sin(0.2)
    second[:3, 3] = torch.tensor([0.5, 0.1, -0.3])
    c2w = torch.stack([torch.eye(4, dtype=torch.float64), second])
    if flip:  # Blender's camera axes (y up, looking along -z) to OpenCV's
        c2w = c2w @ torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
    cameras = Cameras.from_c2w(c2w, k.expand(2, 3, 3), 256, 256)
    return cameras[0], cameras[1]


@pytest.mark.parametrize(("flip", "answer"), [(True, 8.0649), (False, 6.0279)])
def test_sed_known_answers_guard_the_axes(flip, answer):
    sed = symmetric_epipolar_distance(fundamental_matrix(*_pair(flip)), X1, X2)
    assert float(sed) == pytest.approx(answer, abs=5e-5)


def test_sed_of_an_exact_correspondence_is_0():
    first, second = _pair(False)
    points = torch.tensor([[0.3, -0.2, 4.0], [-1.0, 0.5, 6.0]], dtype=torch.float64)
    sed = symmetric_epipolar_distance(
        fundamental_matrix(first, second), first.project(points)[0], second.project(points)[0]
    )
    assert float(sed.max()) < 1e-12


def test_true_frames_are_consistent_and_shuffled_poses_are_not():
    clip, config = plane_clip(size=96), TSEDConfig()
    true = tsed(clip.images, clip.cameras, config).summary(config)
    assert true["tsed"] == 1.0
    assert true["pairs"] == 7
    assert true["matches"] > 20
    assert true["median_sed_px"] < 0.3
    assert set(true["curve"].values()) == {1.0}
    # The path is smooth, so that a shuffle must also change the epipoles' directions: turn some frames' motion around.
    order = torch.tensor([3, 0, 6, 1, 7, 2, 5, 4])
    c2w = clip.cameras.c2w[order].clone()
    c2w[::2, :3, 3] *= torch.tensor([-1.0, 4.0, 1.0])
    shuffled = Cameras.from_c2w(c2w, clip.cameras.k, 96, 96)
    assert tsed(clip.images, shuffled, config).summary(config)["tsed"] <= 1 / 7


def test_frames_without_texture_are_inconsistent():
    clip, config = plane_clip(views=3, size=64), TSEDConfig()
    summary = tsed(torch.full_like(clip.images, 0.5), clip.cameras, config).summary(config)
    assert summary["tsed"] == 0
    assert summary["matches"] == 0


def test_pairs_without_baseline_are_left_out():
    clip, config = plane_clip(views=4, size=64), TSEDConfig()
    w2c = clip.cameras.w2c.clone()
    w2c[1] = w2c[0]
    cameras = Cameras(w2c, clip.cameras.k, 64, 64)
    summary = tsed(clip.images, cameras, config).summary(config)
    assert (summary["pairs"], summary["pairs_without_baseline"]) == (2, 1)
    still = Cameras(w2c[:1].expand(4, 4, 4), clip.cameras.k, 64, 64)
    assert math.isnan(tsed(clip.images, still, config).summary(config)["tsed"])


def test_thresholds_scale_with_the_image():
    pairs = TSEDPairs(np.array([20, 20, 5]), np.array([0.6, 1.4, 0.1]), np.zeros(3, bool), side=128)
    assert pairs.score(2.0, 10) == pytest.approx(1 / 3)  # 1 px at 128
    assert pairs.score(3.0, 10) == pytest.approx(2 / 3)  # 1.5 px
    assert pairs.score(3.0, 5) == 1
    with pytest.raises(ValueError, match="headline"):
        TSEDConfig(headline=5.0)


def test_sift_positions_follow_our_pixel_convention():
    # A bright blob around pixel position (20.5, 12.5): found there whatever the enlargement.
    ys, xs = torch.meshgrid(torch.arange(40) + 0.5, torch.arange(40) + 0.5, indexing="ij")
    blob = torch.exp(-((xs - 20.5) ** 2 + (ys - 12.5) ** 2) / (2 * 2.0**2)).expand(3, 40, 40)
    for side in (40, 80, 160):
        positions, _ = sift_features(blob, side, 0.02)
        nearest = np.abs(positions - np.array([20.5, 12.5])).max(1).min()
        assert nearest < 0.1
