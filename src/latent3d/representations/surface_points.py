"""Points drawn evenly over the area of a mesh."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent3d.representations.mesh import Mesh


def draw_on_surface(
    mesh: Mesh, count: int, rng: np.random.Generator
) -> tuple[Float[Tensor, "count 3"], Int[Tensor, " count"]]:
    """``count`` points in the mesh's units, float32, and the face that each lies on.

    Faces are drawn in proportion to their area; within a face the square root makes the density even (Osada et al.,
    "Shape Distributions", 2002, eq. 1).

    Raises:
        ValueError: for a mesh without area.
    """
    corners = mesh.corners().detach().cpu().double().numpy()
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
    total = area.sum()
    if not total > 0:
        raise ValueError("the mesh has no area, so that no point can be drawn on it")
    drawn = np.searchsorted(np.cumsum(area) / total, rng.random(count), side="right").clip(0, len(area) - 1)
    root, share = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    a, b, c = corners[drawn].transpose(1, 0, 2)
    points = (1 - root) * a + root * (1 - share) * b + root * share * c
    return torch.from_numpy(points).float(), torch.from_numpy(drawn)
