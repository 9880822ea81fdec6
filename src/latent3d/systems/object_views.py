"""Views of objects at another size, and from where other objects were seen.

Letters: b = objects, v = views, H/W = rows and columns, s = side that is asked for.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.representations.objects import ObjectViews
from latent3d.representations.views import Views


def views_at(views: Views, size: int) -> Views:
    """Square views (b, v) with s x s pixels: colours and alphas averaged, depths and normals taken from the nearest
    pixel, because their mean across an edge belongs to nothing."""
    if views.images.shape[-2:] == (size, size):
        return views

    def resized(maps: Tensor | None, **how: object) -> Tensor | None:
        if maps is None:
            return None
        return F.interpolate(maps.flatten(0, 1), (size, size), **how).unflatten(0, maps.shape[:2])  # type: ignore[arg-type]

    smooth = {"mode": "bilinear", "antialias": True, "align_corners": False}
    images = resized(views.images, **smooth)
    assert images is not None
    return Views(
        images=images.clamp(0, 1),
        cameras=views.cameras.resized(size, size),
        depths=resized(views.depths, mode="nearest-exact"),
        normals=resized(views.normals, mode="nearest-exact"),
        alphas=resized(views.alphas, **smooth),
    )


def with_others_views(batch: ObjectViews) -> ObjectViews:
    """Each object also from where the next object of the batch was seen, for data with one view per object.

    The new views' cameras are what is wanted. Their pictures show the other object: no rendering may be compared with
    them pixel by pixel.

    Raises:
        ValueError: for a batch of one object.
    """
    if len(batch) < 2:
        raise ValueError("views of other objects need a batch of at least two objects; raise batch_size")
    own = batch.views
    other = own[torch.arange(1, len(batch) + 1) % len(batch)]

    names = [name for name in ("depths", "normals", "alphas") if getattr(own, name) is not None]
    parts = {name: torch.cat([getattr(own, name), getattr(other, name)], 1) for name in names}
    cameras = Cameras.cat([own.cameras, other.cameras], 1)
    return replace(batch, views=Views(torch.cat([own.images, other.images], 1), cameras, **parts))
