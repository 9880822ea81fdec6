"""A bank of rendered clips on disk: written once, read at random by training.

Layout of a bank folder (`latent3d.data.bank_files`)::

    bank.json                       format, family, split, first seed, frames per clip, size, clips per shard
    shard_00000/images.npy          uint8   (N, V + J, 3, H, W), sRGB
    shard_00000/depths.npy          float16 (N, V + J, 1, H, W), z-depth, 0 where unknown
    shard_00000/w2c.npy, k.npy      float32 (N, V + J, 4, 4) and (N, V + J, 3, 3), pixels

Clip n of the bank is clip ``start + n`` of the family.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from latent3d.data.bank_files import BANK_FORMAT, CLIPS, Content, Epochs, Shards, read_about, start_bank, write_shards
from latent3d.data.view_sampling import ViewSampling
from latent3d.geometry.cameras import Cameras
from latent3d.representations.views import Views

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
    start_bank(folder, CLIPS, asdict(info))
    write_shards(folder, Clips(info, sampler), count, shard_clips, workers, on_clips)
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


def read_bank_info(folder: str | Path) -> BankInfo:
    """``bank.json`` of a bank folder. Raises FileNotFoundError or ValueError with the remedy."""
    return BankInfo(**read_about(folder, CLIPS))


@dataclass(frozen=True)
class Clips:
    """Maker of the clips of a bank; ``sampler`` as in `render_bank`."""

    info: BankInfo
    sampler: Sampler | None = None

    def __call__(self, first: int, count: int) -> Content:
        """Clips ``first`` to ``first + count - 1`` of the bank as arrays."""
        info, sampler = self.info, self.sampler or worlds_sampler()
        parts = [
            to_arrays(
                sampler(
                    info.family, info.split, info.start + first + offset,
                    num_views=info.num_views, height=info.height, width=info.width, extra_views=info.extra_views,
                )
            )
            for offset in range(count)
        ]  # fmt: skip
        return {channel: np.stack([part[channel] for part in parts]) for channel in CHANNELS}


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
        self._shards = Shards(folders, [info.shard_clips for info in infos], CHANNELS, max_clips)
        self._epochs = Epochs(len(self._shards), batch_size, seed, rank, world_size)
        self._names = [
            f"{infos[bank].family}/{infos[bank].split}/{infos[bank].start + clip}" for bank, clip in self._shards.places
        ]

    def __len__(self) -> int:
        """Number of clips."""
        return len(self._shards)

    def describe(self, step: int) -> list[str]:
        """Names ``family/split/index`` of the clips in ``batch(step)``; they re-create them through the worlds."""
        return [self._names[clip] for clip in self._epochs.items(step)]

    def batch(self, step: int) -> Views:
        """Batch number ``step``: images (B, F, 3, H, W) in [0, 1], depths (B, F, 1, H, W), cameras (B, F)."""
        return assemble(
            self._epochs.items(step), self._read, self.sampling, (self.seed, self.rank, step),
            (self.info.num_views, self.info.extra_views),
        )  # fmt: skip

    def _read(self, clip: int, frames: np.ndarray) -> Views:
        arrays = {channel: self._shards.read(clip, channel, frames) for channel in CHANNELS}
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
