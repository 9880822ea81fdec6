"""From what a person gives (pictures, perhaps cameras) to what a scene model takes.

K: references. M: all views. H, W: image size in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.io.camera_files import CameraFile, match_references, read_cameras
from latent3d.io.images import MAX_FOV, MIN_FOV, Photo, fit_cameras, fit_to, load_image
from latent3d.representations.views import Views

DEFAULT_FOV = 60.0
"""Horizontal field of view in degrees that is assumed where neither the user nor EXIF says one."""
DEFAULT_VIEWS = 8
"""Views of a camera path, the reference included: what the shipped models are trained on."""
MAX_VIEWS = 32
"""More views in one go need too much memory and are far from what the models have seen."""
MAX_GROWN_VIEWS = 1000
"""In a scene that grows, memory does not limit the number of views; this stops mistaken numbers."""
GROWN_PER_GAP = 5
"""Views between two references of a growing scene: with three references eight at a time, as in training."""
DEFAULT_TRAJECTORY = "orbit"


@dataclass(frozen=True)
class Path3D:
    """A camera path to be laid out from a single reference once the depth of its scene is known."""

    name: str
    num_views: int
    strength: float
    seed: int


@dataclass(frozen=True)
class Between:
    """Views to be laid out between neighbouring references, ``per_gap`` for each gap of the path through them."""

    per_gap: int = GROWN_PER_GAP


@dataclass(frozen=True)
class SceneInputs:
    """Pictures with their cameras, at their own sizes.

    Attributes:
        images: K pictures (3, H, W) in [0, 1], sizes may differ.
        names: a name for each, for the card.
        notes: what was done to each, sentences.
        cameras: K single cameras (batch shape ()), for the pictures' sizes.
        targets: cameras of the views to generate (M - K,), for the first picture's size; or the views to lay out.
        order: positions of references, then targets, along the path; for films.
        camera_notes: where the cameras come from, sentences.
    """

    images: tuple[Tensor, ...]
    names: tuple[str, ...]
    notes: tuple[tuple[str, ...], ...]
    cameras: tuple[Cameras, ...]
    targets: Cameras | Path3D | Between
    order: tuple[int, ...]
    camera_notes: tuple[str, ...]

    def fitted(self, height: int, width: int) -> tuple[Views, tuple[tuple[str, ...], ...]]:
        """References at the model's size, and the notes with what that took."""
        fits = [fit_to(image, camera, height, width) for image, camera in zip(self.images, self.cameras, strict=True)]
        cameras = Cameras(
            torch.stack([camera.w2c for _, camera, _ in fits]),
            torch.stack([camera.k for _, camera, _ in fits]),
            height,
            width,
        )
        notes = tuple((*before, *after) for before, (_, _, after) in zip(self.notes, fits, strict=True))
        return Views(torch.stack([image for image, _, _ in fits]), cameras), notes

    def targets_for(self, height: int, width: int, depth: float) -> Cameras:
        """Target cameras at the model's size; a path is laid out for a scene of that typical ``depth``."""
        if isinstance(self.targets, Cameras):
            return fit_cameras(self.targets, height, width)
        if isinstance(self.targets, Between):
            from latent3d.geometry.view_order import cameras_between

            return cameras_between(self.fitted(height, width)[0].cameras, self.targets.per_gap)
        from latent3d.geometry.trajectories import trajectory

        path, first = self.targets, self.cameras[0]
        moves = trajectory(path.name, path.num_views, depth=depth, strength=path.strength, seed=path.seed)[1:]
        c2w = first.c2w @ moves.to(first.w2c)
        cameras = Cameras.from_c2w(c2w, first.k.expand(len(c2w), 3, 3).contiguous(), first.height, first.width)
        return fit_cameras(cameras, height, width)


def read_inputs(
    images: str | Path | Tensor | Sequence[str | Path | Tensor],
    *,
    cameras: str | Path | None = None,
    trajectory: str | None = None,
    strength: float = 1.0,
    num_views: int | None = None,
    fov_degrees: float | None = None,
    seed: int = 0,
    grow: bool = False,
) -> SceneInputs:
    """Read pictures and cameras and check that they belong together.

    Args:
        images: files, or tensors (3, H, W) in [0, 1].
        cameras: a camera file (see `latent3d.io.camera_files`); required for several images.
        trajectory: name of a camera path, for one image without a camera file.
        strength: how far the path moves.
        num_views: all views, references included.
        fov_degrees: horizontal field of view of the (whole, upright) picture.
        seed: of paths that are drawn at random.
        grow: the views are made a few at a time, so that there may be many; and where a camera file asks for no view
            beside the pictures, some are laid out between these.

    Raises:
        FileNotFoundError, ValueError: one sentence with the file and the remedy.
    """
    items = [images] if isinstance(images, str | Path | Tensor) else list(images)
    if not items:
        raise ValueError("no image was given; give at least one")
    if cameras is not None and (trajectory is not None or fov_degrees is not None):
        raise ValueError("a camera file already holds path and field of view; drop --trajectory and --fov")
    if cameras is None and len(items) > 1:
        raise ValueError(
            f"{len(items)} images need to know where each was taken from; add --cameras FILE, or give one image"
        )
    if fov_degrees is not None and not MIN_FOV <= fov_degrees <= MAX_FOV:
        raise ValueError(f"a field of view of {fov_degrees:g} degrees is not usable; give {MIN_FOV:g} to {MAX_FOV:g}")
    limit = MAX_GROWN_VIEWS if grow else MAX_VIEWS
    if num_views is not None and not len(items) < num_views <= limit:
        raise ValueError(
            f"{num_views} views with {len(items)} reference(s) is not possible; give {len(items) + 1} to {limit}"
        )
    photos = [_as_photo(item, index) for index, item in enumerate(items)]
    if cameras is not None:
        return _from_camera_file(photos, Path(cameras), num_views, grow)
    return _from_path(
        photos[0], trajectory or DEFAULT_TRAJECTORY, strength, num_views or DEFAULT_VIEWS, fov_degrees, seed
    )


