"""Stand-ins for a scene that exists already, to train the splat-conditional variant (GGS section 3.4; spec 6).

At test the model sees what it made before: splats with errors of depth, and holes. In training the scene is
approximated by small per-pixel splats of further views, with depth that is wrong by some per cent and patches missing.

Letters: b = scenes, v = views.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.representations.gaussians import Gaussians
from latent3d.systems.carried_pixels import lift_surface

DEPTH_ERROR = 0.03
"""Standard deviation of the errors of ln depth: of whole views, and as much again from place to place."""
MISSING = 0.3
"""Share of the patches that are left out."""
PATCHES = 8
"""Patches per side of a picture."""


@torch.no_grad()
def approximate_scene(
    images: Float[Tensor, "b v 3 H W"],
    depths: Float[Tensor, "b v 1 H W"],
    cameras: Cameras,
    stride: int,
    generator: torch.Generator,
) -> list[Gaussians]:
    """Splats of every ``stride``-th pixel of each scene's views, in the world of the cameras (b, v).

    Pixels with depth 0 are left out.

    Args:
        generator: on the CPU; of the errors and the missing patches.
    """
    b, v, _, height, width = images.shape
    h, w = height // stride, width // stride
    color = F.avg_pool2d(images.flatten(0, 1), stride).unflatten(0, (b, v))
    depth = depths[..., stride // 2 :: stride, stride // 2 :: stride]
    whole = torch.randn(b * v, 1, 1, 1, generator=generator)
    places = F.interpolate(torch.randn(b * v, 1, PATCHES, PATCHES, generator=generator), size=(h, w), mode="bilinear")
    error = (DEPTH_ERROR * (whole + places)).exp().unflatten(0, (b, v)).to(depth)
    there = torch.rand(b * v, 1, PATCHES, PATCHES, generator=generator) > MISSING
    there = F.interpolate(there.float(), size=(h, w), mode="nearest").unflatten(0, (b, v)).to(depth)
    kept = ((there > 0) & (depth > 0)).flatten(1)
    nearest = depth[depth > 0].min() if bool((depth > 0).any()) else depth.new_ones(())
    scenes = lift_surface(color, depth.clamp_min(nearest) * error, cameras.resized(h, w))
    return [scene[kept[i]] for i, scene in enumerate(scenes)]
