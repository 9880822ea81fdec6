"""Bounding volume tree over the primitives of a scene: building, nearest hit, any hit."""

from __future__ import annotations

import numpy as np

from latent3d.worlds.compiled import compiled
from latent3d.worlds.shapes import hit_primitive
from latent3d.worlds.tables import NO_SHADOW


@compiled
def trace(P, nodes, order, stack, ox, oy, oz, dx, dy, dz, limit, any_hit):
    """Nearest hit below ``limit`` (or, with ``any_hit``, any hit that casts a shadow): (distance, primitive or -1).

    ``nodes`` rows: box minimum, box maximum, first child or first entry of ``order``, count (0 for inner nodes).
    """
    ix = 1.0 / (dx if abs(dx) > 1e-12 else 1e-12)
    iy = 1.0 / (dy if abs(dy) > 1e-12 else 1e-12)
    iz = 1.0 / (dz if abs(dz) > 1e-12 else 1e-12)
    best = limit
    winner = -1
    depth = 1
    stack[0] = 0
    while depth > 0:
        depth -= 1
        n = stack[depth]
        t1 = (nodes[n, 0] - ox) * ix
        t2 = (nodes[n, 3] - ox) * ix
        near = min(t1, t2)
        far = max(t1, t2)
        t1 = (nodes[n, 1] - oy) * iy
        t2 = (nodes[n, 4] - oy) * iy
        near = max(near, min(t1, t2))
        far = min(far, max(t1, t2))
        t1 = (nodes[n, 2] - oz) * iz
        t2 = (nodes[n, 5] - oz) * iz
        near = max(near, min(t1, t2))
        far = min(far, max(t1, t2))
        if far < max(near, 0.0) or near >= best:
            continue
        first = int(nodes[n, 6])
        count = int(nodes[n, 7])
        if count == 0:
            # the child on the near side of the split axis is visited first
            axis = int(nodes[n, 8])
            d = dx if axis == 0 else (dy if axis == 1 else dz)
            if d > 0.0:
                stack[depth] = first + 1
                stack[depth + 1] = first
            else:
                stack[depth] = first
                stack[depth + 1] = first + 1
            depth += 2
            continue
        for j in range(first, first + count):
            i = order[j]
            if any_hit and P[i, 20] == NO_SHADOW:
                continue
            t = hit_primitive(P, i, ox, oy, oz, dx, dy, dz, best)
            if t < best:
                best = t
                winner = i
                if any_hit:
                    return best, winner
    return best, winner


@compiled
def build_tree(low, high):
    """Bounding volume tree by the surface-area rule over boxes (N, 3), (N, 3): ``nodes`` (2N, 9), ``order`` (N,)."""
    count = low.shape[0]
    nodes = np.zeros((2 * count, 9))
    order = np.arange(count)
    todo = np.zeros((2 * count, 3), dtype=np.int64)  # node, first, past-the-end
    todo[0, 2] = count
    pending = 1
    used = 1
    area = np.zeros(count + 1)
    while pending > 0:
        pending -= 1
        node, first, last = todo[pending, 0], todo[pending, 1], todo[pending, 2]
        for c in range(3):
            nodes[node, c] = low[order[first:last], c].min()
            nodes[node, 3 + c] = high[order[first:last], c].max()
        n = last - first
        best_cost = 1e30
        best_axis = -1
        best_split = 0
        if n > 2:
            for axis in range(3):
                members = order[first:last]
                members = members[np.argsort(low[members, axis] + high[members, axis], kind="mergesort")]
                for direction in range(2):
                    lo = np.full(3, 1e30)
                    hi = np.full(3, -1e30)
                    for s in range(n):
                        i = members[n - 1 - s] if direction == 0 else members[s]
                        for c in range(3):
                            lo[c] = min(lo[c], low[i, c])
                            hi[c] = max(hi[c], high[i, c])
                        e = hi - lo
                        value = (e[0] * e[1] + e[1] * e[2] + e[2] * e[0]) * (s + 1)
                        if direction == 0:
                            area[n - 1 - s] = value
                        elif s + 1 < n and value + area[s + 1] < best_cost:
                            best_cost = value + area[s + 1]
                            best_axis = axis
                            best_split = s + 1
        if best_axis < 0:
            nodes[node, 6] = first
            nodes[node, 7] = n
            continue
        members = order[first:last].copy()
        order[first:last] = members[np.argsort(low[members, best_axis] + high[members, best_axis], kind="mergesort")]
        nodes[node, 6] = used
        nodes[node, 8] = best_axis
        todo[pending, 0], todo[pending, 1], todo[pending, 2] = used, first, first + best_split
        todo[pending + 1, 0], todo[pending + 1, 1], todo[pending + 1, 2] = used + 1, first + best_split, last
        pending += 2
        used += 2
    return nodes[:used].copy(), order
