"""Multi-view encoder of LN3Diff++: posed pictures of an object to the moments of a KL tri-plane latent.

A convolutional encoder in latent diffusion's manner looks at every view on its own (with Plücker coordinates and depth
where configured); a transformer in the middle lets the pixels of all views see each other (as in MVDream); the mean
over the views gives the moments. LN3Diff++ (arXiv 2403.12019), section 3.1 and appendix A.

Letters: b = objects, v = views, c = latent channels per plane, h/w = latent rows and columns, H/W = image rows and
columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.config import Config
from latent3d.geometry.rays import plucker_map
from latent3d.memory import in_parts
from latent3d.nn.attention import GatedFeedForward, SelfAttention
from latent3d.nn.layers import ResBlock2d, group_count, zero_init
from latent3d.representations.views import Views

LOG_VARIANCE_LIMIT = 20.0


@dataclass(frozen=True, kw_only=True)
class MultiViewEncoderConfig(Config):
    """The defaults are the paper's encoder for Objaverse: six views of 256x256 to 3 planes of 4x32x32.

    Attributes:
        latent_channels: c, per plane.
        plucker, depth: whether the rays' Plücker coordinates (6 channels) and the z-depth (1) come with the colours.
        patch_size: pixels are folded into channels by this factor before the first convolution; 1 in the paper.
        width, multipliers: channels per level from fine to coarse; each level but the last halves the size.
        blocks: residual blocks per level.
        attention: of the middle over the pixels of ``all`` views together, of ``each`` view alone, or ``none``.
        heads, head_channels: of that attention.
    """

    latent_channels: int = 4
    plucker: bool = True
    depth: bool = True
    patch_size: int = 1
    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 1
    attention: str = "all"
    heads: int = 8
    head_channels: int = 64

    def __post_init__(self) -> None:
        if self.attention not in ("all", "each", "none"):
            raise ValueError(f"attention '{self.attention}' is unknown; choose all, each or none")

    @property
    def factor(self) -> int:
        """Pixels per latent cell along one axis."""
        return self.patch_size * 2 ** (len(self.multipliers) - 1)

    def latent_size(self, image_size: int) -> int:
        """h = w for pictures of that size."""
        return image_size // self.factor

    @property
    def in_channels(self) -> int:
        """Channels per pixel: colours, Plücker coordinates, depth."""
        return 3 + 6 * self.plucker + self.depth

    def build(self) -> MultiViewEncoder:
        """The module, with random weights."""
        return MultiViewEncoder(self)


@dataclass(frozen=True)
class TriPlanePosterior:
    """q(z | views): a normal distribution per entry of a tri-plane latent.

    Attributes:
        mean, log_variance: (b, 3, c, h, w), before any normalisation of latents.
    """

    mean: Float[Tensor, "b 3 c h w"]
    log_variance: Float[Tensor, "b 3 c h w"]

    def sample(self, generator: torch.Generator | None = None) -> Float[Tensor, "b 3 c h w"]:
        """mean + std eps."""
        device = self.mean.device if generator is None else generator.device
        noise = torch.randn(self.mean.shape, generator=generator, device=device).to(self.mean)
        return self.mean + (0.5 * self.log_variance).exp() * noise


class MultiViewEncoder(nn.Module):
    """Views of an object, any number of them, to a `TriPlanePosterior`."""

    def __init__(self, config: MultiViewEncoderConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * m for m in config.multipliers]
        self.conv_in = nn.Conv2d(config.in_channels * config.patch_size**2, widths[0], 3, padding=1)
        self.levels, previous = halving_levels(widths, config.blocks), widths[-1]
        self.middle_in = ResBlock2d(previous)
        self.transformer = None
        if config.attention != "none":
            self.transformer = ViewTransformer(previous, config.heads, config.head_channels)
        self.middle_out = ResBlock2d(previous)
        self.norm_out = nn.GroupNorm(group_count(previous), previous)
        moments = 2 * 3 * config.latent_channels
        self.conv_out = nn.Conv2d(previous, moments, 3, padding=1)
        # one group per plane: what belongs to a plane stays apart from here on
        self.quantise = nn.Conv2d(moments, moments, 1, groups=3)

    def forward(self, views: Views) -> TriPlanePosterior:
        """Views (b, v) with images (b, v, 3, H, W) over white -> posterior of (b, 3, c, H/factor, W/factor).

        The latent is a mean over views, so their number and order are free.

        Raises:
            ValueError: where the image size is no multiple of the factor, or depth is missing.
        """
        b, v = views.shape
        x = rearrange(self.inputs_of(views), "b v c h w -> (b v) c h w")
        x = self.conv_in(F.pixel_unshuffle(x, self.config.patch_size))
        for level in self.levels:
            x = in_parts(level, x, lean=len(x), leanest=1)
        x = self.middle_in(x)
        if self.transformer is not None:
            x = self.transformer(x, v if self.config.attention == "all" else 1)
        x = self.conv_out(F.silu(self.norm_out(self.middle_out(x))))
        moments = self.quantise(x.unflatten(0, (b, v)).mean(1)).float()
        mean, log_variance = rearrange(moments, "b (p m c) h w -> m b p c h w", p=3, m=2).unbind(0)
        return TriPlanePosterior(mean, soft_clamp(log_variance))

    def inputs_of(self, views: Views) -> Float[Tensor, "b v c H W"]:
        """What the first layer sees per pixel: colours in [-1, 1], moment and direction of the ray, z-depth.

        Raises:
            ValueError: as `forward`.
        """
        height, width = views.images.shape[-2:]
        if height % self.config.factor or width % self.config.factor:
            raise ValueError(f"image size {width}x{height} is not a multiple of {self.config.factor}; resize the views")
        parts = [views.images * 2 - 1]
        if self.config.plucker:
            parts.append(plucker_map(views.cameras).to(views.images))
        if self.config.depth:
            if views.depths is None:
                raise ValueError("this encoder reads depth maps, and the views have none; render or estimate them")
            parts.append(views.depths)
        return torch.cat(parts, -3)


def halving_levels(widths: Sequence[int], blocks: int) -> nn.ModuleList:
    """Residual blocks per level, from fine to coarse; each level but the last ends at half the size."""
    levels, previous = nn.ModuleList(), widths[0]
    for number, width in enumerate(widths):
        level = nn.Sequential()
        for _ in range(blocks):
            level.append(ResBlock2d(previous, width))
            previous = width
        if number < len(widths) - 1:
            level.append(Halving(width))
        levels.append(level)
    return levels


class Halving(nn.Module):
    """Convolution of stride 2 with one row and column of zeros below and to the right, as in latent diffusion."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


