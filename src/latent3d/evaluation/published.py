"""Published test cases: the frames that pixelSplat, latentSplat and MVSplat360 show and ask for, scene by scene.

Their files name RealEstate10K, ACID or DL3DV scenes and frame numbers; the pictures have to be at hand as captures
whose folders (or camera files) carry the scenes' names.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latent3d.evaluation.protocols import ViewProtocol
from latent3d.representations.views import Views

if TYPE_CHECKING:
    from latent3d.data.captures.clips import EvaluationIndex


@dataclass(frozen=True)
class PublishedCases:
    """A file of cases as a protocol: every scene has its own references and targets.

    Attributes:
        name: of the file.
        sha256: of the file.
        cases: those that are evaluated, in file order.
        without_pictures: cases of the file whose scenes are not at hand.
    """

    name: str
    sha256: str
    cases: tuple[EvaluationIndex, ...]
    without_pictures: int = 0

    @classmethod
    def of(cls, file: str | Path, scenes: set[str], count: int | None = None) -> PublishedCases:
        """The first ``count`` cases of a file whose scenes are at hand (by name).

        Raises:
            FileNotFoundError, ValueError: if the file is no index, is empty or names none of the scenes.
        """
        from latent3d.data.captures.clips import read_evaluation_index

        cases, _ = read_evaluation_index(file)
        found = [case for case in cases if case.scene in scenes]
        if not found:
            raise ValueError(
                f"'{file}' names none of the {len(scenes)} captures that were given; its scenes are called "
                f"'{cases[0].scene}' and the like"
            )
        sha256 = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        return cls(Path(file).stem, sha256, tuple(found[:count]), len(cases) - len(found))

    def for_scene(self, index: int) -> ViewProtocol:
        """References and targets of case ``index`` as positions among `frames`."""
        case, frames = self.cases[index], self.frames(index)
        return ViewProtocol(
            name=self.name,
            views=len(frames),
            references=tuple(frames.index(i) for i in case.context),
            asked=tuple(frames.index(i) for i in case.target),
        )

    def frames(self, index: int) -> list[int]:
        """Frame numbers of case ``index``, each once, in order of the path."""
        case = self.cases[index]
        return sorted({*case.context, *case.target})

    def to_dict(self) -> dict[str, Any]:
        """What a record says of it."""
        return {"type": "PublishedCases", "name": self.name, "sha256": self.sha256}


class PublishedScenes:
    """The pictures of published cases, from captures."""

    def __init__(
        self, folder: str | Path, index: str | Path, *, size: tuple[int, int] = (128, 128), count: int | None = None
    ) -> None:
        """Find the captures.

        Args:
            folder: a folder of captures, in any layout of `latent3d.data.captures`.
            index: the file of cases.
            size: (height, width) in pixels after the resize.
            count: at most so many cases.

        Raises:
            FileNotFoundError, ValueError: if there is no capture, or no case for those that are there.
        """
        from latent3d.data.captures.reading import find_captures

        self.folder, self.size = Path(folder), size
        self.places = {path.stem if path.is_file() else path.name: path for path in find_captures(folder)}
        self.protocol = PublishedCases.of(index, set(self.places), count)

    def __len__(self) -> int:
        return len(self.protocol.cases)

    def scene(self, index: int) -> Views:
        """The frames of case ``index``, relative to the first of them.

        Raises:
            ValueError: if the capture lacks frames, so that the numbers would not mean what was published.
        """
        from latent3d.data.captures.reading import read_capture

        frames = self.protocol.frames(index)
        name = self.protocol.cases[index].scene
        capture = read_capture(self.places[name])
        lost = len(capture.missing) + len(capture.problems)
        if lost or frames[-1] >= len(capture):
            raise ValueError(
                f"'{self.places[name]}' has {len(capture)} usable frames and {lost} that are missing or damaged; the "
                f"published case needs the whole clip up to frame {frames[-1]}"
            )
        views = capture.load(frames, *self.size)
        return Views(views.images, views.cameras.relative_to(views.cameras.c2w[0]))

    def describe(self) -> dict[str, Any]:
        """Folder name, numbers and what was done to the pictures."""
        return {
            "source": "published",
            "family": self.folder.resolve().name,
            "indices": f"0..{len(self) - 1} of {self.protocol.name}",
            "without_pictures": self.protocol.without_pictures,
            "resize_rule": f"undistorted, centred window, anti-aliased resize to {self.size[1]} x {self.size[0]}",
        }
