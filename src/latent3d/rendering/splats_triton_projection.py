"""Triton kernels that project splats, and their gradient: the fused twin of `latent3d.rendering.projection`.

One program projects `BLOCK` splats to one view; on the way back it sums over all views, so that no addition is atomic.
Letters: V views, N splats. Nine-tuples are 3x3 matrices, row by row.
"""

import triton
import triton.language as tl

from latent3d.rendering import base, projection
from latent3d.rendering.splats_triton_kernels import SPLAT, TILE

BLOCK = tl.constexpr(128)
ALPHA_MIN = tl.constexpr(base.ALPHA_MIN)
EXTENT_SLACK = tl.constexpr(projection.EXTENT_SLACK)
JACOBIAN_MARGIN = tl.constexpr(projection.JACOBIAN_MARGIN)
LEAST_NORM = tl.constexpr(projection.LEAST_NORM)


@triton.jit
def _dot(p, q):
    return p[0] * q[0] + p[1] * q[1] + p[2] * q[2]


@triton.jit
def _cross(p, q):
    return p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]


@triton.jit
def _row_times(row, m):
    return (
        row[0] * m[0] + row[1] * m[3] + row[2] * m[6],
        row[0] * m[1] + row[1] * m[4] + row[2] * m[7],
        row[0] * m[2] + row[1] * m[5] + row[2] * m[8],
    )


@triton.jit
def _times_column(m, column):
    return _dot((m[0], m[1], m[2]), column), _dot((m[3], m[4], m[5]), column), _dot((m[6], m[7], m[8]), column)


@triton.jit
def _load_3(at, valid):
    return (
        tl.load(at, mask=valid, other=0.0),
        tl.load(at + 1, mask=valid, other=0.0),
        tl.load(at + 2, mask=valid, other=0.0),
    )


