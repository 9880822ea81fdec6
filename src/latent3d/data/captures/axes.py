"""Are a capture's poses read in the right convention? Its pictures know, and often its cameras alone.

OpenGL's camera axes differ from OpenCV's by half a turn about x. Taken for one another, or with matrices taken
the wrong way round, they give cameras that contradict the pictures: matched points leave their epipolar lines or fall
behind the cameras. The four readings are tried on the same matches, and one that explains clearly more is offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from latent3d.data.captures.capture import Capture
from latent3d.data.captures.matches import CONVENTIONS, Pair, explained, reread

ENOUGH = 0.2
"""Share of matches that right poses explain at the least; wrong conventions explain a few per cent."""
WELL = 0.5
"""Share below which right poses are called rough."""
CLEARLY = 0.15
"""By how much another reading must beat the present one."""


@dataclass(frozen=True)
class AxesVerdict:
    """What was found out about a capture's convention.

    Attributes:
        shares: share of matches that each of the `CONVENTIONS` explains; empty without matches.
        now: the present reading (axes, whether inverted).
        best: the reading to use; the present one unless another is clearly better.
        matches: how many matches decided.
        sentence: all that in words, with the option that mends it.
    """

    shares: dict[tuple[str, bool], float]
    now: tuple[str, bool]
    best: tuple[str, bool]
    matches: int
    sentence: str

    @property
    def is_right(self) -> bool:
        """Whether no other reading is clearly better."""
        return self.now == self.best

    @property
    def is_sure(self) -> bool:
        """Whether nothing contradicts the present reading: it explains the matches, or there are none."""
        return self.is_right and (not self.matches or self.shares[self.now] >= ENOUGH)


def judge_axes(capture: Capture, pairs: Sequence[Pair]) -> AxesVerdict:
    """Compare the `CONVENTIONS` on matched pairs; without any, see whether cameras look at a common point."""
    now = (capture.axes, capture.inverse)
    matches = sum(len(pair.first) for pair in pairs)
    if not matches:
        return AxesVerdict({}, now, now, 0, _without_matches(capture))
    c2w = torch.from_numpy(capture.c2w)
    shares = {}
    for reading in CONVENTIONS:
        hits = [explained(pair, reread(c2w[list(pair.frames)], now, reading)) for pair in pairs]
        # Every pair counts alike: one easy pair must not outvote the others.
        shares[reading] = float(np.mean([float(hit.double().mean()) for hit in hits]))
    top = max(shares, key=lambda reading: (shares[reading], reading == now))
    best = top if shares[top] >= ENOUGH and shares[top] > shares[now] + CLEARLY else now
    share = f"{100 * shares[now]:.0f} % of {matches} matched points"
    if best != now:
        option = f"--axes {best[0]}" if best[0] != now[0] else ""
        option += " --inverse" if best[1] and not now[1] else ""
        option = option.strip() or "leave out --inverse"
        sentence = (
            f"The poses explain {share}; read as {describe(best)} they explain {100 * shares[best]:.0f} %: the axis "
            f"convention is wrong ({option})."
        )
    elif shares[now] >= ENOUGH:
        rough = "" if shares[now] >= WELL else " within 2 pixels; they are rough, or the lens is not undone"
        sentence = f"The poses, read as {describe(now)}, explain {share}{rough}."
    else:
        sentence = f"The poses explain only {share}, and so does every other convention: are they of these pictures?"
    return AxesVerdict(shares, now, best, matches, sentence)


def describe(reading: tuple[str, bool]) -> str:
    """A convention in words."""
    return f"{'OpenCV' if reading[0] == 'opencv' else 'OpenGL'} axes{' and inverted' if reading[1] else ''}"


def looking_away(c2w: np.ndarray) -> float | None:
    """Share of cameras (N, 4, 4) that have the point nearest to all their axes behind them.

    None where that says nothing: fewer than three cameras, axes that miss their common point widely, or all pointing
    one way, as along a walk (which may lead towards the point or away from it).
    """
    centers, axes = c2w[:, :3, 3], c2w[:, :3, 2]
    if len(c2w) < 3 or np.linalg.norm(axes.mean(0)) > 0.85:
        return None
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    total = across.sum(0)
    if np.linalg.eigvalsh(total)[0] < 0.02 * len(c2w):
        return None
    focus = np.linalg.solve(total, np.einsum("nij,nj->i", across, centers))
    toward = focus - centers
    distance = np.linalg.norm(toward, axis=1)
    missed = np.linalg.norm(np.einsum("nij,nj->ni", across, toward), axis=1)
    if np.median(missed / np.maximum(distance, 1e-12)) > 0.35:
        return None
    return float(((toward * axes).sum(1) < 0).mean())


def _without_matches(capture: Capture) -> str:
    away = looking_away(capture.c2w)
    other = "opencv" if capture.axes == "opengl" else "opengl"
    if away is not None and away > 0.8:
        return (
            f"{100 * away:.0f} % of the cameras look away from the point that their axes share: the axis convention "
            f"may be wrong (--axes {other}), unless they were turned about one place."
        )
    if away is not None and away < 0.2:
        return "The cameras look at a common point, as they should; there are no matched points to confirm it."
    return "There are no matched points to tell the axis convention by."
