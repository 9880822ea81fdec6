"""Hits of rays with primitives against closed forms, and the tree against trying every primitive."""

import math

import numpy as np
import pytest
import torch

from latent3d.worlds import shapes_torch
from latent3d.worlds import tables as tb
from latent3d.worlds.shapes import MISS, hit_primitive, surface
from latent3d.worlds.tables import SceneBuilder, tilt_matrix, yaw_matrix
from latent3d.worlds.tree import build_tree, trace


def scene_with(*adders):
    builder = SceneBuilder()
    paint = builder.material(0, [(0.5, 0.5, 0.5)])
    for adder in adders:
        adder(builder, paint)
    builder.lamp((0, 0, 5), 0.1, (1, 1, 1))
    return builder.build()


def shoot(scene, origin, direction, number=0):
    direction = np.asarray(direction, float) / np.linalg.norm(direction)
    rows = scene.primitives.astype(np.float64)
    t = hit_primitive(rows, number, *map(float, origin), *direction, MISS)
    normal = surface(rows, number, *(np.asarray(origin) + t * direction), *direction)[:3] if t < MISS else None
    return t, normal


def test_sphere_distance_and_normal():
    scene = scene_with(lambda b, m: b.ball((1.0, 2.0, 3.0), 0.5, m))
    t, normal = shoot(scene, (1.0, -4.0, 3.3), (0, 1, 0))
    assert t == pytest.approx(6.0 - math.sqrt(0.25 - 0.09), abs=1e-6)
    assert normal == pytest.approx((0, -math.sqrt(0.25 - 0.09) / 0.5, 0.6), abs=1e-5)


def test_turned_box_is_hit_on_its_edge_distance():
    scene = scene_with(lambda b, m: b.box((0, 0, 0), (1, 1, 1), m, rotation=yaw_matrix(math.pi / 4)))
    t, _ = shoot(scene, (-5.0, 0.1, 0.0), (1, 0, 0))
    assert t == pytest.approx(5.0 - math.sqrt(2.0) + 0.1, abs=1e-5)


def test_cylinder_side_cap_and_miss():
    scene = scene_with(lambda b, m: b.cylinder((0, 0, 0), 0.5, 1.0, m))
    t, normal = shoot(scene, (3.0, 0.3, 0.2), (-1, 0, 0))
    assert t == pytest.approx(3.0 - 0.4, abs=1e-6)
    assert normal == pytest.approx((0.8, 0.6, 0.0), abs=1e-5)
    t, normal = shoot(scene, (0.1, 0.2, 4.0), (0, 0, -1))
    assert t == pytest.approx(3.0, abs=1e-6)
    assert normal == pytest.approx((0, 0, 1), abs=1e-6)
    assert shoot(scene, (3.0, 0.6, 0.0), (-1, 0, 0))[0] == MISS


def test_cone_side_has_the_slanted_normal():
    scene = scene_with(lambda b, m: b.cylinder((0, 0, 0), 1.0, 1.0, m, top=0.0))
    t, normal = shoot(scene, (5.0, 0.0, 0.0), (-1, 0, 0))
    assert t == pytest.approx(4.5, abs=1e-6)
    assert normal == pytest.approx(np.array([2.0, 0.0, 1.0]) / math.sqrt(5.0), abs=1e-5)


def test_pyramid_and_wedge_planes():
    scene = scene_with(lambda b, m: b.add(tb.TAPER, (0, 0, 0), (1, 1, 1), m, parameters=(0.0, 0.0, 0.0)))
    assert shoot(scene, (5.0, 0.0, 0.0), (-1, 0, 0))[0] == pytest.approx(4.5, abs=1e-6)
    wedge = scene_with(lambda b, m: b.add(tb.TAPER, (0, 0, 0), (1, 1, 1), m, parameters=(0.0, 1.0, -1.0)))
    assert shoot(wedge, (-5.0, 0.0, 0.5), (1, 0, 0))[0] == pytest.approx(4.0, abs=1e-6)  # the upright face
    assert shoot(wedge, (5.0, 0.0, 0.5), (-1, 0, 0))[0] == pytest.approx(5.5, abs=1e-6)  # the slope


@pytest.mark.parametrize(
    ("kind", "half", "parameters", "origin", "direction", "expected"),
    [
        (tb.TORUS, (1.0, 1.0, 0.2), (0, 0, 0), (3, 0, 0), (-1, 0, 0), 2.0),
        (tb.TORUS, (1.0, 1.0, 0.2), (0, 0, 0), (0.8, 0, 3), (0, 0, -1), 2.8),
        (tb.CAPSULE, (0.3, 0.3, 1.0), (0, 0, 0), (0, 0, 4), (0, 0, -1), 3.0),
        (tb.CAPSULE, (0.3, 0.3, 1.0), (0, 0, 0), (2, 0, 0.5), (-1, 0, 0), 1.7),
        (tb.ROUND_BOX, (0.5, 0.4, 0.3), (0.1, 0, 0), (2, 0, 0), (-1, 0, 0), 1.5),
        (tb.TUBE, (0.5, 0.5, 0.5), (0.1, 0, 0), (0, 0, 2), (0, 0, -1), 2.4),  # falls in and meets the bottom
        (tb.BOWL, (1.0, 1.0, 0.5), (0.1, 0, 0), (0, 0, 2), (0, 0, -1), 2.4),
        (tb.ARCH, (1.0, 0.2, 1.0), (0.6, 0.2, 0), (0, 3, 0.9), (0, -1, 0), 2.8),
    ],
)
def test_marched_shapes(kind, half, parameters, origin, direction, expected):
    scene = scene_with(lambda b, m: b.add(kind, (0, 0, 0), half, m, parameters=parameters))
    assert shoot(scene, origin, direction)[0] == pytest.approx(expected, abs=5e-4)


