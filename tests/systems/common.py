"""Small scenes and small systems for the tests of `latent3d.systems`."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.rotations import from_rotation_vector, quaternion_to_matrix
from latent3d.presets import ggs_rooms_tiny
from latent3d.representations.views import Views
from latent3d.systems.ggs import GGSConfig, GGSSystem

SIZE = 32


def walk_cameras(count: int, size: int = SIZE, step: float = 0.15, fov: float = 70.0, dtype=torch.float32) -> Cameras:
    """Cameras that sidestep to the right and turn a little; the first is the identity."""
    c2w = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    for index in range(count):
        angle = torch.tensor([0.0, -0.04 * index, 0.01 * index], dtype=torch.float64)
        c2w[index, :3, :3] = quaternion_to_matrix(from_rotation_vector(angle))
        c2w[index, :3, 3] = step * index * torch.tensor([1.0, 0.1, 0.2])
    return Cameras.from_fov(c2w, fov, size, size).to(dtype)


def batched(cameras: Cameras, scenes: int = 1) -> Cameras:
    """(m,) -> (scenes, m), every scene with the same cameras."""
    return dataclasses.replace(
        cameras,
        w2c=cameras.w2c.expand(scenes, *cameras.w2c.shape).clone(),
        k=cameras.k.expand(scenes, *cameras.k.shape).clone(),
    )


def smooth_images(count: int, size: int = SIZE) -> Tensor:
    """Smooth pictures in [0.1, 0.9], each different, (count, 3, size, size)."""
    axis = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    waves = [
        torch.sin(2 * math.pi * (x * (1 + c) + 0.3 * n)) * torch.cos(2 * math.pi * (y * (2 - c) + 0.2 * n))
        for n in range(count)
        for c in range(3)
    ]
    return (0.5 + 0.4 * torch.stack(waves)).reshape(count, 3, size, size)


def scene_views(count: int, scenes: int = 2) -> Views:
    """A batch (scenes, count) of pictures with depths and cameras; not a consistent world, but a complete batch."""
    images = smooth_images(scenes * count).unflatten(0, (scenes, count))
    depths = 1.5 + images.mean(2, keepdim=True)
    return Views(images, batched(walk_cameras(count), scenes), depths)


def ramp_image(size: int = SIZE) -> Tensor:
    """Colours that change slowly from side to side and from top to bottom, (1, 3, size, size)."""
    axis = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y, 1 - x])[None]


def tiny_config(kind: str = "transformer", **changes) -> GGSConfig:
    """The system of the tiny preset, with some fields changed."""
    config = ggs_rooms_tiny(kind).system
    assert isinstance(config, GGSConfig)
    return config.replace(**changes)


def tiny_system(kind: str = "transformer", seed: int = 0, **changes) -> GGSSystem:
    torch.manual_seed(seed)
    return tiny_config(kind, **changes).build()


def shaken(network: nn.Module, amount: float = 0.05, seed: int = 1) -> nn.Module:
    """Noise on every parameter, so that zero-initialised branches take part."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator))
    return network


def rigid(seed: int = 3, dtype=torch.float32) -> Tensor:
    """A rigid transform, (4, 4), far from the identity."""
    generator = torch.Generator().manual_seed(seed)
    pose = torch.eye(4, dtype=torch.float64)
    turn = torch.randn(3, generator=generator, dtype=torch.float64)
    pose[:3, :3] = quaternion_to_matrix(from_rotation_vector(turn))
    pose[:3, 3] = torch.randn(3, generator=generator, dtype=torch.float64)
    return pose.to(dtype)


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b).detach().square().mean()))
