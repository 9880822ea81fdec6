"""A bank of rendered clips on disk: written once, read at random by training.

Layout of a bank folder::

    bank.json                       format, family, split, first seed, frames per clip, size, clips per shard
    shard_00000/images.npy          uint8   (N, V + J, 3, H, W), sRGB
    shard_00000/depths.npy          float16 (N, V + J, 1, H, W), z-depth, 0 where unknown
    shard_00000/w2c.npy, k.npy      float32 (N, V + J, 4, 4) and (N, V + J, 3, 3), pixels

A shard appears by one rename, so a bank is whole at any moment and rendering goes on where it stopped. Clip n of the
bank is clip ``start + n`` of the family, whatever the number of workers.
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
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from latent3d.data.view_sampling import ViewSampling
from latent3d.geometry.cameras import Cameras
from latent3d.representations.views import Views

BANK_FORMAT = 1
CHANNELS = ("images", "depths", "w2c", "k")
Sampler = Callable[..., Views]


@dataclass(frozen=True)
class BankInfo:
    """What ``bank.json`` says: frames per clip V (path) + J (extra), size in pixels, seeds from ``start``."""

    family: str
    split: str
    start: int
    num_views: int
    extra_views: int
    height: int
    width: int
    shard_clips: int
    format: int = BANK_FORMAT


def worlds_sampler() -> Sampler:
    """``latent3d.worlds.sample_clip``, imported when first needed (it compiles kernels)."""
    from latent3d.worlds import sample_clip

    return sample_clip


def to_arrays(clip: Views) -> dict[str, np.ndarray]:
    """A clip as it is stored: images rounded to 8 bits, depths to half precision (at most 60,000 scene units)."""
    frames, _, height, width = clip.images.shape
    depths = torch.zeros(frames, 1, height, width) if clip.depths is None else clip.depths
    return {
        "images": (clip.images.clamp(0, 1) * 255).round().to(torch.uint8).numpy(),
        "depths": depths.clamp(0, 6e4).to(torch.float16).numpy(),
        "w2c": clip.cameras.w2c.float().numpy(),
        "k": clip.cameras.k.float().numpy(),
    }


def render_bank(
    folder: str | Path,
    family: str = "mixed",
    split: str = "train",
    start: int = 0,
    count: int = 1000,
    num_views: int = 8,
    extra_views: int = 2,
    size: int | tuple[int, int] = 128,
    workers: int = 1,
    *,
    shard_clips: int = 32,
    sampler: Sampler | None = None,
    on_clips: Callable[[int], None] | None = None,
) -> Path:
    """Render clips ``start`` to ``start + count - 1`` of a family into a bank; what is there already is kept.

    Args:
        size: side in pixels, or (height, width).
        workers: processes (started by ``spawn``); 0 or 1 renders in this process.
        sampler: ``sampler(family, split, index, num_views=, height=, width=, extra_views=) -> Views`` of V + J frames;
            default ``latent3d.worlds.sample_clip``. With several workers it must be an importable function.
        on_clips: called with the number of clips of each shard that is done, also of those found there.

    Raises:
        ValueError: where the folder holds a bank of another kind, or count or sizes are not positive.
    """
    folder = Path(folder)
    height, width = (size, size) if isinstance(size, int) else size
    if min(count, num_views, height, width, shard_clips) < 1 or extra_views < 0 or start < 0:
        raise ValueError("a bank needs positive count, views, size and shard_clips, and start >= 0")
    info = BankInfo(family, split, start, num_views, extra_views, height, width, shard_clips)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "bank.json").exists():
        known = read_bank_info(folder)
        if known != info:
            changed = [key for key, value in asdict(info).items() if getattr(known, key) != value]
            raise ValueError(f"{folder} holds another bank (different: {', '.join(changed)}); choose another folder")
    else:
        _write_json(folder / "bank.json", asdict(info))
    sizes = [min(shard_clips, count - first) for first in range(0, count, shard_clips)]
    jobs = []
    for shard, clips in enumerate(sizes):
        if _clips_in(folder / f"shard_{shard:05d}") >= clips:
            if on_clips:
                on_clips(clips)
        else:
            jobs.append((str(folder), info, shard, clips, sampler))
    if workers <= 1:
        for job in jobs:
            done = _render_shard(*job)
            if on_clips:
                on_clips(done)
    elif jobs:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=quiet_worker) as pool:
            try:
                for future in as_completed([pool.submit(_render_shard, *job) for job in jobs]):
                    done = future.result()
                    if on_clips:
                        on_clips(done)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return folder


def bank_command(
    folder: Path,
    family: str = "mixed",
    split: str = "train",
    start: int = 0,
    count: int = 1000,
    num_views: int = 8,
    extra_views: int = 2,
    size: int = 128,
    workers: int = 2,
    shard_clips: int = 32,
) -> Path:
    """Render a bank of clips with a progress bar (``latent3d data bank``); run it again to go on or to enlarge it."""
    from tqdm import tqdm

    with tqdm(total=count, unit="clip", desc=f"{family}/{split}") as bar:
        return render_bank(
            folder, family, split, start, count, num_views, extra_views, size, workers,
            shard_clips=shard_clips, on_clips=bar.update,
        )  # fmt: skip


def quiet_worker() -> None:
    """Initialiser of worker processes: one thread each; Ctrl-C is the parent's affair, which ends them in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    os.environ["NUMBA_NUM_THREADS"] = "1"


