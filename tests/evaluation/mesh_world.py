"""Objects with known answers: boxes of different sides and colours, and a model that knows them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from latent3d.evaluation.object_protocols import CONDITIONS, MeshAsset, Prompt, Shape
from latent3d.representations.mesh import Mesh
from latent3d.representations.views import Views

FACES = [
    *((0, 2, 1), (1, 2, 3), (4, 5, 6), (5, 7, 6), (0, 1, 4), (1, 5, 4)),
    *((2, 6, 3), (3, 6, 7), (0, 4, 2), (2, 4, 6), (1, 3, 5), (3, 7, 5)),
]
LABELS = ("slab", "pole")


def box(x: float = 0.4, y: float = 0.4, z: float = 0.4) -> Mesh:
    """Half sides x, y, z; corner i has the signs of its bits (x fastest)."""
    corners = torch.tensor([[a, b, c] for c in (-z, z) for b in (-y, y) for a in (-x, x)])
    return Mesh(corners, torch.tensor(FACES))


def shape(index: int) -> Shape:
    """Slabs and poles in turn, each with its own sides and colours."""
    draw = torch.rand(4, generator=torch.Generator().manual_seed(index))
    thin = 0.1 + 0.2 * float(draw[3])
    mesh = box(0.4, 0.4 - thin, thin) if index % 2 == 0 else box(thin, 0.2, 0.4)
    colours = 0.2 + 0.6 * torch.rand(8, 3, generator=torch.Generator().manual_seed(index + 100))
    return Shape(replace(mesh, colors=colours), LABELS[index % 2], (f"{LABELS[index % 2]} number {index}",))


@dataclass(frozen=True)
class Boxes:
    """A source of boxes ``start`` .. ``start + count - 1``."""

    count: int = 4
    start: int = 0

    def __len__(self) -> int:
        return self.count

    def shape(self, index: int) -> Shape:
        return shape(self.start + index)

    def describe(self) -> dict:
        return {"source": "test", "family": "boxes", "start": self.start, "indices": f"0..{self.count - 1}"}


class Oracle:
    """Reconstructs the true mesh, known by its input pictures; sample i is box i, whatever it is told."""

    def __init__(self, count: int = 6) -> None:
        self.shapes = [shape(index) for index in range(count)]
        self.asked: list[tuple[int, Prompt]] = []
        self.reconstructed = 0

    @property
    def conditions(self) -> tuple[str, ...]:
        return CONDITIONS

    def reconstruct(self, views: Views) -> MeshAsset:
        self.reconstructed += 1
        gaps = [(MeshAsset(one.mesh).render(views.cameras).images - views.images).abs().max() for one in self.shapes]
        return MeshAsset(self.shapes[int(torch.stack(gaps).argmin())].mesh)

    def sample(
        self, seeds: Sequence[int], prompts: Sequence[Prompt], *, steps: int, guidance: float | None
    ) -> list[MeshAsset]:
        self.asked += zip(seeds, prompts, strict=True)
        return [MeshAsset(self.shapes[seed].mesh) for seed in seeds]

    def prior(self, seeds: Sequence[int]) -> list[MeshAsset]:
        return [MeshAsset(self.shapes[0].mesh) for _ in seeds]
