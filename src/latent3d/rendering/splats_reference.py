"""The truth: every splat against every pixel, in plain autograd. Slow and hungry; for small scenes and for tests.

Letters: V views, N splats, C channels, P = H W pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.rendering.base import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN
from latent3d.rendering.projection import LEAST_ALPHA, ProjectedSplats


def blend(
    projected: ProjectedSplats, channels: Float[Tensor, "v_or_1 n c"], height: int, width: int
) -> tuple[Float[Tensor, "v c h w"], Float[Tensor, "v 1 h w"], Float[Tensor, "v 1 h w"]]:
    """Front-to-back compositing of all pairs; memory grows as P N.

    w_i = alpha_i T_i, T_{i+1} = T_i (1 - alpha_i); the first splat with T_{i+1} <= `TRANSMITTANCE_MIN` is not blended
    and ends the pixel. Splats are ordered by depth, equal depths by input index.

    Returns:
        sum(w F), sum(w z) / max(alpha, 1e-6) and alpha = sum(w) = 1 - final transmittance.
    """
    dtype, device = channels.dtype, channels.device
    rows = torch.arange(height, dtype=dtype, device=device) + 0.5
    columns = torch.arange(width, dtype=dtype, device=device) + 0.5
    y, x = (axis.reshape(-1, 1) for axis in torch.meshgrid(rows, columns, indexing="ij"))
    images, depths, alphas = [], [], []
    for view in range(projected.means.shape[0]):
        order = torch.argsort(projected.depths[view].detach(), stable=True)
        order = order[projected.visible[view, order]]
        values = channels[view if channels.shape[0] > 1 else 0, order]
        z = projected.depths[view, order]
        dx, dy = projected.means[view, order, 0] - x, projected.means[view, order, 1] - y
        a, b, c = projected.conics[view, order].unbind(-1)
        sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
        alpha = (projected.opacities[view, order] * torch.exp(-sigma)).clamp_max(ALPHA_MAX)
        alpha = torch.where(alpha >= ALPHA_MIN, alpha, torch.zeros_like(alpha))
        after = torch.cumprod(1 - alpha, -1)
        before = torch.cat([torch.ones_like(y), after], -1)[:, :-1]
        blended = after > TRANSMITTANCE_MIN
        weight = torch.where(blended, alpha * before, torch.zeros_like(alpha))
        # the mass is 1 - final transmittance, but a sum of weights stays exact where it is small
        mass = weight.sum(-1)
        images.append((weight @ values).T.reshape(-1, height, width))
        depths.append(((weight @ z) / mass.clamp_min(LEAST_ALPHA)).reshape(1, height, width))
        alphas.append(mass.reshape(1, height, width))
    return torch.stack(images), torch.stack(depths), torch.stack(alphas)
