"""Plain photos without poses: pycolmap, where it is installed, finds the cameras."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from latent3d.data.captures.capture import Capture
from latent3d.data.captures.collect import Reading
from latent3d.data.captures.colmap import read_colmap
from latent3d.data.captures.pictures import PICTURES
from latent3d.optional import require

LEAST = 3
"""Incremental mapping needs a pair to start from and at least one picture to confirm it."""


def photos_of(folder: Path) -> list[Path]:
    """The pictures of a folder, or of its folder ``images``."""
    for place in (folder, folder / "images"):
        if place.is_dir():
            found = [path for path in sorted(place.iterdir()) if path.suffix.lower() in PICTURES]
            if found:
                return found
    return []


def read_photos(folder: Path, reading: Reading) -> Capture:
    """Estimate the cameras of a folder of photos: features, exhaustive matching, incremental mapping.

    The largest model counts; photos outside it are listed as missing. Scale is arbitrary.

    Raises:
        MissingPackageError: if pycolmap is not installed.
        ValueError: if there are too few photos or no model comes out.
    """
    photos = photos_of(folder)
    if len(photos) < LEAST:
        raise ValueError(f"'{folder}' has {len(photos)} photos; give at least {LEAST} to find their cameras")
    colmap = require("pycolmap")
    with tempfile.TemporaryDirectory(prefix="latent3d-poses-") as scratch:
        database, models = Path(scratch) / "database.db", Path(scratch) / "models"
        models.mkdir()
        names = [path.name for path in photos]
        colmap.extract_features(database, photos[0].parent, names, camera_mode=colmap.CameraMode.SINGLE)
        colmap.match_exhaustive(database)
        found = colmap.incremental_mapping(database, photos[0].parent, models)
        if not found:
            raise ValueError(
                f"no cameras could be found for the photos in '{folder}'; take more, closer to one another"
            )
        best = max(found, key=lambda index: found[index].num_reg_images())
        model = Path(scratch) / "best"
        model.mkdir()
        found[best].write_binary(model)
        (model / "images").symlink_to(photos[0].parent.resolve(), target_is_directory=True)
        capture = read_colmap(model, reading)
    frames = tuple(replace(frame, picture=photos[0].parent / frame.name) for frame in capture.frames)
    lost = tuple(name for name in names if name not in {frame.name for frame in frames})
    note = f"The cameras of {len(frames)} of {len(photos)} photos were estimated (pycolmap); the scale is arbitrary."
    return replace(capture, folder=folder, layout="photos", frames=frames, missing=lost, notes=(*capture.notes, note))
