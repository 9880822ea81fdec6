"""Decoder of LN3Diff++'s VAE: a tri-plane latent to feature planes, by a transformer and a convolutional upsampler.

The token stream begins as a learned positional code; the latent enters every block through AdaLN per token; attention
alternates between the tokens of one plane and those of all three. LN3Diff++ (arXiv 2403.12019), section 3.2.

Letters: b = objects, p = planes (3, or 1 where they are stacked in channels), c = latent channels, n = tokens per
plane, d = width, h/w = latent rows and columns, f = feature channels of the result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.config import Config
from latent3d.memory import in_parts, recomputed
from latent3d.nn.attention import AdaLN, FeedForward, SelfAttention, modulate
from latent3d.nn.layers import ResBlock2d, group_count, sinusoidal_embedding, zero_init

POSITION_PERIOD = 10000.0


@dataclass(frozen=True, kw_only=True)
class PlaneUpsamplerConfig(Config):
    """Convolutions from token resolution to the feature planes, all planes with the same weights.

    Attributes:
        width, multipliers: channels per level from fine to coarse; each level but the finest doubles the size.
        blocks: residual blocks per level.
        heads: of the attention at the coarsest level; 0 for none.
        features: f, channels per plane of the result.
    """

    width: int = 32
    multipliers: tuple[int, ...] = (1, 2, 2, 4)
    blocks: int = 2
    heads: int = 1
    features: int = 32

    @property
    def factor(self) -> int:
        """Pixels of the result per token along one axis."""
        return 2 ** (len(self.multipliers) - 1)

    def build(self, channels: int) -> PlaneUpsampler:
        """The module, for tokens of that width."""
        return PlaneUpsampler(self, channels)


@dataclass(frozen=True, kw_only=True)
class TriPlaneDecoderConfig(Config):
    """The defaults are the paper's decoder for Objaverse (454 M parameters in the transformer).

    Attributes:
        latent_channels: c per plane. latent_size: h = w.
        patch: latent cells per token along one axis.
        kind: ``transformer``, or ``conv``: only convolutions between the latent and the upsampler (first row of the
            paper's ablation).
        width, depth, heads: of the transformer. mlp: hidden width over width.
        inject: how the latent enters: ``adaln`` into every block, or ``input`` as the first tokens.
        self_plane, cross_plane: attention within planes, and over all three; alternating where both are on. With
            neither, the planes are stacked in the channels of one token grid.
        norm_queries: normalised queries and keys; not in the paper.
        direct: a linear layer from latent to planes beside all of it, enlarged bilinearly; not in the paper.
        upsampler: see `PlaneUpsamplerConfig`.
    """

    latent_channels: int = 4
    latent_size: int = 32
    patch: int = 2
    kind: Literal["transformer", "conv"] = "transformer"
    width: int = 1024
    depth: int = 24
    heads: int = 16
    mlp: float = 4.0
    inject: Literal["adaln", "input"] = "adaln"
    self_plane: bool = True
    cross_plane: bool = True
    norm_queries: bool = False
    direct: bool = False
    upsampler: PlaneUpsamplerConfig = field(default_factory=PlaneUpsamplerConfig)

    def __post_init__(self) -> None:
        if self.latent_size % self.patch:
            raise ValueError(f"latents of {self.latent_size} cells do not divide into patches of {self.patch}")
        if self.width % 4:
            raise ValueError(f"the width {self.width} must be a multiple of 4 for two-dimensional positions")

    @property
    def grid(self) -> int:
        """Tokens per plane along one axis."""
        return self.latent_size // self.patch

    @property
    def plane_size(self) -> int:
        """Rows (and columns) of the feature planes."""
        return self.grid * self.upsampler.factor

    @property
    def separate(self) -> bool:
        """Whether each plane has tokens of its own."""
        return self.self_plane or self.cross_plane

    def build(self) -> TriPlaneDecoder:
        """The module, with random weights."""
        return TriPlaneDecoder(self)


class TriPlaneDecoder(nn.Module):
    """Latents (b, 3, c, h, w) to feature planes (b, 3, f, H, W)."""

    def __init__(self, config: TriPlaneDecoderConfig) -> None:
        super().__init__()
        self.config = config
        groups = 3 if config.separate else 1
        self.embed = nn.Conv2d(
            3 * config.latent_channels, groups * config.width, config.patch, stride=config.patch, groups=groups
        )
        if config.kind == "transformer":
            self.position = nn.Parameter(plane_positions(groups, config.grid, config.width))
            self.blocks = nn.ModuleList(PlaneBlock(config, self._crosses(i)) for i in range(config.depth))
        else:
            self.blocks = nn.ModuleList(ResBlock2d(config.width) for _ in range(config.depth))
        self.spread = None if config.separate else nn.Conv2d(config.width, 3 * config.width, 1)
        self.upsampler = config.upsampler.build(config.width)
        self.direct = None
        if config.direct:
            self.direct = zero_init(nn.Conv2d(config.latent_channels, config.upsampler.features, 1))

    def _crosses(self, block: int) -> bool:
        """Whether a block's attention is over all planes: every second one where both kinds are on."""
        return self.config.cross_plane and (block % 2 == 1 or not self.config.self_plane)

    def forward(self, latents: Float[Tensor, "b 3 c h w"]) -> Float[Tensor, "b 3 f H W"]:
        """Raises:
        ValueError: for latents of another size.
        """
        size, c = self.config.latent_size, self.config.latent_channels
        if latents.shape[1:] != (3, c, size, size):
            raise ValueError(f"this decoder takes latents (b, 3, {c}, {size}, {size}), found {tuple(latents.shape)}")
        groups = 3 if self.config.separate else 1
        x = rearrange(self.embed(latents.flatten(1, 2)), "b (p d) h w -> b p d h w", p=groups)
        if self.config.kind == "transformer":
            x = self._transform(x)
        else:
            x = x.flatten(0, 1)
            for block in self.blocks:
                x = recomputed(block, x)
            x = x.unflatten(0, (-1, groups))
        if self.spread is not None:
            x = rearrange(self.spread(x[:, 0]), "b (p d) h w -> b p d h w", p=3)
        planes = self.upsampler(x.flatten(0, 1)).float()
        if self.direct is not None:
            coarse = self.direct(latents.flatten(0, 1)).float()
            planes = planes + F.interpolate(coarse, planes.shape[-2:], mode="bilinear", align_corners=False)
        return planes.unflatten(0, (-1, 3))

    def _transform(self, maps: Float[Tensor, "b p d h w"]) -> Float[Tensor, "b p d h w"]:
        condition = rearrange(maps, "b p d h w -> b p (h w) d").contiguous()  # every block multiplies it
        x = self.position.to(condition.dtype).expand_as(condition)
        if self.config.inject == "input":
            x = x + condition
        for block in self.blocks:
            x = recomputed(block, x, condition)
        return rearrange(x, "b p (h w) d -> b p d h w", h=self.config.grid)


class PlaneBlock(nn.Module):
    """Transformer block on plane tokens; scale, shift and gate of each token come from the latent at its place."""

    def __init__(self, config: TriPlaneDecoderConfig, crosses: bool) -> None:
        super().__init__()
        self.crosses = crosses
        width = config.width
        # without AdaLN a learned norm takes its place
        self.adaln = AdaLN(width, width) if config.inject == "adaln" else None
        affine = self.adaln is None
        self.norm_attention = nn.LayerNorm(width, eps=1e-6, elementwise_affine=affine)
        self.norm_mlp = nn.LayerNorm(width, eps=1e-6, elementwise_affine=affine)
        self.attention = SelfAttention(width, config.heads, norm_queries=config.norm_queries)
        self.mlp = FeedForward(width, int(config.mlp * width))

    def forward(self, x: Float[Tensor, "b p n d"], condition: Float[Tensor, "b p n d"]) -> Float[Tensor, "b p n d"]:
        """Tokens and the latent's tokens to tokens."""
        if self.adaln is None:
            x = x + self._attend(self.norm_attention(x))
            return x + self.mlp(self.norm_mlp(x))
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaln(condition)
        x = x + gate1 * self._attend(modulate(self.norm_attention(x), shift1, scale1))
        return x + gate2 * self.mlp(modulate(self.norm_mlp(x), shift2, scale2))

    def _attend(self, x: Float[Tensor, "b p n d"]) -> Float[Tensor, "b p n d"]:
        planes = x.shape[1]
        if self.crosses:
            return self.attention(x.flatten(1, 2)).unflatten(1, (planes, -1))
        return self.attention(x.flatten(0, 1)).unflatten(0, (-1, planes))


class PlaneUpsampler(nn.Module):
    """Feature maps (n, channels, h, w) to planes (n, f, factor h, factor w), as latent diffusion's decoder."""

    prefers_channels_last = True  # at inference on a CPU about 1.2 times faster, see `nn.inference`

    def __init__(self, config: PlaneUpsamplerConfig, channels: int) -> None:
        super().__init__()
        widths = [config.width * m for m in reversed(config.multipliers)]
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.middle_in = ResBlock2d(widths[0])
        self.norm = nn.GroupNorm(group_count(widths[0]), widths[0]) if config.heads else None
        self.attention = SelfAttention(widths[0], config.heads) if config.heads else None
        self.middle_out = ResBlock2d(widths[0])
        self.levels = nn.ModuleList()
        previous = widths[0]
        for number, width in enumerate(widths):
            level = nn.Sequential()
            for _ in range(config.blocks):
                level.append(ResBlock2d(previous, width))
                previous = width
            if number < len(widths) - 1:
                level.append(nn.Upsample(scale_factor=2.0, mode="nearest"))
                level.append(nn.Conv2d(width, width, 3, padding=1))
            self.levels.append(level)
        self.norm_out = nn.GroupNorm(group_count(previous), previous)
        self.conv_out = nn.Conv2d(previous, config.features, 3, padding=1)

    def forward(self, x: Float[Tensor, "n d h w"]) -> Float[Tensor, "n f H W"]:
        x = self.middle_in(self.conv_in(x))
        if self.attention is not None and self.norm is not None:
            tokens = rearrange(self.norm(x), "n c h w -> n (h w) c")
            x = x + rearrange(self.attention(tokens), "n (h w) c -> n c h w", h=x.shape[-2])
        x = self.middle_out(x)
        for level in self.levels:
            for layer in level.children():
                x = in_parts(layer, x, lean=len(x), leanest=1)
        return self.conv_out(F.silu(self.norm_out(x)))


def plane_positions(planes: int, grid: int, width: int) -> Float[Tensor, "1 p n d"]:
    """Sine-cosine codes of the tokens on a grid of (planes * grid) rows and grid columns: half the channels tell the
    row, half the column (the paper's roll-out of the planes one under the other)."""
    rows = sinusoidal_embedding(torch.arange(planes * grid), width // 2, POSITION_PERIOD)
    columns = sinusoidal_embedding(torch.arange(grid), width // 2, POSITION_PERIOD)
    code = torch.cat([rows[:, None].expand(-1, grid, -1), columns[None].expand(planes * grid, -1, -1)], -1)
    return rearrange(code, "(p r) c d -> 1 p (r c) d", p=planes)
