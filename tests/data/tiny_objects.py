"""Tiny objects for tests, importable by workers: coloured boxes, looked at by drawn cameras."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from latent3d.data.object_sources import ObjectCameras, ObjectSample, photographed
from latent3d.representations.mesh import Mesh

CORNERS = torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
QUADS = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
FACES = torch.tensor([[q[0], q[i], q[i + 1]] for q in QUADS for i in (1, 2)])


def box(sides=(0.6, 0.4, 0.8), colour=(0.8, 0.3, 0.2)):
    """A box around the origin with outward faces."""
    colors = torch.tensor(colour).expand(8, 3).contiguous()
    return Mesh(vertices=CORNERS * torch.tensor(sides) / 2, faces=FACES, colors=colors)


@dataclass(frozen=True)
class Boxes:
    """Box number n: sides and colour follow from n."""

    cameras: ObjectCameras = ObjectCameras(views=5, size=24)
    label_names: tuple[str, ...] = ("box", "cube")
    shade: float = 0.0

    def about(self):
        return {"source": "boxes", "shade": self.shade}

    def __call__(self, index: int) -> ObjectSample:
        draw = torch.rand(6, generator=torch.Generator().manual_seed(index))
        mesh = box((0.3 + 0.5 * draw[:3]).tolist(), draw[3:].tolist())
        captions = () if index % 4 == 0 else tuple(f"box {index} {word}" for word in ("one", "two", "three"))
        return photographed(
            mesh, self.cameras.draw(index), name=f"box/{index}", label=index % 2, captions=captions, seed=(index,)
        )
