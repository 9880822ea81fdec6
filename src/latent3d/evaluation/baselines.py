"""What needs no model: repeating a reference picture, and warping the references by a known depth.

The warp is as strong as depth alone allows, so that beating it means inventing well what no reference saw: a z-buffered
forward warp of the references' depth gives each target's depth, the references are sampled there with bicubic weights,
and holes are filled from their surroundings at ever coarser scales (push-pull, Gortler et al. 1996).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.rays import pixel_grid, rays_z1, unproject
from latent3d.representations.views import Views

MIN_DEPTH = 1e-3
"""Points at or below this z-depth are not drawn, in scene units."""


@dataclass(frozen=True)
class Warp:
    """References carried to M target cameras by depth.

    Attributes:
        images: (M, 3, H, W), holes filled.
        depths: z-depth in scene units, (M, 1, H, W), holes filled.
        covered: pixels that some reference reached, (M, 1, H, W).
    """

    images: Float[Tensor, "m 3 h w"]
    depths: Float[Tensor, "m 1 h w"]
    covered: Bool[Tensor, "m 1 h w"]


def nearest_reference(references: Cameras, targets: Cameras) -> Tensor:
    """Index of the nearest reference camera for each target, (M,).

    Distance between centres over the largest such distance, plus the angle between the viewing directions over pi.
    """
    distance = torch.cdist(targets.centers, references.centers)
    forward_t, forward_r = targets.w2c[:, 2, :3], references.w2c[:, 2, :3]
    angle = torch.arccos((forward_t @ forward_r.T).clamp(-1, 1)) / torch.pi
    return (distance / distance.max().clamp_min(1e-9) + angle).argmin(1)


def repeat_references(references: Views, targets: Cameras) -> Float[Tensor, "m 3 h w"]:
    """The nearest reference's picture for each target: a model that does nothing."""
    return references.images[nearest_reference(references.cameras, targets)]


def warp_references(references: Views, targets: Cameras, *, supersample: int = 2, tolerance: float = 0.05) -> Warp:
    """Warp K references to M targets by the references' depth and fill what none of them saw.

    Several references are blended by the inverse square of their cameras' distance to the target's.

    Args:
        references: K views with depths, the true ones or a model's; pixels of depth 0 (unknown) are not carried.
        targets: M cameras of the references' image size.
        supersample: samples per pixel side in the forward warp, so that magnified surfaces do not tear.
        tolerance: relative difference of depth up to which two samples are the same surface.

    Raises:
        ValueError: if the references have no depths.
    """
    if references.depths is None:
        raise ValueError("a depth warp needs references with depths; give Views whose `depths` are set")
    points = _sample_points(references, supersample)
    depths, covered = zip(*(_forward_depth(points, target, tolerance) for target in _each(targets)), strict=True)
    depth_map, covered_map = _mend(torch.stack(depths), torch.stack(covered), tolerance)
    depth_map = fill_holes(depth_map, covered_map)
    surface = unproject(targets, depth_map)
    images, agreed = zip(
        *(_sample_references(references, target, surface[i], tolerance) for i, target in enumerate(_each(targets))),
        strict=True,
    )
    covered_map = covered_map & torch.stack(agreed)
    return Warp(fill_holes(torch.stack(images), covered_map), depth_map, covered_map)


def fill_holes(values: Float[Tensor, "m c h w"], known: Bool[Tensor, "m 1 h w"]) -> Float[Tensor, "m c h w"]:
    """Push-pull: unknown pixels take the bilinear interpolation of known averages at the finest scale that has any.

    Known pixels stay as they are; an image without any known pixel becomes 0.
    """
    if bool(known.all()):
        return values
    weight = known.to(values.dtype)
    height, width = values.shape[-2:]
    if max(height, width) == 1:
        return values * weight
    padding = (0, width % 2, 0, height % 2)
    padded, weights = torch.nn.functional.pad(values * weight, padding), torch.nn.functional.pad(weight, padding)
    share = torch.nn.functional.avg_pool2d(weights, 2)
    coarse = torch.nn.functional.avg_pool2d(padded, 2) / share.clamp_min(1e-6)
    coarse = fill_holes(coarse, share > 0)
    size = padded.shape[-2:]
    fine = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    return torch.where(known, values, fine[..., :height, :width])


def _each(cameras: Cameras) -> list[Cameras]:
    return [cameras[i] for i in range(len(cameras))]


