"""Which frames of a clip a training batch uses.

A clip holds V frames along a camera path followed by J extra frames at other poses between them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from latent3d.config import Config
from latent3d.representations.views import Views


@dataclass(frozen=True, kw_only=True)
class ViewSampling(Config):
    """Choice of frames.

    Attributes:
        mode: ``path`` takes ``views`` frames in path order (a random subset where the clip has more) and then ``novel``
            others; ``frames`` takes ``views + novel`` random frames in random order, path and extra frames alike
            (single-frame training: many different scenes, one or a few frames each; views of objects, which have no
            order).
        views: frames per scene, M.
        novel: further frames at other poses per scene; in mode ``path`` drawn from the extra frames and the unused path
            frames.
        reverse: probability of walking the path backwards.
        mirror: probability of mirroring the whole scene left to right (images, depths and cameras together).
        recolor: strength of a random change of colours, the same for all views of a scene: exposure, white balance,
            contrast and a mix of the channels. 0 leaves colours alone, 1 turns them into any others.
        zoom: largest magnification of a random crop, the same window in all views; 1 keeps whole pictures.
    """

    mode: Literal["path", "frames"] = "path"
    views: int = 8
    novel: int = 0
    reverse: float = 0.0
    mirror: float = 0.0
    recolor: float = 0.0
    zoom: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in ("path", "frames"):
            raise ValueError(f"view sampling mode '{self.mode}' is unknown; choose 'path' or 'frames'")
        if self.views < 1 or self.novel < 0:
            raise ValueError(f"view sampling needs views >= 1 and novel >= 0, found {self.views} and {self.novel}")
        if not 0 <= self.recolor <= 1 or self.zoom < 1:
            raise ValueError(
                f"view sampling needs recolor in [0, 1] and zoom >= 1, found {self.recolor} and {self.zoom}"
            )

    def check(self, path_views: int, extra_views: int) -> None:
        """Raise ValueError where a clip of V + J frames cannot serve this choice."""
        total = path_views + extra_views
        pool = total if self.mode == "frames" else path_views
        if self.views > pool or self.views + self.novel > total:
            raise ValueError(
                f"{self.views} views and {self.novel} novel views per scene were asked of clips with {path_views} path "
                f"and {extra_views} extra frames; render clips with more frames or ask for fewer"
            )

    def choose(self, rng: np.random.Generator, path_views: int, extra_views: int) -> np.ndarray:
        """Frame numbers (views + novel,) in [0, V + J), all different."""
        total = path_views + extra_views
        if self.mode == "frames":
            return rng.permutation(total)[: self.views + self.novel]
        path = np.sort(rng.permutation(path_views)[: self.views])
        rest = np.setdiff1d(np.arange(total), path)
        novel = rng.permutation(rest)[: self.novel]
        if rng.random() < self.reverse:
            path = path[::-1]
        return np.concatenate([path, novel])

    def augment(self, views: Views, rng: np.random.Generator) -> Views:
        """The views of one scene, mirrored, cropped and recoloured by chance; cameras and depths follow."""
        if rng.random() < self.mirror:
            views = views.mirrored()
        if self.zoom > 1:
            left, top, size = rng.random(3)
            views = crop_views(views, self.zoom**-size, left, top)
        if self.recolor > 0:
            views = replace(views, images=recolored(views.images, self.recolor, rng, views.alphas))
        return views


def crop_views(views: Views, share: float, left: float, top: float) -> Views:
    """The same window of every view, enlarged to the old size.

    Args:
        share: side of the window over the side of the picture, in (0, 1].
        left, top: where the window lies, 0 = at the left or top edge, 1 = at the right or bottom edge.

    Colours are interpolated, depths and normals take the nearest pixel (no mixing across edges).
    """
    height, width = views.cameras.height, views.cameras.width
    rows, columns = max(round(share * height), 1), max(round(share * width), 1)
    y, x = round(top * (height - rows)), round(left * (width - columns))
    k = views.cameras.k.clone()
    k[..., 0, 2] -= x
    k[..., 1, 2] -= y
    k[..., 0, :] *= width / columns
    k[..., 1, :] *= height / rows

    def enlarged(maps: torch.Tensor | None, mode: str) -> torch.Tensor | None:
        if maps is None:
            return None
        window = maps[..., y : y + rows, x : x + columns]
        return F.interpolate(window.flatten(0, -4), size=(height, width), mode=mode).unflatten(0, maps.shape[:-3])

    images = enlarged(views.images, "bilinear")
    assert images is not None
    return Views(
        images=images,
        cameras=replace(views.cameras, k=k),
        depths=enlarged(views.depths, "nearest-exact"),
        normals=enlarged(views.normals, "nearest-exact"),
        alphas=enlarged(views.alphas, "bilinear"),
    )


def recolored(
    images: torch.Tensor, strength: float, rng: np.random.Generator, alphas: torch.Tensor | None = None
) -> torch.Tensor:
    """The same scene in other colours, images (..., 3, h, w): channels mixed by a matrix near identity
    (or, by chance, another order of the channels), then a gain and a gamma per channel.

    With alphas (..., 1, h, w), images are over white, and only the object's own colours change.
    """
    mix = np.eye(3)
    if rng.random() < 0.5 * strength:
        mix = mix[rng.permutation(3)]
    spill = 0.2 * strength * rng.standard_normal((3, 3))
    mix = mix + spill - spill.mean(1, keepdims=True)  # rows keep their sum: grey stays grey up to the gains
    gain = np.exp(0.15 * strength * rng.standard_normal(3))[:, None]
    gamma = np.exp(0.25 * strength * rng.standard_normal() + 0.08 * strength * rng.standard_normal(3))
    own = images if alphas is None else 1 - (1 - images) / alphas.clamp_min(1e-3)
    mixed = torch.einsum("rc,...chw->...rhw", images.new_tensor(gain * mix), own).clamp(1e-4, 1)
    changed = mixed ** images.new_tensor(gamma)[:, None, None]
    return changed if alphas is None else 1 - alphas * (1 - changed)
