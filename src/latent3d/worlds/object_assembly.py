"""Parts and materials put together: one mesh with one atlas, and the words that say what it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from latent3d.representations.mesh import Mesh
from latent3d.worlds.object_captions import Words
from latent3d.worlds.object_materials import Material, Palette
from latent3d.worlds.object_parts import Part
from latent3d.worlds.object_tiles import in_tile, paint_atlas
from latent3d.worlds.palette import Rng

GOLDEN = 0.6180339887
"""Steps of this fraction spread the pieces of a tile evenly that parts of one material show."""


class Assembly:
    """An object being built: a family adds parts, each with its material, then says once what it built.

    Attributes:
        rng: decides everything.
        palette: where its materials come from.
        parts, skins: the parts, and the material of each.
        main: the material that the words name first.
        words: what the captions are made of.
    """

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.palette = Palette(rng)
        self.parts: list[Part] = []
        self.skins: list[Material] = []
        self.main: Material | None = None
        self.words = Words("object", "", "")

    def add(self, material: Material, *parts: Part | Iterable[Part]) -> None:
        """Parts, or groups of parts, of one material."""
        for item in parts:
            group = [item] if isinstance(item, Part) else list(item)
            self.parts += group
            self.skins += [material] * len(group)

    def say(
        self, noun: str, main: Material, details: Sequence[str], *, look: str | None = None, aliases: Sequence[str] = ()
    ) -> None:
        """Says what was built; see `Words`. ``look`` is the main material's if not given."""
        facts = tuple(fact for fact in details if fact)
        self.main, self.words = main, Words(noun, look or main.look, main.colour, facts, tuple(aliases))

    def say_phrases(self, noun: str, main: Material, *phrases: str) -> None:
        """Says what was built where phrases tell all of it; see `Words`."""
        self.main, self.words = main, Words(noun, main.look, main.colour, phrases=phrases)

    def materials(self) -> list[Material]:
        """Materials in use, each once, in the order of their tiles."""
        return list(dict.fromkeys(self.skins))

    def area(self, material: Material) -> float:
        """Surface of all parts of a material, inner ones included, in the units of the parts."""
        return sum(
            float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()) / 2
            for part, skin in zip(self.parts, self.skins, strict=True)
            if skin is material
            for a, b, c in [part.points[part.faces].swapaxes(0, 1)]
        )

    def mesh(self, half_size: float) -> Mesh:
        """One mesh within [-half_size, half_size]^3, its longest side filling the box."""
        materials = self.materials()
        places = {material: place for place, material in enumerate(materials)}
        counts = [len(part.points) for part in self.parts]
        points = np.concatenate([part.points for part in self.parts])
        offsets = np.repeat(np.cumsum([0, *counts[:-1]]), [len(part.faces) for part in self.parts])
        faces = np.concatenate([part.faces for part in self.parts]) + offsets[:, None]
        groups = np.concatenate([part.groups for part in self.parts])
        low, high = points.min(0), points.max(0)
        points = (points - (low + high) / 2) * (2 * half_size / (high - low).max())
        return Mesh(
            vertices=torch.from_numpy(points.astype(np.float32)),
            faces=torch.from_numpy(faces),
            uvs=torch.from_numpy(self._coordinates(places).astype(np.float32)),
            texture=torch.from_numpy(np.ascontiguousarray(paint_atlas(materials).transpose(2, 0, 1))),
            normals=torch.from_numpy(corner_normals(points, faces, groups).astype(np.float32)),
        )

    def _coordinates(self, places: dict[Material, int]) -> np.ndarray:
        """Atlas coordinates (F, 3, 2): parts of one material show pieces of its tile at one scale."""
        lows = np.stack([part.uvs.min((0, 1)) for part in self.parts])
        spans = np.stack([part.uvs.max((0, 1)) for part in self.parts]) - lows
        numbers = np.array([places[material] for material in self.skins])
        largest = np.zeros(len(places))
        np.maximum.at(largest, numbers, spans.max(1))
        stretched = np.array([material.stretch for material in self.skins])[:, None]
        scales = 1.0 / np.where(stretched, np.maximum(spans, 1e-9), largest[numbers][:, None])
        spare = np.maximum(1.0 - spans * scales, 0.0)
        shifts = spare * ((np.arange(1, len(spans) + 1)[:, None] * GOLDEN * np.array([1.0, 2.0])) % 1.0)
        counts = [len(part.faces) for part in self.parts]
        lows, scales, shifts = (np.repeat(a, counts, 0)[:, None] for a in (lows, scales, shifts))
        inside = (np.concatenate([part.uvs for part in self.parts]) - lows) * scales + shifts
        return in_tile(np.clip(inside, 0.0, 1.0), np.repeat(numbers, counts)[:, None])


def corner_normals(points: np.ndarray, faces: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Unit normals (F, 3, 3) of the corners: means, weighted by area, over the faces of one group around a point."""
    a, b, c = points[faces[:, 0]], points[faces[:, 1]], points[faces[:, 2]]
    areas = np.cross(b - a, c - a)
    keys = (faces.astype(np.int64) << 21) + groups[:, None]
    _, inverse = np.unique(keys.ravel(), return_inverse=True)
    sums: np.ndarray = np.stack([np.bincount(inverse, np.repeat(areas[:, axis], 3)) for axis in range(3)], 1)
    sums = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-20)
    return sums[inverse].reshape(-1, 3, 3)
