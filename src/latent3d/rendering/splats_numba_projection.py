"""Compiled projection of splats and its gradient: the fast twin of `latent3d.rendering.projection`.

Compiled without fast-math: NaN and infinity keep their meaning, so unrepresentable splats are seen and dropped.
Letters: V views, N splats. Nine-tuples are 3x3 matrices, row by row.
"""

from __future__ import annotations

import math

import numpy as np

from latent3d.rendering.projection import LEAST_NORM
from latent3d.rendering.splats_numba_lanes import jit


@jit()
def _rotation(quaternions, n):
    """Rotation matrix of splat n, its unit quaternion and the inverse norm."""
    w, x, y, z = quaternions[n, 0], quaternions[n, 1], quaternions[n, 2], quaternions[n, 3]
    one, two = quaternions.dtype.type(1), quaternions.dtype.type(2)
    scale = one / max(math.sqrt(w * w + x * x + y * y + z * z), quaternions.dtype.type(LEAST_NORM))
    w, x, y, z = w * scale, x * scale, y * scale, z * scale
    matrix = (
        one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y),
        two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x),
        two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y),
    )  # fmt: skip
    return matrix, (w, x, y, z), scale


@jit()
def _axes(quaternions, scales, n):
    """M = R diag(s) of splat n."""
    r, _, _ = _rotation(quaternions, n)
    s0, s1, s2 = scales[n, 0], scales[n, 1], scales[n, 2]
    return r[0] * s0, r[1] * s1, r[2] * s2, r[3] * s0, r[4] * s1, r[5] * s2, r[6] * s0, r[7] * s1, r[8] * s2


@jit()
def _local(means, n, w2c, view):
    """Camera coordinates of splat n."""
    x, y, z = means[n, 0], means[n, 1], means[n, 2]
    return (
        w2c[view, 0, 0] * x + w2c[view, 0, 1] * y + w2c[view, 0, 2] * z + w2c[view, 0, 3],
        w2c[view, 1, 0] * x + w2c[view, 1, 1] * y + w2c[view, 1, 2] * z + w2c[view, 1, 3],
        w2c[view, 2, 0] * x + w2c[view, 2, 1] * y + w2c[view, 2, 2] * z + w2c[view, 2, 3],
    )


@jit()
def _jacobian(local, w2c, k, view, bounds):
    """Clamped (u, v) and the rows A, B of Jacobian times rotation. bounds (V, 4): least and greatest u, then v."""
    inverse = k.dtype.type(1) / local[2]
    uc = min(max(local[0] * inverse, bounds[view, 0]), bounds[view, 1])
    vc = min(max(local[1] * inverse, bounds[view, 2]), bounds[view, 3])
    p, q = k[view, 0, 0] * inverse, k[view, 1, 1] * inverse
    a = (
        p * (w2c[view, 0, 0] - uc * w2c[view, 2, 0]),
        p * (w2c[view, 0, 1] - uc * w2c[view, 2, 1]),
        p * (w2c[view, 0, 2] - uc * w2c[view, 2, 2]),
    )
    b = (
        q * (w2c[view, 1, 0] - vc * w2c[view, 2, 0]),
        q * (w2c[view, 1, 1] - vc * w2c[view, 2, 1]),
        q * (w2c[view, 1, 2] - vc * w2c[view, 2, 2]),
    )
    return uc, vc, a, b


@jit()
def _dot(p, q):
    return p[0] * q[0] + p[1] * q[1] + p[2] * q[2]


@jit()
def _cross(p, q):
    return p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]


@jit()
def _row_times(row, m):
    return (
        row[0] * m[0] + row[1] * m[3] + row[2] * m[6],
        row[0] * m[1] + row[1] * m[4] + row[2] * m[7],
        row[0] * m[2] + row[1] * m[5] + row[2] * m[8],
    )


