"""Camera files: our own ``cameras.json`` (written and read) and RealEstate10K text files (read).

The format of ``cameras.json``, version 1 (axes: OpenCV, +x right, +y down, +z forward; first pixel centre (0.5, 0.5))::

    {
      "format": "latent3d-cameras", "version": 1,
      "width": 640, "height": 480,
      "frames": [
        {"image": "photo.jpg", "camera_to_world": [[...4] x 4], "K": [[...3] x 3]},
        {"camera_to_world": [[...4] x 4], "K": [[...3] x 3]}
      ]
    }

- ``width`` and ``height`` in pixels stand at the top or in each frame. Frames of different sizes must share one aspect.
- ``image`` (or ``file``) names the picture that a camera took. ``is_reference`` (true or false) marks frames that
  come with a picture without naming it.
- Which frames are references when pictures are given: those whose ``image`` names one of them (same path, or same file
  name); in a file that names no image, the frames marked ``is_reference``, in order; if none is marked, the first ones.
- A frame may carry ``dist`` (lens distortion); values other than 0 are reported, since cameras here are pinholes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.io.atomic import write_text

FORMAT = "latent3d-cameras"
VERSION = 1
MAX_BYTES = 64_000_000
MAX_FRAMES = 20_000
MAX_PIXELS_SIDE = 65_536
MAX_COORDINATE = 1e6
"""Camera centres farther from the origin than this, in scene units, lose all detail in float32."""
ROTATION_TOLERANCE = 1e-3
"""Greatest deviation of R R^T from the identity that rounding in a text file may explain."""


@dataclass(frozen=True)
class CameraFile:
    """What a camera file says.

    Attributes:
        cameras: batch shape (N,), in file order, one image size.
        images: for each camera the picture it names, or None.
        is_reference: for each camera whether the file marks it.
        notes: what was done on reading, one sentence each.
    """

    cameras: Cameras
    images: tuple[str | None, ...]
    is_reference: tuple[bool, ...]
    notes: tuple[str, ...] = ()


def write_cameras(
    path: str | Path,
    cameras: Cameras,
    images: Sequence[str | None] | None = None,
    is_reference: Sequence[bool] | None = None,
    *,
    entries: Sequence[dict[str, Any]] | None = None,
) -> None:
    """Write ``cameras.json``, atomically.

    Args:
        cameras: batch shape (N,).
        images, is_reference: for each camera, the picture it took and whether it is a reference.
        entries: for each camera what else its frame says, such as ``depth``.

    Raises:
        ValueError: if a value is not finite or a list has the wrong length.
    """
    n = len(cameras)
    images = [None] * n if images is None else list(images)
    marks = [False] * n if is_reference is None else [bool(mark) for mark in is_reference]
    more = [{}] * n if entries is None else list(entries)
    if len(images) != n or len(marks) != n or len(more) != n:
        raise ValueError(
            f"{n} cameras need {n} image names, marks and entries; got {len(images)}, {len(marks)} and {len(more)}"
        )
    c2w, k = cameras.c2w.detach().double().cpu(), cameras.k.detach().double().cpu()
    if not bool(torch.isfinite(c2w).all() and torch.isfinite(k).all()):
        raise ValueError("the cameras hold values that are not finite; nothing was written")
    frames = []
    for index in range(n):
        frame: dict[str, Any] = {} if images[index] is None else {"image": str(images[index])}
        if marks[index]:
            frame["is_reference"] = True
        frames.append(frame | {"camera_to_world": c2w[index].tolist(), "K": k[index].tolist()} | more[index])
    head = {
        "format": FORMAT,
        "version": VERSION,
        "convention": "camera_to_world 4x4, OpenCV axes (x right, y down, z forward); K in pixels, "
        "centre of the first pixel at (0.5, 0.5)",
        "width": cameras.width,
        "height": cameras.height,
        "frames": frames,
    }
    write_text(path, json.dumps(head, indent=1, allow_nan=False) + "\n")


def read_cameras(path: str | Path, dtype: torch.dtype = torch.float32) -> CameraFile:
    """Read ``cameras.json``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file and the frame, for anything that is not a valid list of cameras.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no camera file '{path}'; check the name")
    content = _parse(path)
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        raise ValueError(f"the camera file '{path}' has no list 'frames'; see the format in docs/formats.md")
    if content.get("format", FORMAT) != FORMAT or content.get("version", VERSION) != VERSION:
        raise ValueError(f"the camera file '{path}' is not of the format {FORMAT}, version {VERSION}; convert it first")
    frames = content["frames"]
    if not 1 <= len(frames) <= MAX_FRAMES:
        raise ValueError(f"the camera file '{path}' has {len(frames)} frames; give 1 to {MAX_FRAMES}")
    poses, intrinsics, sizes, images, marks, distorted = [], [], [], [], [], 0
    for index, frame in enumerate(frames):
        where = f"the camera file '{path}', frame {index}"
        if not isinstance(frame, dict):
            raise ValueError(f"{where}: a frame must be an object with 'camera_to_world' and 'K'")
        image = frame.get("image", frame.get("file"))
        if image is not None and not isinstance(image, str):
            raise ValueError(f"{where}: 'image' must be a file name")
        mark = frame.get("is_reference", False)
        if not isinstance(mark, bool):
            raise ValueError(f"{where}: 'is_reference' must be true or false")
        if image:
            where += f" ('{image}')"
        size = _size(frame, content, where)
        sizes.append(size)
        poses.append(_pose(frame.get("camera_to_world"), where))
        intrinsics.append(_intrinsics(frame.get("K"), size, where))
        images.append(image or None)
        marks.append(mark)
        distorted += _is_distorted(frame.get("dist"), where)
    notes = []
    if distorted:
        notes.append(f"{distorted} of {len(frames)} cameras state a lens distortion, which is not undone.")
    cameras = _join(poses, intrinsics, sizes, path, notes)
    return CameraFile(cameras.to(dtype), tuple(images), tuple(marks), tuple(notes))


