"""What a model of objects is, what it is shown and what is asked of it: the two protocols and their objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from latent3d.config import Config
from latent3d.data.object_sources import HALF_SIZE
from latent3d.evaluation.point_clouds import CLOUD_POINTS
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.object_cameras import FOV_DEG, RADIUS, orbit, spiral, upper_hemisphere
from latent3d.representations.mesh import Mesh
from latent3d.representations.views import Views

CONDITIONS = ("none", "class", "text", "image")
"""What a sample may be told."""
MESH_FILES = (".glb", ".gltf", ".obj", ".ply")
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


@dataclass(frozen=True)
class ProceduralObjects:
    """The first ``count`` procedural objects of a split, their classes in turn: a fixed, published list.

    Attributes:
        count: number of objects.
        split: "test" or "val" for tables, "train" for what training draws from.
        labels: classes; all by default.
    """

    count: int = 64
    split: str = "test"
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.count

    def shape(self, index: int) -> Shape:
        """Object ``index``."""
        from latent3d.worlds.objects import OBJECT_LABELS, make_object

        labels = self.labels or OBJECT_LABELS
        model = make_object(index, labels[index % len(labels)], split=self.split)
        return Shape(model.mesh, model.label, model.captions)

    def describe(self) -> dict[str, Any]:
        """Split, classes and numbers."""
        family = "objects" if not self.labels else "_".join(self.labels)
        return {
            "source": "procedural objects",
            "family": family,
            "split": self.split,
            "labels": list(self.labels),
            "indices": f"0..{self.count - 1}",
            "resize_rule": "none: rendered at this size",
        }


class MeshFolder:
    """The meshes in a folder, fitted into the box, in order of their paths."""

    def __init__(self, folder: str | Path, count: int | None = None) -> None:
        """Find them.

        Args:
            folder: a folder with GLB, glTF, OBJ or PLY files, at any depth, or one such file.
            count: at most so many, spread over the list.

        Raises:
            FileNotFoundError: if there is none.
        """
        self.folder = Path(folder)
        found = [self.folder] if self.folder.is_file() else sorted(self.folder.rglob("*"))
        paths = [path for path in found if path.is_file() and path.suffix.lower() in MESH_FILES]
        if not paths:
            raise FileNotFoundError(f"'{folder}' holds no mesh; give a folder with {', '.join(MESH_FILES)} files")
        self.total = len(paths)
        self.paths = [paths[i] for i in _evenly(list(range(self.total)), count or self.total)]

    def __len__(self) -> int:
        return len(self.paths)

    def shape(self, index: int) -> Shape:
        """Mesh ``index``, without class or caption."""
        from latent3d.io.mesh_files import read_mesh

        return Shape(read_mesh(self.paths[index]).fitted(HALF_SIZE), "", ())

    def describe(self) -> dict[str, Any]:
        """Name of the folder and how many meshes it has."""
        return {
            "source": "meshes",
            "family": self.folder.resolve().stem,
            "meshes": self.total,
            "chosen": [path.name for path in self.paths],
            "indices": f"{len(self)} of {self.total}, evenly",
            "resize_rule": "none: rendered at this size",
        }


@runtime_checkable
class CaseSource(Protocol):
    """Numbered objects to reconstruct."""

    def __len__(self) -> int: ...

    def case(self, index: int, protocol: ReconstructionProtocol) -> ObjectCase: ...

    def describe(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class ShapeCases:
    """Shapes of any source as cases, rendered."""

    shapes: ShapeSource

    def __len__(self) -> int:
        return len(self.shapes)

    def case(self, index: int, protocol: ReconstructionProtocol) -> ObjectCase:
        """Shape ``index`` seen by the protocol's cameras."""
        shape = self.shapes.shape(index)
        given, novel = (MeshAsset(shape.mesh).render(cameras) for cameras in protocol.cameras(index))
        return ObjectCase(given, novel, shape.label)

    def describe(self) -> dict[str, Any]:
        """As the shapes describe themselves."""
        return self.shapes.describe()


class BankCases:
    """Objects of banks (see `latent3d.data.object_bank`) as cases: stored views, also of real captures."""

    def __init__(self, folder: str | Path, count: int | None = None) -> None:
        """Open a bank.

        Args:
            count: at most so many objects.

        Raises:
            FileNotFoundError, ValueError: if it is no bank of objects.
        """
        from latent3d.data.object_bank import ObjectBank

        self.folder, self.bank = Path(folder), ObjectBank(folder, count)

    def __len__(self) -> int:
        return len(self.bank)

    def case(self, index: int, protocol: ReconstructionProtocol) -> ObjectCase:
        """Object ``index``: inputs evenly among its stored views, at most ``protocol.novel`` of the others judged.

        Raises:
            ValueError: for pictures of another size than the model's, or too few views.
        """
        views = self.bank.views(index)
        total, side = len(views), views.images.shape[-1]
        if side != protocol.input_size:
            raise ValueError(
                f"the pictures of '{self.folder}' have {side} pixels a side and the model takes {protocol.input_size}; "
                "render or import the bank at that size"
            )
        if total <= protocol.inputs:
            raise ValueError(f"'{self.folder}' has {total} views per object; {protocol.inputs} inputs leave none")
        inputs = _evenly(list(range(total)), protocol.inputs)
        others = [number for number in range(total) if number not in inputs]
        label = int(self.bank.labels[index])
        name = self.bank.label_names[label] if label >= 0 else ""
        return ObjectCase(views[inputs], views[_evenly(others, protocol.novel)], name)

    def describe(self) -> dict[str, Any]:
        """Name of the folder and how many objects it has."""
        return {
            "source": "bank of objects",
            "family": self.folder.resolve().name,
            "stored_views": self.bank.num_views,
            "indices": f"0..{len(self) - 1} of the bank's order",
            "resize_rule": "none: as stored",
        }


def _evenly(numbers: list[int], count: int) -> list[int]:
    """At most ``count`` of the numbers, evenly spread."""
    count = min(count, len(numbers))
    return [numbers[(2 * i + 1) * len(numbers) // (2 * count)] for i in range(count)]
