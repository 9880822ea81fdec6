"""One object from posed pictures: ShapeNet, G-Objaverse, NeRF's Blender scenes, plain folders with cameras, faces.

Files are read by `latent3d.data.captures`; here pictures get alphas (their own, those of a mask, or where depth is),
normals where there are any, +z as the upward direction and a size that fits the box [-HALF_SIZE, HALF_SIZE]^3.
A view that shows nothing is left out with a sentence. V, H, W: views, height and width in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from latent3d.data.captures.capture import Capture, Frame, nearest_pixels
from latent3d.data.captures.collect import Reading
from latent3d.data.captures.exr import read_exr
from latent3d.data.captures.reading import find_captures, read_capture
from latent3d.data.captures.renders import read_eg3d
from latent3d.data.object_sources import HALF_SIZE
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.rays import unproject
from latent3d.io.images import fit_cameras, fit_to
from latent3d.io.object_pictures import NORMALS, read_normals
from latent3d.representations.views import Views

COVERED = 0.5
"""Alpha from which a pixel counts as the object's."""
LEAST_COVER = 1e-3
"""A view of which the object covers less shows nothing."""
HULL_SIDE = 48
"""Cells along each side of the grid that is carved to find an object's extent where there is no depth."""


@dataclass(frozen=True)
class ReadObject:
    """What was read of one object.

    Attributes:
        name: of its folder or picture.
        views: (V,) over white; alphas, depths and normals where there are any.
        frames: names of the views in their capture.
        notes: what was left out or done, one sentence each.
    """

    name: str
    views: Views
    frames: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_object(
    place: str | Path, size: int = 128, *, fit: bool = True, masked: bool = True, layout: str | None = None
) -> ReadObject:
    """An object from a folder of posed pictures of any layout that `read_capture` knows.

    Args:
        size: side of the views in pixels; the largest centred square of each picture is used.
        fit: turn it so that +z is up, and move and scale it so that it fills the box; otherwise as the files have it.
        masked: whether its background is to be known; without it alphas are None.
        layout: as in `read_capture`.

    Raises:
        FileNotFoundError, ValueError: if nothing can be read there, no view shows an object, or the background is not
            known; one sentence with the remedy.
    """
    return object_of(read_capture(place, layout=layout), size, fit=fit, masked=masked)


def object_of(capture: Capture, size: int = 128, *, fit: bool = True, masked: bool = True) -> ReadObject:
    """The object that a capture shows; arguments and errors as `read_object`."""
    notes = [*capture.notes, *(f"{problem} (view left out)" for problem in capture.problems)]
    notes += [f"{name}: its picture is missing (view left out)" for name in capture.missing]
    parts: list[Views] = []
    names: list[str] = []
    for number, frame in enumerate(capture.frames):
        try:
            parts.append(_view(capture, number, size, masked))
            names.append(frame.name)
        except (ValueError, FileNotFoundError) as error:
            notes.append(f"{frame.name}: {error} (view left out)")
    if not parts:
        raise ValueError(f"'{capture.folder}' has no usable view of an object; the first problem is: {notes[-1]}")
    views = Views.stack(parts)
    if masked and views.depths is not None:
        depths = views.depths * _agreeing(views)
        views = replace(views, depths=depths)
        if not bool(depths.any()):
            raise ValueError(f"'{capture.folder}': depths and outlines of its views do not agree; cameras are wrong")
    if fit:
        turn = upright(views.cameras)
        if not torch.equal(turn, torch.eye(3)):
            views = moved(views, turn=turn)
            notes.append("The object was turned so that +z is up.")
        if masked:
            low, high = extent(views)
            views = moved(views, centre=(low + high) / 2, scale=2 * HALF_SIZE / float((high - low).max()))
    return ReadObject(capture.name, views, tuple(names), tuple(notes))