def match_references(file: CameraFile, pictures: Sequence[str | Path], path: str | Path) -> list[int]:
    """Index of the camera of each picture, by the rules at the top of this module.

    Raises:
        ValueError: if a picture has no camera or several, or there are more pictures than cameras.
    """
    names = [Path(picture) for picture in pictures]
    if len(names) > len(file.cameras):
        raise ValueError(
            f"{len(names)} images were given but the camera file '{path}' has only {len(file.cameras)} cameras; "
            "give one camera for each image and at least one more for a view to generate"
        )
    if not any(file.images):
        marked = [index for index, mark in enumerate(file.is_reference) if mark]
        if marked and len(marked) != len(names):
            raise ValueError(
                f"the camera file '{path}' marks {len(marked)} references but {len(names)} images were given; "
                "give one image for each marked frame"
            )
        return marked or list(range(len(names)))
    found = []
    for name in names:
        exact = [i for i, image in enumerate(file.images) if image and _same_file(Path(path).parent / image, name)]
        same = exact or [i for i, image in enumerate(file.images) if image and Path(image).name == name.name]
        if len(same) != 1:
            what = "no frame" if not same else f"{len(same)} frames"
            raise ValueError(f"the camera file '{path}' has {what} for the image '{name}'; name it in exactly one")
        found.append(same[0])
    if len(set(found)) != len(found):
        raise ValueError(f"two of the images belong to one frame of the camera file '{path}'; give each image once")
    return found


