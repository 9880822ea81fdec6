"""LPIPS (Zhang et al. 2018) from two local files: a trunk trained on ImageNet and the published linear heads, v0.1.

The trunk is torchvision's state dict of AlexNet or VGG16 (``features.*``), the heads are ``alex.pth`` or ``vgg.pth`` of
the authors' repository. Nothing is downloaded, and neither library is needed. The two trunks give different numbers, so
the score's name tells which one it was: ``lpips_alex`` (nerfstudio's tables) or ``lpips_vgg`` (pixelSplat's).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

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
        """Distance per image, both clipped to [0, 1] and brought to [-1, 1]; 0 for equal images.

        Per tap: features of unit length per pixel, squared differences, weighted over channels, averaged over pixels.
        """
        distance = images.new_zeros(len(images))
        x, y = (self._prepared(part) for part in (images, truth))
        for number, layer in enumerate(self.trunk):
            x, y = layer(x), layer(y)
            if number in self.taps:
                weight = self.heads[self.taps.index(number)].to(x)
                gap = (_unit(x) - _unit(y)).square() * weight[:, None, None]
                distance = distance + gap.sum(1).mean((1, 2))
        return distance

    def _prepared(self, images: Tensor) -> Tensor:
        shift, scale = (images.new_tensor(values).view(3, 1, 1) for values in (SHIFT, SCALE))
        return (2 * images.clamp(0, 1) - 1 - shift) / scale


def lpips(trunk: str | Path, heads: str | Path) -> PerceptualDistance:
    """LPIPS from a trunk file (torchvision's AlexNet or VGG16 state dict) and the file of its linear heads.

    Which network it is follows from the trunk's shapes.

    Raises:
        FileNotFoundError: if a file is not there.
        ValueError: if a file holds something else, or the two do not belong together.
    """
    trunk, heads = Path(trunk), Path(heads)
    state = {k: v for k, v in _tensors(trunk, "a trunk").items() if k.startswith("features.")}
    first = state.get("features.0.weight")
    names = {(64, 3, 11, 11): "alex", (64, 3, 3, 3): "vgg"}
    name = names.get(tuple(first.shape)) if first is not None else None
    if name is None:
        raise ValueError(f"'{trunk}' is not torchvision's AlexNet or VGG16 (features.0.weight); give one of these")
    layers, taps = TRUNKS[name]()
    wanted = layers.state_dict()
    found = {key: state.get(f"features.{key}") for key in wanted}
    if any(value is None or value.shape != wanted[key].shape for key, value in found.items()):
        raise ValueError(f"'{trunk}' lacks layers of torchvision's {name} network; download it again")
    layers.load_state_dict({key: value for key, value in found.items() if value is not None}, strict=True)
    linear = _tensors(heads, "the linear heads")
    weights = [linear.get(f"lin{i}.model.1.weight") for i in range(len(taps))]
    widths = [wanted[f"{tap - 1}.weight"].shape[0] for tap in taps]
    if any(w is None or w.numel() != c for w, c in zip(weights, widths, strict=True)):
        raise ValueError(f"'{heads}' does not hold the linear heads for a {name} trunk; give {name}.pth of LPIPS v0.1")
    flat = tuple(weight.flatten().float() for weight in weights if weight is not None)
    hashes = (hashlib.sha256(trunk.read_bytes()).hexdigest(), hashlib.sha256(heads.read_bytes()).hexdigest())
    return PerceptualDistance(f"lpips_{name}", hashes, layers.eval().requires_grad_(False), taps, flat)


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)


def _tensors(path: Path, what: str) -> dict[str, Any]:
    import pickle

    if not path.is_file():
        raise FileNotFoundError(f"there is no file '{path}'; give {what} of LPIPS as a local file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"'{path}' cannot be read as tensors ({error}); give {what} of LPIPS") from error
    if not isinstance(state, dict):
        raise ValueError(f"'{path}' is not a state dict; give {what} of LPIPS")
    return state
