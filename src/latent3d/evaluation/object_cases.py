"""Where the objects of an evaluation come from: procedural ones, folders of meshes, banks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from latent3d.data.object_sources import HALF_SIZE
from latent3d.evaluation.object_protocols import MeshAsset, ObjectCase, ReconstructionProtocol, Shape, ShapeSource

MESH_FILES = (".glb", ".gltf", ".obj", ".ply")


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
