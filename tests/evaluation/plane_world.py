"""A world with known answers: two textured planes, ray cast exactly, with depth. The near one occludes the far one."""

import math

import torch

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.rays import normalized_ray_z1
from latent3d.representations.views import Views

FAR, NEAR, EDGE = 5.0, 3.0, -0.6
"""The far plane z = FAR fills the view; the plane z = NEAR covers x < EDGE only."""


def texture(seed: int, cells: int = 48) -> torch.Tensor:
    """Random blocks over random smooth colours, (3, S, S): corners for SIFT and low frequencies for everything else."""
    generator = torch.Generator().manual_seed(seed)
    out = torch.zeros(1, 3, 384, 384)
    for size, weight in ((6, 0.4), (cells // 2, 0.35), (cells, 0.25)):
        layer = torch.rand(1, 3, size, size, generator=generator)
        mode = "nearest" if size > 6 else "bilinear"
        out += weight * torch.nn.functional.interpolate(layer, size=(384, 384), mode=mode)
    return torch.nn.functional.avg_pool2d(out, 3, 1, 1, count_include_pad=False)[0]


def path(views: int, step: float = 0.16) -> torch.Tensor:
    """Camera-to-world matrices (V, 4, 4): sideways motion with a slight turn, the first one the identity."""
    poses = []
    for i in range(views):
        angle = 0.02 * i
        c2w = torch.eye(4)
        c2w[0, 0] = c2w[2, 2] = math.cos(angle)
        c2w[0, 2], c2w[2, 0] = -math.sin(angle), math.sin(angle)
        c2w[:3, 3] = torch.tensor([step * i, 0.03 * i, 0.05 * i])
        poses.append(c2w)
    return torch.stack(poses)


def plane_clip(views: int = 8, size: int = 64, seed: int = 0, supersample: int = 3) -> Views:
    """Views of the two planes, with exact depth at the pixel centres."""
    cameras = Cameras.from_fov(path(views), 60.0, size, size)
    fine = cameras.resized(size * supersample, size * supersample)
    colour, _ = _cast(fine, seed)
    images = torch.nn.functional.avg_pool2d(colour, supersample)
    return Views(images, cameras, _cast(cameras, seed)[1])


def _cast(cameras: Cameras, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rays, centers = normalized_ray_z1(cameras), cameras.centers[:, None, None]
    out = []
    for plane in (FAR, NEAR):
        depth = (plane - centers[..., 2]) / rays[..., 2]
        out.append((depth, centers + depth[..., None] * rays))
    (far_depth, far_point), (near_depth, near_point) = out
    covered = near_point[..., 0] < EDGE
    colours = []
    for number, point in enumerate((far_point, near_point)):
        picture = texture(2 * seed + number).expand(len(cameras), -1, -1, -1)
        grid = point[..., :2] / 5.0
        colours.append(torch.nn.functional.grid_sample(picture, grid, align_corners=False, padding_mode="reflection"))
    images = torch.where(covered[:, None], colours[1], colours[0])
    return images, torch.where(covered, near_depth, far_depth)[:, None]
