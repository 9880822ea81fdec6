"""Splats seen by any number of cameras, within the memory that there is. Without gradients: for pictures and films."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch

from latent3d.geometry.cameras import Cameras
from latent3d.memory import at_once, retried
from latent3d.rendering.base import Rendering
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians

SMALLER = "render smaller pictures or fewer splats"


@torch.no_grad()
def render_views(gaussians: Gaussians, cameras: Cameras, **settings: Any) -> Rendering:
    """`render_gaussians` of cameras (V,), at lean memory levels a few at a time.

    Raises:
        NotEnoughMemoryError: one view at a time does not fit.
    """

    def rendered() -> Rendering:
        size = at_once(len(cameras), 2, 1)
        starts = range(0, len(cameras), size)
        parts = [render_gaussians(gaussians, cameras[start : start + size], **settings) for start in starts]
        return parts[0] if len(parts) == 1 else _joined(parts)

    return retried(rendered, SMALLER)


def _joined(parts: list[Rendering]) -> Rendering:
    columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Rendering)}
    joined: Any = {name: None if some[0] is None else torch.cat(some) for name, some in columns.items()}
    return Rendering(**joined)
