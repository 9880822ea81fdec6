"""LPIPS (Zhang et al. 2018) from two local files: a trunk trained on ImageNet and the published linear heads, v0.1.

The trunk is torchvision's state dict of AlexNet or VGG16 (``features.*``), the heads are ``alex.pth`` or ``vgg.pth`` of
the authors' repository. Nothing is downloaded, and neither library is needed. The two trunks give different numbers, so
the score's name tells which one it was: ``lpips_alex`` (nerfstudio's tables) or ``lpips_vgg`` (pixelSplat's).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.nn.lpips import feature_distance
from latent3d.nn.pretrained import read_lpips


@dataclass(frozen=True)
class PerceptualDistance:
    """LPIPS with its weights.

    Attributes:
        name: "lpips_alex" or "lpips_vgg".
        sha256: of the trunk's and the heads' file.
        trunk: layers of the network.
        taps: numbers of the layers whose features are compared.
        heads: per tap, non-negative weights of its channels, (C,).
    """

    name: str
    sha256: tuple[str, str]
    trunk: nn.Sequential
    taps: tuple[int, ...]
    heads: tuple[Tensor, ...]

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "v 3 h w"], truth: Float[Tensor, "v 3 h w"]) -> Float[Tensor, " v"]:
        """Distance per image (`nn.lpips.feature_distance`), both clipped to [0, 1]; 0 for equal images."""
        return feature_distance(self.trunk, self.taps, self.heads, images.clamp(0, 1), truth.clamp(0, 1))


def lpips(trunk: str | Path, heads: str | Path) -> PerceptualDistance:
    """LPIPS from a trunk file (torchvision's AlexNet or VGG16 state dict) and the file of its linear heads.

    Raises:
        FileNotFoundError, ValueError: as `nn.pretrained.read_lpips`.
    """
    weights = read_lpips(trunk, heads)
    first, second = (hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in (trunk, heads))
    return PerceptualDistance(f"lpips_{weights.name}", (first, second), weights.trunk, weights.taps, weights.heads)
