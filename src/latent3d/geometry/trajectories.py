"""Camera paths for one reference camera at the origin that looks along +z (OpenCV axes, +y down).

Every path starts at the identity, is scaled by ``depth`` (the typical depth of what is looked at, in scene units) and
by ``strength`` (1 is modest enough for a scene made from one picture), and looks at a focus near (0, 0, depth).
Results are camera-to-world matrices (V, 4, 4), float32.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.geometry.cameras import invert_rigid
from latent3d.geometry.rotations import (
    conjugate,
    from_rotation_vector,
    look_at,
    matrix_to_quaternion,
    multiply_quaternions,
    quaternion_to_matrix,
    rotation_vector,
    slerp,
)

WALK_WAVES = 3
"""Sinusoids per coordinate of a `walk`: few, so that the path is as smooth as a gliding camera's."""


def _check(num_views: int, depth: float) -> None:
    if num_views < 1:
        raise ValueError(f"a trajectory needs at least one view, found {num_views}")
    if not (math.isfinite(depth) and depth > 0):
        raise ValueError(f"the depth of a trajectory's focus must be positive and finite, found {depth}")


def _open_time(num_views: int) -> Tensor:
    """0 to 1, both included."""
    return torch.linspace(0, 1, num_views, dtype=torch.float64)


def _closed_time(num_views: int) -> Tensor:
    """0 to 1 without 1: the path closes, and a video of it loops without a doubled frame."""
    return torch.arange(num_views, dtype=torch.float64) / num_views


def _ease(time: Tensor) -> Tensor:
    """Smoothstep 3 t^2 - 2 t^3: starts and stops without a jerk."""
    return time * time * (3 - 2 * time)


def _watch(eyes: Tensor, focus: Tensor) -> Tensor:
    return look_at(eyes, focus.expand_as(eyes)).to(torch.float32)


def orbit(
    num_views: int, *, depth: float = 1.0, strength: float = 1.0, azimuth: float = 12.0, elevation: float = 4.0
) -> Float[Tensor, "v 4 4"]:
    """Sway on a sphere around the focus: to one side, to the other and back, rising meanwhile. Closed.

    azimuth: largest angle to each side in degrees; elevation: rise at the turning point in degrees.
    """
    _check(num_views, depth)
    angle = 2 * math.pi * _closed_time(num_views)
    turn = math.radians(azimuth) * strength * angle.sin()
    rise = math.radians(elevation) * strength * (1 - angle.cos()) / 2
    focus = torch.tensor([0.0, 0.0, depth], dtype=torch.float64)
    back = torch.stack([turn.sin() * rise.cos(), -rise.sin(), -turn.cos() * rise.cos()], -1)
    return _watch(focus + depth * back, focus)


def dolly(
    num_views: int, *, depth: float = 1.0, strength: float = 1.0, distance: float = 0.25
) -> Float[Tensor, "v 4 4"]:
    """Straight towards the focus by ``distance`` of its depth, starting and stopping softly; strength < 0 moves back.

    Raises:
        ValueError: if the move would reach the focus.
    """
    _check(num_views, depth)
    if distance * strength >= 1:
        raise ValueError(f"a dolly by {distance * strength:g} of the depth runs through its focus; stay below 1")
    advance = depth * distance * strength * _ease(_open_time(num_views))
    eyes = torch.stack([torch.zeros_like(advance), torch.zeros_like(advance), advance], -1)
    return _watch(eyes, torch.tensor([0.0, 0.0, depth], dtype=torch.float64))


def spiral(
    num_views: int,
    *,
    depth: float = 1.0,
    strength: float = 1.0,
    radius: float = 0.12,
    advance: float = 0.1,
    turns: float = 2.0,
) -> Float[Tensor, "v 4 4"]:
    """Widening turns in the plane of the first image while moving forward, looking at the focus.

    radius and advance: sideways and forward reach at the end, in fractions of the depth (half as far up and down).
    """
    _check(num_views, depth)
    time = _open_time(num_views)
    angle = 2 * math.pi * turns * time
    reach = depth * strength * time
    eyes = torch.stack([radius * reach * angle.cos(), 0.5 * radius * reach * angle.sin(), advance * reach], -1)
    return _watch(eyes, torch.tensor([0.0, 0.0, depth], dtype=torch.float64))


