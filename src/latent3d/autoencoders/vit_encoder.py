"""The first encoder of LN3Diff (ShapeNet and FFHQ): a DINOv2 vision transformer to the moments of a tri-plane latent.

Long skips join the two halves of the transformer (U-ViT, Bao et al. 2023); they begin at zero, so that the network
starts out as the DINOv2 whose weights it may be given (`pretrained.start_from_dinov2`). The mean over the views gives
the moments. LN3Diff (arXiv 2403.12019), section 3.1 and the released code.

Letters: b = objects, v = views, n = patches, d = width, c = latent channels per plane, h/w = latent rows and columns,
H/W = image rows and columns, S = side of the pictures as the transformer sees them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.autoencoders.multiview_encoder import TriPlanePosterior, soft_clamp
from latent3d.config import Config
from latent3d.memory import recomputed
from latent3d.nn.layers import zero_init
from latent3d.nn.pretrained import IMAGENET_MEAN, IMAGENET_STD
from latent3d.representations.views import Views


@dataclass(frozen=True, kw_only=True)
class ViTEncoderConfig(Config):
    """The defaults are the paper's: DINOv2's ViT-S/14 on pictures of 224x224, to 3 planes of 4x32x32.

    Attributes:
        latent_channels: c, per plane.
        image_size: S; pictures of another size are resized to it.
        patch_size: pixels per patch along one axis. cells: latent cells per patch along one axis.
        width, depth, heads, mlp_ratio: of the transformer.
        skips: whether the blocks of the second half also read what the first half gave, the last block the first.
        checkpointing: recompute activations in the backward pass to save memory.
    """

    latent_channels: int = 4
    image_size: int = 224
    patch_size: int = 14
    cells: int = 2
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: int = 4
    skips: bool = True
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(f"the image size {self.image_size} must be a multiple of the patch {self.patch_size}")

    @classmethod
    def tiny(cls, latent_channels: int = 4) -> ViTEncoderConfig:
        """For tests: 3 planes of 8x8."""
        return cls(latent_channels=latent_channels, image_size=32, patch_size=8, width=16, depth=3, heads=2)

    def latent_size(self, image_size: int) -> int:
        """h = w; the pictures' size does not matter, as they are resized."""
        return self.image_size // self.patch_size * self.cells

    def build(self) -> ViTEncoder:
        """The module, with random weights."""
        return ViTEncoder(self)


class ViTEncoder(nn.Module):
    """Views of an object, any number of them, to a `TriPlanePosterior`; it looks at colours only."""

    def __init__(self, config: ViTEncoderConfig) -> None:
        super().__init__()
        from transformers import Dinov2Config, Dinov2Model  # heavy: only when it is built

        self.config = config
        network: Any = Dinov2Model(
            Dinov2Config(
                hidden_size=config.width,
                num_hidden_layers=config.depth,
                num_attention_heads=config.heads,
                mlp_ratio=config.mlp_ratio,
                image_size=config.image_size,
                patch_size=config.patch_size,
                use_mask_token=False,
            )
        )
        self.network = network
        later = config.depth // 2 if config.skips else 0
        self.skips = nn.ModuleList(zero_init(nn.Linear(2 * config.width, config.width)) for _ in range(later))
        self.to_moments = nn.Linear(config.width, config.cells**2 * 3 * 2 * config.latent_channels)

    def forward(self, views: Views) -> TriPlanePosterior:
        """Views (b, v) with images (b, v, 3, H, W) over white -> posterior of (b, 3, c, h, w).

        The latent is a mean over views, so their number and order are free.
        """
        b, v = views.shape
        tokens = self.tokens(views.images.flatten(0, 1)).unflatten(0, (b, v))
        # the mean of what a linear layer gives is what it gives for the mean
        moments = self.to_moments(tokens.mean(1)).float()
        mean, log_variance = rearrange(
            moments, "b (y x) (i j p m c) -> m b p c (y i) (x j)",
            y=self.config.image_size // self.config.patch_size, i=self.config.cells, j=self.config.cells, p=3, m=2,
        ).unbind(0)  # fmt: skip
        return TriPlanePosterior(mean, soft_clamp(log_variance))

    def tokens(self, images: Float[Tensor, "m 3 H W"]) -> Float[Tensor, "m n d"]:
        """Normalised patch tokens of pictures in [0, 1]."""
        size = (self.config.image_size,) * 2
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        mean, std = (images.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        x = self.network.embeddings((images - mean) / std)
        earlier: list[Tensor] = []
        first = self.config.depth - len(self.skips)
        for number, layer in enumerate(self.network.encoder.layer):
            if number >= first:
                x = x + self.skips[number - first](torch.cat([x, earlier.pop()], -1))
            x = recomputed(layer, x, always=self.config.checkpointing)
            if number < len(self.skips):
                earlier.append(x)
        return self.network.layernorm(x)[:, 1:]
