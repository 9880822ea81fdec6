"""What `gpu_rasteriser` compares: scenes, renderers by name, and how much work a scene is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from rasteriser import LEAVES
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.optional import is_installed
from latent3d.rendering import splats_torch
from latent3d.rendering.base import LOW_PASS_PX, NEAR, TritonOptions
from latent3d.rendering.projection import ProjectedSplats, project_splats
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians

PRECISIONS = ("tf32", "ieee", "bf16")
GRAPH = "triton tf32, CUDA graph"
GEOMETRY = 11
"""Numbers of a splat besides its channels."""
Pictures = tuple[Tensor, Tensor, Tensor]
Renderer = Callable[[Sequence[Tensor]], Pictures]


@dataclass(frozen=True)
class Contest:
    """What is compared on one scene.

    Attributes:
        leaves: tensors that get gradients; renderers take them, in float32 or float64.
        truth: renders in the dtype of the leaves.
        renderers: by name.
    """

    leaves: tuple[Tensor, ...]
    truth: Renderer
    renderers: dict[str, Renderer]


@dataclass(frozen=True)
class Work:
    """What a forward + backward pass must do.

    Attributes:
        entries: pairs of splat and tile of 8 x 8 pixels.
        blended: of those, the ones in front of which a pixel of the tile is not yet opaque.
        pairs: pairs of splat and pixel that contribute.
        bytes: of splats and pictures, each read or written once per pass.
        flop: of the products of channels with weights, one of them forward and two backward.
    """

    entries: int
    blended: int
    pairs: int
    bytes: float
    flop: float


@torch.no_grad()
def on_screen(gaussians: Gaussians, cameras: Cameras) -> ProjectedSplats:
    """The splats in all views."""
    geometry = (gaussians.means, gaussians.quaternions, gaussians.scales, gaussians.opacities)
    return project_splats(*geometry, cameras.w2c, cameras.k, cameras.height, cameras.width, LOW_PASS_PX, NEAR, False)


@torch.no_grad()
def work(projected: ProjectedSplats, channels: int, height: int, width: int) -> Work:
    """Count, with the lists and the alphas of the PyTorch twin."""
    bins = splats_torch._bin(projected, height, width)
    tiles = splats_torch._Tiles(projected.means, projected.conics, projected.opacities, bins)
    side, (rows, columns) = splats_torch.TILE, bins.grid
    lane = torch.arange(side * side, device=projected.depths.device)
    blended = pairs = 0
    for chosen, length in bins.batches():
        batch, place = tiles.load(chosen, length), (chosen % (rows * columns))[:, None]
        x, y = place % columns * side + lane % side, place // columns * side + lane // side
        counts = batch.blended & ((x < width) & (y < height))[..., None]
        blended += int((counts.any(1) & batch.valid).sum())
        pairs += int((counts & (batch.alpha > 0)).sum())
    views, splats = projected.depths.shape
    # read splats, write pictures; read splats and gradients of pictures, write gradients of splats
    numbers = 3 * splats * (GEOMETRY + channels) + 2 * views * height * width * (channels + 2)
    return Work(len(bins.entries), blended, pairs, 4.0 * numbers, 6.0 * side**2 * channels * blended)


def whole_call(gaussians: Gaussians, cameras: Cameras, entries: int, triton: bool) -> Contest:
    """From splats in space. ``entries``: pairs of splat and tile, for which the CUDA graph makes room."""

    def through(backend, leaves: Sequence[Tensor], **options) -> Pictures:
        out = render_gaussians(Gaussians(**dict(zip(LEAVES, leaves, strict=True))), cameras, backend=backend, **options)
        return cast(Tensor, out.features), out.depth, out.alpha

    def gsplat(leaves: Sequence[Tensor]) -> Pictures:
        from latent3d.rendering import splats_gsplat

        means, quaternions, scales, opacities, channels = leaves
        settings = (cameras.w2c, cameras.k, cameras.height, cameras.width, LOW_PASS_PX, NEAR, False)
        limit = channels.shape[-1]
        return splats_gsplat.render(
            means, quaternions, scales, opacities, channels[None], *settings, channels_max=limit
        )

    twin = functools.partial(through, "torch")
    renderers: dict[str, Renderer] = {}
    if triton:
        for precision in PRECISIONS:
            options = TritonOptions(precision=precision)
            renderers[f"triton {precision}"] = functools.partial(through, "triton", triton=options)
        room = TritonOptions(entries=entries + entries // 10 + 1024)
        renderers[GRAPH] = functools.partial(through, "triton", triton=room)
    renderers["torch"] = twin
    if is_installed("gsplat"):
        renderers["gsplat"] = gsplat
    return Contest(tuple(getattr(gaussians, name) for name in LEAVES), twin, renderers)


def blending(gaussians: Gaussians, cameras: Cameras, projected: ProjectedSplats, triton: bool) -> Contest:
    """From splats on the screen."""
    size = (cameras.height, cameras.width)

    def through(blend: Callable[..., Pictures], leaves: Sequence[Tensor]) -> Pictures:
        means, conics, depths, opacities, channels = leaves
        extents = projected.extents.to(means.dtype)
        splats = ProjectedSplats(means, conics, depths, opacities, extents, projected.visible)
        return blend(splats, channels[None], *size)

    twin = functools.partial(through, splats_torch.blend)
    renderers: dict[str, Renderer] = {}
    if triton:
        import gpu_per_pixel

        from latent3d.rendering import splats_triton

        for precision in PRECISIONS:
            blend = functools.partial(splats_triton.blend, options=TritonOptions(precision=precision))
            renderers[f"triton {precision}"] = functools.partial(through, blend)
        renderers["per-pixel"] = functools.partial(through, gpu_per_pixel.blend)
    renderers["torch"] = twin
    splats = (projected.means, projected.conics, projected.depths, projected.opacities.contiguous())
    return Contest((*splats, cast(Tensor, gaussians.features)), twin, renderers)
