"""`Capture`: pictures of one place with the cameras that took them, whatever the files they came from.

Cameras are OpenCV's, camera to world, as everywhere. A capture holds names and numbers only; pictures are read,
freed of lens distortion and cut to size when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from latent3d.data.captures.lens import Lens, undistort, undistorted_intrinsics
from latent3d.data.captures.pictures import DepthFile, VideoMoment, read_depth, read_pictures
from latent3d.geometry.cameras import Cameras
from latent3d.io.images import fit_cameras, fit_to
from latent3d.representations.views import Views


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture and its camera.

    Attributes:
        name: as the capture calls it.
        c2w: camera to world, OpenCV axes, (4, 4) float64, scene units.
        k: intrinsics in pixels of a picture of ``height`` x ``width``, (3, 3) float64.
        picture: file, or moment of a film; None where a capture has cameras only.
        lens: its distortion.
        depth: file of z-depths, if there is one.
    """

    name: str
    c2w: np.ndarray
    k: np.ndarray
    height: int
    width: int
    picture: Path | VideoMoment | None = None
    lens: Lens = field(default_factory=Lens)
    depth: DepthFile | None = None


@dataclass(frozen=True, eq=False)
class Capture:
    """A posed capture.

    Attributes:
        folder: where it was read.
        layout: name of the layout it was read as.
        frames: the usable frames in file order.
        missing: frames that are named but whose picture is not there.
        problems: frames that cannot be used, one sentence each.
        notes: what else a person should know, one sentence each.
        metric: whether the layout promises scene units of one metre.
        axes: axes in which the file's poses were taken ("opencv" or "opengl"), before conversion.
        inverse: whether its matrices were taken the other way round than the layout says.
        points: sparse points of the place (N, 3), scene units, where the files have them.
    """

    folder: Path
    layout: str
    frames: tuple[Frame, ...]
    missing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    metric: bool = False
    axes: str = "opencv"
    inverse: bool = False
    points: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def name(self) -> str:
        """Name of the capture's folder (of its file where several captures share a folder)."""
        path = self.folder.resolve()
        return path.stem if path.suffix else path.name

    @property
    def c2w(self) -> np.ndarray:
        """All poses, camera to world, (N, 4, 4)."""
        return np.stack([frame.c2w for frame in self.frames])

    @property
    def has_pictures(self) -> bool:
        """Whether every frame has a picture (a capture may consist of cameras only)."""
        return all(frame.picture is not None for frame in self.frames)

    @property
    def has_depth(self) -> bool:
        """Whether any frame has a file of depths."""
        return any(frame.depth is not None for frame in self.frames)

    def cameras(self, indices: Sequence[int] | None, height: int, width: int) -> Cameras:
        """Pinhole cameras (N,) of frames as `load` would give them, float32, without reading a picture."""
        chosen = self.frames if indices is None else [self.frames[i] for i in indices]
        return Cameras.cat([fit_cameras(_camera(frame), height, width) for frame in chosen]).to(torch.float32)

    def load(self, indices: Sequence[int], height: int, width: int) -> Views:
        """Frames by number, undistorted, cut to the largest centred window of the aspect and resized.

        Returns:
            images (N, 3, height, width), cameras (N,), depths (N, 1, height, width) or None where none of these frames
            has a file of depths.

        Raises:
            ValueError: if a frame has no picture, or it cannot be read.
        """
        frames = [self.frames[i] for i in indices]
        bare = [frame.name for frame in frames if frame.picture is None]
        if bare or not frames:
            raise ValueError(f"'{self.folder}' has cameras only: there is no picture for frame {bare[:1]}")
        pictures = read_pictures([(frame.picture, frame.height, frame.width) for frame in frames if frame.picture])
        parts = [_fitted(frame, image, height, width) for frame, image in zip(frames, pictures, strict=True)]
        depths = None
        if any(frame.depth is not None for frame in frames):
            depths = torch.stack([_fitted_depth(frame, height, width) for frame in frames])
        images = torch.stack([image for image, _ in parts])
        return Views(images, Cameras.cat([camera for _, camera in parts]).to(torch.float32), depths)

    def scaled(self, factor: float) -> Capture:
        """The same place in other units: translations, points and depths times ``factor``."""
        if not (np.isfinite(factor) and factor > 0):
            raise ValueError(f"a capture is scaled by a positive number, not {factor}")
        scale = np.array([[1, 1, 1, factor]] * 3 + [[1, 1, 1, 1]])
        frames = tuple(
            replace(
                frame,
                c2w=frame.c2w * scale,
                depth=None if frame.depth is None else replace(frame.depth, unit=frame.depth.unit * factor),
            )
            for frame in self.frames
        )
        points = None if self.points is None else self.points * factor
        return replace(self, frames=frames, points=points, metric=self.metric and factor == 1)

    def verified(self, on_frame: Callable[[], object] | None = None) -> Capture:
        """Read every picture and depth once; frames that cannot be read move to ``problems``.

        Raises:
            ValueError: if no frame is left.
        """
        kept, problems = [], list(self.problems)
        for index, frame in enumerate(self.frames):
            try:
                self.load([index], 16, 16)
                kept.append(frame)
            except (ValueError, FileNotFoundError) as error:
                problems.append(f"{frame.name}: {error}")
            if on_frame:
                on_frame()
        if not kept:
            raise ValueError(f"'{self.folder}' has no usable frame; the first problem is: {problems[0]}")
        return replace(self, frames=tuple(kept), problems=tuple(problems))


