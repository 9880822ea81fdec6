"""From features to splats: one Gaussian per pixel and view, on the pixel's ray (GGS section 3.2; spec 3.6).

Letters: b = scenes, m = views, c = channels, h/w = rows and columns of the feature grid, n = m h w.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.config import Config
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.depth_range import DepthRange
from latent3d.geometry.precision import full_precision
from latent3d.geometry.rays import rays_z1
from latent3d.geometry.rotations import matrix_to_quaternion, multiply_quaternions
from latent3d.nn.layers import ResBlock2d, zero_init
from latent3d.representations.gaussians import Gaussians


@dataclass(frozen=True, kw_only=True)
class DepthHeadConfig(Config):
    """Distribution of depth along a pixel's ray.

    Attributes:
        kind: ``gaussian`` predicts mean and spread of r and takes one reparameterised sample in training;
            ``categorical`` predicts buckets with an offset in each (pixelSplat), for data without depth.
        buckets, samples: of the categorical head; ``samples`` splats per pixel in training, one at test.
        spread: smallest and largest standard deviation of r (gaussian).
    """

    kind: Literal["gaussian", "categorical"] = "gaussian"
    buckets: int = 32
    samples: int = 3
    spread: tuple[float, float] = (0.002, 0.15)

    @property
    def channels(self) -> int:
        return 2 if self.kind == "gaussian" else 2 * self.buckets


@dataclass(frozen=True, kw_only=True)
class SplatHeadConfig(Config):
    """Attributes:
    depth: the depth head.
    features: feature channels per splat, C_f.
    scale_px: smallest, initial and largest standard deviation in pixels of the feature grid at the splat's depth.
    width: of the residual block before the linear heads.
    """

    depth: DepthHeadConfig = DepthHeadConfig()
    features: int = 32
    scale_px: tuple[float, float, float] = (0.05, 0.25, 2.0)
    width: int = 128

    def build(self, in_channels: int, depth_range: DepthRange) -> SplatHead:
        return SplatHead(self, in_channels, depth_range)


@dataclass(frozen=True)
class DepthSample:
    """Depth coordinates on rays and what they do to opacity.

    Attributes:
        relative: r of each splat, (b, m, k, h, w), k splats per pixel.
        factor: opacity factor in [0, 1], (b, m, k, h, w).
        mean: expected r, (b, m, 1, h, w).
    """

    relative: Tensor
    factor: Tensor
    mean: Tensor


class SplatHead(nn.Module):
    """Features (b, m, c, h, w) and cameras -> feature splats of every scene, f_phi (depth) and f_g (the rest)."""

    def __init__(self, config: SplatHeadConfig, in_channels: int, depth_range: DepthRange) -> None:
        super().__init__()
        self.config = config
        self.depth_range = depth_range
        width = config.width
        self.block = nn.Sequential(nn.Conv2d(in_channels + 2, width, 1), ResBlock2d(width))
        self.to_depth = nn.Conv2d(width, config.depth.channels, 1)
        self.to_gaussian = nn.Conv2d(width, 2 + 3 + 4 + 1 + 3 + config.features, 1)
        with torch.no_grad():
            self.to_depth.weight.mul_(0.1)
            self.to_gaussian.weight.mul_(0.1)
            bias = torch.zeros(self.to_gaussian.out_channels)
            low, start, high = config.scale_px
            bias[2:5] = math.log((start - low) / (high - start))
            bias[5] = 1.0  # quaternion (1, 0, 0, 0)
            bias[9] = 2.0  # opacity 0.88
            self.to_gaussian.bias = nn.Parameter(bias)
        # How far the depth known beforehand (of references) is trusted, per pixel; see `forward`.
        self.to_trust = zero_init(nn.Conv2d(width, 1, 1))

    def forward(
        self,
        features: Float[Tensor, "b m c h w"],
        cameras: Cameras,
        known: Float[Tensor, "b m 1 h w"],
        is_known: Float[Tensor, "b m 1 h w"],
        noise: Float[Tensor, "b m k h w"] | None = None,
    ) -> tuple[list[Gaussians], DepthSample]:
        """Splats of each scene, and the depth behind them.

        Args:
            features: of T_epi.
            cameras: (b, m), any image size; intrinsics are scaled to the grid.
            known: depth coordinate known beforehand (reference geometry), 0 where ``is_known`` is 0.
            is_known: 1 where ``known`` holds.
            noise: standard normal (gaussian: k = 1) or uniform (categorical: k = samples) numbers that draw the depth
                in training; None takes the mean or the most likely bucket.
        """
        b, m = features.shape[:2]
        x = self.block(torch.cat([features, known, is_known], 2).flatten(0, 1))
        raw_depth, raw, trust = (
            t.float().unflatten(0, (b, m)) for t in (self.to_depth(x), self.to_gaussian(x), self.to_trust(x))
        )
        depth = self.depth_of(raw_depth, known.float(), is_known.float() * torch.sigmoid(trust + 2.0), noise)
        return self.splats_of(raw, depth, cameras), depth

    def depth_of(self, raw: Tensor, known: Tensor, trust: Tensor, noise: Tensor | None) -> DepthSample:
        """Depth from raw head outputs; ``known`` replaces a share ``trust`` of the predicted mean."""
        config = self.config.depth
        if config.kind == "gaussian":
            mean, spread = raw.split(1, 2)
            mean = (1 - trust) * torch.sigmoid(mean) + trust * known
            low, high = config.spread
            spread = low + (high - low) * torch.sigmoid(spread)
            if noise is None:
                return DepthSample(mean, torch.ones_like(mean), mean)
            relative = (mean + spread * noise).clamp(0, 1)
            return DepthSample(relative, torch.exp(-0.5 * ((relative - mean) / spread) ** 2), mean)
        logits, offset = raw.chunk(2, 2)
        share = logits.softmax(2)
        start = torch.arange(config.buckets, device=raw.device)[:, None, None]
        place = (start + torch.sigmoid(offset)) / config.buckets
        mean = (1 - trust) * (share * place).sum(2, keepdim=True) + trust * known
        if noise is None:
            bucket = share.argmax(2, keepdim=True)
            relative = (1 - trust) * place.gather(2, bucket) + trust * known
            return DepthSample(relative, torch.ones_like(relative), mean)
        edges = share.detach().cumsum(2)
        bucket = (noise[:, :, :, None] > edges[:, :, None]).sum(3).clamp(max=config.buckets - 1)
        relative = (1 - trust) * place.gather(2, bucket) + trust * known
        factor = ((1 - trust) * share.gather(2, bucket) + trust) / config.samples
        return DepthSample(relative, factor, mean)

    @full_precision
    def splats_of(self, raw: Tensor, depth: DepthSample, cameras: Cameras) -> list[Gaussians]:
        """Activated splats in world coordinates from raw outputs (b, m, 13 + C_f, h, w)."""
        offset, scale, turn, opacity, color, features = raw.split([2, 3, 4, 1, 3, self.config.features], 2)
        low, _, high = self.config.scale_px
        splats = lift_pixels(
            cameras,
            self.depth_range.depth(depth.relative),
            offset=torch.sigmoid(offset) - 0.5,
            scale_px=low + (high - low) * torch.sigmoid(scale),
            quaternion=F.normalize(turn, dim=2),
            opacity=torch.sigmoid(opacity) * depth.factor,
            color=torch.sigmoid(color),
            features=features,
        )
        return splats


def lift_pixels(
    cameras: Cameras,
    depth: Float[Tensor, "b m k h w"],
    *,
    opacity: Float[Tensor, "b m k h w"],
    color: Float[Tensor, "b m 3 h w"],
    scale_px: Float[Tensor, "b m 3 h w"] | float,
    offset: Float[Tensor, "b m 2 h w"] | None = None,
    quaternion: Float[Tensor, "b m 4 h w"] | None = None,
    features: Float[Tensor, "b m c h w"] | None = None,
) -> list[Gaussians]:
    """One splat per pixel and depth sample, in world coordinates, a set per scene.

    Args:
        cameras: (b, m); intrinsics are scaled to the grid (h, w).
        depth: z-depth, k samples per pixel.
        opacity: in [0, 1].
        color: display colour in [0, 1].
        scale_px: standard deviations in grid pixels at the splat's depth: s = scale_px * depth / focal.
        offset: of the ray from the pixel centre, in pixels.
        quaternion: orientation in camera axes; None aligns with the camera.
        features: channels to splat, or None.

    Returns:
        For each scene, (m k h w) splats ordered view by view, sample by sample, row by row.
    """
    b, m, k, h, w = depth.shape
    cameras = cameras.resized(h, w)
    x = torch.arange(w, device=depth.device, dtype=depth.dtype) + 0.5
    y = torch.arange(h, device=depth.device, dtype=depth.dtype) + 0.5
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(1, 1, h * w, 2)
    if offset is not None:
        pixels = pixels + rearrange(offset, "b m p h w -> b m (h w) p")
    rays = rays_z1(pixels.expand(b, m, h * w, 2), cameras)[:, :, None]
    z = rearrange(depth, "b m k h w -> b m k (h w) 1")
    means = cameras.centers[:, :, None, None] + rays * z
    focal = 0.5 * (cameras.k[..., 0, 0] + cameras.k[..., 1, 1])[:, :, None, None, None]
    if isinstance(scale_px, float):
        scales = (scale_px * z / focal).expand(b, m, k, h * w, 3)
    else:
        scales = rearrange(scale_px, "b m p h w -> b m 1 (h w) p") * z / focal
    to_world = matrix_to_quaternion(cameras.c2w[..., :3, :3])[:, :, None, None]
    if quaternion is not None:
        local = rearrange(quaternion, "b m p h w -> b m 1 (h w) p")
        to_world = multiply_quaternions(to_world.expand(b, m, 1, h * w, 4), local)

    def per_splat(tensor: Tensor) -> Tensor:
        return tensor.expand(b, m, k, h * w, tensor.shape[-1]).reshape(b, m * k * h * w, tensor.shape[-1])

    parts = {
        "means": per_splat(means),
        "quaternions": per_splat(to_world),
        "scales": per_splat(scales),
        "opacities": rearrange(opacity, "b m k h w -> b (m k h w)"),
        "colors": per_splat(rearrange(color, "b m p h w -> b m 1 (h w) p")),
    }
    if features is not None:
        parts["features"] = per_splat(rearrange(features, "b m p h w -> b m 1 (h w) p"))
    return [Gaussians(**{name: tensor[scene] for name, tensor in parts.items()}) for scene in range(b)]


@torch.no_grad()
@full_precision
def surface_frames(
    cameras: Cameras, depth: Float[Tensor, "b m 1 h w"], max_stretch: float = 4.0
) -> tuple[Float[Tensor, "b m 4 h w"], Float[Tensor, "b m 3 h w"]]:
    """How splats must lie and stretch to tile the surface that a depth map describes.

    The tangents are the steps between neighbouring pixels' points, taken on the side where depth changes less, so that
    they do not bridge occlusions. Without this, splats on slanted surfaces leave gaps as soon as the camera moves.

    Args:
        cameras: (b, m).
        depth: z-depth, scene units.
        max_stretch: longest step, in units of the pixel's footprint depth / focal.

    Returns:
        orientation (w, x, y, z) in camera axes, and the footprint along the local axes in units of depth / focal: one
        step across, one step down, and 0.3 along the normal.
    """
    h, w = depth.shape[-2:]
    k = cameras.resized(h, w).k
    x = (torch.arange(w, device=depth.device, dtype=depth.dtype) + 0.5 - k[..., 0, 2, None]) / k[..., 0, 0, None]
    y = (torch.arange(h, device=depth.device, dtype=depth.dtype) + 0.5 - k[..., 1, 2, None]) / k[..., 1, 1, None]
    ray = torch.stack(torch.broadcast_tensors(x[..., None, :], y[..., :, None], torch.ones_like(depth[:, :, 0])), 2)
    points = ray * depth
    unit = depth / (0.5 * (k[..., 0, 0] + k[..., 1, 1]))[..., None, None, None]
    across, down = _steps(points, -1), _steps(points, -2)
    normal = F.normalize(torch.linalg.cross(across, down, dim=2), dim=2)
    first = F.normalize(across, dim=2)
    second = torch.linalg.cross(normal, first, dim=2)
    frame = rearrange(torch.stack([first, second, normal], -1), "b m r h w c -> b m h w r c")
    stretch = torch.cat([across.norm(dim=2, keepdim=True), (down * second).sum(2, keepdim=True).abs()], 2) / unit
    stretch = torch.cat([stretch.clamp(0.5, max_stretch), torch.full_like(depth, 0.3)], 2)
    return rearrange(matrix_to_quaternion(frame), "b m h w q -> b m q h w"), stretch


def _steps(points: Float[Tensor, "b m 3 h w"], dim: int) -> Float[Tensor, "b m 3 h w"]:
    """Difference to the next or from the previous point along an image axis, whichever changes depth less."""
    step = points.diff(dim=dim)
    edge = step.narrow(dim, 0, 1)
    forward = torch.cat([step, step.narrow(dim, step.shape[dim] - 1, 1)], dim)
    backward = torch.cat([edge, step], dim)
    nearer = forward[:, :, 2:].abs() <= backward[:, :, 2:].abs()
    return torch.where(nearer, forward, backward)
