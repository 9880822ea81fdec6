"""Small drawings for the check sheet: camera paths as seen from above and from the side, and epipolar lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from latent3d.data.captures.capture import Capture
from latent3d.data.captures.matches import Pair
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.epipolar import fundamental_matrix

PAPER, INK, SOFT, FRAME = (255, 255, 255), (28, 31, 38), (120, 126, 138), (214, 218, 226)
ORDER = ((46, 58, 140), (34, 128, 160), (60, 168, 116), (224, 178, 48), (214, 92, 48))
"""Colours of the first frame to the last."""
MARKS = (
    (214, 40, 57), (0, 119, 182), (42, 157, 80), (244, 140, 6), (123, 44, 191), (0, 150, 160),
    (233, 30, 140), (120, 90, 40),
)  # fmt: skip
"""Colours that tell matched points apart."""
MOST_FRUSTA = 60
SEED = 7


def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """The font that comes with Pillow."""
    return ImageFont.load_default(size)


def shade(share: float) -> tuple[int, int, int]:
    """Colour along `ORDER` for 0 (first) to 1 (last)."""
    place = min(max(share, 0.0), 1.0) * (len(ORDER) - 1)
    low = min(int(place), len(ORDER) - 2)
    mixed = [round(a + (b - a) * (place - low)) for a, b in zip(ORDER[low], ORDER[low + 1], strict=True)]
    return mixed[0], mixed[1], mixed[2]


def world_axes(c2w: np.ndarray) -> np.ndarray:
    """Rows right, forward, up of a world in which the cameras (N, 4, 4) stand upright on average, (3, 3).

    Up is the mean of the cameras' upward axes; forward the first camera's view, level.
    """
    up = -c2w[:, :3, 1].mean(0)
    if np.linalg.norm(up) < 0.1:
        up = -c2w[0, :3, 1]
    up = up / np.linalg.norm(up)
    forward = c2w[0, :3, 2] - (c2w[0, :3, 2] @ up) * up
    if np.linalg.norm(forward) < 1e-3:
        forward = c2w[0, :3, 0] - (c2w[0, :3, 0] @ up) * up
    forward = forward / np.linalg.norm(forward)
    return np.stack([np.cross(forward, up), forward, up])


@dataclass(frozen=True)
class Canvas:
    """Plane coordinates (scene units) to pixels: one scale for both axes, y up."""

    center: np.ndarray
    scale: float
    size: tuple[int, int]

    @classmethod
    def around(cls, points: np.ndarray, size: tuple[int, int], margin: int = 34) -> Canvas:
        """Fit points (N, 2) into (width, height) pixels."""
        low, high = points.min(0), points.max(0)
        span = np.maximum(high - low, 1e-9 + 1e-3 * (high - low).max())
        scale = float(min((size[0] - 2 * margin) / span[0], (size[1] - 2 * margin) / span[1]))
        return cls((low + high) / 2, scale, size)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        offset = (points - self.center) * self.scale * np.array([1, -1])
        return offset + np.array(self.size) / 2


def frustum(c2w: np.ndarray, k: np.ndarray, height: int, width: int, depth: float) -> np.ndarray:
    """Apex and the four corners at a z-depth of a camera's view, world coordinates (5, 3)."""
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
    rays = np.concatenate([(corners - k[:2, 2]) / k[[0, 1], [0, 1]], np.ones((4, 1))], 1)
    points = np.vstack([np.zeros(3), rays * depth])
    return points @ c2w[:3, :3].T + c2w[:3, 3]


def draw_paths(capture: Capture, view: str, size: tuple[int, int], cloud: np.ndarray) -> Image.Image:
    """The cameras and a cloud of points (N, 3) from ``view`` = "above" or "side", as a picture of (width, height)."""
    basis = world_axes(capture.c2w)[[0, 1] if view == "above" else [1, 2]]
    centers = capture.c2w[:, :3, 3]
    extent = float(np.linalg.norm(centers - centers.mean(0), axis=1).max())
    near = cloud
    if len(cloud):  # far points would shrink the cameras to dots
        middle = np.median(cloud, axis=0)
        reach = 3 * max(extent, 1e-9) + np.linalg.norm(middle - centers.mean(0))
        near = cloud[np.linalg.norm(cloud - centers.mean(0), axis=1) < reach]
    chosen = np.unique(np.linspace(0, len(capture) - 1, min(len(capture), MOST_FRUSTA)).round().astype(int))
    length = 0.14 * max(extent, 1e-6) if len(capture) > 1 else 1.0
    if len(near):  # still to be seen in a large place
        length = max(length, 0.06 * float(np.linalg.norm(np.ptp(np.quantile(near, [0.1, 0.9], axis=0), axis=0))))
    frames = [capture.frames[i] for i in chosen]
    shapes = [frustum(f.c2w, f.k, f.height, f.width, length) @ basis.T for f in frames]
    fitted = np.concatenate([*shapes, np.quantile(near @ basis.T, [0.02, 0.98], axis=0) if len(near) else shapes[0]])
    canvas = Canvas.around(fitted, size)
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture, "RGBA")
    if len(near):
        keep = np.random.default_rng(SEED).permutation(len(near))[:4000]
        for x, y in canvas(near[keep] @ basis.T):
            draw.ellipse((x - 1, y - 1, x + 1, y + 1), fill=(*SOFT, 110))
    line = canvas(centers @ basis.T)
    if len(line) > 1:
        draw.line([tuple(p) for p in line], fill=(*SOFT, 120), width=1)
    for index, shape in zip(chosen, shapes, strict=True):
        colour = shade(index / max(len(capture) - 1, 1))
        apex, *corners = (tuple(p) for p in canvas(shape))
        draw.polygon(corners, fill=(*colour, 36))
        draw.line([*corners, corners[0]], fill=(*colour, 235), width=1)
        for corner in corners:
            draw.line([apex, corner], fill=(*colour, 170), width=1)
        draw.ellipse((apex[0] - 2.5, apex[1] - 2.5, apex[0] + 2.5, apex[1] + 2.5), fill=colour)
    _scale_bar(draw, canvas, capture.metric)
    draw.text((12, 9), f"from {view}" if view == "above" else "from the side", fill=INK, font=font(16))
    draw.rectangle((0, 0, size[0] - 1, size[1] - 1), outline=FRAME)
    return picture


