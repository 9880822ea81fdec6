"""Geometry of the reference views from their pixels alone: a small multi-view stereo network that also works on one.

GGS learns depth inside the denoiser, at latent resolution and under noise. The references are clean and sharp, and
their geometry does not change during sampling; so it is estimated once, at full resolution, by plane-sweep matching
between references plus a monocular U-Net, and handed to the denoiser (as splats rendered into the target views), to the
splat head and to the 3D decoder. Ours, beyond the paper; MVSNet's and MVSplat's idea at a small size.

Letters: b = scenes, k = references, j = other references, s = depth hypotheses, h/w = rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.config import Config
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.depth_range import DepthRange
from latent3d.geometry.plane_sweep import plane_sweep_positions
from latent3d.nn.attention import SelfAttention
from latent3d.nn.layers import ResBlock2d, zero_init

PATCH_NOISE = 0.02
"""Contrast, as a standard deviation of colour in [0, 1], below which a patch counts as empty."""


@dataclass(frozen=True, kw_only=True)
class ReferenceGeometryConfig(Config):
    """Widths of the reference geometry network.

    Attributes:
        depth_range: coordinate of the depth hypotheses and of the output.
        hypotheses: number of planes of the sweep and of bins of the depth distribution.
        widths: channels at strides 2, 4, 8 and 16.
        match_channels: width of the matching features.
        mixers: attention blocks at stride 16, over the tokens of all references.
        heads: attention heads of each.
        fine_hypotheses: depths around the coarse estimate that the second sweep compares, at stride 2.
        fine_step: distance between them, in bins of the coarse sweep.
        fine_channels: width of the second sweep's learned features.
    """

    depth_range: DepthRange = DepthRange(near=0.3, far=50.0, spacing="log")
    hypotheses: int = 40
    widths: tuple[int, ...] = (32, 64, 128, 192)
    match_channels: int = 32
    mixers: int = 2
    heads: int = 6
    fine_hypotheses: int = 9
    fine_step: float = 0.33
    fine_channels: int = 16

    def build(self) -> ReferenceGeometry:
        return ReferenceGeometry(self)


@dataclass(frozen=True)
class ReferenceGeometryOutput:
    """What the references look like in 3D.

    Attributes:
        relative: depth coordinate r in [0, 1] per pixel, (b, k, 1, H, W).
        spread: predicted mean absolute error of r, (b, k, 1, H, W).
        coarse: depth coordinate before refinement, (b, k, 1, H/4, W/4).
        logits: of the distribution over hypotheses, (b, k, s, H/4, W/4).
        features: (b, k, c, H/4, W/4), for whoever wants more than depth.
    """

    relative: Float[Tensor, "b k 1 H W"]
    spread: Float[Tensor, "b k 1 H W"]
    coarse: Float[Tensor, "b k 1 h w"]
    logits: Float[Tensor, "b k s h w"]
    features: Float[Tensor, "b k c h w"]


class ReferenceGeometry(nn.Module):
    """Posed reference images -> depth of every reference pixel."""

    def __init__(self, config: ReferenceGeometryConfig) -> None:
        super().__init__()
        self.config = config
        w2, w4, w8, w16 = config.widths
        bins = config.hypotheses
        self.stem = nn.Sequential(nn.Conv2d(4 * 5, w2, 3, padding=1), PlainBlock(w2))
        self.encoder = nn.Sequential(nn.Conv2d(w2, w4, 3, stride=2, padding=1), PlainBlock(w4), PlainBlock(w4))
        self.to_match = nn.Conv2d(w4, config.match_channels, 1)
        self.learned_share = nn.Parameter(torch.tensor(-1.0))
        self.temperature = nn.Parameter(torch.tensor(2.0))
        self.fuse = nn.Conv2d(w4 + 2 * bins, w4, 1)
        self.fused = PlainBlock(w4)
        self.down8 = nn.Sequential(nn.Conv2d(w4, w8, 3, stride=2, padding=1), ResBlock2d(w8))
        self.down16 = nn.Sequential(nn.Conv2d(w8, w16, 3, stride=2, padding=1), ResBlock2d(w16))
        self.context = nn.ModuleList([TokenMixer(w16, config.heads) for _ in range(config.mixers)])
        self.middle = ResBlock2d(w16)
        self.up8 = nn.Conv2d(w16, w8, 1)
        self.mix8 = nn.Sequential(ResBlock2d(w8), ResBlock2d(w8))
        self.up4 = nn.Conv2d(w8, w4, 1)
        self.mix4 = nn.Sequential(PlainBlock(w4), PlainBlock(w4))
        self.to_logits = nn.Conv2d(w4, bins, 3, padding=1)
        self.cost_gain = nn.Parameter(torch.tensor(1.0))
        self.up2 = nn.Conv2d(w4 + 1, w2, 1)
        self.to_fine_match = nn.Conv2d(w2, config.fine_channels, 1)
        self.fine_share = nn.Parameter(torch.tensor(-1.0))
        self.fine_temperature = nn.Parameter(torch.tensor(2.0))
        self.fuse2 = zero_init(nn.Conv2d(2 * config.fine_hypotheses, w2, 1))
        self.mix2 = nn.Sequential(PlainBlock(w2), PlainBlock(w2))
        self.to_fine_logits = zero_init(nn.Conv2d(w2, config.fine_hypotheses, 3, padding=1))
        self.refine = zero_init(nn.Conv2d(w2, 4 * 2, 3, padding=1))

    def forward(
        self, images: Float[Tensor, "b k 3 H W"], cameras: Cameras, generator: torch.Generator | None = None
    ) -> ReferenceGeometryOutput:
        """Images in [0, 1] and their cameras (b, k) -> `ReferenceGeometryOutput`. H and W are multiples of 16.

        Raises:
            ValueError: if the image size is not a multiple of 16.
        """
        b, _, _, height, width = images.shape
        if height % 16 or width % 16:
            raise ValueError(f"reference images must have sides that are multiples of 16, got {height}x{width}")
        picture = F.pixel_unshuffle(torch.cat([images * 2 - 1, ray_slopes(cameras)], 2).flatten(0, 1), 2)
        fine = self.stem(picture)
        encoded = self.encoder(fine)
        learned = rearrange(self.to_match(encoded), "(b k) c h w -> b k c (h w)", b=b)
        cost, valid = self.match(self.match_features(learned, images), cameras, height // 4, width // 4)
        cost, valid = cost.flatten(0, 1).to(encoded.dtype), valid.flatten(0, 1).to(encoded.dtype)
        at4 = self.fused(self.fuse(torch.cat([encoded, cost, valid], 1)))
        at8 = self.down8(at4)
        at16 = self.down16(at8)
        for block in self.context:
            at16 = block(at16, b)
        at8 = self.mix8(at8 + upsampled(self.up8(self.middle(at16))))
        at4 = self.mix4(at4 + upsampled(self.up4(at8)))
        logits = self.to_logits(at4).float() + self.cost_gain * cost.float()
        centres = (torch.arange(self.config.hypotheses, device=images.device) + 0.5) / self.config.hypotheses
        # a sum of products, not a matrix product: autocast would round r to 8 bits, 2 % of depth
        coarse = (logits.softmax(1) * centres[:, None, None]).sum(1, keepdim=True)
        start = upsampled(coarse)
        learned = self.to_fine_match(fine).unflatten(0, images.shape[:2])
        near, near_valid = self.match_near(start.detach().unflatten(0, images.shape[:2]), learned, images, cameras)
        near, near_valid = near.flatten(0, 1), near_valid.flatten(0, 1)
        at2 = fine + upsampled(self.up2(torch.cat([at4, coarse.to(at4.dtype)], 1)))
        at2 = self.mix2(at2 + self.fuse2(torch.cat([near, near_valid], 1).to(at2.dtype)))
        shares = (self.to_fine_logits(at2).float() + near).softmax(1)
        middle = start + (shares * self.fine_offsets(shares)[:, None, None]).sum(1, keepdim=True)
        step, spread = F.pixel_shuffle(self.refine(at2).float(), 2).chunk(2, 1)
        relative = F.interpolate(middle, size=(height, width), mode="bilinear") + 0.1 * step
        return ReferenceGeometryOutput(
            *(
                rearrange(t, "(b k) c h w -> b k c h w", b=b)
                for t in (relative.clamp(0, 1), 0.02 * F.softplus(spread), coarse, logits, at4.float())
            )
        )

    def match_features(self, learned: Float[Tensor, "b k c q"], images: Tensor) -> Float[Tensor, "b k d q"]:
        """Unit vectors per cell of stride 4 whose dot product blends learned similarity with zero-mean normalised
        cross-correlation of 8x8 patches, which matches from the first step of training on.

        Patches without contrast get short vectors: they agree with nothing rather than with everything.
        """
        b, k = images.shape[:2]
        patches = F.unfold(images.flatten(0, 1).float(), 8, stride=4, padding=2)
        patches = patches - rearrange(patches, "n (c p) q -> n c p q", c=3).mean(2).repeat_interleave(64, 1)
        patches = patches / (patches.square().sum(1, keepdim=True) + patches.shape[1] * PATCH_NOISE**2).sqrt()
        share = torch.sigmoid(self.learned_share)
        learned = F.normalize(learned.float(), dim=2)
        return torch.cat([share.sqrt() * learned, (1 - share).sqrt() * patches.unflatten(0, (b, k))], 2)

    def match(self, features: Float[Tensor, "b k d q"], cameras: Cameras, h: int, w: int) -> tuple[Tensor, Tensor]:
        """Plane sweep between references: mean dot product per hypothesis over the other references.

        Returns:
            correlation and share of valid others, both (b, k, s, h, w); all zero for a single reference.
        """
        b, k = features.shape[:2]
        bins = self.config.hypotheses
        total = features.new_zeros(b, k, bins, h, w, dtype=torch.float32)
        count = torch.zeros_like(total)
        if k == 1:
            return total, count
        centres = (torch.arange(bins, device=features.device, dtype=torch.float32) + 0.5) / bins
        depths = self.config.depth_range.depth(centres)
        for shift in range(1, k):  # every reference against the one `shift` places on: all ordered pairs
            others = torch.arange(k, device=features.device).roll(-shift)
            positions, valid = plane_sweep_positions(cameras, cameras[:, others], depths, h, w)
            # Bilinear sampling is linear, so sampling the map of dot products equals the dot product with the sample.
            pairs = torch.einsum("bkcq,bkcp->bkqp", features, features[:, others])
            grid = rearrange(positions, "b k s y x p -> (b k y x) 1 s p") / positions.new_tensor([w, h]) * 2 - 1
            maps = rearrange(pairs.float(), "b k q (y x) -> (b k q) 1 y x", y=h)
            score = F.grid_sample(maps, grid, align_corners=False)
            total = total + rearrange(score, "(b k y x) 1 1 s -> b k s y x", b=b, k=k, y=h) * valid
            count = count + valid
        return self.temperature.exp() * total / count.clamp_min(1), count / (k - 1)

    def fine_offsets(self, like: Tensor) -> Float[Tensor, " s"]:
        """Where the second sweep looks, as differences of the depth coordinate."""
        count = self.config.fine_hypotheses
        place = torch.arange(count, device=like.device, dtype=torch.float32) - (count - 1) / 2
        return place * self.config.fine_step / self.config.hypotheses

    def match_near(
        self, start: Float[Tensor, "b k 1 h w"], learned: Float[Tensor, "b k c h w"], images: Tensor, cameras: Cameras
    ) -> tuple[Tensor, Tensor]:
        """Second sweep, at stride 2 and only around the coarse estimate ``start`` of the depth coordinate (the cascade
        of CasMVSNet, Gu et al. 2020): learned similarity and correlation of grey 6x6 patches.

        Returns:
            correlation and share of valid others, both (b, k, s, h, w); all zero for a single reference.
        """
        b, k, _, h, w = start.shape
        total = start.new_zeros(b, k, self.config.fine_hypotheses, h, w)
        count = torch.zeros_like(total)
        if k == 1:
            return total, count
        depths = self.config.depth_range.depth((start + self.fine_offsets(start)[:, None, None]).clamp(0, 1))
        share = torch.sigmoid(self.fine_share)
        with torch.autocast(images.device.type, enabled=False):
            grey = cosine_patches(images.flatten(0, 1).mean(1, keepdim=True), 6, 2, 4).unflatten(0, (b, k))
        learned = F.normalize(learned.float(), dim=2)
        for shift in range(1, k):
            others = torch.arange(k, device=start.device).roll(-shift)
            positions, valid = plane_sweep_positions(cameras, cameras[:, others], depths, h, w)
            grid = rearrange(positions, "b k s h w p -> (b k) (s h) w p") / positions.new_tensor([w, h]) * 2 - 1
            for weight, features in ((share, learned), (1 - share, grey)):
                there = F.grid_sample(features[:, others].flatten(0, 1), grid, align_corners=False)
                there = there.unflatten(2, (-1, h)) * features.flatten(0, 1)[:, :, None]
                total = total + weight * there.sum(1).unflatten(0, (b, k)) * valid
            count = count + valid
        return self.fine_temperature.exp() * total / count.clamp_min(1), count / (k - 1)

    def training_terms(
        self, images: Float[Tensor, "b k 3 H W"], cameras: Cameras, depths: Float[Tensor, "b k 1 H W"]
    ) -> dict[str, Tensor]:
        """Depth losses in ln(depth): ``depth`` full resolution, ``coarse`` at stride 4, ``edges`` of first differences,
        ``spread`` Laplace likelihood of the error under the predicted spread; and ``relative``, the error as a share of
        the true depth (AbsRel), which counts a surface put far too deep for more than its logarithm does. Pixels with
        depth 0 are left out."""
        out = self(images, cameras)
        span, known = self.config.depth_range, depths > 0
        truth = span.relative(depths)
        weight = known.float() / known.float().mean().clamp_min(1e-6)
        error = (out.relative - truth).abs()
        small, small_known = (_quarter(t) for t in (truth, known.float()))
        scale = span.log_ratio
        return {
            "depth": scale * (error * weight).mean(),
            "relative": (_relative_error(scale * (out.relative - truth)) * weight).mean(),
            "coarse": scale * ((out.coarse - small).abs() * small_known).sum() / small_known.sum().clamp_min(1),
            "edges": scale * (_edge_error(out.relative - truth) if bool(known.all()) else error.new_zeros(())),
            "spread": ((error.detach() / out.spread + out.spread.log()) * weight).mean(),
        }


def cosine_patches(images: Float[Tensor, "n 1 H W"], side: int, stride: int, waves: int) -> Float[Tensor, "n q h w"]:
    """Patches of ``side`` pixels around cells of ``stride`` pixels: their lowest ``waves`` x ``waves`` cosine
    coefficients but the mean, as unit vectors. Patches without contrast get short vectors."""
    place = (torch.arange(side, device=images.device) + 0.5) * torch.pi / side
    wave = torch.cos(torch.arange(waves, device=images.device)[:, None] * place) * (2 / side) ** 0.5
    wave[0] *= 0.5**0.5
    kernels = torch.einsum("ai,bj->abij", wave, wave).flatten(0, 1)[1:, None]
    values = F.conv2d(images.float(), kernels, stride=stride, padding=(side - stride) // 2)
    return values / (values.square().sum(1, keepdim=True) + side**2 * PATCH_NOISE**2).sqrt()


class PlainBlock(nn.Module):
    """Residual block without norm: relu, conv, relu, conv. At fine strides a CPU spends more on norms than on these."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = zero_init(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class TokenMixer(nn.Module):
    """Attention over the stride-16 tokens of all references of a scene, then a pointwise network; both residual."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = SelfAttention(channels, heads)
        self.network = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.GELU(), zero_init(nn.Linear(2 * channels, channels))
        )

    def forward(self, x: Float[Tensor, "n c h w"], scenes: int) -> Float[Tensor, "n c h w"]:
        """Maps of all references, (scenes * references, c, h, w)."""
        h, w = x.shape[-2:]
        tokens = rearrange(x, "(b k) c h w -> b (k h w) c", b=scenes)
        tokens = tokens + self.attention(self.norm1(tokens))
        tokens = tokens + self.network(self.norm2(tokens))
        return rearrange(tokens, "b (k h w) c -> (b k) c h w", h=h, w=w)


def ray_slopes(cameras: Cameras) -> Float[Tensor, "*batch 2 H W"]:
    """x/z and y/z of every pixel's ray in camera axes: tells a network the field of view and the principal point."""
    k = cameras.k
    x = torch.arange(cameras.width, device=k.device, dtype=k.dtype) + 0.5
    y = torch.arange(cameras.height, device=k.device, dtype=k.dtype) + 0.5
    u = (x - k[..., 0, 2, None]) / k[..., 0, 0, None]
    v = (y - k[..., 1, 2, None]) / k[..., 1, 1, None]
    u = repeat(u, "... w -> ... h w", h=cameras.height)
    v = repeat(v, "... h -> ... h w", w=cameras.width)
    return torch.stack([u, v], -3)


def upsampled(x: Tensor) -> Tensor:
    """Twice the size, nearest neighbour."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _quarter(maps: Float[Tensor, "b k 1 H W"]) -> Float[Tensor, "b k 1 h w"]:
    """Every fourth pixel, the one at the cell's centre: values are not mixed across edges."""
    return maps[..., 2::4, 2::4]


def _relative_error(log_ratio: Tensor) -> Tensor:
    """|p - d| / d from ln(p / d); beyond e times the true depth it goes on as a straight line in the logarithm."""
    return torch.expm1(log_ratio.clamp(max=1)).abs() + torch.e * F.relu(log_ratio - 1)


def _edge_error(error: Tensor) -> Tensor:
    """Mean absolute first difference of an error map: zero only if all steps of the truth are reproduced."""
    return (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
