"""World streams, reading ahead, and the choice of frames."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.tiny_family import sample_wall
from latent3d.data.scenes import WorldStream, prefetch
from latent3d.data.view_sampling import ViewSampling, crop_views, recolored
from latent3d.geometry.cameras import Cameras
from latent3d.representations.views import Views


def stream(**changes):
    options = {"size": (8, 12), "sampler": sample_wall, "seed": 2} | changes
    return WorldStream("wall", 3, options.pop("sampling", ViewSampling(views=3, novel=1)), **options)


def test_no_clip_comes_twice_and_ranks_differ():
    ranks = [stream(rank=rank, world_size=2) for rank in range(2)]
    names = [name for step in range(4) for one in ranks for name in one.describe(step)]
    assert len(set(names)) == len(names) == 24
    assert names[0] == "wall/train/20000000"


def test_workers_do_not_change_batches():
    single, several = stream(), stream(workers=2)
    for step in (5, 1):
        expected, found = single.batch(step), several.batch(step)
        assert expected.shape == (3, 4)
        assert torch.equal(expected.images, found.images)
        assert torch.equal(expected.depths, found.depths)
        assert torch.equal(expected.cameras.w2c, found.cameras.w2c)
    assert several._start().submit(signal.getsignal, signal.SIGINT).result() == signal.SIG_IGN  # Ctrl-C ends the parent
    several.close()
    assert several._pool is None


def test_the_worlds_are_read_through_the_stream():
    worlds, again = (WorldStream("rooms", 1, ViewSampling(views=2), split="val", size=16) for _ in range(2))
    batch = worlds.batch(0)
    assert batch.images.shape == (1, 2, 3, 16, 16)
    assert batch.images.std() > 0.02
    assert torch.equal(batch.images, again.batch(0).images)


def test_prefetch_keeps_order_and_ends():
    source = stream()
    found = list(prefetch(source, 2, 6))
    assert [step for step, _ in found] == [2, 3, 4, 5]
    assert all(torch.equal(batch.images, source.batch(step).images) for step, batch in found)
    assert list(prefetch(source, 4, 4)) == []
    endless = prefetch(source)
    assert [next(endless)[0] for _ in range(3)] == [0, 1, 2]
    endless.close()


def test_prefetch_raises_where_the_batch_is_asked_for():
    def broken(family, split, index, **options):
        if index == 6:
            raise ValueError("clip 6 is broken")
        return sample_wall(family, split, index, **options)

    batches = prefetch(stream(sampler=broken, seed=0), 0, 5, depth=3)
    assert [next(batches)[0] for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="clip 6"):
        next(batches)


@given(
    views=st.integers(1, 6),
    novel=st.integers(0, 4),
    path=st.integers(1, 8),
    extra=st.integers(0, 4),
    seed=st.integers(0),
)
def test_chosen_frames_are_different_and_in_path_order(views, novel, path, extra, seed):
    sampling = ViewSampling(views=views, novel=novel)
    if views > path or views + novel > path + extra:
        with pytest.raises(ValueError, match="render clips with more frames"):
            sampling.check(path, extra)
        return
    sampling.check(path, extra)
    frames = sampling.choose(np.random.default_rng(seed), path, extra)
    assert len(set(frames)) == views + novel
    assert list(frames[:views]) == sorted(frames[:views])
    assert frames[:views].max() < path
    assert frames.max() < path + extra
    backwards = sampling.replace(reverse=1.0).choose(np.random.default_rng(seed), path, extra)
    assert list(backwards[:views]) == list(frames[:views][::-1])
    assert list(backwards[views:]) == list(frames[views:])


@given(views=st.integers(1, 4), novel=st.integers(0, 3), path=st.integers(0, 5), seed=st.integers(0))
def test_views_without_an_order_are_drawn_from_all_frames(views, novel, path, seed):
    sampling = ViewSampling(mode="frames", views=views, novel=novel)
    frames = sampling.choose(np.random.default_rng(seed), path, 7 - path)
    assert len(set(frames)) == views + novel
    assert list(frames) == list(np.random.default_rng(seed).permutation(7)[: views + novel])
    with pytest.raises(ValueError, match="render clips with more frames"):
        sampling.check(views + novel - 1, 0)


def test_wrong_choices_are_refused():
    with pytest.raises(ValueError, match="mode 'any'"):
        ViewSampling(mode="any")
    with pytest.raises(ValueError, match="views >= 1"):
        ViewSampling(views=0)


def test_cropped_views_show_the_same_points_magnified():
    """What stood at a pixel centre of the window stands at the magnified place, with its depth."""
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(12.0), indexing="ij")
    k = torch.tensor([[20.0, 0, 5.0], [0, 21.0, 4.0], [0, 0, 1]])
    ramp = (rows * 100 + columns)[None, None]
    views = Views(
        images=torch.rand(1, 3, 8, 12),
        cameras=Cameras(w2c=torch.eye(4)[None], k=k[None], height=8, width=12),
        depths=ramp + 1,
    )
    cropped = crop_views(views, 0.5, 1.0, 0.5)
    assert cropped.images.shape == views.images.shape
    assert torch.equal(cropped.depths[0, 0, ::2, ::2], views.depths[0, 0, 2:6, 6:])
    point = torch.tensor([[[0.1, -0.05, 1.0]]])
    old, new = views.cameras.project(point)[0][0, 0], cropped.cameras.project(point)[0][0, 0]
    torch.testing.assert_close(new, (old - torch.tensor([6.0, 2.0])) * 2)
    whole = crop_views(views, 1.0, 0.3, 0.7)
    assert torch.equal(whole.images, views.images)
    assert torch.equal(whole.cameras.k, views.cameras.k)


def test_recoloured_pictures_stay_in_range_and_keep_their_edges():
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    images[..., 2:, :] = 0.5  # a flat half
    found = recolored(images, 1.0, np.random.default_rng(3))
    assert found.min() >= 0
    assert found.max() <= 1
    assert not torch.allclose(found, images, atol=0.05)
    flat = found[..., 2:, :]
    assert torch.equal(flat, flat[:1, :, :1, :1].expand_as(flat))
    torch.testing.assert_close(recolored(images, 0.0, np.random.default_rng(3)), images.clamp(1e-4, 1))


def test_mirrored_views_are_views_of_a_mirrored_world():
    """A point and its mirror image project to mirrored pixels; mirroring twice changes nothing."""
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(2, 3, 3, generator=generator)).Q
    rotation = rotation * torch.det(rotation)[:, None, None]
    w2c = torch.eye(4).repeat(2, 1, 1)
    w2c[:, :3, :3], w2c[:, :3, 3] = rotation, torch.randn(2, 3, generator=generator)
    k = torch.tensor([[20.0, 0, 5.0], [0, 21.0, 4.0], [0, 0, 1]]).expand(2, 3, 3)
    views = Views(
        images=torch.rand(2, 3, 8, 12, generator=generator),
        cameras=Cameras(w2c=w2c, k=k, height=8, width=12),
        depths=torch.rand(2, 1, 8, 12, generator=generator),
        normals=torch.randn(2, 3, 8, 12, generator=generator),
    )
    mirrored = views.mirrored()
    points = torch.randn(2, 5, 3, generator=generator)
    pixels, depths = views.cameras.project(points)
    flipped, same = mirrored.cameras.project(points * torch.tensor([-1.0, 1, 1]))
    torch.testing.assert_close(flipped[..., 0], 12 - pixels[..., 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(flipped[..., 1], pixels[..., 1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(same, depths)
    assert torch.equal(mirrored.images[..., 0], views.images[..., 11])
    assert torch.equal(mirrored.normals[:, 0, :, 0], -views.normals[:, 0, :, 11])
    torch.testing.assert_close(torch.det(mirrored.cameras.w2c[:, :3, :3]), torch.ones(2))
    back = mirrored.mirrored()
    assert torch.equal(back.images, views.images)
    assert torch.equal(back.cameras.w2c, views.cameras.w2c)
    assert torch.equal(back.cameras.k, views.cameras.k)
    assert torch.equal(back.normals, views.normals)
