"""What a camera adds to a clean rendering: white balance, vignetting, sharpness, sensor noise. Mild, drawn per clip."""

from __future__ import annotations

import numpy as np

from latent3d.worlds.colours import srgb_from_linear


def blur(images: np.ndarray, amount: float) -> np.ndarray:
    """Separable three-tap blur of (V, H, W, 3) with weights (a, 1 - 2a, a), edges repeated; sharpens where a < 0."""
    for axis in (1, 2):
        size = images.shape[axis]
        ahead = np.take(images, np.minimum(np.arange(size) + 1, size - 1), axis)
        back = np.take(images, np.maximum(np.arange(size) - 1, 0), axis)
        images = (1 - 2 * amount) * images + amount * (ahead + back)
    return images


def photograph(colours: np.ndarray, seed: np.random.SeedSequence | None, num_views: int) -> np.ndarray:
    """Linear light (V, H, W, 3) in [0, 1] to sRGB float32, with the effects of a drawn camera unless ``seed`` is None.

    All views of a clip share the camera; only the noise differs, and its stream for the first ``num_views`` views does
    not depend on how many further views follow.
    """
    if seed is None:
        return srgb_from_linear(colours).astype(np.float32)
    rng = np.random.default_rng(seed)
    _, height, width, _ = colours.shape
    balance = np.exp(rng.normal(size=3) * np.array([0.05, 0.02, 0.06]))
    corner, softness, noise = 0.35 * rng.random() ** 2, 0.13 * rng.random() - 0.1, 0.012 * rng.random() ** 2
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    shade = 1 - corner * (x * x + y * y) / 2
    images = colours * (balance * shade[..., None]).astype(np.float32)
    images = srgb_from_linear(np.clip(blur(images, softness), 0, 1))
    grain = np.random.default_rng(rng.integers(1 << 62)).standard_normal(
        (num_views, height, width, 3), dtype=np.float32
    )
    rest = np.random.default_rng(rng.integers(1 << 62)).standard_normal(
        (len(images) - num_views, height, width, 3), dtype=np.float32
    )
    return np.clip(images + noise * np.concatenate([grain, rest]), 0, 1).astype(np.float32)
