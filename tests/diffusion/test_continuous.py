"""LSGM's process: its integral, its inverse, its importance-sampled times, and a Gaussian sampled with its levels."""

import pytest
import torch
from scipy.integrate import quad

from latent3d.diffusion.continuous import LinearVP
from latent3d.diffusion.parameterization import alpha_and_s
from latent3d.diffusion.samplers import sample_ddim
from tests.diffusion.test_samplers import gaussian_denoiser, last, noise

PROCESS = LinearVP()


@pytest.mark.parametrize("time", [0.01, 0.3, 1.0])
def test_variance_is_that_of_the_differential_equation(time):
    """alpha = exp(-1/2 integral of beta), s^2 = 1 - alpha^2 (Song et al. 2021, eq. 33)."""
    integral = quad(lambda t: 0.1 + 19.9 * t, 0, time)[0]
    alpha, s = alpha_and_s(PROCESS.sigma(torch.tensor(time, dtype=torch.float64)))
    assert float(alpha) == pytest.approx(float(torch.tensor(-0.5 * integral).exp()), rel=1e-6)
    assert float(alpha**2 + s**2) == pytest.approx(1)


def test_time_and_level_are_inverse_down_to_zero():
    times = torch.tensor([0.0, 1e-6, 0.01, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(PROCESS.time(PROCESS.sigma(times)), times)
    rising = LinearVP(beta_start=0.0, beta_end=4.0)
    torch.testing.assert_close(rising.time(rising.sigma(times)), times, atol=1e-9, rtol=1e-6)


def test_levels_fall_from_nearly_pure_noise_to_zero():
    sigmas = PROCESS.sigmas(10)
    assert len(sigmas) == 11
    assert (sigmas.diff() < 0).all()
    assert sigmas[-1] == 0
    assert float(sigmas[0]) == pytest.approx(152.0, rel=0.01)  # sqrt(exp(10.05) - 1)
    torch.testing.assert_close(PROCESS.time(sigmas[-2]), torch.tensor(0.01, dtype=torch.float64))
    with pytest.raises(ValueError, match="at least one step"):
        PROCESS.sigmas(0)


def test_importance_sampled_times_have_a_uniform_log_variance_and_the_seed_decides():
    times = PROCESS.importance_times((50_000,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert times.min() >= 0.01
    assert times.max() <= 1
    level = torch.log(-torch.expm1(-PROCESS.integral(times)))
    low, high = torch.log(-torch.expm1(-PROCESS.integral(torch.tensor([0.01, 1.0], dtype=torch.float64))))
    deciles = torch.quantile((level - low) / (high - low), torch.linspace(0, 1, 11, dtype=torch.float64))
    torch.testing.assert_close(deciles, torch.linspace(0, 1, 11, dtype=torch.float64), atol=0.01, rtol=0)
    again = PROCESS.importance_times((50_000,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(times, again)


def test_importance_sampling_gives_the_weighted_integral():
    """The mean over the draws of any f, times the constant, is the integral of f d ln s^2."""
    times = PROCESS.importance_times((200_000,), generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def rate(t: float) -> float:
        integral = 0.1 * t + 9.95 * t * t
        return (0.1 + 19.9 * t) * float(torch.tensor(-integral).exp()) / -float(torch.expm1(torch.tensor(-integral)))

    expected = quad(lambda t: t * rate(t), 0.01, 1)[0]
    assert float(times.mean()) * PROCESS.importance_constant() == pytest.approx(expected, rel=0.01)


def test_a_gaussian_is_sampled_with_these_levels():
    """DDIM with 250 steps, as LN3Diff++ samples ShapeNet: x0 = mean + std z / sqrt(std^2 + sigma^2), roughly."""
    sigmas = PROCESS.sigmas(250)
    start = float(sigmas[0]) * noise(5, 64)
    final = last(sample_ddim(gaussian_denoiser, start, sigmas)).latents
    expected = 0.7 + 1.5 * (start - 0.7) / (1.5**2 + sigmas[0] ** 2).sqrt()
    assert (final - expected).abs().max() < 0.05


def test_bad_processes_are_refused():
    with pytest.raises(ValueError, match="beta_start < beta_end"):
        LinearVP(beta_start=20.0, beta_end=0.1)
