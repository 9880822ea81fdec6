"""Compiled loops of the mesh renderer: which triangle a ray meets first, and what it looks like there.

A ray through the pixel position p = (x, y, 1) meets the plane of a triangle with corners a, b, c (camera coordinates
times K) where p z = la a + lb b + lc c. With the edge functions ea = (b x c) . p, eb = (c x a) . p, ec = (a x b) . p
and D = det(a, b, c): la = ea / (ea + eb + ec), and z = D / (ea + eb + ec) (homogeneous rasterisation, Olano and Greer
1997). These are perspective-correct, need no division per corner, and hold for triangles that reach behind the camera,
so nothing is clipped: a sample counts where all three have the sign of D and z is at least the near distance. Edge
functions are linear in p, and those of one edge in two triangles are exact negatives of each other: no sample is lost
between neighbours. For that reason covering is compiled without fast-math, in float64.

Every function ending in ``_share`` is one share of the work (``share`` of ``shares``); shares take whole views.
Letters: V views, N vertices, F faces, H, W samples (pixels times supersample).
"""

from __future__ import annotations

import math

import numpy as np

from latent3d.rendering.splats_numba_lanes import jit

FAST = {"nsz", "arcp", "contract", "afn", "reassoc"}
GREY = 0.75
"""sRGB of a mesh without colours."""
GREY_SHADE, VERTEX_COLORS, TEXTURE = range(3)
"""Where the colour comes from."""


@jit()
def _project(vertices, w2c, k, scale, out):
    """K (R x + t) with pixels made ``scale`` times smaller: (N, 3), the last column being z-depth."""
    for n in range(vertices.shape[0]):
        x, y, z = vertices[n, 0], vertices[n, 1], vertices[n, 2]
        depth = w2c[2, 0] * x + w2c[2, 1] * y + w2c[2, 2] * z + w2c[2, 3]
        right = w2c[0, 0] * x + w2c[0, 1] * y + w2c[0, 2] * z + w2c[0, 3]
        down = w2c[1, 0] * x + w2c[1, 1] * y + w2c[1, 2] * z + w2c[1, 3]
        out[n, 0] = scale * (k[0, 0] * right + k[0, 1] * down + k[0, 2] * depth)
        out[n, 1] = scale * (k[1, 0] * right + k[1, 1] * down + k[1, 2] * depth)
        out[n, 2] = depth


@jit()
def _window(corners, near, width, height):
    """Samples that the part of a triangle beyond the near distance can cover: x0, x1, y0, y1, past-last exclusive."""
    low_x, high_x, low_y, high_y = np.inf, -np.inf, np.inf, -np.inf
    for i in range(3):
        j = (i + 1) % 3
        zi, zj = corners[i, 2], corners[j, 2]
        if zi >= near:
            x, y = corners[i, 0] / zi, corners[i, 1] / zi
            low_x, high_x, low_y, high_y = min(low_x, x), max(high_x, x), min(low_y, y), max(high_y, y)
        if (zi >= near) != (zj >= near):
            t = (near - zi) / (zj - zi)
            x = (corners[i, 0] + t * (corners[j, 0] - corners[i, 0])) / near
            y = (corners[i, 1] + t * (corners[j, 1] - corners[i, 1])) / near
            low_x, high_x, low_y, high_y = min(low_x, x), max(high_x, x), min(low_y, y), max(high_y, y)
    # Centres are at i + 0.5; a hundredth of a pixel of slack keeps those on an edge, whatever the rounding.
    x0 = int(max(0.0, min(float(width), math.ceil(low_x - 0.51))))
    x1 = int(max(0.0, min(float(width), math.floor(high_x - 0.49) + 1)))
    y0 = int(max(0.0, min(float(height), math.ceil(low_y - 0.51))))
    y1 = int(max(0.0, min(float(height), math.floor(high_y - 0.49) + 1)))
    return x0, x1, y0, y1


@jit()
def _edges(corners, edges):
    """Edge functions (3, 3), rows for the corners and columns for (x, y, 1), and D; signed so that D >= 0."""
    for i in range(3):
        j, m = (i + 1) % 3, (i + 2) % 3
        edges[i, 0] = corners[j, 1] * corners[m, 2] - corners[j, 2] * corners[m, 1]
        edges[i, 1] = corners[j, 2] * corners[m, 0] - corners[j, 0] * corners[m, 2]
        edges[i, 2] = corners[j, 0] * corners[m, 1] - corners[j, 1] * corners[m, 0]
    volume = corners[0, 0] * edges[0, 0] + corners[0, 1] * edges[0, 1] + corners[0, 2] * edges[0, 2]
    if volume < 0:
        edges *= -1.0
    return abs(volume)


