"""Banks of objects: what is written, and what banks and streams read from them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.tiny_family import sample_wall
from data.tiny_objects import Boxes, box
from latent3d.data.object_bank import ObjectBank, ObjectStream, ObjectWorldStream, render_object_bank, view_arrays
from latent3d.data.object_sources import ObjectCameras, ProceduralObjects
from latent3d.data.shards import BankStream, render_bank
from latent3d.data.view_sampling import ViewSampling, crop_views, recolored
from latent3d.geometry.rays import unproject
from latent3d.representations.surface_points import draw_on_surface

FRAMES = ViewSampling(mode="frames", views=2, novel=2)


def make(folder, count=7, source=None, **changes):
    return render_object_bank(folder, source or Boxes(), 10, count, **{"shard_objects": 3} | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make(tmp_path_factory.mktemp("objects"))


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_stored_objects_are_the_rendered_ones_up_to_rounding(folder):
    bank = ObjectBank(folder)
    assert (len(bank), bank.num_views, bank.label_names) == (7, 5, ("box", "cube"))
    assert bank.names == [f"box/{n}" for n in range(10, 17)]
    assert bank.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert bank.captions[2] == ()
    assert bank.captions[0] == ("box 10 one", "box 10 two", "box 10 three")
    for item in (0, 6):
        kept, fresh = bank.sample(item), Boxes()(10 + item)
        assert (kept.views.images - fresh.views.images).abs().max() <= 0.5 / 255 + 1e-6
        assert (kept.views.alphas - fresh.views.alphas).abs().max() <= 0.5 / 255 + 1e-6
        torch.testing.assert_close(kept.views.depths, fresh.views.depths, rtol=2**-11, atol=0)
        assert (kept.views.normals - fresh.views.normals).abs().max() < 0.01
        assert torch.equal(kept.views.cameras.w2c, fresh.views.cameras.w2c)
        assert torch.equal(kept.views.cameras.k, fresh.views.cameras.k)
        torch.testing.assert_close(kept.points, fresh.points, rtol=0, atol=3e-4)
        assert torch.equal(kept.normals, fresh.normals)


def test_a_sample_shows_its_surface(folder):
    """Depths lift to the surface, normals fit it, points lie on it, and alpha is where depth is."""
    sample = Boxes()(11)
    half = sample.points.abs().amax(0)
    on = lambda points: ((points.abs() / half).amax(-1) - 1).abs()  # noqa: E731
    assert on(sample.points).max() < 0.01
    views = sample.views
    seen = views.alphas[:, 0] > 0.99
    surface = unproject(views.cameras, views.depths)
    assert 0.05 < seen.float().mean() < 0.6
    assert on(surface[seen]).max() < 0.01
    facing = torch.nn.functional.one_hot((surface[seen].abs() / half).argmax(-1), 3) * surface[seen].sign()
    normals = views.normals.movedim(1, -1)[seen]
    assert (normals * facing).sum(-1).median() > 0.99
    assert not views.depths[views.alphas == 0].any()
    assert (views.images.movedim(1, -1)[views.alphas[:, 0] == 0] == 1).all()


def test_workers_do_not_change_a_bank(folder, tmp_path):
    assert files(make(tmp_path / "two", workers=2)) == files(folder)


def test_rendering_goes_on_where_it_stopped_and_enlarges(folder, tmp_path):
    done = []
    make(tmp_path / "b", 3, on_objects=done.append)
    make(tmp_path / "b", 5, on_objects=done.append)
    make(tmp_path / "b", on_objects=done.append)
    assert done == [3, 3, 2, 3, 3, 1]
    assert files(tmp_path / "b") == files(folder)


def test_batches_are_a_function_of_the_step(folder):
    forward, other = (ObjectStream(folder, 3, FRAMES, seed=9) for _ in range(2))
    early = [forward.batch(step) for step in range(4)]
    for step in (3, 0, 2):
        again = other.batch(step)
        assert torch.equal(again.views.images, early[step].views.images)
        assert again.captions == early[step].captions
        assert torch.equal(again.labels, early[step].labels)
    assert early[0].shape == (3, 4)
    assert early[0].given.shape == (3, 2)
    assert not torch.equal(early[0].views.images, early[1].views.images)


def test_a_batch_holds_different_views_of_the_objects_it_names(folder):
    stream, bank = ObjectStream(folder, 7, FRAMES), ObjectBank(folder)
    batch, names = stream.batch(0), stream.describe(0)
    assert sorted(names) == sorted(bank.names)
    chosen = set()
    for row, name in enumerate(names):
        item = bank.names.index(name)
        stored = bank.views(item)
        found = [int((stored.cameras.w2c == one).all(-1).all(-1).nonzero()) for one in batch.views.cameras.w2c[row]]
        assert len(set(found)) == 4
        assert torch.equal(batch.views.images[row], stored.images[found])
        assert torch.equal(batch.views.normals[row], stored.normals[found])
        assert batch.labels[row] == bank.labels[item]
        assert batch.captions[row] in (bank.captions[item] or ("",))
        chosen.update(found)
    assert chosen == set(range(5))
    assert len({stream.batch(step).captions[row] for step in range(9) for row in range(7)}) > 12


def test_ranks_and_epochs(folder):
    ranks = [ObjectStream(folder, 2, FRAMES, rank=rank, world_size=3) for rank in range(3)]
    assert len({name for stream in ranks for name in stream.describe(0)}) == 6
    stream = ObjectStream(folder, 1, FRAMES, seed=4)
    assert [stream.describe(step)[0] for step in range(7)] != [stream.describe(step)[0] for step in range(7, 14)]
    assert len(ObjectStream(folder, 1, FRAMES, max_objects=4)) == len(ObjectBank([folder, folder], 4)) == 4
    assert len(ObjectBank([folder, folder])) == 14


def test_fresh_objects_need_no_bank_and_workers_do_not_change_them():
    single = ObjectWorldStream(Boxes(), 2, FRAMES, seed=1)
    several = ObjectWorldStream(Boxes(), 2, FRAMES, seed=1, workers=2)
    batch, same = single.batch(3), several.batch(3)
    several.close()
    assert torch.equal(batch.views.images, same.views.images)
    assert batch.captions == same.captions
    assert single.describe(3) == ["object 10000006", "object 10000007"]
    assert batch.captions[0] in Boxes()(10_000_006).captions
    assert batch.labels.tolist() == [0, 1]
    assert batch.inputs == 2


def test_wrong_banks_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"another bank .different: shade"):
        make(folder, source=Boxes(shade=1.0))
    with pytest.raises(ValueError, match="positive count"):
        make(tmp_path / "n", 0)
    clips = render_bank(tmp_path / "clips", "wall", "train", 0, 1, 2, 0, 8, sampler=sample_wall)
    with pytest.raises(ValueError, match="bank of clips, not of objects"):
        ObjectBank(clips)
    with pytest.raises(ValueError, match="bank of objects, not of clips"):
        BankStream(folder, 1)
    with pytest.raises(ValueError, match="bank of objects, not of clips"):
        render_bank(folder, "wall", "train", 0, 1, 2, 0, 8, sampler=sample_wall)
    with pytest.raises(FileNotFoundError, match=r"bank\.json is missing"):
        ObjectBank(tmp_path)
    other = make(tmp_path / "small", 1, Boxes(cameras=ObjectCameras(views=5, size=16)))
    with pytest.raises(ValueError, match="equal numbers of views"):
        ObjectBank([folder, other])
    with pytest.raises(ValueError, match="6 views"):
        ObjectStream(folder, 1, ViewSampling(mode="frames", views=6))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "bank.json").write_text(json.dumps({"format": 1})[:-3])
    with pytest.raises(ValueError, match="damaged"):
        ObjectBank(tmp_path / "torn")
    with pytest.raises(ValueError, match="no split 'all'"):
        ProceduralObjects(split="all")
    bare = replace(Boxes()(1).views, normals=None)
    with pytest.raises(ValueError, match="alphas, depths and normals"):
        view_arrays(bare)


def test_points_are_even_by_area():
    """A box of sides 1, 2, 3: shares of points are shares of area; the mean and spread on a face are the uniform's."""
    mesh = box((1.0, 2.0, 3.0))
    points, faces = draw_on_surface(mesh, 20000, np.random.default_rng(0))
    counts = torch.bincount(faces // 2, minlength=6) / 20000
    torch.testing.assert_close(counts, torch.tensor([6.0, 6, 3, 3, 2, 2]) / 22, rtol=0, atol=0.01)
    front = points[(faces // 2) == 1]
    assert (front[:, 0] == 0.5).all()
    torch.testing.assert_close(front[:, 1:].mean(0), torch.zeros(2), rtol=0, atol=0.05)
    torch.testing.assert_close(front[:, 1:].var(0), torch.tensor([4.0, 9.0]) / 12, rtol=0.05, atol=0)
    with pytest.raises(ValueError, match="no area"):
        draw_on_surface(box((0.0, 0.0, 1.0)), 5, np.random.default_rng(0))


def test_recoloured_and_cropped_objects_stay_over_white():
    views = Boxes()(3).views
    changed = recolored(views.images, 1.0, np.random.default_rng(3), views.alphas)
    empty = (views.alphas == 0).expand_as(views.images)
    assert (changed[empty] == 1).all()
    assert (changed - views.images)[~empty].abs().max() > 0.05
    same = recolored(views.images, 0.0, np.random.default_rng(3), views.alphas)
    torch.testing.assert_close(same, views.images, rtol=0, atol=1e-4)
    window = crop_views(views, 0.5, 0.5, 0.5)
    assert torch.equal(window.alphas == 0, (window.images == 1).all(1, keepdim=True))
    assert window.alphas.mean() > views.alphas.mean()
