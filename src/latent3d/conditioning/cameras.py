"""Camera encoder: Plücker maps to one feature map per level of a U-Net (after CameraCtrl, He et al. 2024).

Letters: B = batch, M = frames, c = channels, H, W = image size, h, w = size of a level.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.nn.attention import SelfAttention
from latent3d.nn.layers import ResBlock2d, sinusoidal_embedding, zero_init


class FrameAttention(nn.Module):
    """Residual self-attention over the frames at each pixel, with a sinusoidal code of the frame number.

    Args:
        channels: width, a multiple of ``heads``.
        heads: attention heads.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = SelfAttention(channels, heads)
        zero_init(self.attention.out)

    def forward(self, x: Float[Tensor, "B M c h w"]) -> Float[Tensor, "B M c h w"]:
        """Feature maps of all frames to feature maps."""
        _, frames, channels, height, _ = x.shape
        code = sinusoidal_embedding(torch.arange(frames, device=x.device), channels).to(x.dtype)
        tokens = self.norm(rearrange(x, "B M c h w -> (B h w) M c")) + code
        return x + rearrange(self.attention(tokens), "(B h w) M c -> B M c h w", B=x.shape[0], h=height)


class CameraEncoder(nn.Module):
    """PixelUnshuffle, a 3x3 convolution, then residual blocks with frame attention at every level.

    Pixels are folded into channels first, so that the cost does not depend on the image size but on the latents'.

    Args:
        out_channels: width of the features of each level, finest first; each level halves the one before.
        channels: inner widths; ``out_channels`` when None. Where they differ a 1x1 convolution ends the level.
        blocks: residual blocks per level, each followed by frame attention.
        kernel_size: of the residual blocks; CameraCtrl uses 1.
        heads: attention heads; every inner width must be a multiple.
        unshuffle: image pixels per side folded into one feature pixel.

    Raises:
        ValueError: if the two lists of widths differ in length or a width is no multiple of ``heads``.
    """

    def __init__(
        self,
        out_channels: tuple[int, ...],
        *,
        channels: tuple[int, ...] | None = None,
        blocks: int = 2,
        kernel_size: int = 1,
        heads: int = 8,
        unshuffle: int = 8,
    ) -> None:
        super().__init__()
        channels = channels or out_channels
        if len(channels) != len(out_channels):
            raise ValueError(f"give one inner width per level: {len(out_channels)} levels, {len(channels)} widths")
        self.unshuffle = unshuffle
        self.conv_in = nn.Conv2d(6 * unshuffle**2, channels[0], 3, padding=1)
        self.levels = nn.ModuleList()
        self.projections = nn.ModuleList()
        previous = channels[0]
        for width, out_width in zip(channels, out_channels, strict=True):
            level = nn.ModuleList()
            for _ in range(blocks):
                level.append(ResBlock2d(previous, width, kernel_size=kernel_size))
                level.append(FrameAttention(width, heads))
                previous = width
            self.levels.append(level)
            self.projections.append(nn.Conv2d(width, out_width, 1) if width != out_width else nn.Identity())

    def forward(self, plucker: Float[Tensor, "B M 6 H W"]) -> list[Tensor]:
        """Ray maps (B, M, 6, H, W) to features (B, M, out_channels[i], ceil(H / u / 2^i), ceil(W / u / 2^i)).

        Raises:
            ValueError: if H or W is no multiple of the folding factor.
        """
        batch, _, _, height, width = plucker.shape
        if height % self.unshuffle or width % self.unshuffle:
            raise ValueError(f"the ray maps' size {height}x{width} must be a multiple of {self.unshuffle}")
        x = self.conv_in(F.pixel_unshuffle(plucker.flatten(0, 1), self.unshuffle))
        features = []
        for i, (level, projection) in enumerate(zip(self.levels, self.projections, strict=True)):
            if i:
                x = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
            for layer in level.children():
                frames = isinstance(layer, FrameAttention)
                x = layer(x.unflatten(0, (batch, -1))).flatten(0, 1) if frames else layer(x)
            features.append(projection(x).unflatten(0, (batch, -1)))
        return features
