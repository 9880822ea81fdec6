"""Epipolar geometry against projection, OpenCV and known answers."""

import math

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.epipolar import (
    depth_to_relative_disparity,
    epipolar_samples,
    epipolar_segments,
    fundamental_matrix,
    relative_disparity_to_depth,
    symmetric_epipolar_distance,
)
from latent3d.geometry.rays import normalized_ray_z1, pixel_grid, rays_z1
from latent3d.geometry.rotations import axis_angle, quaternion_to_matrix

NEAR, FAR = 0.5, 20.0
H, W, S = 12, 16, 9
SPACINGS = ["disparity", "segment"]


def _sample_points(query: Cameras, depths: torch.Tensor) -> torch.Tensor:
    """World points of samples (B, N, h, w, S) of query cameras (B,), flattened to (B, N, P, 3)."""
    query = query.resized(H, W)
    rays = normalized_ray_z1(query)[:, None, :, :, None]
    return (query.centers[:, None, None, None, None] + depths[..., None] * rays).flatten(2, 4)


def _inside(pixels, depths, width=W, height=H):
    x, y = pixels.unbind(-1)
    return (depths > 1e-3 * NEAR) & (x >= 0) & (x <= width) & (y >= 0) & (y <= height)


def test_relative_disparity_known_values_and_inverse():
    relative = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    depth = relative_disparity_to_depth(relative, 1.0, 3.0)
    torch.testing.assert_close(depth, torch.tensor([1.0, 1.5, 3.0], dtype=torch.float64))
    drawn = torch.rand(50, dtype=torch.float64)
    near, far = 0.1 + torch.rand(50, dtype=torch.float64), 2 + torch.rand(50, dtype=torch.float64)
    there = relative_disparity_to_depth(drawn, near, far)
    torch.testing.assert_close(depth_to_relative_disparity(there, near, far), drawn)
    assert ((there > near) & (there < far)).all()


@pytest.mark.parametrize(("blender", "expected"), [(True, 8.0649), (False, 6.0279)])
def test_symmetric_epipolar_distance_known_answers_guard_the_axes(blender, expected):
    k = torch.tensor([[256.0, 0, 128], [0, 256, 128], [0, 0, 1]], dtype=torch.float64)
    turn = axis_angle(torch.tensor([0, 1.0, 0], dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64))
    c2w = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    c2w[1, :3, :3], c2w[1, :3, 3] = quaternion_to_matrix(turn), torch.tensor([0.5, 0.1, -0.3])
    if blender:
        c2w = c2w @ torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
    cameras = Cameras.from_c2w(c2w, k.expand(2, 3, 3), 256, 256)
    first = torch.tensor([[100.0, 140]], dtype=torch.float64)
    second = torch.tensor([[60.0, 150]], dtype=torch.float64)
    distance = symmetric_epipolar_distance(fundamental_matrix(cameras[0], cameras[1]), first, second)
    assert distance.item() == pytest.approx(expected, abs=5e-5)


