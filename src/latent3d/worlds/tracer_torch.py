"""Tensor twin of `tracer`: the same pictures from the same tables on any device, all rays against all primitives.

Slow on a CPU, useful on an accelerator and as the check of the compiled loops. Letters: r rays, l lights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latent3d.worlds import shapes_torch as shapes
from latent3d.worlds import textures_torch as textures
from latent3d.worlds.tables import SUN, Scene

SURFACE_OFFSET = 1.5e-3
SAME_COLOUR, SAME_DEPTH, EDGE_DEPTH = 0.04, 0.02, 0.1
SHOULDER = 1.6
FAINT = 0.03
RAY_ORDER = (0, 3, 1, 2)
LIGHT_POINTS = ((-0.65, -0.25), (0.25, -0.65), (-0.25, 0.65), (0.65, 0.25))


@dataclass
class Samples:
    """One ray a pixel: z-depth (r,), primitive (r,), normal (r, 3), toned colour (r, 3), and what `shade` records.

    ``hidden``: occlusion (r,); ``visible``: (r, l) of each light; ``albedo``: with the highlight, (r, 3).
    """

    depth: Tensor
    primitive: Tensor
    normal: Tensor
    colour: Tensor
    hidden: Tensor
    visible: Tensor
    albedo: Tensor


class TorchTracer:
    """Tables of a scene on a device.

    Args:
        scene: packed tables.
        device, dtype: where and how to compute; float64 agrees with the compiled loops nearly everywhere.
        chunk: rays at a time.
    """

    def __init__(
        self, scene: Scene, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float64, chunk: int = 1 << 14
    ) -> None:
        tables = scene.primitives, scene.materials, scene.lights, scene.environment
        self.primitives, self.materials, self.lights, self.environment = (
            torch.as_tensor(table, dtype=dtype, device=device) for table in tables
        )
        self.chunk = chunk

    @torch.no_grad()
    def render(
        self,
        c2w: np.ndarray | Tensor,
        k: np.ndarray | Tensor,
        height: int,
        width: int,
        *,
        exposure: float = 1.0,
        supersample: int = 2,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Colours (V, H, W, 3) linear in [0, 1], z-depths (V, H, W) and normals (V, H, W, 3), as `Tracer.render`.

        Raises:
            ValueError: unless ``supersample`` is 1 or 2.
        """
        if supersample not in (1, 2):
            raise ValueError(f"supersample must be 1 or 2, not {supersample}; render larger and shrink for more")
        base = self.primitives
        poses = torch.as_tensor(c2w, dtype=base.dtype, device=base.device)
        lens = [float(k[0][0]), float(k[1][1]), float(k[0][2]), float(k[1][2])]
        rows, columns = torch.meshgrid(
            torch.arange(height, dtype=base.dtype, device=base.device),
            torch.arange(width, dtype=base.dtype, device=base.device),
            indexing="ij",
        )
        corner = torch.stack([columns, rows], -1).reshape(-1, 2)
        out = []
        for pose in poses:
            parts = [self._pixels(pose, lens, part, exposure, supersample) for part in corner.split(self.chunk)]
            out.append([torch.cat(items) for items in zip(*parts, strict=True)])
        colours, depths, normals = (torch.stack(items) for items in zip(*out, strict=True))
        return (
            colours.reshape(-1, height, width, 3),
            depths.reshape(-1, height, width),
            normals.reshape(-1, height, width, 3),
        )

    def _pixels(
        self, pose: Tensor, lens: list[float], corner: Tensor, exposure: float, supersample: int
    ) -> list[Tensor]:
        """Colour, depth and normal of pixels whose upper left corners are ``corner`` (r, 2)."""
        spread = 1.0 / max(lens[0], lens[1]) / supersample
        taken: list[Samples] = []
        for j in RAY_ORDER if supersample == 2 else (0,):
            jitter = (0.25 + 0.5 * (j & 1), 0.25 + 0.5 * (j >> 1)) if supersample == 2 else (0.5, 0.5)
            a = (corner[:, 0] + jitter[0] - lens[2]) / lens[0]
            b = (corner[:, 1] + jitter[1] - lens[3]) / lens[1]
            n = 1.0 / torch.sqrt(a * a + b * b + 1.0)
            d = torch.stack([a * n, b * n, n], -1) @ pose[:3, :3].T
            known = inherit(taken[0], taken[1]) if len(taken) >= 2 else None
            taken.append(self._rays(pose[:3, 3].expand_as(d), d, n, spread, j, exposure, known))
        return resolve(taken)

    def _rays(
        self,
        o: Tensor,
        d: Tensor,
        n: Tensor,
        spread: float,
        j: int,
        exposure: float,
        known: tuple[Tensor, Tensor, Tensor] | None,
    ) -> Samples:
        """Trace and shade one ray a pixel."""
        e = self.environment
        t, number = shapes.trace(self.primitives, o, d)
        away = o - e[18:21]
        b = (away * d).sum(-1)
        far = -b + torch.sqrt((b * b - (away * away).sum(-1) + e[17] * e[17]).clamp(min=0.0))
        number = torch.where(t > far, torch.full_like(number, -1), number)
        sky = number < 0
        t = torch.where(sky, far, t)
        points = o + t[:, None] * d
        inward = (e[18:21] - points) / e[17]
        normal, colour = inward.clone(), torch.zeros_like(d)
        hidden = torch.zeros_like(t)
        visible = torch.zeros(len(t), len(self.lights), dtype=t.dtype, device=t.device)
        albedo = torch.zeros_like(d)
        if bool(sky.any()):
            colour[sky] = textures.dome_colour(e, -inward[sky], spread)
            albedo[sky] = colour[sky]
        at = (~sky).nonzero()[:, 0]
        if len(at):
            given = None
            if known is not None:
                same = known[0][at] == number[at]
                given = (
                    torch.where(same, known[1][at], torch.full_like(known[1][at], -1.0)),
                    torch.where(same[:, None], known[2][at], torch.full_like(known[2][at], -1.0)),
                )
            facing, u, v = shapes.surface(self.primitives, number[at], points[at], d[at])
            slant = (-(facing * d[at]).sum(-1)).clamp(min=0.15)
            w = t[at] * spread / torch.sqrt(slant)
            rgb, normal[at] = (
                self._shade(number[at], points[at], facing, u, v, w, d[at], j, given, hidden, visible, albedo, at),
                facing,
            )
            haze = (1.0 - torch.exp(-e[29] * t[at]))[:, None]
            colour[at] = rgb + haze * (e[3:6] - rgb)
        x = colour * exposure
        toned = (x * (1.0 + x / (SHOULDER * SHOULDER)) / (1.0 + x)).clamp(max=1.0)
        return Samples(t * n, number, normal, toned, hidden, visible, albedo)

    def _shade(self, number, points, normal, u, v, w, d, j, given, hidden, visible, albedo, at) -> Tensor:
        """Linear colour (r, 3) of surface points; fills the records at rows ``at``."""
        e = self.environment
        m = self.materials[self.primitives[number, 19].long()]
        paint = textures.surface_colour(m, u, v, w)
        bump = textures.bumped(m, u, v, w, normal)
        start = points + SURFACE_OFFSET * normal
        glowing = m[:, 21] > 0.0
        shut = self._occlusion(start, normal, j)
        if given is not None:
            shut = torch.where(given[0] >= 0.0, given[0], shut)
        up = (0.5 + 0.5 * bump[:, 2:]).clamp(max=1e9)
        colour = paint * (e[24:27] + (e[21:24] - e[24:27]) * up) * (1.0 - e[27] * shut)[:, None]
        seen, shine_total = torch.zeros_like(visible[at]), torch.zeros_like(u)
        for q, light in enumerate(self.lights):
            gain, shine, ok = self._light(
                light, start, normal, bump, d, m, j, None if given is None else given[1][:, q]
            )
            seen[:, q] = ok.to(u.dtype)
            shine_total = shine_total + torch.where(ok, shine, torch.zeros_like(shine))
            lit = (paint + shine[:, None]) * light[10:13] * gain[:, None]
            colour = colour + torch.where(ok[:, None], lit, torch.zeros_like(lit))
        hidden[at] = torch.where(glowing, torch.zeros_like(shut), shut)
        visible[at] = torch.where(glowing[:, None], torch.zeros_like(seen), seen)
        albedo[at] = torch.where(glowing[:, None], paint, paint + shine_total[:, None])
        return torch.where(glowing[:, None], paint * m[:, 21:22], colour)

    def _light(self, light, start, normal, bump, d, m, j, known) -> tuple[Tensor, Tensor, Tensor]:
        """Geometric factor (r,), highlight (r,) and visibility (r,) of one light."""
        e = self.environment
        ca, cb = LIGHT_POINTS[j]
        aim = light[1:4] + ca * light[4:7] + cb * light[7:10]
        to, power, limit = aim.expand_as(start), torch.ones_like(start[:, 0]), torch.full_like(start[:, 0], shapes.MISS)
        if int(light[0]) != SUN:
            to = aim - start
            square = (to * to).sum(-1)
            limit, power = torch.sqrt(square), 1.0 / (0.3 + square)
        to = to / torch.sqrt((to * to).sum(-1, keepdim=True) + 1e-12)
        facing = (to * bump).sum(-1)
        ok = (facing > 0.0) & ((to * normal).sum(-1) > 0.0)
        power = power * facing
        check = ok & (power * light[10:13].sum() > FAINT * e[21:24].sum())
        if known is not None:
            check = check & (known < 0.0)
            ok = ok & (known != 0.0)
        if float(light[13]) > 0.0 and bool(check.any()):
            at = check.nonzero()[:, 0]
            t, _ = shapes.trace(self.primitives, start[at], to[at], shadow=True)
            ok[at] = t >= limit[at] - 2.0 * SURFACE_OFFSET
        half = to - d
        cosine = (half * bump).sum(-1) / torch.sqrt((half * half).sum(-1) + 1e-12)
        shine = m[:, 19] * torch.exp(m[:, 20] * torch.log(cosine.clamp(min=1e-30))) * (0.3 + 0.08 * m[:, 20])
        return power, torch.where((m[:, 19] > 0.0) & (cosine > 0.0), shine, torch.zeros_like(shine)), ok

    def _occlusion(self, start: Tensor, normal: Tensor, j: int) -> Tensor:
        """Nearness (r,) of the first obstacle along direction j about the normal."""
        e = self.environment
        if float(e[27]) <= 0.0:
            return torch.zeros_like(start[:, 0])
        nx, ny, nz = normal.unbind(-1)
        s = torch.where(nz >= 0.0, 1.0, -1.0).to(nz.dtype)
        a = -1.0 / (s + nz)
        b = nx * ny * a
        angle = 0.7 + 1.5707963 * (j if j < 2 else 5 - j)
        c, f = 0.75 * math.cos(angle), 0.75 * math.sin(angle)
        one = torch.stack([1.0 + s * nx * nx * a, s * b, -s * nx], -1)
        two = torch.stack([b, s + ny * ny * a, -ny], -1)
        t, _ = shapes.trace(self.primitives, start, one * c + two * f + 0.6614378 * normal)
        return torch.where(t < e[28], 1.0 - t / e[28], torch.zeros_like(t))