def read_objects(
    places: Sequence[str | Path], size: int = 128, *, fit: bool = True, say: Callable[[str], object]
) -> Iterator[ReadObject]:
    """Objects of folders, or of folders of such, one after the other; ``say`` hears why one is left out.

    Raises:
        FileNotFoundError, ValueError: if a place is not there or holds none.
    """
    for folder in [found for place in places for found in find_captures(place)]:
        try:
            yield read_object(folder, size, fit=fit)
        except (ValueError, FileNotFoundError) as error:
            say(f"left out: {error}")


def read_faces(path: str | Path, size: int = 128, *, say: Callable[[str], object]) -> Iterator[ReadObject]:
    """Faces in EG3D's layout, one view each, +z up and the face towards -y (the files have +y up and +z in front).

    Scale stays as it is; the background belongs to the picture, so that alphas and depths are None.

    Raises:
        FileNotFoundError, ValueError: if the file (or ``dataset.json`` of the folder) is not one of cameras.
    """
    path = Path(path)
    capture = read_eg3d(path / "dataset.json" if path.is_dir() else path, Reading())
    for problem in (*capture.problems, *(f"{name}: its picture is missing" for name in capture.missing)):
        say(f"left out: {problem}")
    for number, frame in enumerate(capture.frames):
        try:
            yield face_of(capture, number, size)
        except (ValueError, FileNotFoundError) as error:
            say(f"left out: {frame.name}: {error}")


def face_of(capture: Capture, number: int, size: int = 128) -> ReadObject:
    """One face of what `read_eg3d` read; see `read_faces`. Raises ValueError if its picture cannot be read."""
    turn = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    name = capture.frames[number].name
    return ReadObject(name, moved(capture.load([number], size, size), turn=turn), (name,))


def moved(
    views: Views,
    *,
    turn: Float[Tensor, "3 3"] | None = None,
    centre: Float[Tensor, " 3"] | None = None,
    scale: float = 1.0,
) -> Views:
    """The world turned, its point ``centre`` brought to the origin, and scaled: x' = s (R x - c). Pictures stay."""
    turn = torch.eye(3) if turn is None else turn
    centre = torch.zeros(3) if centre is None else centre
    w2c = views.cameras.w2c.clone()
    rotation = w2c[..., :3, :3] @ turn.to(w2c).mT
    w2c[..., :3, :3] = rotation
    w2c[..., :3, 3] = scale * (w2c[..., :3, 3] + (rotation @ centre.to(w2c)))
    normals = None if views.normals is None else torch.einsum("ij,...jhw->...ihw", turn, views.normals)
    depths = None if views.depths is None else views.depths * scale
    return replace(views, cameras=replace(views.cameras, w2c=w2c), depths=depths, normals=normals)


def upright(cameras: Cameras) -> Float[Tensor, "3 3"]:
    """Rotation that brings the axis along which cameras (V,) stand upright to +z; identity where none is clear.

    Seen from anywhere on a sphere, the upward direction of a picture is never against that of the world, so that the
    mean over views points along it.
    """
    mean = -cameras.w2c[:, 1, :3].mean(0)
    axis = int(mean.abs().argmax())
    if mean[axis].abs() < 0.3 or mean[axis].abs() < 2 * mean.abs().sort().values[1] or (axis == 2 and mean[2] > 0):
        return torch.eye(3)
    up = torch.nn.functional.one_hot(torch.tensor(axis), 3).float() * mean[axis].sign()
    # Any axis at right angles serves for the second; with +y up, x stays where it is.
    right = torch.tensor([1.0, 0, 0]) if axis != 0 else torch.tensor([0.0, 1, 0])
    return torch.stack([right, torch.linalg.cross(up, right), up])