def test_fundamental_matrix_of_true_matches_is_zero_and_agrees_with_opencv(draw_cameras):
    first, second = draw_cameras(2)[0], draw_cameras(2)[1]
    points = torch.rand(200, 3, dtype=torch.float64) * 2 + torch.tensor([-1, -1, 3.0])
    x1, x2 = first.project(points)[0], second.project(points)[0]
    fundamental = fundamental_matrix(first, second)
    assert symmetric_epipolar_distance(fundamental, x1, x2).max() < 1e-9
    theirs, _ = cv2.findFundamentalMat(x1.numpy(), x2.numpy(), cv2.FM_8POINT)
    ours = (fundamental / fundamental.norm()).numpy()
    theirs = theirs / np.linalg.norm(theirs)
    np.testing.assert_allclose(ours * np.sign((ours * theirs).sum()), theirs, atol=1e-6)
    torch.testing.assert_close(fundamental_matrix(second, first), fundamental.mT, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_samples_are_projections_of_their_depths(draw_cameras, spacing):
    query, others = draw_cameras(2, seed=1), draw_cameras(2, 4, seed=2, fov=75.0)
    samples = epipolar_samples(query, others, S, NEAR, FAR, H, W, spacing)
    assert samples.positions.shape == (2, 4, H, W, S, 2)
    assert samples.valid.shape == samples.depths.shape == (2, 4, H, W, S)
    points = _sample_points(query, samples.depths)
    pixels, depths = others.resized(H, W).project(points)
    valid = samples.valid.flatten(2)
    torch.testing.assert_close(samples.positions.flatten(2, 4)[valid], pixels[valid], atol=1e-9, rtol=0)
    if spacing == "disparity":
        assert torch.equal(valid, _inside(pixels, depths))
    assert 0.1 < valid.double().mean() < 1  # the draw has both visible and invisible samples
    assert torch.isfinite(samples.positions).all()
    x, y = samples.positions[~samples.valid].unbind(-1)
    assert ((x < 0) | (x > W) | (y < 0) | (y > H)).all()
    assert ((samples.depths >= NEAR * (1 - 1e-9)) & (samples.depths <= FAR * (1 + 1e-9))).all()


def test_disparity_spacing_gives_the_same_depths_in_all_views(draw_cameras):
    samples = epipolar_samples(draw_cameras(2), draw_cameras(2, 3, seed=5), S, NEAR, FAR, H, W)
    relative = (torch.arange(S, dtype=torch.float64) + 0.5) / S
    expected = relative_disparity_to_depth(relative, NEAR, FAR)
    torch.testing.assert_close(samples.depths, expected.expand_as(samples.depths))


def test_segment_spacing_divides_the_clipped_segment_evenly(draw_cameras):
    query, others = draw_cameras(2, seed=1), draw_cameras(2, 4, seed=2)
    samples = epipolar_samples(query, others, S, NEAR, FAR, H, W, "segment")
    pixels = pixel_grid(H, W, dtype=torch.float64).flatten(0, 1)
    small = (query.resized(H, W)[:, None], others.resized(H, W))
    segments = epipolar_segments(pixels, *small, NEAR, FAR)
    fraction = ((torch.arange(S, dtype=torch.float64) + 0.5) / S)[:, None]
    even = segments.start[..., None, :] * (1 - fraction) + segments.end[..., None, :] * fraction
    valid = segments.valid
    torch.testing.assert_close(samples.positions.flatten(2, 3)[valid], even[valid], atol=1e-9, rtol=0)
    assert torch.equal(samples.valid.flatten(2, 3), valid[..., None].expand(-1, -1, -1, S))
    assert (samples.depths.diff(dim=-1) > 0).all()


def test_segments_agree_with_dense_sampling(draw_cameras):
    """A segment is the hull of what a dense sweep of depths sees, and is empty exactly if that sees nothing."""
    first, second = draw_cameras(6, seed=3), draw_cameras(6, seed=4, fov=40.0)
    pixels = torch.rand(30, 2, dtype=torch.float64) * torch.tensor([32.0, 24.0])
    segments = epipolar_segments(pixels, first, second, NEAR, FAR)
    w = torch.linspace(1 / NEAR, 1 / FAR, 4001, dtype=torch.float64)
    rays = rays_z1(pixels, first)
    points = first.centers[:, None, None] + rays[:, :, None] / w[:, None]
    positions, depths = second.project(points.flatten(1, 2))
    seen = _inside(positions, depths, 32, 24).unflatten(1, (30, 4001))
    agree = seen.any(-1) == segments.valid
    assert agree.double().mean() > 0.99  # a grazing segment may fall between two dense samples
    both = agree & segments.valid
    first_seen = torch.where(seen, 1 / w, math.inf).amin(-1)[both]
    last_seen = torch.where(seen, 1 / w, -math.inf).amax(-1)[both]
    step = 1 / w.diff().abs().max()
    assert (1 / segments.start_depth[both] - 1 / first_seen).abs().max() <= 1.001 / step
    assert (1 / segments.end_depth[both] - 1 / last_seen).abs().max() <= 1.001 / step
    assert 0.2 < both.double().mean() < 1


def test_segment_ends_lie_on_the_epipolar_line(draw_cameras):
    first, second = draw_cameras(3, seed=6), draw_cameras(3, seed=7)
    pixels = torch.rand(3, 40, 2, dtype=torch.float64) * torch.tensor([32.0, 24.0])
    segments = epipolar_segments(pixels, first, second, NEAR, FAR)
    fundamental = fundamental_matrix(first, second)
    for ends in (segments.start, segments.end):
        assert symmetric_epipolar_distance(fundamental, pixels, ends)[segments.valid].max() < 1e-6
        assert _inside(ends[segments.valid] + 1e-9, torch.ones(()), 32 + 2e-9, 24 + 2e-9).all()


def test_stereo_pair_known_segment():
    """Rectified stereo: disparity f b / z along the row, to the left in the right camera."""
    c2w = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    c2w[1, 0, 3] = 0.5
    k = torch.tensor([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]], dtype=torch.float64).expand(2, 3, 3)
    cameras = Cameras.from_c2w(c2w, k, 80, 100)
    pixels = torch.tensor([[60.5, 30.5], [10.5, 30.5]], dtype=torch.float64)
    segments = epipolar_segments(pixels, cameras[0], cameras[1], 1.0, 10.0)
    torch.testing.assert_close(segments.start, torch.tensor([[10.5, 30.5], [0.0, 30.5]], dtype=torch.float64))
    torch.testing.assert_close(segments.end, torch.tensor([[55.5, 30.5], [5.5, 30.5]], dtype=torch.float64))
    torch.testing.assert_close(segments.start_depth, torch.tensor([1.0, 50 / 10.5], dtype=torch.float64))


