"""The pixels of a capture: pictures from files and films, depth maps in the usual encodings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latent3d.io.images import load_image

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".ppm")
FILMS = (".mp4", ".mov", ".mkv", ".webm", ".avi")
TIME_TOLERANCE = 0.1
"""A film that has no picture within this many seconds of a wanted moment does not show it."""


@dataclass(frozen=True)
class VideoMoment:
    """The picture that a film shows at a time in seconds from its start."""

    path: Path
    seconds: float


@dataclass(frozen=True)
class DepthFile:
    """A map of depths: scene units per stored number; ``channel`` of an EXR file; 0 and beyond ``most`` is unknown.

    Attributes:
        most: greatest stored number that is a measurement.
    """

    path: Path
    unit: float
    channel: str | None = None
    most: float = float("inf")


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width as stored, from the header alone.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a picture.
    """
    from PIL import Image

    if not path.is_file():
        raise FileNotFoundError(f"there is no picture '{path}'")
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"'{path.name}' is not a picture that can be read") from error


def film_size(path: Path) -> tuple[int, int]:
    """Height and width of a film. Raises ValueError if it is none."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            return int(stream.height), int(stream.width)
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"'{path}' is not a film that can be read; give another") from error


def read_pictures(wanted: Sequence[tuple[Path | VideoMoment, int, int]]) -> list[np.ndarray]:
    """Pictures (H, W, 3) in [0, 1], float32; (picture, stated height, stated width) each.

    EXIF rotation is applied only where it brings the stated aspect about: cameras are usually solved on stored pixels.

    Raises:
        FileNotFoundError, ValueError: naming a picture that cannot be read or has another aspect than stated.
    """
    moments = [item for item, _, _ in wanted if isinstance(item, VideoMoment)]
    stills = read_moments(moments) if moments else {}
    images = []
    for item, height, width in wanted:
        if isinstance(item, VideoMoment):
            image = stills[item].astype(np.float32) / 255
        else:
            stored = picture_size(item)
            turned = stored[1], stored[0]
            turn = same_aspect(*turned, height, width) and not same_aspect(*stored, height, width)
            photo = load_image(item, upright=turn)
            image = np.ascontiguousarray(photo.image.permute(1, 2, 0).numpy())
        if not same_aspect(image.shape[0], image.shape[1], height, width):
            raise ValueError(
                f"'{item}' is {image.shape[1]} x {image.shape[0]} but its camera is for {width} x {height}; "
                "the aspects differ"
            )
        images.append(image)
    return images


def same_aspect(height: int, width: int, other_height: int, other_width: int) -> bool:
    """Whether one size is the other resized, up to rounding to whole pixels and 1 %."""
    slack = 0.01 * width * other_height + max(width, height, other_width, other_height)
    return abs(width * other_height - height * other_width) <= slack


def read_moments(moments: Sequence[VideoMoment]) -> dict[VideoMoment, np.ndarray]:
    """The pictures (H, W, 3) uint8 at those moments: each film is decoded once, from the first to the last of them.

    Raises:
        FileNotFoundError, ValueError: if a film is not there, cannot be read, or does not show a moment.
    """
    import av

    found: dict[VideoMoment, np.ndarray] = {}
    for path in dict.fromkeys(moment.path for moment in moments):
        if not path.is_file():
            raise FileNotFoundError(f"there is no film '{path}'; check the name")
        todo = sorted({moment.seconds for moment in moments if moment.path == path})
        best: dict[float, tuple[float, np.ndarray]] = {}
        try:
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                origin = float((stream.start_time or 0) * (stream.time_base or 1))
                container.seek(int(max(todo[0] + origin - TIME_TOLERANCE, 0) * 1e6), backward=True)
                for picture in container.decode(stream):
                    now = float(picture.time or 0) - origin
                    near = [time for time in todo if abs(now - time) < min(TIME_TOLERANCE, best.get(time, (1,))[0])]
                    if near:
                        pixels = picture.to_ndarray(format="rgb24")
                        best.update({time: (abs(now - time), pixels) for time in near})
                    if now > todo[-1] + TIME_TOLERANCE:
                        break
        except (av.FFmpegError, IndexError) as error:
            raise ValueError(f"'{path}' is not a film that can be read; give another") from error
        for time in todo:
            if time not in best:
                raise ValueError(f"the film '{path}' has no picture at {time:.3f} s; is it the right film?")
            found[VideoMoment(path, time)] = best[time][1]
    return found


def _without_edges(stored: np.ndarray) -> np.ndarray:
    """Rendered depths mix with the empty background (0) along outlines; pixels that touch it become unknown."""
    known = np.pad(stored > 0, 1, mode="edge")
    height, width = stored.shape
    inner = np.all([known[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)
    return np.where(inner, stored, 0)


def read_depth(file: DepthFile) -> np.ndarray:
    """z-depths (H, W) float32 in scene units, 0 where unknown: 16-bit PNG, PGM or TIFF, ``.npy``, or EXR.

    Raises:
        FileNotFoundError, ValueError: naming a file that cannot be read or holds no map of numbers.
    """
    if not file.path.is_file():
        raise FileNotFoundError(f"there is no depth map '{file.path}'")
    if file.path.suffix == ".exr":
        from latent3d.data.captures.exr import read_exr

        channels = read_exr(file.path)
        name = file.channel or next(iter(channels))
        if name not in channels:
            raise ValueError(f"the depth map '{file.path}' has no channel '{name}', only {', '.join(channels)}")
        stored = _without_edges(channels[name])
    elif file.path.suffix == ".npy":
        try:
            stored = np.load(file.path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"the depth map '{file.path}' is not an array that can be read") from error
    else:
        from PIL import Image

        try:
            with Image.open(file.path) as picture:
                stored = np.asarray(picture)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"the depth map '{file.path}' is damaged or no picture") from error
    if stored.ndim != 2 or stored.dtype.kind not in "fiu":
        raise ValueError(f"the depth map '{file.path}' must hold one number per pixel, not {stored.shape}")
    depth = stored.astype(np.float32)
    known = np.isfinite(depth) & (depth > 0) & (depth <= file.most)
    return np.where(known, depth * np.float32(file.unit), np.float32(0))
