"""One call that renders Gaussian splats: checks, choice of back end, channels in and out.

Letters: V views, N splats, C channels.
"""

from __future__ import annotations

import functools
import importlib
import math
import warnings
from dataclasses import fields
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.rendering import splats_gsplat, splats_reference, splats_torch
from latent3d.rendering.base import LOW_PASS_PX, NEAR, Rendering, TritonOptions
from latent3d.rendering.harmonics import view_dependent_colors
from latent3d.rendering.projection import project_splats
from latent3d.representations.gaussians import Gaussians

Backend = Literal["auto", "reference", "torch", "numba", "triton", "gsplat"]
BACKENDS: tuple[Backend, ...] = ("auto", "reference", "torch", "numba", "triton", "gsplat")
_SHAPES = {
    "means": (3,), "quaternions": (4,), "scales": (3,), "opacities": (), "colors": (3,), "features": (None,),
    "harmonics": (None, 3),
}  # fmt: skip
_TRITON = TritonOptions()


def render_gaussians(
    gaussians: Gaussians,
    cameras: Cameras,
    *,
    backend: Backend = "auto",
    low_pass: float = LOW_PASS_PX,
    near: float = NEAR,
    background: Float[Tensor, "*v 3"] | None = None,
    antialiased: bool = False,
    triton: TritonOptions = _TRITON,
) -> Rendering:
    """Splat colours and features of one scene into all cameras at once, differentiably.

    Gradients reach means, quaternions, scales, opacities, colours, features, harmonics and the cameras' ``w2c`` and
    ``k``. Splats of equal depth are blended in input order. On the CPU the result is bitwise reproducible for a fixed
    number of threads. Autocast is switched off inside: half-precision inputs are rendered in float32.

    Args:
        gaussians: N splats; N may be 0. Needs no colours or features: depth and alpha are always there.
        cameras: V >= 1 cameras, batch shape (V,).
        backend: ``"reference"`` (all pairs), ``"torch"`` (tiles, any device), ``"numba"`` (CPU), ``"triton"`` (GPU), or
            ``"auto"``: numba on the CPU and triton on CUDA devices where they can be used, else torch. ``"gsplat"``
            (NVIDIA GPUs, at most 32 channels) is another project's, to compare with; `splats_gsplat` tells how it
            differs.
        low_pass: added to the diagonal of each 2D covariance, in square pixels, > 0.
        near: splats with z-depth at or below this are dropped, in scene units, > 0.
        background: colour (3,) or one per view (V, 3) behind the splats; black if None. Features get none.
        antialiased: lower each opacity by sqrt(det / det after the low-pass), so that sub-pixel splats keep their
            mass (Mip-Splatting, Yu et al. 2024).
        triton: precision of the Triton back end, and whether it may wait for the device; the others ignore it.

    Raises:
        ValueError: for wrong shapes, NaN or infinite values (naming the field), or an unknown or unfit back end.
    """
    device = gaussians.means.device
    run = _choose(backend, device)
    _check(gaussians, cameras, low_pass, near, finite=run != "triton" or triton.entries is None)
    with torch.autocast(device_type=device.type, enabled=False):
        dtype = torch.float64 if gaussians.means.dtype == torch.float64 else torch.float32
        gaussians, cameras = gaussians.to(dtype), cameras.to(dtype)
        channels = _channels(gaussians, cameras)
        settings = (cameras.height, cameras.width, float(low_pass), float(near), antialiased)
        images, depth, alpha = _render(run, gaussians, cameras, channels, settings, triton)
        rgb, features = _split(gaussians, images)
        if rgb is not None and background is not None:
            color = torch.as_tensor(background, dtype=dtype, device=device)
            rgb = rgb + (1 - alpha) * color.expand(len(cameras), 3)[:, :, None, None]
        return Rendering(rgb=rgb, features=features, depth=depth, alpha=alpha)


def _split(
    gaussians: Gaussians, images: Float[Tensor, "v channels h w"]
) -> tuple[Float[Tensor, "v 3 h w"] | None, Float[Tensor, "v c h w"] | None]:
    """Colours and features as rendered. Images of one kind stay as they are, whose gradient then needs no copy; of two,
    the parts may be changed in place ("unsafe" to torch only if the whole were used as well)."""
    if gaussians.colors is None or gaussians.features is None:
        return None if gaussians.colors is None else images, None if gaussians.features is None else images
    rgb, features = torch.unsafe_split_with_sizes(images, [3, images.shape[1] - 3], 1)
    return rgb, features


