"""A diffusion transformer on tri-plane latents (LN3Diff++ 3.4; DiT, Peebles and Xie 2023; PixArt-alpha; SD3).

Letters: B = batch, C = latent channels, h, w = size of a plane, p = patch, n = 3 (h/p) (w/p) tokens, D = token width,
L, E = number and width of context tokens, M, F = of appended tokens, P = width of the pooled vector.

                              time ──> embedding ──(+)──> scale, shift, gate of every branch
                                                    │
                       pooled, labels ──────────────┘
    latents (B 3 C h w) ──patches, one layer for all planes──> n tokens + positions
                          ──> blocks [ self-attention over n (+ M appended) tokens, cross-attention, MLP ] ──> latents
What does not depend on time is computed once per sample by `PlaneDiT.precompute`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.conditioning.condition import NO_LABEL, Condition
from latent3d.config import Config
from latent3d.denoisers.plane_block import PlaneBlock, rms
from latent3d.denoisers.plane_positions import plane_positions
from latent3d.memory import recomputed
from latent3d.nn.attention import KeysValues, modulate
from latent3d.nn.layers import NoiseEmbedding, RMSNorm, zero_init


@dataclass(frozen=True, kw_only=True)
class PlaneDiTConfig(Config):
    """Sizes of a `PlaneDiT`; what a width of None or a number of 0 names is not built.

    Attributes:
        latent_channels: C.
        patch: latent pixels per token side.
        dim: token width.
        depth: transformer blocks.
        heads: attention heads.
        mlp_ratio: hidden over token width in the feed-forward layers.
        modulation: "single" shares one layer from the time embedding among all blocks, each with a learned offset
            (adaLN-single of PixArt-alpha); "block" has one such layer per block (adaLN-Zero of DiT).
        context_dim: E, width of the tokens that are read by cross-attention.
        context_layer: what the context passes once: "norm" (RMS) for picture patches, "mlp" (two layers) for words.
        cross_every: every n-th block has cross-attention, beginning with the first.
        appended_dim, appended_tokens: F and M of the tokens beside the latent's in self-attention.
        pooled_dim: P, width of the vector added to the time embedding.
        classes: number of classes.
        checkpointing: recompute activations in the backward pass to save memory.
    """

    latent_channels: int = 4
    patch: int = 2
    dim: int = 1024
    depth: int = 24
    heads: int = 16
    mlp_ratio: float = 4.0
    modulation: Literal["single", "block"] = "single"
    context_dim: int | None = None
    context_layer: Literal["norm", "mlp"] = "norm"
    cross_every: int = 1
    appended_dim: int | None = None
    appended_tokens: int = 256
    pooled_dim: int | None = None
    classes: int = 0
    checkpointing: bool = False

    @classmethod
    def large_image(cls) -> PlaneDiTConfig:
        """LN3Diff++'s picture model: CLIP ViT-L/14 patches by cross-attention, DINOv2 ViT-L/14 patches appended."""
        return cls(context_dim=1024, appended_dim=1024, pooled_dim=768, checkpointing=True)

    @classmethod
    def large_text(cls) -> PlaneDiTConfig:
        """LN3Diff++'s text model: CLIP ViT-L/14 words by cross-attention, adaLN-Zero."""
        return cls(modulation="block", context_dim=768, context_layer="mlp", checkpointing=True)

    @classmethod
    def small(cls, latent_channels: int = 8, context_dim: int = 256, classes: int = 0) -> PlaneDiTConfig:
        """About 8 M parameters, made for latents of 3x16x16 on two CPU cores."""
        return cls(
            latent_channels=latent_channels,
            dim=256,
            depth=8,
            heads=8,
            context_dim=context_dim,
            cross_every=2,
            pooled_dim=2 * context_dim,
            classes=classes,
        )

    @classmethod
    def tiny(cls, latent_channels: int = 4) -> PlaneDiTConfig:
        """For tests: every kind of condition."""
        return cls(
            latent_channels=latent_channels,
            dim=32,
            depth=2,
            heads=2,
            context_dim=16,
            appended_dim=24,
            appended_tokens=5,
            pooled_dim=32,
            classes=3,
        )

    def build(self) -> PlaneDiT:
        """The network with random weights."""
        return PlaneDiT(self)