def _camera(frame: Frame) -> Cameras:
    """Pinhole camera of a frame after its distortion was undone, float64, no batch shape of its own but (1,)."""
    k = undistorted_intrinsics(frame.lens, frame.k, frame.height, frame.width)
    return Cameras.from_c2w(
        torch.from_numpy(frame.c2w)[None], torch.from_numpy(k.copy())[None], frame.height, frame.width
    )


def _fitted(frame: Frame, image: np.ndarray, height: int, width: int) -> tuple[Tensor, Cameras]:
    """Picture (H, W, 3) float32 of any resolution -> (3, height, width) and its camera, batch shape (1,)."""
    h, w = image.shape[:2]
    stated = Cameras.from_c2w(
        torch.from_numpy(frame.c2w)[None], torch.from_numpy(frame.k.copy())[None], frame.height, frame.width
    ).resized(h, w)
    picture, k = undistort(image, frame.lens, stated.k[0].numpy())
    camera = replace(stated, k=torch.from_numpy(np.array(k))[None])
    fitted, camera, _ = fit_to(
        rearrange(torch.from_numpy(picture), "h w c -> c h w").contiguous(), camera, height, width
    )
    return fitted, camera


def _fitted_depth(frame: Frame, height: int, width: int) -> Tensor:
    """z-depths (1, height, width) by the nearest pixel, in scene units; 0 where unknown or where there is no file."""
    if frame.depth is None:
        return torch.zeros(1, height, width)
    depth = read_depth(frame.depth)
    h, w = depth.shape
    k = frame.k * np.array([[w / frame.width], [h / frame.height], [1.0]])
    flat, k = undistort(depth, frame.lens, k, nearest=True)
    stated = Cameras.from_c2w(torch.from_numpy(frame.c2w)[None], torch.from_numpy(np.array(k))[None], h, w)
    rows, columns = nearest_pixels(stated, fit_cameras(_camera(frame), height, width))
    return torch.from_numpy(flat)[rows[:, None], columns][None]


def nearest_pixels(stored: Cameras, wanted: Cameras) -> tuple[Tensor, Tensor]:
    """Rows and columns of a stored map that show the rays of a wanted picture, both of one camera, batch shape (1,)."""
    (fx, fy), (cx, cy) = wanted.k[0, [0, 1], [0, 1]], wanted.k[0, :2, 2]
    (gx, gy), (dx, dy) = stored.k[0, [0, 1], [0, 1]], stored.k[0, :2, 2]
    x = (torch.arange(wanted.width) + 0.5 - cx) / fx * gx + dx
    y = (torch.arange(wanted.height) + 0.5 - cy) / fy * gy + dy
    return y.floor().long().clamp(0, stored.height - 1), x.floor().long().clamp(0, stored.width - 1)
