"""Camera paths: anchored at the identity, modest, smooth, and through their key frames."""

import math

import pytest
import torch

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.rotations import axis_angle, geodesic_angle, look_at, quaternion_to_matrix
from latent3d.geometry.trajectories import (
    TRAJECTORIES,
    dolly,
    interpolate_poses,
    orbit,
    path_depth,
    spiral,
    spline,
    trajectory,
    walk,
)

NAMES = sorted(TRAJECTORIES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [0.3, 7.0])
def test_paths_start_at_the_identity_and_are_rigid(name, depth):
    c2w = trajectory(name, 24, depth=depth, strength=1.5, seed=3)
    assert c2w.shape == (24, 4, 4)
    assert c2w.dtype == torch.float32
    torch.testing.assert_close(c2w[0], torch.eye(4), atol=1e-6, rtol=0)
    rotation = c2w[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(24, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(24))
    assert torch.equal(c2w[:, 3], torch.tensor([0.0, 0, 0, 1]).expand(24, 4))


@pytest.mark.parametrize("name", NAMES)
def test_centres_scale_with_depth_and_rotations_do_not(name):
    near, far = trajectory(name, 16, depth=1.0), trajectory(name, 16, depth=5.0)
    torch.testing.assert_close(far[:, :3, 3], 5 * near[:, :3, 3], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(far[:, :3, :3], near[:, :3, :3], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_default_motion_is_modest_and_keeps_the_focus_in_the_picture(name, seed):
    cameras = Cameras.from_fov(trajectory(name, 40, depth=2.0, seed=seed), 50.0, 96, 128)
    assert cameras.centers.norm(dim=-1).max() < 0.4 * 2.0
    assert cameras.centers.norm(dim=-1).max() > 0.05 * 2.0
    pixels, depths = cameras.project(torch.tensor([0.0, 0, 2.0]).expand(40, 1, 3))
    assert ((pixels > 0) & (pixels < torch.tensor([128.0, 96.0]))).all()
    assert (depths > 1.0).all()


@pytest.mark.parametrize("name", ["orbit", "dolly", "spiral"])
def test_camera_looks_exactly_at_the_focus(name):
    c2w = trajectory(name, 12, depth=3.0)
    local = (c2w[:, :3, :3].mT @ (torch.tensor([0, 0, 3.0]) - c2w[:, :3, 3])[..., None]).squeeze(-1)
    torch.testing.assert_close(local[:, :2], torch.zeros(12, 2), atol=1e-6, rtol=0)
    assert (local[:, 2] > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_strength_zero_stands_still_and_more_strength_moves_further(name):
    still = trajectory(name, 10, depth=2.0, strength=0.0)
    torch.testing.assert_close(still[:, :3, 3], torch.zeros(10, 3), atol=1e-6, rtol=0)
    lengths = [trajectory(name, 10, strength=s)[:, :3, 3].norm(dim=-1).max() for s in (0.5, 1.0, 1.5)]
    assert lengths[0] < lengths[1] < lengths[2]


@pytest.mark.parametrize("name", NAMES)
def test_paths_are_smooth(name):
    """Second differences shrink with the square of the step, as for a curve with bounded acceleration."""
    coarse, fine = (trajectory(name, n, seed=1).double()[:, :3, 3].diff(n=2, dim=0).norm(dim=-1) for n in (61, 241))
    assert fine.max() < coarse.max() / 8


def test_orbit_keeps_its_distance_and_closes():
    c2w = orbit(16, depth=2.0, azimuth=20.0)
    focus = torch.tensor([0, 0, 2.0])
    torch.testing.assert_close((c2w[:, :3, 3] - focus).norm(dim=-1), torch.full((16,), 2.0))
    assert torch.rad2deg(geodesic_angle(c2w[0, :3, :3], c2w[4, :3, :3])).item() == pytest.approx(20.0, abs=0.5)
    step = c2w[:, :3, 3].diff(dim=0).norm(dim=-1)
    assert (c2w[-1, :3, 3] - c2w[0, :3, 3]).norm() < 1.5 * step.max()
    assert c2w[4, 0, 3] > 0 > c2w[12, 0, 3]


def test_dolly_moves_forward_by_its_distance_without_turning():
    c2w = dolly(9, depth=4.0, distance=0.5)
    torch.testing.assert_close(c2w[-1, :3, 3], torch.tensor([0, 0, 2.0]))
    assert torch.equal(c2w[:, :3, :3], torch.eye(3).expand(9, 3, 3))
    assert (dolly(9, strength=-1.0)[-1, 2, 3] < 0).item()
    with pytest.raises(ValueError, match="below 1"):
        dolly(9, distance=1.2)


def test_spiral_widens_to_its_radius():
    c2w = spiral(101, depth=2.0, radius=0.1, advance=0.0, turns=1.0)
    side = c2w[:, :2, 3].norm(dim=-1)
    assert side[-1].item() == pytest.approx(0.2, abs=1e-6)
    assert c2w[25, 1, 3].item() == pytest.approx(0.25 * 0.1, abs=1e-6)


def _keys():
    eyes = torch.tensor([[1.0, 0, 0], [2, 1, 0], [2, 2, 1], [0, 3, 2]], dtype=torch.float64)
    return look_at(eyes, torch.tensor([0.0, 0, 9], dtype=torch.float64).expand(4, 3))


def test_spline_passes_through_its_keys_and_starts_at_the_first():
    keys = _keys()
    path = interpolate_poses(keys, 31)
    torch.testing.assert_close(path[::10], keys, atol=1e-12, rtol=0)
    relative = torch.linalg.inv(keys[:1]) @ keys
    seen = spline(31, keys=keys)
    torch.testing.assert_close(seen[::10], relative.float(), atol=1e-6, rtol=0)
    scaled = spline(31, keys=keys, depth=3.0, strength=0.5)
    torch.testing.assert_close(scaled[:, :3, 3], 1.5 * seen[:, :3, 3], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="two key frames"):
        interpolate_poses(keys[:1], 5)


def test_spline_velocity_is_continuous_at_keys_in_place_and_turn():
    path = interpolate_poses(_keys(), 30001)
    velocity = path[:, :3, 3].diff(dim=0) * 1e4
    turn = geodesic_angle(path[:-1, :3, :3], path[1:, :3, :3]) * 1e4
    for key in (10000, 20000):
        torch.testing.assert_close(velocity[key], velocity[key - 1], atol=2e-3, rtol=0)
        assert turn[key].item() == pytest.approx(turn[key - 1].item(), abs=2e-3)


def test_spline_through_a_uniform_motion_is_uniform():
    keys = torch.eye(4, dtype=torch.float64).repeat(4, 1, 1)
    angles = 0.4 * torch.arange(4, dtype=torch.float64)
    keys[:, :3, :3] = quaternion_to_matrix(axis_angle(torch.tensor([0, 1.0, 0]).double().expand(4, 3), angles))
    keys[:, 0, 3] = 2 * torch.arange(4)
    path = interpolate_poses(keys, 13)
    torch.testing.assert_close(path[:, 0, 3], torch.linspace(0, 6, 13, dtype=torch.float64))
    measured = geodesic_angle(path[:1, :3, :3], path[:, :3, :3])
    torch.testing.assert_close(measured, torch.linspace(0, 1.2, 13, dtype=torch.float64), atol=1e-9, rtol=0)


def test_walk_is_a_function_of_its_seed_and_not_of_the_number_of_views():
    assert torch.equal(walk(9, seed=5), walk(9, seed=5))
    assert not torch.allclose(walk(9, seed=5), walk(9, seed=6))
    torch.testing.assert_close(walk(17, seed=5)[::2], walk(9, seed=5), atol=1e-6, rtol=0)
    state = torch.random.get_rng_state()
    walk(9, seed=5)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("seed", range(5))
def test_walk_goes_forward_and_stays_level(seed):
    c2w = walk(32, seed=seed)
    assert c2w[-1, 2, 3] > 0.1
    assert c2w[:, 1, 3].abs().max() < 0.1 * c2w[:, 2, 3].max()
    roll = c2w[:, 1, 0].abs().max()  # the image's horizontal axis stays horizontal
    assert roll < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_one_view_is_the_reference_itself(name):
    torch.testing.assert_close(trajectory(name, 1), torch.eye(4)[None], atol=1e-6, rtol=0)


def test_bad_requests_say_what_to_do():
    with pytest.raises(ValueError, match="did you mean 'orbit'"):
        trajectory("orbti", 4)
    with pytest.raises(ValueError, match="at least one view"):
        trajectory("walk", 0)
    for depth in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="positive and finite"):
            trajectory("dolly", 4, depth=depth)
    with pytest.raises(ValueError, match=r"below 0\.9"):
        walk(4, strength=4.0)


def test_the_depth_that_scales_a_path_is_the_median_unless_most_is_far_away():
    room = torch.linspace(2, 4, 101)
    assert path_depth(room) == pytest.approx(3.0, abs=0.01)
    outdoors = torch.cat([torch.full((30,), 1.5), torch.full((70,), 30.0)])
    assert path_depth(outdoors) == pytest.approx(3.0)
