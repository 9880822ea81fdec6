"""The display filter: known widths, and no gaps when the picture is enlarged."""

from __future__ import annotations

import torch

from latent3d.geometry.cameras import Cameras
from latent3d.rendering.smoothing import smoothed
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians


def wall(size: int = 16, depth: float = 2.0) -> tuple[Gaussians, Cameras]:
    cameras = Cameras.from_fov(torch.eye(4)[None], 60.0, size, size)
    focal = float(cameras.k[0, 0, 0])
    axis = (torch.arange(size) + 0.5 - size / 2) / focal * depth
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    means = torch.stack([x, y, torch.full_like(x, depth)], -1).reshape(-1, 3)
    count = len(means)
    splats = Gaussians(
        means=means,
        quaternions=torch.tensor([1.0, 0, 0, 0]).expand(count, 4),
        scales=torch.full((count, 3), 0.1 * depth / focal),
        opacities=torch.full((count,), 0.95),
        colors=torch.ones(count, 3),
    )
    return splats, cameras


def test_width_is_the_finest_pixels_footprint():
    splats, cameras = wall()
    focal = float(cameras.k[0, 0, 0])
    expected = ((0.1 * 2 / focal) ** 2 + 0.3 * (2 / focal) ** 2) ** 0.5
    torch.testing.assert_close(smoothed(splats, cameras).scales, torch.full_like(splats.scales, expected))
    nearer = torch.eye(4)
    nearer[2, 3] = 1.0
    both = Cameras.cat([cameras, Cameras.from_fov(nearer[None], 60.0, 16, 16)])
    middle = smoothed(splats, both).scales.reshape(16, 16, 3)[8, 8, 0]
    torch.testing.assert_close(middle, torch.tensor(((0.1 * 2 / focal) ** 2 + 0.3 * (1 / focal) ** 2) ** 0.5))


def test_enlarged_pictures_have_no_gaps():
    splats, cameras = wall()
    large = cameras.resized(96, 96)
    inner = (slice(None), slice(None), slice(12, -12), slice(12, -12))
    assert render_gaussians(splats, large).alpha[inner].min() < 0.3
    assert render_gaussians(smoothed(splats, cameras), large).alpha[inner].min() > 0.7
