"""What a model of objects is, what it is shown and what is asked of it: the two protocols and their objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from latent3d.config import Config
from latent3d.evaluation.point_clouds import CLOUD_POINTS
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.object_cameras import FOV_DEG, RADIUS, orbit, spiral, upper_hemisphere
from latent3d.representations.mesh import Mesh
from latent3d.representations.views import Views

CONDITIONS = ("none", "class", "text", "image")
"""What a sample may be told."""
PICTURE_AZIMUTH_SHARE = 1 / 12
"""Of a turn: where the picture of an image condition is taken, 30 degrees to the right of the front."""


@runtime_checkable
class ObjectAsset(Protocol):
    """One object, as a model made it."""

    def render(self, cameras: Cameras) -> Views:
        """Pictures over white with alphas and depths, (V,), by cameras (V,)."""
        ...

    def mesh(self, resolution: int | None) -> Mesh:
        """Its surface from a grid of ``resolution`` cells a side, None: the model's own; no faces where it has none.

        Raises:
            ValueError: if it has none; counts as no faces.
        """
        ...


@dataclass(frozen=True)
class Prompt:
    """What a sample is told; nothing by default.

    Attributes:
        label: name of a class.
        text: a caption.
        picture: sRGB in [0, 1] over white, (3, H, W).
    """

    label: str | None = None
    text: str | None = None
    picture: Float[Tensor, "3 h w"] | None = None


@runtime_checkable
class ObjectSystem(Protocol):
    """A model of objects."""

    @property
    def conditions(self) -> tuple[str, ...]:
        """Those of `CONDITIONS` that it can sample by; none for an autoencoder alone."""
        ...

    def reconstruct(self, views: Views) -> ObjectAsset:
        """From posed pictures (V,) over white, with alphas and depths where the model wants them."""
        ...

    def sample(
        self, seeds: Sequence[int], prompts: Sequence[Prompt], *, steps: int, guidance: float | None
    ) -> Sequence[ObjectAsset]:
        """One object per seed and prompt, all prompts of one kind; guidance None is the model's own for the kind."""
        ...

    def prior(self, seeds: Sequence[int]) -> Sequence[ObjectAsset]:
        """One object per seed: latents drawn from the distribution with which diffusion starts, and decoded."""
        ...


@dataclass(frozen=True)
class MeshAsset:
    """A mesh as an `ObjectAsset`: real shapes beside which a model's are put."""

    shape: Mesh

    def render(self, cameras: Cameras) -> Views:
        """See `latent3d.rendering.meshes.render_mesh`."""
        from latent3d.rendering.meshes import render_mesh

        return render_mesh(self.shape, cameras)

    def mesh(self, resolution: int | None) -> Mesh:
        """The mesh itself."""
        return self.shape


@dataclass(frozen=True)
class Shape:
    """An object of a known shape: its mesh in the box, class (empty where unknown) and captions (perhaps none)."""

    mesh: Mesh
    label: str
    captions: tuple[str, ...]


def told_by(shape: Shape) -> tuple[str, ...]:
    """Those of `CONDITIONS` that a shape can give."""
    absent = {"class": not shape.label, "text": not shape.captions}
    return tuple(kind for kind in CONDITIONS if not absent.get(kind, False))


@runtime_checkable
class ShapeSource(Protocol):
    """Numbered objects with meshes, and a description that goes into the record."""

    def __len__(self) -> int: ...

    def shape(self, index: int) -> Shape: ...

    def describe(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class ObjectCase:
    """One object to reconstruct: the views that are given, and those that are asked for."""

    given: Views
    novel: Views
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class ReconstructionProtocol(Config):
    """Some views in, all around on fixed cameras asked for.

    Attributes:
        name: as printed.
        inputs: views that the model is given, spread over the upper hemisphere, drawn anew for every object.
        novel: views that are judged, on the spiral of scene representation networks.
        size: side of the pictures that are judged, in pixels (all tables of the paper: 128).
        input_size: side of the pictures that the model is given.
        radius: distance of the cameras in scene units.
        fov_deg: their field of view.
    """

    name: str = "objects_reconstruction"
    inputs: int = 4
    novel: int = 12
    size: int = 128
    input_size: int = 128
    radius: float = RADIUS
    fov_deg: float = FOV_DEG

    def cameras(self, index: int) -> tuple[Cameras, Cameras]:
        """Of the given and of the novel views of object ``index``."""
        given = upper_hemisphere(self.inputs, (0, index), self.radius, self.fov_deg, self.input_size)
        return given, spiral(self.novel, self.radius, self.fov_deg, self.size)


@dataclass(frozen=True, kw_only=True)
class GenerationProtocol(Config):
    """Samples by kind of condition against held-back shapes, seen by the same cameras.

    Attributes:
        name: as printed.
        conditions: kinds of conditions, of `CONDITIONS`.
        views: cameras per object, on the spiral of scene representation networks (the paper: 20).
        size, radius, fov_deg: of the pictures, as `ReconstructionProtocol`.
        points: per shape for Chamfer distances.
        outer: points on the outer surface alone.
        mesh_resolution: cells per side of the grid from which a model's surface is taken; None leaves it to the model
            (its FlexiCubes decoder, where it has one).
    """

    name: str = "objects_generation"
    conditions: tuple[str, ...] = CONDITIONS
    views: int = 20
    size: int = 128
    radius: float = RADIUS
    fov_deg: float = FOV_DEG
    points: int = CLOUD_POINTS
    outer: bool = True
    mesh_resolution: int | None = 96

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.conditions if kind not in CONDITIONS]
        if unknown or not self.conditions:
            named = f"'{unknown[0]}'" if unknown else "none"
            raise ValueError(f"samples can be told {', '.join(CONDITIONS)}; asked for {named}")

    def cameras(self) -> Cameras:
        """All objects are judged by these."""
        return spiral(self.views, self.radius, self.fov_deg, self.size)

    def picture_camera(self) -> Cameras:
        """Where the picture of an image condition is taken: half from the front, a little from above, (1,)."""
        number = round(1 / PICTURE_AZIMUTH_SHARE)
        return orbit(number, radius=self.radius, fov_deg=self.fov_deg, size=self.size)[1:2]

    def prompt(self, kind: str, shape: Shape) -> Prompt:
        """What a sample is told of a held-back shape.

        Raises:
            ValueError: for a shape that has no class or caption to tell.
        """
        if kind not in told_by(shape):
            raise ValueError(f"the held-back shapes have no {kind}; leave that condition out")
        if kind == "none":
            return Prompt()
        if kind == "image":
            return Prompt(picture=MeshAsset(shape.mesh).render(self.picture_camera()).images[0])
        return Prompt(label=shape.label) if kind == "class" else Prompt(text=shape.captions[0])
