"""Folders of colour and depth with one pose per frame. Scene units are metres; poses are camera to world, OpenCV axes.

- ScanNet's export: ``color/N.jpg``, ``depth/N.png``, ``pose/N.txt`` (4x4), ``intrinsic/intrinsic_color.txt``.
- 7-Scenes: ``frame-N.color.png``, ``frame-N.depth.png``, ``frame-N.pose.txt``; focal length 585 pixels at 640 x 480.
- TUM: ``rgb.txt``, ``groundtruth.txt`` and maybe ``depth.txt`` (time and file or pose), depth in 1/5000 m.

A file ``intrinsics.txt`` (3x3, or fx fy cx cy) beside them overrides what the layout takes for granted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from latent3d.data.captures.capture import Capture
from latent3d.data.captures.collect import Collector, Reading, from_quaternion, numbers, pinhole, read_lines
from latent3d.data.captures.pictures import PICTURES, DepthFile, picture_size

MILLIMETRE = 0.001
TUM_UNIT = 1 / 5000
INVALID_16_BIT = 65_534
"""7-Scenes marks unknown depth by 65535."""
TIME_TOLERANCE = 0.05


def is_scannet(folder: Path) -> bool:
    """Whether a folder has colour and poses as ScanNet's exporter writes them."""
    return (folder / "pose").is_dir() and _color_folder(folder) is not None


def _color_folder(folder: Path) -> Path | None:
    return next((folder / name for name in ("color", "rgb", "images") if (folder / name).is_dir()), None)


def read_scannet(folder: Path, reading: Reading) -> Capture:
    """``color``, ``depth`` and ``pose`` folders with files of one number each."""
    collector = Collector(folder, "scannet", reading, metric=True)
    color = _color_folder(folder)
    if color is None:
        raise FileNotFoundError(f"'{folder}' has no folder 'color'; give a folder with color, depth and pose")
    k = _intrinsics(folder, "intrinsic/intrinsic_color.txt", "intrinsics_color.txt", "intrinsic_color.txt")
    if k is None:
        raise FileNotFoundError(f"write fx fy cx cy in pixels into '{folder / 'intrinsics.txt'}', which is missing")
    pictures = {path.stem: path for path in color.iterdir() if path.suffix.lower() in PICTURES}
    for path in sorted((folder / "pose").glob("*.txt"), key=_by_number):
        with collector.frame(path.stem):
            if path.stem not in pictures:
                raise FileNotFoundError(path.stem)
            picture = pictures[path.stem]
            depth = next((d for d in (folder / "depth").glob(f"{path.stem}.*")), None)
            pose = numbers(" ".join(read_lines(path)).split(), (4, 4), "the pose")
            file = None if depth is None else DepthFile(depth, MILLIMETRE)
            collector.add(path.stem, pose, k, picture_size(picture), picture, depth=file)
    return collector.capture()


def is_seven_scenes(folder: Path) -> bool:
    """Whether a folder is a sequence of 7-Scenes."""
    return any(True for _ in folder.glob("frame-*.pose.txt"))


def read_seven_scenes(folder: Path, reading: Reading) -> Capture:
    """A sequence of 7-Scenes."""
    collector = Collector(folder, "7scenes", reading, metric=True)
    stated = _intrinsics(folder)
    for path in sorted(folder.glob("frame-*.pose.txt")):
        name = path.name.removesuffix(".pose.txt")
        with collector.frame(name):
            picture = folder / f"{name}.color.png"
            size = picture_size(picture)
            k = (
                stated
                if stated is not None
                else pinhole(585 * size[1] / 640, 585 * size[0] / 480, size[1] / 2, size[0] / 2)
            )
            pose = numbers(" ".join(read_lines(path)).split(), (4, 4), "the pose")
            depth = DepthFile(folder / f"{name}.depth.png", MILLIMETRE, most=INVALID_16_BIT)
            collector.add(name, pose, k, size, picture, depth=depth)
    if stated is None:
        collector.notes.append("The focal length is the one that 7-Scenes recommends, 585 pixels at 640 x 480.")
    return collector.capture()


def is_tum(folder: Path) -> bool:
    """Whether a folder is a sequence of the TUM RGB-D benchmark."""
    return all((folder / name).is_file() for name in ("rgb.txt", "groundtruth.txt"))


def read_tum(folder: Path, reading: Reading) -> Capture:
    """A TUM sequence; pictures take the pose and the depth nearest in time."""
    collector = Collector(folder, "tum", reading, metric=True)
    stated = _intrinsics(folder)
    poses: dict[float, np.ndarray] = {}
    for line in read_lines(folder / "groundtruth.txt"):
        with collector.frame(f"pose at {line.split()[0]}"):
            row = numbers(line.split(), (8,), "a line of groundtruth.txt")
            poses[float(row[0])] = from_quaternion(row[[7, 4, 5, 6]], row[1:4])
    if not poses:
        raise ValueError(f"'{folder / 'groundtruth.txt'}' holds no usable pose; download it again")
    depths = _stamped(collector, folder / "depth.txt") if (folder / "depth.txt").is_file() else {}
    for time, name in _stamped(collector, folder / "rgb.txt").items():
        with collector.frame(name):
            picture = folder / name
            size = picture_size(picture)
            scale = size[1] / 640
            k = stated if stated is not None else pinhole(*(scale * v for v in (525.0, 525.0, 319.5, 239.5)))
            pose = poses[_nearest(poses, time, "pose")]
            depth = None
            if depths and min(abs(other - time) for other in depths) <= TIME_TOLERANCE:
                depth = DepthFile(folder / depths[_nearest(depths, time, "depth")], TUM_UNIT)
            collector.add(name, pose, k, size, picture, depth=depth)
    if stated is None:
        collector.notes.append("The intrinsics are the benchmark's defaults (525 pixels at 640 x 480).")
    return collector.capture()


def _stamped(collector: Collector, path: Path) -> dict[float, str]:
    found = {}
    for line in read_lines(path):
        time, _, name = line.partition(" ")
        with collector.frame(line[:60]):
            found[float(numbers([time], (1,), "a time")[0])] = name.strip()
    return found


def _nearest(times: dict, time: float, what: str) -> float:
    best = min(times, key=lambda other: abs(other - time))
    if abs(best - time) > TIME_TOLERANCE:
        raise ValueError(f"no {what} within {TIME_TOLERANCE} s of its time")
    return best


def _intrinsics(folder: Path, *names: str) -> np.ndarray | None:
    """Intrinsics (3, 3) of a text file with 3x3, 4x4 or fx fy cx cy; None if there is none."""
    path = next((folder / name for name in ("intrinsics.txt", *names) if (folder / name).is_file()), None)
    if path is None:
        return None
    words = " ".join(read_lines(path)).split()
    where = f"'{path}'"
    if len(words) == 4:
        return pinhole(*numbers(words, (4,), where))
    side = 4 if len(words) == 16 else 3
    return pinhole(*numbers(words, (side, side), where)[[0, 1, 0, 1], [0, 1, 2, 2]])


def _by_number(path: Path) -> tuple[int, str]:
    return (int(path.stem) if path.stem.isdigit() else 0), path.stem