def _same_file(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and first.samefile(second)


def read_realestate(path: str | Path, height: int, width: int) -> tuple[Cameras, Tensor]:
    """Read a RealEstate10K camera file for a given image size.

    Lines after the first hold a time in microseconds, fx fy cx cy as fractions of the image size, two zeros (lens
    distortion) and the 3x4 world-to-camera matrix by rows.

    Returns:
        cameras (N,) in float32 and times in seconds (N,), float64.

    Raises:
        FileNotFoundError, ValueError: as `read_cameras`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no camera file '{path}'; check the name")
    lines = path.read_bytes()[:MAX_BYTES].decode("utf-8", errors="replace").splitlines()[1:]
    rows = []
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            row = []
        if len(row) != 19 or not all(math.isfinite(value) for value in row):
            raise ValueError(f"'{path}', line {number}: expected 19 numbers, the RealEstate10K camera layout")
        rows.append(row)
    if not rows:
        raise ValueError(f"'{path}' holds no camera; give a RealEstate10K camera file")
    table = torch.tensor(rows, dtype=torch.float64)
    size = table.new_tensor([width, height, width, height])
    fx, fy, cx, cy = (table[:, 1:5] * size).unbind(-1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    k = torch.stack([fx, zero, cx, zero, fy, cy, zero, zero, one], -1).reshape(-1, 3, 3)
    bottom = table.new_tensor([0, 0, 0, 1]).expand(len(rows), 1, 4)
    w2c = torch.cat([table[:, 7:].reshape(-1, 3, 4), bottom], dim=1)
    for index in range(len(rows)):
        _check_rotation(w2c[index, :3, :3], f"'{path}', camera {index}")
    w2c[:, :3, :3] = _nearest_rotation(w2c[:, :3, :3])
    return Cameras(w2c.float(), k.float(), height, width), table[:, 0] / 1e6


def _parse(path: Path) -> Any:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"the camera file '{path}' is larger than {MAX_BYTES // 1_000_000} MB; it cannot be one")

    def refuse(name: str) -> float:
        raise ValueError(f"the camera file '{path}' holds {name}; every number must be finite")

    try:
        text = path.read_bytes().decode("utf-8-sig")
        return json.loads(text, parse_constant=refuse)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"the camera file '{path}' is not valid JSON ({error}); correct or export it again") from error


def _numbers(value: Any, rows: int, columns: int, name: str, where: str) -> Tensor:
    """Nested list -> float64 matrix of exactly that shape."""
    right = isinstance(value, list) and len(value) == rows
    right = right and all(isinstance(row, list) and len(row) == columns for row in value)
    if not right:
        raise ValueError(f"{where}: '{name}' must be {rows} rows of {columns} numbers")
    for number in (item for row in value for item in row):
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"{where}: '{name}' holds {str(number)[:40]!r}, which is not a number")
        if not abs(number) < 1e300:  # also catches the infinities that 1e999 parses to, and huge integers
            raise ValueError(f"{where}: '{name}' holds a number that is not finite")
    return torch.tensor([[float(item) for item in row] for row in value], dtype=torch.float64)


def _pose(value: Any, where: str) -> Tensor:
    pose = _numbers(value, 4, 4, "camera_to_world", where)
    if not torch.allclose(pose[3], pose.new_tensor([0, 0, 0, 1]), atol=1e-6):
        raise ValueError(f"{where}: the last row of 'camera_to_world' must be 0 0 0 1 (is the matrix transposed?)")
    if bool((pose[:3, 3].abs() > MAX_COORDINATE).any()):
        raise ValueError(f"{where}: the camera is more than {MAX_COORDINATE:g} units away; scale the scene down")
    _check_rotation(pose[:3, :3], where)
    pose[:3, :3] = _nearest_rotation(pose[:3, :3])
    return pose


def _check_rotation(rotation: Tensor, where: str) -> None:
    error = float((rotation @ rotation.mT - torch.eye(3, dtype=rotation.dtype)).abs().max())
    if not error <= ROTATION_TOLERANCE:
        raise ValueError(
            f"{where}: the upper left 3x3 is not a rotation (off by {error:.2g}); remove scale and shear from the poses"
        )
    if float(torch.linalg.det(rotation)) < 0:
        raise ValueError(f"{where}: the upper left 3x3 is a mirror image; use OpenCV axes (x right, y down, z forward)")


def _nearest_rotation(matrix: Tensor) -> Tensor:
    """Orthogonal factor of the polar decomposition: undoes the rounding of text files."""
    u, _, vh = torch.linalg.svd(matrix)
    return u @ vh


def _intrinsics(value: Any, size: tuple[int, int], where: str) -> Tensor:
    k = _numbers(value, 3, 3, "K", where)
    height, width = size
    if not (1e-3 * width < float(k[0, 0]) < 1e3 * width and 1e-3 * height < float(k[1, 1]) < 1e3 * height):
        raise ValueError(f"{where}: the focal lengths in 'K' must be in pixels, of the order of the image size")
    rest = k - torch.diag(torch.stack([k[0, 0], k[1, 1], k.new_tensor(1.0)]))
    rest[0, 2] = rest[1, 2] = 0
    if bool((rest.abs() > 1e-6 * float(k[0, 0])).any()):
        raise ValueError(f"{where}: 'K' must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], without skew")
    if abs(float(k[0, 2])) > 4 * width or abs(float(k[1, 2])) > 4 * height:
        raise ValueError(f"{where}: the principal point in 'K' is far outside the image; give it in pixels")
    k[0, 1] = k[1, 0] = k[2, 0] = k[2, 1] = 0
    k[2, 2] = 1
    return k


def _size(frame: dict, content: dict, where: str) -> tuple[int, int]:
    """Height and width of a frame."""
    sides = []
    for name in ("height", "width"):
        value = frame.get(name, content.get(name))
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_PIXELS_SIDE:
            raise ValueError(f"{where}: '{name}' must be a whole number of pixels from 1 to {MAX_PIXELS_SIDE}")
        sides.append(value)
    return sides[0], sides[1]


def _is_distorted(value: Any, where: str) -> bool:
    if value is None:
        return False
    if not isinstance(value, list) or not all(isinstance(item, int | float) for item in value):
        raise ValueError(f"{where}: 'dist' must be a list of numbers")
    return any(item != 0 for item in value)


def _join(poses: list[Tensor], intrinsics: list[Tensor], sizes: list[tuple[int, int]], path: Path, notes: list[str]):
    """One `Cameras` record: every camera is scaled to the first one's image size."""
    height, width = sizes[0]
    parts = []
    for index, (pose, k, (h, w)) in enumerate(zip(poses, intrinsics, sizes, strict=True)):
        if abs(w * height - h * width) > 0.01 * w * height:
            raise ValueError(
                f"the camera file '{path}': frame {index} is {w} x {h} but the first is {width} x {height}; "
                "all cameras of a scene must share one aspect"
            )
        parts.append(Cameras.from_c2w(pose[None], k[None], h, w).resized(height, width))
    if len(set(sizes)) > 1:
        notes.append(f"Cameras of different image sizes were scaled to {width} x {height}.")
    return Cameras.cat(parts)
