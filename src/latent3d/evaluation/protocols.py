"""What is shown to a model and what is asked of it: protocols, and the sources of scenes they run on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from latent3d.config import Config
from latent3d.representations.views import Views


@dataclass(frozen=True, kw_only=True)
class ViewProtocol(Config):
    """Which of the views of a clip are references and which are targets, in path order.

    Attributes:
        name: as printed.
        views: views per scene along the path.
        references: indices of the reference views.
        asked: indices of the target views; none named: all that are no references.
    """

    name: str
    views: int = 8
    references: tuple[int, ...] = (0,)
    asked: tuple[int, ...] = ()

    @property
    def targets(self) -> tuple[int, ...]:
        """Indices of the target views."""
        return self.asked or tuple(i for i in range(self.views) if i not in self.references)

    @property
    def interpolates(self) -> bool:
        """Whether there are two references and every target lies between them along the path."""
        return len(self.references) == 2 and all(
            min(self.references) <= i <= max(self.references) for i in self.targets
        )

    def with_views(self, views: int) -> ViewProtocol:
        """The same protocol on clips of another length: references and targets at the same shares of the path.

        Raises:
            ValueError: if that leaves no target, or makes one view both.
        """
        if views == self.views:
            return self

        def moved(indices: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(round(i * (views - 1) / (self.views - 1)) for i in indices)

        references, asked = moved(self.references), moved(self.asked)
        distinct = len(set(references + asked)) == len(references + asked)
        if views < 2 or not distinct or len(references) >= views:
            raise ValueError(f"protocol {self.name} cannot run on {views} views per scene; ask for more")
        return self.replace(views=views, references=references, asked=asked)

    def for_scene(self, index: int) -> ViewProtocol:
        """The split of scene ``index``: the same for all."""
        return self

    def split(self, clip: Views) -> tuple[Views, Views]:
        """References and targets of a clip of ``views`` views.

        Raises:
            ValueError: if the clip has another number of views.
        """
        if len(clip) != self.views:
            raise ValueError(f"protocol {self.name} takes {self.views} views per scene, the clip has {len(clip)}")
        return clip[list(self.references)], clip[list(self.targets)]

    def in_path_order(self, references: Tensor, targets: Tensor) -> Tensor:
        """Per-view tensors of references (K, ...) and targets (M, ...) as one sequence along the path (K + M, ...)."""
        sequence = torch.cat([references, targets])
        position = torch.tensor([*self.references, *self.targets])
        return sequence[position.argsort()]


PROTOCOLS = {
    "ggs_one_ref": ViewProtocol(name="ggs_one_ref", references=(0,)),
    "ggs_two_ref": ViewProtocol(name="ggs_two_ref", references=(0, 7)),
    "ggs_two_ref_outside": ViewProtocol(name="ggs_two_ref_outside", references=(2, 5), asked=(0, 1, 6, 7)),
}
"""GGS's tables, on 8 views: the first is the reference and 7 are targets; first and last and the 6 between; and, with
two references, extrapolation, for which the paper names no frames: here two targets before and two after them
(latentSplat's indices lie on both sides too)."""
MAIN = ("ggs_one_ref", "ggs_two_ref")
"""Protocols of the tables that are made when none is named."""


def get_protocol(name: str, views: int = 8) -> ViewProtocol:
    """Protocol by name, on clips of so many views.

    Raises:
        ValueError: for an unknown name, or a number of views on which it cannot run.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol '{name}'; choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name].with_views(views)


class SceneSource(Protocol):
    """Numbered scenes with a description that goes into the record."""

    def __len__(self) -> int: ...

    def scene(self, index: int) -> Views:
        """Views along the path, with depths where they are known."""

    def describe(self) -> dict[str, Any]:
        """JSON-able: what the scenes are, how they were made or resized."""


@dataclass(frozen=True)
class WorldScenes:
    """The first ``count`` clips of a procedural family's split: a fixed, published list.

    Attributes:
        family: "mixed" (what training draws from) or "other" (never drawn in training), or a single family.
        count: number of scenes.
        split: "test" for tables, "val" while developing.
        views: views per clip.
        size: (height, width) in pixels.
    """

    family: str
    count: int = 64
    split: str = "test"
    views: int = 8
    size: tuple[int, int] = (128, 128)

    def __len__(self) -> int:
        return self.count

    def scene(self, index: int) -> Views:
        """Clip ``index`` with exact depth."""
        from latent3d.worlds import sample_clip

        height, width = self.size
        return sample_clip(self.family, self.split, index, num_views=self.views, height=height, width=width)

    def describe(self) -> dict[str, Any]:
        """Family, split and clip numbers."""
        return {
            "source": "worlds",
            "family": self.family,
            "split": self.split,
            "indices": f"0..{self.count - 1}",
            "resize_rule": "none: rendered at this size",
        }


class CaptureScenes:
    """Windows of consecutive posed photos of a real place, in any layout of `latent3d.data.captures`.

    Photos are freed of lens distortion, cut to the largest centred window of the wanted aspect and resized with an
    anti-aliasing filter. Measured depth has holes and errors and is left out, so that depth scores, seen masks and the
    true-depth warp fall away.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        views: int = 8,
        size: tuple[int, int] = (128, 128),
        stride: int = 1,
        scale: float = 1.0,
        count: int | None = None,
    ) -> None:
        """Read the cameras.

        Args:
            folder: the capture; frames are taken in its order.
            views: photos per scene.
            size: (height, width) in pixels after the resize.
            stride: distance between neighbouring photos of a scene in the file's order.
            scale: factor on the translations, to bring a capture of arbitrary scale to the model's units.
            count: at most so many scenes.

        Raises:
            FileNotFoundError, ValueError: if the capture cannot be read, has no pictures, or too few.
        """
        from latent3d.data.captures.reading import read_capture

        self.folder, self.views, self.size, self.stride, self.scale = Path(folder), views, size, stride, scale
        self.count = count
        self.capture = read_capture(folder)
        if scale != 1:
            self.capture = self.capture.scaled(scale)
        if not self.capture.has_pictures:
            raise ValueError(f"'{folder}' has cameras only; give a capture with its pictures")
        self.span = (views - 1) * stride + 1
        if len(self.capture) < self.span:
            raise ValueError(
                f"'{folder}': {len(self.capture)} photos are fewer than the {self.span} that a scene spans; "
                "ask for fewer views or a smaller stride"
            )

    def __len__(self) -> int:
        # Windows overlap by half, so that a short capture still gives several scenes.
        windows = 1 + (len(self.capture) - self.span) // max(1, self.span // 2)
        return windows if self.count is None else min(windows, self.count)

    def scene(self, index: int) -> Views:
        """Window ``index``: images and cameras, relative to the first camera of the window."""
        start = index * max(1, self.span // 2)
        views = self.capture.load(range(start, start + self.span, self.stride), *self.size)
        return Views(views.images, views.cameras.relative_to(views.cameras.c2w[0]))

    def describe(self) -> dict[str, Any]:
        """Folder name, numbers and what was done to the pictures."""
        return {
            "source": "capture",
            "family": self.folder.name,
            "photos": len(self.capture),
            "stride": self.stride,
            "translation_factor": self.scale,
            "resize_rule": f"undistorted, centred window, anti-aliased resize to {self.size[1]} x {self.size[0]}",
        }


@dataclass
class BankScenes:
    """Clips of a bank (see `latent3d.data.shards`), rendered or cut from captures, in a fixed order.

    Attributes:
        folder: the bank.
        count: at most so many clips.
        views: views per scene; clips with more are thinned evenly.
    """

    folder: Path
    count: int = 64
    views: int = 8
    stream: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from latent3d.data.shards import BankStream

        self.stream = BankStream(self.folder, 1)
        if self.stream.info.num_views < self.views:
            raise ValueError(
                f"the clips of '{self.folder}' have {self.stream.info.num_views} views, not {self.views}; "
                "give another bank or fewer --views"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of its pictures in pixels."""
        return self.stream.info.height, self.stream.info.width

    def __len__(self) -> int:
        return min(self.count, len(self.stream))

    def scene(self, index: int) -> Views:
        """Clip ``index`` of the bank's own order, relative to its first camera; depths where the bank has any."""
        chosen = torch.linspace(0, self.stream.info.num_views - 1, self.views).round().long()
        clip = self.stream.batch(index)[0][chosen]
        depths = clip.depths if clip.depths is not None and bool((clip.depths > 0).any()) else None
        return Views(clip.images, clip.cameras.relative_to(clip.cameras.c2w[0]), depths)

    def describe(self) -> dict[str, Any]:
        """What the bank says of itself."""
        info = self.stream.info
        return {
            "source": "bank",
            "family": Path(self.folder).resolve().name,
            "split": info.split,
            "clips": len(self.stream),
            "indices": f"0..{len(self) - 1} of the bank's order",
            "resize_rule": "none: as stored",
        }
