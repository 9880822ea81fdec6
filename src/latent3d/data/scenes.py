"""Training batches straight from the procedural worlds, and reading ahead.

Every stream has ``batch(step)`` with leading shape (B, F), a pure function of (seed, rank, step), and
``describe(step)`` with the names of its clips; so a resumed run sees the same data whatever the number of workers.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
import torch

from latent3d.data.bank_files import quiet_worker
from latent3d.data.shards import Sampler, assemble, worlds_sampler
from latent3d.data.view_sampling import ViewSampling
from latent3d.geometry.cameras import Cameras
from latent3d.representations.objects import ObjectLatents, ObjectViews
from latent3d.representations.views import Views

SEED_STRIDE = 10_000_000
Batch = Views | ObjectViews | ObjectLatents
T = TypeVar("T")


class Stream(Protocol):
    """What training reads: `WorldStream`, `BankStream`, streams of objects or anything alike."""

    batch_size: int

    def batch(self, step: int) -> Batch:
        """Batch number ``step`` with leading shape (B, F)."""

    def describe(self, step: int) -> list[str]:
        """Names of the clips in ``batch(step)``."""


class FreshItems:
    """Numbers of items that no batch had before within a seed, and the processes that render them.

    Item numbers are ``seed * 10,000,000 + (step * world_size + rank) * batch_size + item``.
    """

    def __init__(self, batch_size: int, seed: int, rank: int, world_size: int, workers: int) -> None:
        """workers: rendering processes; 0 renders in the calling thread."""
        self.batch_size, self.seed = batch_size, seed
        self.rank, self.world_size, self.workers = rank, world_size, workers
        self._pool: ProcessPoolExecutor | None = None

    def close(self) -> None:
        """Stop the worker processes; the next batch would start them again."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _indices(self, step: int) -> list[int]:
        first = self.seed * SEED_STRIDE + (step * self.world_size + self.rank) * self.batch_size
        return list(range(first, first + self.batch_size))

    def _start(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=quiet_worker)
        return self._pool

    def _rendered(self, render: Callable[..., T], jobs: Sequence[tuple]) -> list[T]:
        """``render(*job)`` of every job, in their order."""
        if self.workers > 0:
            return list(self._start().map(render, *zip(*jobs, strict=True)))
        return [render(*job) for job in jobs]


class WorldStream(FreshItems):
    """Endless batches of fresh clips of a world family: no clip comes twice within a seed."""

    def __init__(
        self,
        family: str,
        batch_size: int,
        sampling: ViewSampling | None = None,
        seed: int = 0,
        *,
        split: str = "train",
        size: int | tuple[int, int] = 128,
        path_views: int | None = None,
        extra_views: int | None = None,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        sampler: Sampler | None = None,
    ) -> None:
        """Set up; the worker processes (by ``spawn``) start with the first batch.

        Args:
            sampling: which frames of a clip; default 8 in path order.
            size: side in pixels, or (height, width).
            path_views, extra_views: frames rendered per clip; default just what ``sampling`` asks for.
            workers: rendering processes; 0 renders in the calling thread.
            sampler: as in `render_bank`.
        """
        super().__init__(batch_size, seed, rank, world_size, workers)
        self.family, self.split = family, split
        self.sampling = sampling or ViewSampling()
        self.path_views = self.sampling.views if path_views is None else path_views
        self.extra_views = self.sampling.novel if extra_views is None else extra_views
        self.sampling.check(self.path_views, self.extra_views)
        self.size = (size, size) if isinstance(size, int) else size
        self._sampler = sampler

    def describe(self, step: int) -> list[str]:
        """Names ``family/split/index`` of the clips in ``batch(step)``."""
        return [f"{self.family}/{self.split}/{index}" for index in self._indices(step)]

    def batch(self, step: int) -> Views:
        """Batch number ``step``: images (B, F, 3, H, W) in [0, 1], depths (B, F, 1, H, W), cameras (B, F)."""
        indices = self._indices(step)
        jobs = [
            (self._sampler, self.family, self.split, index, self.path_views, self.extra_views, self.size)
            for index in indices
        ]
        clips = [_unpack(clip) for clip in self._rendered(_render, jobs)]
        key = (self.seed, self.rank, step)
        return assemble(range(len(clips)), lambda i, f: clips[i][f], self.sampling, key, self._frames())

    def _frames(self) -> tuple[int, int]:
        return self.path_views, self.extra_views


def _render(
    sampler: Sampler | None, family: str, split: str, index: int, views: int, extra: int, size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """One clip as plain arrays: tensors would travel between processes as shared-memory handles, which run out."""
    sampler = sampler or worlds_sampler()
    clip = sampler(family, split, index, num_views=views, height=size[0], width=size[1], extra_views=extra)
    channels = {"images": clip.images, "w2c": clip.cameras.w2c, "k": clip.cameras.k}
    channels |= {name: value for name in ("depths", "normals") if (value := getattr(clip, name)) is not None}
    return {name: value.float().numpy() for name, value in channels.items()}


def _unpack(arrays: dict[str, np.ndarray]) -> Views:
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    height, width = tensors["images"].shape[-2:]
    cameras = Cameras(w2c=tensors.pop("w2c"), k=tensors.pop("k"), height=height, width=width)
    return Views(cameras=cameras, **tensors)


def prefetch(
    stream: Stream, start: int = 0, stop: int | None = None, depth: int = 2
) -> Generator[tuple[int, Batch], None, None]:
    """(step, batch) pairs in order from ``start``, prepared in a background thread, at most ``depth`` ahead.

    An error while preparing a batch is raised where that batch is asked for. Closing the iterator stops the thread.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        pending: deque = deque()
        upcoming = start
        try:
            while stop is None or upcoming < stop or pending:
                while len(pending) < max(depth, 1) and (stop is None or upcoming < stop):
                    pending.append((upcoming, pool.submit(stream.batch, upcoming)))
                    upcoming += 1
                step, future = pending.popleft()
                yield step, future.result()
        finally:
            for _, future in pending:
                future.cancel()
