"""Gaussians from a tri-plane: splats tied to the surface of the field that the same planes stand for.

LN3Diff++'s latent is meant to serve any representation; this decoder reads the feature planes of the trained
autoencoder and is fine-tuned with everything else frozen (ours; the paper shows tri-plane fields and FlexiCubes).

Letters: b = objects, k = views, n = splats, c = channels, H/W = rows and columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.config import Config
from latent3d.geometry.cameras import Cameras
from latent3d.rendering.anchors import Anchors, surface_anchors
from latent3d.rendering.base import Rendering, stack
from latent3d.rendering.similarity import ssim
from latent3d.rendering.splats import render_gaussians
from latent3d.rendering.triplane_sampling import sample_triplane
from latent3d.rendering.volume import Field
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.triplane import TriPlane
from latent3d.representations.views import Views
from latent3d.systems.object_losses import alpha_l1, l1

SEEN_ALPHA = 0.5
"""Rendered depth counts where alpha is above this."""


@dataclass(frozen=True, kw_only=True)
class TriPlaneSplatsConfig(Config):
    """Attributes:
    count: splats per object.
    coarse, refine: the grid on which the surface is looked for, see `rendering.anchors.surface_anchors`.
    hidden, layers: of the network behind the sampled features.
    reach: how far a splat may move from its anchor along each axis, in units of the anchors' spacing.
    scale: smallest, initial and largest standard deviation in the same units.
    antialiased: render with Mip-Splatting's smaller opacities; a viewer has to do the same.
    """

    count: int = 16384
    coarse: int = 32
    refine: int = 2
    hidden: int = 128
    layers: int = 2
    reach: float = 1.5
    scale: tuple[float, float, float] = (0.05, 0.4, 3.0)
    antialiased: bool = False

    def __post_init__(self) -> None:
        low, start, high = self.scale
        if not 0 < low < start < high:
            raise ValueError(f"scale needs a smallest, initial and largest value in this order, found {self.scale}")
        if min(self.count, self.coarse, self.refine, self.hidden, self.layers) < 1 or not self.reach > 0:
            raise ValueError("count, coarse, refine, hidden, layers and reach of the splat decoder must be positive")

    @classmethod
    def tiny(cls) -> TriPlaneSplatsConfig:
        """For tests."""
        return cls(count=256, coarse=8, hidden=16, layers=1)

    def build(self, features: int) -> TriPlaneSplats:
        """The decoder of planes with so many channels, with fresh weights."""
        return TriPlaneSplats(self, features)


class TriPlaneSplats(nn.Module):
    """Anchors on the surface, the three planes' features side by side at each, and a network: one splat per anchor.

    The splats start as the field looks: round, as large as their spacing, in the field's own colours. The network moves
    them within `reach`, shapes and turns them, and sets opacity and colour.
    """

    def __init__(self, config: TriPlaneSplatsConfig, features: int) -> None:
        super().__init__()
        self.config = config
        widths = [3 * features, *[config.hidden] * config.layers]
        self.layers = nn.ModuleList(nn.Linear(first, second) for first, second in pairwise(widths))
        self.out = nn.Linear(config.hidden, 3 + 3 + 4 + 1 + 3)
        low, start, high = (math.log(value) for value in config.scale)
        with torch.no_grad():
            self.out.weight.mul_(0.1)
            self.out.bias.zero_()
            self.out.bias[3:6] = math.log((start - low) / (high - start))
            self.out.bias[6] = 1.0  # quaternion (1, 0, 0, 0)
            self.out.bias[10] = 2.0  # opacity 0.88

    def forward(self, planes: TriPlane, field: Field) -> list[Gaussians]:
        """Splats of each object. Gradients reach the network and the planes, but not through the field.

        Args:
            planes: of b objects, (b,).
            field: of the same objects, points (b, n, 3) to densities and colours, the first three RGB.
        """
        anchors = self.anchors(planes, field)
        with torch.no_grad():
            _, colors = field(anchors.points)
        hidden = sample_triplane(planes.planes, anchors.points, planes.half_size, reduce="concat")
        for layer in self.layers:
            hidden = F.silu(layer(hidden))
        return self.splats_of(self.out(hidden).float(), anchors, colors[..., :3].float())

    def anchors(self, planes: TriPlane, field: Field) -> Anchors:
        """Where the splats are tied to; without gradient."""
        config = self.config
        return surface_anchors(
            field, len(planes.planes), config.count, planes.half_size,
            coarse=config.coarse, refine=config.refine, device=planes.planes.device,
        )  # fmt: skip

    def splats_of(
        self, raw: Float[Tensor, "b n 14"], anchors: Anchors, colors: Float[Tensor, "b n 3"]
    ) -> list[Gaussians]:
        """Activated splats: centre p + reach s tanh(.), scale s low (high / low)^sigmoid(.), colour
        sigmoid(logit(field's) + .), with the anchors' spacing s."""
        move, size, turn, solid, paint = raw.split([3, 3, 4, 1, 3], -1)
        spacing = anchors.spacing[:, None, None]
        low, _, high = self.config.scale
        means = anchors.points + self.config.reach * spacing * torch.tanh(move)
        scales = spacing * low * torch.exp(math.log(high / low) * torch.sigmoid(size))
        opacities = torch.sigmoid(solid[..., 0])
        colors = torch.sigmoid(torch.logit(colors, eps=0.02) + paint)
        parts = zip(means, turn, scales, opacities, colors, strict=True)
        return [Gaussians(mean, quaternion, scale, opacity, color) for mean, quaternion, scale, opacity, color in parts]

    def render(self, planes: TriPlane, field: Field, cameras: Cameras) -> list[Rendering]:
        """Each object over white, as its cameras (b, k) see it."""
        return [
            render_gaussians(
                splats, cameras[i], background=splats.means.new_ones(3), antialiased=self.config.antialiased
            )
            for i, splats in enumerate(self(planes, field))
        ]

    def training_terms(self, planes: TriPlane, field: Field, views: Views) -> dict[str, Tensor]:
        """Renderings against whole pictures (b, k): ``l1``, ``structure`` = (1 - SSIM) / 2, ``alpha``, and ``depth``,
        the mean |z - z*| where the object is seen and rendered, in units of half the box (where depths are known).

        Raises:
            ValueError: for views without alphas.
        """
        if views.alphas is None:
            raise ValueError("splats of objects are trained on pictures with alpha; give views that have it")
        renders = self.render(planes, field, views.cameras)
        rgb, alpha = stack(renders, "rgb"), stack(renders, "alpha")
        window = min(11, (min(rgb.shape[-2:]) + 1) // 2 * 2 - 1)
        terms = {
            "l1": l1(rgb, views.images),
            "structure": (1 - ssim(rgb.flatten(0, 1), views.images.flatten(0, 1), window=window).mean()) / 2,
            "alpha": alpha_l1(alpha, views.alphas),
        }
        if views.depths is not None:
            seen = ((views.depths > 0) & (alpha.detach() > SEEN_ALPHA)).to(rgb)
            gap = (stack(renders, "depth") - views.depths).abs() / planes.half_size
            terms["depth"] = (seen * gap).sum() / seen.sum().clamp_min(1)
        return terms

    @torch.no_grad()
    def pictures(self, planes: TriPlane, field: Field, cameras: Cameras) -> Float[Tensor, "b k 3 H W"]:
        """Renderings over white, for looking at; in [0, 1]."""
        return stack(self.render(planes, field, cameras), "rgb").clamp(0, 1)
