"""COLMAP models, text or binary: ``cameras``, ``images`` and, where present, ``points3D``.

Poses are world to camera in OpenCV axes, a quaternion (w, x, y, z) and a translation; the picture's corner is (0, 0)
and the centre of its first pixel (0.5, 0.5), as here. The files are as COLMAP's documentation has them, little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latent3d.data.captures.capture import Capture
from latent3d.data.captures.collect import Collector, Reading, find_picture, from_quaternion, numbers, pinhole
from latent3d.data.captures.lens import Lens
from latent3d.io.camera_files import MAX_BYTES

MODELS = {
    0: ("SIMPLE_PINHOLE", 3), 1: ("PINHOLE", 4), 2: ("SIMPLE_RADIAL", 4), 3: ("RADIAL", 5), 4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8), 6: ("FULL_OPENCV", 12), 7: ("FOV", 5), 8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5), 10: ("THIN_PRISM_FISHEYE", 12),
}  # fmt: skip
"""Number, name and count of parameters of COLMAP's camera models."""
UNREAD = ("FOV", "THIN_PRISM_FISHEYE")
FOLDERS = (".", "sparse/0", "sparse", "colmap/sparse/0", "colmap", "dslr/colmap", "model")
IMAGES = ("images", "image", "input", "resized_images", "../images", "../../images", "../resized_images")
MAX_POINTS = 100_000


@dataclass(frozen=True)
class ColmapCamera:
    """A camera as COLMAP stores it; ``params`` in the order of its model."""

    model: str
    width: int
    height: int
    params: tuple[float, ...]

    def pinhole_and_lens(self) -> tuple[np.ndarray, Lens]:
        """Intrinsics (3, 3) in pixels and the lens.

        Raises:
            ValueError: for a model without counterpart here.
        """
        p = self.params
        if self.model in UNREAD or self.model not in {name for name, _ in MODELS.values()}:
            raise ValueError(
                f"COLMAP's camera model {self.model} is not read; undistort the pictures with COLMAP first"
            )
        if self.model.startswith("SIMPLE") or self.model.startswith("RADIAL"):
            k, rest = pinhole(p[0], p[0], p[1], p[2]), p[3:]
        else:
            k, rest = pinhole(*p[:4]), p[4:]
        if "FISHEYE" in self.model:
            return k, Lens((*rest, *[0.0] * (4 - len(rest))), fisheye=True)
        if len(rest) in (1, 2):
            rest = (*rest, *[0.0] * (4 - len(rest)))
        return k, Lens(rest) if any(rest) else Lens()


@dataclass(frozen=True)
class ColmapImage:
    """A registered picture: world to camera as (w, x, y, z, tx, ty, tz), its camera's number, its file name."""

    name: str
    pose: tuple[float, ...]
    camera: int


def model_of(folder: Path) -> Path | None:
    """The folder of the COLMAP model in a capture, text or binary."""
    for place in (folder / name for name in FOLDERS):
        for suffix in (".bin", ".txt"):
            if all((place / f"{part}{suffix}").is_file() for part in ("cameras", "images")):
                return place
    return None


def read_colmap(folder: Path, reading: Reading) -> Capture:
    """A capture with a COLMAP model in one of the usual places; pictures are found by name below the capture.

    Raises:
        FileNotFoundError, ValueError: if there is no model, a file of it is damaged, or no picture is usable.
    """
    model = model_of(folder)
    if model is None:
        raise FileNotFoundError(f"'{folder}' holds no COLMAP model; give the folder with cameras.bin or sparse/0")
    binary = (model / "cameras.bin").is_file() and (model / "images.bin").is_file()
    cameras = read_cameras_binary(model / "cameras.bin") if binary else read_cameras_text(model / "cameras.txt")
    images = read_images_binary(model / "images.bin") if binary else read_images_text(model / "images.txt")
    collector = Collector(folder, "colmap", reading, world_to_camera=True)
    places = [str(Path(place)) for place in IMAGES]
    for image in sorted(images, key=lambda item: item.name):
        with collector.frame(image.name):
            if image.camera not in cameras:
                raise ValueError(f"its camera {image.camera} is not in the model")
            camera = cameras[image.camera]
            k, lens = camera.pinhole_and_lens()
            pose = numbers(image.pose, (7,), "the pose")
            picture = find_picture(folder, image.name, *places)
            collector.add(
                image.name, from_quaternion(pose[:4], pose[4:]), k, (camera.height, camera.width), picture, lens
            )
    points = model / ("points3D.bin" if binary else "points3D.txt")
    if points.is_file():
        try:
            collector.points = read_points_binary(points) if binary else read_points_text(points)
        except ValueError as error:
            collector.notes.append(f"The sparse points were left out: {error}.")
    return collector.capture()