@jit()
def _cover(projected, faces, near, depth, index, edges, volumes):
    """Fill depth (inf where nothing is) and index (-1) of one view, (H, W), and the edge functions of its faces."""
    height, width = depth.shape
    depth[:] = np.inf
    index[:] = -1
    corners = np.empty((3, 3))
    for face in range(faces.shape[0]):
        for i in range(3):
            for axis in range(3):
                corners[i, axis] = projected[faces[face, i], axis]
        if max(corners[0, 2], corners[1, 2], corners[2, 2]) < near:
            continue
        x0, x1, y0, y1 = _window(corners, near, width, height)
        if x0 >= x1 or y0 >= y1:
            continue
        volume = _edges(corners, edges[face])
        volumes[face] = volume
        if not volume > 0:
            continue
        ax, bx, cx = edges[face, 0, 0], edges[face, 1, 0], edges[face, 2, 0]
        for y in range(y0, y1):
            py = y + 0.5
            a = edges[face, 0, 1] * py + edges[face, 0, 2]
            b = edges[face, 1, 1] * py + edges[face, 1, 2]
            c = edges[face, 2, 1] * py + edges[face, 2, 2]
            for x in range(x0, x1):
                px = x + 0.5
                ea, eb, ec = ax * px + a, bx * px + b, cx * px + c
                if ea >= 0 and eb >= 0 and ec >= 0:
                    total = ea + eb + ec
                    z = volume / total if total > 0 else np.inf
                    if near <= z < depth[y, x]:
                        depth[y, x] = z
                        index[y, x] = face


@jit()
def _barycentric(edges, face, px, py):
    """Perspective-correct weights of the three corners of a face at a position in samples."""
    a = edges[face, 0, 0] * px + edges[face, 0, 1] * py + edges[face, 0, 2]
    b = edges[face, 1, 0] * px + edges[face, 1, 1] * py + edges[face, 1, 2]
    c = edges[face, 2, 0] * px + edges[face, 2, 1] * py + edges[face, 2, 2]
    scale = 1 / (a + b + c)
    return a * scale, b * scale, c * scale


@jit()
def rasterize_share(share, shares, vertices, faces, w2c, k, scale, near, indices, barycentric, depths):
    """Faces (V, H, W), barycentric (V, H, W, 3) and depths (V, H, W) of every ``shares``-th view."""
    height, width = indices.shape[1:]
    projected = np.empty((vertices.shape[0], 3))
    edges, volumes = np.empty((faces.shape[0], 3, 3)), np.empty(faces.shape[0])
    depth = np.empty((height, width))
    for view in range(share, indices.shape[0], shares):
        _project(vertices, w2c[view], k[view], scale, projected)
        _cover(projected, faces, near, depth, indices[view], edges, volumes)
        for y in range(height):
            for x in range(width):
                face = indices[view, y, x]
                a, b, c = _barycentric(edges, face, x + 0.5, y + 0.5) if face >= 0 else (0.0, 0.0, 0.0)
                barycentric[view, y, x, 0], barycentric[view, y, x, 1], barycentric[view, y, x, 2] = a, b, c
                depths[view, y, x] = depth[y, x] if face >= 0 else 0.0


