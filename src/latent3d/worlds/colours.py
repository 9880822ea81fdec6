"""sRGB and linear light (IEC 61966-2-1)."""

from __future__ import annotations

import numpy as np


def linear_from_srgb(colour: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] to linear light (IEC 61966-2-1)."""
    colour = np.asarray(colour, dtype=float)
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(colour: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] to sRGB (IEC 61966-2-1)."""
    return np.where(colour <= 0.0031308, 12.92 * colour, 1.055 * np.maximum(colour, 1e-8) ** (1 / 2.4) - 0.055)
