"""Image embedding as a context for the video prior: CLIP's vision tower, as Stable Video Diffusion uses it; frozen.

Letters: n = images, H, W = image size, D = width of the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.config import Config

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation per colour channel that CLIP was trained with."""


@dataclass(frozen=True, kw_only=True)
class ImageEncoderConfig(Config):
    """Sizes of a CLIP vision tower; the defaults are ViT-H/14, which Stable Video Diffusion reads.

    Attributes:
        width, hidden, layers, heads: of the transformer; ``hidden`` is the feed-forward width.
        image_size, patch_size: pixels per side.
        embedding: D, width of the projected embedding.
        act: activation of the feed-forward layers.
    """

    width: int = 1280
    hidden: int = 5120
    layers: int = 32
    heads: int = 16
    image_size: int = 224
    patch_size: int = 14
    embedding: int = 1024
    act: str = "gelu"

    @classmethod
    def tiny(cls, embedding: int = 16) -> ImageEncoderConfig:
        """For tests."""
        return cls(width=16, hidden=32, layers=1, heads=2, image_size=28, embedding=embedding)

    @classmethod
    def from_transformers(cls, config: dict[str, Any]) -> ImageEncoderConfig:
        """From the ``config.json`` of a ``CLIPVisionModelWithProjection``; what it leaves out has CLIP's defaults.

        Raises:
            ValueError: for another kind of model.
        """
        kind = (config.get("architectures") or ["CLIPVisionModelWithProjection"])[0]
        if kind != "CLIPVisionModelWithProjection":
            raise ValueError(f"config.json describes a '{kind}'; the image encoder is a CLIPVisionModelWithProjection")
        return cls(
            width=config.get("hidden_size", 768),
            hidden=config.get("intermediate_size", 3072),
            layers=config.get("num_hidden_layers", 12),
            heads=config.get("num_attention_heads", 12),
            image_size=config.get("image_size", 224),
            patch_size=config.get("patch_size", 32),
            embedding=config.get("projection_dim", 512),
            act=config.get("hidden_act", "quick_gelu"),
        )

    def transformers_arguments(self) -> dict[str, Any]:
        """Arguments of transformers' ``CLIPVisionConfig``."""
        return {
            "hidden_size": self.width,
            "intermediate_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "projection_dim": self.embedding,
            "hidden_act": self.act,
        }

    def build(self) -> ImageEncoder:
        """The encoder with random weights."""
        return ImageEncoder(self)


class ImageEncoder(nn.Module):
    """Images to one context token each. The weights are never trained."""

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection  # heavy: only when it is built

        self.config = config
        self.network = CLIPVisionModelWithProjection(CLIPVisionConfig(**config.transformers_arguments()))
        self.network.requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n 1 D"]:
        """Images in [0, 1] to their projected class token, not normalised: the single context token of SVD.

        The whole picture is squeezed to the encoder's square, as in SVD. Its own resizing (a blur, then cubic
        interpolation between corner pixels) differs from PyTorch's antialiased cubic one by less than a pixel.
        """
        return self.states(images).image_embeds[:, None]

    def states(self, images: Float[Tensor, "n 3 H W"]) -> Any:
        """transformers' output: ``image_embeds`` (n, D) and ``last_hidden_state`` (n, 1 + patches, width)."""
        size = self.config.image_size
        small = F.interpolate(images.float(), (size, size), mode="bicubic", antialias=True, align_corners=False)
        mean, std = (small.new_tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
        return self.network((small.clamp(0, 1) - mean) / std)