def _render(
    run: str, gaussians: Gaussians, cameras: Cameras, channels: Tensor, settings: tuple, triton: TritonOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one back end: images, depth and alpha."""
    geometry = (gaussians.means, gaussians.quaternions, gaussians.scales, gaussians.opacities)
    views = (cameras.w2c, cameras.k)
    if run == "numba":
        from latent3d.rendering import splats_numba

        if not (torch.is_grad_enabled() and any(view.requires_grad for view in views)):
            return splats_numba.render(*geometry, channels, *views, *settings)
        blend = splats_numba.blend
    elif run == "triton":
        from latent3d.rendering import splats_triton

        if not (torch.is_grad_enabled() and any(view.requires_grad for view in views)):
            return functools.partial(splats_triton.render, options=triton)(*geometry, channels, *views, *settings)
        blend = functools.partial(splats_triton.blend, options=triton)
    elif run == "gsplat":
        return splats_gsplat.render(*geometry, channels, *views, *settings)
    else:
        blend = {"torch": splats_torch.blend, "reference": splats_reference.blend}[run]
    return blend(project_splats(*geometry, *views, *settings), channels, cameras.height, cameras.width)


def _channels(gaussians: Gaussians, cameras: Cameras) -> Float[Tensor, "v_or_1 n c"]:
    """All channels of the splats, once for all views, or per view if colours depend on the view."""
    colors, features = gaussians.colors, gaussians.features
    parts = [] if colors is None else [colors[None]]
    if colors is not None and gaussians.harmonics is not None:
        parts = [view_dependent_colors(colors, gaussians.harmonics, gaussians.means, cameras.centers)]
    if features is not None:
        # [None] rather than expand where both do: its gradient is a view, not a sum
        each = features[None]
        parts.append(each if not parts or len(parts[0]) == 1 else each.expand(len(parts[0]), -1, -1))
    if not parts:
        return gaussians.means.new_zeros(1, len(gaussians), 0)
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def _check(gaussians: Gaussians, cameras: Cameras, low_pass: float, near: float, *, finite: bool) -> None:
    if len(cameras.shape) != 1 or cameras.shape[0] == 0:
        raise ValueError(f"render_gaussians takes cameras of batch shape (V,), V >= 1, got {tuple(cameras.shape)}")
    if not low_pass > 0 or not near > 0:
        raise ValueError(f"low_pass and near must be positive, got {low_pass} and {near}")
    if gaussians.harmonics is not None and gaussians.colors is None:
        raise ValueError("harmonics are added to colours; give `colors` too")
    values = {"the cameras' w2c": cameras.w2c, "the cameras' k": cameras.k}
    for field in fields(gaussians):
        value = getattr(gaussians, field.name)
        if value is None:
            continue
        shape = (len(gaussians), *_SHAPES[field.name])
        matches = len(shape) == value.ndim and all(
            want is None or want == have for want, have in zip(shape, value.shape, strict=True)
        )
        if not matches:
            raise ValueError(f"the splats' {field.name} have shape {tuple(value.shape)}, expected {shape}")
        values[f"the splats' {field.name}"] = value
    if finite:
        _check_finite(values)


@torch.no_grad()
def _check_finite(values: dict[str, Tensor]) -> None:
    """A finite sum proves finite summands in one pass and one answer of the device; else each is looked at closely."""
    if all(value.device.type == "cpu" and value.element_size() >= 4 for value in values.values()):
        # not by torch: its threads would wait for more work by spinning, on the very cores that render next
        with np.errstate(over="ignore", invalid="ignore"):
            total = sum(float(value.detach().numpy().sum()) for value in values.values())
    else:
        total = torch.stack([value.sum(dtype=value.dtype).double() for value in values.values()]).sum().item()
    if math.isfinite(total):
        return
    for name, value in values.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} hold NaN or infinite values; nothing was rendered")


def _choose(backend: str, device: torch.device) -> str:
    if backend not in BACKENDS:
        raise ValueError(f"unknown back end '{backend}'; choose one of {', '.join(BACKENDS)}")
    if backend == "numba":
        if device.type != "cpu":
            raise ValueError(f"the numba back end renders on the CPU, the splats are on '{device}'; use 'torch'")
        if _numba_error() is not None:
            raise ValueError(f"the numba back end cannot be used ({_numba_error()}); install numba or use 'torch'")
    if backend == "triton" and _triton_error(device.type) is not None:
        raise ValueError(f"the triton back end cannot be used ({_triton_error(device.type)}); use 'torch'")
    if backend == "gsplat":
        splats_gsplat.check(device)
    if backend != "auto":
        return backend
    if device.type not in ("cpu", "cuda"):
        return "torch"
    fast, error = ("numba", _numba_error()) if device.type == "cpu" else ("triton", _triton_error(device.type))
    if error is None:
        return fast
    _say_slow(fast, error)
    return "torch"


@functools.cache
def _numba_error() -> str | None:
    """Why the numba back end cannot be imported, or None if it can."""
    try:
        importlib.import_module("latent3d.rendering.splats_numba")
    except ImportError as error:
        return str(error)
    return None


@functools.cache
def _triton_error(device: str) -> str | None:
    """Why the Triton back end cannot be used with tensors of a type of device, or None if it can."""
    try:
        splats_triton = importlib.import_module("latent3d.rendering.splats_triton")
    except ImportError as error:
        return str(error)
    return splats_triton.unusable(device)


@functools.cache
def _say_slow(fast: str, error: str) -> None:
    warnings.warn(
        f"rendering splats with the slower 'torch' back end: {fast} is not usable ({error}); install {fast}",
        RuntimeWarning,
        stacklevel=4,
    )