@dataclass(frozen=True)
class CachedCondition:
    """What a `PlaneDiT` needs of a condition at every time: computed once, used in every step of a sampler.

    Attributes:
        vector: what is added to the time embedding, (B, D) or (1, D).
        context: keys and values for the cross-attention of each block; None for a block without.
        appended: keys and values beside the latent's own in each block; None for a network without.
    """

    vector: Float[Tensor, "b d"]
    context: tuple[KeysValues | None, ...]
    appended: tuple[KeysValues | None, ...]

    def __getitem__(self, index: slice) -> CachedCondition:
        """Some of the objects; what stands for all of them stays."""
        if len(self.vector) == 1:
            return self

        chosen = (
            tuple(None if pair is None else (pair[0][index], pair[1][index]) for pair in pairs)
            for pairs in (self.context, self.appended)
        )
        return CachedCondition(self.vector[index], *chosen)


class PlaneDiT(nn.Module):
    """Velocity (or noise, or v: whatever it is trained to predict) of noisy tri-plane latents.

    Args:
        config: sizes.

    Raises:
        ValueError: if ``dim`` is no multiple of ``heads``.
    """

    def __init__(self, config: PlaneDiTConfig) -> None:
        super().__init__()
        self.config = config
        dim, patch = config.dim, config.patch
        self.patches = nn.Conv2d(config.latent_channels, dim, patch, stride=patch)
        self.time_embedding = NoiseEmbedding(dim, hidden=min(256, dim), scale=1000.0)
        self.pooled = None
        if config.pooled_dim is not None:
            self.pooled = nn.Sequential(nn.LayerNorm(config.pooled_dim), zero_init(nn.Linear(config.pooled_dim, dim)))
        # the last row is the class that says nothing
        self.classes = nn.Embedding(config.classes + 1, dim) if config.classes else None
        if self.classes is not None:
            nn.init.normal_(self.classes.weight, std=0.02)
        self.context = _context_layer(config)
        self.appended = None
        if config.appended_dim is not None:
            self.appended = nn.Sequential(nn.Linear(config.appended_dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.modulation = zero_init(nn.Linear(dim, 6 * dim)) if config.modulation == "single" else None
        self.blocks = nn.ModuleList(
            PlaneBlock(config, cross=index % config.cross_every == 0) for index in range(config.depth)
        )
        self.table_out = nn.Parameter(torch.zeros(2, dim)) if config.modulation == "single" else None
        self.modulation_out = zero_init(nn.Linear(dim, 2 * dim)) if config.modulation == "block" else None
        self.out = zero_init(nn.Linear(dim, config.latent_channels * patch**2))

    def forward(
        self,
        latents: Float[Tensor, "B 3 C h w"],
        time: Float[Tensor, "*level"],
        condition: Condition | CachedCondition | None = None,
    ) -> Float[Tensor, "B 3 C h w"]:
        """Prediction of the latents' shape.

        Args:
            latents: noisy latents.
            time: level in [0, 1], 0 = data; one for all, (), or one per object, (B,).
            condition: what is known, as it is or as `precompute` made it (of batch 1 for any number of objects); None
                for nothing.

        Raises:
            ValueError: for latents or a condition that this network was not built for.
        """
        self._check(latents, time)
        cached = condition if isinstance(condition, CachedCondition) else self.precompute(condition or Condition())
        batch, grid = len(latents), tuple(size // self.config.patch for size in latents.shape[-2:])
        x = self.patches(latents.to(self.patches.weight.dtype).flatten(0, 1))
        x = rearrange(x, "(B k) d y x -> B (k y x) d", k=3)
        x = x + plane_positions(grid[0], grid[1], self.config.dim, x.device)

        vector = self.time_embedding(time.expand(batch)) + cached.vector
        modulation = vector if self.modulation is None else self.modulation(F.silu(vector))
        for block, context, appended in zip(self.blocks, cached.context, cached.appended, strict=True):
            inputs = (x, modulation, _for_batch(context, batch), _for_batch(appended, batch))
            x = recomputed(block, *inputs, always=self.config.checkpointing)

        shift, scale = self._last(vector)
        x = self.out(modulate(rms(x), shift[:, None], scale[:, None]).to(self.patches.weight.dtype))
        p = self.config.patch
        return rearrange(x, "B (k y x) (C p q) -> B k C (y p) (x q)", k=3, y=grid[0], p=p, q=p).to(latents.dtype)

    def precompute(self, condition: Condition) -> CachedCondition:
        """Everything about a condition that does not depend on time.

        Of the appended tokens only keys and values are computed: they ask nothing, so they need neither queries nor an
        output projection, and they are the same at every time.

        Raises:
            ValueError: for parts that this network was not built for, or of another width.
        """
        batch, like = condition.batch or 1, self.patches.weight
        tokens = self._part("tokens", condition.tokens, self.config.context_dim, (batch, 1), like)
        appended = self._part(
            "appended", condition.appended, self.config.appended_dim, (batch, self.config.appended_tokens), like
        )
        pooled = self._part("pooled", condition.pooled, self.config.pooled_dim, (batch,), like)
        vector = like.new_zeros(batch, self.config.dim)
        if self.pooled is not None and pooled is not None:
            vector = vector + self.pooled(pooled)
        vector = vector + self._class(condition.labels, batch)
        if self.context is not None:
            tokens = self.context(tokens)
        if self.appended is not None:
            appended = self.appended(appended)
        pairs = [block.keys_values(tokens, appended) for block in cast(Iterable[PlaneBlock], self.blocks)]
        return CachedCondition(vector, *map(tuple, zip(*pairs, strict=True)))

    def _class(self, labels: Tensor | None, batch: int) -> Tensor:
        if self.classes is None:
            if labels is not None and bool((labels != NO_LABEL).any()):
                raise ValueError("this network was built without classes; set classes or leave the labels out")
            return self.patches.weight.new_zeros(batch, self.config.dim)
        if labels is None:
            return self.classes.weight[-1:].expand(batch, -1)
        if bool((labels >= self.config.classes).any()) or bool((labels < NO_LABEL).any()):
            raise ValueError(f"labels must lie in 0..{self.config.classes - 1} (or be -1), found {labels.tolist()}")
        return self.classes(torch.where(labels == NO_LABEL, self.config.classes, labels))

    @staticmethod
    def _part(name: str, part: Tensor | None, width: int | None, shape: tuple[int, ...], like: Tensor) -> Tensor | None:
        """A part of a condition in the network's precision: zeros where it is absent, None where it is not read."""
        if width is None:
            if part is not None:
                raise ValueError(f"this network was built without '{name}' in its condition; leave that part out")
            return None
        if part is None:
            return like.new_zeros(*shape, width)
        if part.shape[-1] != width:
            raise ValueError(f"'{name}' of the condition must have width {width}, found {part.shape[-1]}")
        return part.to(like.dtype)

    def _last(self, vector: Tensor) -> tuple[Tensor, ...]:
        """Shift and scale (B, d) before the last layer."""
        if self.modulation_out is not None:
            return self.modulation_out(F.silu(vector)).chunk(2, -1)
        assert self.table_out is not None
        return (self.table_out + vector[:, None]).unbind(1)

    def _check(self, latents: Tensor, time: Tensor) -> None:
        channels, patch = self.config.latent_channels, self.config.patch
        if latents.ndim != 5 or latents.shape[1:3] != (3, channels):
            raise ValueError(f"latents must have shape (batch, 3, {channels}, h, w), got {tuple(latents.shape)}")
        if latents.shape[-1] % patch or latents.shape[-2] % patch:
            raise ValueError(f"the size of the planes must be a multiple of {patch}, got {tuple(latents.shape[-2:])}")
        if time.shape not in ((), (len(latents),)):
            raise ValueError(f"give one time, or one per object ({len(latents)}), got shape {tuple(time.shape)}")


def _context_layer(config: PlaneDiTConfig) -> nn.Module | None:
    if config.context_dim is None:
        return None
    if config.context_layer == "norm":
        return RMSNorm(config.context_dim)
    return nn.Sequential(nn.Linear(config.context_dim, config.dim), nn.GELU(), nn.Linear(config.dim, config.dim))


def _for_batch(pair: KeysValues | None, batch: int) -> tuple[Tensor, Tensor] | None:
    """Keys and values of one object stand for all objects of a batch."""
    if pair is None or len(pair[0]) == batch:
        return pair
    keys, values = (part.expand(batch, *part.shape[1:]) for part in pair)
    return keys, values