def spline(
    num_views: int, *, depth: float = 1.0, strength: float = 1.0, keys: Float[Tensor, "k 4 4"] | None = None
) -> Float[Tensor, "v 4 4"]:
    """Smooth path through key frames, seen from the first of them.

    keys: camera-to-world poses in a frame in which the depth is 1 (K, 4, 4), K >= 2; translations relative to the first
    key are multiplied by ``depth * strength``. By default a gentle curve: right, up and forward, left, and home.
    See `interpolate_poses` for a path in the keys' own frame.
    """
    _check(num_views, depth)
    if keys is None:
        eyes = torch.tensor(
            [[0, 0, 0], [0.12, 0, 0.04], [0.05, -0.06, 0.15], [-0.12, -0.02, 0.08], [0, 0, 0]], dtype=torch.float64
        )
        unit = strength * eyes
        keys = look_at(unit, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand_as(unit))
        strength = 1.0
    keys = keys.to(torch.float64)
    keys = invert_rigid(keys[:1]) @ keys
    move = torch.ones(4, 4, dtype=torch.float64)
    move[:3, 3] = depth * strength
    return interpolate_poses(keys * move, num_views).to(torch.float32)


def interpolate_poses(keys: Float[Tensor, "k 4 4"], num_views: int) -> Float[Tensor, "v 4 4"]:
    """V poses at equal parameter steps through all key poses: Catmull-Rom for centres, squad for rotations.

    Both have continuous velocity. The path starts at the first key and ends at the last.

    Raises:
        ValueError: for fewer than two keys.
    """
    if len(keys) < 2:
        raise ValueError("a spline needs at least two key frames")
    time = torch.linspace(0, len(keys) - 1, num_views, dtype=keys.dtype, device=keys.device)
    index = time.floor().long().clamp(max=len(keys) - 2)
    fraction = time - index
    poses = torch.eye(4, dtype=keys.dtype, device=keys.device).repeat(num_views, 1, 1)
    poses[:, :3, 3] = _catmull_rom(keys[:, :3, 3], index, fraction)
    poses[:, :3, :3] = quaternion_to_matrix(_squad(matrix_to_quaternion(keys[:, :3, :3]), index, fraction))
    return poses


def _catmull_rom(points: Tensor, index: Tensor, fraction: Tensor) -> Tensor:
    """Cubic through ``points`` with tangents (p[i+1] - p[i-1]) / 2; the ends are continued by reflection."""
    first, last = 2 * points[:1] - points[1:2], 2 * points[-1:] - points[-2:-1]
    before, start, end, after = (torch.cat([first, points, last])[index + step] for step in range(4))
    t = fraction[:, None]
    return 0.5 * (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    )


def _squad(quaternions: Tensor, index: Tensor, fraction: Tensor) -> Tensor:
    """Spherical cubic through unit quaternions (Shoemake 1987).

    squad = slerp(slerp(q_i, q_i+1, t), slerp(s_i, s_i+1, t), 2 t (1 - t)),
    s_i = q_i exp(-(log(q_i^-1 q_i+1) + log(q_i^-1 q_i-1)) / 4); at the ends s = q.
    """
    inverse = conjugate(quaternions)
    ahead = rotation_vector(multiply_quaternions(inverse[:-1], quaternions[1:]))
    behind = rotation_vector(multiply_quaternions(inverse[1:], quaternions[:-1]))
    bend = torch.zeros_like(quaternions[:, 1:])
    bend[1:-1] = -(ahead[1:] + behind[:-1]) / 4
    controls = multiply_quaternions(quaternions, from_rotation_vector(bend))
    chord = slerp(quaternions[index], quaternions[index + 1], fraction)
    return slerp(chord, slerp(controls[index], controls[index + 1], fraction), 2 * fraction * (1 - fraction))