class _Bytes:
    """A binary file read from front to back, with one sentence for whatever is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.at = path, path.read_bytes(), 0

    def take(self, form: str) -> tuple:
        size = struct.calcsize("<" + form)
        if self.at + size > len(self.data):
            raise ValueError(f"'{self.path}' ends in the middle of a record; copy or export it again")
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += size
        return values

    def count(self, least: int) -> int:
        """A number of records of at least so many bytes."""
        (n,) = self.take("Q")
        if n * least > len(self.data) - self.at:
            raise ValueError(
                f"'{self.path}' announces {n} records but is too short for them; it is cut off or no such file"
            )
        return n

    def skip(self, size: int) -> None:
        if self.at + size > len(self.data):
            raise ValueError(f"'{self.path}' ends in the middle of a record; copy or export it again")
        self.at += size

    def word(self) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise ValueError(f"'{self.path}' ends in the middle of a name; copy or export it again")
        text = self.data[self.at : end].decode("utf-8", errors="replace")
        self.at = end + 1
        return text


def read_cameras_binary(path: Path) -> dict[int, ColmapCamera]:
    """``cameras.bin``. Raises ValueError naming the file if it is cut off or holds an unknown model."""
    file, cameras = _Bytes(path), {}
    for _ in range(file.count(24)):
        number, model, width, height = file.take("iiQQ")
        if model not in MODELS:
            raise ValueError(
                f"'{path}' holds camera model number {model}, which COLMAP does not have; it may be damaged"
            )
        name, parameters = MODELS[model]
        cameras[number] = ColmapCamera(name, width, height, file.take(f"{parameters}d"))
    return cameras


def read_images_binary(path: Path) -> list[ColmapImage]:
    """``images.bin``; the observed points are passed over. Raises ValueError as `read_cameras_binary`."""
    file, images = _Bytes(path), []
    for _ in range(file.count(73)):
        _, *pose, camera = file.take("i7di")
        images.append(ColmapImage(file.word(), tuple(pose), camera))
        (observed,) = file.take("Q")
        file.skip(24 * observed)
    return images


def read_points_binary(path: Path) -> np.ndarray:
    """Positions (N, 3) of ``points3D.bin``, every n-th where there are very many. Raises as `read_cameras_binary`."""
    file, points = _Bytes(path), []
    for _ in range(file.count(51)):
        _, x, y, z, _, _, _, _, track = file.take("Q3d3BdQ")
        file.skip(8 * track)
        points.append((x, y, z))
    return _thin(points)


def _rows(path: Path) -> list[list[str]]:
    """Words of each line but comments; empty lines stay, since an image without points has one."""
    lines = path.read_bytes()[: 8 * MAX_BYTES].decode("utf-8", errors="replace").splitlines()
    return [line.split() for line in lines if not line.lstrip().startswith("#")]


def read_cameras_text(path: Path) -> dict[int, ColmapCamera]:
    """``cameras.txt``. Raises ValueError naming file and line."""
    cameras = {}
    counts = dict(MODELS.values())
    for number, words in enumerate(_rows(path), start=1):
        if words:
            model = words[1] if len(words) > 1 else ""
            if model not in counts or len(words) != 4 + counts[model]:
                raise ValueError(f"'{path}', camera line {number}: expected number, model, width, height, parameters")
            try:
                values = tuple(float(word) for word in words[4:])
                cameras[int(words[0])] = ColmapCamera(model, int(words[2]), int(words[3]), values)
            except ValueError as error:
                raise ValueError(f"'{path}', camera line {number}: {error}") from error
    return cameras


def read_images_text(path: Path) -> list[ColmapImage]:
    """``images.txt``: two lines a picture, of which the second lists observed points. Raises as `read_cameras_text`."""
    rows, images, at = _rows(path), [], 0
    while at < len(rows):
        words = rows[at]
        if words:
            try:
                name = " ".join(words[9:])
                images.append(ColmapImage(name, tuple(float(word) for word in words[1:8]), int(words[8])))
            except (ValueError, IndexError) as error:
                raise ValueError(
                    f"'{path}': the line of picture {len(images) + 1} is not number, pose, camera, name; is it cut off?"
                ) from error
            at += 1  # its observations, possibly an empty line
        at += 1
    return images


def read_points_text(path: Path) -> np.ndarray:
    """Positions (N, 3) of ``points3D.txt``. Raises as `read_cameras_text`."""
    rows = [words[1:4] for words in _rows(path) if words]
    try:
        return _thin([(float(x), float(y), float(z)) for x, y, z in rows])
    except ValueError as error:
        raise ValueError(f"'{path}' holds a line that is no point") from error


def _thin(points: Sequence[tuple[float, ...]]) -> np.ndarray:
    array = np.array(points, dtype=np.float64).reshape(-1, 3)
    array = array[np.isfinite(array).all(1)]
    return array[:: -(-len(array) // MAX_POINTS) or 1]
