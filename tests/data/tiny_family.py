"""A tiny world family for tests, importable by workers: a flat wall seen by cameras that walk sideways."""

import torch

from latent3d.geometry.cameras import Cameras
from latent3d.representations.views import Views


def sample_wall(family, split, index, *, num_views=8, height=128, width=128, extra_views=0):
    """V + J views of a wall at depth 2 to 3; every pixel is a function of (index, frame)."""
    generator = torch.Generator().manual_seed(index)
    frames = num_views + extra_views
    colour = torch.rand(3, generator=generator)
    ramp = torch.linspace(0, 0.3, width).expand(frames, 3, height, width)
    shade = torch.arange(frames).view(-1, 1, 1, 1) / 100
    images = (colour[:, None, None] * 0.5 + ramp + shade).clamp(0, 1)
    depth = 2 + torch.rand(1, generator=generator)
    c2w = torch.eye(4).repeat(frames, 1, 1)
    c2w[:, 0, 3] = torch.arange(frames) * 0.1
    cameras = Cameras.from_fov(c2w, 60.0, height, width)
    return Views(images=images, cameras=cameras, depths=depth.expand(frames, 1, height, width).clone())