def _as_photo(item: str | Path | Tensor, index: int) -> Photo:
    if not isinstance(item, Tensor):
        return load_image(item)
    if item.ndim != 3 or item.shape[0] != 3 or not item.is_floating_point():
        raise ValueError(f"image {index} is a tensor of shape {tuple(item.shape)}; expected float (3, H, W) in [0, 1]")
    if not bool(((item >= 0) & (item <= 1)).all()):
        raise ValueError(f"image {index} holds values outside [0, 1]; divide 8-bit values by 255")
    return Photo(image=item.float(), notes=(), fov_x_degrees=None, path=Path(f"image_{index}"))


def _from_path(
    photo: Photo, name: str, strength: float, num_views: int, fov_degrees: float | None, seed: int
) -> SceneInputs:
    from latent3d.geometry.trajectories import trajectory

    if not math.isfinite(strength) or strength == 0:
        raise ValueError(f"a path of strength {strength:g} goes nowhere; give a number other than 0, for example 1")
    trajectory(name, num_views, strength=strength, seed=seed)  # raises for a name or strength that will not do
    if fov_degrees is not None:
        fov, source = fov_degrees, "as given"
    elif photo.fov_x_degrees is not None:
        fov, source = photo.fov_x_degrees, "from the picture's EXIF data"
    else:
        fov, source = DEFAULT_FOV, "the default, since neither --fov nor EXIF says one"
    height, width = photo.image.shape[-2:]
    return _inputs(
        [photo],
        cameras=(Cameras.from_fov(torch.eye(4), fov, height, width),),
        targets=Path3D(name, num_views, strength, seed),
        order=tuple(range(num_views)),
        camera_notes=(
            f"Horizontal field of view of the whole picture: {fov:.1f} degrees, {source}.",
            f"Camera path '{name}' of {num_views} views, strength {strength:g}.",
        ),
    )


def _from_camera_file(photos: list[Photo], path: Path, num_views: int | None, grow: bool) -> SceneInputs:
    file = read_cameras(path)
    references = match_references(file, [photo.path for photo in photos], path)
    total, k = len(file.cameras), len(references)
    limit = MAX_GROWN_VIEWS if grow else MAX_VIEWS
    if k >= total and grow and k > 1 and num_views is None:
        return _between_photos(photos, file, references, path)
    if k >= total:
        raise ValueError(
            f"{k} images were given and the camera file '{path}' has {total} cameras, which leaves no view "
            "to generate; add cameras without pictures"
        )
    if num_views is None and total > limit:
        more = "" if grow else ", or add --grow"
        raise ValueError(f"the camera file '{path}' has {total} cameras; choose up to {limit} with --views{more}")
    if num_views is not None and num_views > total:
        raise ValueError(f"the camera file '{path}' has {total} cameras, fewer than --views {num_views}; lower it")
    rest = [index for index in range(total) if index not in references]
    count = (num_views or total) - k
    # Evenly spaced along the file; integer arithmetic, so that no index comes twice.
    targets = [rest[(2 * i + 1) * len(rest) // (2 * count)] for i in range(count)]
    chosen = [*references, *targets]
    first = photos[0].image
    return _inputs(
        photos,
        cameras=_photo_cameras(photos, file, references, path),
        targets=file.cameras[targets].resized(*first.shape[-2:]),
        order=tuple(sorted(range(len(chosen)), key=chosen.__getitem__)),
        camera_notes=(f"{len(chosen)} of {total} cameras from the file '{path.name}'.", *file.notes),
    )


def _between_photos(photos: list[Photo], file: CameraFile, references: list[int], path: Path) -> SceneInputs:
    """Inputs whose views are to be laid out between the pictures."""
    from latent3d.geometry.view_order import path_order

    cameras = _photo_cameras(photos, file, references, path)
    k, gap = len(photos), GROWN_PER_GAP
    along = path_order(file.cameras[references]).tolist()
    order = [along[0]]
    for place in range(1, k):
        order += [*range(k + gap * (place - 1), k + gap * place), along[place]]
    return _inputs(
        photos,
        cameras=cameras,
        targets=Between(gap),
        order=tuple(order),
        camera_notes=(f"{k} cameras from the file '{path.name}' and {gap} between each and the next.", *file.notes),
    )


def _inputs(photos: list[Photo], **rest: Any) -> SceneInputs:
    """Inputs of these pictures with the given cameras, targets, order and camera_notes."""
    return SceneInputs(
        images=tuple(photo.image for photo in photos),
        names=tuple(photo.path.name for photo in photos),
        notes=tuple(photo.notes for photo in photos),
        **rest,
    )


def _photo_cameras(photos: list[Photo], file: CameraFile, references: list[int], path: Path) -> tuple[Cameras, ...]:
    """The file's cameras of the pictures, at the pictures' sizes."""
    cameras = []
    for index, photo in zip(references, photos, strict=True):
        height, width = photo.image.shape[-2:]
        camera = file.cameras[index]
        if abs(width * camera.height - height * camera.width) > 0.01 * width * camera.height:
            raise ValueError(
                f"the image '{photo.path}' has {width} x {height} pixels but its camera in '{path}' is for "
                f"{camera.width} x {camera.height}; give the picture that belongs to the camera"
            )
        cameras.append(camera.resized(height, width))
    return tuple(cameras)
