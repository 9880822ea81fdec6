"""A compact denoiser: convolutions at latent resolution around a transformer over the tokens of all views.

Letters: B = batch, M = views, C = latent channels, S = stem width, T = tokens per view, d = token width,
h, w = latent size, H, W = image size.

    noisy, reference, role ──concat──> conv stem + rays ──> resblocks ──┬──> patches ──> blocks (view | all views)
                                                                        │                   │ AdaLN(noise of frame)
                                            features <── resblocks <── (+) <── unpatchify <─┘
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.config import Config
from latent3d.denoisers.base import CachedRays, check_inputs, merge_condition, reference_mask
from latent3d.memory import recomputed
from latent3d.nn.attention import CrossAttention, FeedForward, SelfAttention, modulate
from latent3d.nn.layers import (
    NoiseEmbedding,
    ResBlock2d,
    fourier_embedding,
    fourier_width,
    group_count,
    sinusoidal_embedding,
    zero_init,
)

POSITION_OCTAVES = 4
RAY_OCTAVES = 4


@dataclass(frozen=True, kw_only=True)
class MultiViewTransformerConfig(Config):
    """Sizes of a `MultiViewTransformer`.

    Attributes:
        latent_channels: C.
        feature_channels: width of the stem, of the residual blocks at latent resolution and of the features.
        dim: token width.
        heads: attention heads.
        depth: transformer blocks.
        global_every: every n-th block attends over all views, the others within each view; 1 for all-view throughout.
            The last block is always one over all views.
        patch_size: latent pixels per token side.
        mlp_ratio: hidden over token width in the feed-forward layers.
        stem_blocks, head_blocks: residual blocks before and after the transformer.
        downscale: image pixels per latent pixel side.
        context_dim: width of context tokens; None for a network without context.
        condition_channels: E, maps known before denoising; 0 for none.
        checkpointing: recompute activations in the backward pass to save memory.
    """

    latent_channels: int = 8
    feature_channels: int = 128
    dim: int = 384
    heads: int = 6
    depth: int = 7
    global_every: int = 2
    patch_size: int = 2
    mlp_ratio: float = 4.0
    stem_blocks: int = 1
    head_blocks: int = 2
    downscale: int = 8
    context_dim: int | None = None
    condition_channels: int = 0
    checkpointing: bool = False

    @classmethod
    def small(cls, latent_channels: int = 8) -> MultiViewTransformerConfig:
        """About 15 M parameters, made for 8 views of 16x16 latents on two CPU cores."""
        return cls(latent_channels=latent_channels)

    @classmethod
    def tiny(cls, latent_channels: int = 4) -> MultiViewTransformerConfig:
        """For tests."""
        return cls(
            latent_channels=latent_channels, feature_channels=16, dim=32, heads=2, depth=2, stem_blocks=1, head_blocks=1
        )

    def build(self) -> MultiViewTransformer:
        """The network with random weights."""
        return MultiViewTransformer(self)


class TransformerBlock(nn.Module):
    """Self-attention, optional cross-attention and feed-forward, each modulated and gated per frame (adaLN-Zero).

    The modulation comes from outside, shared by all blocks, plus a learned offset of the block (PixArt-alpha's
    adaLN-single), which leaves the parameters to attention and feed-forward.

    Args:
        config: sizes.
        all_views: attend over the tokens of all views instead of each view's own.
    """

    def __init__(self, config: MultiViewTransformerConfig, all_views: bool) -> None:
        super().__init__()
        self.all_views = all_views
        self.attention = SelfAttention(config.dim, config.heads)
        self.cross = None
        if config.context_dim is not None:
            self.norm_cross = nn.LayerNorm(config.dim)
            self.cross = CrossAttention(config.dim, config.context_dim, config.heads)
            zero_init(self.cross.out)
        self.mlp = FeedForward(config.dim, round(config.dim * config.mlp_ratio))
        self.offset = nn.Parameter(torch.zeros(6, config.dim))

    def forward(
        self,
        x: Float[Tensor, "B M T d"],
        modulation: Float[Tensor, "B M 6 d"],
        context: Float[Tensor, "B L e"] | None = None,
    ) -> Float[Tensor, "B M T d"]:
        """Tokens of all views to tokens."""
        views, dim = x.shape[1], x.shape[-1]
        table = (modulation + self.offset).to(x.dtype)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = table[..., None, :].unbind(2)
        tokens = modulate(F.layer_norm(x, (dim,)), shift_a, scale_a)
        grouped = "B (M T) d" if self.all_views else "(B M) T d"
        mixed = self.attention(rearrange(tokens, f"B M T d -> {grouped}"))
        x = torch.addcmul(x, gate_a, rearrange(mixed, f"{grouped} -> B M T d", M=views))
        if self.cross is not None and context is not None:
            flat = rearrange(x, "B M T d -> B (M T) d")
            x = x + rearrange(self.cross(self.norm_cross(flat), context), "B (M T) d -> B M T d", M=views)
        return torch.addcmul(x, gate_m, self.mlp(modulate(F.layer_norm(x, (dim,)), shift_m, scale_m)))


class MultiViewTransformer(nn.Module):
    """Denoiser over any number of views of any latent size (see `latent3d.denoisers.base.Denoiser`).

    With poses, views are told apart by their rays alone, so that permuting the input frames permutes the output.
    Without poses (the image-to-video prior), a code of the frame number takes the rays' place.

    Args:
        config: sizes.

    Raises:
        ValueError: if ``dim`` is no multiple of ``heads``.
    """

    def __init__(self, config: MultiViewTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_channels = config.latent_channels
        self.feature_channels = width = config.feature_channels
        patch, dim = config.patch_size, config.dim
        cond = dim
        self.noise_embedding = NoiseEmbedding(cond, hidden=256 if dim > 64 else dim)
        self.role_embedding = nn.Embedding(2, cond)
        self.modulation = zero_init(nn.Linear(cond, 6 * dim))

        self.stem = nn.Conv2d(2 * config.latent_channels + 1, width, 3, padding=1)
        self.stem_rays = nn.Conv2d(6 * config.downscale**2, width, 1)
        self.condition_in = (
            zero_init(nn.Conv2d(config.condition_channels, width, 1)) if config.condition_channels else None
        )
        self.stem_blocks = nn.ModuleList(ResBlock2d(width, cond_dim=cond) for _ in range(config.stem_blocks))
        self.patchify = nn.Linear(width * patch**2, dim)
        self.position = nn.Linear(fourier_width(2, POSITION_OCTAVES), dim)
        self.rays = nn.Linear(fourier_width(6, RAY_OCTAVES), dim)
        self.frame = nn.Linear(dim, dim)
        self.null_context = None
        if config.context_dim is not None:
            self.null_context = nn.Parameter(torch.zeros(1, 1, config.context_dim))

        last = config.depth - 1
        self.blocks = nn.ModuleList(
            TransformerBlock(config, all_views=i == last or (last - i) % config.global_every == 0)
            for i in range(config.depth)
        )
        self.norm_tokens = nn.LayerNorm(dim)
        self.unpatchify = nn.Linear(dim, width * patch**2)
        self.head_blocks = nn.ModuleList(ResBlock2d(width, cond_dim=cond) for _ in range(config.head_blocks))
        self.norm_out = nn.GroupNorm(group_count(width), width)
        self.conv_out = zero_init(nn.Conv2d(width, config.latent_channels, 3, padding=1))

    def forward(
        self,
        noisy: Float[Tensor, "B M C h w"],
        reference: Float[Tensor, "B M C h w"],
        c_noise: Float[Tensor, "B M"],
        plucker: Float[Tensor, "B M 6 H W"] | CachedRays | None,
        context: Float[Tensor, "B L D"] | None = None,
        *,
        condition: Float[Tensor, "B M E h w"] | None = None,
    ) -> Float[Tensor, "B M F h w"]:
        """Features (B, M, feature_channels, h, w); arguments as in `Denoiser`.

        Raises:
            ValueError: for shapes that do not fit, or a context given to a network without one.
        """
        check_inputs(noisy, reference, c_noise, plucker, self.latent_channels, self.config.downscale)
        context = self._context(context, noisy.shape[0])
        role = reference_mask(reference)
        embedding = self.noise_embedding(c_noise) + self.role_embedding(role.flatten(1).long())
        flat_embedding = embedding.flatten(0, 1)

        planes = torch.cat([noisy, reference, role.expand_as(noisy[:, :, :1])], 2)
        x = self.stem(planes.flatten(0, 1))
        if isinstance(plucker, Tensor):
            plucker = self.precompute(plucker)
        if plucker is not None:
            x = x + plucker.features[0].flatten(0, 1)
        x = merge_condition(x, self.condition_in, condition)
        for block in self.stem_blocks:
            x = recomputed(block, x, flat_embedding)

        tokens, grid = self._tokens(x, noisy.shape[1])
        if plucker is not None:
            tokens = tokens + plucker.features[1]
        else:
            number = torch.arange(noisy.shape[1], device=noisy.device)
            frame = sinusoidal_embedding(number, self.config.dim, max_period=100.0).to(self.frame.weight.dtype)
            tokens = tokens + (self._places(grid) + self.frame(frame)[:, None])
        modulation = self.modulation(F.silu(embedding)).unflatten(-1, (6, -1))
        for block in self.blocks:
            tokens = recomputed(block, tokens, modulation, context, always=self.config.checkpointing)

        x = x + self._planes(self.unpatchify(self.norm_tokens(tokens)), grid, x.shape[-2:])
        for block in self.head_blocks:
            x = recomputed(block, x, flat_embedding)
        return x.unflatten(0, noisy.shape[:2])

    def velocity(self, features: Float[Tensor, "B M F h w"]) -> Float[Tensor, "B M C h w"]:
        """v-prediction from features: GroupNorm, SiLU, zero-initialised convolution."""
        return self.conv_out(F.silu(self.norm_out(features.flatten(0, 1)))).unflatten(0, features.shape[:2])

    def precompute(self, plucker: Float[Tensor, "B M 6 H W"]) -> CachedRays:
        """What the stem sees of the rays, and the tokens' codes of place and ray, to be given in place of the maps."""
        maps = F.pixel_unshuffle(plucker.flatten(0, 1), self.config.downscale)
        rows, columns = (-(-size // self.config.patch_size) for size in maps.shape[-2:])
        cell = self.config.patch_size * self.config.downscale
        rays = F.avg_pool2d(plucker.flatten(0, 1), cell, ceil_mode=True, count_include_pad=False)
        rays = rearrange(rays, "(B M) c y x -> B M (y x) c", M=plucker.shape[1])
        rays = self.rays(fourier_embedding(rays, RAY_OCTAVES).to(self.rays.weight.dtype))
        codes = self._places((rows, columns)) + rays
        return CachedRays((self.stem_rays(maps).unflatten(0, plucker.shape[:2]), codes))

    def _context(self, context: Tensor | None, batch: int) -> Tensor | None:
        if self.null_context is None:
            if context is not None:
                raise ValueError("this network was built without a context; set context_dim or pass context=None")
            return None
        return self.null_context.expand(batch, -1, -1) if context is None else context

    def _tokens(self, x: Tensor, views: int) -> tuple[Tensor, tuple[int, int]]:
        """Feature maps (B M, S, h, w) -> tokens (B, M, T, d) and their grid; odd sizes are padded at the far sides."""
        patch = self.config.patch_size
        x = F.pad(x, (0, -x.shape[-1] % patch, 0, -x.shape[-2] % patch))
        grid = (x.shape[-2] // patch, x.shape[-1] // patch)
        patches = rearrange(x, "(B M) S (y p) (x q) -> B M (y x) (S p q)", M=views, p=patch, q=patch)
        return self.patchify(patches), grid

    def _planes(self, tokens: Tensor, grid: tuple[int, int], size: torch.Size) -> Tensor:
        """Inverse of the patches: (B, M, T, S p p) -> (B M, S, h, w)."""
        patch = self.config.patch_size
        planes = rearrange(tokens, "B M (y x) (S p q) -> (B M) S (y p) (x q)", y=grid[0], x=grid[1], p=patch, q=patch)
        return planes[..., : size[0], : size[1]]

    def _places(self, grid: tuple[int, int]) -> Float[Tensor, "T d"]:
        """Codes of where tokens are in their image."""
        weight = self.position.weight
        rows, columns = (
            torch.linspace(-1 + 1 / n, 1 - 1 / n, n, device=weight.device, dtype=torch.float32) for n in grid
        )
        place = torch.cartesian_prod(rows, columns)
        return self.position(fourier_embedding(place, POSITION_OCTAVES).to(weight.dtype))
