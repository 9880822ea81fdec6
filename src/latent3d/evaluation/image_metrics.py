"""Image scores against ground truth: PSNR and SSIM per image, sharpness per set, with masks where they make sense.

Per-image numbers are averaged by the caller ("per image, then averaged", as pixelSplat, MVSplat360 and latentSplat do).
The PSNR of the mean squared error over all images is another number: squared errors of 0.01 and 0.0001 give a mean PSNR
of 30.0 dB and a PSNR of the mean of 22.97 dB.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latent3d.rendering.similarity import ssim as ssim

MIN_MASK_PIXELS = 64
"""A masked score of an image with fewer pixels than this under its mask is NaN: too few to mean anything."""


def psnr(
    images: Float[Tensor, "v 3 h w"], truth: Float[Tensor, "v 3 h w"], mask: Bool[Tensor, "v 1 h w"] | None = None
) -> Float[Tensor, " v"]:
    """Peak signal-to-noise ratio per image in dB, -10 log10(MSE), both images clipped to [0, 1] first.

    Args:
        images, truth: sRGB images (V, 3, H, W).
        mask: pixels that count, (V, 1, H, W); all by default.

    Returns:
        (V,); infinite for equal images, NaN where the mask holds fewer than `MIN_MASK_PIXELS` pixels.
    """
    error = (images.clamp(0, 1) - truth.clamp(0, 1)).square().mean(1, keepdim=True)
    return -10 * torch.log10(_masked_mean(error, mask))


def sharpness(
    images: Float[Tensor, "v 3 h w"], truth: Float[Tensor, "v 3 h w"], mask: Bool[Tensor, "v 1 h w"] | None = None
) -> Float[Tensor, ""]:
    """Gradient energy of a set of images over that of its ground truth: 1 is as sharp, below 1 blurred, above 1 noisy.

    sum |grad x|^2 / sum |grad y|^2 with forward differences to the right and down in all three channels; a difference
    counts where both of its pixels lie under the mask. Both sums run over the whole set (the views of one scene), so
    that a view with a small or flat mask does not rule the score. PSNR rewards blur, this does not; read the two
    together, since noise scores above 1.

    Args:
        images, truth: sRGB images (V, 3, H, W), clipped to [0, 1].
        mask: pixels that count (those seen by a reference), (V, 1, H, W); all by default.

    Returns:
        One number; NaN where the mask holds fewer than `MIN_MASK_PIXELS` pixels or the truth is flat under it.
    """
    if mask is None:
        mask = torch.ones_like(images[:, :1], dtype=torch.bool)
    right, down = mask[..., 1:] & mask[..., :-1], mask[..., 1:, :] & mask[..., :-1, :]

    def energy(picture: Tensor) -> Tensor:
        picture = picture.clamp(0, 1)
        return (picture.diff(dim=-1).square() * right).sum() + (picture.diff(dim=-2).square() * down).sum()

    reference = energy(truth)
    if int(mask.sum()) < MIN_MASK_PIXELS or float(reference) == 0:
        return reference.new_tensor(math.nan)
    return energy(images) / reference


def _masked_mean(values: Float[Tensor, "v 1 h w"], mask: Bool[Tensor, "v 1 h w"] | None) -> Float[Tensor, " v"]:
    if mask is None:
        return values.mean((1, 2, 3))
    count = mask.sum((1, 2, 3))
    mean = (values * mask).sum((1, 2, 3)) / count.clamp_min(1)
    return torch.where(count >= MIN_MASK_PIXELS, mean, torch.full_like(mean, math.nan))
