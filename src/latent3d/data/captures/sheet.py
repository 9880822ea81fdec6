"""The check sheet of a capture: one picture that shows whether it was read rightly, and a few sentences that say so."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw

from latent3d.data.captures.axes import WELL, AxesVerdict, judge_axes
from latent3d.data.captures.capture import Capture
from latent3d.data.captures.drawing import (
    FRAME,
    INK,
    PAPER,
    SOFT,
    draw_pair,
    draw_paths,
    font,
    picture_of,
    shade,
)
from latent3d.data.captures.lens import undistorted_intrinsics
from latent3d.data.captures.matches import Pair, explained, match_pairs
from latent3d.data.captures.scale import Scale, measure, pair_depths
from latent3d.geometry.rays import unproject
from latent3d.io.images import depth_picture

WIDTH, MARGIN, GAP = 1440, 32, 12
THUMBNAILS = 10
PAIRS_SHOWN = 2


@dataclass(frozen=True)
class Check:
    """What `check_capture` found.

    Attributes:
        capture: as read.
        scale, axes: see there.
        pairs: matched pairs of frames.
        lines: the findings in words, most important first.
        is_good: no problem that asks for a person's decision.
    """

    capture: Capture
    scale: Scale
    axes: AxesVerdict
    pairs: tuple[Pair, ...]
    lines: tuple[str, ...]
    is_good: bool


def check_capture(capture: Capture, pairs: int = 6) -> Check:
    """Match a few pairs of pictures, judge the axes, measure the scale, and put it into words.

    Raises:
        ValueError: if a picture that is looked at cannot be read (`Capture.verified` sorts those out).
    """
    matched = tuple(match_pairs(capture, pairs)) if capture.has_pictures else ()
    axes = judge_axes(capture, matched)
    # Points triangulated with contradicted poses would be nonsense.
    scale = measure(capture, matched if axes.is_sure else ())
    unit = "m" if capture.metric else "units"
    counts = [f"{len(capture)} frames"]
    counts += [f"{len(capture.missing)} missing"] if capture.missing else []
    counts += [f"{len(capture.problems)} unusable"] if capture.problems else []
    lines = [", ".join(counts) + f"; {_sizes(capture)}.", axes.sentence]
    size = (
        f"Neighbouring cameras are {scale.step:.3g} {unit} apart (median), the farthest two {scale.extent:.3g} {unit}"
    )
    if scale.depth is not None:
        low, middle, high = scale.depth
        size += f"; depths {low:.3g} to {high:.3g} {unit}, median {middle:.3g} ({scale.source})"
    lines.append(size + ".")
    if scale.extent < 1e-9 and len(capture) > 1:
        lines.append("All cameras stand in one place: there is no parallax to build a scene from.")
    lines += capture.notes
    lines += _some("Missing", capture.missing) + _some("Unusable", capture.problems)
    return Check(capture, scale, axes, matched, tuple(lines), axes.is_sure and not capture.problems)


def _some(word: str, names: Sequence[str], most: int = 6) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return [f"{word}: {', '.join(names[:most])}{more}."]


def _sizes(capture: Capture) -> str:
    sizes = {(frame.width, frame.height) for frame in capture.frames}
    fields = []
    for frame in capture.frames[:: max(1, len(capture) // 20)]:
        k = undistorted_intrinsics(frame.lens, frame.k, frame.height, frame.width)
        fields.append(2 * math.degrees(math.atan(0.5 * frame.width / k[0, 0])))
    low, high = min(fields), max(fields)
    field = f"{low:.0f}" if high - low < 1 else f"{low:.0f} to {high:.0f}"
    size = " x ".join(map(str, next(iter(sizes)))) if len(sizes) == 1 else f"{len(sizes)} sizes"
    return f"{size} pixels, {field} degrees across" if capture.has_pictures else f"{field} degrees across"


def draw_sheet(check: Check, pictures: bool = True) -> Image.Image:
    """The sheet: title, pictures, cameras from above and from the side, epipolar lines, depths, findings.

    Args:
        pictures: without, frames are blank and depth maps are not used, for captures that are not to be shown; matched
            points and their lines, measured on the pictures, stay.
    """
    capture = check.capture
    parts = [_title(check)]
    if capture.has_pictures and pictures:
        parts.append(_thumbnails(capture))
    panel = ((WIDTH - 2 * MARGIN - GAP) // 2, 470)
    cloud = _cloud(check, pictures)
    parts.append(_row([draw_paths(capture, view, panel, cloud) for view in ("above", "side")]))
    if check.pairs:
        parts.append(_pairs(check, pictures))
    if capture.has_depth and capture.has_pictures and pictures:
        parts.append(_depths(capture))
    parts.append(_notes(check))
    height = sum(part.height for part in parts) + GAP * (len(parts) - 1) + 2 * MARGIN
    sheet = Image.new("RGB", (WIDTH, height), PAPER)
    y = MARGIN
    for part in parts:
        sheet.paste(part, (MARGIN, y))
        y += part.height + GAP
    return sheet


def _title(check: Check) -> Image.Image:
    band = Image.new("RGB", (WIDTH - 2 * MARGIN, 62), PAPER)
    draw = ImageDraw.Draw(band)
    draw.text((0, 0), check.capture.name, fill=INK, font=font(30))
    draw.text((0, 38), f"layout {check.capture.layout}  ·  {check.lines[0]}", fill=SOFT, font=font(17))
    colour, word = ((42, 157, 80), "good") if check.is_good else ((214, 92, 48), "see the notes")
    if check.is_good and not check.axes.matches:
        colour, word = SOFT, "cameras not checked against pictures"
    elif check.is_good and check.axes.shares[check.axes.now] < WELL:
        colour, word = (206, 150, 30), "rough cameras"
    length = draw.textlength(word, font=font(18))
    right = band.width - 14
    draw.rounded_rectangle((right - length - 28, 2, right + 14, 34), 8, fill=colour)
    draw.text((right - length - 7, 7), word, fill=PAPER, font=font(18))
    return band


def _thumbnails(capture: Capture) -> Image.Image:
    """Frames spread over the capture, a coloured bar under each as in the drawings of the cameras."""
    chosen = np.unique(np.linspace(0, len(capture) - 1, min(THUMBNAILS, len(capture))).round().astype(int))
    ratio = capture.frames[0].width / capture.frames[0].height
    width = (WIDTH - 2 * MARGIN - GAP * (THUMBNAILS // 2 - 1)) // (THUMBNAILS // 2)
    if ratio < 1.2 or len(chosen) > THUMBNAILS // 2:
        width = (WIDTH - 2 * MARGIN - GAP * (THUMBNAILS - 1)) // THUMBNAILS
    height = max(16, min(round(width / ratio), 240))
    width = max(16, round(height * ratio))
    views = capture.load(list(chosen), height, width)
    band = Image.new("RGB", (WIDTH - 2 * MARGIN, height + 26), PAPER)
    draw = ImageDraw.Draw(band)
    for place, (index, image) in enumerate(zip(chosen, views.images, strict=True)):
        x = place * (width + GAP)
        band.paste(picture_of(image), (x, 0))
        draw.rectangle((x, height + 2, x + width, height + 6), fill=shade(index / max(len(capture) - 1, 1)))
        label = capture.frames[index].name
        while len(label) > 3 and draw.textlength(label, font=font(13)) > width:
            label = "…" + label[2:]
        draw.text((x, height + 8), label, fill=SOFT, font=font(13))
    return band


def _pairs(check: Check, pictures: bool) -> Image.Image:
    """Matched points and their epipolar lines in the pairs with the most matches."""
    shown = sorted(check.pairs, key=lambda pair: -len(pair.first))[: PAIRS_SHOWN + 1]
    ratio = shown[0].views.cameras.width / shown[0].views.cameras.height
    shown = shown[: PAIRS_SHOWN if ratio > 0.9 else len(shown)]
    room = (WIDTH - 2 * MARGIN - GAP * (len(shown) - 1)) / len(shown)
    height = min(round((room - 6) / 2 / ratio), 430)
    drawings = []
    for pair in shown:
        good = explained(pair, torch.from_numpy(check.capture.c2w[list(pair.frames)]))
        drawn = draw_pair(check.capture, pair, good, height, pictures)
        drawings.append(Image.new("RGB", (drawn.width, height + 24), PAPER))
        drawings[-1].paste(drawn, (0, 0))
        names = " and ".join(check.capture.frames[index].name.rpartition("/")[2] for index in pair.frames)
        text = f"{names}: {int(good.sum())} of {len(good)} matches lie on their lines"
        ImageDraw.Draw(drawings[-1]).text((0, height + 5), text, fill=SOFT, font=font(14))
    return _row(drawings)


def _depths(capture: Capture) -> Image.Image:
    """Depth maps of a few frames: near is light, unknown black."""
    with_depth = [index for index, frame in enumerate(capture.frames) if frame.depth is not None]
    chosen = [
        with_depth[i]
        for i in np.unique(np.linspace(0, len(with_depth) - 1, min(6, len(with_depth))).round().astype(int))
    ]
    ratio = capture.frames[0].width / capture.frames[0].height
    height = min(170, round((WIDTH - 2 * MARGIN - GAP * 5) / 6 / ratio))
    views = capture.load(chosen, height, max(16, round(height * ratio)))
    assert views.depths is not None
    known = views.depths[views.depths > 0].double().numpy()
    near, far = np.quantile(known, [0.05, 0.95]) if len(known) else (0.1, 10.0)
    return _row([picture_of(depth_picture(depth, near, max(far, 1.001 * near))) for depth in views.depths])


def _cloud(check: Check, depth_maps: bool) -> np.ndarray:
    """Points of the place, world coordinates (N, 3): sparse points, else from depth maps, else matched points."""
    capture = check.capture
    if capture.points is not None and len(capture.points):
        return capture.points
    if capture.has_depth and capture.has_pictures and depth_maps:
        with_depth = [index for index, frame in enumerate(capture.frames) if frame.depth is not None]
        views = capture.load(with_depth[:: -(-len(with_depth) // 8)], 48, 64)
        assert views.depths is not None
        points = unproject(views.cameras, views.depths)
        return points[(views.depths > 0)[:, 0]].reshape(-1, 3).double().numpy()
    clouds = []
    for pair in check.pairs if check.axes.is_sure else ():
        c2w = capture.c2w[list(pair.frames)]
        good = explained(pair, torch.from_numpy(c2w)).numpy()
        k = pair.views.cameras.k[0].double().numpy()
        rays = (pair.first.numpy()[good] - k[:2, 2]) / k[[0, 1], [0, 1]]
        local = np.concatenate([rays, np.ones((len(rays), 1))], 1) * pair_depths(capture, pair).numpy()[:, None]
        clouds.append(local @ c2w[0, :3, :3].T + c2w[0, :3, 3])
    return np.concatenate(clouds) if clouds else np.zeros((0, 3))


def _notes(check: Check) -> Image.Image:
    rows = []
    for line in check.lines[1:]:
        wrapped = textwrap.wrap(line, 165) or [""]
        rows += [(place == 0, text) for place, text in enumerate(wrapped)]
    band = Image.new("RGB", (WIDTH - 2 * MARGIN, 24 * len(rows) + 14), PAPER)
    draw = ImageDraw.Draw(band)
    draw.line((0, 0, band.width, 0), fill=FRAME)
    for place, (is_first, text) in enumerate(rows):
        y = 10 + 24 * place
        if is_first:
            draw.ellipse((2, y + 8, 7, y + 13), fill=SOFT)
        draw.text((18, y), text, fill=INK, font=font(16))
    return band


def _row(pictures: Sequence[Image.Image]) -> Image.Image:
    band = Image.new("RGB", (WIDTH - 2 * MARGIN, max(picture.height for picture in pictures)), PAPER)
    x = 0
    for picture in pictures:
        band.paste(picture, (x, 0))
        x += picture.width + GAP
    return band