@jit()
def project_share(
    share, shares, means, quaternions, scales, opacities, w2c, k, bounds, options, grid, splats, depths, rects
):
    """Project one share of the splats to all views.

    options: (low_pass, near, ALPHA_MIN, extent slack, anti-aliasing floor or 0 for off) in the working type.
    grid: (tile side, columns, rows). Writes splats (V, N, 8), depths (V, N), rects (V, N, 4).
    """
    number = means.dtype.type
    zero, half, one, two = number(0), number(0.5), number(1), number(2)
    low_pass, near, alpha_min, slack, floor = options
    side, columns, rows = grid
    total = means.shape[0]
    for n in range(total * share // shares, total * (share + 1) // shares):
        m = _axes(quaternions, scales, n)
        for view in range(w2c.shape[0]):
            rects[view, n, :] = 0
            local = _local(means, n, w2c, view)
            z, opacity = local[2], opacities[n]
            if not z > near or opacity < alpha_min:
                continue
            _, _, a, b = _jacobian(local, w2c, k, view, bounds)
            p, q = _row_times(a, m), _row_times(b, m)
            pp, qq, pq, cross = _dot(p, p), _dot(q, q), _dot(p, q), _cross(p, q)
            raw = _dot(cross, cross)
            determinant = raw + low_pass * (pp + qq) + low_pass * low_pass
            if not math.isfinite(determinant + local[0] + local[1] + z):
                continue
            if floor > zero:
                opacity *= math.sqrt(max(raw / determinant, floor * floor))
                if opacity < alpha_min:
                    continue
            inverse = one / z
            x, y = k[view, 0, 0] * local[0] * inverse, k[view, 1, 1] * local[1] * inverse
            x, y = x + k[view, 0, 2], y + k[view, 1, 2]
            cutoff = two * math.log(opacity / alpha_min)
            reach_x = math.sqrt(cutoff * (pp + low_pass)) * (one + slack) + slack
            reach_y = math.sqrt(cutoff * (qq + low_pass)) * (one + slack) + slack
            rects[view, n, 0] = tile_index(x - reach_x - half, side, columns)
            rects[view, n, 1] = tile_index(y - reach_y - half, side, rows)
            rects[view, n, 2] = tile_index(x + reach_x - half + number(side), side, columns)
            rects[view, n, 3] = tile_index(y + reach_y - half + number(side), side, rows)
            splats[view, n, 0] = x
            splats[view, n, 1] = y
            splats[view, n, 2] = (qq + low_pass) / determinant
            splats[view, n, 3] = -pq / determinant
            splats[view, n, 4] = (pp + low_pass) / determinant
            splats[view, n, 5] = z
            splats[view, n, 6] = opacity
            splats[view, n, 7] = reach_y
            depths[view, n] = z


@jit()
def tile_index(position, side, limit):
    """Tile that holds a pixel position, clamped to [0, limit]."""
    position = position / side
    if not position > 0:
        return 0
    return limit if position >= limit else int(position)


@jit()
def project_backward_share(
    share, shares, first, views, means, quaternions, scales, opacities, w2c, k, bounds, options, rects, private, sums,
    d_means, d_quaternions, d_scales, d_opacities,
):  # fmt: skip
    """Add ``views`` views' gradients of one share of the splats, from the private buffers of all blending shares; with
    those of the last view, finish the gradients of the splats' parameters.

    private (shares of blending, views or more, N or more, 7) is zeroed where it was read. sums (N, 13) receives the
    gradient of the mean (3), of M = R diag(s) (9, row by row) and of the opacity.
    """
    number = means.dtype.type
    zero, half, one, two = number(0), number(0.5), number(1), number(2)
    low_pass, floor = options[0], options[4]
    total = means.shape[0]
    for n in range(total * share // shares, total * (share + 1) // shares):
        m = _axes(quaternions, scales, n)
        for view in range(first, first + views):
            if rects[view, n, 2] <= rects[view, n, 0] or rects[view, n, 3] <= rects[view, n, 1]:
                continue
            gx, gy, ga, gb, gc, gz, go = zero, zero, zero, zero, zero, zero, zero
            for buffer in range(private.shape[0]):
                part = private[buffer, view - first, n]
                gx, gy, ga, gb = gx + part[0], gy + part[1], ga + part[2], gb + part[3]
                gc, gz, go = gc + part[4], gz + part[5], go + part[6]
                part[:] = zero
            local = _local(means, n, w2c, view)
            uc, vc, a, b = _jacobian(local, w2c, k, view, bounds)
            p, q = _row_times(a, m), _row_times(b, m)
            pp, qq, pq, cross = _dot(p, p), _dot(q, q), _dot(p, q), _cross(p, q)
            raw = _dot(cross, cross)
            inverse_d = one / (raw + low_pass * (pp + qq) + low_pass * low_pass)
            # conic = (cyy, -cxy, cxx) / determinant
            d_determinant = -(ga * (qq + low_pass) - gb * pq + gc * (pp + low_pass)) * inverse_d * inverse_d
            d_raw = zero
            if floor > zero:
                ratio = raw * inverse_d
                factor = math.sqrt(max(ratio, floor * floor))
                if ratio > floor * floor:
                    d_ratio = go * opacities[n] * half / factor
                    d_raw = d_ratio * inverse_d
                    d_determinant -= d_ratio * ratio * inverse_d
                go *= factor
            d_raw += d_determinant
            d_pp, d_qq = gc * inverse_d + low_pass * d_determinant, ga * inverse_d + low_pass * d_determinant
            d_pq, d_cross = -gb * inverse_d, two * d_raw
            from_p, from_q = _cross(q, cross), _cross(cross, p)
            dp = (
                two * d_pp * p[0] + d_pq * q[0] + d_cross * from_p[0],
                two * d_pp * p[1] + d_pq * q[1] + d_cross * from_p[1],
                two * d_pp * p[2] + d_pq * q[2] + d_cross * from_p[2],
            )
            dq = (
                two * d_qq * q[0] + d_pq * p[0] + d_cross * from_q[0],
                two * d_qq * q[1] + d_pq * p[1] + d_cross * from_q[1],
                two * d_qq * q[2] + d_pq * p[2] + d_cross * from_q[2],
            )
            for i in range(3):
                for j in range(3):
                    sums[n, 3 + 3 * i + j] += a[i] * dp[j] + b[i] * dq[j]
            sums[n, 12] += go
            da = (_dot((m[0], m[1], m[2]), dp), _dot((m[3], m[4], m[5]), dp), _dot((m[6], m[7], m[8]), dp))
            db = (_dot((m[0], m[1], m[2]), dq), _dot((m[3], m[4], m[5]), dq), _dot((m[6], m[7], m[8]), dq))
            inverse, fx, fy = one / local[2], k[view, 0, 0], k[view, 1, 1]
            towards = (w2c[view, 2, 0], w2c[view, 2, 1], w2c[view, 2, 2])
            du, dv = fx * gx, fy * gy
            if uc == local[0] * inverse:
                du -= fx * inverse * _dot(da, towards)
            if vc == local[1] * inverse:
                dv -= fy * inverse * _dot(db, towards)
            d_x, d_y = du * inverse, dv * inverse
            # A and B are proportional to 1 / z; u and v as well
            d_z = gz - inverse * (_dot(da, a) + _dot(db, b) + du * local[0] * inverse + dv * local[1] * inverse)
            for i in range(3):
                sums[n, i] += w2c[view, 0, i] * d_x + w2c[view, 1, i] * d_y + w2c[view, 2, i] * d_z
    if first + views == rects.shape[0]:
        begin, end = total * share // shares, total * (share + 1) // shares
        _finish(begin, end, quaternions, scales, sums, d_means, d_quaternions, d_scales, d_opacities)


@jit()
def _finish(begin, end, quaternions, scales, sums, d_means, d_quaternions, d_scales, d_opacities):
    """From the sums over views to the gradients of the parameters of splats ``begin`` to ``end`` - 1."""
    two = scales.dtype.type(2)
    for n in range(begin, end):
        r, (w, x, y, z), inverse = _rotation(quaternions, n)
        g = sums[n]
        for i in range(3):
            d_means[n, i] = g[i]
        d_scales[n, 0] = g[3] * r[0] + g[6] * r[3] + g[9] * r[6]
        d_scales[n, 1] = g[4] * r[1] + g[7] * r[4] + g[10] * r[7]
        d_scales[n, 2] = g[5] * r[2] + g[8] * r[5] + g[11] * r[8]
        d_opacities[n] = g[12]
        s0, s1, s2 = scales[n, 0], scales[n, 1], scales[n, 2]
        g00, g01, g02 = g[3] * s0, g[4] * s1, g[5] * s2
        g10, g11, g12 = g[6] * s0, g[7] * s1, g[8] * s2
        g20, g21, g22 = g[9] * s0, g[10] * s1, g[11] * s2
        dw = two * (z * (g10 - g01) + y * (g02 - g20) + x * (g21 - g12))
        dx = two * (y * (g01 + g10) + z * (g02 + g20) + w * (g21 - g12) - two * x * (g11 + g22))
        dy = two * (x * (g01 + g10) + z * (g12 + g21) + w * (g02 - g20) - two * y * (g00 + g22))
        dz = two * (x * (g02 + g20) + y * (g12 + g21) + w * (g10 - g01) - two * z * (g00 + g11))
        along = w * dw + x * dx + y * dy + z * dz
        d_quaternions[n, 0] = (dw - w * along) * inverse
        d_quaternions[n, 1] = (dx - x * along) * inverse
        d_quaternions[n, 2] = (dy - y * along) * inverse
        d_quaternions[n, 3] = (dz - z * along) * inverse


@jit()
def add_share(share, shares, buffers, target):
    """target = sum of the buffers in a fixed order, one share of the flat range; target may be the first buffer."""
    total = target.shape[0]
    for i in range(total * share // shares, total * (share + 1) // shares):
        value = buffers[0, i]
        for buffer in range(1, buffers.shape[0]):
            value += buffers[buffer, i]
        target[i] = value


def bounds_of(k: np.ndarray, height: int, width: int, margin: float) -> np.ndarray:
    """Least and greatest u and v at which the Jacobian is taken, (V, 4)."""
    fx, fy, cx, cy = k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]
    left, right = -cx / fx - margin * width / fx, (width - cx) / fx + margin * width / fx
    top, bottom = -cy / fy - margin * height / fy, (height - cy) / fy + margin * height / fy
    return np.stack([left, right, top, bottom], -1)
