"""Tensor twin of `textures` and of the bumps in `shading`, for whole sets of surface points on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from latent3d.worlds import patterns as tx
from latent3d.worlds.noise_torch import clamp01, octaves, ramp_edge
from latent3d.worlds.patterns_torch import PATTERNS, books


def surface_colour(materials: Tensor, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """Linear albedo (n, 3) of n surface points; ``materials``: (n, 24) rows; see `textures.surface_colour`."""
    kinds, inverse, seed = materials[:, 0].long(), 1.0 / materials[:, 10], materials[:, 13].long()
    x = (materials[:, 11] * u + materials[:, 12] * v) * inverse
    y = (materials[:, 11] * v - materials[:, 12] * u) * inverse
    fw = (w * inverse).clamp(min=1e-5)
    weights = torch.zeros(len(u), 3, dtype=u.dtype, device=u.device)
    shelves = torch.zeros(len(u), 3, dtype=u.dtype, device=u.device)
    for kind in kinds.unique().tolist():
        at = (kinds == kind).nonzero()[:, 0]
        if kind == tx.BOOKS:
            row = materials[at]
            shelves[at] = books(x[at], v[at] / row[:, 16], fw[at], seed[at], row[:, 1:4])
            continue
        found = PATTERNS[kind](x[at], y[at], fw[at], seed[at], materials[at, 15], materials[at, 16])
        weights[at] = torch.stack([part.to(u.dtype) for part in found], -1)
    contrast = materials[:, 14]
    kb, kc = clamp01(weights[:, 0]) * contrast, clamp01(weights[:, 1]) * contrast
    gain = 1.0 + weights[:, 2] * contrast
    gain = gain + materials[:, 17] * octaves(23.0 * u, 23.0 * v, seed + 71, 23.0 * w, 3, 0.95)
    gain = gain + materials[:, 18] * octaves(1.3 * u, 1.3 * v, seed + 83, 1.3 * w, 5, 0.9)
    kb, kc = kb[:, None], kc[:, None]
    rgb = (materials[:, 1:4] * (1.0 - kb) + materials[:, 4:7] * kb) * (1.0 - kc) + materials[:, 7:10] * kc
    rgb = clamp01(rgb * gain.clamp(min=0.05)[:, None])
    return torch.where((kinds == tx.BOOKS)[:, None], shelves, rgb)


def dome_colour(environment: Tensor, d: Tensor, w: float) -> Tensor:
    """Radiance (n, 3) of the dome in unit directions ``d`` (n, 3); see `textures.dome_colour`."""
    e = environment
    seed = torch.full((len(d),), int(e[16]), dtype=torch.long, device=d.device)
    dx, dy, dz = d.unbind(-1)
    flat = 1.0 / torch.sqrt(dx * dx + dy * dy + 1e-9)
    cx, cy = dx * flat, dy * flat
    foot = torch.full_like(dx, w)
    hill = e[31] * (0.6 + 1.2 * octaves(3.0 * cx, 3.0 * cy, seed + 3, 3.0 * foot, 5, 0.6))
    height = torch.asin(dz.clamp(-1.0, 1.0))
    rgb = e[3:6] + (e[0:3] - e[3:6]) * torch.sqrt(dz.clamp(min=0.0))[:, None]
    glow = (d @ e[9:12]).clamp(min=0.0) ** 8
    rgb = rgb + e[12:15] * glow[:, None]
    s = 1.0 / (e[30] * (dz.clamp(min=0.0) + 0.12))
    cloud = clamp01(e[15] + 1.6 * octaves(dx * s, dy * s, seed + 9, foot * s / (dz.clamp(min=0.0) + 0.12), 5, 0.65))
    cloud = torch.where((dz > 0.0) & (e[15] > 0.0), cloud, torch.zeros_like(cloud))[:, None]
    rgb = rgb + cloud * (1.1 * e[3:6].max() - rgb)
    land = ramp_edge(hill - height, max(2.0 * w, 1e-4))[:, None]
    speck = 1.0 + 0.9 * octaves(12.0 * cx, 12.0 * cy + 25.0 * height, seed + 21, 25.0 * foot, 4, 0.8)
    far = torch.where(height > 0.0, 0.3, 0.3 * torch.exp(6.0 * height.clamp(max=0.0)))[:, None]
    ground = (e[6:9] * (1.0 - far) + e[3:6] * far) * speck.clamp(min=0.2)[:, None]
    return rgb + land * (ground - rgb)


def bumped(materials: Tensor, u: Tensor, v: Tensor, w: Tensor, normal: Tensor) -> Tensor:
    """Normals (n, 3) tilted by noise; see `tracer.bumped`."""
    seed, s, bump = materials[:, 13].long(), 6.0 / materials[:, 10], 1.6 * materials[:, 22]
    tilt = torch.stack([octaves(s * u, s * v, seed + start, s * w, 2, 0.8) for start in (101, 111, 121)], -1)
    tilted = normal + bump[:, None] * tilt
    tilted = tilted / torch.sqrt((tilted * tilted).sum(-1, keepdim=True) + 1e-12)
    return torch.where((bump > 0.0)[:, None], tilted, normal)
