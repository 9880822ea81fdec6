"""What all readers of captures share: a collector that counts bad frames instead of failing, and checked numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from latent3d.data.captures.capture import Capture, Frame
from latent3d.data.captures.lens import Lens, undistorted_intrinsics
from latent3d.data.captures.pictures import (
    PICTURES,
    DepthFile,
    VideoMoment,
    film_size,
    picture_size,
    same_aspect,
)
from latent3d.io.camera_files import MAX_BYTES, MAX_COORDINATE, MAX_PIXELS_SIDE, ROTATION_TOLERANCE

Axes = Literal["opencv", "opengl"]
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
"""OpenGL's camera looks along -z with +y up: turn it by 180 degrees about x to get OpenCV's."""


@dataclass(frozen=True)
class Reading:
    """How a person wants poses taken where files and layout disagree.

    Attributes:
        axes: camera axes of the file's poses; None as the layout has them.
        inverse: take its matrices the other way round.
    """

    axes: Axes | None = None
    inverse: bool = False


class Collector:
    """Frames of a capture as they are read: good ones, missing ones, bad ones with the reason."""

    def __init__(
        self,
        folder: Path,
        layout: str,
        reading: Reading,
        *,
        axes: Axes = "opencv",
        world_to_camera: bool = False,
        metric: bool = False,
    ) -> None:
        """axes, world_to_camera: what the layout's matrices are; metric: whether its unit is the metre."""
        self.folder, self.layout, self.metric = folder, layout, metric
        self.axes: Axes = reading.axes or axes
        self.inverse = reading.inverse
        self._invert = world_to_camera != reading.inverse
        self.frames: list[Frame] = []
        self.missing: list[str] = []
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.points: np.ndarray | None = None
        self._names: dict[str, int] = {}

    @contextmanager
    def frame(self, name: str) -> Iterator[None]:
        """Run the block for one frame: an absent file counts as missing, a ValueError as a problem."""
        try:
            yield
        except FileNotFoundError:
            self.missing.append(name)
        except ValueError as error:
            self.problems.append(f"{name}: {error}")

    def add(
        self,
        name: str,
        pose: Any,
        k: np.ndarray,
        size: tuple[int, int] | None,
        picture: Path | VideoMoment | None,
        lens: Lens | None = None,
        depth: DepthFile | None = None,
    ) -> None:
        """Check one frame and keep it.

        Args:
            pose: 3 or 4 rows of 4 numbers, in the layout's convention.
            k: intrinsics for a picture of ``size`` = (height, width); with ``size`` None as fractions of the picture's
                width (first row) and height (second row).

        Raises:
            FileNotFoundError: if the picture is not there.
            ValueError: for anything else that makes the frame unusable.
        """
        matrix = rigid(pose)
        if self._invert:
            matrix = np.linalg.inv(matrix)
        if self.axes == "opengl":
            matrix = matrix @ FLIP
        if picture is None:
            seen = size or (1080, 1920)
        else:
            seen = film_size(picture.path) if isinstance(picture, VideoMoment) else picture_size(picture)
        if size is None:
            size = seen
            k = k * np.array([[seen[1]], [seen[0]], [1.0]])
        if not all(1 <= side <= MAX_PIXELS_SIDE for side in size):
            raise ValueError(f"a picture size of {size[1]} x {size[0]} cannot be")
        if not same_aspect(*seen, *size) and not same_aspect(*seen[::-1], *size):
            raise ValueError(f"the picture is {seen[1]} x {seen[0]} but its camera is for {size[1]} x {size[0]}")
        check_intrinsics(k, *size)
        lens = lens or Lens()
        undistorted_intrinsics(lens, k, *size)
        if depth is not None and not depth.path.is_file():
            depth = None
        if name in self._names:
            raise ValueError("the name occurs twice; the first frame of that name is used")
        self._names[name] = len(self.frames)
        self.frames.append(Frame(name, matrix, k, size[0], size[1], picture, lens, depth))

    def capture(self) -> Capture:
        """What was read.

        Raises:
            ValueError: if no frame is usable.
        """
        if not self.frames:
            counts = f"{len(self.missing)} pictures are missing, {len(self.problems)} frames are unusable"
            first = f" ({self.problems[0]})" if self.problems else f" ({self.missing[0]})" if self.missing else ""
            raise ValueError(f"'{self.folder}', read as {self.layout}, has no usable frame: {counts}{first}")
        notes = list(self.notes)
        lenses = sum(not frame.lens.is_pinhole for frame in self.frames)
        if lenses:
            notes.append(f"Lens distortion is undone in {lenses} of {len(self.frames)} frames.")
        if all(frame.picture is None for frame in self.frames):
            notes.append("There are cameras but no pictures.")
        with_depth = sum(frame.depth is not None for frame in self.frames)
        if 0 < with_depth < len(self.frames):
            notes.append(f"{with_depth} of {len(self.frames)} frames have depth.")
        return Capture(
            self.folder, self.layout, tuple(self.frames), tuple(self.missing), tuple(self.problems), tuple(notes),
            self.metric, self.axes, self.inverse, self.points,
        )  # fmt: skip


