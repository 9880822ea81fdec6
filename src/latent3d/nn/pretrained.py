"""Foreign weights of fixed networks from local files: LPIPS's trunk and heads, DINOv2's folder. Nothing is downloaded.

Letters: n = images, c = width of the tokens, h/w = rows and columns of patches.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.nn.fixed_features import fixed
from latent3d.nn.lpips import TRUNKS, Lpips

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of pictures in [0, 1], per colour channel."""


@dataclass(frozen=True)
class LpipsWeights:
    """Network and heads as the files hold them.

    Attributes:
        name: "alex" or "vgg".
        trunk: layers of the network, frozen. taps: numbers of the layers whose features are compared.
        heads: per tap, non-negative weights of its channels, (C,).
    """

    name: str
    trunk: nn.Sequential
    taps: tuple[int, ...]
    heads: tuple[Tensor, ...]

    def module(self) -> Lpips:
        """The differentiable distance."""
        return Lpips(self.trunk, self.taps, self.heads)


def read_lpips(trunk: str | Path, heads: str | Path) -> LpipsWeights:
    """A trunk (torchvision's state dict of AlexNet or VGG16) and the published linear heads, v0.1.

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
    return LpipsWeights(name, layers.eval().requires_grad_(False), taps, flat)


def _tensors(path: Path, what: str) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file '{path}'; give {what} of LPIPS as a local file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"'{path}' cannot be read as tensors ({error}); give {what} of LPIPS") from error
    if not isinstance(state, dict):
        raise ValueError(f"'{path}' is not a state dict; give {what} of LPIPS")
    return state


class DinoFeatures(nn.Module):
    """Patch tokens of DINOv2 (Oquab et al. 2023) after some of its layers, as maps; fixed and not saved.

    Args:
        network: transformers' ``Dinov2Model`` with weights.
        layers: numbers of the layers, from 1 to the number that the network has.
        size: side in pixels that images are brought to; a multiple of the patch size.
    """

    def __init__(self, network: Any, layers: tuple[int, ...], size: int) -> None:
        super().__init__()
        depth, patch = network.config.num_hidden_layers, network.config.patch_size
        if not layers or min(layers) < 1 or max(layers) > depth:
            raise ValueError(f"the network has layers 1 to {depth}, asked for {', '.join(map(str, layers)) or 'none'}")
        if size % patch:
            raise ValueError(f"images of {size} px do not divide into patches of {patch} px; choose a multiple")
        self.network, self.layers, self.size = fixed(network), layers, size
        self.channels = (network.config.hidden_size,) * len(layers)

    def train(self, mode: bool = True) -> DinoFeatures:
        """Always as in evaluation: no dropout."""
        return super().train(False)

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> list[Tensor]:
        """Images in [0, 1] to maps (n, c, h, w), one per chosen layer."""
        mean, std = (images.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        small = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        states = self.network((small - mean) / std, output_hidden_states=True).hidden_states
        side = self.size // self.network.config.patch_size
        count = side * side  # the last tokens; class and register tokens come first
        return [rearrange(states[layer][:, -count:], "n (h w) c -> n c h w", h=side) for layer in self.layers]


def read_dinov2(folder: str | Path, layers: tuple[int, ...], size: int = 224) -> DinoFeatures:
    """DINOv2 from a local folder in the layout of transformers (``config.json``, ``model.safetensors``).

    Raises:
        FileNotFoundError, ValueError: as `read_dinov2_network`, or for layers that it does not have.
    """
    return DinoFeatures(read_dinov2_network(folder), layers, size)


def read_dinov2_network(folder: str | Path) -> Any:
    """transformers' ``Dinov2Model`` in float32 from a local folder.

    Raises:
        FileNotFoundError: if the folder has no config.json.
        ValueError: for another kind of model, or weights that do not fit.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"there is no '{folder / 'config.json'}'; give a local folder of DINOv2 weights")
    from safetensors import SafetensorError
    from transformers import AutoConfig, Dinov2Model  # heavy: only where it is used
    from transformers.utils import logging

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if config.model_type != "dinov2":
        raise ValueError(f"'{folder}' holds a model of type '{config.model_type}'; give a folder of DINOv2 weights")
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        loaded: Any = Dinov2Model.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"the weights in '{folder}' cannot be read ({error}); download them again") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    network, report = loaded
    if report["missing_keys"] or report["mismatched_keys"]:
        odd = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))[:4]
        raise ValueError(f"the weights in '{folder}' do not fit DINOv2: {', '.join(odd)}")
    return network.float()
