"""Features of clips for the Fréchet video distance: uint8 clips (N, F, 3, H, W) -> float features (N, d).

`i3d` takes the network of the published numbers from a local file; only its distance is called FVD (`score_name`).
`random3d` needs no file: fixed random filters over space and time, whose distance is FVD_random3d. It sees palette,
texture, flicker and how fast things move, not what they do. Both are biased at small N: compare equal numbers of clips.
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

from latent3d.evaluation.features import existing_file, file_sha256, random_numbers

RANDOM3D_STREAM = b"latent3d random3d version 1"
"""Names the weights of `random3d`, see `features.random_numbers`."""
RANDOM3D_LEVELS = 3
RANDOM3D_WIDTH = 16
I3D_SIDE = 224
I3D_FRAMES = 10
"""Shorter clips vanish in the network's pooling over time."""
I3D_ARGUMENTS = {"rescale": False, "resize": False, "return_features": True}
"""Frames come in the right range and size, and features are what leaves the network before its softmax."""
I3D_RESIZE = {
    "i3d": f"shorter side to {I3D_SIDE} px, bilinear without antialias in float, centre crop",
    "i3d_stretch": f"stretched to {I3D_SIDE} x {I3D_SIDE}, bilinear without antialias in float",
}
"""How frames reach the network's size: as StyleGAN-V's and common_metrics' numbers are made, and as cd-fvd's are."""


@dataclass(frozen=True)
class VideoExtractor:
    """A network that makes one feature vector of a clip.

    Attributes:
        name: enters the score's name.
        sha256: of the weights, 64 hexadecimal digits.
        resize_rule: how frames reach the network's input size, in words.
        min_frames: frames that a clip must have.
        function: clips (N, F, 3, H, W), uint8, to features (N, d).
    """

    name: str
    sha256: str
    resize_rule: str
    min_frames: int
    function: Callable[[Tensor], Tensor]

    def __call__(self, clips: UInt8[Tensor, "n f 3 h w"]) -> Float[Tensor, "n d"]:
        """Features of clips. Raises ValueError for clips that are too short."""
        self.check(clips.shape[1])
        with torch.inference_mode():
            return self.function(clips).float()

    def check(self, frames: int) -> None:
        """Raises ValueError where clips of so many frames are too short."""
        if frames < self.min_frames:
            raise ValueError(
                f"{self.name} features need clips of at least {self.min_frames} frames, not {frames}; ask for more "
                "views per scene or another video extractor"
            )

    def to_dict(self) -> dict[str, Any]:
        """What a record says of it."""
        return {"name": self.name, "sha256": self.sha256, "resize_rule": self.resize_rule}


def i3d(path: str | Path, device: str = "cpu", resize: str = "i3d") -> VideoExtractor:
    """Logits (400-d) of I3D trained on Kinetics-400, the TorchScript file of StyleGAN-V and common_metrics.

    The file is called with `I3D_ARGUMENTS` on (N, 3, F, 224, 224) in [-1, 1]. All variants of `I3D_RESIZE` are the same
    network, hence one name; they agree on square frames only, and the resize rule in a record tells them apart.

    Args:
        path: ``i3d_torchscript.pt``.
        resize: one of `I3D_RESIZE`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a TorchScript archive, or takes other arguments.
    """
    path = existing_file(path, "the TorchScript file i3d_torchscript.pt")
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError as error:
        raise ValueError(f"{path} is not a TorchScript archive; give the file i3d_torchscript.pt") from error

    taken = {argument.name for argument in network.forward.schema.arguments}
    if not I3D_ARGUMENTS.keys() <= taken:
        raise ValueError(f"{path} does not take {', '.join(I3D_ARGUMENTS)}; give StyleGAN-V's i3d_torchscript.pt")

    def function(clips: Tensor) -> Tensor:
        rows = []
        for clip in clips:  # one by one: even one clip at this size takes much memory in a 3D network
            x = rearrange(_resized(clip.float() / 255, resize) * 2 - 1, "f c h w -> 1 c f h w")
            rows.append(network(x.to(device), **I3D_ARGUMENTS).cpu())
        return torch.cat(rows)

    return VideoExtractor("i3d", file_sha256(path), I3D_RESIZE[resize], I3D_FRAMES, function)


def random3d() -> VideoExtractor:
    """Three levels of fixed random 3x3x3 filters; per level mean and deviation of 16 rectified channels: d = 96.

    Per level: convolution over time, rows and columns (reflected border, weights divided by the root of their number of
    inputs times 1/2), ReLU, statistics over the clip, average over 2x2 pixels and, after the first level, 2 frames. Of
    the first 16 filters 6 sum to zero over time at every pixel and answer to change only, 5 sum to zero and answer to
    edges and change. Input (x - 127.5) / 127.5 at its own size, of at least 4 frames of 16 x 16 pixels.
    """
    width = RANDOM3D_WIDTH
    shapes = [(width, 3 if level == 0 else width, 3, 3, 3) for level in range(RANDOM3D_LEVELS)]
    numbers, sha256 = random_numbers(RANDOM3D_STREAM, shapes)
    change, edges, free = numbers[0].split([6, 5, width - 11])
    change = change - change.mean(2, keepdim=True)
    edges = edges - edges.mean((1, 2, 3, 4), keepdim=True)
    weights = [w / (0.5 * w[0].numel()) ** 0.5 for w in (torch.cat([change, edges, free]), *numbers[1:])]
    weights = [weight.float() for weight in weights]

    def function(clips: Tensor) -> Tensor:
        if min(clips.shape[-2:]) < 16:
            size = f"{clips.shape[-1]} x {clips.shape[-2]}"
            raise ValueError(f"random3d features need frames of at least 16 x 16 pixels, not {size}")
        return torch.cat([_random3d(clip[None], weights) for clip in clips])

    return VideoExtractor("random3d", sha256, "none (own size)", 4, function)


def build_video_extractor(name: str, path: str | Path | None = None) -> VideoExtractor:
    """Extractor by name: random3d (no file), i3d or i3d_stretch (with a local file).

    Raises:
        FileNotFoundError, ValueError: for an unknown name, or weights that are missing or unfit.
    """
    if name == "random3d":
        return random3d()
    if name not in I3D_RESIZE:
        raise ValueError(f"unknown video extractor '{name}'; choose random3d, {', '.join(I3D_RESIZE)}")
    if path is None:
        raise ValueError(f"the video extractor '{name}' needs its weights as a local path; nothing is downloaded")
    return i3d(path, resize=name)


def _random3d(clip: Tensor, weights: list[Tensor]) -> Tensor:
    x, out = (rearrange(clip, "n f c h w -> n c f h w").float() - 127.5) / 127.5, []
    for level, weight in enumerate(weights):
        x = F.conv3d(F.pad(x, (1,) * 6, mode="reflect"), weight.to(x.device)).relu()
        out += [x.mean((2, 3, 4)), x.std((2, 3, 4))]
        x = F.avg_pool3d(x, (1 if level == 0 else 2, 2, 2))
    return torch.cat(out, 1)


def _resized(frames: Float[Tensor, "f 3 h w"], rule: str) -> Float[Tensor, "f 3 side side"]:
    height, width = frames.shape[-2:]
    side, size = I3D_SIDE, (I3D_SIDE, I3D_SIDE)
    if rule == "i3d":
        # The longer side is rounded up, so that it is never too small for the crop.
        size = (max(side, -(-height * side // width)), max(side, -(-width * side // height)))
    x = F.interpolate(frames, size=size, mode="bilinear", align_corners=False)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return x[..., top : top + side, left : left + side]
