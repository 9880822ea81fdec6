"""A bank of objects on disk: rendered once, read at random by training and by evaluation.

Layout of a bank folder (`latent3d.data.bank_files`); V views, P points of an object::

    bank.json                        what it holds: source, first number, views, size, class names, cameras
    shard_00000/images.npy           uint8   (N, V, 3, H, W), sRGB over white
    shard_00000/alphas.npy           uint8   (N, V, 1, H, W)
    shard_00000/depths.npy           float16 (N, V, 1, H, W), z-depth, 0 outside the object
    shard_00000/normals.npy          int8    (N, V, 3, H, W), world axes times 127
    shard_00000/w2c.npy, k.npy       float32 (N, V, 4, 4) and (N, V, 3, 3), pixels
    shard_00000/labels.npy           int16   (N,), -1 where unknown
    shard_00000/points.npy           float16 (N, P, 3), on the surface, even by area
    shard_00000/point_normals.npy    float16 (N, P, 3)
    shard_00000/objects.json         [{"name": ..., "captions": [...]}, ...]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent3d.data.bank_files import BANK_FORMAT, OBJECTS, Content, Epochs, Shards, read_about, start_bank, write_shards
from latent3d.data.object_sources import ObjectSample, ObjectSource
from latent3d.data.scenes import FreshItems
from latent3d.data.shards import assemble
from latent3d.data.view_sampling import ViewSampling
from latent3d.geometry.cameras import Cameras
from latent3d.representations.objects import ObjectViews
from latent3d.representations.views import Views

VIEW_CHANNELS = ("images", "alphas", "depths", "normals", "w2c", "k")
CHANNELS = (*VIEW_CHANNELS, "labels", "points", "point_normals")
LISTS = "objects"


def view_arrays(views: Views) -> dict[str, np.ndarray]:
    """Views as they are stored: 8-bit images, alphas and normals, half-precision depths.

    Raises:
        ValueError: for views without alphas, depths or normals.
    """
    if views.alphas is None or views.depths is None or views.normals is None:
        raise ValueError("a bank of objects needs alphas, depths and normals of every view")
    return {
        "images": (views.images.clamp(0, 1) * 255).round().to(torch.uint8).numpy(),
        "alphas": (views.alphas.clamp(0, 1) * 255).round().to(torch.uint8).numpy(),
        "depths": views.depths.clamp(0, 6e4).to(torch.float16).numpy(),
        "normals": (views.normals.clamp(-1, 1) * 127).round().to(torch.int8).numpy(),
        "w2c": views.cameras.w2c.float().numpy(),
        "k": views.cameras.k.float().numpy(),
    }


def stored_views(arrays: dict[str, Tensor]) -> Views:
    """Inverse of `view_arrays`; normals get unit length again."""
    height, width = arrays["images"].shape[-2:]
    normals = arrays["normals"].float()
    x, y, z = normals.unbind(-3)
    length = (x * x + y * y + z * z).clamp_min_(1).sqrt_()  # torch's norm over this axis takes ten times as long
    return Views(
        images=arrays["images"].float().div_(255),
        cameras=Cameras(w2c=arrays["w2c"], k=arrays["k"], height=height, width=width),
        depths=arrays["depths"].float(),
        normals=normals.div_(length.unsqueeze(-3)),
        alphas=arrays["alphas"].float().div_(255),
    )


@dataclass(frozen=True)
class _Objects:
    """Maker of the objects of a bank."""

    source: ObjectSource
    start: int

    def __call__(self, first: int, count: int) -> Content:
        samples = [self.source(self.start + first + offset) for offset in range(count)]
        views = [view_arrays(sample.views) for sample in samples]
        content: Content = {channel: np.stack([part[channel] for part in views]) for channel in VIEW_CHANNELS}
        content["labels"] = np.array([sample.label for sample in samples], np.int16)
        content["points"] = np.stack([sample.points.numpy().astype(np.float16) for sample in samples])
        content["point_normals"] = np.stack([sample.normals.numpy().astype(np.float16) for sample in samples])
        content[LISTS] = [{"name": sample.name, "captions": list(sample.captions)} for sample in samples]
        return content


def render_object_bank(
    folder: str | Path,
    source: ObjectSource,
    start: int = 0,
    count: int = 1000,
    workers: int = 1,
    *,
    shard_objects: int = 32,
    on_objects: Callable[[int], object] | None = None,
) -> Path:
    """Render the objects ``start`` to ``start + count - 1`` of a source into a bank; what is there already is kept.

    Args:
        workers: processes (started by ``spawn``, so that the source must be importable); 0 or 1 renders in this one.
        on_objects: called with the number of objects of each shard that is done, also of those found there.

    Raises:
        ValueError: where the folder holds another bank, or a number is not positive.
    """
    folder = Path(folder)
    if min(count, shard_objects) < 1 or start < 0:
        raise ValueError("a bank needs a positive count and shard_objects, and start >= 0")
    about = {
        "format": BANK_FORMAT,
        "kind": OBJECTS,
        "start": start,
        "shard_objects": shard_objects,
        "label_names": source.label_names,
        "cameras": source.cameras.to_dict(),
        **source.about(),
    }
    start_bank(folder, OBJECTS, about)
    write_shards(folder, _Objects(source, start), count, shard_objects, workers, on_objects)
    return folder


class ObjectBank:
    """The objects of one or several banks, by number.

    Attributes:
        names: of the objects. label_names: of the classes by number.
        labels: class numbers (N,), -1 where unknown.
        captions: texts of each object, maybe none.
        num_views: views per object, V.
    """

    def __init__(self, folder: str | Path | Sequence[str | Path], max_objects: int | None = None) -> None:
        """Open the banks; shards that appear later are not seen.

        Args:
            max_objects: use only the first objects of the (joined) banks.

        Raises:
            FileNotFoundError: no bank or no rendered object there.
            ValueError: banks of different classes, numbers of views or sizes, or of clips.
        """
        folders = [folder] if isinstance(folder, str | Path) else list(folder)
        abouts = [read_about(path, OBJECTS) for path in folders]
        if len({(_views_and_size(about), tuple(about["label_names"])) for about in abouts}) != 1:
            raise ValueError("banks read together need the same classes and equal numbers of views and image sizes")
        self.label_names: tuple[str, ...] = tuple(abouts[0]["label_names"])
        self.num_views: int = _views_and_size(abouts[0])[0]
        self._shards = Shards(folders, [about["shard_objects"] for about in abouts], CHANNELS, max_objects)
        listed = self._shards.listed(LISTS)
        self.names: list[str] = [entry["name"] for entry in listed]
        self.captions: list[tuple[str, ...]] = [tuple(entry["captions"]) for entry in listed]
        self.labels: Int[Tensor, " n"] = self._shards.column("labels").long()

    def __len__(self) -> int:
        """Number of objects."""
        return len(self._shards)

    def views(self, item: int, frames: np.ndarray | slice = slice(None)) -> Views:
        """Views of an object, all or some, (F,)."""
        return stored_views({channel: self._shards.read(item, channel, frames) for channel in VIEW_CHANNELS})

    def points(self, item: int) -> tuple[Float[Tensor, "p 3"], Float[Tensor, "p 3"]]:
        """Points on the surface of an object, drawn evenly by area, and the unit normals there, (P, 3) each."""
        return self._shards.read(item, "points").float(), self._shards.read(item, "point_normals").float()

    def sample(self, item: int) -> ObjectSample:
        """All that is known of an object."""
        points, normals = self.points(item)
        label = int(self.labels[item])
        return ObjectSample(self.names[item], self.views(item), label, self.captions[item], points, normals)


class ObjectStream:
    """Random batches of objects from banks as a pure function of (seed, rank, step).

    ``batch(step)`` gives `ObjectViews` of (B, views + novel): the first ``sampling.views`` are for the model to see.
    Every object comes once per epoch; a caption is drawn where an object has several.
    """

    def __init__(
        self,
        folders: str | Path | Sequence[str | Path],
        batch_size: int,
        sampling: ViewSampling | None = None,
        seed: int = 0,
        *,
        rank: int = 0,
        world_size: int = 1,
        max_objects: int | None = None,
    ) -> None:
        """Open the banks. Arguments and errors as `ObjectBank` and `latent3d.data.shards.BankStream`."""
        self.bank = ObjectBank(folders, max_objects)
        self.sampling = sampling or ViewSampling(mode="frames", views=self.bank.num_views)
        self.sampling.check(self.bank.num_views, 0)
        self.batch_size, self.seed, self.rank = batch_size, seed, rank
        self._epochs = Epochs(len(self.bank), batch_size, seed, rank, world_size)

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.bank)

    def describe(self, step: int) -> list[str]:
        """Names of the objects in ``batch(step)``."""
        return [self.bank.names[item] for item in self._epochs.items(step)]

    def batch(self, step: int) -> ObjectViews:
        """Batch number ``step``: pictures (B, F, 3, H, W) in [0, 1] with alphas, depths, normals and cameras (B, F)."""
        items, key = self._epochs.items(step), (self.seed, self.rank, step)
        views = assemble(items, self.bank.views, self.sampling, key, (self.bank.num_views, 0))
        captions = drawn_captions([self.bank.captions[item] for item in items], key)
        return ObjectViews(views, self.bank.labels[items], captions, self.sampling.views)


class ObjectWorldStream(FreshItems):
    """Endless batches of fresh objects of a source, rendered when they are asked for."""

    def __init__(
        self,
        source: ObjectSource,
        batch_size: int,
        sampling: ViewSampling | None = None,
        seed: int = 0,
        *,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Set up; the worker processes (by ``spawn``) start with the first batch.

        Args:
            source: gives the views that ``sampling`` chooses from.
            sampling: which of the views; default all.
            workers: rendering processes; 0 renders in the calling thread.
        """
        super().__init__(batch_size, seed, rank, world_size, workers)
        self.source, self._views = source, source.cameras.views
        self.sampling = sampling or ViewSampling(mode="frames", views=self._views)
        self.sampling.check(self._views, 0)

    def describe(self, step: int) -> list[str]:
        """Numbers of the objects in ``batch(step)``, which re-create them through the source."""
        return [f"object {index}" for index in self._indices(step)]

    def batch(self, step: int) -> ObjectViews:
        """Batch number ``step``, as `ObjectStream.batch`."""
        found = self._rendered(_pictured, [(self.source, index) for index in self._indices(step)])
        views = [
            stored_views({name: torch.from_numpy(array) for name, array in arrays.items()}) for arrays, *_ in found
        ]
        key = (self.seed, self.rank, step)
        chosen = assemble(range(len(views)), lambda i, f: views[i][f], self.sampling, key, (self._views, 0))
        labels = torch.tensor([label for _, label, _ in found])
        return ObjectViews(chosen, labels, drawn_captions([texts for *_, texts in found], key), self.sampling.views)


def _pictured(source: ObjectSource, index: int) -> tuple[dict[str, np.ndarray], int, tuple[str, ...]]:
    """Views (as stored), class and captions of an object: plain arrays travel between processes."""
    sample = source(index)
    return view_arrays(sample.views), sample.label, sample.captions


def drawn_captions(captions: Sequence[Sequence[str]], key: tuple[int, ...]) -> tuple[str, ...]:
    """One text per object, drawn from ``key``; empty where there is none."""
    rng = np.random.default_rng([*key, len(captions), 1])
    shares = rng.random(len(captions))
    return tuple(texts[int(share * len(texts))] if texts else "" for texts, share in zip(captions, shares, strict=True))


def _views_and_size(about: dict[str, Any]) -> tuple[int, int]:
    return about["cameras"]["views"], about["cameras"]["size"]
