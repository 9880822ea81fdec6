"""Which splats of a generated scene were seen, which follow from what was seen, and which are made up."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.origin import Origin

SURFACE_TOLERANCE = 0.1
"""A point this share of its depth behind the surface that a view sees still counts as shown: depths are not exact."""


@torch.no_grad()
def origin_of(
    gaussians: Gaussians,
    from_reference: Bool[Tensor, " n"],
    references: Cameras,
    depths: Float[Tensor, "k 1 H W"],
) -> Int[Tensor, " n"]:
    """`Origin` of every splat.

    Args:
        from_reference: which splats are pixels of a reference.
        references: cameras (k,) of the references.
        depths: z-depth of the surface that each reference sees, 0 where it sees none.
    """
    seen = torch.zeros_like(from_reference)
    for one in range(len(references)):  # one by one: memory does not depend on their number
        shown = SampledSurface(gaussians.means, references[one : one + 1], depths[one : one + 1])
        seen |= ((shown.depth > 0) & (shown.z < (1 + SURFACE_TOLERANCE) * shown.depth))[0]
    origin = torch.where(seen, int(Origin.INTERPOLATED), int(Origin.INVENTED))
    return torch.where(from_reference, int(Origin.SEEN), origin)


class SampledSurface:
    """What k views see at the projections of n points.

    Attributes:
        z: z-depth of the points, (k, n).
        depth: of the surface seen there; 0 outside the picture, behind the camera and where nothing is seen, (k, n).
        pixels: where the points project to, clamped near the picture, as `grid_sample` coordinates (k, n, 1, 2).
        inside: whether the points lie in the picture and before the camera, (k, n).
    """

    def __init__(self, points: Float[Tensor, "n 3"], cameras: Cameras, depths: Float[Tensor, "k 1 H W"]) -> None:
        count = len(cameras)
        place, self.z = cameras.project(points.expand(count, *points.shape))
        grid = place / place.new_tensor([cameras.width, cameras.height]) * 2 - 1
        self.inside = (self.z > 0) & (grid.abs() < 1).all(-1)
        self.pixels = grid.clamp(-2, 2)[:, :, None]
        self.depth = self.of(depths)[:, 0] * self.inside

    def of(self, maps: Float[Tensor, "k c H W"]) -> Float[Tensor, "k c n"]:
        """Values of maps at the points, of the nearest pixel; 0 outside."""
        return F.grid_sample(maps.to(self.pixels), self.pixels, mode="nearest", align_corners=False)[..., 0]
