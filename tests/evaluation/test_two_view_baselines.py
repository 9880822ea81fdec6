"""What two pictures are worth without depth, against motions whose answer is known."""

import math

import numpy as np
import pytest
import torch

from latent3d.evaluation.image_metrics import psnr
from latent3d.evaluation.two_view_baselines import (
    METHODS,
    blend_references,
    flow_warp,
    homography_warp,
    infinite_homography,
    match_homography,
    optical_flow,
    path_positions,
)
from latent3d.geometry.cameras import Cameras
from latent3d.representations.views import Views

from .plane_world import texture

SIZE = 96
CENTRE = slice(12, SIZE - 12)


def _cameras(positions, degrees):
    poses = torch.eye(4).repeat(len(positions), 1, 1)
    for i, (x, angle) in enumerate(zip(positions, degrees, strict=True)):
        a = math.radians(angle)
        poses[i, 0, 0] = poses[i, 2, 2] = math.cos(a)
        poses[i, 0, 2], poses[i, 2, 0] = math.sin(a), -math.sin(a)
        poses[i, 0, 3] = x
    return Cameras.from_fov(poses, 50.0, SIZE, SIZE)


def _plane(cameras, depth=4.0, seed=0):
    """A textured plane z = depth, seen by cameras that may turn and move; enlarged three times for smoothness."""
    from latent3d.geometry.rays import normalized_ray_z1

    fine = cameras.resized(3 * SIZE, 3 * SIZE)
    rays, centers = normalized_ray_z1(fine), fine.centers[:, None, None]
    point = centers + rays * ((depth - centers[..., 2:]) / rays[..., 2:])
    picture = texture(seed).expand(len(cameras), -1, -1, -1)
    images = torch.nn.functional.grid_sample(
        picture, point[..., :2] / depth, align_corners=False, padding_mode="reflection"
    )
    return Views(torch.nn.functional.avg_pool2d(images, 3), cameras)


def _middle(images, truth):
    return psnr(images[..., CENTRE, CENTRE], truth[..., CENTRE, CENTRE]).min().item()


def test_path_positions_follow_centres_or_angles():
    cameras = _cameras([0.0, 0.25, 0.5, 1.0], [0.0] * 4)
    torch.testing.assert_close(path_positions(cameras[[0, 3]], cameras), torch.tensor([0.0, 0.25, 0.5, 1.0]))
    turning = _cameras([0.0] * 4, [0.0, 2.0, 6.0, 8.0])
    torch.testing.assert_close(
        path_positions(turning[[0, 3]], turning), torch.tensor([0.0, 0.25, 0.75, 1.0]), atol=2e-3, rtol=0
    )


def test_blend_is_linear_in_the_position():
    cameras = _cameras([0.0, 0.3, 1.0], [0.0] * 3)
    images = torch.stack([torch.zeros(3, SIZE, SIZE), torch.ones(3, SIZE, SIZE)])
    out = blend_references(Views(images, cameras[[0, 2]]), cameras[[1]])
    torch.testing.assert_close(out, torch.full_like(out, 0.3))


@pytest.mark.parametrize("name", METHODS)
def test_identical_references_give_themselves(name):
    cameras = _cameras([0.0, 0.0, 0.0], [0.0] * 3)
    clip = _plane(cameras)
    out = METHODS[name](clip[[0, 2]], cameras[[1]])
    assert _middle(out, clip.images[:1]) > 40


@pytest.mark.parametrize("name", METHODS)
def test_the_ends_of_the_path_are_the_references(name):
    cameras = _cameras([0.0, 0.3], [0.0, 0.0])
    clip = _plane(cameras)
    assert _middle(METHODS[name](clip, cameras), clip.images) > 32


def test_homography_is_exact_for_a_turning_camera():
    clip = _plane(_cameras([0.0] * 4, [0.0, 3.0, 6.0, 9.0]))
    references, truth = clip[[0, 3]], clip[[1, 2]]
    out = homography_warp(references, truth.cameras)
    assert _middle(out, truth.images) > _middle(blend_references(references, truth.cameras), truth.images) + 10
    assert _middle(out, truth.images) > 30
    # The matched homography is the one that the poses give.
    matrix = infinite_homography(clip.cameras[0], clip.cameras[3])
    found = torch.from_numpy(match_homography(references))
    corners = torch.tensor([[10.0, 10, 1], [80, 20, 1], [50, 90, 1]], dtype=torch.float64)
    one, two = ((corners @ m.mT)[:, :2] / (corners @ m.mT)[:, 2:] for m in (matrix, found))
    assert (one - two).abs().max() < 0.5


def test_without_matches_the_poses_carry_the_pictures():
    cameras = _cameras([0.0, 0.05, 0.1], [0.0, 4.0, 8.0])
    focal = cameras.k[0, 0, 0]
    x = torch.arange(SIZE) + 0.5 - SIZE / 2
    ramps = [torch.tan(torch.atan(x / focal) + math.radians(a)) * 0.5 + 0.5 for a in (0.0, 4.0, 8.0)]
    images = torch.stack([ramp.expand(3, SIZE, SIZE) for ramp in ramps])
    references = Views(images[[0, 2]], cameras[[0, 2]])
    assert match_homography(references) is None
    assert _middle(homography_warp(references, cameras[[1]]), images[[1]]) > 35


@pytest.mark.parametrize("method", [homography_warp, flow_warp])
def test_a_moving_plane_is_met_half_way(method):
    clip = _plane(_cameras([0.0, 0.08, 0.16, 0.24, 0.32], [0.0] * 5))
    references, truth = clip[[0, 4]], clip[[1, 2, 3]]
    out = method(references, truth.cameras)
    assert _middle(out, truth.images) > 28
    assert _middle(out, truth.images) > _middle(blend_references(references, truth.cameras), truth.images) + 6
    torch.testing.assert_close(out, method(references, truth.cameras), rtol=0, atol=0)


def test_flow_of_a_shifted_picture_is_the_shift():
    clip = _plane(_cameras([0.0, 0.16], [0.0, 0.0]))
    flow = optical_flow(clip.images[0], clip.images[1])
    expected = -0.16 * float(clip.cameras.k[0, 0, 0]) / 4.0
    assert abs(np.median(flow[CENTRE, CENTRE, 0].numpy()) - expected) < 0.1
    assert abs(np.median(flow[CENTRE, CENTRE, 1].numpy())) < 0.1


def test_other_numbers_of_references_are_refused():
    cameras = _cameras([0.0], [0.0])
    for function in METHODS.values():
        with pytest.raises(ValueError, match="two references"):
            function(_plane(cameras), cameras)