def test_passages_are_open():
    ring = scene_with(lambda b, m: b.add(tb.TORUS, (0, 0, 0), (1.0, 1.0, 0.2), m))
    assert shoot(ring, (0.1, 0, 3), (0, 0, -1))[0] == MISS
    arch = scene_with(lambda b, m: b.add(tb.ARCH, (0, 0, 0), (1.0, 0.2, 1.0), m, parameters=(0.6, 0.2, 0)))
    assert shoot(arch, (0, 3, 0), (0, -1, 0))[0] == MISS


def random_scene(rng, count=60):
    builder = SceneBuilder()
    paint = builder.material(0, [(0.5, 0.5, 0.5)])
    kinds = tb.CLOSED_FORM_KINDS + tb.MARCHED_KINDS
    for i in range(count):
        half = rng.uniform(0.15, 0.5, 3)
        kind = kinds[i % len(kinds)]
        parameters = {
            tb.ROUND_BOX: (0.05, 0, 0),
            tb.TUBE: (0.05, 0, 0),
            tb.BOWL: (0.05, 0, 0),
            tb.VASE: (0.5, 3, 1),
            tb.BLOB: (0.1, 3, 1),
            tb.ARCH: (0.1, 0, 0),
            tb.FRUSTUM: (1, 0.4, 0),
            tb.TAPER: (0.3, 0.5, 0.1),
        }
        if kind in (tb.TORUS, tb.CAPSULE, tb.BOWL):
            half = {tb.TORUS: (0.5, 0.5, 0.1), tb.CAPSULE: (0.1, 0.1, 0.4), tb.BOWL: (0.4, 0.4, 0.2)}[kind]
        tilt = tilt_matrix(0, rng.random() * 6) @ tilt_matrix(1, rng.random() * 6)
        place = rng.uniform(-3, 3, 3)
        builder.add(kind, place, half, paint, rotation=tilt, parameters=parameters.get(kind, (0, 0, 0)))
    builder.lamp((0, 0, 5), 0.1, (1, 1, 1))
    return builder.build()


def test_tree_finds_what_trying_everything_finds():
    rng = np.random.default_rng(0)
    scene = random_scene(rng)
    rows = scene.primitives.astype(np.float64)
    nodes, order = build_tree(scene.bounds_min.astype(np.float64), scene.bounds_max.astype(np.float64))
    assert sorted(order) == list(range(len(rows)))
    stack = np.zeros(96, dtype=np.int64)
    hits = 0
    for _ in range(300):
        origin, direction = rng.normal(size=3) * 5, rng.normal(size=3)
        direction = (rng.uniform(-2, 2, 3) - origin) + 0.2 * direction
        direction /= np.linalg.norm(direction)
        t, number = trace(rows, nodes, order, stack, *origin, *direction, MISS, False)
        every = [hit_primitive(rows, i, *origin, *direction, MISS) for i in range(len(rows))]
        assert t == min(every)
        hits += number >= 0
        shadowed = trace(rows, nodes, order, stack, *origin, *direction, MISS, True)[1] >= 0
        assert shadowed == (number >= 0)
    assert hits > 100


def test_tensor_twin_agrees_on_hits_and_normals():
    rng = np.random.default_rng(1)
    scene = random_scene(rng)
    rows = scene.primitives.astype(np.float64)
    origins = rng.normal(size=(400, 3)) * 5
    directions = rng.uniform(-2, 2, (400, 3)) - origins
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    loops = np.array(
        [
            [hit_primitive(rows, i, *o, *d, MISS) for i in range(len(rows))]
            for o, d in zip(origins, directions, strict=True)
        ]
    )
    o, d, table = (torch.from_numpy(x) for x in (origins, directions, rows))
    t, number = shapes_torch.trace(table, o, d)
    assert np.allclose(t.numpy(), loops.min(1), rtol=1e-9)
    hit = (number >= 0).nonzero()[:, 0]
    points = o[hit] + t[hit, None] * d[hit]
    normals, u, v = shapes_torch.surface(table, number[hit], points, d[hit])
    for row, i in enumerate(hit.tolist()):
        expected = surface(rows, int(number[i]), *points[row].numpy(), *directions[i])
        assert np.allclose(expected[:3], normals[row].numpy(), atol=1e-6)
        assert np.allclose(expected[3:], [u[row], v[row]], atol=1e-6)


def test_a_scene_without_primitives_is_refused():
    with pytest.raises(ValueError, match="at least one primitive"):
        SceneBuilder().build()
