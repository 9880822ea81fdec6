"""An encoder whose latent lies where the object is: pixels with depth fall onto the three planes (ours).

The paper's encoder averages feature maps of different views pixel by pixel, and leaves it to the decoder to find out
what belongs where; that takes hundreds of thousands of steps. Here every pixel with depth is a point in space, which
falls on one cell of each plane (as in convolutional occupancy networks, Peng et al. 2020); convolutions on the planes
and attention between them give the same kind of posterior.

Letters: b = objects, v = views, n = pixels of all views, c = latent channels per plane, s = cells along each side of a
plane, h/w = latent rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.autoencoders.multiview_encoder import (
    TriPlanePosterior,
    ViewTransformer,
    halving_levels,
    soft_clamp,
)
from latent3d.config import Config
from latent3d.geometry.rays import unproject
from latent3d.memory import in_parts
from latent3d.nn.layers import ResBlock2d, fourier_embedding, fourier_width, group_count
from latent3d.representations.triplane import PLANE_AXES
from latent3d.representations.views import Views

INITIAL_LOG_VARIANCE = -5.0


@dataclass(frozen=True, kw_only=True)
class PlaneEncoderConfig(Config):
    """Attributes:
    latent_channels: c, per plane.
    half_size: half the side of the box that the planes stand for, in scene units.
    stride: every stride-th pixel of a row or column is taken.
    plane_size: s.
    octaves: of the points' positions. point_width: channels that a point leaves on a plane.
    width, multipliers, blocks: of the convolutions, per level from fine to coarse; each level but the last halves.
    heads, head_channels: of the attention over all planes at the coarsest level.
    """

    latent_channels: int = 8
    half_size: float = 0.45
    stride: int = 2
    plane_size: int = 64
    octaves: int = 5
    point_width: int = 32
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2, 4)
    blocks: int = 1
    heads: int = 4
    head_channels: int = 48

    def latent_size(self, image_size: int) -> int:
        """h = w; the pictures' size does not matter."""
        return self.plane_size // 2 ** (len(self.multipliers) - 1)

    def build(self) -> PlaneEncoder:
        """The module, with random weights."""
        return PlaneEncoder(self)


class PlaneEncoder(nn.Module):
    """Views with depth, any number of them, to a `TriPlanePosterior`."""

    def __init__(self, config: PlaneEncoderConfig) -> None:
        super().__init__()
        self.config = config
        inputs = 3 + fourier_width(3, config.octaves)
        self.point = nn.Sequential(
            nn.Linear(inputs, 2 * config.point_width), nn.SiLU(), nn.Linear(2 * config.point_width, config.point_width)
        )
        widths = [config.width * m for m in config.multipliers]
        self.conv_in = nn.Conv2d(config.point_width + 4, widths[0], 3, padding=1)
        self.which = nn.Parameter(0.02 * torch.randn(3, widths[0], 1, 1))
        self.levels, previous = halving_levels(widths, config.blocks), widths[-1]
        self.transformer = ViewTransformer(previous, config.heads, config.head_channels)
        self.middle = ResBlock2d(previous)
        self.norm_out = nn.GroupNorm(group_count(previous), previous)
        self.conv_out = nn.Conv2d(previous, 2 * config.latent_channels, 3, padding=1)
        # with noise as large as what the latent says at first, faint things such as hue are not learnt
        self.direct = direct_path(config.point_width + 4, config.latent_channels, 2 ** (len(widths) - 1))
        with torch.no_grad():
            self.conv_out.get_parameter("bias")[config.latent_channels :] = INITIAL_LOG_VARIANCE

    def forward(self, views: Views) -> TriPlanePosterior:
        """Views (b, v) with depth -> posterior of (b, 3, c, h, w). Number and order of the views are free.

        Raises:
            ValueError: where depth is missing.
        """
        points, colors, known = self.points_of(views)
        position = fourier_embedding(points / self.config.half_size, self.config.octaves)
        colors = colors * 2 - 1
        features = self.point(torch.cat([colors, position], -1)).float()
        # colours also go round the network: what is plain to see need not be learnt
        planes = self._on_planes(torch.cat([features, colors], -1), points, known)  # (b, 3, point_width + 4, s, s)
        planes = planes.flatten(0, 1)
        x = self.conv_in(planes).unflatten(0, (-1, 3))
        x = (x + self.which.to(x.dtype)).flatten(0, 1)
        for level in self.levels:
            x = in_parts(level, x, lean=len(x), leanest=1)
        x = self.middle(self.transformer(x, 3))
        moments = self.conv_out(F.silu(self.norm_out(x))).float()
        mean, log_variance = rearrange(moments, "(b p) (m c) h w -> m b p c h w", p=3, m=2).unbind(0)
        mean = mean + self.direct(planes).float().unflatten(0, (-1, 3))
        return TriPlanePosterior(mean, soft_clamp(log_variance))

    def points_of(self, views: Views) -> tuple[Float[Tensor, "b n 3"], Float[Tensor, "b n 3"], Float[Tensor, "b n"]]:
        """World points of the pixels, their colours, and 1 where there is depth within the box, else 0.

        Raises:
            ValueError: as `forward`.
        """
        if views.depths is None:
            raise ValueError("this encoder reads depth maps, and the views have none; render or estimate them")
        every = slice(self.config.stride // 2, None, self.config.stride)
        points = rearrange(unproject(views.cameras, views.depths)[:, :, every, every], "b v h w c -> b (v h w) c")
        colors = rearrange(views.images[..., every, every], "b v c h w -> b (v h w) c")
        depth = rearrange(views.depths[..., every, every], "b v 1 h w -> b (v h w)")
        inside = (points.abs() < self.config.half_size).all(-1)
        return points, colors, ((depth > 0) & inside).to(points)

    def _on_planes(
        self, features: Float[Tensor, "b n f"], points: Float[Tensor, "b n 3"], known: Float[Tensor, "b n"]
    ) -> Float[Tensor, "b 3 g s s"]:
        """Mean features of the points over every cell, and ln(1 + their number)."""
        s, b = self.config.plane_size, len(points)
        cell = ((points / self.config.half_size + 1) * (0.5 * s)).long().clamp(0, s - 1)
        values = torch.cat([features, torch.ones_like(features[..., :1])], -1) * known[..., None]
        planes = []
        for column, row in PLANE_AXES:
            index = cell[..., row] * s + cell[..., column] + s * s * torch.arange(b, device=cell.device)[:, None]
            flat = values.new_zeros(b * s * s, values.shape[-1]).index_add(0, index.flatten(), values.flatten(0, 1))
            planes.append(rearrange(flat, "(b y x) f -> b f y x", b=b, y=s))
        total = torch.stack(planes, 1)
        count = total[:, :, -1:]
        return torch.cat([total[:, :, :-1] / count.clamp_min(1), count.log1p()], 2)


def direct_path(channels: int, latent_channels: int, factor: int) -> nn.Conv2d:
    """A linear layer from the planes to the latent, past all convolutions: it begins with the mean colour of each
    latent cell, twice, in the last three latent channels.

    Convolutions learn what matters most first, shape and brightness, and what they do not need for that they lose: hue
    was gone behind the second of them after a thousand steps, and nothing brought it back.
    """
    path = nn.Conv2d(channels, latent_channels, factor, stride=factor)
    with torch.no_grad():
        path.weight.zero_()
        path.get_parameter("bias").zero_()
        for color in range(min(3, latent_channels)):
            path.weight[latent_channels - 1 - color, channels - 2 - color] = 2 / factor**2
    return path
