"""Rays through a tri-plane field in one compiled loop: samples, features, network and compositing of few rays at once.

The same as `volume.render_rays` computes without jitter, step by step for `RAYS` rays: even samples are asked for,
importance samples are drawn, both are put in order, and what is new is asked for. What a step asks for is packed into
tiles of 16 points, so the network always works on full tiles, and nothing of it is ever written to memory.

Letters: B objects, R rays, S samples, K colours, G cells of the occupancy grid along each axis.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from latent3d.rendering.ray_samples import LEAST_ALPHA, LEAST_WEIGHT, RayRendering
from latent3d.rendering.splats_numba_lanes import LANES, exponential, jit
from latent3d.rendering.threads import run_shares, thread_count
from latent3d.rendering.triplane_network_numba import Network, new_tile, read_features, run_network
from latent3d.rendering.triplane_numba import AXES

RAYS = 32
"""Rays that are worked on together."""
LEAST_MASS = np.float32(LEAST_WEIGHT)


def march(
    table: Tensor,
    half_size: float,
    network: Network,
    rays: tuple[Tensor, Tensor, Tensor, Tensor],
    cells: Tensor,
    limit: float,
    block: int,
    counts: tuple[int, int],
    background: float,
) -> RayRendering:
    """What rays see.

    Args:
        table: of the planes, (B, 3, H, W, C).
        half_size: half the side of the box.
        network: of the field.
        rays: origins and directions (B, R, 3), and the part inside the box, near and far (B, R).
        cells: where the field is asked, (B, G, G, G).
        limit: optical depth at which a ray ends.
        block: samples between two looks at whether it has.
        counts: even samples and importance samples.
        background: behind everything.
    """
    origins, directions, near, far = (part.detach().contiguous() for part in rays)
    batch, count = near.shape
    samples = sum(counts)
    found = [torch.empty(batch, count, network.formulas.channels), *(torch.empty(batch, count) for _ in range(3)),
             *(torch.zeros(batch, count, samples) for _ in range(3))]  # fmt: skip
    groups = batch * -(-count // RAYS)
    run_shares(
        march_share, max(1, min(thread_count(), groups)), table.detach().contiguous().numpy(), np.float32(half_size),
        AXES, network, origins.numpy(), directions.numpy(), near.numpy(), far.numpy(),
        cells.contiguous().numpy(), np.float32(limit), block, *counts, np.float32(background),
        *(part.numpy() for part in found),
    )  # fmt: skip
    return RayRendering(*found)


@jit()
def march_share(
    share, shares, table, half, axes, network, origins, directions, near, far, cells, limit, block, coarse, fine,
    background, rgb, distance, distance_sum, alpha, weights, samples, widths,
):  # fmt: skip
    """Every ``shares``-th group of rays."""
    batch, count = near.shape
    total, channels = coarse + fine, network.formulas.channels
    flat, size = table.reshape(-1), (table.shape[2], table.shape[3], table.shape[4])
    length = 3 * size[0] * size[1] * size[2]
    scratch = new_tile(network), np.empty((RAYS * block, 2), np.int64), np.empty(RAYS, np.float32)
    even = _answers(coarse, channels)
    every = _answers(total, channels)
    cumulated, further = np.empty(coarse + 1, np.float32), np.empty(fine, np.float32)
    groups = (count + RAYS - 1) // RAYS
    for group in range(share, batch * groups, shares):
        b, first = group // groups, group % groups * RAYS
        rays = (origins[b, first:], directions[b, first:], near[b, first:], far[b, first:])
        some = min(RAYS, count - first)
        active = np.zeros(RAYS, np.bool_)
        for r in range(some):
            active[r] = _spread(r, rays, half, cells[b], coarse, even)
        answers = even
        for step in range(2 if fine else 1):
            if step:
                answers = every
                for r in range(some):
                    if active[r]:
                        _draw(even[0][r], even[1][r], rays[2][r], rays[3][r], cumulated, further)
                        _merge(r, rays, half, cells[b], coarse, fine, further, even, every)
            _ask(some, active, rays, half, limit, block, answers, flat, b * length, size, axes, network, scratch)
        for r in range(some):
            n = first + r
            for c in range(rgb.shape[2]):
                rgb[b, n, c] = background
            distance[b, n] = distance_sum[b, n] = alpha[b, n] = np.float32(0)
            if active[r]:
                t, density, colors = answers[0][r], answers[1][r], answers[2][r]
                parts = (weights[b, n], samples[b, n], widths[b, n])
                remaining, along = _composite(t, density, colors, rays[2][r], rays[3][r], rgb[b, n], background, parts)
                alpha[b, n], distance_sum[b, n] = np.float32(1) - remaining, along
                distance[b, n] = along / max(alpha[b, n], np.float32(LEAST_ALPHA))


@jit()
def _answers(count, channels):
    """Of each ray's samples: distances, densities, colours, and whether nothing is left to ask."""
    return (
        np.empty((RAYS, count), np.float32), np.empty((RAYS, count), np.float32),
        np.empty((RAYS, count, channels), np.float32), np.empty((RAYS, count), np.bool_),
    )  # fmt: skip


@jit()
def _at(r, rays, half, t, axis):
    """A coordinate of the point at distance t of a ray, in [-1, 1]."""
    place = rays[0][r, axis] + t * rays[1][r, axis]
    return min(max(place, -half), half) / half


@jit()
def _occupied(r, rays, half, t, cells):
    count = cells.shape[0]
    scale, one = np.float32(count / 2), np.float32(1)
    x = min(int((_at(r, rays, half, t, 0) + one) * scale), count - 1)
    y = min(int((_at(r, rays, half, t, 1) + one) * scale), count - 1)
    z = min(int((_at(r, rays, half, t, 2) + one) * scale), count - 1)
    return cells[x, y, z]


