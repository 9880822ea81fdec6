"""What is shown to a model and what is asked of it: protocols, and the sources of scenes they run on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from latent3d.config import Config
from latent3d.representations.views import Views


@dataclass(frozen=True, kw_only=True)
class ViewProtocol(Config):
    """Which of the views of a clip are references; the others are targets, in path order.

    Attributes:
        name: as printed.
        views: views per scene along the path.
        references: indices of the reference views.
    """

    name: str
    views: int = 8
    references: tuple[int, ...] = (0,)

    @property
    def targets(self) -> tuple[int, ...]:
        """Indices of the target views."""
        return tuple(i for i in range(self.views) if i not in self.references)

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
}
"""GGS's main tables: 8 views; the first is the reference and 7 are targets, or first and last and the 6 between."""


def get_protocol(name: str) -> ViewProtocol:
    """Protocol by name.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol '{name}'; choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


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
    ) -> None:
        """Read the cameras.

        Args:
            folder: the capture; frames are taken in its order.
            views: photos per scene.
            size: (height, width) in pixels after the resize.
            stride: distance between neighbouring photos of a scene in the file's order.
            scale: factor on the translations, to bring a capture of arbitrary scale to the model's units.

        Raises:
            FileNotFoundError, ValueError: if the capture cannot be read, has no pictures, or too few.
        """
        from latent3d.data.captures.reading import read_capture

        self.folder, self.views, self.size, self.stride, self.scale = Path(folder), views, size, stride, scale
        self.capture = read_capture(folder).scaled(scale)
        if not self.capture.has_pictures:
            raise ValueError(f"'{folder}' has cameras only; give a capture with its pictures")
        self.span = (views - 1) * stride + 1
        if len(self.capture) < self.span:
            raise ValueError(
                f"'{folder}': {len(self.capture)} photos are fewer than the {self.span} that a scene spans"
            )

    def __len__(self) -> int:
        # Windows overlap by half, so that a short capture still gives several scenes.
        return 1 + (len(self.capture) - self.span) // max(1, self.span // 2)

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
