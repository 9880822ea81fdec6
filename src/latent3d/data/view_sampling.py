"""Which frames of a clip a training batch uses.

A clip holds V frames along a camera path followed by J extra frames at other poses between them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from latent3d.config import Config
from latent3d.geometry.cameras import Cameras
from latent3d.representations.views import Views


@dataclass(frozen=True, kw_only=True)
class ViewSampling(Config):
    """Choice of frames.

    Attributes:
        mode: ``path`` takes ``views`` frames in path order (a random subset where the clip has more) and then ``novel``
            others; ``frames`` takes ``views`` random frames in random order and nothing else (single-frame training:
            many different scenes, one or a few frames each).
        views: frames per scene, M.
        novel: further frames at other poses per scene, drawn from the extra frames and the unused path frames.
        reverse: probability of walking the path backwards.
        mirror: probability of mirroring the whole scene left to right (images, depths and cameras together).
    """

    mode: Literal["path", "frames"] = "path"
    views: int = 8
    novel: int = 0
    reverse: float = 0.0
    mirror: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in ("path", "frames"):
            raise ValueError(f"view sampling mode '{self.mode}' is unknown; choose 'path' or 'frames'")
        if self.views < 1 or self.novel < 0:
            raise ValueError(f"view sampling needs views >= 1 and novel >= 0, found {self.views} and {self.novel}")
        if self.mode == "frames" and self.novel:
            raise ValueError("view sampling mode 'frames' has no novel views; set novel to 0")

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
            return rng.permutation(total)[: self.views]
        path = np.sort(rng.permutation(path_views)[: self.views])
        rest = np.setdiff1d(np.arange(total), path)
        novel = rng.permutation(rest)[: self.novel]
        if rng.random() < self.reverse:
            path = path[::-1]
        return np.concatenate([path, novel])

    def mirrors(self, rng: np.random.Generator) -> bool:
        """Whether this scene is mirrored."""
        return bool(rng.random() < self.mirror)


def mirror_views(views: Views) -> Views:
    """The scene seen in a mirror: x -> -x in the world and in every camera; images flip left to right.

    With S = diag(-1, 1, 1, 1): w2c' = S w2c S, cx' = W - cx, depths stay. Any leading shape.
    """
    cameras = views.cameras
    flip = cameras.w2c.new_tensor([-1.0, 1.0, 1.0, 1.0])
    k = cameras.k.clone()
    k[..., 0, 2] = cameras.width - k[..., 0, 2]
    mirrored: Cameras = replace(cameras, w2c=cameras.w2c * flip[:, None] * flip, k=k)
    normals = None
    if views.normals is not None:
        normals = torch.flip(views.normals, (-1,)) * flip[:3, None, None]
    depths = None if views.depths is None else torch.flip(views.depths, (-1,))
    return Views(images=torch.flip(views.images, (-1,)), cameras=mirrored, depths=depths, normals=normals)
