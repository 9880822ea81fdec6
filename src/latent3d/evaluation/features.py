"""Feature extractors for the distances of `distributions`: uint8 images (N, 3, H, W) -> float features (N, d).

Weights always come from a local file that the user names; nothing is downloaded. `random_conv` needs none: its weights
follow from a documented byte stream and are the same on every machine. A score is named after its extractor
(`score_name`): "FID" and "KID" are reserved for the 2015-12-05 Inception network.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

RANDOM_CONV_STREAM = b"latent3d random_conv version 1"
"""Names the weights of `random_conv`, see `random_numbers`."""
RANDOM_CONV_LEVELS = 4
RANDOM_CONV_WIDTH = 16


@runtime_checkable
class FeatureExtractor(Protocol):
    """What the distances need to know about the network that made their features.

    Attributes:
        name: short name; enters the score's name.
        sha256: of the weights, 64 hexadecimal digits.
        resize_rule: how images reach the network's input size, in words.
    """

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    @property
    def resize_rule(self) -> str: ...

    def __call__(self, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]: ...


@dataclass(frozen=True)
class CallableExtractor:
    """Any function as a `FeatureExtractor`, for instance the pooled latents of an image autoencoder."""

    name: str
    sha256: str
    resize_rule: str
    function: Callable[[Tensor], Tensor]

    def __call__(self, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        with torch.inference_mode():
            return self.function(images).float()


def score_name(kind: str, extractor_name: str) -> str:
    """ "FD", "KD" or "FVD" with the extractor: FID and KID for Inception, FVD for I3D, else FD_<extractor> and so on.

    Raises:
        ValueError: for another kind of score.
    """
    reserved = {"FD": ("FID", "inception"), "KD": ("KID", "inception"), "FVD": ("FVD", "i3d")}
    if kind not in reserved:
        raise ValueError(f"unknown distance '{kind}'; choose FD, KD or FVD")
    name, network = reserved[kind]
    return name if extractor_name == network else f"{kind}_{extractor_name}"


def to_uint8(images: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
    """sRGB images in [0, 1] as they would be written to a file: clipped and rounded to 8 bits."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def extract(extractor: FeatureExtractor, images: UInt8[Tensor, "n 3 h w"], batch: int = 32) -> Float[Tensor, "n d"]:
    """Features of many images, ``batch`` at a time."""
    return torch.cat([extractor(part) for part in images.split(batch)])


def random_conv() -> FeatureExtractor:
    """Four levels of fixed random 3x3 filters; per level the mean and the deviation of 16 rectified channels: d = 128.

    Per level: 3x3 convolution (reflected border, weights divided by the root of their number of inputs times 1/2, so
    that variance survives the rectifier), ReLU, statistics over the image, 2x2 average. Half of the first filters have
    zero mean and answer to edges only. Input (x - 127.5) / 127.5 at its own size, of at least 16 x 16 pixels.
    Distances on these features see palette, contrast, blur and texture, not meaning.
    """
    weights, sha256 = random_conv_filters()

    def function(images: Tensor) -> Tensor:
        if min(images.shape[-2:]) < 16:
            raise ValueError(f"random_conv features need images of at least 16 x 16 pixels, not {images.shape[-2:]}")
        x, out = (images.float() - 127.5) / 127.5, []
        for weight in weights:
            x = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
            x = torch.nn.functional.conv2d(x, weight.to(x.device)).relu()
            out += [x.mean((2, 3)), x.std((2, 3))]
            x = torch.nn.functional.avg_pool2d(x, 2)
        return torch.cat(out, 1)

    return CallableExtractor("random_conv", sha256, "none (own size)", function)


