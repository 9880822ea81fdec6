"""The earlier denoiser of LN3Diff++ (3.4, ShapeNet and FFHQ): an image U-Net on the three planes stacked as channels.

Letters: B = batch, C = latent channels, h, w = size of a plane, L, E = number and width of context tokens, P = width of
the pooled vector.

It is called as `PlaneDiT` is. Its context is not worth a cache: at the published size one token, read at 4x4 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.conditioning.condition import NO_LABEL, Condition
from latent3d.config import Config
from latent3d.memory import is_lean
from latent3d.nn.layers import group_count, zero_init

CROSS_DOWN, PLAIN_DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"
MIXING_START = -3.0
"""Logit of the share of the network in a mixed prediction before training."""


def stack_planes(latents: Float[Tensor, "*b 3 C h w"]) -> Float[Tensor, "*b 3*C h w"]:
    """Planes as channels, in the order of the released latents: channel 3 c + plane."""
    return rearrange(latents, "... k C h w -> ... (C k) h w")


def unstack_planes(stack: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b 3 c//3 h w"]:
    """Inverse of `stack_planes`.

    Raises:
        ValueError: for a number of channels that is no multiple of 3.
    """
    if stack.shape[-3] % 3:
        raise ValueError(f"a stack of three planes has a multiple of 3 channels, found {stack.shape[-3]}")
    return rearrange(stack, "... (C k) h w -> ... k C h w", k=3)


@dataclass(frozen=True, kw_only=True)
class LatentUNetConfig(Config):
    """Sizes of a `LatentUNet`; what a width of None or a number of 0 names is not built.

    Attributes:
        latent_channels: C of each plane.
        channels: width of each level, multiples of 32, finest first.
        attention: which levels have transformers (self- and cross-attention).
        layers: residual blocks per level on the way down (one more on the way up).
        heads: attention heads.
        context_dim: E, width of the context tokens.
        pooled_dim: P, width of the vector added to the time embedding.
        classes: number of classes.
        mixed: scale the prediction, which must be v, by a learned share per channel (see `LatentUNet`).
        checkpointing: recompute activations in the backward pass to save memory.
    """

    latent_channels: int = 4
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    attention: tuple[bool, ...] = (False, False, False, True)
    layers: int = 2
    heads: int = 8
    context_dim: int = 768
    pooled_dim: int | None = None
    classes: int = 0
    mixed: bool = False
    checkpointing: bool = False

    @classmethod
    def large(cls) -> LatentUNetConfig:
        """The released ShapeNet and FFHQ model: one CLIP ViT-L/14 token, transformers at the coarsest level only."""
        return cls(mixed=True, checkpointing=True)

    @classmethod
    def small(cls, latent_channels: int = 8, context_dim: int = 256, classes: int = 0) -> LatentUNetConfig:
        """About 8 M parameters, made for latents of 3x16x16 on two CPU cores, beside `PlaneDiTConfig.small`."""
        return cls(
            latent_channels=latent_channels,
            channels=(64, 128, 128),
            attention=(False, True, True),
            layers=1,
            heads=4,
            context_dim=context_dim,
            pooled_dim=2 * context_dim,
            classes=classes,
        )

    @classmethod
    def tiny(cls, latent_channels: int = 4) -> LatentUNetConfig:
        """For tests."""
        return cls(
            latent_channels=latent_channels,
            channels=(32, 32),
            attention=(False, True),
            layers=1,
            heads=2,
            context_dim=16,
            pooled_dim=32,
            classes=3,
            mixed=True,
        )

    def build(self) -> LatentUNet:
        """The network with random weights.

        Raises:
            ValueError: if ``channels`` and ``attention`` have different lengths.
        """
        return LatentUNet(self)


class LatentUNet(nn.Module):
    """diffusers' conditional U-Net on the stacked planes; the last convolution starts at zero.

    With ``mixed``, the network's v is scaled by a share a per channel and plane whose logit starts at -3. That is mixed
    score prediction (Vahdat et al. 2021, LSGM, eq. 8), eps = s (1 - a) x + a eps', in terms of v: with
    eps' = s x + alpha v' it becomes s x + alpha a v', so v = a v' (`diffusion.parameterization.mix_noise`).

    Args:
        config: sizes.
    """

    def __init__(self, config: LatentUNetConfig) -> None:
        super().__init__()
        from diffusers import UNet2DConditionModel  # heavy: only when it is built

        if len(config.channels) != len(config.attention):
            levels = len(config.channels), len(config.attention)
            raise ValueError(f"'channels' has {levels[0]} levels and 'attention' {levels[1]}; give one entry per level")
        self.config = config
        stacked = 3 * config.latent_channels
        network: Any = UNet2DConditionModel(
            in_channels=stacked,
            out_channels=stacked,
            block_out_channels=config.channels,
            layers_per_block=config.layers,
            down_block_types=tuple(CROSS_DOWN if has else PLAIN_DOWN for has in config.attention),
            up_block_types=tuple(CROSS_UP if has else PLAIN_UP for has in reversed(config.attention)),
            attention_head_dim=config.heads,  # the number of heads: diffusers keeps an old misnomer
            cross_attention_dim=config.context_dim,
            # a group of one channel would take the time embedding away again, which is added before the norm
            norm_num_groups=group_count(min(config.channels)),
            time_cond_proj_dim=config.pooled_dim,
            num_class_embeds=config.classes + 1 if config.classes else None,  # the last says nothing
        )
        zero_init(network.conv_out)
        self.network = network
        self.mixing = None
        if config.mixed:
            self.mixing = nn.Parameter(torch.full((3, config.latent_channels, 1, 1), MIXING_START))

    def forward(
        self,
        latents: Float[Tensor, "B 3 C h w"],
        time: Float[Tensor, "*level"],
        condition: Condition | None = None,
    ) -> Float[Tensor, "B 3 C h w"]:
        """Prediction of the latents' shape.

        Args:
            latents: noisy latents; h and w multiples of 2 to the number of levels less one.
            time: level in [0, 1], 0 = data; one for all, (), or one per object, (B,).
            condition: what is known; None for nothing.

        Raises:
            ValueError: for latents or a condition that this network was not built for.
        """
        self._check(latents, time)
        condition = self.precompute(condition or Condition())
        batch, weight = len(latents), self.network.conv_in.weight
        labels = None
        if self.config.classes:
            labels = _or(condition.labels, torch.full((batch,), NO_LABEL, device=weight.device))
            labels = torch.where(labels == NO_LABEL, self.config.classes, labels).expand(batch)
        pooled = None
        if self.config.pooled_dim is not None:
            pooled = _or(condition.pooled, weight.new_zeros(batch, self.config.pooled_dim)).to(weight.dtype)
        tokens = _or(condition.tokens, weight.new_zeros(batch, 1, self.config.context_dim)).to(weight.dtype)
        self._compute_anew(self.config.checkpointing or is_lean())
        stack = self.network(
            stack_planes(latents).to(weight.dtype),
            1000.0 * time.expand(batch).float(),
            encoder_hidden_states=tokens.expand(batch, -1, -1),
            class_labels=labels,
            timestep_cond=pooled if pooled is None else pooled.expand(batch, -1),
        ).sample
        prediction = unstack_planes(stack).to(latents.dtype)
        return prediction if self.mixing is None else prediction * self.mixing.sigmoid().to(latents.dtype)

    def _compute_anew(self, on: bool) -> None:
        """Whether the backward pass computes activations anew, which is a setting of the network's blocks."""
        if self.network.is_gradient_checkpointing != on:
            (self.network.enable_gradient_checkpointing if on else self.network.disable_gradient_checkpointing)()

    def precompute(self, condition: Condition) -> Condition:
        """The condition itself, after a look at its widths; here for the same use as `PlaneDiT.precompute`.

        Raises:
            ValueError: for parts that this network was not built for, or of another width.
        """
        widths = {"tokens": self.config.context_dim, "appended": None, "pooled": self.config.pooled_dim}
        for name, width in widths.items():
            part = getattr(condition, name)
            if part is not None and width is None:
                raise ValueError(f"this network was built without '{name}' in its condition; leave that part out")
            if part is not None and part.shape[-1] != width:
                raise ValueError(f"'{name}' of the condition must have width {width}, found {part.shape[-1]}")
        labels = condition.labels
        if labels is not None and bool(((labels < NO_LABEL) | (labels >= self.config.classes)).any()):
            known = f"0..{self.config.classes - 1} (or be -1)" if self.config.classes else "no class: it has none"
            raise ValueError(f"labels of this network must lie in {known}, found {labels.tolist()}")
        return condition

    def _check(self, latents: Tensor, time: Tensor) -> None:
        channels, factor = self.config.latent_channels, 2 ** (len(self.config.channels) - 1)
        if latents.ndim != 5 or latents.shape[1:3] != (3, channels):
            raise ValueError(f"latents must have shape (batch, 3, {channels}, h, w), got {tuple(latents.shape)}")
        if latents.shape[-1] % factor or latents.shape[-2] % factor:
            raise ValueError(f"the size of the planes must be a multiple of {factor}, got {tuple(latents.shape[-2:])}")
        if time.shape not in ((), (len(latents),)):
            raise ValueError(f"give one time, or one per object ({len(latents)}), got shape {tuple(time.shape)}")


def _or(part: Tensor | None, other: Tensor) -> Tensor:
    return other if part is None else part
