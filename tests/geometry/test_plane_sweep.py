"""Plane sweep: the same as lifting and projecting, the same as epipolar samples, and what is not visible."""

from __future__ import annotations

import torch

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.depth_range import DepthRange
from latent3d.geometry.epipolar import epipolar_samples
from latent3d.geometry.plane_sweep import plane_sweep_positions
from latent3d.geometry.rays import unproject
from latent3d.geometry.rotations import from_rotation_vector, quaternion_to_matrix

HEIGHT, WIDTH = 6, 9


def random_cameras(count: int, seed: int = 0, turn: float = 0.2, move: float = 0.4) -> Cameras:
    """Cameras near the origin that look roughly along +z, each with its own lens, at another image size (24 x 36)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    c2w = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    c2w[:, :3, :3] = quaternion_to_matrix(from_rotation_vector(turn * normal(count, 3)))
    c2w[:, :3, 3] = move * normal(count, 3)
    k = torch.eye(3, dtype=torch.float64).repeat(count, 1, 1)
    k[:, 0, 0], k[:, 1, 1] = 30 + normal(count), 30 + normal(count)
    k[:, 0, 2], k[:, 1, 2] = 18 + normal(count), 12 + normal(count)
    return Cameras.from_c2w(c2w, k, 24, 36)


def test_positions_are_projections_of_lifted_pixels():
    query, other = random_cameras(3, 0), random_cameras(3, 1)
    depths = torch.tensor([0.8, 1.7, 4.0, 30.0], dtype=torch.float64)
    positions, valid = plane_sweep_positions(query, other, depths, HEIGHT, WIDTH)
    assert positions.shape == (3, 4, HEIGHT, WIDTH, 2)
    assert valid.shape == (3, 4, HEIGHT, WIDTH)
    small_query, small_other = query.resized(HEIGHT, WIDTH), other.resized(HEIGHT, WIDTH)
    seen = 0
    for index, depth in enumerate(depths):
        points = unproject(small_query, depth.expand(3, 1, HEIGHT, WIDTH)).flatten(1, 2)
        pixel, z = small_other.project(points)
        inside = (z > 1e-3) & (pixel > 0).all(-1) & (pixel[..., 0] < WIDTH) & (pixel[..., 1] < HEIGHT)
        assert torch.equal(valid[:, index].flatten(1) > 0, inside)
        torch.testing.assert_close(positions[:, index].flatten(1, 2)[inside], pixel[inside], rtol=0, atol=1e-9)
        seen += int(inside.sum())
    assert seen > 100
    assert (valid == 0).any()


def test_a_depth_map_per_pixel_is_the_same_as_one_depth_for_all():
    query, other = random_cameras(2, 0), random_cameras(2, 1)
    depths = torch.tensor([0.8, 1.7], dtype=torch.float64)
    maps = depths[None, :, None, None].expand(2, 2, HEIGHT, WIDTH)
    for a, b in zip(
        plane_sweep_positions(query, other, depths, HEIGHT, WIDTH),
        plane_sweep_positions(query, other, maps, HEIGHT, WIDTH),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_agrees_with_epipolar_samples():
    query, other = random_cameras(1, 4, 0.1, 0.1)[0], random_cameras(2, 5, 0.1, 0.1)
    span = DepthRange(near=0.6, far=12.0, spacing="disparity")
    samples = epipolar_samples(query, other, 5, 0.6, 12.0, HEIGHT, WIDTH, spacing="disparity")
    depths = span.depth((torch.arange(5, dtype=torch.float64) + 0.5) / 5)
    pair = Cameras(query.w2c.expand(2, 4, 4), query.k.expand(2, 3, 3), query.height, query.width)
    positions, valid = plane_sweep_positions(pair, other, depths, HEIGHT, WIDTH)
    both = samples.valid & (valid.movedim(1, -1) > 0)
    assert torch.equal(samples.valid, valid.movedim(1, -1) > 0)
    assert both.float().mean() > 0.3
    torch.testing.assert_close(samples.positions[both], positions.movedim(1, -2)[both], rtol=0, atol=1e-9)
    torch.testing.assert_close(samples.depths, depths.expand_as(samples.depths))


def test_the_same_camera_maps_every_pixel_to_its_centre():
    camera = random_cameras(1, 2)
    positions, valid = plane_sweep_positions(camera, camera, torch.tensor([0.5, 50.0]).double(), HEIGHT, WIDTH)
    x, y = torch.arange(WIDTH).double() + 0.5, torch.arange(HEIGHT).double() + 0.5
    expected = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).expand_as(positions)
    torch.testing.assert_close(positions, expected, rtol=0, atol=1e-9)
    assert valid.all()


def test_a_sidestep_moves_pixels_by_focal_times_baseline_over_depth():
    c2w = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    c2w[1, 0, 3] = 0.5
    cameras = Cameras.from_fov(c2w, 90.0, 8, 8)  # focal length 4
    positions, _ = plane_sweep_positions(cameras[:1], cameras[1:], torch.tensor([1.0, 2.0]).double(), 8, 8)
    x = torch.arange(8).double() + 0.5
    torch.testing.assert_close(positions[0, 0, 3, :, 0], x - 2.0)
    torch.testing.assert_close(positions[0, 1, 3, :, 0], x - 1.0)


def test_points_behind_the_other_camera_are_invalid_and_stay_finite():
    c2w = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    c2w[1, 2, 3] = 2.0  # two units ahead of the query: depths 1 and 2 lie behind or in its plane
    cameras = Cameras.from_fov(c2w, 60.0, 8, 8)
    depths = torch.tensor([1.0, 2.0, 2.0005, 3.0], dtype=torch.float64)
    positions, valid = plane_sweep_positions(cameras[:1], cameras[1:], depths, 8, 8)
    assert torch.isfinite(positions).all()
    assert not valid[0, :3].any()
    assert valid[0, 3].any()
    # x -> z x / (z - 2) about the centre: at depth 3 offsets triple
    torch.testing.assert_close(positions[0, 3, 4, 4], torch.tensor([4 + 1.5, 4 + 1.5], dtype=torch.float64))
    outside = (positions[0, :2] < 0).all(-1)
    assert outside.all()  # zero padding reads zero there


def test_nearly_touching_planes_are_bounded():
    c2w = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    c2w[1, 0, 3], c2w[1, 2, 3] = 5.0, 1.0
    cameras = Cameras.from_fov(c2w, 60.0, 8, 8)
    positions, valid = plane_sweep_positions(cameras[:1], cameras[1:], torch.tensor([1.0 + 2e-3]).double(), 8, 8)
    assert positions.abs().max() <= 3 * 8
    assert not valid.any()


def test_autocast_changes_nothing():
    query, other = random_cameras(2, 0).to(torch.float32), random_cameras(2, 1).to(torch.float32)
    depths = torch.tensor([0.8, 3.0])
    plain = plane_sweep_positions(query, other, depths, HEIGHT, WIDTH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = plane_sweep_positions(query, other, depths, HEIGHT, WIDTH)
    assert torch.equal(plain[0], inside[0])
    assert torch.equal(plain[1], inside[1])
    exact, _ = plane_sweep_positions(query.to(torch.float64), other.to(torch.float64), depths.double(), HEIGHT, WIDTH)
    visible = plain[1] > 0
    assert (plain[0].double() - exact)[visible].abs().max() < 1e-3
