"""Pictures of triangle meshes: a z-buffer rasteriser and a textured, softly lit rendering, on the CPU.

`rasterize` says which face every pixel shows and where on it; `render_mesh` makes `Views` for training and for people.
Neither gives gradients: `rendering.soft_meshes` does. The number of threads is torch's (`torch.set_num_threads`).
Letters: V views, N vertices, F faces, H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent3d.config import Config
from latent3d.geometry.cameras import Cameras
from latent3d.rendering.base import NEAR
from latent3d.rendering.threads import run_shares, thread_count
from latent3d.representations.mesh import Mesh
from latent3d.representations.views import Views

UV_SLACK = 1e-4
"""Texture coordinates this far outside [0, 1] do not yet make a texture repeat."""


@dataclass(frozen=True, kw_only=True)
class LightConfig(Config):
    """Light that is fixed to the world and the camera: soft, without shadows, never brighter than the albedo.

    A surface of linear albedo c, unit normal n and direction v to the camera shows
    c (ambient + sky (1 + n_z) / 2 + head max(n . v, 0)). Colours are sRGB, on which a factor s in linear light acts
    nearly as s^(1 / 2.2), and is applied so.

    Attributes:
        ambient: from everywhere.
        sky: from above (+z), half as much from the side, none from below.
        head: from the camera.
    """

    ambient: float = 0.35
    sky: float = 0.35
    head: float = 0.25


@dataclass(frozen=True)
class Fragments:
    """What V cameras see of a mesh, pixel by pixel.

    Attributes:
        faces: number of the nearest face, -1 where there is none, (V, H, W).
        barycentric: perspective-correct weights of its corners, sum 1; all zero where there is no face, (V, H, W, 3).
        depth: z-depth in scene units, 0 where there is no face, (V, H, W).
    """

    faces: Int[Tensor, "v h w"]
    barycentric: Float[Tensor, "v h w 3"]
    depth: Float[Tensor, "v h w"]


def rasterize(mesh: Mesh, cameras: Cameras, *, supersample: int = 1, near: float = NEAR) -> Fragments:
    """The nearest face at the centre of every pixel, either side of it being visible.

    Of faces at equal depth the first counts. Faces may reach behind the camera: what lies nearer than ``near`` is cut
    away.

    Args:
        mesh: F >= 0 faces.
        cameras: V cameras, batch shape (V,).
        supersample: fragments per pixel along each side; the result has (H supersample, W supersample) of them.
        near: least z-depth, in scene units, > 0.

    Raises:
        ValueError: for vertices or cameras that are not finite, faces without their vertices, cameras of another batch
            shape, or a number below its limit.
    """
    vertices, faces, w2c, k = _checked(mesh, cameras, supersample, near)
    shape = (len(cameras), cameras.height * supersample, cameras.width * supersample)
    indices = np.empty(shape, np.int64)
    barycentric, depth = (_empty(size, mesh.vertices.dtype) for size in ((*shape, 3), shape))
    from latent3d.rendering.meshes_numba import rasterize_share

    run_shares(
        rasterize_share, _shares(cameras), vertices, faces, w2c, k, float(supersample), float(near), indices,
        barycentric, depth,
    )  # fmt: skip
    device = mesh.vertices.device
    return Fragments(*(torch.from_numpy(array).to(device) for array in (indices, barycentric, depth)))


def render_mesh(
    mesh: Mesh,
    cameras: Cameras,
    *,
    supersample: int = 2,
    light: LightConfig | None = LightConfig(),
    near: float = NEAR,
) -> Views:
    """Views of a mesh over white: images, cameras, alphas, depths and normals, without gradients.

    Colours come from the texture (bilinear, with the level of detail that fits each face; repeating where texture
    coordinates leave [0, 1], held at the border where none does), else from the vertices, else are grey. Images and
    alphas are means over supersample^2 samples per pixel. Depth is never such a mean: it is that at the pixel's centre
    where a face is there, else that of the nearest sample. Normals are those of the same point (interpolated where the
    mesh has normals), turned towards the camera, in world axes. Both are zero where alpha is.

    Args:
        mesh: F >= 0 faces.
        cameras: V cameras, batch shape (V,).
        supersample: samples per pixel along each side, >= 1.
        light: see `LightConfig`; None shows the colours as they are.
        near: least z-depth, in scene units, > 0.

    Raises:
        ValueError: as `rasterize`.
    """
    vertices, faces, w2c, k = _checked(mesh, cameras, supersample, near)
    dtype, device = mesh.vertices.dtype, mesh.vertices.device
    from latent3d.rendering.meshes_numba import GREY_SHADE, TEXTURE, VERTEX_COLORS, render_share

    source = TEXTURE if mesh.texture is not None else GREY_SHADE if mesh.colors is None else VERTEX_COLORS
    texture = mesh.texture if mesh.texture is not None else mesh.vertices.new_zeros(3, 1, 1)
    uvs = mesh.uvs if mesh.uvs is not None else mesh.vertices.new_zeros(0, 3, 2)
    colors = mesh.colors if mesh.colors is not None else mesh.vertices.new_zeros(0, 3)
    normals = mesh.normals if mesh.normals is not None else mesh.vertices.new_zeros(0, 3, 3)
    repeat = bool(((uvs < -UV_SLACK) | (uvs > 1 + UV_SLACK)).any())
    lamps = np.array([] if light is None else [light.ambient, light.sky, light.head], np.float64)
    views, height, width = len(cameras), cameras.height, cameras.width
    images, faced = (np.zeros((views, 3, height, width), _NUMPY[dtype]) for _ in range(2))
    alphas, depths = (np.zeros((views, height, width), _NUMPY[dtype]) for _ in range(2))
    run_shares(
        render_share, _shares(cameras), vertices, faces, _array(colors), _array(uvs),
        _array(normals).reshape(-1, 3),
        *_pyramid(texture), source, repeat, w2c, k, supersample, lamps, float(near), images, alphas, depths, faced,
    )  # fmt: skip
    image, alpha, depth, normal = (torch.from_numpy(array).to(device) for array in (images, alphas, depths, faced))
    return Views(images=image, cameras=cameras, depths=depth[:, None], normals=normal, alphas=alpha[:, None])


_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> np.ndarray:
    return np.empty(shape, _NUMPY[dtype])


def _array(tensor: Tensor) -> np.ndarray:
    """As the kernels want numbers: float64, contiguous, on the CPU."""
    return np.ascontiguousarray(tensor.detach().to("cpu", torch.float64).numpy())


def _shares(cameras: Cameras) -> int:
    return max(1, min(thread_count(), len(cameras)))


def _checked(
    mesh: Mesh, cameras: Cameras, supersample: int, near: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, faces, w2c and k for the kernels, which trust them."""
    if len(cameras.shape) != 1:
        raise ValueError(f"cameras of a mesh need the batch shape (V,), got {tuple(cameras.shape)}; flatten them first")
    if mesh.vertices.dtype not in _NUMPY:
        raise ValueError(f"meshes are rendered in float32 or float64, not {mesh.vertices.dtype}")
    if supersample < 1 or not near > 0:
        raise ValueError(f"supersample must be at least 1 and near above 0, got {supersample} and {near}")
    count = mesh.vertices.shape[0]
    for name, size in (("colors", count), ("uvs", len(mesh)), ("normals", len(mesh))):
        given = getattr(mesh, name)
        if given is not None and given.shape[0] != size:
            raise ValueError(f"a mesh with {count} vertices and {len(mesh)} faces has {given.shape[0]} '{name}'")
    parts = {name: getattr(mesh, name) for name in ("vertices", "colors", "uvs", "texture", "normals")}
    for name, tensor in (parts | {"w2c": cameras.w2c, "k": cameras.k}).items():
        if tensor is not None and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"'{name}' holds values that are not finite")
    if len(mesh) and (int(mesh.faces.min()) < 0 or int(mesh.faces.max()) >= count):
        raise ValueError(f"faces name vertices outside 0 to {count - 1}")
    faces = np.ascontiguousarray(mesh.faces.detach().to("cpu", torch.int64).numpy())
    return _array(mesh.vertices), faces, _array(cameras.w2c), _array(cameras.k)


def _pyramid(texture: Float[Tensor, "3 t u"]) -> tuple[np.ndarray, np.ndarray]:
    """The texture at full, half, quarter ... size: texels (n, 3) float32; start, rows, columns of each (levels, 3)."""
    level = texture.detach().to("cpu", torch.float32)
    parts, table, start = [], [], 0
    while True:
        rows, columns = level.shape[1:]
        parts.append(level.permute(1, 2, 0).reshape(-1, 3))
        table.append((start, rows, columns))
        start += rows * columns
        if rows == columns == 1:
            return torch.cat(parts).numpy(), np.array(table, np.int64)
        level = torch.nn.functional.adaptive_avg_pool2d(level, (max(1, rows // 2), max(1, columns // 2)))
