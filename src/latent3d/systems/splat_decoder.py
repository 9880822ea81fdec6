"""The 3D decoder D_3D: features of the finished views -> full-resolution coloured splats (GGS section 3.3; spec 5).

Beyond the paper, pixels are carried rather than repainted. A reference pixel becomes a splat of its own colour at its
estimated depth; a generated view starts from its decoded image and from what the reference splats, rendered into it,
already show: where they cover it, its own splats begin nearly transparent. Everything else is a learned residual.

Letters: b = scenes, m = views, c = channels, h/w = latent rows and columns, H/W = image rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.config import Config
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.depth_range import DepthRange
from latent3d.geometry.precision import full_precision
from latent3d.nn.layers import ResBlock2d, zero_init
from latent3d.representations.gaussians import Gaussians
from latent3d.systems.reference_geometry import PlainBlock, ray_slopes, upsampled
from latent3d.systems.splat_head import lift_pixels


@dataclass(frozen=True, kw_only=True)
class SplatDecoderConfig(Config):
    """Attributes:
    widths: channels at strides 2, 4 and 8 of the image.
    depth_step: largest change of the depth coordinate r against the starting depth.
    scale_px: smallest, initial and largest standard deviation of a splat, in image pixels.
    """

    widths: tuple[int, ...] = (48, 80, 128)
    depth_step: float = 0.1
    scale_px: tuple[float, float, float] = (0.15, 0.55, 3.0)

    def build(self, feature_channels: int, latent_channels: int, depth_range: DepthRange) -> SplatDecoder:
        return SplatDecoder(self, feature_channels, latent_channels, depth_range)


@dataclass(frozen=True)
class PixelEvidence:
    """What is known about every view at image resolution before decoding, all (b, m, ., H, W).

    Attributes:
        image: reference pixels, or the decoded image of a generated view, in [0, 1].
        relative: depth coordinate: of the reference geometry, or of the splats rendered at latent resolution.
        is_reference: 1 on reference views.
        carried: colour of the reference splats rendered into the view (the picture itself on references).
        carried_alpha: their alpha (1 on references).
        carried_relative: their depth coordinate.
    """

    image: Float[Tensor, "b m 3 H W"]
    relative: Float[Tensor, "b m 1 H W"]
    is_reference: Float[Tensor, "b m 1 H W"]
    carried: Float[Tensor, "b m 3 H W"]
    carried_alpha: Float[Tensor, "b m 1 H W"]
    carried_relative: Float[Tensor, "b m 1 H W"]

    def stacked(self) -> Float[Tensor, "b m c H W"]:
        """All maps as channels, colours centred on 0."""
        return torch.cat(
            [
                self.image * 2 - 1,
                self.relative,
                self.is_reference,
                (self.carried * 2 - 1) * self.carried_alpha,
                self.carried_alpha,
                self.carried_relative * self.carried_alpha,
            ],
            2,
        )


class SplatDecoder(nn.Module):
    """One splat per image pixel and view. Works at stride 2 and coarser; four pixels share a position there."""

    def __init__(
        self, config: SplatDecoderConfig, feature_channels: int, latent_channels: int, depth_range: DepthRange
    ) -> None:
        super().__init__()
        self.config = config
        self.depth_range = depth_range
        w2, w4, w8 = config.widths
        self.stem = nn.Sequential(nn.Conv2d(4 * 12, w2, 3, padding=1), PlainBlock(w2))
        self.down4 = nn.Sequential(nn.Conv2d(w2, w4, 3, stride=2, padding=1), PlainBlock(w4))
        self.down8 = nn.Conv2d(w4, w8, 3, stride=2, padding=1)
        self.merge = nn.Conv2d(w8 + feature_channels + latent_channels, w8, 1)
        self.middle = nn.Sequential(ResBlock2d(w8), ResBlock2d(w8))
        self.up4 = nn.Conv2d(w8, w4, 1)
        self.mix4 = nn.Sequential(PlainBlock(w4), PlainBlock(w4))
        self.up2 = nn.Conv2d(w4, w2, 1)
        self.mix2 = nn.Sequential(PlainBlock(w2), PlainBlock(w2))
        # depth 1, offset 2, scale 3, quaternion 4, opacity 1, colour 3
        self.head = zero_init(nn.Conv2d(w2, 4 * 14, 3, padding=1))
        low, start, high = config.scale_px
        self.scale_bias = float(torch.logit(torch.tensor((start - low) / (high - low))))

    def forward(
        self,
        features: Float[Tensor, "b m f h w"],
        latents: Float[Tensor, "b m c h w"],
        evidence: PixelEvidence,
        cameras: Cameras,
    ) -> list[Gaussians]:
        """Splats of each scene, (m H W) of them, view by view and row by row, world coordinates.

        Args:
            features: of T_epi at noise level zero.
            latents: clean latents of all views.
            evidence: at image resolution.
            cameras: (b, m).
        """
        b, m = features.shape[:2]
        pixels = torch.cat([evidence.stacked(), ray_slopes(cameras)], 2).flatten(0, 1)
        at2 = self.stem(F.pixel_unshuffle(pixels, 2))
        at4 = self.down4(at2)
        at8 = torch.cat([self.down8(at4), features.flatten(0, 1), latents.flatten(0, 1).to(at4.dtype)], 1)
        at4 = self.mix4(at4 + upsampled(self.up4(self.middle(self.merge(at8)))))
        at2 = self.mix2(at2 + upsampled(self.up2(at4)))
        raw = F.pixel_shuffle(self.head(at2).float(), 2)
        return self.activate(rearrange(raw, "(b m) c h w -> b m c h w", b=b), evidence, cameras)

    @full_precision
    def activate(self, raw: Float[Tensor, "b m 14 H W"], evidence: PixelEvidence, cameras: Cameras) -> list[Gaussians]:
        """Raw outputs and their starting points -> splats. All zeros give: the pixel's colour on its ray at the starting
        depth, opaque where nothing is carried into the view yet."""
        step, offset, scale, turn, opacity, color = raw.split([1, 2, 3, 4, 1, 3], 2)
        low, _, high = self.config.scale_px
        covered = evidence.carried_alpha * (1 - evidence.is_reference)
        start = evidence.relative + covered * (evidence.carried_relative - evidence.relative)
        relative = (start + self.config.depth_step * torch.tanh(step)).clamp(0, 1)
        identity = torch.zeros_like(turn)
        identity[:, :, 0] = 1.0
        return lift_pixels(
            cameras,
            self.depth_range.depth(relative),
            offset=0.5 * torch.tanh(offset),
            scale_px=low + (high - low) * torch.sigmoid(scale + self.scale_bias),
            quaternion=F.normalize(turn + identity, dim=2),
            opacity=torch.sigmoid(opacity + 3.0 - 6.5 * covered),
            color=(evidence.image + 0.5 * torch.tanh(color)).clamp(0, 1),
        )