def random_conv_filters() -> tuple[list[Tensor], str]:
    """The filters of `random_conv`, one tensor (16, inputs, 3, 3) per level, and their sha256."""
    shapes = [(RANDOM_CONV_WIDTH, 3 if level == 0 else RANDOM_CONV_WIDTH, 3, 3) for level in range(RANDOM_CONV_LEVELS)]
    weights, sha256 = random_numbers(RANDOM_CONV_STREAM, shapes)
    edges = weights[0][: RANDOM_CONV_WIDTH // 2]
    weights[0] = torch.cat([edges - edges.mean((1, 2, 3), keepdim=True), weights[0][RANDOM_CONV_WIDTH // 2 :]])
    return [(weight / (0.5 * weight[0].numel()) ** 0.5).float() for weight in weights], sha256


def random_numbers(stream: bytes, shapes: Sequence[tuple[int, ...]]) -> tuple[list[Tensor], str]:
    """Numbers of unit variance, float64, that are the same on every machine, and the sha256 of their bytes.

    They are SHAKE-256 of ``stream``, read as bytes b -> (b - 127.5) / 73.9.
    """
    sizes = [math.prod(shape) for shape in shapes]
    content = hashlib.shake_256(stream).digest(sum(sizes))
    values = (torch.tensor(list(content), dtype=torch.float64) - 127.5) / 73.9
    parts = [part.view(shape) for shape, part in zip(shapes, values.split(sizes), strict=True)]
    return parts, hashlib.sha256(content).hexdigest()


def inception(path: str | Path, device: str = "cpu") -> FeatureExtractor:
    """pool3 features (2048-d) of the 2015-12-05 Inception network, a TorchScript file that resizes inside.

    Args:
        path: ``inception-2015-12-05.pt`` in the form that takes uint8 images and ``return_features=True``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a TorchScript archive.
    """
    path = existing_file(path, "the TorchScript file inception-2015-12-05.pt")
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError as error:
        raise ValueError(f"{path} is not a TorchScript archive; give the file inception-2015-12-05.pt") from error

    def function(images: Tensor) -> Tensor:
        return network(images.to(device), return_features=True).cpu()

    return CallableExtractor("inception", file_sha256(path), "inside the network (TF1 bilinear)", function)


def clip(path: str | Path, device: str = "cpu") -> FeatureExtractor:
    """Projected image embeddings of a CLIP vision model from a local folder in the transformers layout.

    Raises:
        FileNotFoundError: if the folder or its ``model.safetensors`` is missing.
    """
    from transformers import CLIPVisionModelWithProjection

    folder, weights = model_folder(path)
    network = CLIPVisionModelWithProjection.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    network = network.eval().to(device)
    side = network.config.image_size
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

    def function(images: Tensor) -> Tensor:
        return network(pixel_values=_prepare(images, side, mean, std).to(device)).image_embeds.cpu()

    return CallableExtractor("clip", file_sha256(weights), _RESIZE_RULE.format(side=side), function)


def dino(path: str | Path, device: str = "cpu") -> FeatureExtractor:
    """Class-token features of a DINOv2 model from a local folder in the transformers layout, at 224 x 224.

    Raises:
        FileNotFoundError: if the folder or its ``model.safetensors`` is missing.
    """
    from transformers import Dinov2Model

    folder, weights = model_folder(path)
    network = Dinov2Model.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval().to(device)
    side = 224
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def function(images: Tensor) -> Tensor:
        return network(pixel_values=_prepare(images, side, mean, std).to(device)).last_hidden_state[:, 0].cpu()

    return CallableExtractor("dino", file_sha256(weights), _RESIZE_RULE.format(side=side), function)


def build_extractor(name: str, path: str | Path | None = None) -> FeatureExtractor:
    """Extractor by name: random_conv (no file), inception, clip or dino (with a local file or folder).

    Raises:
        ValueError: for an unknown name, or when the path is missing.
    """
    if name == "random_conv":
        return random_conv()
    known = {"inception": inception, "clip": clip, "dino": dino}
    if name not in known:
        raise ValueError(f"unknown feature extractor '{name}'; choose random_conv, {', '.join(known)}")
    if path is None:
        raise ValueError(f"the extractor '{name}' needs its weights as a local path; nothing is downloaded")
    return known[name](path)


_RESIZE_RULE = "shorter side to {side} px, bicubic with antialias in float, centre crop {side} x {side}"


def _prepare(images: Tensor, side: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    height, width = images.shape[-2:]
    scale = side / min(height, width)
    size = (max(side, round(height * scale)), max(side, round(width * scale)))
    x = torch.nn.functional.interpolate(images.float() / 255, size=size, mode="bicubic", antialias=True)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    x = x[..., top : top + side, left : left + side].clamp(0, 1)
    return (x - x.new_tensor(mean).view(3, 1, 1)) / x.new_tensor(std).view(3, 1, 1)


def existing_file(path: str | Path, what: str) -> Path:
    """The path of a file that is there. Raises FileNotFoundError saying what is wanted."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give the path of {what}")
    return path


def model_folder(path: str | Path) -> tuple[Path, Path]:
    """A folder in the transformers layout and its weights file. Raises FileNotFoundError."""
    folder = Path(path)
    weights = folder / "model.safetensors"
    if not weights.is_file() or not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} lacks config.json or model.safetensors; give a local transformers folder")
    return folder, weights


def file_sha256(path: Path) -> str:
    """sha256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
