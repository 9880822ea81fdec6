"""LPIPS (Zhang et al. 2018): two trunks trained on ImageNet, and the distance of their features, differentiable.

Letters: v = images, H/W = their rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.nn.fixed_features import fixed

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of pictures in [-1, 1], as in the authors' code."""


def _alexnet() -> tuple[nn.Sequential, tuple[int, ...]]:
    layers = nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(),
        nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(), nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(),
    )  # fmt: skip
    return layers, (1, 4, 7, 9, 11)


def _vgg16() -> tuple[nn.Sequential, tuple[int, ...]]:
    layers: list[nn.Module] = []
    taps, channels = [], 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        layers += [nn.MaxPool2d(2, 2)] if layers else []
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, 1, 1), nn.ReLU()]
            channels = width
        taps.append(len(layers) - 1)
    return nn.Sequential(*layers), tuple(taps)


TRUNKS = {"alex": _alexnet, "vgg": _vgg16}
"""By name: a function that gives the layers and the numbers of those whose features are compared."""


def prepared(images: Float[Tensor, "v 3 H W"]) -> Float[Tensor, "v 3 H W"]:
    """Pictures in [0, 1] as the trunks take them: (2 x - 1 - SHIFT) / SCALE."""
    shift, scale = (images.new_tensor(values).view(3, 1, 1) for values in (SHIFT, SCALE))
    return (2 * images - 1 - shift) / scale


def feature_distance(
    trunk: nn.Sequential,
    taps: Sequence[int],
    heads: Sequence[Tensor],
    images: Float[Tensor, "v 3 H W"],
    truth: Float[Tensor, "v 3 H W"],
) -> Float[Tensor, " v"]:
    """Distance per image, pictures in [0, 1].

    Per tap: features of unit length per pixel, squared differences, weighted over channels, averaged over pixels.
    """
    distance = images.new_zeros(len(images), dtype=torch.float32)
    x, y = prepared(images), prepared(truth)
    for number, layer in enumerate(trunk):
        x, y = layer(x), layer(y)
        if number in taps:
            weight = heads[taps.index(number)].to(x)
            gap = (unit(x) - unit(y)).square() * weight[:, None, None]
            distance = distance + gap.sum(1).mean((1, 2))
    return distance


def unit(features: Float[Tensor, "n c h w"], eps: float = 1e-10) -> Float[Tensor, "n c h w"]:
    """Feature vectors of length one, x / (|x| + eps)."""
    # the tiny summand: the gradient of a root at zero is infinite
    return features / ((features.square().sum(1, keepdim=True) + 1e-20).sqrt() + eps)


class Lpips(nn.Module):
    """LPIPS as a training loss, its weights fixed and not saved.

    Args:
        trunk: layers with weights. taps: numbers of the layers that are compared.
        heads: per tap, non-negative weights of its channels, (c,).
    """

    def __init__(self, trunk: nn.Sequential, taps: tuple[int, ...], heads: Sequence[Tensor]) -> None:
        super().__init__()
        self.trunk, self.taps = fixed(trunk), taps
        for number, weight in enumerate(heads):
            self.register_buffer(f"head_{number}", weight.detach(), persistent=False)

    def forward(self, images: Float[Tensor, "v 3 H W"], truth: Float[Tensor, "v 3 H W"]) -> Float[Tensor, " v"]:
        """Distance per image, pictures in [0, 1] (what a renderer returns beyond is taken as it is)."""
        heads = [getattr(self, f"head_{number}") for number in range(len(self.taps))]
        return feature_distance(self.trunk, self.taps, heads, images, truth)
