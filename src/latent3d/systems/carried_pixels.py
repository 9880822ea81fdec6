"""What is known of a scene as splats, seen from every view: the references' pixels at their estimated depth, and the
splats that exist already where a scene grows.

The second is the paper's splat-conditional variant (GGS section 3.4; spec 6). The first applies it to the references'
own geometry: what is seen is carried into every view instead of being found again by the denoiser.

Letters: b = scenes, m = views, k = references, h/w = latent rows and columns, H/W = image rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.depth_range import DepthRange
from latent3d.memory import in_parts
from latent3d.rendering.base import stack
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.views import Views
from latent3d.systems.splat_decoder import SAME_SURFACE, PixelEvidence, shown_elsewhere
from latent3d.systems.splat_head import lift_pixels, surface_frames

if TYPE_CHECKING:
    from latent3d.systems.ggs_records import SceneContext

OPAQUE = 0.99
"""Opacity of carried splats."""
CARRIED_SCALE = 0.4
"""Standard deviation of carried splats, in steps between neighbouring pixels' points."""


def reference_depth(geometry: nn.Module, references: Views, *, agreed: bool) -> Float[Tensor, "b k 1 H W"]:
    """Depth coordinate of the pixels of references (b, k); at the leanest memory level scene by scene.

    Args:
        geometry: a `ReferenceGeometry`.
        agreed: from the scene and its mirror image, whose errors are partly independent: the mean where they agree,
            else the nearer. At edges the mean would float between two surfaces.
    """

    def scenes(images: Tensor, cameras: Cameras) -> Tensor:
        return geometry(images, cameras).relative

    def depth_of(views: Views) -> Tensor:
        return in_parts(scenes, views.images, views.cameras, lean=len(views), leanest=1)

    relative = depth_of(references)
    if not agreed:
        return relative
    other = depth_of(references.mirrored()).flip(-1)
    agree = (relative - other).abs() < SAME_SURFACE
    return torch.where(agree, (relative + other) / 2, torch.minimum(relative, other))


