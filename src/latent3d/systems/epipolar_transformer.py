"""The epipolar transformer T_epi: each latent pixel attends to features along its epipolar lines in other views (GGS,
figure 2; the mechanism of pixelSplat, section 3.1).

Samples lie at fixed depth hypotheses of the query ray, the same in all views, so attention doubles as a plane sweep.
Since bilinear sampling is linear, scores are looked up in the map of dot products between all pixels of two views, and
weights are spread back onto that grid: exact, and much smaller than gathering a vector per sample.

The kind ``plain`` is the comparison without that geometry: the same layers, in which each latent pixel attends to all
pixels of its source views, and everything knows its ray.

Letters: b = scenes, m = views, n = source views of each view, q/p = latent pixels of query/source, s = samples per
line, e = heads, c = channels, h/w = rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from latent3d.config import Config
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.depth_range import DepthRange
from latent3d.geometry.plane_sweep import plane_sweep_positions
from latent3d.geometry.rays import plucker_map
from latent3d.memory import in_parts, recomputed
from latent3d.nn.attention import attend
from latent3d.nn.layers import ResBlock2d, fourier_embedding, fourier_width, zero_init


@dataclass(frozen=True, kw_only=True)
class EpipolarTransformerConfig(Config):
    """Attributes:
    depth_range: coordinate of the samples on a line.
    width, heads, layers: of the attention.
    samples: hypotheses per line.
    max_sources: at most this many other views per view, references first, then the nearest; None for all.
    octaves: of the positional code of a sample's depth coordinate (``plain``: of a pixel's ray).
    kind: ``epipolar`` looks along epipolar lines, ``plain`` at all pixels of the same source views.
    """

    depth_range: DepthRange = DepthRange()
    width: int = 128
    heads: int = 4
    layers: int = 2
    samples: int = 32
    max_sources: int | None = None
    octaves: int = 6
    kind: Literal["epipolar", "plain"] = "epipolar"

    def build(self, in_channels: int) -> EpipolarTransformer:
        return EpipolarTransformer(self, in_channels)


@dataclass(frozen=True)
class EpipolarLines:
    """Where to look, computed once per set of cameras and shared by all layers and denoising steps.

    Attributes:
        sources: indices of the source views of every view, (b, m, n).
        corners: flat indices into the source grid of the four neighbours of each sample, (b, m, n, q, s * 4).
        weights: bilinear weights, zero outside the image, (b, m, n, q, s * 4).
        valid: samples inside the image and in front of the source camera, (b, m, n, q, s).
        rays: Plücker coordinates of every latent pixel's ray, (b, m, q, 6), where attention is plain; there are no
            samples then, s = 0.
    """

    sources: Int[Tensor, "b m n"]
    corners: Int[Tensor, "b m n q s4"]
    weights: Float[Tensor, "b m n q s4"]
    valid: Float[Tensor, "b m n q s"]
    rays: Float[Tensor, "b m q 6"] | None = None


@torch.no_grad()
def epipolar_lines(
    cameras: Cameras, is_reference: Tensor, config: EpipolarTransformerConfig, height: int, width: int
) -> EpipolarLines:
    """Sources and samples for cameras (b, m) on a feature grid (height, width); ``is_reference`` is (b, m) or (m,)."""
    b, m = cameras.shape
    count = m - 1 if config.max_sources is None else min(m - 1, config.max_sources)
    distance = torch.cdist(cameras.centers.float(), cameras.centers.float())
    rank = (
        distance / distance.amax((1, 2), keepdim=True).clamp_min(1e-6)
        - 2.0 * is_reference.expand(b, m)[:, None].float()
    )
    rank = rank + 10.0 * torch.eye(m, device=rank.device)  # a view is no source of itself
    sources = rank.argsort(dim=-1, stable=True)[..., :count]
    if config.kind == "plain":
        none = distance.new_zeros(b, m, count, height * width, 0)
        rays = rearrange(plucker_map(cameras.resized(height, width)), "b m c y x -> b m (y x) c")
        return EpipolarLines(sources, none.long(), none, none, rays)
    scene = torch.arange(b, device=rank.device)[:, None, None]
    query = cameras[
        torch.arange(b, device=rank.device)[:, None, None], torch.arange(m, device=rank.device)[None, :, None]
    ]
    query = Cameras(
        query.w2c.expand(b, m, count, 4, 4), query.k.expand(b, m, count, 3, 3), cameras.height, cameras.width
    )
    depths = config.depth_range.depth(hypotheses(config, cameras.k.device))
    positions, valid = plane_sweep_positions(query, cameras[scene, sources], depths, height, width)
    positions = rearrange(positions - 0.5, "b m n s y x p -> b m n (y x) s p")
    corner = positions.floor()
    fraction = positions - corner
    corners, weights = [], []
    for dy in (0, 1):
        for dx in (0, 1):
            x, y = corner[..., 0].long() + dx, corner[..., 1].long() + dy
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            share = (fraction[..., 0] if dx else 1 - fraction[..., 0]) * (
                fraction[..., 1] if dy else 1 - fraction[..., 1]
            )
            corners.append(y.clamp(0, height - 1) * width + x.clamp(0, width - 1))
            weights.append(share * inside)
    return EpipolarLines(
        sources,
        torch.stack(corners, -1).flatten(-2),
        torch.stack(weights, -1).flatten(-2),
        rearrange(valid, "b m n s y x -> b m n (y x) s"),
    )


def hypotheses(config: EpipolarTransformerConfig, device: torch.device) -> Float[Tensor, " s"]:
    """Depth coordinates of the samples: (i + 0.5) / s."""
    return (torch.arange(config.samples, device=device, dtype=torch.float32) + 0.5) / config.samples


class EpipolarTransformer(nn.Module):
    """Denoiser features (b, m, in_channels, h, w) -> features that know the other views, (b, m, width, h, w)."""

    def __init__(self, config: EpipolarTransformerConfig, in_channels: int) -> None:
        super().__init__()
        self.config = config
        self.project = nn.Conv2d(in_channels, config.width, 1)
        kind = EpipolarAttention if config.kind == "epipolar" else PlainAttention
        self.attentions = nn.ModuleList([kind(config) for _ in range(config.layers)])
        self.blocks = nn.ModuleList([ResBlock2d(config.width) for _ in range(config.layers)])

    def forward(self, features: Float[Tensor, "b m f h w"], lines: EpipolarLines) -> Float[Tensor, "b m c h w"]:
        """One cross-view attention and one per-view residual block a layer, all residual: a single view still works."""
        b, _, _, h, w = features.shape
        x = self.project(features.flatten(0, 1))
        for attention, block in zip(self.attentions, self.blocks, strict=True):
            tokens = rearrange(x, "(b m) c h w -> b m (h w) c", b=b)
            x = x + rearrange(attention(tokens, lines), "b m (h w) c -> (b m) c h w", h=h, w=w)
            x = recomputed(block, x)
        return x.unflatten(0, (b, -1))


class EpipolarAttention(nn.Module):
    """Attention from every latent pixel to the samples on its epipolar lines in its source views.

    Scores are q . (k_sample + code_k(r)) / sqrt(c), values v_sample + code_v(r), r the sample's depth coordinate; one
    learned null sample per head receives what no line explains.
    """

    def __init__(self, config: EpipolarTransformerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.code = nn.Linear(fourier_width(1, config.octaves), 2 * width)
        self.null = nn.Parameter(torch.zeros(config.heads))
        self.out = zero_init(nn.Linear(width, width))

    def forward(self, x: Float[Tensor, "b m q c"], lines: EpipolarLines) -> Float[Tensor, "b m q c"]:
        heads = self.config.heads
        query, key, value = rearrange(self.qkv(self.norm(x)), "b m q (z e c) -> z b m e q c", z=3, e=heads)
        code = fourier_embedding(hypotheses(self.config, x.device)[:, None] * 2 - 1, self.config.octaves)
        code_k, code_v = rearrange(self.code(code.to(query.dtype)), "s (z e c) -> z e s c", z=2, e=heads)
        query = query * query.shape[-1] ** -0.5
        if lines.sources.shape[-1] == 0:
            return self.out(torch.zeros_like(x))

        def look(query: Tensor, sources: Tensor, corners: Tensor, weights: Tensor, valid: Tensor) -> Tensor:
            chosen = EpipolarLines(sources, corners, weights, valid)
            return self._look(query, key, value, code_k, code_v, chosen)

        parts = lines.sources, lines.corners, lines.weights, lines.valid
        return self.out(in_parts(look, query, *parts, lean=2, leanest=1, dim=1))

    def _look(
        self, query: Tensor, key: Tensor, value: Tensor, code_k: Tensor, code_v: Tensor, lines: EpipolarLines
    ) -> Float[Tensor, "b m q c"]:
        """What the pixels of some of the views draw from the lines in their sources; keys are of all views."""
        b, m, heads, pixels, _ = query.shape
        n, samples = lines.sources.shape[-1], self.config.samples
        scene = torch.arange(b, device=query.device)[:, None, None]
        key, value = key[scene, lines.sources], value[scene, lines.sources]  # (b, m, n, e, p, c)
        products = torch.einsum("bmeqc,bmnepc->bmneqp", query, key)
        corners = repeat(lines.corners, "b m n q t -> b m n e q t", e=heads)
        spread = lines.weights[:, :, :, None].to(products.dtype)
        scores = (products.gather(-1, corners) * spread).unflatten(-1, (samples, 4)).sum(-1)
        scores = scores + torch.einsum("bmeqc,esc->bmeqs", query, code_k)[:, :, None]
        scores = scores.float().masked_fill(lines.valid[:, :, :, None] == 0, -torch.inf)
        scores = rearrange(scores, "b m n e q s -> b m e q (n s)")
        null = self.null.float()[None, None, :, None, None].expand(b, m, heads, pixels, 1)
        weights = torch.cat([scores, null], -1).softmax(-1)[..., :-1].to(products.dtype)
        weights = rearrange(weights, "b m e q (n s) -> b m n e q s", n=n)
        onto = repeat(weights, "b m n e q s -> b m n e q (s t)", t=4) * spread
        onto = torch.zeros_like(products).scatter_add(-1, corners, onto)
        mixed = torch.einsum("bmneqp,bmnepc->bmeqc", onto, value)
        mixed = mixed + torch.einsum("bmneqs,esc->bmeqc", weights, code_v)
        return rearrange(mixed, "b m e q c -> b m q (e c)")


class PlainAttention(nn.Module):
    """Attention from every latent pixel to all latent pixels of its source views, whose rays are part of the tokens.

    What `EpipolarAttention` reads off the cameras must be learnt here from Plücker coordinates. One learned null key
    with value zero receives what no pixel explains.
    """

    def __init__(self, config: EpipolarTransformerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.code = nn.Linear(fourier_width(6, config.octaves), width)
        self.null = nn.Parameter(torch.zeros(width))
        self.out = zero_init(nn.Linear(width, width))

    def forward(self, x: Float[Tensor, "b m q c"], lines: EpipolarLines) -> Float[Tensor, "b m q c"]:
        heads = self.config.heads
        b, m, _, _ = x.shape
        if lines.rays is None:
            raise ValueError("plain attention needs the pixels' rays; make the lines with the same configuration")
        if lines.sources.shape[-1] == 0:
            return self.out(torch.zeros_like(x))
        code = self.code(fourier_embedding(lines.rays, self.config.octaves).to(x.dtype))
        query, key, value = self.qkv(self.norm(x) + code).chunk(3, -1)
        scene = torch.arange(b, device=x.device)[:, None, None]
        key, value = (
            rearrange(part[scene, lines.sources], "b m n p (e c) -> (b m) e (n p) c", e=heads) for part in (key, value)
        )
        null = repeat(self.null.to(key.dtype), "(e c) -> t e 1 c", e=heads, t=b * m)
        key, value = torch.cat([key, null], 2), torch.cat([value, torch.zeros_like(null)], 2)
        mixed = attend(rearrange(query, "b m q (e c) -> (b m) e q c", e=heads), key, value)
        return self.out(rearrange(mixed, "(b m) e q c -> b m q (e c)", b=b))
