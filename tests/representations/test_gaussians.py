"""`Gaussians`: activated values, rigid moves as a transformation of mean and covariance, and set operations."""

import dataclasses

import pytest
import torch

from latent3d.geometry.rotations import axis_angle, quaternion_to_matrix
from latent3d.representations.gaussians import Gaussians


def _draw(count, seed=0, **channels):
    generator = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.randn(count, 3, generator=generator, dtype=torch.float64),
        quaternions=torch.randn(count, 4, generator=generator, dtype=torch.float64),
        scales=0.1 + torch.rand(count, 3, generator=generator, dtype=torch.float64),
        opacities=torch.rand(count, generator=generator, dtype=torch.float64),
        **{name: torch.rand(count, *shape, dtype=torch.float64) for name, shape in channels.items()},
    )


def _covariance(gaussians):
    rotation = quaternion_to_matrix(gaussians.quaternions)
    return rotation @ torch.diag_embed(gaussians.scales**2) @ rotation.mT


def _pose(seed=1):
    pose = torch.eye(4, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    pose[:3, :3] = quaternion_to_matrix(torch.randn(4, generator=generator, dtype=torch.float64))
    pose[:3, 3] = torch.randn(3, generator=generator, dtype=torch.float64)
    return pose


@pytest.mark.parametrize("scale", [1.0, 0.25, 3.0])
def test_moving_splats_moves_means_and_covariances(scale):
    """x -> R (s x) + t takes the covariance C to s^2 R C R^T."""
    gaussians, pose = _draw(50, colors=(3,), features=(5,)), _pose()
    moved, rotation = gaussians.transformed(pose, scale), pose[:3, :3]
    torch.testing.assert_close(moved.means, scale * gaussians.means @ rotation.T + pose[:3, 3])
    expected = scale**2 * rotation @ _covariance(gaussians) @ rotation.T
    torch.testing.assert_close(_covariance(moved), expected)
    for name in ("opacities", "colors", "features"):
        assert torch.equal(getattr(moved, name), getattr(gaussians, name))


def test_moves_compose_and_undo():
    gaussians, first, second = _draw(20), _pose(1), _pose(2)
    twice, once = gaussians.transformed(first).transformed(second), gaussians.transformed(second @ first)
    torch.testing.assert_close(twice.means, once.means)
    torch.testing.assert_close(_covariance(twice), _covariance(once))
    back = gaussians.transformed(first).transformed(torch.linalg.inv(first))
    torch.testing.assert_close(back.means, gaussians.means)
    torch.testing.assert_close(_covariance(back), _covariance(gaussians))


def test_a_known_quarter_turn_swaps_the_axes_of_a_splat():
    pose = torch.eye(4, dtype=torch.float64)
    turn = axis_angle(torch.tensor([0, 0, 1.0]).double(), torch.tensor(torch.pi / 2, dtype=torch.float64))
    pose[:3, :3] = quaternion_to_matrix(turn)
    splat = Gaussians(
        means=torch.tensor([[1.0, 0, 0]]).double(),
        quaternions=torch.tensor([[1.0, 0, 0, 0]]).double(),
        scales=torch.tensor([[3.0, 1, 1]]).double(),
        opacities=torch.ones(1).double(),
    ).transformed(pose)
    torch.testing.assert_close(splat.means, torch.tensor([[0, 1.0, 0]]).double())
    torch.testing.assert_close(_covariance(splat)[0], torch.diag(torch.tensor([1.0, 9, 1]).double()))


def test_quaternions_of_any_length_mean_the_same_splat():
    gaussians = _draw(10)
    longer = dataclasses.replace(gaussians, quaternions=-2.5 * gaussians.quaternions)
    torch.testing.assert_close(_covariance(longer), _covariance(gaussians))


def test_gradients_flow_through_a_move():
    gaussians = _draw(4)

    def move(means, quaternions, scales):
        moved = dataclasses.replace(gaussians, means=means, quaternions=quaternions, scales=scales).transformed(_pose())
        return moved.means, _covariance(moved)

    inputs = tuple(getattr(gaussians, name).requires_grad_() for name in ("means", "quaternions", "scales"))
    assert torch.autograd.gradcheck(move, inputs)


def test_view_dependent_colour_is_not_silently_left_unturned():
    with pytest.raises(ValueError, match="drop `harmonics`"):
        _draw(3, colors=(3,), harmonics=(8, 3)).transformed(_pose())


def test_union_selection_and_casting_act_on_every_channel():
    parts = [_draw(3, seed=1, colors=(3,), features=(2,)), _draw(4, seed=2, colors=(3,), features=(2,))]
    union = Gaussians.cat(parts)
    assert len(union) == 7
    for field in ("means", "quaternions", "scales", "opacities", "colors", "features"):
        assert torch.equal(getattr(union[3:], field), getattr(parts[1], field))
    assert union.harmonics is None
    chosen = union[torch.tensor([True, False] * 3 + [True])]
    assert torch.equal(chosen.means, union.means[::2])
    assert union.to(torch.float32).features.dtype == torch.float32
    live = dataclasses.replace(union, means=union.means.clone().requires_grad_())
    assert live.detach().means.requires_grad is False


def test_union_of_unlike_splats_names_the_channel():
    with pytest.raises(ValueError, match="'features'"):
        Gaussians.cat([_draw(2, colors=(3,), features=(2,)), _draw(2, colors=(3,))])


def test_splats_hold_activated_values():
    """Linear scales and opacities in [0, 1]: a splat of scale s spans s scene units, not exp(s)."""
    splat = Gaussians(
        means=torch.zeros(1, 3),
        quaternions=torch.tensor([[1.0, 0, 0, 0]]),
        scales=torch.full((1, 3), 0.5),
        opacities=torch.ones(1),
    )
    torch.testing.assert_close(_covariance(splat)[0], 0.25 * torch.eye(3))


def test_autocast_does_not_round_a_moved_scene():
    splats = _draw(20).to(torch.float32)
    pose = torch.eye(4)
    pose[:3, :3] = quaternion_to_matrix(axis_angle(torch.tensor([0.3, -0.2, 0.9]), torch.tensor(0.7)))
    pose[:3, 3] = torch.tensor([11.0, -7.0, 3.0])
    with torch.autocast("cpu", torch.bfloat16):
        moved = splats.transformed(pose)
    for field in dataclasses.fields(Gaussians):
        value = getattr(moved, field.name)
        assert value is None or torch.equal(value, getattr(splats.transformed(pose), field.name))
