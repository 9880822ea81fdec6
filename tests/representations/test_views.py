"""`Views`: images, cameras and optional channels move together."""

import pytest
import torch

from latent3d.geometry.cameras import Cameras
from latent3d.representations.views import Views


def _draw(*shape, seed=0, depths=True, normals=True, height=4, width=6):
    generator = torch.Generator().manual_seed(seed)

    def rand(channels):
        return torch.rand(*shape, channels, height, width, generator=generator)

    c2w = torch.eye(4).repeat(*shape, 1, 1)
    c2w[..., :3, 3] = torch.rand(*shape, 3, generator=generator)
    return Views(
        images=rand(3),
        cameras=Cameras.from_fov(c2w, 60.0, height, width),
        depths=rand(1) if depths else None,
        normals=rand(3) if normals else None,
    )


def test_selection_takes_the_same_views_everywhere():
    views = _draw(5)
    order = torch.tensor([3, 0])
    chosen = views[order]
    assert len(chosen) == 2
    for name in ("images", "depths", "normals"):
        assert torch.equal(getattr(chosen, name), getattr(views, name)[order])
    assert torch.equal(chosen.cameras.w2c, views.cameras.w2c[order])
    assert torch.equal(chosen.cameras.k, views.cameras.k[order])
    assert (chosen.cameras.height, chosen.cameras.width) == (4, 6)


def test_stack_makes_a_batch_and_indexing_takes_it_apart():
    scenes = [_draw(3, seed=seed) for seed in range(2)]
    batch = Views.stack(scenes)
    assert batch.shape == batch.cameras.shape == (2, 3)
    for index, scene in enumerate(scenes):
        assert torch.equal(batch[index].images, scene.images)
        assert torch.equal(batch[index].depths, scene.depths)
        assert torch.equal(batch[index].cameras.w2c, scene.cameras.w2c)


def test_stack_keeps_only_channels_that_all_scenes_have():
    batch = Views.stack([_draw(3), _draw(3, normals=False)])
    assert batch.normals is None
    assert batch.depths.shape == (2, 3, 1, 4, 6)


def test_stack_refuses_scenes_of_unlike_size():
    with pytest.raises(RuntimeError):
        Views.stack([_draw(3), _draw(2)])


def test_casting_reaches_images_cameras_and_depths():
    views = _draw(2, normals=False).to(torch.float64)
    assert views.images.dtype == views.depths.dtype == views.cameras.w2c.dtype == views.cameras.k.dtype == torch.float64
    assert views.normals is None
