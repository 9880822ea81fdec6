"""Views at another size show the same from the same place; views of other objects are theirs."""

import pytest
import torch

from latent3d.object_presets import ln3diff_shapes_tiny
from latent3d.representations.objects import ObjectViews
from latent3d.representations.views import Views
from latent3d.systems.object_views import views_at, with_others_views


@pytest.fixture(scope="module")
def batch() -> ObjectViews:
    config = ln3diff_shapes_tiny()
    return config.data.stream(config.stages[0].replace(batch_size=3), 0).batch(0)


def test_smaller_views_show_the_same_from_the_same_place(batch: ObjectViews):
    views = batch.views
    small = views_at(views, 16)
    assert small.images.shape == (*views.shape, 3, 16, 16)
    assert (small.cameras.height, small.cameras.width) == (16, 16)
    points = torch.rand(5, 3) - 0.5
    (large_uv, _), (small_uv, _) = views[0, 0].cameras.project(points), small[0, 0].cameras.project(points)
    torch.testing.assert_close(small_uv, large_uv / 2)
    flat = torch.nn.functional.avg_pool2d(views.images.flatten(0, 1), 2).unflatten(0, views.shape)
    assert (small.images - flat).abs().mean() < 0.02
    known = set(views.depths.flatten().tolist())
    assert set(small.depths.flatten().tolist()) <= known
    assert views_at(views, 32) is views


def test_channels_that_are_not_there_stay_away(batch: ObjectViews):
    plain = Views(batch.views.images, batch.views.cameras)
    small = views_at(plain, 8)
    assert small.depths is None
    assert small.normals is None
    assert small.alphas is None


def test_objects_are_also_seen_from_where_the_next_one_was(batch: ObjectViews):
    more = with_others_views(batch)
    v = batch.shape[1]
    assert more.shape == (3, 2 * v)
    assert (more.inputs, more.captions) == (batch.inputs, batch.captions)
    for i in range(3):
        own, other = more.views[i, :v], more.views[i, v:]
        for name in ("images", "depths", "normals", "alphas"):
            assert torch.equal(getattr(own, name), getattr(batch.views, name)[i])
            assert torch.equal(getattr(other, name), getattr(batch.views, name)[(i + 1) % 3])
        assert torch.equal(other.cameras.w2c, batch.views.cameras.w2c[(i + 1) % 3])
        assert torch.equal(other.cameras.k, batch.views.cameras.k[(i + 1) % 3])
    with pytest.raises(ValueError, match="at least two objects"):
        with_others_views(batch[:1])
