"""gsplat (Ye et al. 2025, https://github.com/nerfstudio-project/gsplat) as a back end: an adapter of its arguments.

gsplat is never needed: it is here to be compared with. It renders the same first-order projection with the same stop
at a transmittance of 1e-4, the same least alpha of 1/255, order by depth and low-pass, but differs in these details:

- An alpha is clamped to 0.99 from version 1.6 on, as here, and to 0.999 before; splats of higher opacity then look
  different. Compare versions before 1.6 on opacities below 0.99.
- The backward pass recovers the final transmittance as 1 - alpha in float32, which costs digits where pixels are
  nearly opaque; the other back ends keep it.
- The determinant of a 2D covariance is a difference of products, which float32 loses for long thin splats.
- A splat exactly at the near plane is drawn, and none beyond a depth of 1e10.
- It has no gradient for intrinsics and no float64, and float atomics make its gradients differ from run to run.

Letters: V views, N splats, C channels.
"""

from __future__ import annotations

import importlib

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from latent3d.rendering.projection import LEAST_ALPHA

CHANNELS_MAX = 32
"""gsplat cuts more channels than this into pieces and blends everything once per piece; other back ends do better."""


def check(device: torch.device) -> None:
    """Whether gsplat can render there.

    Raises:
        ValueError: if the device is no NVIDIA GPU, or gsplat cannot be imported.
    """
    if device.type != "cuda":
        raise ValueError(f"the gsplat back end renders on NVIDIA GPUs, the splats are on '{device}'; use 'torch'")
    try:
        importlib.import_module("gsplat")
    except ImportError as error:
        message = f"the gsplat back end cannot be used ({error}); install gsplat (it needs nvcc) or use 'torch'"
        raise ValueError(message) from error


def render(
    means: Float[Tensor, "n 3"],
    quaternions: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    channels: Float[Tensor, "v_or_1 n c"],
    w2c: Float[Tensor, "v 4 4"],
    k: Float[Tensor, "v 3 3"],
    height: int,
    width: int,
    low_pass: float,
    near: float,
    antialiased: bool,
    channels_max: int = CHANNELS_MAX,
) -> tuple[Float[Tensor, "v c h w"], Float[Tensor, "v 1 h w"], Float[Tensor, "v 1 h w"]]:
    """Images, expected depth and alpha, with gradients to all but ``k``.

    Raises:
        ValueError: for more than ``channels_max`` channels (benchmarks allow more than gsplat blends at once), another
            dtype than float32, or intrinsics that need a gradient.
    """
    count = channels.shape[-1]
    if count > channels_max:
        raise ValueError(f"the gsplat back end takes at most {channels_max} channels, found {count}; use 'torch'")
    if means.dtype != torch.float32:
        raise ValueError(f"the gsplat back end computes in float32, the splats are {means.dtype}; use 'torch'")
    if torch.is_grad_enabled() and k.requires_grad:
        raise ValueError("the gsplat back end has no gradient for the cameras' k; use 'torch' or detach k")
    values = channels if channels.shape[0] > 1 else channels[0]
    if count == 0:  # one that is thrown away: gsplat promises nothing for none
        values = means.new_zeros(means.shape[0], 1)
    colors, alphas, _ = importlib.import_module("gsplat").rasterization(
        means=means,
        quats=quaternions,
        scales=scales,
        opacities=opacities,
        colors=values,
        viewmats=w2c,
        Ks=k,
        width=width,
        height=height,
        near_plane=near,
        eps2d=low_pass,
        packed=False,
        render_mode="RGB+D",
        rasterize_mode="antialiased" if antialiased else "classic",
        channel_chunk=CHANNELS_MAX + 1,  # the depth is one channel more, and up to 32 go in one piece with it
    )
    colors, alphas = (rearrange(image, "v h w c -> v c h w").contiguous() for image in (colors, alphas))
    return colors[:, :count], colors[:, -1:] / alphas.clamp_min(LEAST_ALPHA), alphas
