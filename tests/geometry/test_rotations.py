"""Quaternions (w, x, y, z) against SciPy and against their own invariants."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation, Slerp

from latent3d.geometry.rotations import (
    axis_angle,
    conjugate,
    from_rotation_vector,
    geodesic_angle,
    look_at,
    matrix_to_quaternion,
    multiply_quaternions,
    normalize_quaternion,
    quaternion_to_matrix,
    rotation_vector,
    slerp,
)


def _draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return normalize_quaternion(torch.randn(*shape, 4, generator=generator, dtype=torch.float64))


def _same_rotation(first, second, tolerance=1e-12):
    return torch.testing.assert_close(
        (first * second).sum(-1).abs(), torch.ones(()).double().expand(first.shape[:-1]), atol=tolerance, rtol=0
    )


def test_scalar_comes_first():
    assert torch.equal(quaternion_to_matrix(torch.tensor([1.0, 0, 0, 0])), torch.eye(3))
    quarter_turn = quaternion_to_matrix(torch.tensor([math.sqrt(0.5), 0, 0, math.sqrt(0.5)], dtype=torch.float64))
    expected = torch.tensor([[0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(quarter_turn, expected, atol=1e-15, rtol=0)


def test_matrices_agree_with_scipy_for_any_length():
    quaternions = _draw(100)
    theirs = Rotation.from_quat(quaternions.numpy(), scalar_first=True).as_matrix()
    np.testing.assert_allclose(quaternion_to_matrix(3.7 * quaternions).numpy(), theirs, atol=1e-14)


def test_zero_quaternion_is_no_rotation():
    assert torch.equal(quaternion_to_matrix(torch.zeros(2, 4)), torch.eye(3).expand(2, 3, 3))


def test_matrix_round_trip_including_half_turns():
    half_turns = torch.tensor([[0, 1.0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0.6, 0, 0.8]], dtype=torch.float64)
    quaternions = torch.cat([_draw(500), half_turns, torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64)])
    back = matrix_to_quaternion(quaternion_to_matrix(quaternions))
    _same_rotation(back, quaternions)
    assert (back[:, 0] >= 0).all()


def test_product_is_matrix_product_and_conjugate_is_inverse():
    left, right = _draw(40, seed=1), _draw(40, seed=2)
    product = quaternion_to_matrix(multiply_quaternions(left, right))
    torch.testing.assert_close(product, quaternion_to_matrix(left) @ quaternion_to_matrix(right))
    identity = multiply_quaternions(left, conjugate(left))
    torch.testing.assert_close(identity, torch.tensor([1.0, 0, 0, 0]).double().expand(40, 4), atol=1e-14, rtol=0)


def test_axis_angle_is_right_handed_in_radians():
    quaternion = axis_angle(torch.tensor([0, 0, 5.0]).double(), torch.tensor(math.pi / 2, dtype=torch.float64))
    turned = quaternion_to_matrix(quaternion) @ torch.tensor([1.0, 0, 0]).double()
    torch.testing.assert_close(turned, torch.tensor([0, 1.0, 0]).double(), atol=1e-15, rtol=0)


def test_rotation_vector_and_back():
    vectors = torch.cat([_draw(50)[:, :3] * 3.0, torch.zeros(1, 3).double(), torch.full((1, 3), 1e-9).double()])
    quaternions = from_rotation_vector(vectors)
    theirs = Rotation.from_rotvec(vectors.numpy()).as_quat(scalar_first=True)
    _same_rotation(quaternions, torch.from_numpy(theirs))
    torch.testing.assert_close(rotation_vector(quaternions), vectors, atol=1e-12, rtol=0)
    torch.testing.assert_close(rotation_vector(-quaternions), vectors, atol=1e-12, rtol=0)


def test_slerp_agrees_with_scipy_and_takes_the_shorter_arc():
    start, end = _draw(seed=3), _draw(seed=4)
    fractions = torch.linspace(0, 1, 11, dtype=torch.float64)
    keys = Rotation.from_quat(torch.stack([start, end]).numpy(), scalar_first=True)
    theirs = torch.from_numpy(Slerp([0, 1], keys)(fractions.numpy()).as_quat(scalar_first=True))
    _same_rotation(slerp(start, end, fractions), theirs)
    _same_rotation(slerp(start, -end, fractions), theirs)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 1e-3])
def test_slerp_of_close_rotations_is_even_and_has_finite_gradients(angle):
    start = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64, requires_grad=True)
    end = axis_angle(torch.tensor([0, 1.0, 0]).double(), torch.tensor(angle, dtype=torch.float64))
    middle = slerp(start, end, torch.tensor(0.25, dtype=torch.float64))
    expected = axis_angle(torch.tensor([0, 1.0, 0]).double(), torch.tensor(angle / 4, dtype=torch.float64))
    torch.testing.assert_close(middle, expected, atol=1e-14, rtol=0)
    middle.sum().backward()
    assert torch.isfinite(start.grad).all()


def test_geodesic_angle_is_exact_at_both_ends():
    axis = torch.tensor([1.0, 2.0, -1.0]).double()
    for angle in (0.0, 1e-7, 1.0, math.pi - 1e-7, math.pi):
        matrix = quaternion_to_matrix(axis_angle(axis, torch.tensor(angle, dtype=torch.float64)))
        measured = geodesic_angle(torch.eye(3).double(), matrix).item()
        assert measured == pytest.approx(angle, abs=1e-12)


def test_gradients_of_conversions():
    quaternions = _draw(6, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(lambda q: matrix_to_quaternion(quaternion_to_matrix(q)), (quaternions,))
    assert torch.autograd.gradcheck(
        lambda a, b: slerp(a, b, torch.full((3,), 0.3).double()), (quaternions[:3], quaternions[3:])
    )


def test_look_at_from_the_origin_along_z_is_the_identity():
    zero = torch.zeros(3)
    assert torch.equal(look_at(zero, torch.tensor([0, 0, 5.0])), torch.eye(4))


def test_look_at_sees_its_target_in_the_middle_and_up_above():
    generator = torch.Generator().manual_seed(1)
    eye, target = torch.randn(2, 20, 3, generator=generator, dtype=torch.float64)
    c2w = look_at(eye, target)
    rotation = c2w[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).double().expand(20, 3, 3), atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(20).double())
    local = (rotation.mT @ (target - eye)[..., None]).squeeze(-1)
    torch.testing.assert_close(local[:, :2], torch.zeros(20, 2).double(), atol=1e-12, rtol=0)
    assert (local[:, 2] > 0).all()
    upward = rotation.mT @ torch.tensor([0, -1.0, 0]).double()
    assert (upward[:, 1] < 0).all()  # the image's y axis points down
    torch.testing.assert_close(upward[:, 0], torch.zeros(20).double(), atol=1e-12, rtol=0)


def test_look_at_takes_another_up_and_refuses_impossible_views():
    up = torch.tensor([0, 0, 1.0])
    c2w = look_at(torch.tensor([3.0, 0, 0]), torch.zeros(3), up)
    torch.testing.assert_close(c2w[:3, 1], -up)
    with pytest.raises(ValueError, match="parallel"):
        look_at(torch.zeros(3), torch.tensor([0, -2.0, 0]))
    with pytest.raises(ValueError, match="move the target"):
        look_at(torch.ones(3), torch.ones(3))