@triton.jit
def _rotation(quaternions, n, valid):
    """Rotation matrix, unit quaternion and inverse norm."""
    w = tl.load(quaternions + n * 4, mask=valid, other=1.0)
    x, y, z = _load_3(quaternions + n * 4 + 1, valid)
    norm = tl.sqrt(w * w + x * x + y * y + z * z)
    scale = 1 / tl.where(norm > LEAST_NORM, norm, LEAST_NORM)
    w, x, y, z = w * scale, x * scale, y * scale, z * scale
    matrix = (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return matrix, (w, x, y, z), scale


@triton.jit
def _axes(r, s):
    """M = R diag(s)."""
    return (
        r[0] * s[0],
        r[1] * s[1],
        r[2] * s[2],
        r[3] * s[0],
        r[4] * s[1],
        r[5] * s[2],
        r[6] * s[0],
        r[7] * s[1],
        r[8] * s[2],
    )


@triton.jit
def _load_view(w2c, k, view):
    """Rows of the rotation, translation, and (fx, fy, cx, cy)."""
    w, at = w2c + view * 16, k + view * 9
    r0 = (tl.load(w), tl.load(w + 1), tl.load(w + 2))
    r1 = (tl.load(w + 4), tl.load(w + 5), tl.load(w + 6))
    r2 = (tl.load(w + 8), tl.load(w + 9), tl.load(w + 10))
    t = (tl.load(w + 3), tl.load(w + 7), tl.load(w + 11))
    return r0, r1, r2, t, (tl.load(at), tl.load(at + 4), tl.load(at + 2), tl.load(at + 5))


@triton.jit
def _jacobian_row(ratio, size, focal, centre, inverse, row, towards):
    """focal / z (row - u towards), u clamped near the image; and the clamped u."""
    margin = size / focal * JACOBIAN_MARGIN  # in this order float64 stays float64
    low, high = -centre / focal - margin, (size - centre) / focal + margin
    clamped = tl.where(ratio < low, low, tl.where(ratio > high, high, ratio))
    p = focal * inverse
    a = (p * (row[0] - clamped * towards[0]), p * (row[1] - clamped * towards[1]), p * (row[2] - clamped * towards[2]))
    return a, clamped


@triton.jit
def _local(mean, r0, r1, r2, t):
    return _dot(r0, mean) + t[0], _dot(r1, mean) + t[1], _dot(r2, mean) + t[2]


@triton.jit
def _tile_index(position, limit):
    """Tile that holds a pixel position, clamped to [0, limit]."""
    position = tl.floor(position / TILE)
    return tl.where(position > 0, tl.where(position < limit, position, limit), 0).to(tl.int32)


@triton.jit
def project_kernel(
    means, quaternions, scales, opacities, w2c, k, splats, depths, rects, total, height, width,
    LOW_PASS: tl.constexpr, NEAR: tl.constexpr, FLOOR: tl.constexpr,
):  # fmt: skip
    """Project a block of splats (axis 0 of the grid) to one view (axis 1).

    FLOOR: least factor of anti-aliasing, 0 for none. Writes splats (V, N, 7), depths (V, N), rects (V, N, 4), which are
    empty for splats that cannot count.
    """
    n, view = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1).to(tl.int64)
    valid = n < total
    r0, r1, r2, t, f = _load_view(w2c, k, view)
    rotation, _, _ = _rotation(quaternions, n, valid)
    m = _axes(rotation, _load_3(scales + n * 3, valid))
    opacity = tl.load(opacities + n, mask=valid, other=0.0)
    px, py, z = _local(_load_3(means + n * 3, valid), r0, r1, r2, t)
    in_front = z > NEAR
    inverse = 1 / tl.where(in_front, z, 1.0)
    a, _ = _jacobian_row(px * inverse, width, f[0], f[2], inverse, r0, r2)
    b, _ = _jacobian_row(py * inverse, height, f[1], f[3], inverse, r1, r2)
    p, q = _row_times(a, m), _row_times(b, m)
    pp, qq, pq, cross = _dot(p, p), _dot(q, q), _dot(p, q), _cross(p, q)
    raw = _dot(cross, cross)
    determinant = raw + LOW_PASS * (pp + qq) + LOW_PASS * LOW_PASS
    if FLOOR > 0:
        ratio = raw / determinant
        opacity *= tl.sqrt(tl.where(ratio > FLOOR * FLOOR, ratio, FLOOR * FLOOR))
    check = determinant + px + py + z
    visible = in_front & (opacity >= ALPHA_MIN) & (check - check == 0)  # infinity and NaN fail
    cutoff = 2 * tl.log(tl.where(visible, opacity, ALPHA_MIN) / ALPHA_MIN)
    x, y = f[0] * px * inverse + f[2], f[1] * py * inverse + f[3]
    reach_x = tl.sqrt(cutoff * (pp + LOW_PASS)) * (1 + EXTENT_SLACK) + EXTENT_SLACK
    reach_y = tl.sqrt(cutoff * (qq + LOW_PASS)) * (1 + EXTENT_SLACK) + EXTENT_SLACK
    columns, rows = tl.cdiv(width, TILE), tl.cdiv(height, TILE)
    at = rects + (view * total + n) * 4
    tl.store(at, tl.where(visible, _tile_index(x - reach_x - 0.5, columns), 0), mask=valid)
    tl.store(at + 1, tl.where(visible, _tile_index(y - reach_y - 0.5, rows), 0), mask=valid)
    tl.store(at + 2, tl.where(visible, _tile_index(x + reach_x - 0.5 + TILE, columns), 0), mask=valid)
    tl.store(at + 3, tl.where(visible, _tile_index(y + reach_y - 0.5 + TILE, rows), 0), mask=valid)
    at = splats + (view * total + n) * SPLAT
    tl.store(at, x, mask=valid)
    tl.store(at + 1, y, mask=valid)
    tl.store(at + 2, (qq + LOW_PASS) / determinant, mask=valid)
    tl.store(at + 3, -pq / determinant, mask=valid)
    tl.store(at + 4, (pp + LOW_PASS) / determinant, mask=valid)
    tl.store(at + 5, z, mask=valid)
    tl.store(at + 6, opacity, mask=valid)
    tl.store(depths + view * total + n, z, mask=valid)


@triton.jit
def _scaled_sum(s, p, t, q):
    """s p + t q of scalars s, t and triples p, q."""
    return s * p[0] + t * q[0], s * p[1] + t * q[1], s * p[2] + t * q[2]


