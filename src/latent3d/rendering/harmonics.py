"""Real spherical harmonics of degree 1 to 3 in 3DGS's order and signs, for view-dependent colour."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

BASIS_SIZES = (3, 8, 15)
"""Number of functions of degree 1 and up, for a highest degree of 1, 2 and 3."""


def harmonic_basis(directions: Float[Tensor, "*batch 3"], size: int) -> Float[Tensor, "*batch {size}"]:
    """The first ``size`` orthonormal real harmonics of degree >= 1 at unit ``directions`` (Condon-Shortley signs).

    Raises:
        ValueError: if ``size`` is not the size of a whole degree (3, 8 or 15).
    """
    if size not in BASIS_SIZES:
        raise ValueError(f"harmonics need {BASIS_SIZES} functions beyond the constant one, got {size}")
    x, y, z = directions.unbind(-1)
    unit = math.sqrt(1 / math.pi)
    first = unit * math.sqrt(3) / 2
    values = [-first * y, first * z, -first * x]
    if size > 3:
        second, axial = unit * math.sqrt(15) / 2, unit * math.sqrt(5) / 4
        values += [
            second * x * y,
            -second * y * z,
            axial * (2 * z * z - x * x - y * y),
            -second * x * z,
            second / 2 * (x * x - y * y),
        ]
    if size > 8:
        outer, middle = unit * math.sqrt(35 / 2) / 4, unit * math.sqrt(105) / 2
        inner, axial = unit * math.sqrt(21 / 2) / 4, unit * math.sqrt(7) / 4
        values += [
            -outer * y * (3 * x * x - y * y),
            middle * x * y * z,
            -inner * y * (4 * z * z - x * x - y * y),
            axial * z * (2 * z * z - 3 * x * x - 3 * y * y),
            -inner * x * (4 * z * z - x * x - y * y),
            middle / 2 * z * (x * x - y * y),
            -outer * x * (x * x - 3 * y * y),
        ]
    return torch.stack(values, -1)


def view_dependent_colors(
    colors: Float[Tensor, "n 3"],
    harmonics: Float[Tensor, "n k 3"],
    means: Float[Tensor, "n 3"],
    centers: Float[Tensor, "v 3"],
) -> Float[Tensor, "v n 3"]:
    """Colours of the splats as seen from the camera centres: colours plus harmonics of the viewing direction, >= 0."""
    directions = torch.nn.functional.normalize(means - centers[:, None], dim=-1)
    basis = harmonic_basis(directions, harmonics.shape[1])
    return (colors + torch.einsum("vnk,nkc->vnc", basis, harmonics)).clamp_min(0)
