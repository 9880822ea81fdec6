"""Small scenes, and one function that renders them and returns values and gradients by name."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import torch
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.rendering.base import ALPHA_MAX, ALPHA_MIN, LOW_PASS_PX, NEAR
from latent3d.rendering.projection import project_splats
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians

BACKENDS = ("torch", "numba")


def front_camera(size: int = 9, focal: float = 20.0, views: int = 1, dtype=torch.float64) -> Cameras:
    """Cameras at the origin that look along +z; the optical axis meets the centre of the middle pixel (odd size)."""
    k = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]], dtype=dtype)
    return Cameras(torch.eye(4, dtype=dtype).repeat(views, 1, 1), k.repeat(views, 1, 1), size, size)


def ring_cameras(views: int, height: int, width: int, distance: float = 3.2) -> Cameras:
    """Cameras on a ring around the origin, principal point off the centre, unequal focal lengths."""
    focal = 0.5 * width / math.tan(math.radians(25))
    w2c = torch.eye(4, dtype=torch.float64).repeat(views, 1, 1)
    for view in range(views):
        angle = 2 * math.pi * view / views + 0.3
        c, s = math.cos(angle), math.sin(angle)
        w2c[view, :3, :3] = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=torch.float64)
        w2c[view, 2, 3] = distance
    k = torch.tensor([[focal, 0, width / 2 + 0.7], [0, 1.1 * focal, height / 2 - 0.4], [0, 0, 1]], dtype=torch.float64)
    return Cameras(w2c, k.repeat(views, 1, 1), height, width)


def cloud(
    count: int,
    cameras: Cameras,
    *,
    channels: int = 2,
    colors: bool = True,
    harmonics: int = 0,
    sigma: float = 1.5,
    opacity_bias: float = 0.0,
    spread: float = 1.0,
    seed: int = 0,
) -> Gaussians:
    """Random splats around the origin, about ``sigma`` pixels wide from the ring's distance."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    width = sigma * 3.2 / float(cameras.k[0, 0, 0])
    return Gaussians(
        means=(torch.rand(count, 3, generator=g, dtype=torch.float64) * 2 - 1) * spread,
        quaternions=normal(count, 4),
        scales=width * torch.exp(0.4 * normal(count, 3)),
        opacities=torch.sigmoid(1.5 * normal(count) + opacity_bias),
        colors=torch.rand(count, 3, generator=g, dtype=torch.float64) if colors else None,
        features=normal(count, channels) if channels else None,
        harmonics=0.1 * normal(count, harmonics, 3) if harmonics else None,
    )


def splats_on_axis(depths: list[float], opacities: list[float], scale: float = 0.2, dtype=torch.float64) -> Gaussians:
    """Round splats on the optical axis of `front_camera`, one feature channel that is 1, 10, 100, ..."""
    count = len(depths)
    means = torch.zeros(count, 3, dtype=dtype)
    means[:, 2] = torch.tensor(depths, dtype=dtype)
    quaternions = torch.zeros(count, 4, dtype=dtype)
    quaternions[:, 0] = 1
    return Gaussians(
        means=means,
        quaternions=quaternions,
        scales=torch.full((count, 3), scale, dtype=dtype),
        opacities=torch.tensor(opacities, dtype=dtype),
        features=(10.0 ** torch.arange(count, dtype=dtype))[:, None],
    )


def values_and_gradients(
    gaussians: Gaussians, cameras: Cameras, backend: str, *, camera_gradients: bool = False, **options
) -> dict[str, Tensor]:
    """Outputs, and gradients ("d_means", ...) of a fixed random linear function of all outputs."""
    leaves = {}
    for field in fields(gaussians):
        if getattr(gaussians, field.name) is not None:
            leaves[field.name] = getattr(gaussians, field.name).clone().requires_grad_()
    gaussians = replace(gaussians, **leaves)
    if camera_gradients:
        leaves["w2c"], leaves["k"] = (t.clone().requires_grad_() for t in (cameras.w2c, cameras.k))
        cameras = replace(cameras, w2c=leaves["w2c"], k=leaves["k"])
    rendering = render_gaussians(gaussians, cameras, backend=backend, **options)
    outputs = {f.name: getattr(rendering, f.name) for f in fields(rendering) if getattr(rendering, f.name) is not None}
    g = torch.Generator().manual_seed(1)
    loss = sum(
        (out * torch.randn(out.shape, generator=g, dtype=torch.float64).to(out)).sum() for out in outputs.values()
    )
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    results = {name: out.detach() for name, out in outputs.items()}
    return results | {f"d_{name}": gradient for name, gradient in zip(leaves, gradients, strict=True)}


def clear_of_thresholds(gaussians: Gaussians, cameras: Cameras, **options) -> Gaussians:
    """Without the splats whose alpha, at any pixel, is so near to 1/255 or 0.99 that rounding to float32 decides."""
    settings = {"low_pass": LOW_PASS_PX, "near": NEAR, "antialiased": False} | options
    geometry = (gaussians.means, gaussians.quaternions, gaussians.scales, gaussians.opacities)
    seen = project_splats(*geometry, cameras.w2c, cameras.k, cameras.height, cameras.width, **settings)
    rows, columns = (torch.arange(size, dtype=torch.float64) + 0.5 for size in (cameras.height, cameras.width))
    dx = seen.means[..., 0, None, None] - columns
    dy = (seen.means[..., 1, None] - rows)[..., None]
    a, b, c = (value[..., None, None] for value in seen.conics.unbind(-1))
    alpha = seen.opacities[..., None, None] * torch.exp(-(a * dx**2 + c * dy**2) / 2 - b * dx * dy)
    close = ((alpha / ALPHA_MIN - 1).abs() < 1e-4) | ((alpha / ALPHA_MAX - 1).abs() < 1e-5)
    return gaussians[~(close.any(-1).any(-1) & seen.visible).any(0)]


def relative_errors(found: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, float]:
    """Largest difference over largest true value, by name (l-infinity, so that zeros are compared too)."""
    assert found.keys() == truth.keys()
    errors = {}
    for name, true in truth.items():
        largest = true.abs().max().item() if true.numel() else 0.0
        difference = (found[name].double() - true.double()).abs().max().item() if true.numel() else 0.0
        errors[name] = difference / largest if largest > 0 else difference
    return errors