@jit()
def _edge(t, i, near, far):
    """Where the part of the ray that the i-th sample stands for begins."""
    if i == 0:
        return near
    return far if i == t.size else (t[i] + t[i - 1]) / np.float32(2)


@jit()
def _spread(r, rays, half, cells, count, answers):
    """Even samples of a ray; whether any is worth asking."""
    t, density, colors, done = answers[0][r], answers[1][r], answers[2][r], answers[3][r]
    near, far = rays[2][r], rays[3][r]
    if not far > near:
        return False
    wanted = False
    for s in range(count):
        t[s] = near + (far - near) * ((np.float32(s) + np.float32(0.5)) / np.float32(count))
        density[s], colors[s] = np.float32(0), np.float32(0)
        done[s] = not _occupied(r, rays, half, t[s], cells)
        wanted |= not done[s]
    return wanted


@jit()
def _ask(some, active, rays, half, limit, block, answers, flat, base, size, axes, network, scratch):
    """Fill in what is not known, block of samples by block, as long as rays have not ended."""
    samples, density, colors, done = answers
    tile, owners, optical = scratch
    count = samples.shape[1]
    values, positions, channels = tile[0], tile[2], network.formulas.channels
    optical[:] = 0
    for start in range(0, count, block):
        end, asked = min(start + block, count), 0
        for r in range(some):
            if not active[r] or optical[r] >= limit:
                continue
            for s in range(start, end):
                if not done[r, s]:
                    owners[asked, 0], owners[asked, 1] = r, s
                    done[r, s] = True
                    asked += 1
        for first in range(0, asked, LANES):
            lanes = min(LANES, asked - first)
            for lane in range(lanes):
                r, s = owners[first + lane, 0], owners[first + lane, 1]
                for axis in range(3):
                    positions[axis * LANES + lane] = _at(r, rays, half, samples[r, s], axis)
            read_features(tile, flat, base, size, axes, lanes)
            out = run_network(network, values)
            for lane in range(lanes):
                r, s = owners[first + lane, 0], owners[first + lane, 1]
                density[r, s] = values[out + lane]
                for c in range(channels):
                    colors[r, s, c] = values[out + (1 + c) * LANES + lane]
        for r in range(some):
            if active[r]:
                t, near, far = samples[r], rays[2][r], rays[3][r]
                for s in range(start, end):
                    optical[r] += density[r, s] * (_edge(t, s + 1, near, far) - _edge(t, s, near, far))


@jit()
def _draw(t, density, near, far, cumulated, further):
    """`ray_samples.importance` of even samples."""
    count = t.size
    weights = np.empty(count, np.float32)
    remaining, through = np.float32(1), 0.0
    for s in range(count):
        through += density[s] * (_edge(t, s + 1, near, far) - _edge(t, s, near, far))
        left = exponential(np.float32(-through)) if density[s] > 0 else remaining
        weights[s] = remaining - left
        remaining = left
    total = 0.0
    cumulated[0] = np.float32(0)
    for s in range(count):
        here = weights[s]
        before, after = max(here, weights[max(s - 1, 0)]), max(here, weights[min(s + 1, count - 1)])
        total += (before + after) / np.float32(2) + LEAST_MASS
        cumulated[s + 1] = np.float32(total)
    part = 0
    for j in range(further.size):
        wanted = (np.float32(j) + np.float32(0.5)) / np.float32(further.size) * cumulated[count]
        while part < count - 1 and cumulated[part + 1] <= wanted:
            part += 1
        mass = cumulated[part + 1] - cumulated[part]
        share = min(max((wanted - cumulated[part]) / mass, np.float32(0)), np.float32(1))
        left, right = _edge(t, part, near, far), _edge(t, part + 1, near, far)
        further[j] = left + (right - left) * share


@jit()
def _merge(r, rays, half, cells, coarse, fine, further, even, every):
    """Even and importance samples of a ray in order; the latter are yet to be asked for where the grid is occupied."""
    t, density, colors, done = every[0][r], every[1][r], every[2][r], every[3][r]
    i = j = 0
    for s in range(coarse + fine):
        if j == fine or (i < coarse and even[0][r, i] <= further[j]):
            t[s], density[s], done[s] = even[0][r, i], even[1][r, i], even[3][r, i]
            for c in range(colors.shape[1]):  # an assignment of arrays would take a second to compile
                colors[s, c] = even[2][r, i, c]
            i += 1
        else:
            t[s], density[s] = further[j], np.float32(0)
            for c in range(colors.shape[1]):
                colors[s, c] = np.float32(0)
            done[s] = not _occupied(r, rays, half, t[s], cells)
            j += 1


@jit()
def _composite(t, density, colors, near, far, rgb, background, parts):
    """Fill in a ray's colour and its samples' weights, distances and widths; what is left of the light, sum(w t)."""
    weights, samples, widths = parts
    remaining, through, along = np.float32(1), 0.0, np.float32(0)
    for c in range(rgb.size):
        rgb[c] = np.float32(0)
    for s in range(t.size):
        samples[s], widths[s] = t[s], _edge(t, s + 1, near, far) - _edge(t, s, near, far)
        if density[s] > 0:
            through += density[s] * widths[s]
            left = exponential(np.float32(-through))
            weights[s] = remaining - left
            remaining = left
            along += weights[s] * t[s]
            for c in range(rgb.size):
                rgb[c] += weights[s] * colors[s, c]
    for c in range(rgb.size):
        rgb[c] += remaining * background
    return remaining, along