def test_what_lies_behind_the_other_camera_is_cut_off():
    """The other camera stands 2 ahead on the same axis: points nearer than 2 are behind it, and mirror if kept."""
    c2w = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    c2w[1, 2, 3] = 2.0
    cameras = Cameras.from_fov(c2w, 90.0, 32, 32)
    pixels = torch.tensor([[20.0, 16.0]], dtype=torch.float64)
    segments = epipolar_segments(pixels, cameras[0], cameras[1], 1.0, 100.0)
    assert segments.valid.item()
    assert segments.start_depth.item() == pytest.approx(
        8 / 3
    )  # x = z / 4 and z - 2 meet the image's edge at 45 degrees
    assert segments.start[0, 0].item() == pytest.approx(32.0)
    behind = epipolar_segments(pixels, cameras[0], cameras[1], 1.0, 1.9)
    assert not behind.valid.item()
    for spacing in SPACINGS:
        samples = epipolar_samples(cameras[0], cameras[1:], 8, 1.0, 1.9, 8, 8, spacing)
        assert not samples.valid.any()
        assert (samples.positions < 0).all()


@pytest.mark.parametrize("spacing", SPACINGS)
def test_pure_rotation_gives_points_and_finite_depths(draw_cameras, spacing):
    query = draw_cameras(1)
    turned = query.w2c.clone()
    turned[:, :3] = quaternion_to_matrix(torch.tensor([1.0, 0.02, 0.05, 0.0]).double()) @ turned[:, :3]
    others = Cameras(w2c=turned[:, None], k=query.k[:, None], height=24, width=32)
    samples = epipolar_samples(query, others, S, NEAR, FAR, H, W, spacing)
    spread = samples.positions.amax(-2) - samples.positions.amin(-2)
    assert spread.max() < 1e-9
    assert samples.valid.any()
    assert torch.isfinite(samples.depths).all()


