"""Which pixels of the targets some reference has seen, by depth."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Bool
from torch import Tensor

from latent3d.geometry.rays import unproject
from latent3d.representations.views import Views

SEEN_TOLERANCE = 0.03
"""Relative difference of depth up to which two samples are the same surface."""


def seen_mask(references: Views, targets: Views, tolerance: float = SEEN_TOLERANCE) -> Bool[Tensor, "m 1 h w"]:
    """Target pixels whose surface point appears in at least one reference, (M, 1, H, W).

    The point projects into the reference's image, in front of it, and one of the four reference pixels around it shows
    a surface at its depth (four, because the depth of a slanted surface changes within a pixel). Pixels of unknown
    depth (0) are not seen.

    Args:
        references, targets: with depths.
        tolerance: relative difference of depth that counts as equal.

    Raises:
        ValueError: if depths are missing.
    """
    if references.depths is None or targets.depths is None:
        raise ValueError("seen pixels follow from depth; give references and targets whose `depths` are set")
    cameras, depths = references.cameras, references.depths
    points = rearrange(unproject(targets.cameras, targets.depths), "m h w c -> m (h w) c")
    seen = torch.zeros(points.shape[:-1], dtype=torch.bool, device=points.device)
    for k in range(len(references)):
        camera = cameras[k]
        position, z = camera.project(rearrange(points, "m p c -> (m p) c"))
        position, z = position.view(*points.shape[:-1], 2), z.view(points.shape[:-1])
        inside = (z > 0) & (position >= 0).all(-1)
        inside &= (position[..., 0] < camera.width) & (position[..., 1] < camera.height)
        corner = (position - 0.5).floor()
        agrees = torch.zeros_like(inside)
        for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
            x = (corner[..., 0] + dx).clamp(0, camera.width - 1).long()
            y = (corner[..., 1] + dy).clamp(0, camera.height - 1).long()
            agrees |= (depths[k, 0, y, x] - z).abs() <= tolerance * z
        seen |= inside & agrees
    known = targets.depths > 0
    return rearrange(seen, "m (h w) -> m 1 h w", h=targets.cameras.height) & known
