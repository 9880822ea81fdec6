"""What banks of clips and banks of objects share: shards written once by many processes, read at random by training.

A bank folder holds ``bank.json``, which says what it is, and ``shard_00000``, ``shard_00001`` ... with one ``.npy``
per channel (first axis: items) and maybe lists as ``.json``. A shard appears by one rename, so a bank is whole at any
moment and writing goes on where it stopped. Item n is the same whatever the number of processes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latent3d.io.atomic import write_text

ABOUT = "bank.json"
BANK_FORMAT = 1
CLIPS, OBJECTS, LATENTS = "clips", "objects", "latents"
"""Kinds of banks; a ``bank.json`` without ``kind`` is one of clips."""

Content = dict[str, np.ndarray | list]
"""Items of a shard: arrays, or lists of what JSON holds, with one entry per item."""
Maker = Callable[[int, int], Content]
"""``make(first, count)``: items ``first`` to ``first + count - 1`` of a bank. For several processes importable."""


def start_bank(folder: Path, kind: str, about: dict[str, Any]) -> None:
    """Write ``bank.json``, or make sure that the one there says the same.

    Raises:
        ValueError: if the folder holds another bank.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = json.loads(json.dumps(about))
    if not (folder / ABOUT).exists():
        write_text(folder / ABOUT, json.dumps(about, indent=1))
        return
    known = read_about(folder, kind)
    changed = [key for key, value in about.items() if known.get(key) != value]
    if changed:
        raise ValueError(f"{folder} holds another bank (different: {', '.join(changed)}); choose another folder")


def read_about(folder: str | Path, kind: str) -> dict[str, Any]:
    """``bank.json`` of a bank folder. Raises FileNotFoundError or ValueError with the remedy."""
    path = Path(folder) / ABOUT
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a bank of {kind}: {ABOUT} is missing; render one first")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{path} is damaged; render the bank again") from error
    if not isinstance(values, dict) or values.get("format") != BANK_FORMAT:
        found = values.get("format") if isinstance(values, dict) else None
        raise ValueError(f"{path} has format {found}, this version reads {BANK_FORMAT}; render it again")
    if values.get("kind", CLIPS) != kind:
        raise ValueError(f"{folder} is a bank of {values.get('kind', CLIPS)}, not of {kind}; give another")
    return values


def write_shards(
    folder: Path,
    make: Maker,
    count: int,
    per_shard: int,
    workers: int = 1,
    on_items: Callable[[int], object] | None = None,
) -> None:
    """Write the items 0 to ``count - 1`` that are not there yet; a last shard that is too short is made anew.

    Args:
        workers: processes (started by ``spawn``); 0 or 1 works in this process.
        on_items: called with the number of items of each shard that is done, also of those found there.
    """
    jobs = []
    for shard, first in enumerate(range(0, count, per_shard)):
        items = min(per_shard, count - first)
        if _items_in(folder / f"shard_{shard:05d}") < items:
            jobs.append((folder, make, shard, first, items))
        elif on_items:
            on_items(items)
    if workers <= 1:
        for job in jobs:
            done = _write_shard(*job)
            if on_items:
                on_items(done)
    elif jobs:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=quiet_worker) as pool:
            try:
                for future in as_completed([pool.submit(_write_shard, *job) for job in jobs]):
                    done = future.result()
                    if on_items:
                        on_items(done)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def quiet_worker() -> None:
    """Initialiser of worker processes: one thread each; Ctrl-C is the parent's affair, which ends them in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    os.environ["NUMBA_NUM_THREADS"] = "1"


def _write_shard(folder: Path, make: Maker, shard: int, first: int, items: int) -> int:
    content = make(first, items)
    target = folder / f"shard_{shard:05d}"
    with tempfile.TemporaryDirectory(prefix=".shard_", dir=folder) as scratch:
        fresh = Path(scratch) / "shard"
        fresh.mkdir()
        for name, values in content.items():
            if isinstance(values, np.ndarray):
                np.save(fresh / f"{name}.npy", values)
            else:
                (fresh / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
        if target.exists():  # a shorter last shard of a bank that is being enlarged
            shutil.move(target, Path(scratch) / "old")
        os.replace(fresh, target)
    return items


def _items_in(shard: Path) -> int:
    path = shard / "images.npy"
    return int(np.load(path, mmap_mode="r").shape[0]) if path.is_file() else 0


class Shards:
    """The items of several banks as one list; arrays are memory mapped, shards that appear later are not seen.

    Attributes:
        places: of each item the number of its bank and its number in that bank.
    """

    def __init__(
        self, folders: Sequence[str | Path], per_shard: Sequence[int], channels: Sequence[str], most: int | None = None
    ) -> None:
        """channels: names of the arrays; most: use only the first items.

        Raises:
            FileNotFoundError: if there is none.
        """
        self._arrays: list[dict[str, np.ndarray]] = []
        self._paths: list[Path] = []
        rows: list[tuple[int, int]] = []
        places: list[tuple[int, int]] = []
        for bank, (folder, step) in enumerate(zip(folders, per_shard, strict=True)):
            for path in sorted(Path(folder).glob("shard_*")):
                arrays = {channel: np.load(path / f"{channel}.npy", mmap_mode="r") for channel in channels}
                first, items = int(path.name.removeprefix("shard_")) * step, len(arrays[channels[0]])
                rows += [(len(self._paths), row) for row in range(items)]
                places += [(bank, first + row) for row in range(items)]
                self._arrays.append(arrays)
                self._paths.append(path)
        self._rows, self.places = rows[:most], places[:most]
        if not self._rows:
            raise FileNotFoundError(f"the bank {folders[0]} holds no rendered item yet; render it first")

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, item: int, channel: str, frames: np.ndarray | slice = slice(None)) -> torch.Tensor:
        """A copy of an item's array, or of some rows of it."""
        shard, row = self._rows[item]
        return torch.from_numpy(np.array(self._arrays[shard][channel][row][frames]))

    def column(self, channel: str) -> torch.Tensor:
        """An array of all items, (N, ...), in memory."""
        return torch.from_numpy(np.stack([self._arrays[shard][channel][row] for shard, row in self._rows]))

    def listed(self, name: str) -> list[Any]:
        """A list of the shards' JSON files with one entry per item."""
        lists = [json.loads((path / f"{name}.json").read_text(encoding="utf-8")) for path in self._paths]
        return [lists[shard][row] for shard, row in self._rows]


class Epochs:
    """Which items a batch holds: every item once per epoch, in an order that depends on (seed, epoch).

    Ranks read disjoint parts of an epoch.
    """

    def __init__(self, length: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.length, self.batch_size, self.seed, self.rank, self.world_size = length, batch_size, seed, rank, world_size
        self._orders: dict[int, np.ndarray] = {}

    def items(self, step: int) -> list[int]:
        """Numbers of the items of this rank's batch at a step."""
        position = (step * self.world_size + self.rank) * self.batch_size
        return [self._at(position + item) for item in range(self.batch_size)]

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, self.length)
        order = self._orders.get(epoch)
        if order is None:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
            self._orders = {epoch: order, **{k: v for k, v in self._orders.items() if abs(k - epoch) == 1}}
        return int(order[place])