def read_bank_info(folder: str | Path) -> BankInfo:
    """``bank.json`` of a bank folder. Raises FileNotFoundError or ValueError with the remedy."""
    path = Path(folder) / "bank.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a bank of clips: bank.json is missing; render one with render_bank")
    values = json.loads(path.read_text())
    if values.get("format") != BANK_FORMAT:
        raise ValueError(f"{path} has format {values.get('format')}, this version reads {BANK_FORMAT}; render it again")
    return BankInfo(**values)


def _render_shard(folder: str, info: BankInfo, shard: int, clips: int, sampler: Sampler | None) -> int:
    sampler = sampler or worlds_sampler()
    parts = []
    for offset in range(clips):
        clip = sampler(
            info.family, info.split, info.start + shard * info.shard_clips + offset,
            num_views=info.num_views, height=info.height, width=info.width, extra_views=info.extra_views,
        )  # fmt: skip
        parts.append(to_arrays(clip))
    target = Path(folder) / f"shard_{shard:05d}"
    with tempfile.TemporaryDirectory(prefix=".shard_", dir=folder) as scratch:
        fresh = Path(scratch) / "shard"
        fresh.mkdir()
        for channel in CHANNELS:
            np.save(fresh / f"{channel}.npy", np.stack([part[channel] for part in parts]))
        if target.exists():  # a shorter last shard of a bank that is being enlarged
            shutil.move(target, Path(scratch) / "old")
        os.replace(fresh, target)
    return clips


def _clips_in(shard: Path) -> int:
    path = shard / "images.npy"
    return int(np.load(path, mmap_mode="r").shape[0]) if path.is_file() else 0


def _write_json(path: Path, values: dict) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(values, indent=1))
    os.replace(temporary, path)


