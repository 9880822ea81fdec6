"""How deep a place is in the units of its cameras, from the reference pictures alone.

Poses from structure from motion have an arbitrary unit, and a model trained on places of metric size does best near the
depths it was trained on. Matched points between the references, triangulated with their cameras, say how deep the place
is; no target picture is looked at, so that a model may be given the scaled cameras in an honest evaluation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from latent3d.data.captures.matches import match, triangulate
from latent3d.geometry.epipolar import fundamental_matrix, symmetric_epipolar_distance
from latent3d.representations.views import Views

TYPICAL_DEPTH = 2.0
"""Median depth in metres to which captures of unknown unit are scaled by default. Clips of the training worlds have
medians from 1.5 to 3.9 (5 % to 75 %); the near end serves better where cameras lie far apart."""
LEAST_MATCHES = 8
"""Fewer points that agree with the cameras say nothing."""
SIDE = 256
"""Pictures with a shorter side below this are enlarged before matching, since small ones give few points."""
TOLERANCE = 0.008
"""A match agrees with the cameras if it lies within this share of the shorter side of its epipolar lines."""
NARROWEST = 0.25
"""Rays that meet at a smaller angle, in degrees, say nothing about depth."""


def matched_depth(references: Views) -> float | None:
    """Median z-depth of points matched between references, in scene units; None where too few points agree.

    SIFT matches of all pairs of neighbouring references (in the order given), kept where they lie near their epipolar
    lines, in front of both cameras and at a measurable angle.

    Args:
        references: K views of one place; one view has no match and gives None.
    """
    shorter = min(references.cameras.height, references.cameras.width)
    factor = max(1, -(-SIDE // shorter))
    height, width = references.cameras.height * factor, references.cameras.width * factor
    images = references.images.float().cpu()
    if factor > 1:
        images = torch.nn.functional.interpolate(images, size=(height, width), mode="bicubic").clamp(0, 1)
    cameras = references.cameras.resized(height, width).to("cpu", torch.float64)
    depths: list[Tensor] = []
    for i in range(len(references) - 1):
        first, second = cameras[i], cameras[i + 1]
        pixels1, pixels2 = match(images[i], images[i + 1])
        if len(pixels1) == 0 or float((first.centers - second.centers).norm()) < 1e-9:
            continue
        distance = symmetric_epipolar_distance(fundamental_matrix(first, second), pixels1, pixels2)
        z = triangulate(first, second, pixels1, pixels2)
        baseline = (first.centers - second.centers).norm()
        wide = baseline > z[:, 0] * torch.tensor(NARROWEST).deg2rad()
        good = (distance < TOLERANCE * shorter * factor) & (z > 0).all(1) & wide
        depths.append(z[good].flatten())
    found = torch.cat(depths) if depths else torch.zeros(0)
    return float(found.median()) if len(found) >= 2 * LEAST_MATCHES else None
