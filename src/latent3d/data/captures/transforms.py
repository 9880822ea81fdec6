"""``transforms.json``: nerfstudio, instant-ngp, DL3DV, ScanNet++ (DSLR) and the Blender scenes of NeRF.

Poses are camera to world in OpenGL axes (``transform_matrix``). Intrinsics stand at the top or in each frame: ``fl_x
fl_y cx cy w h`` in pixels, or only ``camera_angle_x`` in radians (Blender). ``camera_model`` is OPENCV (k1 k2 k3 p1 p2)
unless it says PINHOLE or OPENCV_FISHEYE (k1 .. k4).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from latent3d.data.captures.capture import Capture
from latent3d.data.captures.collect import Collector, Reading, find_picture, number, pinhole, read_json
from latent3d.data.captures.lens import Lens
from latent3d.data.captures.pictures import DepthFile, picture_size

MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV_FISHEYE")
SPLITS = ("transforms_train.json", "transforms_val.json", "transforms_test.json")
MILLIMETRE = 0.001


def file_of(folder: Path) -> Path | None:
    """``transforms.json`` of a nerfstudio, instant-ngp or DL3DV folder."""
    places = (folder / "transforms.json", folder / "nerfstudio" / "transforms.json")
    return next((place for place in places if place.is_file()), None)


def read_transforms(path: Path, reading: Reading) -> Capture:
    """One ``transforms.json`` and the pictures beside it (or in a folder of reduced copies, as DL3DV has them)."""
    collector = Collector(path.parent, "transforms", reading, axes="opengl")
    _read_into(collector, path, path.parent)
    return collector.capture()


def is_blender(folder: Path) -> bool:
    """Whether a folder holds the split files of NeRF's Blender scenes."""
    return any((folder / name).is_file() for name in SPLITS)


def read_blender(folder: Path, reading: Reading) -> Capture:
    """``transforms_{train,val,test}.json``, one after the other; frames are named by their split's file paths."""
    collector = Collector(folder, "blender", reading, axes="opengl")
    for name in SPLITS:
        if (folder / name).is_file():
            _read_into(collector, folder / name, folder)
    return collector.capture()


def is_scannetpp(folder: Path) -> bool:
    """Whether a folder is a scene of ScanNet++ with its DSLR pictures."""
    return (folder / "dslr" / "nerfstudio" / "transforms.json").is_file()


def read_scannetpp(folder: Path, reading: Reading) -> Capture:
    """The DSLR pictures of a ScanNet++ scene, training and test frames; scene units are metres."""
    collector = Collector(folder, "scannetpp", reading, axes="opengl", metric=True)
    path = folder / "dslr" / "nerfstudio" / "transforms.json"
    _read_into(collector, path, folder / "dslr", "resized_images", "undistorted_images", "images", "original_images")
    return collector.capture()


def _read_into(collector: Collector, path: Path, root: Path, *others: str) -> None:
    content = read_json(path)
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list):
        raise ValueError(f"'{path}' has no list 'frames'; it is not a transforms.json of nerfstudio or instant-ngp")
    tests = content.get("test_frames")
    frames = frames + (tests if isinstance(tests, list) else [])
    if "applied_transform" in content:
        collector.notes.append("The file says that its world was turned (applied_transform); it is kept turned.")
    factor = content.get("integer_depth_scale", content.get("depth_unit_scale_factor"))
    with_bad = 0
    for index, frame in enumerate(frames):
        name = frame.get("file_path") if isinstance(frame, dict) else None
        with collector.frame(str(name or f"frame {index}")):
            if not isinstance(name, str):
                raise ValueError("a frame must be an object with 'file_path' and 'transform_matrix'")
            with_bad += bool(frame.get("is_bad"))
            picture = find_picture(root, name.removeprefix("./"), *others)
            size, k, lens = _camera(content | frame, picture)
            depth = _depth(frame, root, number(factor, "the depth scale", MILLIMETRE))
            collector.add(name, frame.get("transform_matrix"), k, size, picture, lens, depth)
    if with_bad:
        collector.notes.append(f"The file marks {with_bad} frames as bad (blurred); they are kept.")


def _camera(values: dict[str, Any], picture: Path) -> tuple[tuple[int, int], Any, Lens]:
    """(height, width), intrinsics and lens of a frame whose own entries override those at the top."""
    stored = picture_size(picture) if not {"w", "h"} <= values.keys() else (0, 0)
    width, height = (number(values.get(key), f"'{key}'", stored[i]) for key, i in (("w", 1), ("h", 0)))
    focal = values.get("fl_x")
    if focal is None:
        angle = number(values.get("camera_angle_x"), "'fl_x' or 'camera_angle_x'")
        if not 0 < angle < math.pi:
            raise ValueError(f"'camera_angle_x' is {angle:.4g}; it must lie between 0 and pi")
        focal = 0.5 * width / math.tan(angle / 2)
    fx = number(focal, "'fl_x'")
    fy = number(values.get("fl_y"), "'fl_y'", fx)
    k = pinhole(fx, fy, number(values.get("cx"), "'cx'", width / 2), number(values.get("cy"), "'cy'", height / 2))
    model = values.get("camera_model", "OPENCV")
    if model not in MODELS:
        raise ValueError(f"the camera model {model!r} is not one of {', '.join(MODELS)}; undistort the pictures first")
    names = ("k1", "k2", "k3", "k4") if model == "OPENCV_FISHEYE" else ("k1", "k2", "p1", "p2", "k3")
    coefficients = tuple(number(values.get(key), f"'{key}'", 0.0) for key in names)
    lens = Lens(coefficients, fisheye=model == "OPENCV_FISHEYE")
    return (round(height), round(width)), k, Lens() if lens.is_pinhole or "PINHOLE" in model else lens


def _depth(frame: dict[str, Any], root: Path, unit: float) -> DepthFile | None:
    name = frame.get("depth_file_path", frame.get("depth_path"))
    return DepthFile(root / name, unit) if isinstance(name, str) else None
