"""Noise levels: published formulas, diffusers' tables, moments of the training distributions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latent3d.diffusion import schedules


@given(steps=st.integers(1, 60))
def test_every_sequence_falls_strictly_to_zero(steps: int) -> None:
    for levels in (
        schedules.karras_sigmas(steps),
        schedules.ddpm_sigmas(steps),
        schedules.cosine_sigmas(steps),
        schedules.flow_times(steps, shift=3.0),
    ):
        assert levels.shape == (steps + 1,)
        assert levels[-1] == 0
        assert (levels.diff() < 0).all()


def test_karras_ends_and_formula() -> None:
    sigmas = schedules.karras_sigmas(5, sigma_min=0.1, sigma_max=10.0, rho=3.0)
    middle = ((10 ** (1 / 3) + 0.1 ** (1 / 3)) / 2) ** 3
    assert sigmas[[0, 2, 4]].tolist() == pytest.approx([10, middle, 0.1])


def test_ddpm_levels_agree_with_diffusers() -> None:
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod.double()
    ours = schedules.sigmas_from_betas(schedules.scaled_linear_betas())
    torch.testing.assert_close(ours, ((1 - theirs) / theirs).sqrt(), rtol=1e-4, atol=1e-5)
    assert float(ours[-1]) == pytest.approx(14.6146, rel=1e-4)  # the sigma_max known from Stable Diffusion
    sampled = schedules.ddpm_sigmas(10)
    assert float(sampled[0]) == pytest.approx(float(ours[-1]))
    assert float(sampled[-2]) == pytest.approx(float(ours[0]))


def test_cosine_alpha_bar_known_values() -> None:
    values = schedules.cosine_alpha_bar(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), offset=0.0)
    assert values.tolist() == pytest.approx([1, 0.5, 0])
    half = schedules.cosine_sigmas(2, offset=0.0)
    assert half.tolist() == pytest.approx([700, 1, 0])


def test_training_levels_have_the_stated_moments() -> None:
    draw = schedules.lognormal_sigmas((100_000,), mean=0.7, std=1.6, generator=torch.Generator().manual_seed(0))
    assert float(draw.log().mean()) == pytest.approx(0.7, abs=0.02)
    assert float(draw.log().std()) == pytest.approx(1.6, abs=0.02)
    times = schedules.logit_normal_times((100_000,), mean=-0.5, std=0.8, generator=torch.Generator().manual_seed(0))
    logits = torch.logit(times)
    assert float(logits.mean()) == pytest.approx(-0.5, abs=0.02)
    assert float(logits.std()) == pytest.approx(0.8, abs=0.02)


def test_same_seed_same_levels() -> None:
    first, again, other = (
        schedules.lognormal_sigmas((2, 3), generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@given(shift=st.floats(0.1, 10), time=st.floats(0.01, 0.99))
def test_a_shift_multiplies_the_noise_to_signal_ratio(shift: float, time: float) -> None:
    moved = float(schedules.shift_times(torch.tensor(time, dtype=torch.float64), shift))
    assert moved / (1 - moved) == pytest.approx(shift * time / (1 - time))


def test_flow_times_without_shift_are_even() -> None:
    assert schedules.flow_times(4).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_bad_requests_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        schedules.karras_sigmas(0)
    with pytest.raises(ValueError, match="sigma_min < sigma_max"):
        schedules.karras_sigmas(4, sigma_min=2.0, sigma_max=1.0)
    with pytest.raises(ValueError, match="fewer steps"):
        schedules.ddpm_sigmas(20, schedules.scaled_linear_betas(10))
    with pytest.raises(ValueError, match="must exceed"):
        schedules.cosine_sigmas(100, sigma_max=math.e)
    with pytest.raises(ValueError, match="positive"):
        schedules.flow_times(4, shift=0.0)
