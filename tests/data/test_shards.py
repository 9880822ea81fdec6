"""Banks on disk: what is written, when, and what streams read from them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from data.tiny_family import sample_wall
from latent3d.data.shards import BankStream, bank_command, read_bank_info, render_bank
from latent3d.data.view_sampling import ViewSampling


def make(folder, count=7, **changes):
    options = {"num_views": 3, "extra_views": 2, "size": (8, 12), "shard_clips": 3, "sampler": sample_wall} | changes
    return render_bank(folder, "wall", "train", 10, count, **options)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return make(tmp_path_factory.mktemp("bank"))


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_stored_clips_equal_the_worlds_up_to_rounding(bank):
    stream = BankStream(bank, 1, seed=3)
    assert len(stream) == 7
    for step in range(7):
        batch = stream.batch(step)
        index = int(stream.describe(step)[0].removeprefix("wall/train/"))
        clip = sample_wall("wall", "train", index, num_views=3, height=8, width=12, extra_views=2)
        assert batch.images.shape == (1, 3, 3, 8, 12)
        assert (batch.images[0] - clip.images[:3]).abs().max() <= 0.5 / 255 + 1e-6
        torch.testing.assert_close(batch.depths[0], clip.depths[:3], rtol=2**-11, atol=0)
        assert torch.equal(batch.cameras.w2c[0], clip.cameras.w2c[:3])
        assert torch.equal(batch.cameras.k[0], clip.cameras.k[:3])
        assert (batch.cameras.height, batch.cameras.width) == (8, 12)


def test_workers_do_not_change_a_bank(bank, tmp_path):
    assert files(make(tmp_path / "two", workers=2)) == files(bank)


def test_rendering_goes_on_where_it_stopped_and_enlarges(bank, tmp_path):
    calls = []

    def counted(family, split, index, **options):
        calls.append(index)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return sample_wall(family, split, index, **options)

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "b", sampler=counted)
    assert [path.name for path in sorted((tmp_path / "b").iterdir())] == ["bank.json", "shard_00000"]
    done = []
    make(tmp_path / "b", sampler=counted, on_clips=done.append)
    assert calls == [10, 11, 12, 13, 14, 13, 14, 15, 16]
    assert done == [3, 3, 1]
    assert files(tmp_path / "b") == files(bank)
    make(tmp_path / "b", count=8, sampler=counted)
    assert calls[9:] == [16, 17]  # only the shard that grows
    assert len(BankStream(tmp_path / "b", 1)) == 8


def test_every_clip_once_per_epoch_in_an_order_that_changes(bank):
    stream = BankStream(bank, 3, seed=1)
    names = [name for step in range(7) for name in stream.describe(step)]
    epochs = [names[:7], names[7:14], names[14:]]
    assert all(len(set(epoch)) == 7 for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert BankStream(bank, 3, seed=2).describe(0) != stream.describe(0)


def test_ranks_share_an_epoch(bank):
    ranks = [BankStream(bank, 2, rank=rank, world_size=3) for rank in range(3)]
    names = [name for stream in ranks for name in stream.describe(0)]
    assert len(set(names)) == 6


def test_batches_are_a_function_of_the_step(bank):
    sampling = ViewSampling(views=2, novel=2, reverse=0.5, mirror=0.5)
    forward, other = (BankStream(bank, 4, sampling, seed=9) for _ in range(2))
    early = [forward.batch(step) for step in range(4)]
    for step in (3, 0, 2):
        again = other.batch(step)
        assert torch.equal(again.images, early[step].images)
        assert torch.equal(again.cameras.w2c, early[step].cameras.w2c)
    assert not torch.equal(early[0].images, early[1].images)


def test_several_banks_are_read_as_one(bank, tmp_path):
    more = render_bank(tmp_path, "wall", "train", 50, 4, 3, 2, (8, 12), shard_clips=3, sampler=sample_wall)
    stream = BankStream([bank, more], 11)
    assert sorted(stream.describe(0)) == sorted(f"wall/train/{i}" for i in (*range(10, 17), *range(50, 54)))
    assert len(BankStream([bank, more], 1, max_clips=5)) == 5


def test_single_frames_come_from_different_scenes(bank):
    stream = BankStream(bank, 7, ViewSampling(mode="frames", views=1))
    batch = stream.batch(0)
    assert batch.shape == (7, 1)
    assert len(set(stream.describe(0))) == 7
    frames = {float(x) for step in range(8) for x in stream.batch(step).cameras.w2c[:, 0, 0, 3]}
    assert len(frames) == 5  # all path and extra frames occur


def test_wrong_banks_are_refused(bank, tmp_path):
    with pytest.raises(ValueError, match=r"another bank .different: extra_views"):
        make(bank, extra_views=1)
    with pytest.raises(ValueError, match="positive"):
        make(tmp_path / "n", count=0)
    with pytest.raises(FileNotFoundError, match=r"bank\.json is missing"):
        BankStream(tmp_path, 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "bank.json").write_text((bank / "bank.json").read_text())
    with pytest.raises(FileNotFoundError, match="no rendered item"):
        BankStream(tmp_path / "empty", 1)
    values = json.loads((bank / "bank.json").read_text()) | {"format": 99}
    (tmp_path / "empty" / "bank.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="format 99"):
        read_bank_info(tmp_path / "empty")
    with pytest.raises(ValueError, match="4 views and 2 novel"):
        BankStream(bank, 1, ViewSampling(views=4, novel=2))
    other = make(tmp_path / "wide", size=(8, 8))
    with pytest.raises(ValueError, match="equal numbers of frames"):
        BankStream([bank, other], 1)


def test_depths_beyond_half_precision_stay_finite(tmp_path):
    def far(*args, **options):
        clip = sample_wall(*args, **options)
        clip.depths.fill_(1e6)
        return clip

    assert BankStream(make(tmp_path, count=1, sampler=far), 1).batch(0).depths.max() == np.float16(6e4)


def test_the_command_renders_the_worlds(tmp_path, capsys):
    bank_command(tmp_path, "rooms", "val", 0, 2, num_views=2, extra_views=1, size=16, workers=1, shard_clips=2)
    batch = BankStream(tmp_path, 2, ViewSampling(views=2, novel=1)).batch(0)
    assert batch.shape == (2, 3)
    assert (batch.depths > 0).any()
    assert batch.images.std() > 0.02