def extent(views: Views) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
    """Smallest and largest coordinates of the object in views (V,): of its depths, or of its visual hull.

    Raises:
        ValueError: if the masks of the views have no point in common.
    """
    assert views.alphas is not None
    if views.depths is not None and bool(views.depths.any()):
        seen = (views.depths[:, 0] > 0) & (views.alphas[:, 0] > COVERED)
        points = unproject(views.cameras, views.depths)[seen if bool(seen.any()) else views.depths[:, 0] > 0]
        return points.amin(0), points.amax(0)
    covered = views.alphas[:, 0] > 0  # thin things cover little of their pixels
    centre, reach = _common_point(views.cameras)
    low, high = centre - reach, centre + reach
    for widened in (True, True, False):  # each round on a grid around what the last one left
        cell = (high - low) / HULL_SIDE
        points = _carved(views, covered, low, high, widened)
        if len(points):
            low, high = points.amin(0) - cell / 2, points.amax(0) + cell / 2
        elif widened:
            raise ValueError("the outlines of its views do not meet; cameras or masks are wrong")
    return low, high


def _carved(views: Views, covered: Tensor, low: Tensor, high: Tensor, widened: bool) -> Tensor:
    """Centres of the cells of a grid (low, high) that no view shows beside the object and half of them on it, (N, 3).

    A view may cut the object off, so that one that does not show a point at all says nothing about it.

    Args:
        widened: outlines are widened by half a cell, lest a thin thing slip between the cells' centres.
    """
    share = (torch.arange(HULL_SIDE) + 0.5) / HULL_SIDE
    steps = (low + share[:, None] * (high - low)).unbind(1)
    points = rearrange(torch.stack(torch.meshgrid(*steps, indexing="ij"), -1), "x y z c -> (x y z) c")
    votes = torch.zeros(len(points))
    distance = (views.cameras.centers - (low + high) / 2).norm(dim=-1)
    half_cell = math.sqrt(3) / 2 * float((high - low).max()) / HULL_SIDE * views.cameras.k[:, 0, 0] / distance
    for view, mask in enumerate(covered):
        pixels = math.ceil(float(half_cell[view])) if widened else 0
        wide = torch.nn.functional.max_pool2d(mask[None].float(), 2 * pixels + 1, 1, pixels)[0] > 0
        on, beside = _seen(points, views.cameras[view], wide)
        points, votes = points[~beside], (votes + on.float())[~beside]
    return points[2 * votes >= len(covered)]


def _agreeing(views: Views) -> Tensor:
    """Which depths (V, 1, H, W) no view, up to a pixel, shows beside the object. Renderers mix depths along edges."""
    assert views.depths is not None
    assert views.alphas is not None
    wide = torch.nn.functional.max_pool2d((views.alphas > 0).float(), 3, 1, 1)[:, 0] > 0
    known = views.depths[:, 0] > 0
    points = unproject(views.cameras, views.depths)[known]
    kept = torch.ones(len(points), dtype=torch.bool)
    for view, mask in enumerate(wide):
        kept &= ~_seen(points, views.cameras[view], mask)[1]
    return torch.zeros_like(views.depths, dtype=torch.bool).masked_scatter_(known[:, None], kept)


