"""Samplers on problems with known answers, their order and number of calls, and diffusers' Euler scheduler beside."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from latent3d.diffusion import samplers, schedules
from latent3d.diffusion.parameterization import match_leading, precondition_v

MEAN, STD = 0.7, 1.5


def gaussian_denoiser(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """E[z0 | z] for z0 ~ N(MEAN, STD^2)."""
    level = match_leading(sigma, z)
    return MEAN + STD**2 / (STD**2 + level**2) * (z - MEAN)


def gaussian_solution(z: torch.Tensor, start: float, end: float) -> torch.Tensor:
    """The probability-flow equation of that Gaussian in closed form, from level ``start`` to level ``end``."""
    return MEAN + math.sqrt((STD**2 + end**2) / (STD**2 + start**2)) * (z - MEAN)


def gaussian_velocity(x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """E[eps - z0 | x_t] for the same data on the straight path."""
    t = match_leading(time, x)
    variance = ((1 - t) * STD) ** 2 + t**2
    return -MEAN + (t - (1 - t) * STD**2) / variance * (x - (1 - t) * MEAN)


def swinging_velocity(x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """A field whose curve is known: x(t) = x(1) exp((sin 5 t - sin 5) / 5)."""
    return x * torch.cos(5 * match_leading(time, x))


class Counting:
    """A callable that counts, and remembers the levels it was asked at."""

    def __init__(self, function: Callable) -> None:
        self.function, self.levels = function, []

    def __call__(self, z: torch.Tensor, level: torch.Tensor):
        self.levels.append(level)
        return self.function(z, level)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def last(steps) -> samplers.SamplerStep:
    *_, step = steps
    return step


@pytest.mark.parametrize("sampler", [samplers.sample_euler, samplers.sample_heun, samplers.sample_ddim])
def test_gaussian_data_comes_out_with_the_right_moments(sampler: Callable) -> None:
    sigmas = schedules.karras_sigmas(100, sigma_max=80.0)
    out = last(sampler(gaussian_denoiser, 80 * noise(0, 20_000), sigmas)).latents
    assert float(out.mean()) == pytest.approx(MEAN, abs=0.05)
    assert float(out.std()) == pytest.approx(STD, rel=0.05)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_stochastic_ddim_has_the_right_moments(eta: float) -> None:
    generator = torch.Generator().manual_seed(1)
    sigmas = schedules.karras_sigmas(400, sigma_max=80.0)  # fresh noise in few steps makes the spread too small
    steps = samplers.sample_ddim(gaussian_denoiser, 80 * noise(0, 20_000), sigmas, eta=eta, generator=generator)
    out = last(steps).latents
    assert float(out.mean()) == pytest.approx(MEAN, abs=0.05)
    assert float(out.std()) == pytest.approx(STD, rel=0.05)


def order_of(error: Callable[[int], float]) -> float:
    """Slope of log error over log steps."""
    return math.log2(error(256) / error(512))


@pytest.mark.parametrize(("sampler", "order"), [(samplers.sample_euler, 1), (samplers.sample_heun, 2)])
def test_order_of_convergence(sampler: Callable, order: int) -> None:
    start, end = 10.0, 0.1
    z = start * noise(0, 50)

    def error(steps: int) -> float:
        sigmas = schedules.karras_sigmas(steps + 1, sigma_min=end, sigma_max=start)[:-1]
        out = last(sampler(gaussian_denoiser, z, sigmas)).latents
        return float((out - gaussian_solution(z, start, end)).abs().max())

    assert order_of(error) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(
    ("sampler", "order"),
    [(samplers.sample_flow_euler, 1), (samplers.sample_flow_heun, 2), (samplers.sample_flow_midpoint, 2)],
)
def test_order_of_convergence_of_flow_samplers(sampler: Callable, order: int) -> None:
    x = noise(0, 50)

    def error(steps: int) -> float:
        out = last(sampler(swinging_velocity, x, schedules.flow_times(steps))).latents
        return float((out - x * math.exp(-math.sin(5) / 5)).abs().max())

    assert order_of(error) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(
    "sampler", [samplers.sample_flow_euler, samplers.sample_flow_heun, samplers.sample_flow_midpoint]
)
def test_flow_carries_noise_to_gaussian_data(sampler: Callable) -> None:
    x = noise(0, 50)
    out = last(sampler(gaussian_velocity, x, schedules.flow_times(200, shift=2.0))).latents
    torch.testing.assert_close(out, MEAN + STD * x, rtol=0.02, atol=0.02)  # between Gaussians the flow is linear


CALLS = [
    (samplers.sample_euler, lambda n: n),
    (samplers.sample_ddim, lambda n: n),
    (samplers.sample_heun, lambda n: 2 * n - 1),
    (samplers.invert_ddim, lambda n: n),
    (lambda f, z, s: samplers.invert_ddim(f, z, s, refinements=3), lambda n: 4 * n),
    (samplers.sample_flow_euler, lambda n: n),
    (samplers.sample_flow_heun, lambda n: 2 * n),
    (samplers.sample_flow_midpoint, lambda n: 2 * n),
]


@pytest.mark.parametrize(("sampler", "calls"), CALLS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_number_of_network_calls_is_as_documented(sampler: Callable, calls: Callable, steps: int) -> None:
    network = Counting(lambda z, level: 0.5 * z)
    records = list(sampler(network, noise(0, 3, 2), schedules.flow_times(steps)))
    assert [record.step for record in records] == list(range(steps))
    assert len(network.levels) == calls(steps)


def test_nothing_runs_before_the_first_step_is_asked_for() -> None:
    network = Counting(gaussian_denoiser)
    steps = samplers.sample_euler(network, noise(0, 3), schedules.karras_sigmas(5))
    assert network.levels == []
    next(steps)
    assert len(network.levels) == 1


@pytest.mark.parametrize("sampler", [samplers.sample_euler, samplers.sample_heun, samplers.sample_ddim])
def test_the_last_step_returns_the_estimate_exactly(sampler: Callable) -> None:
    step = last(sampler(gaussian_denoiser, 700 * noise(0, 3, 4).float(), schedules.karras_sigmas(6)))
    assert step.sigma_next == 0
    assert torch.equal(step.latents, step.z0)


@pytest.mark.parametrize(
    "sampler",
    [
        samplers.sample_euler,
        samplers.sample_heun,
        samplers.sample_flow_euler,
        samplers.sample_flow_heun,
        samplers.sample_flow_midpoint,
        samplers.invert_ddim,
        lambda f, z, s, frozen: samplers.sample_ddim(
            f, z, s, frozen=frozen, eta=0.7, generator=torch.Generator().manual_seed(0)
        ),
    ],
)
def test_frozen_frames_stay_bit_identical_and_are_told_level_zero(sampler: Callable) -> None:
    frozen = torch.tensor([[True, False, False], [False, True, True]])
    z = noise(0, 2, 3, 4, 2, 2).float()
    network = Counting(lambda x, level: 0.3 * x + x.mean())
    for record in sampler(network, z, schedules.flow_times(4), frozen=frozen):
        assert torch.equal(record.latents[frozen], z[frozen])
        assert torch.equal(record.z0[frozen], z[frozen])
        assert not torch.equal(record.latents[~frozen], z[~frozen])
    for level in network.levels:
        assert level.shape == frozen.shape
        assert (level[frozen] == 0).all()
        assert len(level[~frozen].unique()) == 1


def test_initial_latents_keep_what_is_known() -> None:
    known, frozen = noise(0, 3, 4, 8, 8), torch.tensor([True, False, False])
    start = samplers.initial_latents(known, 700.0, frozen=frozen, generator=torch.Generator().manual_seed(3))
    again = samplers.initial_latents(known, 700.0, frozen=frozen, generator=torch.Generator().manual_seed(3))
    assert torch.equal(start, again)
    assert torch.equal(start[0], known[0])
    assert float(start[1:].std()) == pytest.approx(700, rel=0.1)


def test_whatever_the_network_adds_is_in_the_record() -> None:
    steps = samplers.sample_euler(lambda z, s: (0.5 * z, {"sigma": float(s)}), noise(0, 3), torch.tensor([2.0, 1.0, 0]))
    assert [step.aux for step in steps] == [{"sigma": 2.0}, {"sigma": 1.0}]


def test_ddim_without_fresh_noise_is_euler() -> None:
    z, sigmas = 80 * noise(0, 10), schedules.karras_sigmas(8, sigma_max=80.0)
    euler = samplers.sample_euler(gaussian_denoiser, z, sigmas)
    for ours, theirs in zip(euler, samplers.sample_ddim(gaussian_denoiser, z, sigmas), strict=True):
        assert torch.equal(ours.latents, theirs.latents)


def test_inversion_and_sampling_are_a_round_trip() -> None:
    sigmas = schedules.karras_sigmas(12, sigma_min=0.02, sigma_max=20.0)
    clean = MEAN + STD * noise(0, 40)

    def denoise(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return gaussian_denoiser(z, sigma) + 0.1 * torch.sin(z)  # not linear, as a network is not

    def round_trip(refinements: int) -> float:
        up = last(samplers.invert_ddim(denoise, clean, sigmas, refinements=refinements)).latents
        return float((last(samplers.sample_ddim(denoise, up, sigmas)).latents - clean).abs().max())

    plain, better, exact = round_trip(0), round_trip(3), round_trip(80)
    assert exact < 1e-9
    assert exact < better < plain


def test_inversion_gives_noise_of_the_right_size() -> None:
    sigmas = schedules.karras_sigmas(200, sigma_min=0.02, sigma_max=20.0)
    up = last(samplers.invert_ddim(gaussian_denoiser, MEAN + STD * noise(0, 5_000), sigmas)).latents
    assert float(up.std()) == pytest.approx(math.sqrt(20**2 + STD**2), rel=0.05)


def test_a_point_mass_is_reached_in_one_straight_step() -> None:
    target = noise(1, 5)
    step = last(samplers.sample_flow_euler(lambda x, t: (x - target) / t, noise(0, 5), schedules.flow_times(1)))
    torch.testing.assert_close(step.latents, target)
    torch.testing.assert_close(step.z0, target)


def test_euler_agrees_with_diffusers_in_svd_configuration() -> None:
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler(
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        sigma_max=700.0,
        sigma_min=0.002,
        timestep_type="continuous",
        timestep_spacing="leading",
        steps_offset=1,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
    )
    scheduler.set_timesteps(30)
    sigmas = schedules.karras_sigmas(30)
    torch.testing.assert_close(sigmas.float(), scheduler.sigmas, rtol=1e-5, atol=1e-6)

    def network(x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return torch.tanh(1.3 * x + label) - 0.4 * x

    theirs = 700 * noise(0, 2, 4, 8, 8).float()
    steps = samplers.sample_euler(precondition_v(network), theirs.clone(), sigmas)
    for ours, timestep in zip(steps, scheduler.timesteps, strict=True):
        assert float(timestep) == pytest.approx(0.25 * math.log(ours.sigma), abs=1e-5)
        out = scheduler.step(network(scheduler.scale_model_input(theirs, timestep), timestep), timestep, theirs)
        theirs, scale = out.prev_sample, math.sqrt(ours.sigma_next**2 + 1)
        torch.testing.assert_close(ours.latents / scale, theirs / scale, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("levels", [[1.0], [1.0, 1.0, 0.0], [0.0, 1.0], [1.0, -1.0]])
def test_levels_that_do_not_fall_to_zero_are_refused(levels: list[float]) -> None:
    with pytest.raises(ValueError, match="fall strictly"):
        next(samplers.sample_euler(gaussian_denoiser, noise(0, 3), torch.tensor(levels)))


def test_options_out_of_range_are_refused() -> None:
    z, sigmas = noise(0, 3), schedules.karras_sigmas(3)
    with pytest.raises(ValueError, match="eta"):
        next(samplers.sample_ddim(gaussian_denoiser, z, sigmas, eta=1.5))
    with pytest.raises(ValueError, match="refinements"):
        next(samplers.invert_ddim(gaussian_denoiser, z, sigmas, refinements=-1))
