"""Cameras around an object: where they stand, that they look at it upright, and that seeds decide."""

from __future__ import annotations

import math

import pytest
import torch

from latent3d.geometry.object_cameras import (
    LAYOUTS,
    OBJAVERSE_RINGS,
    RADIUS,
    SPIRAL_TURN,
    orbit,
    rings,
    sphere,
    spiral,
    turntable,
    upper_hemisphere,
)

SETS = {
    **{name: make(9, radius=1.6, fov_deg=40.0, size=(48, 64)) for name, make in LAYOUTS.items()},
    "rings": rings(radius=1.6, fov_deg=40.0, size=(48, 64)),
}


def elevations(cameras):
    return torch.rad2deg(torch.asin(cameras.centers[:, 2] / cameras.centers.norm(dim=-1)))


@pytest.mark.parametrize("name", SETS)
def test_all_look_at_the_origin_from_their_distance(name):
    cameras = SETS[name]
    pixel, depth = cameras.project(torch.zeros(len(cameras), 1, 3))
    torch.testing.assert_close(pixel, torch.tensor([32.0, 24.0]).expand_as(pixel), rtol=0, atol=1e-4)
    torch.testing.assert_close(depth, torch.full_like(depth, 1.6))
    torch.testing.assert_close(cameras.centers.norm(dim=-1), torch.full((len(cameras),), 1.6))
    rotation = cameras.w2c[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.det(rotation), torch.ones(len(cameras)))
    assert math.degrees(2 * math.atan(32 / cameras.k[0, 0, 0])) == pytest.approx(40, abs=1e-4)


@pytest.mark.parametrize("name", SETS)
def test_up_is_up_in_the_picture(name):
    cameras = SETS[name]
    tips, _ = cameras.project(torch.tensor([[0.0, 0, 0], [0, 0, 0.1]]).expand(len(cameras), 2, 3))
    across, rise = (tips[:, 0] - tips[:, 1]).unbind(-1)
    steep = elevations(cameras).abs() > 89.9
    assert across.abs().max() < 1e-3
    assert (rise[~steep] > 0).all()
    assert rise[steep].abs().max() < 1e-3 if steep.any() else True


def test_known_places_front_right_above_and_below():
    centers = orbit(4, 0.0, 2.0).centers
    expected = torch.tensor([[0.0, -2, 0], [2, 0, 0], [0, 2, 0], [-2, 0, 0]])
    torch.testing.assert_close(centers, expected, rtol=0, atol=1e-6)
    front = orbit(1, 0.0, 2.0, size=64)
    pixel, _ = front.project(torch.tensor([[[0.3, 0.0, 0.0]]]))
    assert pixel[0, 0, 0] > 32  # the object's +x is at the right of its front view
    above, below = rings((), 2.0)
    torch.testing.assert_close(above.centers, torch.tensor([0.0, 0, 2]), rtol=0, atol=1e-6)
    torch.testing.assert_close(below.centers, torch.tensor([0.0, 0, -2]), rtol=0, atol=1e-6)
    for view, sign in ((above, 1), (below, -1)):
        pixel, _ = view.project(torch.tensor([[0.0, 0, 0], [0, 0.3 * sign, 0]]))
        assert pixel[1, 1] < pixel[0, 1]
        assert pixel[1, 0] == pytest.approx(float(pixel[0, 0]), abs=1e-4)


def test_spiral_climbs_evenly_from_the_horizon_and_turns_twenty_radians():
    cameras = spiral(20)
    rise = elevations(cameras)
    torch.testing.assert_close(rise, torch.arange(20) * 4.5, rtol=0, atol=1e-3)
    x, y, _ = cameras.centers.unbind(-1)
    azimuth = torch.atan2(x, -y)
    torch.testing.assert_close(
        ((azimuth.diff() + math.pi) % (2 * math.pi)) - math.pi, torch.full((19,), SPIRAL_TURN / 20)
    )
    assert (cameras.centers[:, 2] >= -1e-6).all()


def test_drawn_sets_are_spread_evenly_by_area_and_by_azimuth():
    cameras = sphere(50, 3)
    x, y, z = (cameras.centers / RADIUS).unbind(-1)
    azimuth = torch.atan2(x, -y) % (2 * math.pi)
    assert sorted((azimuth * 50 / (2 * math.pi)).long().tolist()) == list(range(50))
    assert sorted(((z + 1) * 25).long().tolist()) == list(range(50))
    part = sphere(30, 3, (1.5, 1.8), elevations_deg=(-20.0, 60.0))
    assert -20 <= elevations(part).min() < -10 < 50 < elevations(part).max() <= 60
    distance = part.centers.norm(dim=-1)
    assert 1.5 <= distance.min() < 1.6 < 1.7 < distance.max() <= 1.8
    assert (upper_hemisphere(30, 5).centers[:, 2] >= 0).all()


def test_seeds_decide_and_nothing_else_does():
    first = sphere(8, 7)
    torch.manual_seed(123)
    assert torch.equal(first.w2c, sphere(8, 7).w2c)
    assert not torch.equal(first.w2c, sphere(8, 8).w2c)
    assert not torch.equal(sphere(8, (7, 1)).w2c, sphere(8, (7, 2)).w2c)


def test_the_video_and_the_rings_have_their_numbers():
    assert turntable(64).shape == (24,)
    assert turntable(64).width == 64
    around = rings()
    assert len(around) == 38
    counted = [
        int((elevations(around) - angle).abs().lt(1e-2).sum()) for angle, _ in (*OBJAVERSE_RINGS, (90, 1), (-90, 1))
    ]
    assert counted == [24, 12, 1, 1]
    assert len(rings(((5.0, 3),), poles=False)) == 3


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        orbit(0)
    with pytest.raises(ValueError, match="at least one"):
        rings((), poles=False)
    with pytest.raises(ValueError, match="at least one"):
        sphere(0)
    with pytest.raises(ValueError, match="positive"):
        orbit(3, radius=0.0)
    with pytest.raises(ValueError, match="field of view of 180"):
        orbit(3, fov_deg=180.0)
    with pytest.raises(ValueError, match="interval"):
        sphere(3, elevations_deg=(10.0, -10.0))
