"""Rotations as unit quaternions (w, x, y, z), scalar first, and as matrices; look-at poses in OpenCV axes.

All functions are batched over leading dimensions, differentiable, and keep dtype and device.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

SMALL_SINE = 1e-6
"""Below this sine of the angle between two quaternions, `slerp` interpolates linearly (the difference is rounding)."""


def normalize_quaternion(quaternions: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions; the zero quaternion stays zero, which `quaternion_to_matrix` reads as no rotation."""
    return torch.nn.functional.normalize(quaternions, dim=-1, eps=1e-12)


def quaternion_to_matrix(quaternions: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of quaternions (w, x, y, z) of any length, which are normalised first."""
    w, x, y, z = normalize_quaternion(quaternions).unbind(-1)
    entries = [
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    ]
    return rearrange(torch.stack(entries, -1), "... (row column) -> ... row column", row=3)


def matrix_to_quaternion(matrices: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions (w, x, y, z) of rotation matrices, with w >= 0.

    A rotation's entries give all products of its quaternion's parts, the matrix 4 q q^T; each of its rows is a
    multiple of q, and the row with the largest diagonal is far from zero (Shepperd 1978), so its gradient is finite.
    """
    (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = (row.unbind(-1) for row in matrices.unbind(-2))
    wx, wy, wz = m21 - m12, m02 - m20, m10 - m01
    xy, xz, yz = m10 + m01, m02 + m20, m21 + m12
    squares = [1 + m00 + m11 + m22, 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22]
    ww, xx, yy, zz = squares
    rows = [[ww, wx, wy, wz], [wx, xx, xy, xz], [wy, xy, yy, yz], [wz, xz, yz, zz]]
    products = torch.stack([torch.stack(row, -1) for row in rows], -2)
    largest = torch.stack(squares, -1).argmax(-1)
    row = products.gather(-2, largest[..., None, None].expand(*largest.shape, 1, 4)).squeeze(-2)
    unit = row / row.norm(dim=-1, keepdim=True)
    return torch.where(unit[..., :1] < 0, -unit, unit)


def multiply_quaternions(left: Float[Tensor, "*#batch 4"], right: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "... 4"]:
    """Hamilton product: the rotation by ``right`` first and then by ``left``, as for matrices."""
    lw, lx, ly, lz = left.unbind(-1)
    rw, rx, ry, rz = right.unbind(-1)
    return torch.stack(
        [
            lw * rw - lx * rx - ly * ry - lz * rz,
            lw * rx + lx * rw + ly * rz - lz * ry,
            lw * ry - lx * rz + ly * rw + lz * rx,
            lw * rz + lx * ry - ly * rx + lz * rw,
        ],
        -1,
    )


def conjugate(quaternions: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """(w, -x, -y, -z): the inverse rotation of a unit quaternion."""
    return torch.cat([quaternions[..., :1], -quaternions[..., 1:]], -1)


def axis_angle(axis: Float[Tensor, "*batch 3"], angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternion of the right-handed turn by ``angle`` radians (...) about ``axis`` (..., 3) of any length > 0."""
    half = angle[..., None] / 2
    return torch.cat([half.cos(), half.sin() * torch.nn.functional.normalize(axis, dim=-1)], -1)


def geodesic_angle(first: Float[Tensor, "*#batch 3 3"], second: Float[Tensor, "*#batch 3 3"]) -> Float[Tensor, "*out"]:
    """Angle in radians, in [0, pi], of the rotation between two rotation matrices; exact also near 0 and pi."""
    relative = multiply_quaternions(conjugate(matrix_to_quaternion(first)), matrix_to_quaternion(second))
    return 2 * torch.atan2(relative[..., 1:].norm(dim=-1), relative[..., 0].abs())


def slerp(
    start: Float[Tensor, "*#batch 4"], end: Float[Tensor, "*#batch 4"], fraction: Float[Tensor, "*#batch"]
) -> Float[Tensor, "... 4"]:
    """Unit quaternions at ``fraction`` in [0, 1] of the shorter arc from ``start`` to ``end`` (Shoemake 1985).

    slerp(a, b, t) = (sin((1 - t) w) a + sin(t w) b) / sin(w), cos(w) = <a, b>.
    """
    start, end = normalize_quaternion(start), normalize_quaternion(end)
    cosine = (start * end).sum(-1, keepdim=True)
    end = torch.where(cosine < 0, -end, end)
    t = fraction[..., None]
    # The angle from the lengths of a - b and a + b stays exact where the arc cosine loses half of its digits.
    apart, together = (start - end).norm(dim=-1, keepdim=True), (start + end).norm(dim=-1, keepdim=True)
    sine = apart * together / 2
    close = sine < SMALL_SINE
    angle = torch.where(close, torch.ones_like(sine), 2 * torch.atan2(apart, together))
    safe_sine = torch.where(close, torch.ones_like(sine), sine)
    arc = ((1 - t) * angle).sin() / safe_sine * start + (t * angle).sin() / safe_sine * end
    return normalize_quaternion(torch.where(close, (1 - t) * start + t * end, arc))


def look_at(
    eye: Float[Tensor, "*batch 3"], target: Float[Tensor, "*batch 3"], up: Float[Tensor, "*batch 3"] | None = None
) -> Float[Tensor, "*batch 4 4"]:
    """Camera-to-world poses (..., 4, 4) at ``eye`` looking at ``target``, OpenCV axes (+x right, +y down, +z forward).

    up: world direction that appears upright; by default (0, -1, 0), upright in a world whose axes are those of its
    first camera.

    Raises:
        ValueError: if eye and target coincide, or the view is along ``up``.
    """
    if up is None:
        up = eye.new_tensor([0.0, -1.0, 0.0]).expand_as(eye)
    forward = target - eye
    right = torch.linalg.cross(-up, forward, dim=-1)
    length, breadth = forward.norm(dim=-1, keepdim=True), right.norm(dim=-1, keepdim=True)
    if bool((length == 0).any()):
        raise ValueError("a camera cannot look at the place where it stands; move the target away from the eye")
    if bool((breadth <= 1e-6 * length * up.norm(dim=-1, keepdim=True)).any()):
        raise ValueError("the viewing direction is parallel to `up`; give another up direction")
    forward, right = forward / length, right / breadth
    down = torch.linalg.cross(forward, right, dim=-1)
    top = torch.stack([right, down, forward, eye], -1)
    bottom = eye.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*eye.shape[:-1], 1, 4)
    return torch.cat([top, bottom], -2)


def rotation_vector(quaternions: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3"]:
    """Axis times angle in radians of unit quaternions, the shorter way round: the logarithm, times two. (..., 3)."""
    quaternions = torch.where(quaternions[..., :1] < 0, -quaternions, quaternions)
    sine = quaternions[..., 1:].norm(dim=-1, keepdim=True)
    small = sine < SMALL_SINE
    safe = torch.where(small, torch.ones_like(sine), sine)
    return quaternions[..., 1:] * torch.where(small, 2.0, 2 * torch.atan2(sine, quaternions[..., :1]) / safe)


def from_rotation_vector(vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions of axis times angle in radians, the inverse of `rotation_vector`."""
    half = vectors.norm(dim=-1, keepdim=True) / 2
    # torch's sinc is sin(pi x) / (pi x): finite at zero, where dividing by the angle is not.
    return torch.cat([half.cos(), 0.5 * torch.sinc(half / torch.pi) * vectors], -1)
