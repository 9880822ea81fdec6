"""Cameras drawn from a seed, all looking roughly at (0, 0, 4) from near the origin."""

import pytest
import torch

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.rotations import look_at


@pytest.fixture
def draw_cameras():
    def draw(*shape, seed=0, height=24, width=32, fov=65.0, dtype=torch.float64):
        generator = torch.Generator().manual_seed(seed)
        eye = 0.4 * torch.randn(*shape, 3, generator=generator, dtype=dtype)
        focus = 0.3 * torch.randn(*shape, 3, generator=generator, dtype=dtype) + torch.tensor([0, 0, 4.0], dtype=dtype)
        cameras = Cameras.from_fov(look_at(eye, focus), fov, height, width)
        cameras.k[..., :2, 2] += torch.randn(*shape, 2, generator=generator, dtype=dtype)
        return cameras

    return draw
