"""Textures: the loops against their tensor twin, band limits, colour conversions."""

import numpy as np
import pytest
import torch

from latent3d.worlds import patterns as tx
from latent3d.worlds import textures_torch
from latent3d.worlds.colours import linear_from_srgb, srgb_from_linear
from latent3d.worlds.textures import dome_colour, surface_colour


def materials(rng, kind, count):
    rows = np.zeros((count, 24))
    angle = rng.random(count) * 6
    rows[:, 0], rows[:, 1:10], rows[:, 10] = kind, rng.random((count, 9)), rng.uniform(0.05, 1, count)
    rows[:, 11], rows[:, 12], rows[:, 13] = np.cos(angle), np.sin(angle), rng.integers(0, 1 << 20, count)
    rows[:, 14:19] = rng.random((count, 5))
    return rows


@pytest.mark.parametrize("kind", range(tx.TEXTURE_COUNT))
def test_twin(kind):
    rng = np.random.default_rng(kind)
    count = 300
    rows, w = materials(rng, kind, count), np.exp(rng.uniform(-8, -2, count))
    u, v = rng.normal(size=(2, count)) * 2
    loops = np.array([surface_colour(rows, i, u[i], v[i], w[i]) for i in range(count)])
    tensors = textures_torch.surface_colour(*(torch.from_numpy(x) for x in (rows, u, v, w))).numpy()
    assert np.abs(loops - tensors).max() < 1e-6
    assert loops.min() >= 0
    assert loops.max() <= 1
    if kind != tx.PLAIN:
        same = materials(np.random.default_rng(kind), kind, 1).repeat(count, 0)
        same[:, 17:19], same[:, 14] = 0, 1.0
        flat = np.array([surface_colour(same, i, u[i], v[i], 1e-4) for i in range(count)])
        assert flat.std(0).max() > 0.005, "a pattern varies over the surface"


@pytest.mark.parametrize("kind", [tx.CHECK, tx.NOISE, tx.WEAVE, tx.WAVES, tx.VORONOI])
def test_patterns_fade_where_a_pixel_covers_many_periods(kind):
    rng = np.random.default_rng(3)
    row = materials(rng, kind, 1)
    row[:, 10], row[:, 14], row[:, 15:19] = 0.1, 1.0, 0.0
    place = rng.normal(size=(200, 2)) * 3
    near = np.array([surface_colour(row, 0, u, v, 1e-3) for u, v in place])
    far = np.array([surface_colour(row, 0, u, v, 0.3) for u, v in place])
    assert far.std(0).max() < 0.4 * near.std(0).max()


def test_dome_twin():
    rng = np.random.default_rng(0)
    sky = rng.random(32)
    sky[9:12] /= np.linalg.norm(sky[9:12])
    sky[16], sky[31] = 77, 0.1
    directions = rng.normal(size=(300, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    loops = np.array([dome_colour(sky, *d, 0.01) for d in directions])
    tensors = textures_torch.dome_colour(torch.from_numpy(sky), torch.from_numpy(directions), 0.01).numpy()
    assert np.abs(loops - tensors).max() < 1e-9


def test_srgb_there_and_back():
    values = np.linspace(0, 1, 101)
    assert np.allclose(srgb_from_linear(linear_from_srgb(values)), values, atol=1e-6)
    assert linear_from_srgb(0.5) == pytest.approx(0.214041, abs=1e-6)
