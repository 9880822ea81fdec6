"""RealEstate10K: a text file per clip, and its frames as pictures named by their time, or the film they come from.

The first line is the film's address; each further line holds a time in microseconds, fx fy cx cy as fractions of the
image size, two zeros, and the 3x4 world-to-camera matrix by rows, OpenCV axes (Zhou et al. 2018, arXiv 1805.09817).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from latent3d.data.captures.capture import Capture
from latent3d.data.captures.collect import Collector, Reading, numbers, pinhole
from latent3d.data.captures.pictures import FILMS, PICTURES, VideoMoment, read_moments
from latent3d.io.camera_files import MAX_BYTES

COLUMNS = 19


def is_realestate(path: Path) -> bool:
    """Whether a text file is one: a first line of one word and then 19 numbers a line."""
    if path.suffix != ".txt" or not path.is_file():
        return False
    with path.open("rb") as file:
        first, second = file.readline(4096), file.readline(4096)
    return len(first.split()) <= 1 and len(second.split()) == COLUMNS


def files_of(folder: Path) -> list[Path]:
    """All RealEstate10K files of a folder."""
    return [path for path in sorted(folder.glob("*.txt")) if is_realestate(path)]


def read_realestate_clip(path: Path, reading: Reading, film: Path | None = None) -> Capture:
    """One clip.

    Pictures are looked for in the folder of the clip's name beside the file, in ``frames``, ``images`` or beside it; a
    film under the clip's name. Without either, the capture has cameras only.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, or no usable camera in it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no camera file '{path}'; check the name")
    lines = path.read_bytes()[:MAX_BYTES].decode("utf-8", errors="replace").splitlines()
    collector = Collector(path, "realestate10k", reading, world_to_camera=True)
    pictures = _pictures_of(path)
    film = film or next((path.with_suffix(suffix) for suffix in FILMS if path.with_suffix(suffix).is_file()), None)
    if film is not None and not film.is_file():
        raise FileNotFoundError(f"there is no film '{film}'; check the name")
    if lines and lines[0].startswith("http"):
        collector.notes.append(f"The film is {lines[0].strip()[:200]}.")
    for index, line in enumerate(line for line in lines[1:] if line.strip()):
        words = line.split()
        name = words[0] if words[0].isdigit() else f"line {index + 2}"
        with collector.frame(name):
            row = numbers(words, (COLUMNS,), "a line of a RealEstate10K file")
            picture: Path | VideoMoment | None = None
            if film is not None:
                picture = VideoMoment(film, float(row[0]) / 1e6)
            elif pictures:
                if name not in pictures:
                    raise FileNotFoundError(name)
                picture = pictures[name]
            collector.add(name, row[7:].reshape(3, 4), pinhole(*row[1:5]), None, picture)
    return collector.capture()


def _pictures_of(path: Path) -> dict[str, Path]:
    """Pictures by time: files whose name is a number, in the first of the usual folders that has any."""
    for folder in (path.with_suffix(""), path.parent / "frames", path.parent / "images", path.parent):
        if folder.is_dir():
            found = {
                place.stem: place
                for place in sorted(folder.iterdir())
                if place.suffix.lower() in PICTURES and place.stem.isdigit()
            }
            if found:
                return found
    return {}


def extract_clip(capture: Capture, folder: Path, indices: Sequence[int] | None = None) -> list[Path]:
    """Write the pictures of a clip read from a film as ``<microseconds>.png``, so that they need no film any more.

    Raises:
        FileNotFoundError, ValueError: as `latent3d.data.captures.pictures.read_moments`; ValueError if the capture was
            not read from a film.
    """
    from PIL import Image

    from latent3d.io.atomic import output_file

    frames = [capture.frames[i] for i in (range(len(capture)) if indices is None else indices)]
    moments = [frame.picture for frame in frames if isinstance(frame.picture, VideoMoment)]
    if len(moments) != len(frames):
        raise ValueError(f"'{capture.folder}' was not read from a film; its pictures are files already")
    pictures = read_moments(moments)
    written = []
    for frame, moment in zip(frames, moments, strict=True):
        with output_file(folder / f"{frame.name}.png") as temporary:
            Image.fromarray(np.ascontiguousarray(pictures[moment])).save(temporary)
        written.append(folder / f"{frame.name}.png")
    return written
