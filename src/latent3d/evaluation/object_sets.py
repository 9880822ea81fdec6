"""Sets of objects, real or made, as the protocol of generation looks at them: made and looked at once, kept on disk."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from latent3d.evaluation.features import FeatureExtractor, extract, to_uint8
from latent3d.evaluation.object_metrics import cloud_of, picture_similarity
from latent3d.evaluation.object_protocols import GenerationProtocol, ObjectAsset, Prompt, ShapeSource
from latent3d.evaluation.scene_cache import ResultCache
from latent3d.evaluation.sheets import row
from latent3d.geometry.object_cameras import orbit

SHEET_VIEWS = 4

Maker = Callable[[Sequence[int]], Sequence[ObjectAsset]]
"""Objects by their numbers in the set."""


@dataclass(frozen=True)
class SetPlan:
    """A set of objects that is not made yet; a row of the table.

    Attributes:
        count: objects.
        make: some of them.
        conditions: what they depend on beside the protocol and the weights, JSON-able.
        prompt: what each was told.
        real: whether no model made them, so that time and weights do not matter.
        skip: numbers of training shapes that they are, where they are: these do not count as their nearest.
    """

    count: int
    make: Maker
    conditions: dict[str, Any]
    prompt: Callable[[int], Prompt] = lambda number: Prompt()
    real: bool = False
    skip: Sequence[int] | None = None


@dataclass(frozen=True)
class ObjectSet:
    """What is known of a set, object by object.

    Attributes:
        entries: numbers, and the words it was told.
        features: of the pictures by the fixed cameras, (V, d) each.
        clouds: points on the surface, (P, 3) each, or (0, 3) where there is none.
        pictures: for sheets, uint8: the one it was told, if any, then `SHEET_VIEWS` around the object, (n, 3, H, W).
    """

    entries: list[dict[str, Any]]
    features: list[Float[Tensor, "v d"]]
    clouds: list[Float[Tensor, "_ 3"]]
    pictures: list[Tensor] = field(repr=False)

    @classmethod
    def read(cls, cache: ResultCache, count: int) -> ObjectSet:
        """The first objects of a cache."""
        arrays = [cache.arrays(index) for index in range(count)]
        features, clouds, pictures = ([item[name] for item in arrays] for name in ("features", "cloud", "pictures"))
        return cls(cache.entries(count), features, clouds, pictures)

    def __len__(self) -> int:
        return len(self.entries)


@dataclass(frozen=True)
class Judge:
    """How objects are looked at.

    Attributes:
        protocol: cameras and points.
        extractor: of the distances.
        embedding: of CLIP-I; None for none.
    """

    protocol: GenerationProtocol
    extractor: FeatureExtractor
    embedding: FeatureExtractor | None = None

    @torch.no_grad()
    def look(self, asset: ObjectAsset, prompt: Prompt, seconds: float) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Entry and arrays of one object (see `ObjectSet`)."""
        protocol = self.protocol
        images = asset.render(protocol.cameras()).images.cpu()
        likeness = math.nan
        if self.embedding is not None and prompt.picture is not None:
            likeness = picture_similarity(self.embedding, images, prompt.picture)
        shown = [] if prompt.picture is None else [prompt.picture[None]]
        shown.append(sheet_views(asset, protocol))
        arrays = {
            "features": extract(self.extractor, to_uint8(images)),
            "cloud": self._cloud(asset),
            "pictures": to_uint8(torch.cat(shown)),
        }
        return {"clip_i": likeness, "seconds": seconds, "told": prompt.text or prompt.label or ""}, arrays

    def _cloud(self, asset: ObjectAsset) -> Float[Tensor, "_ 3"]:
        try:
            mesh = asset.mesh(self.protocol.mesh_resolution)
        except ValueError:  # a sample without a surface: it covers nothing, and is counted
            return torch.zeros(0, 3)
        return cloud_of(mesh, self.protocol.points, outer=self.protocol.outer)

    def look_at_all(self, plan: SetPlan, cache: ResultCache, title: str, batch: int, progress: bool) -> ObjectSet:
        """The whole set: what the cache lacks is made, ``batch`` at a time."""
        missing = [number for number in range(plan.count) if not cache.has(number)]
        found = plan.count - len(missing)
        with tqdm(total=plan.count, initial=found, desc=title, unit="object", disable=not progress) as bar:
            for start in range(0, len(missing), batch):
                numbers = missing[start : start + batch]
                begin = time.perf_counter()
                assets = plan.make(numbers)
                seconds = math.nan if plan.real else (time.perf_counter() - begin) / len(numbers)
                for number, asset in zip(numbers, assets, strict=True):
                    cache.write(number, *self.look(asset, plan.prompt(number), seconds))
                    bar.update()
        return ObjectSet.read(cache, plan.count)


def sheet_views(asset: ObjectAsset, protocol: GenerationProtocol) -> Float[Tensor, "v 3 h w"]:
    """Pictures from all around, `SHEET_VIEWS` of them."""
    cameras = orbit(SHEET_VIEWS, radius=protocol.radius, fov_deg=protocol.fov_deg, size=protocol.size)
    return asset.render(cameras).images.cpu()


def clouds_of_shapes(
    shapes: ShapeSource, cache: ResultCache, protocol: GenerationProtocol, progress: bool
) -> list[Float[Tensor, "_ 3"]]:
    """Points on the surfaces of all shapes of a source, (P, 3) each."""
    found = []
    for index in tqdm(range(len(shapes)), desc="training shapes", unit="object", disable=not progress):
        if not cache.has(index):
            cloud = cloud_of(shapes.shape(index).mesh, protocol.points, outer=protocol.outer)
            cache.write(index, {}, {"cloud": cloud})
        found.append(cache.arrays(index)["cloud"])
    return found


def sheet_rows(
    one: ObjectSet, numbers: Sequence[int], beside: Callable[[int], Float[Tensor, "v 3 h w"]] | None
) -> tuple[list[Tensor], list[str]]:
    """A line of pictures for some objects of a set, and the columns' titles.

    Args:
        beside: pictures of what stands beside object n: its nearest training shape.
    """
    told = len(one.pictures[0]) - SHEET_VIEWS
    titles = ["told"] * told + ["sample"] + [""] * (SHEET_VIEWS - 1)
    if beside is not None:
        titles += ["nearest training shape"] + [""] * (SHEET_VIEWS - 1)
    rows = []
    for number in numbers:
        pictures = list(one.pictures[number] / 255)
        rows.append(row(pictures + ([] if beside is None else list(beside(number)))))
    return rows, titles