def read_json(path: Path) -> Any:
    """Content of a JSON file. NaN and infinities are let through, for the frame that holds them to be counted.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not JSON.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file '{path}'; check the name")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"'{path}' is larger than {MAX_BYTES // 1_000_000} MB; it cannot be a camera file")
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"'{path}' is not valid JSON ({error}); it may be cut short: export it again") from error


def read_lines(path: Path) -> list[str]:
    """Lines of a text file that are neither empty nor comments (#). Raises FileNotFoundError."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file '{path}'; check the name")
    lines = path.read_bytes()[:MAX_BYTES].decode("utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def number(value: Any, what: str, default: float | None = None) -> float:
    """A finite number, or ``default`` where the value is None. Raises ValueError naming what it is."""
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        raise ValueError(f"{what} must be a finite number, not {str(value)[:40]!r}")
    return float(value)


def numbers(value: Any, shape: Sequence[int], what: str) -> np.ndarray:
    """Nested or flat list of numbers, or words of a text file -> float64 array of that shape.

    Raises:
        ValueError: for another count or anything that is not a finite number.
    """
    try:
        array = np.array(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{what} must be {math.prod(shape)} numbers") from error
    if array.size != math.prod(shape):
        raise ValueError(f"{what} must be {math.prod(shape)} numbers, not {array.size}")
    if not (np.abs(array) < 1e300).all():
        raise ValueError(f"{what} holds a number that is not finite")
    return array.reshape(*shape)


def rigid(pose: Any) -> np.ndarray:
    """A rigid transform (4, 4) from 3 or 4 rows of 4 numbers; rounding of text files is undone.

    Raises:
        ValueError: if it is not finite, not a rotation and a translation, or farther away than float32 can tell.
    """
    try:
        rows = 3 if np.size(pose) == 12 else 4
    except ValueError as error:  # lists of unequal lengths
        raise ValueError("the pose must be 3 or 4 rows of 4 numbers") from error
    matrix = np.vstack([numbers(pose, (rows, 4), "the pose")[:3], [0, 0, 0, 1]])
    if rows == 4 and not np.allclose(np.array(pose, dtype=np.float64).reshape(4, 4)[3], [0, 0, 0, 1], atol=1e-5):
        raise ValueError("the last row of the pose is not 0 0 0 1; it may be transposed")
    rotation = matrix[:3, :3]
    small = rotation.clip(-2, 2)  # entries of a rotation are at most 1; larger ones would overflow below
    off = float(np.abs(small @ small.T - np.eye(3)).max())
    if not off <= ROTATION_TOLERANCE:
        raise ValueError(f"the pose is not a rotation and a translation (off by {off:.2g})")
    if np.linalg.det(rotation) < 0:
        raise ValueError("the pose holds a mirror image instead of a rotation")
    if (np.abs(matrix[:3, 3]) > MAX_COORDINATE).any():
        raise ValueError(f"the camera is more than {MAX_COORDINATE:g} units away")
    u, _, vh = np.linalg.svd(rotation)
    matrix[:3, :3] = u @ vh
    return matrix


def from_quaternion(q: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(w, x, y, z) of any length but 0, and a translation -> (4, 4)."""
    import torch

    from latent3d.geometry.rotations import quaternion_to_matrix

    if not np.linalg.norm(q) > 1e-6:
        raise ValueError("the quaternion of the pose is zero")
    matrix = np.eye(4)
    matrix[:3, :3] = quaternion_to_matrix(torch.from_numpy(q / np.linalg.norm(q))).numpy()
    matrix[:3, 3] = t
    return matrix


def pinhole(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """Intrinsics (3, 3)."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def check_intrinsics(k: np.ndarray, height: int, width: int) -> None:
    """Raise ValueError where focal lengths or the principal point cannot belong to a picture of that size."""
    if not np.isfinite(k).all():
        raise ValueError("the intrinsics are not finite")
    if not (1e-2 * width < k[0, 0] < 1e3 * width and 1e-2 * height < k[1, 1] < 1e3 * height):
        raise ValueError(
            f"the focal lengths {k[0, 0]:.4g} and {k[1, 1]:.4g} do not belong to a picture of {width} x {height} pixels"
        )
    if not (-width < k[0, 2] < 2 * width and -height < k[1, 2] < 2 * height):
        raise ValueError("the principal point is far outside the picture; it must be in pixels")


def find_picture(folder: Path, name: str, *others: str) -> Path:
    """The file of a picture: as named, with a usual suffix added, or in a folder of reduced copies (``images_4``).

    Args:
        others: folders of the capture in which pictures of that file name may lie instead.

    Raises:
        FileNotFoundError: if it is nowhere.
        ValueError: if the name cannot be one.
    """
    if not name or "\0" in name or len(name) > 1000:
        raise ValueError("the name of the picture is not one")
    plain = Path(name.replace("\\", "/"))
    places = [folder / plain]
    places += [folder / f"{plain.parent}_{factor}" / plain.name for factor in (2, 4, 8) if plain.parent != Path(".")]
    places += [folder / other / part for other in others for part in dict.fromkeys((plain, Path(plain.name)))]
    for place in places:
        for candidate in (place, *(place.with_name(place.name + suffix) for suffix in PICTURES)):
            if candidate.is_file():
                return candidate
    raise FileNotFoundError(f"there is no picture '{folder / plain}'")
