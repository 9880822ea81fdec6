"""Where a token of a tri-plane is, as fixed sine-cosine codes in the axes of the world."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.nn.layers import sinusoidal_embedding
from latent3d.representations.triplane import PLANE_AXES

SPAN = 16.0
"""Length of a plane's side in the codes' unit, whatever its resolution: a finer grid has codes in between."""


def plane_positions(rows: int, columns: int, dim: int, device: torch.device | None = None) -> Float[Tensor, "n {dim}"]:
    """Fixed sine-cosine codes of all tokens of three planes, in world axes.

    A third of the channels belongs to each world axis. A token has the codes of the two axes that its plane spans and
    zeros on the third, so that tokens of different planes that lie on a common plane of the volume share a code.
    """
    width = dim // 6 * 2
    centre_y = (torch.arange(rows, device=device) + 0.5) * (SPAN / rows)
    centre_x = (torch.arange(columns, device=device) + 0.5) * (SPAN / columns)
    code_y, code_x = (sinusoidal_embedding(centre, width, max_period=100.0) for centre in (centre_y, centre_x))
    codes = torch.zeros(3, rows, columns, dim, device=device)
    for plane, (along_columns, along_rows) in enumerate(PLANE_AXES):
        codes[plane, ..., along_columns * width : (along_columns + 1) * width] = code_x[None]
        codes[plane, ..., along_rows * width : (along_rows + 1) * width] = code_y[:, None]
    return codes.flatten(0, 2)
