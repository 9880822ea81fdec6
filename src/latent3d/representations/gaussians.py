"""`Gaussians`: a scene as splats that hold activated values (what a file stores is the file format's affair)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.geometry.precision import full_precision


@dataclass(frozen=True)
class Gaussians:
    """N anisotropic 3D Gaussians of one scene.

    Attributes:
        means: centres in world coordinates, (N, 3).
        quaternions: local-to-world rotations (w, x, y, z), scalar first; normalised where they are used, (N, 4).
        scales: standard deviations along the local axes in scene units, linear (not log), (N, 3).
        opacities: in [0, 1] (not logits), (N,).
        colors: display (sRGB) colour seen from everywhere, (N, 3); None for pure feature splats.
        features: any number of channels to splat, (N, C), or None.
        harmonics: view-dependent colour added to ``colors``: real spherical harmonics of degree 1 and up in 3DGS's
            sign and order, (N, K - 1, 3) with K = (degree + 1)^2, or None.
    """

    means: Float[Tensor, "n 3"]
    quaternions: Float[Tensor, "n 4"]
    scales: Float[Tensor, "n 3"]
    opacities: Float[Tensor, " n"]
    colors: Float[Tensor, "n 3"] | None = None
    features: Float[Tensor, "n c"] | None = None
    harmonics: Float[Tensor, "n k 3"] | None = None

    def __len__(self) -> int:
        return self.means.shape[0]

    def _map(self, function) -> Gaussians:
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        mapped: dict[str, Any] = {name: None if value is None else function(value) for name, value in values.items()}
        return Gaussians(**mapped)

    def __getitem__(self, index) -> Gaussians:
        return self._map(lambda tensor: tensor[index])

    def to(self, *args, **kwargs) -> Gaussians:
        """Move or cast all tensors, as ``Tensor.to``."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def detach(self) -> Gaussians:
        """The same splats without their history."""
        return self._map(torch.Tensor.detach)

    @staticmethod
    def cat(parts: list[Gaussians]) -> Gaussians:
        """Union of splat sets. Optional channels must be present in all parts or in none.

        Raises:
            ValueError: if only some parts have a channel.
        """
        joined: dict[str, Any] = {}
        for field in fields(Gaussians):
            values = [getattr(part, field.name) for part in parts]
            missing = sum(value is None for value in values)
            if 0 < missing < len(values):
                raise ValueError(f"only some of the splat sets have '{field.name}'; give it to all or to none")
            joined[field.name] = None if missing else torch.cat(values)
        return Gaussians(**joined)

    @full_precision
    def transformed(self, pose: Float[Tensor, "4 4"], scale: float = 1.0) -> Gaussians:
        """Scale about the origin, then move by the rigid ``pose``: x -> R (scale x) + t. Harmonics are not rotated.

        Raises:
            ValueError: if the splats carry harmonics, whose rotation is not implemented here.
        """
        from latent3d.geometry.rotations import matrix_to_quaternion, multiply_quaternions

        if self.harmonics is not None:
            raise ValueError("splats with view-dependent colour cannot be rotated; drop `harmonics` first")
        turn = matrix_to_quaternion(pose[:3, :3])
        return replace(
            self,
            means=(self.means * scale) @ pose[:3, :3].T + pose[:3, 3],
            quaternions=multiply_quaternions(turn.expand_as(self.quaternions), self.quaternions),
            scales=self.scales * scale,
        )
