"""Structural similarity of pictures: what refinement optimises and what evaluation scores."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.geometry.precision import full_precision


@full_precision
def ssim(
    images: Float[Tensor, "v c h w"],
    truth: Float[Tensor, "v c h w"],
    *,
    window: int = 11,
    sigma: float = 1.5,
    data_range: float = 1.0,
) -> Float[Tensor, " v"]:
    """Structural similarity per image (Wang et al. 2004), averaged over channels and over whole windows only.

    Gaussian window, and the sample covariance N / (N - 1) with N = window^2: the values of scikit-image's
    ``structural_similarity(..., win_size=11, gaussian_weights=True, data_range=1)``, the protocol of pixelSplat.
    Differentiable. Windows are sums by banded matrices, on small pictures three times as fast as convolutions.

    Args:
        images, truth: (V, C, H, W) with H and W of at least ``window`` pixels.
        window: side of the window in pixels, odd.
        sigma: standard deviation of the window in pixels.
        data_range: largest value minus smallest value that an image may hold.

    Raises:
        ValueError: if the images are smaller than the window.
    """
    height, width = images.shape[-2:]
    if min(height, width) < window:
        raise ValueError(f"SSIM with a window of {window} px needs larger images than {height} x {width}")
    down = _window_sums(images, height, window, sigma)
    along = _window_sums(images, width, window, sigma).mT
    moments = torch.stack([images, truth, images.square(), truth.square(), images * truth])
    mean_x, mean_y, square_x, square_y, product = (down @ moments @ along).unbind(0)
    sample = window**2 / (window**2 - 1)
    var_x = sample * (square_x - mean_x.square())
    var_y = sample * (square_y - mean_y.square())
    cov = sample * (product - mean_x * mean_y)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    top = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    bottom = (mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2)
    return (top / bottom).flatten(1).mean(1)


def _window_sums(like: Tensor, size: int, window: int, sigma: float) -> Float[Tensor, "out size"]:
    """Matrix whose rows are the Gaussian window at every place where it fits whole, (size - window + 1, size)."""
    places = torch.arange(size - window + 1, dtype=like.dtype, device=like.device)
    ticks = torch.arange(size, dtype=like.dtype, device=like.device) - places[:, None] - window // 2
    rows = torch.exp(-0.5 * (ticks / sigma).square()) * (ticks.abs() <= window // 2)
    return rows / rows[0].sum()