def soft_clamp(log_variance: Float[Tensor, "*shape"], limit: float = LOG_VARIANCE_LIMIT) -> Float[Tensor, "*shape"]:
    """limit tanh(log_variance / limit), as in LSGM (Vahdat et al. 2021): the same near 0, bounded, never flat."""
    return limit * torch.tanh(log_variance / limit)


class ViewTransformer(nn.Module):
    """A transformer block over the pixels of several feature maps together: two self-attentions and a gated network.

    As MVDream's block without a text (the second attention then attends to the pixels as well), at a width of its own.
    """

    def __init__(self, channels: int, heads: int, head_channels: int) -> None:
        super().__init__()
        width = heads * head_channels
        self.norm = nn.GroupNorm(group_count(channels), channels)
        self.enter = nn.Linear(channels, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.attentions = nn.ModuleList(SelfAttention(width, heads) for _ in range(2))
        self.mlp = GatedFeedForward(width, 4 * width)
        self.leave = zero_init(nn.Linear(width, channels))

    def forward(self, x: Float[Tensor, "n c h w"], together: int) -> Float[Tensor, "n c h w"]:
        """Feature maps; each run of ``together`` of them forms one sequence."""
        height = x.shape[-2]
        tokens = self.enter(rearrange(self.norm(x), "(b v) c h w -> b (v h w) c", v=together))
        *norms, last = self.norms
        for norm, attention in zip(norms, self.attentions, strict=True):
            tokens = tokens + attention(norm(tokens))
        tokens = self.leave(tokens + self.mlp(last(tokens)))
        return x + rearrange(tokens, "b (v h w) c -> (b v) c h w", v=together, h=height)
