"""Conversions between what a denoiser may predict: round trips, known values, clean frames, broadcasting of levels."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latent3d.diffusion import parameterization as p

SIGMAS = st.floats(min_value=1e-3, max_value=700.0)


def latents(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(sigma=SIGMAS, seed=st.integers(0, 1000))
def test_v_and_z0_round_trip(sigma: float, seed: int) -> None:
    z, v = latents(seed, 3, 4, 2, 2), latents(seed + 1, 3, 4, 2, 2)
    z0 = p.z0_from_v(z, v, sigma)
    torch.testing.assert_close(p.v_from_z0(z, z0, sigma), v, rtol=1e-9, atol=1e-7)


@given(sigma=SIGMAS, seed=st.integers(0, 1000))
def test_all_predictions_of_one_noisy_latent_agree(sigma: float, seed: int) -> None:
    z0, noise = latents(seed, 2, 3, 2, 2), latents(seed + 1, 2, 3, 2, 2)
    z, v = p.add_noise(z0, noise, sigma), p.v_from_noise(z0, noise, sigma)
    x = p.vp_from_ve(z, sigma)
    alpha, s = p.alpha_and_s(torch.tensor(sigma, dtype=torch.float64))
    assert float(alpha**2 + s**2) == pytest.approx(1)
    close = {"rtol": 1e-6, "atol": 1e-6}  # noise / z0 may be 1e-6 of z at the ends of the range
    torch.testing.assert_close(x, alpha * z0 + s * noise, **close)
    torch.testing.assert_close(v, alpha * noise - s * z0, **close)
    torch.testing.assert_close(p.ve_from_vp(x, sigma), z, **close)
    torch.testing.assert_close(p.z0_from_v(z, v, sigma), z0, **close)
    torch.testing.assert_close(p.z0_from_v_vp(x, v, sigma), z0, **close)
    torch.testing.assert_close(p.noise_from_v_vp(x, v, sigma), noise, **close)
    torch.testing.assert_close(p.z0_from_noise(z, noise, sigma), z0, **close)
    torch.testing.assert_close(p.z0_from_noise_vp(x, noise, sigma), z0, **close)
    torch.testing.assert_close(p.noise_from_z0(z, z0, sigma), noise, **close)


@given(sigma=SIGMAS)
def test_loss_weight_makes_the_loss_plain_mse_on_v(sigma: float) -> None:
    level = torch.tensor(sigma, dtype=torch.float64)
    assert float(p.loss_weight(level) * p.c_out(level) ** 2) == pytest.approx(1)


def test_preconditioning_has_the_published_values() -> None:
    level = torch.tensor(3.0, dtype=torch.float64)
    assert float(p.c_in(level)) == pytest.approx(1 / math.sqrt(10))
    assert float(p.c_skip(level)) == pytest.approx(0.1)
    assert float(p.c_out(level)) == pytest.approx(-3 / math.sqrt(10))
    assert float(p.c_noise(level)) == pytest.approx(0.25 * math.log(3))
    assert float(p.sigma_from_alpha_bar(p.alpha_bar_from_sigma(level))) == pytest.approx(3)


def test_clean_frames_pass_unchanged() -> None:
    z, v = latents(0, 3, 4, 2, 2), latents(1, 3, 4, 2, 2)
    sigma = torch.tensor([0.0, 2.0, 0.0], dtype=torch.float64)
    z0 = p.z0_from_v(z, v, sigma)
    assert torch.equal(z0[[0, 2]], z[[0, 2]])
    assert not torch.allclose(z0[1], z[1])
    assert p.c_out(sigma)[0] == 0
    assert p.loss_weight(sigma)[0] == 0
    assert p.loss_weight(sigma)[1] == 1.25
    assert p.noise_from_z0(z, z0, sigma)[0].abs().max() == 0
    assert p.v_from_z0(z, z0, sigma).isfinite().all()
    assert float(p.c_noise(sigma)[0]) == pytest.approx(0.25 * math.log(0.002))


def test_gradients_stay_finite_at_level_zero() -> None:
    sigma = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    z = latents(0, 2, 3, 1, 1).requires_grad_()
    (p.loss_weight(sigma).sum() + p.noise_from_z0(z, 0.5 * z, sigma).sum()).backward()
    assert sigma.grad.isfinite().all()
    assert z.grad.isfinite().all()


def test_one_level_per_frame_equals_frame_by_frame() -> None:
    z, v, sigma = latents(0, 2, 3, 4, 2, 2), latents(1, 2, 3, 4, 2, 2), latents(2, 2, 3).exp()
    together = p.z0_from_v(z, v, sigma)
    for b in range(2):
        for m in range(3):
            torch.testing.assert_close(together[b, m], p.z0_from_v(z[b, m], v[b, m], float(sigma[b, m])))


@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 3, 4, 2, 2, 1)])
def test_a_level_that_does_not_fit_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="leading axes"):
        p.match_leading(torch.ones(shape), torch.zeros(2, 3, 4, 2, 2))


@given(sigma=SIGMAS, seed=st.integers(0, 1000))
def test_precondition_with_the_true_v_gives_the_clean_latent(sigma: float, seed: int) -> None:
    z0, noise = latents(seed, 2, 3, 2, 2), latents(seed + 1, 2, 3, 2, 2)
    seen = {}

    def oracle(x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        seen.update(x=x, label=label)
        return p.v_from_noise(z0, noise, sigma)

    z = p.add_noise(z0, noise, sigma)
    torch.testing.assert_close(p.precondition_v(oracle)(z, torch.tensor(sigma)), z0, rtol=1e-4, atol=1e-4)
    assert float(seen["label"]) == pytest.approx(0.25 * math.log(max(sigma, p.SIGMA_FLOOR)), rel=1e-5, abs=1e-6)
    torch.testing.assert_close(seen["x"], z / math.sqrt(sigma**2 + 1), rtol=1e-5, atol=1e-6)


@given(time=st.floats(min_value=1e-3, max_value=0.999), seed=st.integers(0, 1000))
def test_straight_flow_round_trips(time: float, seed: int) -> None:
    z0, noise = latents(seed, 2, 3, 2, 2), latents(seed + 1, 2, 3, 2, 2)
    x, u = p.flow_interpolate(z0, noise, time), p.velocity_from_noise(z0, noise)
    torch.testing.assert_close(p.z0_from_velocity(x, u, time), z0)
    torch.testing.assert_close(p.noise_from_velocity(x, u, time), noise)
    torch.testing.assert_close(p.velocity_from_z0(x, z0, time), u)
    sigma = p.sigma_from_time(torch.tensor(time, dtype=torch.float64))
    assert float(p.time_from_sigma(sigma)) == pytest.approx(time)
    torch.testing.assert_close(p.flow_from_ve(p.add_noise(z0, noise, sigma), sigma), x)


def test_velocity_is_the_derivative_of_the_path() -> None:
    z0, noise = latents(0, 2, 3), latents(1, 2, 3)
    _, slope = torch.func.jvp(
        lambda t: p.flow_interpolate(z0, noise, t),
        (torch.tensor(0.3, dtype=torch.float64),),
        (torch.tensor(1.0, dtype=torch.float64),),
    )
    torch.testing.assert_close(slope, p.velocity_from_noise(z0, noise))