@triton.jit
def _view_gradients(
    g, local, uc, vc, a, b, m, p, q, opacity, r0, r1, r2, f,
    LOW_PASS: tl.constexpr, FLOOR: tl.constexpr,
):  # fmt: skip
    """From gradients g of the seven numbers on one screen to those of mean, P, Q (triples each) and opacity."""
    gx, gy, ga, gb, gc, gz, go = g
    pp, qq, pq, cross = _dot(p, p), _dot(q, q), _dot(p, q), _cross(p, q)
    raw = _dot(cross, cross)
    inverse_d = 1 / (raw + LOW_PASS * (pp + qq) + LOW_PASS * LOW_PASS)
    # conic = (cyy, -cxy, cxx) / determinant
    d_determinant = -(ga * (qq + LOW_PASS) - gb * pq + gc * (pp + LOW_PASS)) * inverse_d * inverse_d
    d_raw = tl.zeros_like(raw)
    if FLOOR > 0:
        ratio = raw * inverse_d
        above = ratio > FLOOR * FLOOR
        factor = tl.sqrt(tl.where(above, ratio, FLOOR * FLOOR))
        d_ratio = tl.where(above, go * opacity * 0.5 / factor, 0.0)
        d_raw = d_ratio * inverse_d
        d_determinant -= d_ratio * ratio * inverse_d
        go *= factor
    d_raw += d_determinant
    d_pp, d_qq = gc * inverse_d + LOW_PASS * d_determinant, ga * inverse_d + LOW_PASS * d_determinant
    d_pq = -gb * inverse_d
    from_p, from_q = _cross(q, cross), _cross(cross, p)
    dp, dq = _scaled_sum(2 * d_pp, p, d_pq, q), _scaled_sum(2 * d_qq, q, d_pq, p)
    dp, dq = _scaled_sum(1, dp, 2 * d_raw, from_p), _scaled_sum(1, dq, 2 * d_raw, from_q)
    da, db = _times_column(m, dp), _times_column(m, dq)
    inverse = 1 / local[2]
    u, v = local[0] * inverse, local[1] * inverse
    du = f[0] * (gx - tl.where(uc == u, inverse * _dot(da, r2), 0.0))
    dv = f[1] * (gy - tl.where(vc == v, inverse * _dot(db, r2), 0.0))
    # A and B are proportional to 1 / z; u and v as well
    d_z = gz - inverse * (_dot(da, a) + _dot(db, b) + du * u + dv * v)
    along = _scaled_sum(du * inverse, r0, dv * inverse, r1)
    return _scaled_sum(1, along, d_z, r2), dp, dq, go


@triton.jit
def _add_outer(m, a, p, b, q):
    """m + a p^T + b q^T."""
    return (
        m[0] + a[0] * p[0] + b[0] * q[0], m[1] + a[0] * p[1] + b[0] * q[1], m[2] + a[0] * p[2] + b[0] * q[2],
        m[3] + a[1] * p[0] + b[1] * q[0], m[4] + a[1] * p[1] + b[1] * q[1], m[5] + a[1] * p[2] + b[1] * q[2],
        m[6] + a[2] * p[0] + b[2] * q[0], m[7] + a[2] * p[1] + b[2] * q[1], m[8] + a[2] * p[2] + b[2] * q[2],
    )  # fmt: skip


@triton.jit
def _store_shape_gradients(g, r, s, quaternion, inverse, d_quaternions, d_scales, n, valid):
    """From the gradient g of M = R diag(s) to those of scales and quaternion."""
    at = d_scales + n * 3
    tl.store(at, g[0] * r[0] + g[3] * r[3] + g[6] * r[6], mask=valid)
    tl.store(at + 1, g[1] * r[1] + g[4] * r[4] + g[7] * r[7], mask=valid)
    tl.store(at + 2, g[2] * r[2] + g[5] * r[5] + g[8] * r[8], mask=valid)
    g00, g01, g02, g10, g11, g12, g20, g21, g22 = _axes(g, s)
    w, x, y, z = quaternion
    dw = 2 * (z * (g10 - g01) + y * (g02 - g20) + x * (g21 - g12))
    dx = 2 * (y * (g01 + g10) + z * (g02 + g20) + w * (g21 - g12) - 2 * x * (g11 + g22))
    dy = 2 * (x * (g01 + g10) + z * (g12 + g21) + w * (g02 - g20) - 2 * y * (g00 + g22))
    dz = 2 * (x * (g02 + g20) + y * (g12 + g21) + w * (g10 - g01) - 2 * z * (g00 + g11))
    along = w * dw + x * dx + y * dy + z * dz
    at = d_quaternions + n * 4
    tl.store(at, (dw - w * along) * inverse, mask=valid)
    tl.store(at + 1, (dx - x * along) * inverse, mask=valid)
    tl.store(at + 2, (dy - y * along) * inverse, mask=valid)
    tl.store(at + 3, (dz - z * along) * inverse, mask=valid)


