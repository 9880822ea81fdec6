"""SSIM as a loss: known values and exact gradients (its values against scikit-image: tests/evaluation)."""

from __future__ import annotations

import torch

from latent3d.rendering.similarity import ssim


def test_equal_pictures_are_alike_and_an_offset_lowers_the_brightness_term_only():
    x = torch.rand(2, 3, 12, 15, dtype=torch.float64)
    torch.testing.assert_close(ssim(x, x), torch.ones(2, dtype=torch.float64))
    flat = torch.full((1, 3, 11, 11), 0.5, dtype=torch.float64)
    expected = (2 * 0.5 * 0.7 + 1e-4) / (0.5**2 + 0.7**2 + 1e-4)
    torch.testing.assert_close(ssim(flat, flat + 0.2), torch.tensor([expected], dtype=torch.float64))


def test_gradients_are_exact():
    x, y = torch.rand(2, 1, 2, 12, 13, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda picture: ssim(picture, y), x.requires_grad_())
