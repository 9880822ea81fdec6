"""Feature maps for comparing places instead of whole pictures: uint8 images (N, 3, H, W) -> (N, d, h, w).

A map covers its picture from edge to edge, at any resolution of its own; whoever reads it interpolates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from latent3d.evaluation.features import file_sha256, model_folder, random_conv_filters

DINO_SIDE = 224
DINO_MEAN, DINO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DenseExtractor:
    """A network that makes a feature map of a picture.

    Attributes:
        name: enters the score's name.
        sha256: of the weights, 64 hexadecimal digits.
        resize_rule: how pictures reach the network's input size, in words.
        function: images (N, 3, H, W), uint8, to maps (N, d, h, w).
    """

    name: str
    sha256: str
    resize_rule: str
    function: Callable[[Tensor], Tensor]

    def __call__(self, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n d a b"]:
        """Feature maps, in float32 on the CPU."""
        with torch.inference_mode():
            return torch.cat([self.function(image[None]).float().cpu() for image in images])

    def to_dict(self) -> dict[str, Any]:
        """What a record says of it."""
        return {"name": self.name, "sha256": self.sha256, "resize_rule": self.resize_rule}


def dense_random_conv() -> DenseExtractor:
    """The filters of `features.random_conv` before their rectifiers, all levels brought to the picture's size: d = 64.

    Filters above the first level have their mean removed: their inputs are positive, and what all pictures share would
    make all of them alike. Input (x - 127.5) / 127.5, of at least 16 x 16 pixels. The maps tell colours, edges and
    textures apart, not meanings, and depend on exposure.
    """
    weights, sha256 = random_conv_filters()
    weights = [weights[0], *(weight - weight.mean((1, 2, 3), keepdim=True) for weight in weights[1:])]

    def function(images: Tensor) -> Tensor:
        size = images.shape[-2:]
        if min(size) < 16:
            raise ValueError(f"random_conv features need images of at least 16 x 16 pixels, not {size[1]} x {size[0]}")
        x, out = (images.float() - 127.5) / 127.5, []
        for weight in weights:
            x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight.to(x.device))
            out.append(F.interpolate(x, size=size, mode="bilinear", align_corners=False))
            x = F.avg_pool2d(x.relu(), 2)
        return torch.cat(out, 1)

    return DenseExtractor("random_conv", sha256, "none (own size)", function)


def dense_dino(path: str | Path, device: str = "cpu") -> DenseExtractor:
    """Patch tokens of a DINOv2 model from a local folder in the transformers layout.

    Pictures are brought to a shorter side of `DINO_SIDE` and to whole patches without a crop, so that a token stays
    where its patch is: 16 x 16 tokens of a square picture, interpolated bilinearly by the reader.

    Raises:
        FileNotFoundError: if the folder or its ``model.safetensors`` is missing.
    """
    from transformers import Dinov2Model

    folder, weights = model_folder(path)
    network = Dinov2Model.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval().to(device)
    patch = network.config.patch_size
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (DINO_MEAN, DINO_STD))

    def function(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        scale = DINO_SIDE / (min(height, width) * patch)
        rows, columns = round(height * scale), round(width * scale)
        size = (rows * patch, columns * patch)
        x = F.interpolate(images.float() / 255, size=size, mode="bicubic", antialias=True).clamp(0, 1)
        tokens = network(pixel_values=((x - mean) / std).to(device)).last_hidden_state[:, 1:]
        return rearrange(tokens, "n (h w) c -> n c h w", h=rows)

    rule = f"shorter side to {DINO_SIDE} px in whole patches of {patch}, bicubic with antialias in float, no crop"
    return DenseExtractor("dino", file_sha256(weights), rule, function)


def build_dense_extractor(name: str, path: str | Path | None = None) -> DenseExtractor:
    """Extractor by name: random_conv (no file) or dino (with a local folder).

    Raises:
        FileNotFoundError, ValueError: for an unknown name, or weights that are missing.
    """
    if name == "random_conv":
        return dense_random_conv()
    if name != "dino":
        raise ValueError(f"unknown extractor of feature maps '{name}'; choose random_conv or dino")
    if path is None:
        raise ValueError("the extractor 'dino' needs its weights as a local folder; nothing is downloaded")
    return dense_dino(path)
