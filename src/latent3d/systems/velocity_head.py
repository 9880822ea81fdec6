"""f_v: rendered features and the noisy latent -> v (GGS section 3.2; spec 3.8). Per frame, and shallow on purpose: with
cross-frame layers or denoiser features here, the 3D bottleneck would be bypassed.

Letters: n = frames, c = latent channels, f = splat feature channels, h/w = rows and columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.config import Config
from latent3d.memory import recomputed
from latent3d.nn.layers import NoiseEmbedding, ResBlock2d, zero_init


@dataclass(frozen=True, kw_only=True)
class VelocityHeadConfig(Config):
    """Attributes:
    width, blocks: of the residual network.
    render_error: initial standard deviation, per channel, of the latent that the splats render, against the true one.
    """

    width: int = 128
    blocks: int = 3
    render_error: float = 0.5

    def build(self, latent_channels: int, features: int) -> VelocityHead:
        return VelocityHead(self, latent_channels, features)


class VelocityHead(nn.Module):
    """Closed-form blend of render and noisy latent, plus a learned residual that starts at zero."""

    def __init__(self, config: VelocityHeadConfig, latent_channels: int, features: int) -> None:
        super().__init__()
        width = config.width
        self.to_latent = nn.Conv2d(features, latent_channels, 1)
        # Per channel: splats render a latent's smooth channels far better than its fine ones.
        self.log_error = nn.Parameter(torch.full((latent_channels, 1, 1), math.log(config.render_error)))
        self.noise = NoiseEmbedding(width)
        self.conv_in = nn.Conv2d(features + 1 + latent_channels + 1, width, 3, padding=1)
        self.blocks = nn.ModuleList([ResBlock2d(width, cond_dim=width) for _ in range(config.blocks)])
        self.conv_out = zero_init(nn.Conv2d(width, latent_channels, 3, padding=1))

    def forward(
        self,
        features: Float[Tensor, "n f h w"],
        alpha: Float[Tensor, "n 1 h w"],
        noisy: Float[Tensor, "n c h w"],
        sigma: Float[Tensor, " n"],
        is_reference: Float[Tensor, " n"],
    ) -> tuple[Tensor, Tensor]:
        """Rendered features, their alpha, the unscaled noisy latent and its noise level, and the frame's role ->
        (v, latent that the splats alone render), both (n, c, h, w)."""
        level = sigma[:, None, None, None]
        rendered = self.to_latent(features).float()
        base = blend_velocity(rendered, noisy, level, self.log_error.exp())
        role = is_reference[:, None, None, None].expand_as(alpha)
        x = self.conv_in(torch.cat([features, alpha, noisy * (level**2 + 1).rsqrt(), role], 1))
        condition = self.noise(0.25 * sigma.log())
        for block in self.blocks:
            x = recomputed(block, x, condition)
        return base + self.conv_out(x).float(), rendered


def blend_velocity(rendered: Tensor, noisy: Tensor, sigma: Tensor, error: Tensor) -> Tensor:
    """The v that corresponds to the best linear blend of render and noisy latent, smooth down to sigma = 0.

    z0 = (sigma^2 A f + t^2 z_t) / (sigma^2 + t^2) for a render with error t; with z0 = c_skip z_t + c_out v this is
    v = -sigma sqrt(sigma^2 + 1) [A f / (sigma^2 + t^2) + z_t (t^2 - 1) / ((sigma^2 + t^2)(sigma^2 + 1))].
    """
    variance, error2 = sigma**2, error**2
    inner = rendered / (variance + error2) + noisy * (error2 - 1) / ((variance + error2) * (variance + 1))
    return -sigma * (variance + 1).sqrt() * inner
