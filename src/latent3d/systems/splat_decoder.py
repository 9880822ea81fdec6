"""The 3D decoder D_3D: features of the finished views -> full-resolution coloured splats (GGS section 3.3; spec 5).

Beyond the paper, pixels are carried rather than repainted. A reference pixel becomes a splat of its own colour at its
estimated depth; a generated view starts from its decoded image and from what the reference splats, rendered into it,
already show: where they cover it, its own splats begin nearly transparent. Everything else is a learned residual.

Letters: b = scenes, m = views, c = channels, h/w = latent rows and columns, H/W = image rows and columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from latent3d.config import Config
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.depth_range import DepthRange
from latent3d.geometry.precision import full_precision
from latent3d.geometry.rays import unproject
from latent3d.geometry.rotations import multiply_quaternions
from latent3d.memory import at_once, in_parts, recomputed
from latent3d.nn.layers import ResBlock2d, zero_init
from latent3d.representations.gaussians import Gaussians
from latent3d.systems.reference_geometry import PlainBlock, ray_slopes, upsampled
from latent3d.systems.splat_head import lift_pixels, surface_frames

SAME_SURFACE = 0.01
"""Difference of depth coordinates (5 % of depth over two hundredfold depth) below which neighbours are one surface."""


@dataclass(frozen=True, kw_only=True)
class SplatDecoderConfig(Config):
    """Attributes:
    widths: channels at strides 2, 4 and 8 of the image.
    depth_step: largest change of the depth coordinate r against the starting depth.
    scale_px: smallest, initial and largest standard deviation of a splat, in steps between neighbouring pixels' points.
    opacity_logits: initial opacity of a splat, and what full cover by other splats takes from it.
    sharpen: how much of the detail that splatting blurs away is added to the starting colours.
    reference_detail: splats per side of a reference pixel. Opaque splats that overlap hide each other in depth order,
        which shifts the picture by up to their size; smaller ones shift it less.
    low_pass_px: low-pass in square pixels of the training image at which the scene is made to be rendered: the usual
        0.3 of a viewer whose pictures are twice as large.
    """

    widths: tuple[int, ...] = (48, 80, 128)
    depth_step: float = 0.1
    scale_px: tuple[float, float, float] = (0.05, 0.4, 3.0)
    opacity_logits: tuple[float, float] = (4.5, 7.5)
    sharpen: float = 0.7
    reference_detail: int = 2
    low_pass_px: float = 0.075

    def build(self, feature_channels: int, latent_channels: int, depth_range: DepthRange) -> SplatDecoder:
        return SplatDecoder(self, feature_channels, latent_channels, depth_range)


@dataclass(frozen=True)
class PixelEvidence:
    """What is known about every view at image resolution before decoding, all (b, m, ., H, W).

    Attributes:
        image: reference pixels, or the decoded image of a generated view, in [0, 1].
        relative: depth coordinate: of the reference geometry, or of the splats rendered at latent resolution.
        is_reference: 1 on reference views.
        carried: colour of the reference splats rendered into the view (on references: those of the others).
        carried_alpha: their alpha.
        carried_relative: their depth coordinate.
        covered: share of the pixel that other splats show already: ``carried_alpha`` on generated views; on references
            1 where another reference shows the same surface at higher resolution.
    """

    image: Float[Tensor, "b m 3 H W"]
    relative: Float[Tensor, "b m 1 H W"]
    is_reference: Float[Tensor, "b m 1 H W"]
    carried: Float[Tensor, "b m 3 H W"]
    carried_alpha: Float[Tensor, "b m 1 H W"]
    carried_relative: Float[Tensor, "b m 1 H W"]
    covered: Float[Tensor, "b m 1 H W"]

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
                self.covered,
            ],
            2,
        )

    @property
    def reference_views(self) -> Bool[Tensor, " m"]:
        """Which views are references."""
        return self.is_reference[0, :, 0, 0, 0] > 0.5

    def of(self, views: Bool[Tensor, " m"] | slice, detail: int = 1) -> PixelEvidence:
        """The evidence of some views, on a grid ``detail`` times finer: colours and, within a surface, depth are
        interpolated; across edges depth keeps its steps."""
        parts = {field.name: getattr(self, field.name)[:, views] for field in fields(self)}
        if detail == 1:
            return PixelEvidence(**parts)

        def enlarged(maps: Tensor, mode: str) -> Tensor:
            b, m = maps.shape[:2]
            return F.interpolate(maps.flatten(0, 1), scale_factor=detail, mode=mode).unflatten(0, (b, m))

        fine = {name: enlarged(maps, "nearest") for name, maps in parts.items()}
        fine["image"] = enlarged(parts["image"], "bicubic").clamp(0, 1)
        smooth = enlarged(parts["relative"], "bilinear")
        same = (smooth - fine["relative"]).abs() < SAME_SURFACE
        fine["relative"] = torch.where(same, smooth, fine["relative"])
        return PixelEvidence(**fine)


class SplatDecoder(nn.Module):
    """One splat per pixel of a generated view, several per reference pixel. Works at stride 2 and coarser; four pixels
    share a position there."""

    def __init__(
        self, config: SplatDecoderConfig, feature_channels: int, latent_channels: int, depth_range: DepthRange
    ) -> None:
        super().__init__()
        self.config = config
        self.depth_range = depth_range
        w2, w4, w8 = config.widths
        self.stem = nn.Sequential(nn.Conv2d(4 * 13, w2, 3, padding=1), PlainBlock(w2))
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
        self.scale_bias = math.log((start - low) / (high - start))

    def forward(
        self,
        features: Float[Tensor, "b m f h w"],
        latents: Float[Tensor, "b m c h w"],
        evidence: PixelEvidence,
        cameras: Cameras,
    ) -> list[Gaussians]:
        """Splats of each scene in world coordinates: those of the references, then those of the generated views, each
        view by view and row by row.

        Args:
            features: of T_epi at noise level zero.
            latents: clean latents of all views.
            evidence: at image resolution.
            cameras: (b, m).
        """
        pixels = torch.cat([evidence.stacked(), ray_slopes(cameras)], 2)
        raw = self.frames(pixels, features, latents)
        references = evidence.reference_views
        parts = []
        for views, detail in ((references, self.config.reference_detail), (~references, 1)):
            fine = raw[:, views].repeat_interleave(detail, -1).repeat_interleave(detail, -2)
            parts.append(self.activated(fine, evidence.of(views, detail), cameras[:, views]))
        return [Gaussians.cat(list(pair)) for pair in zip(*parts, strict=True)]

    def source_views(self, is_reference: Bool[Tensor, " m"], height: int, width: int) -> Int[Tensor, " n"]:
        """The view that each splat of a scene comes from, in the order of `forward`."""
        detail = torch.where(is_reference, self.config.reference_detail**2, 1)
        views = torch.cat([is_reference.nonzero()[:, 0], (~is_reference).nonzero()[:, 0]])
        return views.repeat_interleave(height * width * detail[views])

    def frames(
        self,
        pixels: Float[Tensor, "b m e H W"],
        features: Float[Tensor, "b m f h w"],
        latents: Float[Tensor, "b m c h w"],
    ) -> Float[Tensor, "b m 14 H W"]:
        """`outputs`, by leaner memory levels of a few views at a time: they do not see each other here."""
        return in_parts(self.outputs, pixels, features, latents, lean=4, leanest=1, dim=1)

    def outputs(
        self,
        pixels: Float[Tensor, "b m e H W"],
        features: Float[Tensor, "b m f h w"],
        latents: Float[Tensor, "b m c h w"],
    ) -> Float[Tensor, "b m 14 H W"]:
        """The network's outputs from evidence and ray slopes of every pixel; see `activate` for what they mean."""
        b = features.shape[0]
        pixels = pixels.flatten(0, 1)
        at2 = self.stem(F.pixel_unshuffle(pixels, 2))
        at4 = self.down4(at2)
        at8 = torch.cat([self.down8(at4), features.flatten(0, 1), latents.flatten(0, 1).to(at4.dtype)], 1)
        at4 = self.mix4(at4 + upsampled(self.up4(self.middle(self.merge(at8)))))
        at2 = self.mix2(at2 + upsampled(self.up2(at4)))
        return rearrange(F.pixel_shuffle(self.head(at2).float(), 2), "(b m) c h w -> b m c h w", b=b)

    def activated(self, raw: Float[Tensor, "b m 14 H W"], evidence: PixelEvidence, cameras: Cameras) -> list[Gaussians]:
        """`activate`, at lean memory levels of a few views at a time."""
        views = raw.shape[1]
        size = max(1, at_once(views, 4, 1))
        some = [slice(start, start + size) for start in range(0, max(views, 1), size)]
        parts = [recomputed(self.activate, raw[:, one], evidence.of(one), cameras[:, one]) for one in some]
        return [Gaussians.cat(list(scene)) for scene in zip(*parts, strict=True)] if len(parts) > 1 else parts[0]

    @full_precision
    def activate(self, raw: Float[Tensor, "b m 14 H W"], evidence: PixelEvidence, cameras: Cameras) -> list[Gaussians]:
        """Raw outputs and their starting points -> splats. All zeros give: the pixel's colour on its ray at the
        starting depth, opaque where nothing is carried into the view yet."""
        step, offset, scale, turn, opacity, color = raw.split([1, 2, 3, 4, 1, 3], 2)
        low, _, high = self.config.scale_px
        carried = evidence.carried_alpha * (1 - evidence.is_reference)
        start = evidence.relative + carried * (evidence.carried_relative - evidence.relative)
        relative = (start + self.config.depth_step * torch.tanh(step)).clamp(0, 1)
        identity = torch.zeros_like(turn)
        identity[:, :, 0] = 1.0
        depth = self.depth_range.depth(relative)
        surface, stretch = surface_frames(cameras, depth)
        local = F.normalize(turn + identity, dim=2)
        return lift_pixels(
            cameras,
            depth,
            offset=0.5 * torch.tanh(offset),
            scale_px=stretch * (low + (high - low) * torch.sigmoid(scale + self.scale_bias)),
            quaternion=multiply_quaternions(surface.movedim(2, -1), local.movedim(2, -1)).movedim(-1, 2),
            opacity=torch.sigmoid(
                opacity + self.config.opacity_logits[0] - self.config.opacity_logits[1] * evidence.covered
            ),
            color=(sharpened(evidence.image, self.config.sharpen) + 0.5 * torch.tanh(color)).clamp(0, 1),
        )