class BankStream:
    """Random batches from one or several banks as a pure function of the step.

    ``batch(step)`` gives `Views` with leading shape (B, views + novel). Every clip comes once per epoch, in an order
    that depends on the seed and the epoch; frames are drawn from (seed, rank, step). Ranks read disjoint parts of an
    epoch.
    """

    def __init__(
        self,
        folder: str | Path | Sequence[str | Path],
        batch_size: int,
        sampling: ViewSampling | None = None,
        seed: int = 0,
        *,
        rank: int = 0,
        world_size: int = 1,
        max_clips: int | None = None,
    ) -> None:
        """Open the banks; shards that appear later are not seen.

        Args:
            sampling: which frames; default all path frames in order.
            max_clips: use only the first clips of the (joined) banks.

        Raises:
            FileNotFoundError: no bank or no rendered clip there.
            ValueError: banks of different frame counts or sizes, or clips with too few frames.
        """
        folders = [folder] if isinstance(folder, str | Path) else list(folder)
        infos = [read_bank_info(path) for path in folders]
        shapes = {(info.num_views, info.extra_views, info.height, info.width) for info in infos}
        if len(shapes) != 1:
            raise ValueError("banks read together need equal numbers of frames and equal image sizes")
        self.info = infos[0]
        self.sampling = sampling or ViewSampling(views=self.info.num_views)
        self.sampling.check(self.info.num_views, self.info.extra_views)
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        self._shards: list[dict[str, np.ndarray]] = []
        names: list[str] = []
        table: list[tuple[int, int]] = []
        for path, info in zip(folders, infos, strict=True):
            for shard in sorted(Path(path).glob("shard_*")):
                arrays = {channel: np.load(shard / f"{channel}.npy", mmap_mode="r") for channel in CHANNELS}
                first = info.start + int(shard.name.removeprefix("shard_")) * info.shard_clips
                table += [(len(self._shards), row) for row in range(len(arrays["images"]))]
                names += [f"{info.family}/{info.split}/{first + row}" for row in range(len(arrays["images"]))]
                self._shards.append(arrays)
        self._table, self._names = table[:max_clips], names[:max_clips]
        if not self._table:
            raise FileNotFoundError(f"the bank {folders[0]} holds no rendered clip yet; render one with render_bank")
        self._orders: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        """Number of clips."""
        return len(self._table)

    def describe(self, step: int) -> list[str]:
        """Names ``family/split/index`` of the clips in ``batch(step)``; they re-create them through the worlds."""
        return [self._names[clip] for clip in self._clips(step)]

    def batch(self, step: int) -> Views:
        """Batch number ``step``: images (B, F, 3, H, W) in [0, 1], depths (B, F, 1, H, W), cameras (B, F)."""
        return assemble(
            self._clips(step), self._read, self.sampling, (self.seed, self.rank, step),
            (self.info.num_views, self.info.extra_views),
        )  # fmt: skip

    def _clips(self, step: int) -> list[int]:
        position = (step * self.world_size + self.rank) * self.batch_size
        return [self._at(position + item) for item in range(self.batch_size)]

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, len(self._table))
        order = self._orders.get(epoch)
        if order is None:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self._table))
            self._orders = {epoch: order, **{k: v for k, v in self._orders.items() if abs(k - epoch) == 1}}
        return int(order[place])

    def _read(self, clip: int, frames: np.ndarray) -> Views:
        shard, row = self._table[clip]
        arrays = {channel: torch.from_numpy(self._shards[shard][channel][row][frames]) for channel in CHANNELS}
        cameras = Cameras(w2c=arrays["w2c"], k=arrays["k"], height=self.info.height, width=self.info.width)
        return Views(images=arrays["images"].float().div_(255), cameras=cameras, depths=arrays["depths"].float())


def assemble(
    clips: Sequence[int],
    read: Callable[[int, np.ndarray], Views],
    sampling: ViewSampling,
    key: tuple[int, ...],
    frames: tuple[int, int],
) -> Views:
    """Batch of chosen frames: ``read(clip, frame numbers)`` per clip, choices drawn from ``key`` = (seed, rank, step).

    frames: (V, J) of the clips. Item i of the batch draws from (key, i).
    """
    parts = []
    for item, clip in enumerate(clips):
        rng = np.random.default_rng([*key, item])
        views = read(clip, sampling.choose(rng, *frames))
        parts.append(sampling.augment(views, rng))
    return Views.stack(parts)
