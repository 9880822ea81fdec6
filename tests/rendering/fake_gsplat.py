"""A module that takes and gives what gsplat documents for ``rasterization``, computed by our reference renderer."""

from __future__ import annotations

import types

import torch
from torch import Tensor

from latent3d.rendering import splats_reference
from latent3d.rendering.projection import project_splats

MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")


def rasterization(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    packed: bool = True,
    tile_size: int = 16,
    backgrounds: Tensor | None = None,
    render_mode: str = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    rasterize_mode: str = "classic",
    channel_chunk: int = 32,
) -> tuple[Tensor, Tensor, dict]:
    """N splats in C cameras: (C, height, width, X), (C, height, width, 1) and a dictionary.

    X is D for "RGB", 1 for "D" and "ED", D + 1 otherwise. Quaternions are (w, x, y, z); ``viewmats`` world to camera.
    """
    count, views = len(means), len(viewmats)
    assert means.shape == scales.shape == (count, 3)
    assert quats.shape == (count, 4)
    assert opacities.shape == (count,)
    assert viewmats.shape == (views, 4, 4)
    assert Ks.shape == (views, 3, 3)
    assert colors.shape[:-1] in ((count,), (views, count)), colors.shape
    assert colors.shape[-1] > 0
    assert {value.dtype for value in (means, quats, scales, opacities, colors, viewmats, Ks)} == {torch.float32}
    assert render_mode in MODES
    assert sh_degree is None
    assert rasterize_mode in ("classic", "antialiased")
    assert radius_clip == 0
    assert backgrounds is None
    projected = project_splats(
        means, quats, scales, opacities, viewmats, Ks.detach(), height, width, eps2d, near_plane,
        rasterize_mode == "antialiased",
    )  # fmt: skip
    channels = colors if colors.ndim == 3 else colors[None]
    images, depth, alphas = splats_reference.blend(projected, channels, height, width)
    if "ED" not in render_mode:
        depth = depth * alphas
    parts = [images] if render_mode == "RGB" else [depth] if "RGB" not in render_mode else [images, depth]
    colors_out = torch.cat(parts, 1)
    pieces = -(-colors_out.shape[1] // channel_chunk)
    return colors_out.permute(0, 2, 3, 1), alphas.permute(0, 2, 3, 1), {"pieces": pieces}


def module() -> types.ModuleType:
    """The module ``gsplat``, for ``sys.modules``."""
    fake = types.ModuleType("gsplat")
    fake.rasterization = rasterization
    return fake