@triton.jit
def project_backward_kernel(
    means, quaternions, scales, opacities, w2c, k, rects, d_splats,
    d_means, d_quaternions, d_scales, d_opacities, views, total, height, width,
    LOW_PASS: tl.constexpr, FLOOR: tl.constexpr,
):  # fmt: skip
    """Gradients of `project_kernel` for a block of splats, summed over the views: from d_splats (V, N, 7)."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = n < total
    rotation, quaternion, inverse_norm = _rotation(quaternions, n, valid)
    s = _load_3(scales + n * 3, valid)
    m = _axes(rotation, s)
    mean = _load_3(means + n * 3, valid)
    opacity = tl.load(opacities + n, mask=valid, other=0.0)
    zero = tl.zeros_like(opacity)
    d_mean, d_opacity = (zero, zero, zero), zero
    d_m = (zero, zero, zero, zero, zero, zero, zero, zero, zero)
    slot = n  # of view 0
    for view in range(views):
        at = rects + slot * 4
        seen = valid & (tl.load(at, mask=valid, other=0) < tl.load(at + 2, mask=valid, other=0))
        seen = seen & (tl.load(at + 1, mask=valid, other=0) < tl.load(at + 3, mask=valid, other=0))
        r0, r1, r2, t, f = _load_view(w2c, k, view)
        px, py, z = _local(mean, r0, r1, r2, t)
        local = (tl.where(seen, px, 0.0), tl.where(seen, py, 0.0), tl.where(seen, z, 1.0))
        inverse = 1 / local[2]
        a, uc = _jacobian_row(local[0] * inverse, width, f[0], f[2], inverse, r0, r2)
        b, vc = _jacobian_row(local[1] * inverse, height, f[1], f[3], inverse, r1, r2)
        at = d_splats + slot * SPLAT
        g = (
            tl.load(at, mask=seen, other=0.0), tl.load(at + 1, mask=seen, other=0.0),
            tl.load(at + 2, mask=seen, other=0.0), tl.load(at + 3, mask=seen, other=0.0),
            tl.load(at + 4, mask=seen, other=0.0), tl.load(at + 5, mask=seen, other=0.0),
            tl.load(at + 6, mask=seen, other=0.0),
        )  # fmt: skip
        p, q = _row_times(a, m), _row_times(b, m)
        from_view, dp, dq, go = _view_gradients(
            g, local, uc, vc, a, b, m, p, q, opacity, r0, r1, r2, f, LOW_PASS, FLOOR
        )
        # a splat that no number can hold has no gradient, not NaN
        d_mean = (
            d_mean[0] + tl.where(seen, from_view[0], 0.0), d_mean[1] + tl.where(seen, from_view[1], 0.0),
            d_mean[2] + tl.where(seen, from_view[2], 0.0),
        )  # fmt: skip
        dp = (tl.where(seen, dp[0], 0.0), tl.where(seen, dp[1], 0.0), tl.where(seen, dp[2], 0.0))
        dq = (tl.where(seen, dq[0], 0.0), tl.where(seen, dq[1], 0.0), tl.where(seen, dq[2], 0.0))
        d_m = _add_outer(d_m, a, dp, b, dq)
        d_opacity += tl.where(seen, go, 0.0)
        slot += total
    at = d_means + n * 3
    tl.store(at, d_mean[0], mask=valid)
    tl.store(at + 1, d_mean[1], mask=valid)
    tl.store(at + 2, d_mean[2], mask=valid)
    tl.store(d_opacities + n, d_opacity, mask=valid)
    _store_shape_gradients(d_m, rotation, s, quaternion, inverse_norm, d_quaternions, d_scales, n, valid)
