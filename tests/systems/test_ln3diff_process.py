"""Processes of LN3Diff++ that preserve the variance: levels in training and sampling, a perfect network's samples."""

import pytest
import torch
from torch import Tensor

from latent3d.diffusion.continuous import LinearVP
from latent3d.diffusion.parameterization import alpha_and_s, match_leading
from latent3d.diffusion.schedules import scaled_linear_betas, sigmas_from_betas
from latent3d.object_presets_paper import ln3diff_shapenet_tiny
from latent3d.systems.ln3diff_training import denoising_error


class Perfect(torch.nn.Module):
    """Noise or v of the only possible latent: (x - alpha z) / s = eps, v = alpha eps - s z. It remembers the levels."""

    def __init__(self, clean: Tensor, objective: str = "v") -> None:
        super().__init__()
        self.clean, self.objective, self.seen = clean, objective, []

    def forward(self, x: Tensor, time: Tensor, condition: object = None) -> Tensor:
        sigma = time / (1 - time)
        self.seen += sigma.flatten().tolist()
        alpha, s = (match_leading(level, x) for level in alpha_and_s(sigma))
        noise = (x - alpha * self.clean) / s
        return noise if self.objective == "eps" else alpha * noise - s * self.clean

    def precompute(self, condition: object) -> object:
        return condition


def test_training_draws_by_importance_and_sampling_starts_where_training_does():
    system = ln3diff_shapenet_tiny().system.build().eval()
    clean = torch.randn(1, *system.config.latent_shape)
    system.denoiser = perfect = Perfect(clean)
    process, generator = LinearVP(), torch.Generator().manual_seed(0)
    error = denoising_error(system, clean.expand(4000, *clean.shape[1:]), system.conditioner(), generator)
    assert float(error) < 1e-4
    drawn = torch.tensor(perfect.seen)
    low, high = (float(process.sigma(torch.tensor(time))) for time in (process.time_min, 1.0))
    assert 0.99 * low <= float(drawn.min())
    assert float(drawn.max()) <= 1.01 * high
    variance = (drawn**2 / (1 + drawn**2)).log()  # even between its ends
    ends = [torch.tensor(level**2 / (1 + level**2)).log() for level in (low, high)]
    share = (variance - ends[0]) / (ends[1] - ends[0])
    assert share.mean() == pytest.approx(0.5, abs=0.02)
    assert share.std() == pytest.approx(12**-0.5, abs=0.02)
    perfect.seen.clear()
    latents = system.sample([0, 1], steps=6).latents
    assert perfect.seen[0] == pytest.approx(high, rel=1e-3)
    torch.testing.assert_close(latents, clean.expand_as(latents), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("objective", ["v", "eps"])
def test_ddpm_draws_its_timesteps_evenly_and_samples_from_the_last_one(objective: str):
    config = ln3diff_shapenet_tiny().system
    config = config.replace(process="ddpm", objective=objective, denoiser=config.denoiser.replace(mixed=False))
    system = config.build().eval()
    clean = torch.randn(1, *system.config.latent_shape)
    system.denoiser = perfect = Perfect(clean, objective)
    generator, table = torch.Generator().manual_seed(0), sigmas_from_betas(scaled_linear_betas())
    error = denoising_error(system, clean.expand(4000, *clean.shape[1:]), system.conditioner(), generator)
    assert float(error) < 1e-4
    drawn = torch.tensor(perfect.seen, dtype=torch.float64)
    timestep = (drawn[:, None] - table).abs().argmin(1)
    torch.testing.assert_close(drawn, table[timestep], rtol=1e-3, atol=0)
    assert timestep.double().mean() == pytest.approx(499.5, abs=15)
    assert timestep.double().std() == pytest.approx(1000 / 12**0.5, abs=10)
    perfect.seen.clear()
    latents = system.sample([0, 1], steps=6).latents
    assert perfect.seen[0] == pytest.approx(float(table[-1]), rel=1e-3)
    torch.testing.assert_close(latents, clean.expand_as(latents), rtol=1e-3, atol=1e-3)


def test_a_straight_path_has_no_such_process_and_a_mixed_prediction_is_one_of_v():
    for process in ("lsgm", "ddpm"):
        with pytest.raises(ValueError, match="set objective to v"):
            ln3diff_shapenet_tiny().system.replace(objective="flow", process=process)
    with pytest.raises(ValueError, match="mixed prediction"):
        ln3diff_shapenet_tiny().system.replace(objective="eps")
