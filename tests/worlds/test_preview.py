"""Contact sheets."""

import pytest
import torch

from latent3d.worlds import contact_sheet, sample_clip
from latent3d.worlds.camera_effects import blur
from latent3d.worlds.preview import depth_picture


def test_sheet_shows_the_images_in_its_first_rows():
    sheet = contact_sheet("objects", "val", 2, num_views=3, height=24, width=32)
    assert sheet.size == (3 * 32, 2 * 3 * 24)
    clip = sample_clip("objects", "val", 1, num_views=3, height=24, width=32)
    pixel = torch.tensor(sheet.getpixel((32 + 5, 3 * 24 + 7))) / 255
    assert torch.allclose(pixel, clip.images[1, :, 7, 5], atol=0.51 / 255)


def test_near_is_bright():
    picture = depth_picture(torch.tensor([1.0, 2.0, 8.0, 20.0]).reshape(1, 1, 2, 2))
    values = picture[0, 0].flatten()
    assert (values.diff() < 0).all()


def test_count_must_be_positive():
    with pytest.raises(ValueError, match="at least one clip"):
        contact_sheet("rooms", count=0)


def test_blur_keeps_flat_pictures():
    flat = torch.full((1, 5, 6, 3), 0.3).numpy()
    assert blur(flat, -0.1) == pytest.approx(flat)
