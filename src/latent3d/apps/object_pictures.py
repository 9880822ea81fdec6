"""From a picture that a person gives to what an object model is asked with: the object cut out, over white."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.io.images import load_image
from latent3d.optional import is_installed, require

WHITE = 0.98
"""Pixels at least this bright in all colours, and connected to the border, are taken for a white background."""
LEAST_SHARE = 0.002
"""An object that covers less of its picture than this cannot be recognised."""


@dataclass(frozen=True)
class ObjectPicture:
    """A picture of one object.

    Attributes:
        image: sRGB in [0, 1] over white, (3, H, W).
        alpha: coverage in [0, 1], (1, H, W).
        notes: what was done and assumed, sentences.
        name: of the file.
    """

    image: Float[Tensor, "3 h w"]
    alpha: Float[Tensor, "1 h w"]
    notes: tuple[str, ...]
    name: str


def read_object_picture(path: str | Path) -> ObjectPicture:
    """Read a picture and find the object in it.

    Its alpha is used where it has one. Otherwise rembg takes the background away where that package is installed;
    otherwise, a border that is white is taken for the background, and if it is not white, the whole picture for the
    object. The notes say which.

    Raises:
        FileNotFoundError, ValueError: for a file that cannot be read, or a picture with (nearly) nothing in it.
    """
    photo = load_image(path)
    alpha, notes = photo.alpha, photo.notes
    if alpha is None:
        alpha, note = _without_background(photo.image)
        notes = (*notes, note)
    else:
        notes = (*notes, "Took the object from its transparency.")
    if float(alpha.mean()) < LEAST_SHARE:
        raise ValueError(f"'{path}' shows (nearly) no object: {float(alpha.mean()):.1%} of it is not background")
    # an alpha of the file was composited over white already; others cut their object out here
    image = photo.image if photo.alpha is not None else torch.lerp(torch.ones_like(photo.image), photo.image, alpha)
    return ObjectPicture(image, alpha, notes, Path(path).name)


def _without_background(image: Tensor) -> tuple[Tensor, str]:
    """Alpha (1, H, W) of the object, and how it was found."""
    if is_installed("rembg"):
        pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        mask = np.asarray(require("rembg").remove(pixels, only_mask=True), dtype=np.float32) / 255
        return torch.from_numpy(mask)[None], "Removed the background with rembg."
    white = _white_border(image)
    if white is None:
        return torch.ones_like(image[:1]), (
            "It has no transparency and no white border: the whole picture was taken for the object; "
            "cut the object out, or install rembg."
        )
    return (~white).float()[None], "It has no transparency: the white around the object was taken for background."


def _white_border(image: Tensor) -> Tensor | None:
    """Pixels (H, W) that are white and connected to the border; None where less than half of the border is white."""
    from scipy import ndimage

    white = (image >= WHITE).all(0).numpy()
    border = np.concatenate([white[0], white[-1], white[:, 0], white[:, -1]])
    if border.mean() < 0.5:
        return None
    regions, _ = ndimage.label(white)
    touching = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
    return torch.from_numpy(np.isin(regions, touching[touching > 0]))
