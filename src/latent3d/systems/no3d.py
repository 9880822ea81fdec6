"""The twin without 3D ("Ours-No3D" of the GGS paper; spec 3.10): the same pose-conditional video model, whose v comes
from the denoiser's own output layer instead of from splats.

It is trained by the stage ``twin`` of `GGSSystem` and sampled here: same references, conditions, order of views,
schedule, sampler and noise as `GGSSystem.sample`, so that the splats are the only difference. What it gives are
pictures; a scene has to be reconstructed from them.

Letters: b = scenes, m = views, c = latent channels, h/w = latent rows and columns, H/W = image rows and columns.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latent3d.diffusion.parameterization import c_in, c_noise, c_out, c_skip
from latent3d.diffusion.samplers import sample_euler
from latent3d.geometry.cameras import Cameras
from latent3d.representations.views import Views
from latent3d.systems.ggs import GGSSystem
from latent3d.systems.ggs_guidance import Guidance, guided
from latent3d.systems.ggs_records import SceneContext


@dataclass(frozen=True)
class TwinOutput:
    """Generated pictures; views are the references in the given order, then the targets in the given order.

    Attributes:
        images: references as given, targets decoded from latents, (M, 3, H, W).
        latents: (M, c, h, w).
        cameras: (M,).
        is_reference: (M,).
    """

    images: Float[Tensor, "m 3 H W"]
    latents: Float[Tensor, "m c h w"]
    cameras: Cameras
    is_reference: Bool[Tensor, " m"]


def denoise_twin(
    system: GGSSystem, noisy: Float[Tensor, "b m c h w"], sigma: Float[Tensor, " b"], context: SceneContext
) -> Float[Tensor, "b m c h w"]:
    """Estimate of the clean latents of all views (the given ones on references) from z_0 + sigma * noise."""
    role, levels = context.role, system.noise_levels(sigma, context)
    level = levels[..., None, None, None]
    noisy = noisy + role * (context.latents - noisy)
    features = system.denoise(
        c_in(level) * noisy, context.latents, c_noise(levels), context.plucker, context.tokens,
        system.condition_of(context),
    )  # fmt: skip
    z0 = c_skip(level) * noisy + c_out(level) * system.denoiser.velocity(features).float()
    return z0 + role * (context.latents - z0)


@torch.no_grad()
def sample_twin(
    system: GGSSystem,
    references: Views,
    targets: Cameras,
    *,
    steps: int = 30,
    seed: int = 0,
    bf16: bool = False,
    guidance: Guidance = 1.0,
) -> TwinOutput:
    """Generate views from posed references without any scene behind them.

    Args:
        system: whose denoiser the stage ``twin`` has trained.
        references: (K,) views, K >= 1, images of the model's size.
        targets: (L,) cameras of the views to generate, L >= 1.
        steps: Euler steps.
        seed: of the initial noise, which is that of `GGSSystem.sample` with this seed.
        bf16: run the networks in bfloat16 (autocast).
        guidance: see `ggs_guidance`.

    Raises:
        ValueError: if there is no reference or no target, images are not of the model's size, or the model cannot be
            guided.
    """
    if len(targets) < 1:
        raise ValueError("the model without 3D needs at least one target camera; there is no scene to decode without")
    with torch.autocast(references.images.device.type, torch.bfloat16, enabled=bf16):
        start = system.begin(references, targets, steps, seed)
        context, is_reference, z = start.context, start.context.is_reference, start.noisy

        def denoise(latents: Tensor, levels: Tensor) -> Tensor:
            return denoise_twin(system, latents, levels.amax(-1).clamp_min(system.config.sigma_min), context)

        led = guided(system, start, guidance, denoise, functools.partial(denoise_twin, system))
        for step in sample_euler(led, z, start.sigmas, frozen=is_reference[None]):
            z = step.latents
        decoded = system.vae.decode(z[0]).float()
    pictures = torch.where(is_reference[:, None, None, None], context.images[0], decoded)
    back = start.order.argsort()
    return TwinOutput(pictures[back], z[0][back], start.cameras, is_reference[back])
