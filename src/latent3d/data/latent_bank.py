"""Latents of objects on disk, so that latent diffusion trains without encoding the same pictures again and again.

Layout of a bank folder (`latent3d.data.bank_files`); K pictures of an object::

    bank.json                        what it holds: bank of objects, weights of the encoder, class names
    shard_00000/means.npy            float16 (N, 3, c, h, w), normalised latents
    shard_00000/stds.npy             float16 (N, 3, c, h, w), of the posterior
    shard_00000/images.npy           uint8   (N, K, 3, H, W), sRGB over white: what a picture condition is drawn from
    shard_00000/alphas.npy           uint8   (N, K, 1, H, W)
    shard_00000/labels.npy           int16   (N,), -1 where unknown
    shard_00000/objects.json         [{"name": ..., "captions": [...]}, ...]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latent3d.data.bank_files import BANK_FORMAT, LATENTS, Content, Epochs, Shards, read_about, start_bank, write_shards
from latent3d.data.object_bank import LISTS, ObjectBank, drawn_captions
from latent3d.data.view_sampling import ViewSampling
from latent3d.representations.objects import ObjectLatents
from latent3d.representations.views import Views

CHANNELS = ("means", "stds", "images", "alphas", "labels")

Encode = Callable[[Views], tuple[Tensor, Tensor]]
"""Views (B, V) to mean and standard deviation of their normalised latents, (B, 3, c, h, w) each."""


@dataclass(frozen=True)
class _Latents:
    """``make`` of `write_shards` for the objects of a bank; input views and pictures are drawn per object."""

    bank: ObjectBank
    encode: Encode
    inputs: int
    pictures: int

    def __call__(self, first: int, count: int) -> Content:
        items = range(first, first + count)
        rows: dict[str, list[np.ndarray]] = {"images": [], "alphas": []}
        given = []
        for item in items:
            order = np.random.default_rng([item, 2]).permutation(self.bank.num_views)
            given.append(self.bank.views(item, order[: self.inputs]))
            shown = self.bank.views(item, order[-self.pictures :])
            assert shown.alphas is not None
            for name, values in (("images", shown.images), ("alphas", shown.alphas)):
                rows[name].append((values * 255).round().to(torch.uint8).numpy())
        mean, std = self.encode(Views.stack(given))
        return {
            "means": mean.to(torch.float16).numpy(),
            "stds": std.to(torch.float16).numpy(),
            **{name: np.stack(values) for name, values in rows.items()},
            "labels": self.bank.labels[first : first + count].to(torch.int16).numpy(),
            LISTS: [{"name": self.bank.names[item], "captions": list(self.bank.captions[item])} for item in items],
        }


def write_latent_bank(
    folder: str | Path,
    bank: ObjectBank,
    encode: Encode,
    about: dict[str, Any],
    *,
    inputs: int,
    pictures: int = 4,
    shard_objects: int = 64,
    on_objects: Callable[[int], object] | None = None,
) -> Path:
    """Encode all objects of a bank into a bank of latents; what is there already is kept.

    Args:
        about: what the latents come from, such as the hash of the encoder's weights; part of ``bank.json``.
        inputs: views that the encoder is given. pictures: views kept for conditions, K.
        on_objects: called with the number of objects of each shard that is done, also of those found there.

    Raises:
        ValueError: where the folder holds another bank, or more views are asked for than there are.
    """
    if not (1 <= inputs <= bank.num_views and 1 <= pictures <= bank.num_views):
        raise ValueError(f"the objects have {bank.num_views} views; ask for 1 to {bank.num_views} inputs and pictures")
    folder = Path(folder)
    head = {"format": BANK_FORMAT, "kind": LATENTS, "shard_objects": shard_objects, "label_names": bank.label_names}
    start_bank(folder, LATENTS, {**head, "inputs": inputs, "pictures": pictures, **about})
    write_shards(folder, _Latents(bank, encode, inputs, pictures), len(bank), shard_objects, 1, on_objects)
    return folder


class LatentStream:
    """Random batches of latents as a pure function of (seed, rank, step); every object comes once per epoch."""

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
        """Open the banks.

        Args:
            sampling: not used, latents have their views behind them; there so that all streams are opened alike.

        Raises:
            FileNotFoundError: no bank or no latent there.
            ValueError: banks of different encoders or classes, or of another kind.
        """
        paths = [folders] if isinstance(folders, str | Path) else list(folders)
        abouts = [read_about(path, LATENTS) for path in paths]
        if len({(str(about.get("weights")), tuple(about["label_names"])) for about in abouts}) != 1:
            raise ValueError("latents read together must come from the same encoder and have the same classes")
        self._shards = Shards(paths, [about["shard_objects"] for about in abouts], CHANNELS, max_objects)
        listed = self._shards.listed(LISTS)
        self.names = [entry["name"] for entry in listed]
        self.captions = [tuple(entry["captions"]) for entry in listed]
        self.labels = self._shards.column("labels").long()
        self._pictures = min(about["pictures"] for about in abouts)
        self.batch_size, self.seed, self.rank = batch_size, seed, rank
        self._epochs = Epochs(len(self._shards), batch_size, seed, rank, world_size)

    def __len__(self) -> int:
        """Number of objects."""
        return len(self._shards)

    def describe(self, step: int) -> list[str]:
        """Names of the objects in ``batch(step)``."""
        return [self.names[item] for item in self._epochs.items(step)]

    def batch(self, step: int) -> ObjectLatents:
        """Batch number ``step``, each object with one of its pictures and captions."""
        items, key = self._epochs.items(step), (self.seed, self.rank, step)
        rng = np.random.default_rng([*key, 3])

        def stacked(name: str) -> Tensor:
            return torch.stack([self._shards.read(item, name) for item in items]).float()

        pictures = [int(share * self._pictures) for share in rng.random(len(items))]

        def shown(name: str) -> Tensor:
            rows = [self._shards.read(item, name, slice(k, k + 1))[0] for item, k in zip(items, pictures, strict=True)]
            return torch.stack(rows).float() / 255

        captions = drawn_captions([self.captions[item] for item in items], key)
        return ObjectLatents(
            stacked("means"), stacked("stds"), self.labels[items], captions, shown("images"), shown("alphas")
        )
