"""Networks that are never trained, which losses and discriminators look through.

Letters: n = images, c = channels, h/w = rows and columns of a feature map.
"""

from __future__ import annotations

import math
from typing import Protocol, TypeVar, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


@runtime_checkable
class Backbone(Protocol):
    """Images (n, 3, H, W) in [0, 1] to feature maps (n, c_l, h_l, w_l), one per entry of ``channels``."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels c_l of each feature map."""

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Feature maps, differentiable with respect to the images."""


def fixed(module: M) -> M:
    """Turn all parameters into buffers that are moved with the module but neither trained nor saved; returns it.

    So a checkpoint does not carry a perceptual network, and no optimiser, average or rounding of frozen weights ever
    meets it. What is not saved has to come back the same: from a seed or from a file.
    """
    for part in module.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None:
                del part._parameters[name]
                part.register_buffer(name, parameter.detach())
        part._non_persistent_buffers_set.update(part._buffers)
    return module


class RandomFeatures(nn.Module):
    """A pyramid of random convolutions with fixed weights: 3x3, leaky ReLU, then half the size, per level.

    Filters of the first level have zero mean, so they answer to contrast and not to brightness; the others have the
    variance of He et al. (2015). No knowledge is in it: it compares or shows pictures by local patterns at growing
    scales, as far as random filters tell patterns apart.

    Args:
        widths: channels per level.
        seed: of the weights; the same seed gives the same network everywhere.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128), seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.channels = tuple(widths)
        before = 3
        for level, width in enumerate(widths):
            weight = torch.randn(width, before, 3, 3, generator=generator, device="cpu")
            if level == 0:
                weight = weight - weight.mean((2, 3), keepdim=True)
            self.register_buffer(f"weight_{level}", weight * math.sqrt(2 / (9 * before)), persistent=False)
            before = width

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> list[Tensor]:
        """Images in [0, 1] to maps (n, widths[l], H / 2^l, W / 2^l), rounded down.

        Raises:
            ValueError: for images that are smaller than one pixel at the last level.
        """
        levels = len(self.channels)
        if min(images.shape[-2:]) < 2 ** (levels - 1):
            raise ValueError(f"{levels} levels need images of at least {2 ** (levels - 1)} pixels a side")
        maps, x = [], 2 * images - 1
        for level in range(levels):
            x = F.avg_pool2d(x, 2) if level else x
            # repeated borders: zeros would draw an edge around white pictures
            padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
            x = F.leaky_relu(F.conv2d(padded, getattr(self, f"weight_{level}").to(x.dtype)), 0.2)
            maps.append(x)
        return maps
