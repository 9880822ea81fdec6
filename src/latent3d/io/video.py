"""Films: H.264 in an .mp4 that browsers and players open.

T: frames. H, W: height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.io.atomic import output_file

ENCODERS = ("libx264", "libopenh264", "h264", "mpeg4")
"""In order of preference; the last one is in every build of FFmpeg."""


def write_video(path: str | Path, frames: Iterable[Float[Tensor, "3 h w"]], fps: int = 24, quality: int = 18) -> str:
    """Write a film, atomically; frames may come from a generator and are encoded as they come.

    Args:
        frames: pictures (3, H, W) in [0, 1] of one size, or a tensor (T, 3, H, W). Odd sizes are extended by one pixel,
            since the format stores colour at half resolution.
        fps: frames per second.
        quality: constant rate factor of x264, lower is better.

    Returns:
        The name of the encoder that was used.

    Raises:
        ValueError: if there is no frame or the sizes differ.
    """
    import av

    encoder = next(name for name in ENCODERS if _has_encoder(name))
    with output_file(path) as temporary:
        size: torch.Size | None = None
        stream: Any = None
        with av.open(str(temporary), mode="w", format="mp4", options={"movflags": "faststart"}) as container:
            for image in frames:
                if size is None:
                    size = image.shape
                    stream = container.add_stream(encoder, rate=Fraction(fps))
                    stream.height, stream.width = size[-2] + size[-2] % 2, size[-1] + size[-1] % 2
                    stream.pix_fmt = "yuv420p"
                    stream.options = {"crf": str(quality)} if encoder == "libx264" else {"b": "4M"}
                if image.shape != size:
                    raise ValueError(
                        f"all frames of a film must share one size; got {tuple(size)}, {tuple(image.shape)}"
                    )
                frame = av.VideoFrame.from_ndarray(_bytes(image), format="rgb24")
                container.mux(stream.encode(frame))
            if size is None:
                raise ValueError("a film needs at least one frame; the camera path is empty")
            container.mux(stream.encode())
    return encoder


def read_video(path: str | Path) -> tuple[Float[Tensor, "t 3 h w"], float]:
    """Read a film: frames in [0, 1], (T, 3, H, W), and frames per second.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a film.
    """
    import av

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no film '{path}'; check the name")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or 0)
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"'{path}' is not a film that can be read; make it again") from error
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255, rate


def _has_encoder(name: str) -> bool:
    import av

    try:
        av.Codec(name, "w")
    except ValueError:
        return False
    return True


def _bytes(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H', W', 3) bytes with even sides, the last row and column repeated where needed."""
    array = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(np.pad(array, ((0, array.shape[0] % 2), (0, array.shape[1] % 2), (0, 0)), mode="edge"))
