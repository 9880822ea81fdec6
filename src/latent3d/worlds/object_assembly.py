"""Parts and materials put together: one mesh with one atlas, and the sentences that say what it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from latent3d.representations.mesh import Mesh
from latent3d.worlds.object_materials import Material, Palette, in_tile, paint_atlas
from latent3d.worlds.object_parts import Part
from latent3d.worlds.palette import Rng

GOLDEN = 0.6180339887
"""Steps of this fraction spread the pieces of a tile evenly that parts of one material show."""


class Assembly:
    """An object being built: parts, each with its material, and what can truly be said about them.

    A family adds parts, then calls `say` once.
    """

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.palette = Palette(rng)
        self.parts: list[Part] = []
        self.skins: list[Material] = []
        self.noun = ""
        self.details: list[str] = []
        self.main: Material | None = None
        self.colour_only = False
        self.phrases: tuple[str, ...] = ()

    def add(self, material: Material, *parts: Part | Iterable[Part]) -> None:
        """Parts, or groups of parts, of one material."""
        for item in parts:
            group = [item] if isinstance(item, Part) else list(item)
            self.parts += group
            self.skins += [material] * len(group)

    def say(self, noun: str, main: Material, details: Sequence[str], *, colour_only: bool = False) -> None:
        """Names the object, its main material and facts about parts ("four tapered legs"), the most telling first."""
        self.noun, self.main, self.details, self.colour_only = (
            noun,
            main,
            [fact for fact in details if fact],
            colour_only,
        )

    def say_freely(self, label: str, main: Material, *phrases: str) -> None:
        """Describes an object that has no name of its own by phrases, each of which says all about it."""
        self.noun, self.main, self.phrases = label, main, phrases

    def materials(self) -> list[Material]:
        """Materials in use, each once, in the order of their tiles."""
        return list(dict.fromkeys(self.skins))

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

    def captions(self) -> tuple[str, ...]:
        """Sentences from the fullest of usual length to the shortest, each one true; the first is the main one."""
        assert self.main is not None, "a family says what it built"
        if self.phrases:
            named = f"{with_article(self.noun)} of "
            sentences = [named + phrase for phrase in self.phrases]
            return tuple(dict.fromkeys([*sentences, f"{self.noun} in {self.main.colour}", with_article(self.noun)]))
        look = self.main.colour if self.colour_only else self.main.look
        few, rest = self.details[:2], self.details[2:]
        named = f"{look} {self.noun}"
        sentences = [
            _with(named, few),
            _with(named, [*few, *rest]),
            with_article(named),
            *(_with(named, [fact]) for fact in self.details[:2]),
            _with(self.noun, few),
            with_article(f"{self.main.colour} {self.noun}"),
            with_article(self.noun),
        ]
        return tuple(dict.fromkeys(sentences))


def corner_normals(points: np.ndarray, faces: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Unit normals (F, 3, 3) of the corners: means, weighted by area, over the faces of one group around a point."""
    a, b, c = points[faces[:, 0]], points[faces[:, 1]], points[faces[:, 2]]
    areas = np.cross(b - a, c - a)
    keys = (faces.astype(np.int64) << 21) + groups[:, None]
    _, inverse = np.unique(keys.ravel(), return_inverse=True)
    sums = np.stack([np.bincount(inverse, np.repeat(areas[:, axis], 3)) for axis in range(3)], 1)
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-20)
    return sums[inverse].reshape(-1, 3, 3)


def with_article(words: str) -> str:
    """ "a" or "an" before words."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def listed(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _with(named: str, details: Sequence[str]) -> str:
    return f"{with_article(named)} with {listed(details)}" if details else with_article(named)
