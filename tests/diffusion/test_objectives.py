"""Losses: equality of the v and z0 forms, masks, and the known minimum on Gaussian data."""

from __future__ import annotations

import pytest
import torch

from latent3d.diffusion import objectives
from latent3d.diffusion.parameterization import match_leading, precondition_v, v_from_noise


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_weighted_z0_loss_equals_mse_on_v() -> None:
    z0, noise, sigma = normal(0, 2, 3, 4, 2, 2), normal(1, 2, 3, 4, 2, 2), normal(2, 2, 3).exp()
    predicted = normal(3, 2, 3, 4, 2, 2)
    loss = objectives.diffusion_loss(precondition_v(lambda x, label: predicted), z0, sigma, noise)
    torch.testing.assert_close(loss, objectives.v_loss(predicted, v_from_noise(z0, noise, sigma)))


def test_references_neither_get_noise_nor_count() -> None:
    z0, noise, sigma = normal(0, 2, 3, 4, 2, 2), normal(1, 2, 3, 4, 2, 2), normal(2, 2, 3).exp()
    targets = torch.tensor([[False, True, True], [False, False, True]])
    seen = {}

    def denoise(z: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        seen.update(z=z, level=level)
        return torch.where(match_leading(targets.double(), z) > 0, z, torch.inf)

    loss = objectives.diffusion_loss(denoise, z0, sigma, noise, targets)
    assert torch.equal(seen["z"][~targets], z0[~targets])
    assert (seen["level"][~targets] == 0).all()
    # on targets z0_hat = z, hence error sigma eps and w sigma^2 = sigma^2 + 1
    expected = ((sigma[targets] ** 2 + 1)[:, None, None, None] * noise[targets] ** 2).mean()
    torch.testing.assert_close(loss, expected)


def test_no_target_at_all_gives_zero_without_poisoning_the_gradient() -> None:
    values = normal(0, 2, 3).requires_grad_()
    loss = objectives.masked_mean(values, torch.zeros(2, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert (values.grad == 0).all()


@pytest.mark.parametrize("level", [0.3, 1.0, 4.0])
def test_ideal_denoiser_reaches_the_known_minimum(level: float) -> None:
    data_std = 1.5
    z0, noise = data_std * normal(0, 200_000), normal(1, 200_000)
    shrink = data_std**2 / (data_std**2 + level**2)

    def loss(factor: float) -> float:
        sigma = torch.full((), level, dtype=torch.float64)
        return float(objectives.diffusion_loss(lambda z, s: factor * z, z0, sigma, noise, weight=torch.ones_like))

    assert loss(shrink) == pytest.approx(shrink * level**2, rel=0.02)
    assert loss(shrink) < min(loss(shrink * 1.05), loss(shrink * 0.95))


@pytest.mark.parametrize("time", [0.1, 0.5, 0.8])
def test_ideal_velocity_reaches_the_known_minimum(time: float) -> None:
    z0, noise = normal(0, 200_000), normal(1, 200_000)
    slope = (2 * time - 1) / ((1 - time) ** 2 + time**2)  # regression of eps - z0 on x for unit Gaussian data

    def loss(factor: float) -> float:
        at = torch.full((), time, dtype=torch.float64)
        return float(objectives.flow_matching_loss(lambda x, t: factor * x, z0, at, noise))

    assert loss(slope) == pytest.approx(2 - slope * (2 * time - 1), rel=0.02)
    assert loss(slope) < min(loss(slope + 0.05), loss(slope - 0.05))


def test_flow_matching_leaves_references_clean() -> None:
    z0, noise = normal(0, 3, 4, 2, 2), normal(1, 3, 4, 2, 2)
    targets = torch.tensor([False, True, True])
    seen = {}

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.update(x=x, t=t)
        return torch.zeros_like(x)

    loss = objectives.flow_matching_loss(velocity, z0, torch.full((3,), 0.5, dtype=torch.float64), noise, targets)
    assert torch.equal(seen["x"][0], z0[0])
    assert seen["t"].tolist() == [0, 0.5, 0.5]
    torch.testing.assert_close(loss, (noise - z0)[1:].square().mean())


def test_min_snr_caps_the_weight() -> None:
    weight = objectives.min_snr_weight(5.0)
    assert weight(torch.tensor([0.01, 1.0, 2.0])).tolist() == pytest.approx([5, 1, 0.25])
