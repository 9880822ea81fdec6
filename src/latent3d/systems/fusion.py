"""How a new part joins a scene: nothing twice, nothing that the references contradict (see `latent3d.systems.growth`).

Letters: n = splats of the scene, a = splats of the new part, c = its views, k = references, v = views.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.origin import Origin
from latent3d.systems.ggs_records import GGSOutput
from latent3d.systems.origins import SampledSurface

SHOWN_ALPHA = 0.9
"""A pixel that the scene covers this much is not filled again."""
SURFACE_TOLERANCE = 0.03
"""Points whose depths differ by this share lie on one surface."""
COARSER = 1.5
"""A surface is replaced by a view that shows it with splats this much smaller."""
MIN_OPACITY = 0.005
"""Splats below this opacity are never drawn and are left out."""
PART = 1 << 16
"""So many splats of a scene are judged at a time, so that memory does not grow with the scene."""
MARGIN = 0.2
"""Splats this share of the picture outside its frame still condition a view."""
CONTRADICTION_DEPTH = 0.05
"""A splat this share of the depth in front of what a reference sees there would have been seen instead."""
CONTRADICTION_COLOR = 0.12
"""It contradicts the reference if its colour differs by more than this, mean over the channels in [0, 1]."""


@torch.no_grad()
def fuse(
    old: Gaussians,
    old_origin: Int[Tensor, " n"],
    new: GGSOutput,
    fresh: Bool[Tensor, " c"],
    surface: Float[Tensor, "f 2 H W"],
) -> tuple[Bool[Tensor, " n"], Bool[Tensor, " a"]]:
    """Which splats of a scene and of a new chunk stay when they are joined, so that nothing is there twice.

    What a new reference sees replaces what had been made up in front of it, and coarser splats of the same surface. A
    new splat is left out where the scene covers its pixel already: always in generated views, which were made to agree
    with the scene; in new references if the scene has the same surface there; in references that the scene had before.

    Args:
        old, old_origin: splats of the scene and their `Origin`.
        new: of the chunk, c views.
        fresh: which of its views are references that the scene has not had.
        surface: what these see, see `seen_surface`.
    """
    drawn = new.gaussians.opacities >= MIN_OPACITY
    drawn &= (new.origin != int(Origin.SEEN)) | fresh.to(drawn.device)[new.source]
    old_kept = torch.ones(len(old), dtype=torch.bool, device=old.means.device)
    if not len(old):
        return old_kept, drawn
    if bool(fresh.any()):

        def replaced(part: slice) -> Tensor:
            splats = old[part]
            there = SampledSurface(splats.means, new.cameras[fresh], surface[:, :1])
            before = (there.depth > 0) & (there.z < (1 + SURFACE_TOLERANCE) * there.depth)
            same = before & (there.z > (1 - SURFACE_TOLERANCE) * there.depth)
            coarser = same & (_size(splats) > COARSER * there.of(surface[:, 1:])[:, 0])
            return ((before & (old_origin[part] != int(Origin.SEEN))) | coarser).any(0)

        old_kept = ~_in_parts(replaced, len(old))
    covered = seen_surface(old, new.cameras, new.low_pass_px, old_kept)
    for view in range(len(new.cameras)):
        index = (drawn & (new.source == view)).nonzero()[:, 0]
        there = SampledSurface(new.gaussians.means[index], new.cameras[view : view + 1], covered[view : view + 1, :1])
        same = (there.z - there.depth).abs() < SURFACE_TOLERANCE * there.depth
        drawn[index] = ~torch.where(fresh[view], same, there.depth > 0)[0]
    return old_kept, drawn


@torch.no_grad()
def contradicted(
    gaussians: Gaussians, cameras: Cameras, surfaces: Float[Tensor, "k 1 H W"], images: Float[Tensor, "k 3 H W"]
) -> Bool[Tensor, " n"]:
    """Splats that at least as many references contradict as confirm (the one they come from confirms them).

    A splat in front of what a reference sees would be in its picture: if another colour is there, the splat's depth is
    wrong. It is confirmed where it lies on the surface that a reference sees, or shows the colour that is there.

    Args:
        cameras, surfaces, images: of the references: z-depth of what each sees (0: nothing), and its picture.
    """

    def verdict(part: slice) -> Tensor:
        splats = gaussians[part]
        assert splats.colors is not None
        against = torch.zeros(len(splats), dtype=torch.long, device=splats.means.device)
        confirmed = torch.zeros_like(against)
        for one in range(len(cameras)):  # reference by reference: memory does not depend on their number
            there = SampledSurface(splats.means, cameras[one : one + 1], surfaces[one : one + 1])
            picture = F.avg_pool2d(images[one : one + 1], 3, 1, 1, count_include_pad=False)
            differs = (there.of(picture) - splats.colors.T).abs().mean(1) > CONTRADICTION_COLOR
            shown = there.depth > 0
            front = shown & (there.z < (1 - CONTRADICTION_DEPTH) * there.depth)
            same = shown & ~front & (there.z < (1 + CONTRADICTION_DEPTH) * there.depth)
            against += (front & differs)[0]
            confirmed += (same | (front & ~differs))[0]
        return (against > 0) & (against >= confirmed)

    return _in_parts(verdict, len(gaussians))


def seen_surface(
    gaussians: Gaussians, cameras: Cameras, low_pass: float, kept: Bool[Tensor, " n"] | None = None
) -> Float[Tensor, "v 2 H W"]:
    """z-depth of what splats show, 0 where they cover less than `SHOWN_ALPHA`; and the size of the splats there.

    View by view, with the splats in view, so that memory does not grow with the scene.

    Args:
        kept: without the other splats.
    """
    maps = gaussians.means.new_zeros(len(cameras), 2, cameras.height, cameras.width)
    for view in range(len(cameras)):
        camera = cameras[view : view + 1]
        near = gaussians[in_view(gaussians, camera) if kept is None else kept & in_view(gaussians, camera)]
        sized = replace(near, colors=None, features=_size(near)[:, None], harmonics=None)
        render = render_gaussians(sized, camera, low_pass=low_pass)
        assert render.features is not None
        shown = render.alpha >= SHOWN_ALPHA
        size = render.features / render.alpha.clamp_min(SHOWN_ALPHA)
        maps[view] = (torch.cat([render.depth, size], 1) * shown)[0]
    return maps


def _size(gaussians: Gaussians) -> Float[Tensor, " n"]:
    """Extent of splats along the surface they lie on: the middle one of their standard deviations."""
    return gaussians.scales.median(-1).values


def in_view(gaussians: Gaussians, cameras: Cameras) -> Bool[Tensor, " n"]:
    """Splats whose centres lie before one of the cameras (v,), in or near its frame."""
    size = gaussians.means.new_tensor([cameras.width, cameras.height])

    def verdict(part: slice) -> Tensor:
        means = gaussians.means[part]
        pixels, z = cameras.project(means.expand(len(cameras), *means.shape))
        place = pixels / size
        return ((z > 0) & (place > -MARGIN).all(-1) & (place < 1 + MARGIN).all(-1)).any(0)

    return _in_parts(verdict, len(gaussians))


def _in_parts(verdict: Callable[[slice], Bool[Tensor, " p"]], count: int) -> Bool[Tensor, " n"]:
    """A verdict on each of some splats, `PART` at a time (none of none, on the device that ``verdict`` chooses)."""
    return torch.cat([verdict(slice(start, start + PART)) for start in range(0, max(count, 1), PART)])