def inherit(first: Samples, second: Samples) -> tuple[Tensor, Tensor, Tensor]:
    """Primitive (-2: none), occlusion and light visibilities (-1: unknown) that the later rays of a pixel reuse."""
    same = torch.where(first.primitive == second.primitive, first.primitive, torch.full_like(first.primitive, -2))
    same = torch.where(same < 0, torch.full_like(same, -2), same)
    agreed = torch.where(first.visible == second.visible, first.visible, torch.full_like(first.visible, -1.0))
    return same, 0.5 * (first.hidden + second.hidden), agreed


def differ(a: Samples, b: Samples) -> Tensor:
    """Whether the first two rays of each pixel call for two more; see `tracer.differ`."""
    out = (a.primitive != b.primitive) | ((a.depth - b.depth).abs() > SAME_DEPTH * (a.depth + b.depth))
    out = out | ((a.normal * b.normal).sum(-1) < 0.97) | (a.visible != b.visible).any(-1)
    return out | ((a.albedo - b.albedo).abs() > SAME_COLOUR * (a.albedo + b.albedo) + 0.002).any(-1)


def resolve(taken: list[Samples]) -> list[Tensor]:
    """Pixel colour, depth and normal from one or four rays; see `tracer.resolve_depth`."""
    use = torch.ones(len(taken), len(taken[0].depth), dtype=torch.bool, device=taken[0].depth.device)
    if len(taken) == 4:
        use[2:] = differ(taken[0], taken[1])
    weight = use.to(taken[0].depth.dtype)
    depth, normal = torch.stack([s.depth for s in taken]), torch.stack([s.normal for s in taken])
    colour = (torch.stack([s.colour for s in taken]) * weight[..., None]).sum(0) / weight.sum(0)[:, None]
    hidden_far = torch.where(use, depth, torch.full_like(depth, shapes.MISS)).sort(0).values
    nearest, farthest = hidden_far[0], torch.where(use, depth, torch.zeros_like(depth)).amax(0)
    chosen = hidden_far[1] if len(taken) > 1 else nearest
    mean = weight.sum(0) / (weight / depth).sum(0)
    chosen = torch.where(farthest - nearest < EDGE_DEPTH * nearest, mean, chosen)
    near = (use & ((depth - chosen).abs() <= EDGE_DEPTH * chosen)).to(depth.dtype)
    total = (normal * near[..., None]).sum(0)
    return [colour, chosen, total / total.norm(dim=-1, keepdim=True)]