def _sample_points(references: Views, supersample: int) -> Float[Tensor, "n 3"]:
    """World points on the references' surfaces, ``supersample``^2 per pixel with depth."""
    depths = references.depths
    assert depths is not None
    pool, resize = torch.nn.functional.max_pool2d, torch.nn.functional.interpolate
    nearest = resize(depths, scale_factor=supersample, mode="nearest")
    inverse = resize(1 / depths.clamp_min(MIN_DEPTH), scale_factor=supersample, mode="bilinear", align_corners=False)
    # Between neighbours of one surface, inverse depth is linear (exactly so on planes); across an edge it must not be.
    smooth = pool(depths, 3, 1, 1) < -pool(-depths, 3, 1, 1) * 1.1
    smooth = resize(smooth.to(depths.dtype), scale_factor=supersample, mode="nearest") > 0.5
    fine = rearrange(torch.where(smooth, 1 / inverse, nearest), "k 1 h w -> k (h w) 1")
    cameras = references.cameras.resized(nearest.shape[-2], nearest.shape[-1])
    grid = pixel_grid(cameras.height, cameras.width, dtype=depths.dtype, device=depths.device)
    points = cameras.centers[:, None] + fine * rays_z1(rearrange(grid, "h w c -> (h w) c"), cameras)
    return points[fine[..., 0] > MIN_DEPTH]


def _forward_depth(points: Tensor, target: Cameras, tolerance: float) -> tuple[Tensor, Tensor]:
    """Depth map (1, H, W) of the points in one camera, averaged over the front surface, and where there is any."""
    height, width = target.height, target.width
    position, depth = target.project(points)
    position = position - 0.5
    corner = position.floor()
    ahead = (depth > MIN_DEPTH) & (corner >= -1).all(-1) & (corner[:, 0] < width) & (corner[:, 1] < height)
    position, corner, depth = position[ahead], corner[ahead], depth[ahead]
    shares = []
    front = depth.new_full((height * width,), torch.inf)
    for step in ((0, 0), (1, 0), (0, 1), (1, 1)):
        pixel = corner + corner.new_tensor(step)
        weight = (1 - (position - pixel).abs()).clamp_min(0).prod(-1)
        inside = (pixel >= 0).all(-1) & (pixel[:, 0] < width) & (pixel[:, 1] < height) & (weight > 1e-6)
        index = (pixel[:, 1] * width + pixel[:, 0]).long()[inside]
        shares.append((index, weight[inside], depth[inside]))
        # A sample that only grazes a pixel must not hide what lies behind it.
        strong = weight[inside] > 0.3
        front.scatter_reduce_(0, index[strong], depth[inside][strong], "amin")
    total, mass = torch.zeros_like(front), torch.zeros_like(front)
    for index, weight, z in shares:
        weight = weight * ((z - front[index]).abs() <= tolerance * z)
        total.index_add_(0, index, weight * z)
        mass.index_add_(0, index, weight)
    covered = torch.isfinite(front) & (mass > 1e-6)
    return (total / mass.clamp_min(1e-9)).view(1, height, width), covered.view(1, height, width)


def _mend(depths: Tensor, covered: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Close the cracks of strongly magnified surfaces: a pixel behind the median of its 3 x 3 neighbourhood takes it.

    Pixels that nothing reached count as infinitely far, so that the median is finite only where most neighbours are
    covered; wide holes stay.
    """
    open_depths = torch.where(covered, depths, torch.full_like(depths, torch.inf))
    padded = torch.nn.functional.pad(open_depths, (1, 1, 1, 1), value=torch.inf)
    height, width = depths.shape[-2:]
    shifts = [padded[..., y : y + height, x : x + width] for y in range(3) for x in range(3)]
    median = torch.stack(shifts).median(0).values
    crack = torch.isfinite(median) & (open_depths > median * (1 + tolerance))
    return torch.where(crack, median, depths), covered | crack


def _sample_references(references: Views, target: Cameras, surface: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Colours (3, H, W) of one target's surface points (H, W, 3) in the references that see them; where any does."""
    assert references.depths is not None
    cameras, count = references.cameras, len(references)
    position, z = cameras.project(rearrange(surface, "h w c -> 1 (h w) c").expand(count, -1, -1))
    grid = position * (2 / position.new_tensor([cameras.width, cameras.height])) - 1
    grid = rearrange(grid, "k (h w) c -> k h w c", h=target.height)
    z = rearrange(z, "k (h w) -> k 1 h w", h=target.height)
    sample = torch.nn.functional.grid_sample
    colour = sample(references.images, grid, mode="bicubic", padding_mode="border", align_corners=False)
    depth = sample(references.depths, grid, mode="nearest", padding_mode="border", align_corners=False)
    seen = (grid.abs().amax(-1)[:, None] <= 1) & (z > MIN_DEPTH) & ((depth - z).abs() < tolerance * z)
    distance = (cameras.centers - target.centers).norm(dim=-1)
    closeness = (distance / distance.max().clamp_min(1e-9) + 1e-2) ** -2
    weight = seen * closeness[:, None, None, None]
    total = weight.sum(0)
    return ((weight * colour).sum(0) / total.clamp_min(1e-9)).clamp(0, 1), total > 0