@jit(fastmath=FAST)
def _bilinear(pyramid, start, height, width, u, v, repeat):
    """The texture at (u, v); texel centres lie at (i + 0.5) / size."""
    x, y = u * width - 0.5, v * height - 0.5
    floor_x, floor_y = math.floor(x), math.floor(y)
    fx, fy = x - floor_x, y - floor_y
    left, top = int(floor_x), int(floor_y)
    right, below = left + 1, top + 1
    if left < 0 or right >= width:
        left = left % width if repeat else min(max(left, 0), width - 1)
        right = right % width if repeat else min(max(right, 0), width - 1)
    if top < 0 or below >= height:
        top = top % height if repeat else min(max(top, 0), height - 1)
        below = below % height if repeat else min(max(below, 0), height - 1)
    a, b = start + top * width + left, start + top * width + right
    c, d = start + below * width + left, start + below * width + right
    wa, wb, wc, wd = (1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy
    return (
        wa * pyramid[a, 0] + wb * pyramid[b, 0] + wc * pyramid[c, 0] + wd * pyramid[d, 0],
        wa * pyramid[a, 1] + wb * pyramid[b, 1] + wc * pyramid[c, 1] + wd * pyramid[d, 1],
        wa * pyramid[a, 2] + wb * pyramid[b, 2] + wc * pyramid[c, 2] + wd * pyramid[d, 2],
    )


@jit(fastmath=FAST)
def _textured(pyramid, levels, repeat, detail, uvs, face, weights):
    """Texture at a point of a face: bilinear between texels, linear between the two nearest levels of detail."""
    u = weights[0] * uvs[face, 0, 0] + weights[1] * uvs[face, 1, 0] + weights[2] * uvs[face, 2, 0]
    v = weights[0] * uvs[face, 0, 1] + weights[1] * uvs[face, 1, 1] + weights[2] * uvs[face, 2, 1]
    if repeat:
        u, v = u - math.floor(u), v - math.floor(v)
    level = min(max(detail, 0.0), levels.shape[0] - 1.0)
    low = int(level)
    blend = level - low
    r, g, b = _bilinear(pyramid, levels[low, 0], levels[low, 1], levels[low, 2], u, v, repeat)
    if blend > 0:
        low += 1
        p, q, s = _bilinear(pyramid, levels[low, 0], levels[low, 1], levels[low, 2], u, v, repeat)
        r, g, b = r + blend * (p - r), g + blend * (q - g), b + blend * (s - b)
    return r, g, b


@jit(fastmath=FAST)
def _details(projected, faces, uvs, near, texels, out):
    """Level of detail of each face: log2 of texels per sample, from the ratio of its areas in texture and view."""
    for face in range(faces.shape[0]):
        a, b, c = projected[faces[face, 0]], projected[faces[face, 1]], projected[faces[face, 2]]
        out[face] = 0
        if min(a[2], b[2], c[2]) < near:
            continue
        ax, ay = a[0] / a[2], a[1] / a[2]
        bx, by, cx, cy = b[0] / b[2] - ax, b[1] / b[2] - ay, c[0] / c[2] - ax, c[1] / c[2] - ay
        seen = abs(bx * cy - by * cx)
        bu, bv = uvs[face, 1, 0] - uvs[face, 0, 0], uvs[face, 1, 1] - uvs[face, 0, 1]
        cu, cv = uvs[face, 2, 0] - uvs[face, 0, 0], uvs[face, 2, 1] - uvs[face, 0, 1]
        stored = abs(bu * cv - bv * cu) * texels
        if stored > seen > 0:
            out[face] = 0.5 * math.log2(stored / seen)


@jit(fastmath=FAST)
def _mixed(values, i, j, k, weights):
    """Weighted sum of three rows of (n, 3)."""
    a, b, c = weights
    return (
        a * values[i, 0] + b * values[j, 0] + c * values[k, 0],
        a * values[i, 1] + b * values[j, 1] + c * values[k, 1],
        a * values[i, 2] + b * values[j, 2] + c * values[k, 2],
    )


@jit(fastmath=FAST)
def _normal(vertices, faces, smooth, face, weights, eye):
    """Unit normal at a point of a face, towards the camera at ``eye``: interpolated from ``smooth`` if given.

    Towards the camera is decided by the plane of the face, so that it does not depend on the order of the corners.
    """
    i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
    ax, ay, az = vertices[i, 0], vertices[i, 1], vertices[i, 2]
    ux, uy, uz = vertices[j, 0] - ax, vertices[j, 1] - ay, vertices[j, 2] - az
    vx, vy, vz = vertices[k, 0] - ax, vertices[k, 1] - ay, vertices[k, 2] - az
    gx, gy, gz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    sign = 1.0 if gx * (eye[0] - ax) + gy * (eye[1] - ay) + gz * (eye[2] - az) >= 0 else -1.0
    x, y, z = gx, gy, gz
    if smooth.shape[0] > 0:
        nx, ny, nz = _mixed(smooth, 3 * face, 3 * face + 1, 3 * face + 2, weights)
        if nx * nx + ny * ny + nz * nz > 1e-12:
            sign = sign if nx * gx + ny * gy + nz * gz >= 0 else -sign
            x, y, z = nx, ny, nz
    scale = sign / math.sqrt(x * x + y * y + z * z)
    return x * scale, y * scale, z * scale


@jit(fastmath=FAST)
def _brightness(light, point, normal, eye):
    """Factor on sRGB values: (ambient + sky (1 + nz) / 2 + head max(n . v, 0)) to the power 1 / 2.2."""
    x, y, z = eye[0] - point[0], eye[1] - point[1], eye[2] - point[2]
    facing = max(0.0, normal[0] * x + normal[1] * y + normal[2] * z) / math.sqrt(x * x + y * y + z * z)
    return (light[0] + light[1] * 0.5 * (1 + normal[2]) + light[2] * facing) ** (1 / 2.2)


@jit(fastmath=FAST)
def _color(vertices, faces, colors, uvs, pyramid, levels, source, repeat, detail, light, face, weights, normal, eye):
    """What a point of a face shows, in [0, 1]: its colour in its light (as it is where ``light`` is empty)."""
    i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
    r, g, b = GREY, GREY, GREY
    if source == TEXTURE:
        r, g, b = _textured(pyramid, levels, repeat, detail, uvs, face, weights)
    elif source == VERTEX_COLORS:
        r, g, b = _mixed(colors, i, j, k, weights)
    if light.shape[0] > 0:
        lit = _brightness(light, _mixed(vertices, i, j, k, weights), normal, eye)
        r, g, b = r * lit, g * lit, b * lit
    return min(max(r, 0.0), 1.0), min(max(g, 0.0), 1.0), min(max(b, 0.0), 1.0)


@jit()
def _store(depths, normals, view, y, x, depth, normal):
    depths[view, y, x] = depth
    normals[view, 0, y, x], normals[view, 1, y, x], normals[view, 2, y, x] = normal


@jit()
def render_share(
    share, shares, vertices, faces, colors, uvs, smooth, pyramid, levels, source, repeat, w2c, k, supersample, light,
    near, images, alphas, depths, normals,
):  # fmt: skip
    """Images (V, 3, H, W) over white, alphas, depths (V, H, W) and normals (V, 3, H, W) of every ``shares``-th view.

    ``smooth`` is (3 F, 3), row by corner, or (0, 3). Depths and normals are those at the centre of the pixel, else of
    its nearest sample; they are zero before the call.
    """
    height, width = alphas.shape[1:]
    projected, total = np.empty((vertices.shape[0], 3)), faces.shape[0]
    edges, volumes, details = np.empty((total, 3, 3)), np.empty(total), np.zeros(total)
    depth = np.empty((height * supersample, width * supersample))
    index = np.empty(depth.shape, np.int64)
    depth_centre, index_centre = np.empty((height, width)), np.empty((height, width), np.int64)
    samples = supersample * supersample
    for view in range(share, alphas.shape[0], shares):
        r, t = w2c[view, :, :3], w2c[view, :, 3]
        eye = (
            -(r[0, 0] * t[0] + r[1, 0] * t[1] + r[2, 0] * t[2]),
            -(r[0, 1] * t[0] + r[1, 1] * t[1] + r[2, 1] * t[2]),
            -(r[0, 2] * t[0] + r[1, 2] * t[1] + r[2, 2] * t[2]),
        )
        _project(vertices, w2c[view], k[view], 1.0, projected)
        _cover(projected, faces, near, depth_centre, index_centre, edges, volumes)
        for y in range(height):
            for x in range(width):
                face = index_centre[y, x]
                if face >= 0:
                    weights = _barycentric(edges, face, x + 0.5, y + 0.5)
                    normal = _normal(vertices, faces, smooth, face, weights, eye)
                    _store(depths, normals, view, y, x, depth_centre[y, x], normal)
        _project(vertices, w2c[view], k[view], float(supersample), projected)
        _cover(projected, faces, near, depth, index, edges, volumes)
        if source == TEXTURE:
            _details(projected, faces, uvs, near, levels[0, 1] * levels[0, 2], details)
        for y in range(height):
            for x in range(width):
                red, green, blue = 0.0, 0.0, 0.0
                covered, nearest = 0, np.inf
                for sy in range(y * supersample, (y + 1) * supersample):
                    for sx in range(x * supersample, (x + 1) * supersample):
                        face = index[sy, sx]
                        if face < 0:
                            continue
                        covered += 1
                        weights = _barycentric(edges, face, sx + 0.5, sy + 0.5)
                        normal = _normal(vertices, faces, smooth, face, weights, eye)
                        color = _color(
                            vertices, faces, colors, uvs, pyramid, levels, source, repeat, details[face], light, face,
                            weights, normal, eye,
                        )  # fmt: skip
                        red, green, blue = red + color[0], green + color[1], blue + color[2]
                        if index_centre[y, x] < 0 and depth[sy, sx] < nearest:
                            nearest = depth[sy, sx]
                            _store(depths, normals, view, y, x, nearest, normal)
                # A centre can be covered where no sample is: a sliver, which is then not in the picture either.
                if covered == 0:
                    _store(depths, normals, view, y, x, 0.0, (0.0, 0.0, 0.0))
                alphas[view, y, x] = covered / samples
                images[view, 0, y, x] = (red + (samples - covered)) / samples
                images[view, 1, y, x] = (green + (samples - covered)) / samples
                images[view, 2, y, x] = (blue + (samples - covered)) / samples
