"""Where objects come from: procedural ones by number, and mesh files.

An `ObjectSource` gives object n with pictures from V cameras, its class, captions and points on its surface; it is a
plain value, so that it travels to other processes. V, H, W: views, height and width in pixels; P: points.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.config import Config
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.object_cameras import FOV_DEG, LAYOUTS, sphere
from latent3d.representations.mesh import Mesh
from latent3d.representations.surface_points import draw_on_surface
from latent3d.representations.views import Views

SPLITS = ("train", "val", "test")
HALF_SIZE = 0.45
"""Objects lie in the box [-HALF_SIZE, HALF_SIZE]^3."""
SURFACE_POINTS = 2048


@dataclass(frozen=True)
class ObjectSample:
    """One object.

    Attributes:
        name: by which it can be found again.
        views: pictures (V,) over white with alphas, depths and normals in world axes.
        label: class number, -1 where unknown.
        captions: texts that describe it, the best first; maybe none.
        points, normals: on its surface, drawn evenly by area, and the unit normals there, (P, 3).
    """

    name: str
    views: Views
    label: int
    captions: tuple[str, ...]
    points: Float[Tensor, "p 3"]
    normals: Float[Tensor, "p 3"]


@dataclass(frozen=True, kw_only=True)
class ObjectCameras(Config):
    """Cameras around an object.

    Attributes:
        views: how many, V.
        size: side of the pictures in pixels.
        layout: ``drawn`` anew for every object, one of `latent3d.geometry.object_cameras.LAYOUTS`, or ``given`` by
            files (then only ``views`` and ``size`` count).
        radius: smallest and largest distance from the origin; layouts stand in the middle of the two.
        fov_deg: field of view in degrees.
        elevations_deg: lowest and highest of drawn cameras; by default the upper hemisphere and a little below, evenly
            by area.
    """

    views: int = 16
    size: int = 128
    layout: Literal["drawn", "given", "sphere", "hemisphere", "orbit", "spiral"] = "drawn"
    radius: tuple[float, float] = (1.65, 1.9)
    fov_deg: float = FOV_DEG
    elevations_deg: tuple[float, float] = (-20.0, 90.0)

    def __post_init__(self) -> None:
        known = ("drawn", "given", *LAYOUTS)
        if self.layout not in known:
            raise ValueError(f"there is no camera layout '{self.layout}'; choose one of {', '.join(known)}")
        if self.views < 1 or self.size < 1 or not 0 < self.radius[0] <= self.radius[1]:
            raise ValueError("cameras around an object need views, a size and 0 < radius from small to large")

    def draw(self, *seed: int) -> Cameras:
        """Cameras (V,). The seed, non-negative integers, concerns ``drawn``, ``sphere`` and ``hemisphere``."""
        if self.layout == "given":
            raise ValueError("cameras that files give are not drawn")
        places: dict[str, Any] = {"fov_deg": self.fov_deg, "size": self.size}
        if self.layout == "drawn":
            return sphere(self.views, seed, self.radius, elevations_deg=self.elevations_deg, **places)
        if self.layout in ("sphere", "hemisphere"):
            places["seed"] = seed
        return LAYOUTS[self.layout](self.views, radius=sum(self.radius) / 2, **places)


@runtime_checkable
class ObjectSource(Protocol):
    """Numbered objects."""

    @property
    def cameras(self) -> ObjectCameras:
        """How they are looked at."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes by number."""

    def about(self) -> dict[str, Any]:
        """What makes these objects differ from others, as JSON holds it."""

    def __call__(self, index: int) -> ObjectSample:
        """Object number ``index``."""


def photographed(
    mesh: Mesh, cameras: Cameras, *, name: str, label: int = -1, captions: tuple[str, ...] = (), seed: tuple[int, ...]
) -> ObjectSample:
    """An object from its mesh: views (V,) by these cameras, points drawn with the seed."""
    from latent3d.rendering.meshes import render_mesh

    points, faces = draw_on_surface(mesh, SURFACE_POINTS, np.random.default_rng(seed))
    with torch.no_grad():
        views = render_mesh(mesh, cameras)
    return ObjectSample(name, views, label, captions, points, mesh.face_normals()[faces].float())


@dataclass(frozen=True)
class ProceduralObjects:
    """The objects of `latent3d.worlds.objects`.

    Attributes:
        split: which part of the seeds: train, val or test.
        labels: classes that take turns; all kinds in the worlds' own proportions where it is empty.
    """

    cameras: ObjectCameras = ObjectCameras()
    split: str = "train"
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"there is no split '{self.split}'; choose one of {', '.join(SPLITS)}")
        unknown = [label for label in self.labels if label not in self.label_names]
        if unknown:
            raise ValueError(f"there is no object class '{unknown[0]}'; choose from {', '.join(self.label_names)}")

    @property
    def label_names(self) -> tuple[str, ...]:
        """All classes, whichever are asked for: the numbers of classes do not depend on it."""
        from latent3d.worlds.objects import OBJECT_LABELS

        return OBJECT_LABELS

    def about(self) -> dict[str, Any]:
        """Split and classes."""
        return {"source": "procedural", "split": self.split, "labels": list(self.labels)}

    def __call__(self, index: int) -> ObjectSample:
        """Object number ``index`` of the split."""
        from latent3d.worlds.objects import make_object

        label = self.labels[index % len(self.labels)] if self.labels else None
        model = make_object(index, label, split=self.split)
        seed = (SPLITS.index(self.split), index)
        return photographed(
            model.mesh, self.cameras.draw(*seed), name=f"{model.label}/{self.split}/{index}",
            label=self.label_names.index(model.label), captions=model.captions or (model.caption,), seed=seed,
        )  # fmt: skip


@dataclass(frozen=True)
class MeshObjects:
    """Textured mesh files, fitted into the box; object n is file n modulo their number.

    Attributes:
        files: of any kind that `latent3d.io.mesh_files.read_mesh` reads.
    """

    files: tuple[Path, ...]
    cameras: ObjectCameras = ObjectCameras()

    @property
    def label_names(self) -> tuple[str, ...]:
        """Files have no class."""
        return ()

    def about(self) -> dict[str, Any]:
        """Names of the files in their order."""
        return {"source": "meshes", "files": [path.name for path in self.files]}

    def __call__(self, index: int) -> ObjectSample:
        """File number ``index`` modulo their number, from new cameras in every round.

        Raises:
            FileNotFoundError, ValueError: naming a file that cannot be read or shows nothing.
        """
        from latent3d.io.mesh_files import read_mesh

        path = self.files[index % len(self.files)]
        mesh = read_mesh(path).fitted(HALF_SIZE)
        seed = (len(SPLITS), index)
        return photographed(mesh, self.cameras.draw(*seed), name=path.name, seed=seed)
