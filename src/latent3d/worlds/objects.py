"""`make_object`: a textured, captioned mesh from a seed.

Splits are disjoint by construction: the random stream of an object is ``SeedSequence((salt, label, split, seed))``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from latent3d.representations.mesh import Mesh
from latent3d.worlds.object_assembly import Assembly
from latent3d.worlds.object_captions import with_article
from latent3d.worlds.object_cars import car
from latent3d.worlds.object_chairs import chair
from latent3d.worlds.object_compositions import composition
from latent3d.worlds.object_lamps import lamp
from latent3d.worlds.object_mugs import mug
from latent3d.worlds.object_planes import plane
from latent3d.worlds.object_tables import table

OBJECT_LABELS: tuple[str, ...] = ("chair", "table", "car", "plane", "lamp", "mug", "composition")
OBJECT_SPLITS = {"train": 1, "val": 2, "test": 3}
HALF_SIZE = 0.45
SALT = 20250127

_FAMILIES: dict[str, Callable[[Assembly], None]] = {
    "chair": chair,
    "table": table,
    "car": car,
    "plane": plane,
    "lamp": lamp,
    "mug": mug,
    "composition": composition,
}


@dataclass(frozen=True)
class ObjectModel:
    """One procedural object.

    Attributes:
        mesh: closed parts under one atlas, within [-0.45, 0.45]^3; +z up, front towards -y.
        label: one of `OBJECT_LABELS`.
        caption: what it is, in a sentence that is true of the mesh.
        captions: this and other true ones, shorter and longer.
    """

    mesh: Mesh
    label: str
    caption: str
    captions: tuple[str, ...]


def label_text(label: str) -> str:
    """The shortest text that asks for a label: "a chair"."""
    return with_article(label)


def assemble_object(seed: int, label: str | None = None, *, split: str = "train") -> tuple[str, Assembly]:
    """Label and parts of an object; arguments and errors as `make_object`."""
    if split not in OBJECT_SPLITS:
        raise ValueError(f"unknown split '{split}'; choose one of {', '.join(OBJECT_SPLITS)}")
    if label is not None and label not in OBJECT_LABELS:
        raise ValueError(f"unknown kind of object '{label}'; choose one of {', '.join(OBJECT_LABELS)}")
    if seed < 0:
        raise ValueError(f"the seed of an object must be at least 0, got {seed}")
    if label is None:
        draw = np.random.default_rng(np.random.SeedSequence((SALT, 0, OBJECT_SPLITS[split], seed)))
        label = OBJECT_LABELS[int(draw.integers(len(OBJECT_LABELS)))]
    stream = np.random.SeedSequence((SALT, 1 + OBJECT_LABELS.index(label), OBJECT_SPLITS[split], seed))
    made = Assembly(np.random.default_rng(stream))
    _FAMILIES[label](made)
    return label, made


def make_object(seed: int, label: str | None = None, *, split: str = "train") -> ObjectModel:
    """Build one object.

    Args:
        seed: any non-negative number; the same arguments give the same object.
        label: one of `OBJECT_LABELS`; None draws one, all equally often, and then gives the object of that label.
        split: "train", "val" or "test"; disjoint random streams for equal seeds.

    Raises:
        ValueError: for an unknown label or split, and a negative seed.
    """
    label, made = assemble_object(seed, label, split=split)
    captions = made.words.captions()
    return ObjectModel(made.mesh(HALF_SIZE), label, captions[0], captions)