def _seen(points: Tensor, camera: Cameras, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Which points (N, 3) a camera shows on a mask (H, W), and which beside it (or has behind it)."""
    height, width = mask.shape
    pixels, depth = camera.project(points)
    x, y = pixels.floor().long().unbind(-1)
    inside = (depth > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    on = inside & mask[y.clamp(0, height - 1), x.clamp(0, width - 1)]
    return on, (inside & ~on) | (depth <= 0)


def _common_point(cameras: Cameras) -> tuple[Tensor, Tensor]:
    """The point nearest to all optical axes, and half of what the cameras see of its surroundings."""
    axes, centres = cameras.w2c[:, 2, :3].double(), cameras.centers.double()
    across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
    # A little weight on the mean centre keeps parallel cameras from failing.
    total = across.sum(0) + 1e-6 * torch.eye(3, dtype=torch.float64)
    point = torch.linalg.solve(total, (across @ centres[..., None]).sum(0)[:, 0] + 1e-6 * centres.mean(0))
    reach = 0.5 * cameras.width / cameras.k[:, 0, 0] * (centres - point).norm(dim=-1)
    return point.float(), reach.max().float()


def _view(capture: Capture, number: int, size: int, masked: bool) -> Views:
    """One view, no batch shape."""
    frame = capture.frames[number]
    views = capture.load([number], size, size)
    if not masked:
        return views[0]
    stored = Cameras.from_c2w(
        torch.from_numpy(frame.c2w)[None], torch.from_numpy(frame.k.copy())[None], frame.height, frame.width
    )
    alpha = _alpha(frame, stored, size)
    if alpha is None and views.depths is not None:
        alpha = (views.depths[0] > 0).float()
    if alpha is None:
        raise ValueError("its background is not known: it has neither alpha, nor a mask, nor depth")
    if float((alpha > COVERED).float().mean()) < LEAST_COVER:
        raise ValueError("nothing of the object is to be seen: its mask is empty")
    if capture.has_depth and views.depths is None:
        raise ValueError("its depth is missing")
    depths = None if views.depths is None else views.depths * (alpha > 0)
    if depths is not None and not bool(depths.any()):
        raise ValueError("its depth is empty")
    # Where a picture has alpha, it is over white already, up to what enlarging spills over its outline.
    images = views.images if _has_alpha(frame) else 1 - alpha * (1 - views.images)
    images = torch.where(alpha > 0, images, 1.0)
    normals = _normals(capture.layout, frame, stored, size)
    if normals is not None:
        normals = normals * (alpha > 0)
    return Views(images, views.cameras, depths, None if normals is None else normals[None], alpha[None])[0]


def _has_alpha(frame: Frame) -> bool:
    from PIL import Image

    with Image.open(str(frame.picture)) as picture:
        return "A" in picture.getbands() or "transparency" in picture.info


def _alpha(frame: Frame, stored: Cameras, size: int) -> Tensor | None:
    """Alpha (1, size, size) of a picture, or of the mask of its name in a folder ``mask`` or ``masks`` beside it."""
    from PIL import Image

    picture = Path(str(frame.picture))
    if _has_alpha(frame):
        with Image.open(picture) as opened:
            values = np.asarray(opened.convert("RGBA"))[..., 3]
    else:
        folders = [picture.parent.parent / name for name in ("mask", "masks")]
        found = [path for folder in folders for path in sorted(folder.glob(f"{picture.stem}.*"))]
        if not found:
            return None
        try:
            with Image.open(found[0]) as opened:
                values = np.asarray(opened.convert("L"))
        except (OSError, ValueError, SyntaxError) as error:
            raise ValueError(f"its mask '{found[0].name}' cannot be read") from error
    image = torch.from_numpy(values.astype(np.float32) / 255).expand(3, *values.shape)
    fitted, _, _ = fit_to(image, stored.resized(*values.shape), size, size)
    return fitted[:1]


def _normals(layout: str, frame: Frame, stored: Cameras, size: int) -> Tensor | None:
    """Unit normals (3, size, size) in world axes by the nearest pixel; None where the layout has none."""
    picture = Path(str(frame.picture))
    if layout == "gobjaverse" and frame.depth is not None:
        channels = read_exr(frame.depth.path)
        # Stored in a game engine's axes: B, G, R are -y, z, -x of the world of the cameras.
        normals = np.stack([-channels["R"], -channels["B"], channels["G"]], -1).astype(np.float32)
    elif layout == "cameras.json" and (picture.parent.parent / NORMALS / picture.name).is_file():
        normals = read_normals(picture.parent.parent / NORMALS / picture.name)
    else:
        return None
    rows, columns = nearest_pixels(stored.resized(*normals.shape[:2]), fit_cameras(stored, size, size))
    chosen = rearrange(torch.from_numpy(normals)[rows[:, None], columns], "h w c -> c h w")
    return torch.nn.functional.normalize(chosen, dim=0)
