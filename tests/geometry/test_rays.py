"""Rays, Plücker maps and the lift from z-depth, against projection and against each other."""

import pytest
import torch

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.rays import (
    camera_rays,
    invert_intrinsics,
    normalized_ray_z1,
    pixel_grid,
    plucker_map,
    rays_z1,
    unproject,
)


def test_intrinsics_inverse_agrees_with_a_solver():
    k = torch.tensor([[300.0, 2.5, 64.0], [0, 280.0, 48.0], [0, 0, 1]], dtype=torch.float64).expand(2, 3, 3)
    torch.testing.assert_close(invert_intrinsics(k), torch.linalg.inv(k))


def test_directions_are_unit_and_origins_are_centres(draw_cameras):
    cameras = draw_cameras(2, 3)
    origins, directions = camera_rays(cameras)
    assert origins.shape == directions.shape == (2, 3, 24, 32, 3)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(2, 3, 24, 32, dtype=torch.float64))
    torch.testing.assert_close(origins[:, :, 5, 6], cameras.centers)


def test_known_ray_of_the_identity_camera():
    k = torch.tensor([[10.0, 0, 2.0], [0, 5.0, 1.0], [0, 0, 1]])
    rays = normalized_ray_z1(Cameras(w2c=torch.eye(4), k=k, height=2, width=4))
    torch.testing.assert_close(rays[1, 3], torch.tensor([(3.5 - 2) / 10, (1.5 - 1) / 5, 1.0]))


def test_points_along_a_ray_project_to_its_pixel(draw_cameras):
    cameras = draw_cameras(2, 3)
    origins, directions = camera_rays(cameras)
    points = origins + 2.7 * directions
    pixels, depths = cameras.project(points.flatten(-3, -2))
    torch.testing.assert_close(pixels, pixel_grid(24, 32, dtype=torch.float64).flatten(0, 1).expand_as(pixels))
    distance = (points.flatten(-3, -2) - cameras.centers[..., None, :]).norm(dim=-1)
    assert (depths < distance).all()


def test_unproject_and_project_are_inverse_with_z_depth(draw_cameras):
    cameras = draw_cameras(2, 3)
    depths = 1 + 5 * torch.rand(2, 3, 1, 24, 32, dtype=torch.float64)
    pixels, z = cameras.project(unproject(cameras, depths).flatten(-3, -2))
    torch.testing.assert_close(pixels, pixel_grid(24, 32, dtype=torch.float64).flatten(0, 1).expand_as(pixels))
    torch.testing.assert_close(z, depths.flatten(-3))


def test_z1_rays_have_unit_depth_and_share_pixels_over_cameras(draw_cameras):
    cameras = draw_cameras(4)
    pixels = torch.tensor([[1.0, 2.0], [30.0, 11.0]], dtype=torch.float64)
    rays = rays_z1(pixels, cameras)
    assert rays.shape == (4, 2, 3)
    forward = cameras.c2w[:, :3, 2]
    torch.testing.assert_close((rays * forward[:, None]).sum(-1), torch.ones(4, 2, dtype=torch.float64))


def test_unproject_refuses_another_size(draw_cameras):
    with pytest.raises(ValueError, match="resized"):
        unproject(draw_cameras(1), torch.ones(1, 1, 12, 16, dtype=torch.float64))


def test_plucker_moment_does_not_depend_on_the_point_of_the_ray(draw_cameras):
    cameras = draw_cameras(3)
    origins, directions = camera_rays(cameras)
    shift = torch.randn(3, 24, 32, 1, dtype=torch.float64)
    moved = torch.linalg.cross(origins + shift * directions, directions, dim=-1)
    torch.testing.assert_close(plucker_map(cameras)[:, :3], moved.movedim(-1, 1))


def test_plucker_map_is_moment_then_direction_and_perpendicular(draw_cameras):
    cameras = draw_cameras(2)
    maps = plucker_map(cameras)
    assert maps.shape == (2, 6, 24, 32)
    torch.testing.assert_close(maps[:, 3:], camera_rays(cameras)[1].movedim(-1, 1))
    torch.testing.assert_close((maps[:, :3] * maps[:, 3:]).sum(1), torch.zeros(2, 24, 32, dtype=torch.float64))
    identity = Cameras.from_fov(torch.eye(4), 60.0, 4, 4)
    assert torch.equal(plucker_map(identity)[:3], torch.zeros(3, 4, 4))


def test_two_rays_that_meet_have_zero_reciprocal_product(draw_cameras):
    """Lines (m1, d1) and (m2, d2) meet exactly if d1 . m2 + d2 . m1 = 0."""
    cameras = draw_cameras(2)
    point = torch.tensor([0.1, -0.2, 4.0], dtype=torch.float64)
    directions = torch.nn.functional.normalize(point - cameras.centers, dim=-1)
    moments = torch.linalg.cross(cameras.centers, directions, dim=-1)
    meeting = (directions[0] * moments[1]).sum() + (directions[1] * moments[0]).sum()
    assert abs(meeting.item()) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_comes_from_the_cameras(draw_cameras, dtype):
    cameras = draw_cameras(2, dtype=dtype)
    assert plucker_map(cameras).dtype == dtype
    assert normalized_ray_z1(cameras).dtype == dtype


def test_rays_are_differentiable_in_pose_and_intrinsics(draw_cameras):
    cameras = draw_cameras(1, height=2, width=3)

    def maps(w2c, k):
        return plucker_map(Cameras(w2c=w2c, k=k, height=2, width=3))

    inputs = (cameras.w2c.clone().requires_grad_(), cameras.k.clone().requires_grad_())
    assert torch.autograd.gradcheck(maps, inputs)
