"""Classifier-free guidance of whole scenes: away from what a model makes of the target cameras alone (spec 3.9, ours).

Without references their frames leave the sequence, and latents, tokens and carried pixels of all views are zero; a
model learns it in a share ``reference_dropout`` of its batches. Only estimates of latents are mixed. The splats that
travel with them stay those of the conditional call: a mixture of two scenes would be none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from latent3d.diffusion.guidance import GuidedDenoiser, linear_ramp

if TYPE_CHECKING:
    from latent3d.representations.views import Views
    from latent3d.systems.ggs import GGSSystem
    from latent3d.systems.ggs_records import GGSConfig, SamplingStart, SceneContext

Guidance: TypeAlias = float | tuple[float, float]
"""A scale, or those of the first and the last target along the path, between which it changes evenly, as in SVD."""


def check_guidance(config: GGSConfig, guidance: Guidance) -> tuple[float, float]:
    """Scales of the first and the last target.

    Raises:
        ValueError: for a negative or infinite scale, or one other than 1 for a model that never saw cameras alone.
    """
    first, last = guidance if isinstance(guidance, tuple) else (guidance, guidance)
    if not all(0 <= scale < float("inf") for scale in (first, last)):
        raise ValueError(f"guidance is a scale of 0 or more, or two of them; got {guidance}")
    if (first, last) != (1, 1) and not config.reference_dropout:
        raise ValueError(
            f"this model was trained with its references always, so it cannot be guided by {guidance}; leave guidance "
            "at 1, or train with system.reference_dropout above 0"
        )
    return float(first), float(last)


def guided(
    system: GGSSystem,
    start: SamplingStart,
    guidance: Guidance,
    conditional: Callable[[Tensor, Tensor], Any],
    estimate: Callable[[Tensor, Tensor, SceneContext], Tensor],
) -> Callable[[Tensor, Tensor], Any]:
    """``conditional`` under guidance; itself where the scale is 1.

    Args:
        start: of the sampler, one scene.
        conditional: (latents (1, m, c, h, w), levels (1, m)) to the estimate of clean ones, or to that and more.
        estimate: (latents, sigma (1,), context) of some views to the estimate of their clean latents.

    Raises:
        ValueError: see `check_guidance`.
    """
    scales = check_guidance(system.config, guidance)
    context = start.context
    targets = (~context.is_reference).nonzero()[:, 0]
    if scales == (1.0, 1.0) or not len(targets):
        return conditional
    nothing = torch.zeros_like(targets, dtype=torch.bool)
    alone = system.context_of(context.images[:, targets], context.cameras[:, targets], nothing)
    alone = replace(alone, plucker=system.denoiser.precompute(alone.plucker))  # type: ignore[arg-type]

    def unconditional(latents: Tensor, levels: Tensor) -> Tensor:
        sigma = levels.amax(-1).clamp_min(system.config.sigma_min)
        return latents.index_copy(1, targets, estimate(latents[:, targets], sigma, alone))

    scale = context.latents.new_ones(1, len(context.is_reference))
    scale[:, targets] = linear_ramp(len(targets), *scales).to(scale)
    return GuidedDenoiser(conditional, unconditional, scale)


def drops_references(system: GGSSystem, generator: torch.Generator) -> bool:
    """Whether a training batch is to be generated from its cameras alone."""
    share = system.config.reference_dropout
    return share > 0 and float(torch.rand((), generator=generator)) < share


def without_references(batch: Views, role: Tensor) -> tuple[Views, Tensor]:
    """A batch (b, m + j), whose first m views have roles (m,), without its references; and the roles of the others."""
    targets = (~role).nonzero()[:, 0]
    further = torch.arange(len(role), batch.shape[1])
    return batch[:, torch.cat([targets, further])], torch.zeros(len(targets), dtype=torch.bool)


def anchor_of(is_reference: Tensor) -> int:
    """The view in whose frame a scene is seen: its first reference, or its first view where there is none."""
    return int(is_reference.long().argmax())
