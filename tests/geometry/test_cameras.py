"""`Cameras`: OpenCV axes, pixel centres at one half, one function for every change of image size."""

import math

import cv2
import numpy as np
import pytest
import torch

from latent3d.geometry.cameras import Cameras, invert_rigid
from latent3d.geometry.rays import pixel_grid, unproject


def test_axes_are_opencv_right_down_forward():
    cameras = Cameras.from_fov(torch.eye(4, dtype=torch.float64), 90.0, 100, 200)
    points = torch.tensor([[0, 0, 2], [1, 0, 2], [0, 1, 2], [0, 0, -2]], dtype=torch.float64)
    pixels, depths = cameras.project(points)
    expected = torch.tensor([[100, 50], [150, 50], [100, 100], [100, 50]], dtype=torch.float64)
    torch.testing.assert_close(pixels, expected)
    torch.testing.assert_close(depths, points[:, 2])


def test_projection_agrees_with_opencv(draw_cameras):
    cameras = draw_cameras(3)
    points = torch.randn(3, 50, 3, dtype=torch.float64) + torch.tensor([0, 0, 4.0])
    pixels, _ = cameras.project(points)
    for view in range(3):
        w2c, k = cameras.w2c[view].numpy(), cameras.k[view].numpy().copy()
        # OpenCV puts the centre of the first pixel at 0, this project at 0.5.
        k[:2, 2] -= 0.5
        theirs, _ = cv2.projectPoints(points[view].numpy(), cv2.Rodrigues(w2c[:3, :3])[0], w2c[:3, 3], k, np.zeros(4))
        np.testing.assert_allclose(pixels[view].numpy() - 0.5, theirs[:, 0], atol=1e-9)


def test_depth_is_along_the_axis_and_not_along_the_ray(draw_cameras):
    cameras = draw_cameras(2)
    local = torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64)
    world = cameras.c2w[:, :3, :3] @ local + cameras.centers
    _, depth = cameras.project(world[:, None])
    torch.testing.assert_close(depth[:, 0], torch.full((2,), 4.0, dtype=torch.float64))


def test_first_pixel_centre_is_one_half():
    assert pixel_grid(3, 5)[0, 0].tolist() == [0.5, 0.5]
    assert pixel_grid(3, 5)[2, 4].tolist() == [4.5, 2.5]


@pytest.mark.parametrize(("height", "width"), [(12, 16), (48, 64), (31, 77)])
def test_resizing_moves_positions_with_the_image(draw_cameras, height, width):
    cameras, points = draw_cameras(4), torch.randn(4, 20, 3, dtype=torch.float64) + torch.tensor([0, 0, 5.0])
    before, depth = cameras.project(points)
    resized = cameras.resized(height, width)
    after, same_depth = resized.project(points)
    torch.testing.assert_close(after, before * torch.tensor([width / 32, height / 24], dtype=torch.float64))
    torch.testing.assert_close(depth, same_depth)
    back = resized.resized(24, 32)
    torch.testing.assert_close(back.k, cameras.k)
    assert (resized.height, resized.width) == (height, width)


def test_resizing_agrees_with_averaging_pixels():
    """The mean position of each 2x2 block of pixels is the centre of the half-size image's pixel."""
    centres = pixel_grid(8, 12).unflatten(0, (4, 2)).unflatten(2, (6, 2)).mean((1, 3))
    torch.testing.assert_close(centres / 2, pixel_grid(4, 6))


def test_cropping_shifts_the_principal_point(draw_cameras):
    cameras = draw_cameras(2)
    points = torch.randn(2, 9, 3, dtype=torch.float64) + torch.tensor([0, 0, 5.0])
    cut = cameras.cropped(3, 5, 10, 12)
    torch.testing.assert_close(cut.project(points)[0], cameras.project(points)[0] - torch.tensor([5.0, 3.0]))
    assert (cut.height, cut.width) == (10, 12)


def test_field_of_view():
    cameras = Cameras.from_fov(torch.eye(4, dtype=torch.float64).expand(2, 4, 4), 50.0, 30, 40)
    edge = torch.tensor([[[math.tan(math.radians(25)), 0, 1.0]]], dtype=torch.float64).expand(2, 1, 3)
    torch.testing.assert_close(cameras.project(edge)[0][..., 0], torch.full((2, 1), 40.0, dtype=torch.float64))


