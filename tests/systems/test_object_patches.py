"""Crops: where they lie, and that their rays and pixels are those of the whole picture."""

from __future__ import annotations

import pytest
import torch

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.rays import camera_rays
from latent3d.systems.object_patches import as_images, cut, patch_boxes, patch_cameras, patch_rays


@pytest.fixture
def cameras():
    """(2 objects, 3 views) of 20 x 30 pixels, all different."""
    c2w = torch.eye(4).repeat(2, 3, 1, 1)
    c2w[..., :3, 3] = torch.rand(2, 3, 3)
    found = Cameras.from_fov(c2w, 50.0, 20, 30)
    k = found.k.clone()
    k[..., 0, 2] += torch.rand(2, 3)
    return Cameras(found.w2c, k, 20, 30)


def square(top, left, bottom, right, shape=(2, 3, 1, 20, 30)):
    alphas = torch.zeros(shape)
    alphas[..., top:bottom, left:right] = 1
    return alphas


def test_crops_show_the_pixels_of_the_whole_picture(cameras):
    """Rays and pixels of a crop are those of the picture, bit for bit where they are copied."""
    boxes = patch_boxes(square(4, 5, 15, 28), 6, 4, generator=torch.Generator().manual_seed(0))
    images = torch.rand(2, 3, 5, 20, 30)
    crops = cut(images, boxes)
    origins, directions = patch_rays(cameras, boxes)
    whole = camera_rays(cameras)
    assert crops.shape == (2, 12, 5, 6, 6)
    assert origins.shape == directions.shape == (2, 12 * 36, 3)
    assert patch_cameras(cameras, boxes).shape == (2, 12)
    by_crop = [as_images(rays, boxes) for rays in (origins, directions)]
    for i in range(2):
        for v in range(3):
            for p in range(4):
                top, left = boxes.corners[i, v, p].tolist()
                window = (slice(top, top + 6), slice(left, left + 6))
                assert torch.equal(crops[i, 4 * v + p], images[i, v, :, *window])
                for mine, full in zip(by_crop, whole, strict=True):
                    torch.testing.assert_close(mine[i, 4 * v + p].permute(1, 2, 0), full[i, v][window])


def test_crops_lie_around_the_object_as_often_as_asked_for():
    """A small object in a corner: crops around it are told by their middle."""
    alphas = square(0, 0, 6, 6, (1, 1, 1, 64, 64))
    boxes = patch_boxes(alphas, 8, 4000, 0.875, torch.Generator().manual_seed(0))
    corners = boxes.corners[0, 0]
    assert corners.min() == 0
    assert corners.max() == 64 - 8
    near = (corners <= 2).all(-1).float().mean()  # middles within the box of 6 pixels; 1 in 361 of the others as well
    assert float(near) == pytest.approx(0.875, abs=0.02)
    nowhere = patch_boxes(torch.zeros_like(alphas), 8, 4000, 1.0, torch.Generator().manual_seed(0)).corners[0, 0]
    counts = torch.bincount(nowhere[:, 0], minlength=57).float() / 4000
    assert len(counts) == 57
    torch.testing.assert_close(counts, torch.full((57,), 1 / 57), atol=0.01, rtol=0)


def test_middles_cover_the_bounding_box_of_each_axis():
    alphas = square(10, 30, 20, 34, (1, 1, 1, 40, 60))
    corners = patch_boxes(alphas, 4, 2000, 1.0, torch.Generator().manual_seed(0)).corners[0, 0]
    assert (int(corners[:, 0].min()), int(corners[:, 0].max())) == (8, 18)
    assert (int(corners[:, 1].min()), int(corners[:, 1].max())) == (28, 32)


def test_crops_follow_the_generator_and_have_to_fit():
    alphas = square(4, 5, 15, 28)
    first, again, other = (patch_boxes(alphas, 5, 3, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first.corners, again.corners)
    assert not torch.equal(first.corners, other.corners)
    whole = patch_boxes(alphas, 20, 2, generator=torch.Generator().manual_seed(0))
    assert (whole.corners[..., 0] == 0).all()
    with pytest.raises(ValueError, match="crops of 21 pixels do not fit into pictures of 30x20"):
        patch_boxes(alphas, 21, 1)