def walk(
    num_views: int, *, depth: float = 1.0, strength: float = 1.0, advance: float = 0.3, seed: int = 0
) -> Float[Tensor, "v 4 4"]:
    """Gliding walk in the manner of RealEstate10K's hand-held and gimbal clips, drawn from ``seed``.

    Forward by up to ``advance`` of the depth with slow drifts to the side (at most two thirds of it), almost level (a
    tenth), while the focus wanders by less than 0.3 of the depth. The path depends on the seed, not on the number of
    views.

    Raises:
        ValueError: if the walk could reach its focus.
    """
    _check(num_views, depth)
    if advance * strength >= 0.9:
        raise ValueError(f"a walk by {advance * strength:g} of the depth comes too near its focus; stay below 0.9")
    generator = torch.Generator().manual_seed(seed)
    time = _open_time(num_views)
    reach = torch.tensor([0.65 * advance, 0.1 * advance, 0.15 * advance], dtype=torch.float64)
    eyes = reach * _wander(time, generator)
    eyes[:, 2] += advance * (0.6 + 0.25 * torch.rand((), dtype=torch.float64, generator=generator)) * time
    gaze = torch.tensor([0.28, 0.06, 0.0], dtype=torch.float64) * _wander(time, generator)
    ahead = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    return _watch(depth * strength * eyes, depth * (ahead + strength * gaze))


def _wander(time: Tensor, generator: torch.Generator) -> Tensor:
    """Smooth random curve (V, 3) within [-1, 1] that starts at 0: a sum of `WALK_WAVES` slow sinusoids."""
    frequency = torch.arange(1, WALK_WAVES + 1, dtype=torch.float64)
    weight = 1 / frequency**2
    amplitude = 2 * torch.rand(WALK_WAVES, 3, dtype=torch.float64, generator=generator) - 1
    phase = 2 * math.pi * torch.rand(WALK_WAVES, 3, dtype=torch.float64, generator=generator)
    wave = (math.pi * frequency[:, None] * time[:, None, None] + phase).sin() - phase.sin()
    return (weight[:, None] * amplitude * wave).sum(1) / (2 * weight.sum())


TRAJECTORIES: dict[str, Callable[..., Tensor]] = {
    "orbit": orbit,
    "dolly": dolly,
    "spiral": spiral,
    "spline": spline,
    "walk": walk,
}
"""Paths by name; all take ``(num_views, *, depth, strength)`` and have defaults for what else they know."""


def path_depth(depths: Float[Tensor, " n"]) -> float:
    """Depth by which a camera path is scaled, for a scene of these depths > 0: the median, but at most twice the depth
    that a fifth of them stay below. Outdoors the median lies far behind what the camera would walk into."""
    near, middle = depths.float().flatten().quantile(depths.new_tensor([0.2, 0.5], dtype=torch.float32))
    return float(torch.minimum(middle, 2 * near))


def trajectory(
    name: str, num_views: int, *, depth: float = 1.0, strength: float = 1.0, seed: int = 0
) -> Float[Tensor, "v 4 4"]:
    """Path by name, camera-to-world (V, 4, 4) from the identity. The seed concerns those that are drawn (`walk`).

    Raises:
        ValueError: for an unknown name (with the nearest known one), no views, or a depth that is not positive.
    """
    if name not in TRAJECTORIES:
        near = difflib.get_close_matches(name, TRAJECTORIES, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(TRAJECTORIES)}"
        raise ValueError(f"there is no trajectory '{name}'; {hint}")
    drawn = {"seed": seed} if name == "walk" else {}
    return TRAJECTORIES[name](num_views, depth=depth, strength=strength, **drawn)