def test_rigid_inverse_and_centres(draw_cameras):
    cameras = draw_cameras(3, 2)
    product = cameras.c2w @ cameras.w2c
    torch.testing.assert_close(product, torch.eye(4, dtype=torch.float64).expand_as(product), atol=1e-13, rtol=0)
    torch.testing.assert_close(cameras.centers, cameras.c2w[..., :3, 3])
    torch.testing.assert_close(invert_rigid(cameras.w2c), torch.linalg.inv(cameras.w2c), atol=1e-12, rtol=0)


def test_relative_poses_put_the_origin_camera_at_identity_and_keep_images(draw_cameras):
    cameras, points = draw_cameras(5), torch.randn(1, 11, 3, dtype=torch.float64) + torch.tensor([0, 0, 4.0])
    origin = cameras.c2w[2]
    relative = cameras.relative_to(origin)
    torch.testing.assert_close(relative.w2c[2], torch.eye(4, dtype=torch.float64), atol=1e-13, rtol=0)
    moved = points @ invert_rigid(origin)[:3, :3].T + invert_rigid(origin)[:3, 3]
    before, after = cameras.project(points.expand(5, -1, -1)), relative.project(moved.expand(5, -1, -1))
    torch.testing.assert_close(before[0], after[0])
    torch.testing.assert_close(before[1], after[1])


def test_scaling_the_world_scales_depth_and_keeps_pixels(draw_cameras):
    cameras, points = draw_cameras(3), torch.randn(3, 7, 3, dtype=torch.float64) + torch.tensor([0, 0, 4.0])
    factor = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
    scaled = cameras.scaled(factor)
    torch.testing.assert_close(scaled.centers, cameras.centers * factor[:, None])
    pixels, depth = scaled.project(points * factor[:, None, None])
    before, depth_before = cameras.project(points)
    torch.testing.assert_close(pixels, before)
    torch.testing.assert_close(depth, depth_before * factor[:, None])
    torch.testing.assert_close(cameras.scaled(2.0).centers, 2 * cameras.centers)


def test_no_method_writes_to_its_camera(draw_cameras):
    cameras = draw_cameras(2)
    w2c, k = cameras.w2c.clone(), cameras.k.clone()
    cameras.resized(5, 6), cameras.cropped(1, 2, 3, 4), cameras.scaled(3.0), cameras.relative_to(cameras.c2w[0])
    assert torch.equal(cameras.w2c, w2c)
    assert torch.equal(cameras.k, k)


def test_indexing_and_joining_act_on_the_batch_shape(draw_cameras):
    cameras = draw_cameras(3, 2)
    assert cameras[1].shape == (2,)
    assert cameras[:, 0].shape == (3,)
    assert cameras[..., None].shape == (3, 2, 1)
    assert cameras[..., 0].shape == (3,)
    assert cameras[...].shape == (3, 2)
    assert torch.equal(cameras[..., 1].w2c, cameras.w2c[:, 1])
    joined = Cameras.cat([cameras, cameras[:1]])
    assert len(joined) == 4
    assert torch.equal(joined[3].k, cameras[0].k)
    with pytest.raises(ValueError, match="resized"):
        Cameras.cat([cameras, cameras.resized(4, 4)])


def test_points_on_the_camera_plane_stay_finite():
    cameras = Cameras.from_fov(torch.eye(4), 60.0, 8, 8)
    pixels, _ = cameras.project(torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    assert torch.isfinite(pixels).all()


def test_autocast_does_not_touch_geometry(draw_cameras):
    cameras = draw_cameras(3, height=128, width=128, dtype=torch.float32)
    depths = 3 + torch.rand(3, 1, 128, 128)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        points = unproject(cameras, depths)
        pixels, _ = cameras.project(points.flatten(1, 2))
        inverse = cameras.c2w
    assert points.dtype == pixels.dtype == inverse.dtype == torch.float32
    torch.testing.assert_close(pixels, pixel_grid(128, 128).flatten(0, 1).expand(3, -1, -1), atol=1e-3, rtol=0)
