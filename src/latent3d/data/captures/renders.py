"""Small layouts of rendered or exported cameras: G-Objaverse, ShapeNet, EG3D's faces, and arrays in an ``.npz`` file.

- G-Objaverse: ``NNNNN/NNNNN.json`` with ``x y z`` (the camera's OpenCV axes in the world), ``origin``, ``x_fov`` and
  ``y_fov`` in radians; ``NNNNN.png`` (RGBA) and ``NNNNN_nd.exr`` (normal in B, G, R, z-depth in A).
- ShapeNet, as scene representation networks and LN3Diff have it: ``rgb/NAME.png``, ``pose/NAME.txt`` (16 numbers,
  camera to world, OpenCV axes), maybe ``NAME_depth0001.exr`` (z-depth), maybe ``intrinsics.txt`` (its first line: focal
  length and principal point, its last line: height and width); without it the focal length is 525 at 512 pixels.
- EG3D: ``dataset.json`` with ``labels``, pairs of a picture's name and 25 numbers: camera to world by rows, OpenCV
  axes, and intrinsics for a picture of width and height 1. Every picture shows another object, all in one frame.
- Arrays: ``w2c`` or ``viewmats`` (N, 4, 4), OpenCV axes, ``intrinsics`` or ``Ks`` (N, 3, 3) in pixels, and
  the height and width of the pictures.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from latent3d.data.captures.capture import Capture
from latent3d.data.captures.collect import (
    Collector,
    Reading,
    find_picture,
    number,
    numbers,
    pinhole,
    read_json,
    read_lines,
)
from latent3d.data.captures.pictures import DepthFile, picture_size

SHAPENET_FOCAL = 525 / 512
"""Of the picture's width."""
SHAPENET_FARTHEST = 1e3
"""Blender writes 1e10, or the greatest number that fits, where a ray meets nothing."""


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


def is_shapenet(folder: Path) -> bool:
    """Whether a folder has renderings of a ShapeNet object. ScanNet's folders look alike: they come with intrinsics of
    their own, and their poses stand in four lines."""
    poses = sorted((folder / "pose").glob("*.txt"))
    if not poses or not (folder / "rgb").is_dir() or (folder / "intrinsic").is_dir() or (folder / "depth").is_dir():
        return False
    return len(read_lines(poses[0])) == 1 or any(True for _ in folder.rglob("*_depth*.exr"))


def read_shapenet(folder: Path, reading: Reading) -> Capture:
    """The renderings of one object; y or z is up, as the files have it."""
    collector = Collector(folder, "shapenet", reading)
    depths = {path.name.split("_depth")[0]: path for path in sorted(folder.rglob("*_depth*.exr"))}
    stated = _shapenet_intrinsics(folder / "intrinsics.txt")
    for path in sorted((folder / "pose").glob("*.txt")):
        with collector.frame(path.stem):
            picture = find_picture(folder / "rgb", path.stem)
            height, width = picture_size(picture)
            focal = SHAPENET_FOCAL * width
            k = pinhole(focal, focal, width / 2, height / 2)
            if stated is not None:
                (f, x, y), (stated_height, stated_width) = stated
                k = pinhole(f, f, x, y) * np.array([[width / stated_width], [height / stated_height], [1.0]])
            pose = numbers(" ".join(read_lines(path)).split(), (4, 4), "the pose")
            depth = depths.get(path.stem)
            file = None if depth is None else DepthFile(depth, 1.0, most=SHAPENET_FARTHEST)
            collector.add(path.stem, pose, k, (height, width), picture, depth=file)
    return collector.capture()


def _shapenet_intrinsics(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """(focal length, x, y of the principal point) and (height, width) for which they hold; None without a file."""
    if not path.is_file():
        return None
    lines = [line.split() for line in read_lines(path)]
    if len(lines) < 2 or len(lines[0]) < 3:
        raise ValueError(f"'{path}' must begin with a focal length and principal point and end with height and width")
    size = numbers(lines[-1], (2,), f"the last line of '{path}'")
    if not (size >= 1).all():
        raise ValueError(f"the last line of '{path}' must be the height and width in pixels")
    return numbers(lines[0][:3], (3,), f"the first line of '{path}'"), size


def read_eg3d(path: Path, reading: Reading) -> Capture:
    """``dataset.json`` of EG3D; each frame shows an object of its own."""
    content = read_json(path)
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, list) or not labels:
        raise ValueError(f"'{path}' has no list 'labels'; it is not a dataset.json of EG3D with cameras")
    collector = Collector(path.parent, "eg3d", reading)
    for index, entry in enumerate(labels):
        pair = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)
        with collector.frame(entry[0] if pair else f"label {index}"):
            if not pair:
                raise ValueError("a label must be a picture's name and 25 numbers")
            values = numbers(entry[1], (25,), "the camera")
            picture = find_picture(path.parent, entry[0])
            collector.add(entry[0], values[:16].reshape(4, 4), values[16:].reshape(3, 3), None, picture)
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
