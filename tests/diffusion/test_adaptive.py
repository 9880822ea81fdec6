"""The adaptive solver on equations with known solutions, its order, its tolerance and its exact number of calls."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import RK45

from latent3d.diffusion.adaptive import NODES, ORDER_4, STAGES, sample_flow_adaptive
from latent3d.diffusion.parameterization import z0_from_velocity
from tests.diffusion.test_samplers import Counting, gaussian_velocity, last, noise, swinging_velocity

MEAN, STD = 0.7, 1.5


def test_weights_are_dormand_and_princes():
    assert np.allclose(RK45.C[1:], NODES[:-1])
    for row, weights in zip(RK45.A[1:], STAGES[:-1], strict=True):
        assert np.allclose(row[: len(weights)], weights)
    assert np.allclose(RK45.B, STAGES[-1])
    assert np.allclose(RK45.E, np.array(ORDER_4) - np.array([*STAGES[-1], 0.0]))


@pytest.mark.parametrize("rtol", [1e-3, 1e-6])
def test_a_gaussian_is_reached_within_the_tolerance(rtol):
    """x0 = mean + std x1 on the straight path from N(0, 1)."""
    start = noise(0, 2, 3, 4)
    final = last(sample_flow_adaptive(gaussian_velocity, start, rtol=rtol, atol=rtol)).latents
    assert (final - (MEAN + STD * start)).abs().max() < 20 * rtol


def test_a_swinging_field_costs_more_where_more_is_asked_and_calls_are_exact():
    start, costs = noise(1, 2, 5), []
    for rtol in (1e-3, 1e-5, 1e-7):
        network = Counting(swinging_velocity)
        steps = list(sample_flow_adaptive(network, start, rtol=rtol, atol=rtol))
        assert len(network.levels) == steps[-1].calls == 1 + 6 * (len(steps) + steps[-1].refused)
        assert (steps[-1].latents - start * math.exp(-math.sin(5) / 5)).abs().max() < 30 * rtol
        assert steps[0].sigma == 1
        assert steps[-1].sigma_next == 0
        assert all(a.sigma_next == b.sigma for a, b in itertools.pairwise(steps))
        costs.append(steps[-1].calls)
    assert costs == sorted(costs)
    assert costs[0] < costs[2]


def test_steps_carry_the_clean_estimate_and_what_came_beside():
    start = noise(2, 3)
    steps = list(sample_flow_adaptive(lambda x, t: (gaussian_velocity(x, t), float(t)), start))
    assert [step.aux for step in steps] == pytest.approx([step.sigma for step in steps])
    expected = z0_from_velocity(start, gaussian_velocity(start, torch.tensor(1.0)), 1.0)
    torch.testing.assert_close(steps[0].z0, expected)


def test_a_rough_first_try_is_refused_and_repeated():
    start = noise(3, 4)
    steps = list(sample_flow_adaptive(swinging_velocity, start, rtol=1e-6, atol=1e-6, first_step=1.0))
    assert steps[0].refused > 0
    assert (steps[-1].latents - start * math.exp(-math.sin(5) / 5)).abs().max() < 1e-4


def test_bounds_are_kept_and_bad_input_is_said():
    start = noise(4, 4)
    with pytest.raises(RuntimeError, match="no end after"):
        list(sample_flow_adaptive(swinging_velocity, start, rtol=1e-9, atol=1e-9, max_calls=20))
    with pytest.raises(RuntimeError, match="too small"):
        list(sample_flow_adaptive(lambda x, t: x * torch.nan, start))
    with pytest.raises(ValueError, match="fall"):
        list(sample_flow_adaptive(swinging_velocity, start, start=0.0))
    with pytest.raises(ValueError, match="positive"):
        list(sample_flow_adaptive(swinging_velocity, start, rtol=0.0))
