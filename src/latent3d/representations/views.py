"""`Views`: pictures with the cameras that took them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from latent3d.geometry.cameras import Cameras


@dataclass(frozen=True)
class Views:
    """Posed images of one scene, or of a batch of scenes.

    Attributes:
        images: sRGB in [0, 1], shape (..., 3, H, W).
        cameras: batch shape (...), image size (H, W).
        depths: z-depth in scene units, shape (..., 1, H, W); 0 where unknown. None when there is none.
        normals: unit normals in world axes, shape (..., 3, H, W), or None.
        alphas: how much of each pixel an object covers, in [0, 1], shape (..., 1, H, W); images are then over white.
            None where everything belongs to the scene.
    """

    images: Tensor
    cameras: Cameras
    depths: Tensor | None = None
    normals: Tensor | None = None
    alphas: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """Leading (batch) shape."""
        return self.images.shape[:-3]

    def __len__(self) -> int:
        return self.images.shape[0]

    def _map(self, function) -> Views:
        optional = {
            name: None if value is None else function(value)
            for name, value in (("depths", self.depths), ("normals", self.normals), ("alphas", self.alphas))
        }
        cameras = replace(self.cameras, w2c=function(self.cameras.w2c), k=function(self.cameras.k))
        return Views(images=function(self.images), cameras=cameras, **optional)

    def __getitem__(self, index) -> Views:
        return self._map(lambda tensor: tensor[index])

    def to(self, *args, **kwargs) -> Views:
        """Move or cast all tensors, as ``Tensor.to``."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    @staticmethod
    def stack(parts: list[Views]) -> Views:
        """Batch of scenes with equal numbers of views and sizes; optional channels only where all have them."""

        def gather(name: str) -> Tensor | None:
            values = [getattr(part, name) for part in parts]
            return None if any(value is None for value in values) else torch.stack(values)

        first = parts[0].cameras
        cameras = replace(
            first, w2c=torch.stack([p.cameras.w2c for p in parts]), k=torch.stack([p.cameras.k for p in parts])
        )
        images = torch.stack([p.images for p in parts])
        return Views(images, cameras, gather("depths"), gather("normals"), gather("alphas"))

    def mirrored(self) -> Views:
        """The scene seen in a mirror: x -> -x in the world and in every camera; images flip left to right.

        With S = diag(-1, 1, 1, 1): w2c' = S w2c S, cx' = W - cx, depths stay.
        """
        cameras = self.cameras
        flip = cameras.w2c.new_tensor([-1.0, 1.0, 1.0, 1.0])
        k = cameras.k.clone()
        k[..., 0, 2] = cameras.width - k[..., 0, 2]
        normals = None if self.normals is None else torch.flip(self.normals, (-1,)) * flip[:3, None, None]
        return Views(
            images=torch.flip(self.images, (-1,)),
            cameras=replace(cameras, w2c=cameras.w2c * flip[:, None] * flip, k=k),
            depths=None if self.depths is None else torch.flip(self.depths, (-1,)),
            normals=normals,
            alphas=None if self.alphas is None else torch.flip(self.alphas, (-1,)),
        )