def _scale_bar(draw: ImageDraw.ImageDraw, canvas: Canvas, metric: bool) -> None:
    """A bar of 1, 2 or 5 times a power of ten, about a fifth of the picture long."""
    target = canvas.size[0] / 5 / canvas.scale
    power = 10.0 ** math.floor(math.log10(target))
    length = max(step * power for step in (1, 2, 5) if step * power <= target * 1.0001)
    x, y = 14, canvas.size[1] - 16
    end = x + length * canvas.scale
    draw.line((x, y, end, y), fill=INK, width=2)
    draw.line((x, y - 4, x, y + 4), fill=INK, width=2)
    draw.line((end, y - 4, end, y + 4), fill=INK, width=2)
    draw.text(
        (end + 8, y - 9), f"{length:g} {'m' if metric else 'unit' if length == 1 else 'units'}", fill=INK, font=font(14)
    )


def picture_of(image: torch.Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] as a picture."""
    array = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(array))


def draw_pair(capture: Capture, pair: Pair, good: torch.Tensor, height: int, shown: bool = True) -> Image.Image:
    """Two pictures side by side: points in the first, their epipolar lines and their matches in the second.

    Args:
        good: which matches the poses explain (P,); points are spread over the picture among all matches, so that wrong
            poses show: lines that miss their points.
        height: of each picture in pixels.
        shown: whether the pictures are; without, their frames are blank.
    """
    cameras = pair.views.cameras.to(torch.float64)
    c2w = torch.from_numpy(capture.c2w[list(pair.frames)])
    cameras = Cameras.from_c2w(c2w, cameras.k, cameras.height, cameras.width)
    matrix = fundamental_matrix(cameras[0], cameras[1]).numpy()
    scale = height / cameras.height
    pictures = [picture_of(image) for image in pair.views.images]
    width = round(cameras.width * scale)
    pictures = [picture.resize((width, height), Image.Resampling.LANCZOS) for picture in pictures]
    if not shown:
        pictures = [Image.new("RGB", (width, height), FRAME) for _ in pictures]
    draws = [ImageDraw.Draw(picture, "RGBA") for picture in pictures]
    chosen = _spread(pair.first.numpy(), good.numpy())
    for colour, index in zip(MARKS[: len(chosen)], chosen, strict=True):
        first, second = pair.first[index].numpy(), pair.second[index].numpy()
        ends = line_in_image(matrix @ np.array([*first, 1.0]), cameras.height, cameras.width)
        if ends is not None:
            draws[1].line([tuple(end * scale) for end in ends], fill=(*PAPER, 150), width=4)
            draws[1].line([tuple(end * scale) for end in ends], fill=(*colour, 255), width=2)
        for draw, (x, y) in zip(draws, (first * scale, second * scale), strict=True):
            draw.ellipse((x - 6, y - 6, x + 6, y + 6), outline=PAPER, width=4)
            draw.ellipse((x - 5, y - 5, x + 5, y + 5), outline=colour, width=2)
    both = Image.new("RGB", (2 * width + 6, height), PAPER)
    both.paste(pictures[0], (0, 0))
    both.paste(pictures[1], (width + 6, 0))
    return both


def line_in_image(line: Sequence[float] | np.ndarray, height: int, width: int) -> np.ndarray | None:
    """Where the line a x + b y + c = 0 enters and leaves the picture, (2, 2), or None where it misses it."""
    a, b, c = (float(v) for v in line)
    places = []
    if abs(b) > 1e-12:
        places += [(x, -(a * x + c) / b) for x in (0.0, float(width))]
    if abs(a) > 1e-12:
        places += [(-(b * y + c) / a, y) for y in (0.0, float(height))]
    slack = 1e-6 * max(height, width)
    inside = [p for p in places if -slack <= p[0] <= width + slack and -slack <= p[1] <= height + slack]
    if len(inside) < 2:
        return None
    ends = sorted(inside)
    return np.array([ends[0], ends[-1]])


def _spread(points: np.ndarray, good: np.ndarray) -> list[int]:
    """Up to eight matches far from one another; explained ones where most are: single mismatches do not show."""
    pool = np.flatnonzero(good) if good.mean() >= 0.5 else np.arange(len(points))
    chosen = [int(pool[np.argmin(np.linalg.norm(points[pool] - points[pool].mean(0), axis=1))])]
    while len(chosen) < min(len(MARKS), len(pool)):
        gaps = np.linalg.norm(points[pool, None] - points[chosen], axis=-1).min(1)
        chosen.append(int(pool[gaps.argmax()]))
    return chosen
