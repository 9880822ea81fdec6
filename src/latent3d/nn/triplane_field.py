"""The network behind a tri-plane: from the features sampled at a point to density, colours and other named values.

It knows nothing of planes, rays or cameras: whoever samples the planes hands the features over. Letters: c feature
channels; ``...`` points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.config import Config

COLOR_MARGIN = 0.001
"""Colours reach this far beyond 0 and 1, so that black and white are reached at finite values."""
DENSITY_SHIFT = 1.0
"""Taken from the raw value before the softplus: an untrained field is thin."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"softplus": F.softplus, "relu": F.relu, "silu": F.silu}


def density_from_raw(raw: Float[Tensor, "*points"], scale: float = 1.0) -> Float[Tensor, "*points"]:
    """Volume density softplus(raw - 1) * scale >= 0, per scene unit; scale 1 is EG3D's (Chan et al. 2022)."""
    return F.softplus(raw - DENSITY_SHIFT) * scale


def colors_from_raw(raw: Float[Tensor, "*points"], scale: float = 1.0) -> Float[Tensor, "*points"]:
    """Colours 1.002 sigmoid(scale raw) - 0.001 (the sigmoid of Mip-NeRF, Barron et al. 2021; EG3D has scale 1)."""
    return (1 + 2 * COLOR_MARGIN) * torch.sigmoid(scale * raw) - COLOR_MARGIN


@dataclass(frozen=True, kw_only=True)
class TriPlaneFieldConfig(Config):
    """Sizes of a `TriPlaneField`; the defaults are the paper's (LN3Diff, arXiv 2403.12019).

    Attributes:
        features: channels of the sampled features, c.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
        channels: colour channels; 3 for plain colours, more where the first 3 are colours and the rest features.
        extra: further outputs by name and their widths, given back raw (for example ``{"deformation": 3}``).
        activation: after every hidden layer.
        color_scale: factor on the raw colours. With 1, the paper's, a fresh network answers to its features with pale
            colours and learns brightness first and hue very much later; a larger one brings both forward.
        density_scale: factor on the density. 1 is the paper's; a larger one makes surfaces of a small scene opaque
            after fewer training steps.
    """

    features: int = 32
    hidden: int = 64
    layers: int = 1
    channels: int = 3
    extra: dict[str, int] = field(default_factory=dict)
    activation: Literal["softplus", "relu", "silu"] = "softplus"
    color_scale: float = 1.0
    density_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.layers < 1 or min(self.features, self.hidden) < 1 or self.channels < 0:
            raise ValueError("a tri-plane field needs at least one hidden layer, and widths of at least one")
        if min(self.extra.values(), default=1) < 1:
            raise ValueError(f"extra outputs need a width of at least one, found {self.extra}")
        if min(self.density_scale, self.color_scale) <= 0:
            raise ValueError(f"scales must be positive, found {self.density_scale} and {self.color_scale}")

    def build(self) -> TriPlaneField:
        """The network, with fresh weights."""
        return TriPlaneField(self)


@dataclass(frozen=True)
class FieldValues:
    """What a field says of points.

    Attributes:
        raw: the first output as it comes, (...): what density is made of, or a signed distance where a decoder takes
            it for one.
        density: per scene unit, >= 0, (...).
        colors: display colours, (..., channels).
        extra: further outputs by name, raw, (..., width) each.
    """

    raw: Float[Tensor, "*points"]
    density: Float[Tensor, "*points"]
    colors: Float[Tensor, "*points channels"]
    extra: dict[str, Tensor]


class TriPlaneField(nn.Module):
    """Fully connected network with ``layers`` hidden layers and one output layer: raw value, colours, extra outputs."""

    density_shift = DENSITY_SHIFT
    color_margin = COLOR_MARGIN

    def __init__(self, config: TriPlaneFieldConfig) -> None:
        super().__init__()
        self.config = config
        outputs = 1 + config.channels + sum(config.extra.values())
        widths = [config.features, *[config.hidden] * config.layers, outputs]
        self.layers = nn.ModuleList(nn.Linear(first, second) for first, second in pairwise(widths))

    def forward(self, features: Float[Tensor, "*points c"]) -> FieldValues:
        """Features (..., c) to values; these are at least float32, also where the layers run in less."""
        hidden = features
        *inner, last = self.layers
        for layer in inner:
            hidden = ACTIVATIONS[self.config.activation](layer(hidden))
        out = last(hidden)
        out = out if out.dtype == torch.float64 else out.float()
        raw, colors, *rest = out.split([1, self.config.channels, *self.config.extra.values()], -1)
        raw = raw.squeeze(-1)
        extra = dict(zip(self.config.extra, rest, strict=True))
        return FieldValues(
            raw,
            density_from_raw(raw, self.config.density_scale),
            colors_from_raw(colors, self.config.color_scale),
            extra,
        )