@pytest.mark.parametrize("spacing", SPACINGS)
def test_bilinear_sampling_reads_what_the_point_shows(draw_cameras, spacing):
    """A feature map that holds its own positions is read back at the positions."""
    samples = epipolar_samples(draw_cameras(2), draw_cameras(2, 3, seed=9), S, NEAR, FAR, H, W, spacing)
    features = pixel_grid(H, W, dtype=torch.float64).movedim(-1, 0).expand(6, 2, H, W)
    grid = samples.sampling_grid().flatten(0, 1).flatten(1, 2)
    read = functional.grid_sample(features, grid, align_corners=False, padding_mode="border")
    read = read.movedim(1, -1).reshape(2, 3, H, W, S, 2)
    low, high = torch.tensor([0.5, 0.5]), torch.tensor([W - 0.5, H - 0.5])
    inner = samples.valid & ((samples.positions > low) & (samples.positions < high)).all(-1)
    assert inner.any()
    torch.testing.assert_close(read[inner], samples.positions[inner], atol=1e-9, rtol=0)


def test_a_known_point_is_hit_within_half_a_pixel(draw_cameras):
    """Spec 12.5: on the epipolar samples of a pixel lies the projection of the point it shows."""
    query, others = draw_cameras(2, seed=1), draw_cameras(2, 4, seed=2)
    samples = epipolar_samples(query, others, 128, NEAR, FAR, H, W)
    relative = 0.1 + 0.88 * torch.rand(2, 1, H, W, 1, dtype=torch.float64)
    points = _sample_points(query, relative_disparity_to_depth(relative, NEAR, FAR))
    truth, depths = others.resized(H, W).project(points.expand(2, 4, -1, 3))
    gaps = (samples.positions.flatten(2, 3) - truth[..., None, :]).norm(dim=-1).amin(-1)
    inside = _inside(truth, depths)
    assert inside.any()
    assert gaps[inside].max() < 0.5


@pytest.mark.parametrize("spacing", SPACINGS)
def test_batching_and_tensor_bounds_equal_a_loop(draw_cameras, spacing):
    query, others = draw_cameras(2, 3, seed=1), draw_cameras(2, 3, 2, seed=2)
    near = 0.3 + torch.rand(2, 3, dtype=torch.float64)
    far = 5 + torch.rand(2, 3, dtype=torch.float64)
    whole = epipolar_samples(query, others, S, near, far, H, W, spacing)
    for b in range(2):
        for m in range(3):
            part = epipolar_samples(query[b, m], others[b, m], S, near[b, m].item(), far[b, m].item(), H, W, spacing)
            torch.testing.assert_close(whole.positions[b, m], part.positions, atol=1e-9, rtol=0)
            assert torch.equal(whole.valid[b, m], part.valid)
            torch.testing.assert_close(whole.depths[b, m], part.depths)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_single_precision_and_autocast_stay_within_a_hundredth_of_a_pixel(draw_cameras, spacing):
    query, others = draw_cameras(2, seed=1), draw_cameras(2, 3, seed=2)
    exact = epipolar_samples(query, others, S, NEAR, FAR, H, W, spacing)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        single = epipolar_samples(query.to(torch.float32), others.to(torch.float32), S, NEAR, FAR, H, W, spacing)
    assert single.positions.dtype == torch.float32
    both = exact.valid & single.valid
    assert both.sum() > 0.99 * exact.valid.sum()
    error = (single.positions.double() - exact.positions)[both].abs()
    assert error.max() < 0.01


@pytest.mark.parametrize("spacing", SPACINGS)
def test_gradients_with_respect_to_poses_are_finite_and_right(draw_cameras, spacing):
    query, others = draw_cameras(1, seed=1), draw_cameras(1, 2, seed=2)

    def positions(w2c):
        moved = Cameras(w2c=w2c, k=others.k, height=24, width=32)
        samples = epipolar_samples(query, moved, 3, NEAR, FAR, 2, 3, spacing)
        return samples.positions * samples.valid[..., None]

    w2c = others.w2c.clone().requires_grad_()
    assert torch.autograd.gradcheck(positions, (w2c,))


def test_impossible_requests_are_refused(draw_cameras):
    cameras = draw_cameras(2)
    with pytest.raises(ValueError, match="0 < near < far"):
        epipolar_samples(cameras[0], cameras[1:], S, 2.0, 1.0, H, W)
    with pytest.raises(ValueError, match="0 < near < far"):
        epipolar_segments(torch.ones(1, 2).double(), cameras[0], cameras[1], 0.0, 1.0)
