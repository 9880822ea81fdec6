"""Objects that others rendered or photographed, as a source of banks (`latent3d data import-objects`).

Numbers n of a source: object n is folder (or face) n modulo their number; in every round other views are chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latent3d.data.captures.capture import Capture
from latent3d.data.captures.reading import read_capture
from latent3d.data.object_sources import SURFACE_POINTS, ObjectCameras, ObjectSample
from latent3d.data.objects import COVERED, ReadObject, face_of, object_of
from latent3d.geometry.rays import unproject
from latent3d.io.images import MIN_SIDE
from latent3d.representations.views import Views

CAPTION_FILE = "caption.txt"
"""Texts about an object in its folder, one a line, the best first; maybe there is none."""


@dataclass(frozen=True)
class RenderedObjects:
    """Objects of posed pictures, as `latent3d.data.objects.object_of` reads them.

    Depths and normals that files do not have are 0, points NaN; with depths, points lie where the views see the
    surface (so that their density depends on the views).

    Attributes:
        folders: of one object each.
        views: how many views of each, V.
        size: side of the pictures in pixels.
        fit: turn, move and scale objects to the unit box.
    """

    folders: tuple[Path, ...]
    views: int = 16
    size: int = 128
    fit: bool = True

    @property
    def cameras(self) -> ObjectCameras:
        """Number and size of the views; where they stand is up to the files."""
        return ObjectCameras(views=self.views, size=self.size, layout="given")

    @property
    def label_names(self) -> tuple[str, ...]:
        """Folders have no class."""
        return ()

    def about(self) -> dict[str, Any]:
        """Names of the folders in their order."""
        return {"source": "renderings", "fit": self.fit, "folders": [path.name for path in self.folders]}

    def __call__(self, index: int) -> ObjectSample:
        """Object number ``index``.

        Raises:
            FileNotFoundError, ValueError: as `object_of`, and if fewer than V views of it can be used.
        """
        folder = self.folders[index % len(self.folders)]
        rng = np.random.default_rng([len(self.folders), index])
        found = _some_views(read_capture(folder), self.views, self.size, rng, self.fit)
        caption = folder / CAPTION_FILE
        lines = caption.read_text(encoding="utf-8", errors="replace").splitlines() if caption.is_file() else []
        return _complete(found, tuple(line.strip() for line in lines if line.strip()), rng)


@dataclass(frozen=True)
class Faces:
    """Faces of an EG3D folder, one view each; all of the picture counts as the object.

    Attributes:
        capture: what `latent3d.data.captures.renders.read_eg3d` read.
        size: side of the pictures in pixels.
    """

    capture: Capture
    size: int = 128

    @property
    def cameras(self) -> ObjectCameras:
        """One view; where it stands is up to the files."""
        return ObjectCameras(views=1, size=self.size, layout="given")

    @property
    def label_names(self) -> tuple[str, ...]:
        """Faces have no class."""
        return ()

    def about(self) -> dict[str, Any]:
        """Name of the folder and number of faces."""
        return {"source": "faces", "folder": self.capture.name, "faces": len(self.capture)}

    def __call__(self, index: int) -> ObjectSample:
        """Face number ``index``. Raises ValueError or FileNotFoundError if its picture cannot be read."""
        found = face_of(self.capture, index % len(self.capture), self.size)
        return _complete(found, (), np.random.default_rng(0))


def usable_folders(
    folders: Sequence[Path],
    views: int,
    say: Callable[[str], object],
    on_folder: Callable[[], object] | None = None,
) -> list[Path]:
    """Folders of which ``views`` views can be read; ``say`` hears a sentence about each other one.

    Raises:
        ValueError: if there is none.
    """
    usable = []
    for folder in folders:
        try:
            RenderedObjects((folder,), views, MIN_SIDE)(0)
            usable.append(folder)
        except (ValueError, FileNotFoundError) as error:
            say(f"left out: {error}")
        if on_folder:
            on_folder()
    if not usable:
        raise ValueError("none of the folders holds an object that can be used; see the sentences above")
    return usable


def _some_views(capture: Capture, views: int, size: int, rng: np.random.Generator, fit: bool) -> ReadObject:
    """An object by V of its views, chosen by chance among those that show it."""
    order = rng.permutation(len(capture))
    tried, found = views, None
    while tried <= len(capture):
        chosen = [capture.frames[number] for number in order[:tried]]
        found = object_of(replace(capture, frames=tuple(chosen)), size, fit=fit)
        if len(found.views) >= views:
            return replace(found, views=found.views[:views], frames=found.frames[:views])
        tried += views - len(found.views)
    count = len(found.views) if found else len(capture)
    raise ValueError(f"'{capture.folder}' has {count} usable views of {views}; ask for fewer --views")


def _complete(found: ReadObject, captions: tuple[str, ...], rng: np.random.Generator) -> ObjectSample:
    """All that a bank stores; see `RenderedObjects` for what is unknown."""
    views = found.views
    unknown = torch.zeros_like(views.images)
    points = normals = torch.full((SURFACE_POINTS, 3), torch.nan)
    if views.depths is not None:
        points, normals = _seen_points(views, rng)
    whole = Views(
        views.images,
        views.cameras,
        unknown[:, :1] if views.depths is None else views.depths,
        unknown if views.normals is None else views.normals,
        torch.ones_like(unknown[:, :1]) if views.alphas is None else views.alphas,
    )
    return ObjectSample(found.name, whole, -1, captions, points, normals)


def _seen_points(views: Views, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    assert views.depths is not None
    seen = views.depths[:, 0] > 0
    if views.alphas is not None and bool((seen & (views.alphas[:, 0] > COVERED)).any()):
        seen &= views.alphas[:, 0] > COVERED
    points = unproject(views.cameras, views.depths)[seen]
    drawn = torch.from_numpy(rng.integers(len(points), size=SURFACE_POINTS))
    if views.normals is None:
        return points[drawn], torch.full((SURFACE_POINTS, 3), torch.nan)
    return points[drawn], views.normals.movedim(1, -1)[seen][drawn]
