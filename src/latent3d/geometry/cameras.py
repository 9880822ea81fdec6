"""Pinhole cameras in OpenCV axes: +x right, +y down, +z forward.

``w2c`` maps world points to camera points; ``k`` is in pixels, the centre of the first pixel being (0.5, 0.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.geometry.precision import full_precision


@dataclass(frozen=True)
class Cameras:
    """Any number of pinhole cameras that share one image size.

    Attributes:
        w2c: world-to-camera matrices, OpenCV axes, shape (..., 4, 4).
        k: intrinsics in pixels, shape (..., 3, 3), last row (0, 0, 1), no skew.
        height, width: image size in pixels.
    """

    w2c: Float[Tensor, "*batch 4 4"]
    k: Float[Tensor, "*batch 3 3"]
    height: int
    width: int

    @classmethod
    def from_c2w(cls, c2w: Tensor, k: Tensor, height: int, width: int) -> Cameras:
        """From camera-to-world matrices (..., 4, 4)."""
        return cls(w2c=invert_rigid(c2w), k=k, height=height, width=width)

    @classmethod
    def from_fov(cls, c2w: Tensor, fov_x_degrees: float, height: int, width: int) -> Cameras:
        """Centred principal point and square pixels from the horizontal field of view in degrees."""
        focal = 0.5 * width / math.tan(math.radians(fov_x_degrees) / 2)
        k = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=c2w.dtype, device=c2w.device)
        return cls.from_c2w(c2w, k.expand(*c2w.shape[:-2], 3, 3).contiguous(), height, width)

    @property
    def c2w(self) -> Tensor:
        """Camera-to-world matrices (..., 4, 4)."""
        return invert_rigid(self.w2c)

    @property
    @full_precision
    def centers(self) -> Tensor:
        """Camera centres in world coordinates (..., 3)."""
        return -(self.w2c[..., :3, :3].mT @ self.w2c[..., :3, 3:]).squeeze(-1)

    @property
    def shape(self) -> torch.Size:
        """Leading (batch) shape."""
        return self.w2c.shape[:-2]

    def __len__(self) -> int:
        return self.w2c.shape[0]

    def __getitem__(self, index) -> Cameras:
        """Index the batch shape as a tensor of that shape, ``...`` and None included."""
        if isinstance(index, tuple) and any(item is Ellipsis for item in index):
            index = (*index, slice(None), slice(None))
        elif index is Ellipsis:
            return self
        return replace(self, w2c=self.w2c[index], k=self.k[index])

    def to(self, *args, **kwargs) -> Cameras:
        """Move or cast all tensors, as ``Tensor.to``."""
        return replace(self, w2c=self.w2c.to(*args, **kwargs), k=self.k.to(*args, **kwargs))

    def resized(self, height: int, width: int) -> Cameras:
        """The same cameras at another image size; the one function that scales intrinsics."""
        scale = self.k.new_tensor([width / self.width, height / self.height, 1.0])
        return replace(self, k=self.k * scale[:, None], height=height, width=width)

    def cropped(self, top: int | Tensor, left: int | Tensor, height: int, width: int) -> Cameras:
        """The same cameras after cutting a window whose first pixel is (left, top), or (...) one per camera."""
        shift = torch.zeros_like(self.k)
        shift[..., 0, 2], shift[..., 1, 2] = left, top
        return replace(self, k=self.k - shift, height=height, width=width)

    @full_precision
    def relative_to(self, origin: Tensor) -> Cameras:
        """Cameras in the frame of another camera with pose ``origin`` = its c2w (..., 4, 4): new = origin^-1 old."""
        return replace(self, w2c=self.w2c @ origin)

    def scaled(self, factor: float | Tensor) -> Cameras:
        """World scaled by ``factor`` about its origin: translations multiply, rotations stay. factor: (...)."""
        w2c = self.w2c.clone()
        w2c[..., :3, 3] = w2c[..., :3, 3] * torch.as_tensor(factor, dtype=w2c.dtype, device=w2c.device)[..., None]
        return replace(self, w2c=w2c)

    @full_precision
    def project(self, points: Float[Tensor, "*batch n 3"]) -> tuple[Tensor, Tensor]:
        """World points (..., N, 3) -> pixel positions (..., N, 2) and z-depths (..., N)."""
        local = points @ self.w2c[..., :3, :3].mT + self.w2c[..., None, :3, 3]
        depth = local[..., 2]
        safe = torch.where(depth.abs() < 1e-8, torch.full_like(depth, 1e-8), depth)
        pixel = (local / safe[..., None]) @ self.k.mT
        return pixel[..., :2], depth

    @staticmethod
    def cat(parts: list[Cameras], dim: int = 0) -> Cameras:
        """Concatenate along a batch dimension; image sizes must agree."""
        first = parts[0]
        if any((part.height, part.width) != (first.height, first.width) for part in parts):
            raise ValueError("cameras of different image sizes cannot be joined; call resized() first")
        return replace(first, w2c=torch.cat([p.w2c for p in parts], dim), k=torch.cat([p.k for p in parts], dim))


@full_precision
def invert_rigid(matrix: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Inverse of rigid transforms, exact up to rounding: (R, t)^-1 = (R^T, -R^T t)."""
    rotation = matrix[..., :3, :3].mT
    translation = -rotation @ matrix[..., :3, 3:]
    bottom = matrix[..., 3:, :]
    return torch.cat([torch.cat([rotation, translation], -1), bottom], -2)
