"""Two small layouts of rendered or exported cameras: G-Objaverse's folders, and arrays in an ``.npz`` file.

- G-Objaverse: ``NNNNN/NNNNN.json`` with ``x y z`` (the camera's OpenCV axes in the world), ``origin``, ``x_fov`` and
  ``y_fov`` in radians; ``NNNNN.png`` (RGBA) and ``NNNNN_nd.exr`` (normal in B, G, R, z-depth in A).
- Arrays: ``w2c`` or ``viewmats`` (N, 4, 4), OpenCV axes, ``intrinsics`` or ``Ks`` (N, 3, 3) in pixels, and
  the height and width of the pictures.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from latent3d.data.captures.capture import Capture
from latent3d.data.captures.collect import Collector, Reading, number, numbers, pinhole, read_json
from latent3d.data.captures.pictures import DepthFile, picture_size


def gobjaverse_of(folder: Path) -> list[Path]:
    """The camera files of a G-Objaverse object."""
    return [path for path in sorted(folder.glob("[0-9]*/[0-9]*.json")) if path.stem == path.parent.name]


def read_gobjaverse(folder: Path, reading: Reading) -> Capture:
    """One object. A folder that holds one object in a folder of its own is read as that object."""
    collector = Collector(folder, "gobjaverse", reading)
    for path in gobjaverse_of(folder):
        with collector.frame(path.stem):
            content = read_json(path)
            if not isinstance(content, dict):
                raise ValueError("its JSON is not an object")
            picture = path.with_suffix(".png")
            height, width = picture_size(picture)
            columns = [numbers(content.get(axis), (3,), f"'{axis}'") for axis in ("x", "y", "z", "origin")]
            fov_x, fov_y = (number(content.get(f"{axis}_fov"), f"'{axis}_fov'") for axis in "xy")
            if not (0 < fov_x < math.pi and 0 < fov_y < math.pi):
                raise ValueError("the fields of view must lie between 0 and pi")
            focal = (0.5 * width / math.tan(fov_x / 2), 0.5 * height / math.tan(fov_y / 2))
            most = number(content.get("max_depth"), "'max_depth'", math.inf)
            depth = DepthFile(path.with_name(f"{path.stem}_nd.exr"), 1.0, "A", most)
            k = pinhole(*focal, width / 2, height / 2)
            collector.add(path.stem, np.stack(columns, 1), k, (height, width), picture, depth=depth)
    return collector.capture()


def arrays_of(folder: Path) -> Path | None:
    """The camera arrays of a folder, if it holds just one ``.npz``."""
    found = sorted(folder.glob("*.npz"))
    return found[0] if len(found) == 1 else None


def read_arrays(path: Path, reading: Reading) -> Capture:
    """Cameras without pictures; ``means3d`` or ``points`` (N, 3) become the sparse points."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file '{path}'; check the name")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"'{path}' is not a file of arrays that can be read; it may be cut short") from error
    chosen = {}
    for what, names in {
        "poses": ("w2c", "viewmats"),
        "intrinsics": ("intrinsics", "Ks", "K"),
        "height": ("image_height", "height"),
        "width": ("image_width", "width"),
    }.items():
        name = next((name for name in names if name in arrays), None)
        if name is None:
            raise ValueError(f"'{path}' holds no array {' or '.join(names)}; it is not a file of cameras")
        chosen[what] = arrays[name]
    poses, intrinsics = chosen["poses"], chosen["intrinsics"]
    if poses.ndim != 3 or intrinsics.ndim != 3 or len(poses) != len(intrinsics):
        raise ValueError(f"'{path}': poses and intrinsics must be (N, 4, 4) and (N, 3, 3) with one N")
    size = tuple(round(float(numbers(chosen[side], (1,), side)[0])) for side in ("height", "width"))
    collector = Collector(path, "arrays", reading, world_to_camera=True)
    for index in range(len(poses)):
        with collector.frame(f"{index:04d}"):
            k = numbers(intrinsics[index], (3, 3), "the intrinsics")
            collector.add(f"{index:04d}", poses[index], k, (size[0], size[1]), None)
    points = arrays.get("means3d", arrays.get("points"))
    if points is not None and points.ndim == 2 and points.shape[1] == 3:
        collector.points = points[np.isfinite(points).all(1)].astype(np.float64)
    return collector.capture()