def sharpened(images: Float[Tensor, "b m 3 H W"], amount: float) -> Float[Tensor, "b m 3 H W"]:
    """images + amount (images - 3x3 binomial blur): undoes to first order what the splats' footprint will blur."""
    kernel = images.new_tensor([0.25, 0.5, 0.25])
    flat = F.pad(images.flatten(0, 1), (1, 1, 1, 1), mode="replicate")
    weight = (kernel[:, None] * kernel)[None, None].expand(3, 1, 3, 3)
    blurred = F.conv2d(flat, weight, groups=3).unflatten(0, images.shape[:2])
    return images + amount * (images - blurred)


@torch.no_grad()
@full_precision
def shown_elsewhere(
    cameras: Cameras, depths: Float[Tensor, "b k 1 H W"], tolerance: float = 0.05
) -> Float[Tensor, "b k 1 H W"]:
    """1 where another view shows the same surface at higher resolution, else 0; each earlier view counts 5 % finer.

    A pixel's point is projected into the other view; it is the same surface if that view's depth there agrees within
    ``tolerance`` of it. Resolution is focal length over depth.
    """
    b, k, _, height, width = depths.shape
    points = unproject(cameras, depths).flatten(2, 3)
    focal = cameras.k[..., 0, 0, None]
    fineness = focal / depths.flatten(2)
    owned = torch.zeros_like(fineness)
    for shift in range(1, k):
        others = torch.arange(k, device=depths.device).roll(-shift)
        pixels, z = cameras[:, others].project(points)
        grid = (pixels / pixels.new_tensor([width, height]) * 2 - 1).clamp(-2, 2)[:, :, None]
        seen = F.grid_sample(
            depths[:, others].flatten(0, 1), grid.flatten(0, 1), mode="nearest", align_corners=False
        ).reshape(b, k, -1)
        same = (z > 0) & (seen > 0) & ((z - seen).abs() < tolerance * seen)
        gain = focal[:, others] / seen.clamp_min(1e-6) / fineness
        bonus = 1.05 ** (torch.arange(k, device=depths.device) - others).to(gain)  # a total order: no cycle of owners
        owned = torch.maximum(owned, (same & (gain * bonus[None, :, None] > 1)).to(owned))
    return owned.reshape(b, k, 1, height, width)
