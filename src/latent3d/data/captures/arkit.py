"""ARKit recordings: the per-frame JSON of scanner apps, and ARKitScenes. Scene units are metres, depth is in mm.

- Scanner apps: ``frame_00000.jpg`` with ``frame_00000.json`` (``cameraPoseARFrame``: 16 numbers, camera to world,
  OpenGL axes; ``intrinsics``: 9 numbers, both by rows), and maybe ``depth_00000.png``.
- ARKitScenes: ``lowres_wide/ID_TIME.png``, ``lowres_wide_intrinsics/ID_TIME.pincam`` (width height fx fy cx cy),
  ``lowres_wide.traj`` (time, axis times angle, translation; world to camera, OpenCV axes) and ``lowres_depth``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from latent3d.data.captures.capture import Capture
from latent3d.data.captures.collect import Collector, Reading, from_quaternion, numbers, pinhole, read_json, read_lines
from latent3d.data.captures.pictures import PICTURES, DepthFile, picture_size

MILLIMETRE = 0.001
TIME_TOLERANCE = 0.05
"""A picture of ARKitScenes whose nearest pose is farther away than this many seconds has none."""


def is_scanner_app(folder: Path) -> bool:
    """Whether a folder is a scanner app's export."""
    return any(True for _ in folder.glob("frame_*.json"))


def read_scanner_app(folder: Path, reading: Reading) -> Capture:
    """Per-frame JSON beside pictures."""
    collector = Collector(folder, "arkit", reading, axes="opengl", metric=True)
    for path in sorted(folder.glob("frame_*.json")):
        with collector.frame(path.stem):
            content = read_json(path)
            if not isinstance(content, dict):
                raise ValueError("its JSON is not an object")
            picture = next((path.with_suffix(s) for s in PICTURES if path.with_suffix(s).is_file()), None)
            if picture is None:
                raise FileNotFoundError(path.stem)
            pose = numbers(content.get("cameraPoseARFrame", content.get("transform")), (4, 4), "'cameraPoseARFrame'")
            k = numbers(content.get("intrinsics"), (3, 3), "'intrinsics'")
            depth = DepthFile(path.with_name(path.name.replace("frame_", "depth_")).with_suffix(".png"), MILLIMETRE)
            collector.add(path.stem, pose, k, picture_size(picture), picture, depth=depth)
    return collector.capture()


def is_arkitscenes(folder: Path) -> bool:
    """Whether a folder is a recording of ARKitScenes."""
    return (folder / "lowres_wide.traj").is_file() and (folder / "lowres_wide").is_dir()


def read_arkitscenes(folder: Path, reading: Reading) -> Capture:
    """The wide camera at low resolution; every picture takes the pose that is nearest in time."""
    import torch

    from latent3d.geometry.rotations import from_rotation_vector

    collector = Collector(folder, "arkitscenes", reading, world_to_camera=True, metric=True)
    times, poses = [], []
    for index, line in enumerate(read_lines(folder / "lowres_wide.traj")):
        with collector.frame(f"pose {index}"):
            row = numbers(line.split(), (7,), "a line of lowres_wide.traj")
            turn = from_rotation_vector(torch.from_numpy(row[1:4])).numpy()
            times.append(float(row[0]))
            poses.append(from_quaternion(turn, row[4:]))
    if not poses:
        raise ValueError(f"'{folder / 'lowres_wide.traj'}' holds no usable pose; download it again")
    for picture in sorted(path for path in (folder / "lowres_wide").iterdir() if path.suffix.lower() in PICTURES):
        with collector.frame(picture.stem):
            time = _time(picture.stem)
            nearest = int(np.argmin(np.abs(np.array(times) - time)))
            if abs(times[nearest] - time) > TIME_TOLERANCE:
                raise ValueError(f"no pose within {TIME_TOLERANCE} s of its time")
            words = read_lines(folder / "lowres_wide_intrinsics" / f"{picture.stem}.pincam")
            values = numbers(" ".join(words).split(), (6,), "the .pincam file")
            size = (round(float(values[1])), round(float(values[0])))
            depth = DepthFile(folder / "lowres_depth" / f"{picture.stem}.png", MILLIMETRE)
            collector.add(picture.stem, poses[nearest], pinhole(*values[2:]), size, picture, depth=depth)
    return collector.capture()


def _time(stem: str) -> float:
    try:
        return float(stem.rpartition("_")[2])
    except ValueError as error:
        raise ValueError("its name does not end in a time") from error