@torch.no_grad()
def carry_pixels(
    references: Float[Tensor, "b k 3 H W"],
    relative: Float[Tensor, "b k 1 H W"] | None,
    cameras: Cameras,
    is_reference: Bool[Tensor, " m"],
    *,
    depth_range: DepthRange,
    stride: int,
    low_pass: float,
    existing: Sequence[Gaussians] | None = None,
) -> tuple[Float[Tensor, "b m 5 H W"], Float[Tensor, "b k 5 H W"]]:
    """Lift every ``stride``-th pixel of the references and look at them: colour 3, alpha 1, depth coordinate 1.

    Args:
        relative: depth coordinate of the references in ``depth_range``; None where it is not known.
        cameras: of all views, (b, m).
        low_pass: of the renders, square pixels of the coarse grid.
        existing: splats with colours that each scene has already, in the cameras' world.

    Returns:
        what every view sees of them, (b, m, 5, H, W), the picture itself on references; and what every reference
        sees of everything but its own pixels, (b, k, 5, H, W), which tells where they contradict each other.
    """
    b, m = cameras.shape
    size = (references.shape[-2], references.shape[-1])
    index, rest = is_reference.nonzero()[:, 0], (~is_reference).nonzero()[:, 0]
    small = cameras.resized(size[0] // stride, size[1] // stride)
    sources, small = small[:, index], small[:, rest]
    further = [[plain(scene)] for scene in existing] if existing is not None else [[] for _ in range(b)]
    lifted: list[Gaussians] = []
    finest: list[Gaussians] = []
    if relative is not None:
        depth = depth_range.depth(relative[..., stride // 2 :: stride, stride // 2 :: stride])
        lifted = lift_surface(F.avg_pool2d(references.flatten(0, 1), stride).unflatten(0, (b, -1)), depth, sources)
        owned = (OPAQUE - 0.94 * shown_elsewhere(sources, depth)).flatten(1)
        finest = [replace(scene, opacities=owned[i]) for i, scene in enumerate(lifted)]
    seen = partial(_seen, size=size, depth_range=depth_range, low_pass=low_pass)

    carried = torch.zeros(b, m, 5, *size, device=references.device)
    if len(rest):
        carried[:, rest] = seen([[*finest[i : i + 1], *further[i]] for i in range(b)], small)
    crossed = torch.zeros_like(carried[:, : len(index)])
    if len(index) > 1 or existing is not None:
        owner = torch.arange(len(index), device=references.device).repeat_interleave(small.height * small.width)
        for one in range(len(index)):
            others = [scene[owner != one] for scene in lifted]
            crossed[:, one : one + 1] = seen(
                [[*others[i : i + 1], *further[i]] for i in range(b)], sources[:, one : one + 1]
            )
    known = crossed[:, :, 4:] * crossed[:, :, 3:4] if relative is None else relative
    carried[:, index] = torch.cat([references, torch.ones_like(references[:, :, :1]), known], 2).float()
    return carried, crossed


def lift_surface(
    color: Float[Tensor, "b v 3 h w"], depth: Float[Tensor, "b v 1 h w"], cameras: Cameras
) -> list[Gaussians]:
    """Small opaque splats, one per pixel, on the surface that each view sees; cameras (b, v) of that pixel grid."""
    surface, stretch = surface_frames(cameras, depth)
    return lift_pixels(
        cameras, depth, color=color, quaternion=surface, scale_px=CARRIED_SCALE * stretch,
        opacity=torch.full_like(depth, OPAQUE),
    )  # fmt: skip


def plain(scene: Gaussians) -> Gaussians:
    """The same splats with nothing but colour, so that sets of different kinds can be joined."""
    return replace(scene, features=None, harmonics=None)


def _seen(
    parts: list[list[Gaussians]], cameras: Cameras, size: tuple[int, int], depth_range: DepthRange, low_pass: float
) -> Tensor:
    """Colour, alpha and depth coordinate of each scene's splats in every view at image size, (b, v, 5, H, W)."""
    if not any(parts):
        return torch.zeros(*cameras.shape, 5, *size, device=cameras.w2c.device)
    renders = [render_gaussians(Gaussians.cat(scene), cameras[i], low_pass=low_pass) for i, scene in enumerate(parts)]
    rgb, alpha, depth = (stack(renders, name) for name in ("rgb", "alpha", "depth"))
    maps = torch.cat([rgb / alpha.clamp_min(1e-3), alpha, depth_range.relative(depth)], 2)
    maps = F.interpolate(maps.flatten(0, 1), size=size, mode="bilinear").unflatten(0, cameras.shape)
    return maps.clamp(0, 1)


def pool_known(relative: Tensor, alpha: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Depth coordinates (b, m, 1, H, W) with their alpha -> latent resolution: the median of the covered pixels of each
    patch (no mixing across edges; 0 where none is) and the covered share."""
    b = relative.shape[0]
    covered = F.pixel_unshuffle(alpha.flatten(0, 1), factor)
    covered = covered * (covered >= 0.5)
    values = F.pixel_unshuffle(relative.flatten(0, 1), factor).masked_fill(covered == 0, torch.nan)
    median = values.nanmedian(1, keepdim=True).values.nan_to_num(0.0)
    return median.unflatten(0, (b, -1)), covered.mean(1, keepdim=True).unflatten(0, (b, -1))


def pixel_evidence(
    context: SceneContext, decoded: Float[Tensor, "b m 3 H W"], depth_map: Float[Tensor, "b m 1 h w"], span: DepthRange
) -> PixelEvidence:
    """What the 3D decoder starts from.

    Args:
        decoded: pictures of all views, decoded from their latents.
        depth_map: z-depth that the latent splats render.
    """
    size, role = decoded.shape[-2:], context.role
    index = context.is_reference.nonzero()[:, 0]
    image = decoded + role * (context.images - decoded)
    relative = F.interpolate(span.relative(depth_map).flatten(0, 1), size=size, mode="bilinear")
    relative = relative.unflatten(0, context.cameras.shape)
    if context.relative is not None:
        relative = relative.index_copy(1, index, context.relative)
    carried = torch.zeros_like(torch.cat([image, relative, relative], 2))
    if context.carried is not None and context.crossed is not None:
        carried = context.carried.index_copy(1, index, context.crossed)
    covered = carried[:, :, 3:4] * (1 - role)
    if context.relative is not None:
        depths = span.depth(context.relative.detach())
        covered = covered.index_copy(1, index, shown_elsewhere(context.cameras[:, index], depths))
    color, alpha, depth = carried.split([3, 1, 1], 2)
    return PixelEvidence(image, relative, role.expand_as(alpha), color, alpha, depth, covered)
