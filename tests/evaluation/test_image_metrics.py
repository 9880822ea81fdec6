import math

import pytest
import torch
from skimage.metrics import structural_similarity

from latent3d.evaluation.image_metrics import psnr, sharpness, ssim


def _images(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_psnr_is_per_image_then_averaged():
    truth = torch.full((2, 3, 16, 16), 0.5)
    images = truth + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    values = psnr(images, truth)
    torch.testing.assert_close(values, torch.tensor([20.0, 40.0]), atol=1e-4, rtol=0)
    assert values.mean().item() == pytest.approx(30.0, abs=1e-4)
    of_mean = -10 * math.log10(((images - truth) ** 2).mean())
    assert of_mean == pytest.approx(22.97, abs=5e-3)


def test_psnr_clips_and_is_infinite_for_equal_images():
    truth = torch.ones(1, 3, 16, 16)
    assert psnr(truth + 3, truth).item() == math.inf


def test_masked_psnr_reads_only_the_mask():
    truth, mask = _images(1, 3, 16, 16), torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    mask[..., :8] = True
    images = truth.clone()
    images[..., 8:] = 1 - images[..., 8:]
    assert psnr(images, truth, mask).item() == math.inf
    left, right = psnr(images, truth, mask), psnr(images, truth, ~mask)
    assert left > right
    torch.testing.assert_close(right, psnr(images[..., 8:], truth[..., 8:]))
    assert psnr(images, truth, torch.zeros_like(mask)).isnan().all()


@pytest.mark.parametrize("size", [(11, 23), (40, 32)])
def test_ssim_equals_scikit_image(size):
    truth = _images(3, 3, *size)
    images = (truth + 0.2 * _images(3, 3, *size, seed=1)).clamp(0, 1)
    expected = [
        structural_similarity(
            x.numpy(), y.numpy(), win_size=11, gaussian_weights=True, sigma=1.5, data_range=1.0, channel_axis=0
        )
        for x, y in zip(images, truth, strict=True)
    ]
    torch.testing.assert_close(ssim(images, truth), torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0)


def test_ssim_wants_images_as_large_as_its_window():
    with pytest.raises(ValueError, match="larger images"):
        ssim(_images(1, 3, 8, 32), _images(1, 3, 8, 32))


def test_sharpness_of_truth_half_contrast_and_blur():
    truth = _images(2, 3, 32, 32)
    torch.testing.assert_close(sharpness(truth, truth), torch.tensor(1.0, dtype=torch.float64))
    # Halving the contrast quarters the energy: the score is a ratio of squared gradients.
    torch.testing.assert_close(sharpness(truth / 2, truth), torch.tensor(0.25, dtype=torch.float64))
    blurred = torch.nn.functional.avg_pool2d(truth, 3, 1, 1, count_include_pad=False)
    assert sharpness(blurred, truth) < 0.3


def test_sharpness_ignores_edges_across_the_mask():
    truth = _images(1, 3, 32, 32)
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[..., :16] = True
    images = torch.where(mask, truth, torch.zeros_like(truth))
    torch.testing.assert_close(sharpness(images, truth, mask), torch.tensor(1.0, dtype=torch.float64))
    assert sharpness(images, truth, torch.zeros_like(mask)).isnan()
    assert sharpness(truth, torch.zeros_like(truth)).isnan()
