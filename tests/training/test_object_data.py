"""Training on objects: which stream the data's kind chooses."""

from __future__ import annotations

import pytest
import torch
from data.tiny_objects import Boxes

from latent3d.data.object_bank import ObjectStream, ObjectWorldStream, render_object_bank
from latent3d.data.view_sampling import ViewSampling
from latent3d.training.config import DataConfig, StageConfig

STAGE = StageConfig(
    name="s",
    steps=1,
    batch_size=2,
    loss_weights={"a": 1.0},
    sampling=ViewSampling(mode="frames", views=2, novel=1, recolor=0.5, mirror=0.5),
)


def test_banks_of_objects(tmp_path):
    bank = render_object_bank(tmp_path / "bank", Boxes(), 0, 5)
    data = DataConfig(kind="objects", bank=(str(bank),), val_bank=(str(bank),), max_clips=4)
    assert DataConfig.from_dict(data.to_dict()) == data
    stream = data.stream(STAGE, 3, rank=1, world_size=2)
    assert isinstance(stream, ObjectStream)
    assert len(stream) == 4
    assert stream.batch(0).shape == (2, 3)
    assert stream.describe(0) != data.stream(STAGE, 3).describe(0)
    held = data.validation(STAGE)
    assert isinstance(held, ObjectStream)
    assert held.sampling.recolor == 0
    with pytest.raises(ValueError, match="bank of objects, not of clips"):
        data.replace(kind="scenes").stream(STAGE, 0)


def test_objects_without_a_bank():
    data = DataConfig(kind="objects", size=16, labels=("table",))
    stream, held = data.stream(STAGE, 0), data.validation(STAGE)
    assert isinstance(stream, ObjectWorldStream)
    batch = stream.batch(0)
    assert batch.shape == (2, 3)
    assert batch.inputs == 2
    assert len(set(batch.labels.tolist())) == 1
    assert all(batch.captions)
    assert not torch.equal(batch.views.images, held.batch(0).views.images)
    assert torch.equal(held.batch(0).views.images, data.validation(STAGE).batch(0).views.images)


def test_wrong_kinds_are_refused():
    with pytest.raises(ValueError, match="kind of data 'things'"):
        DataConfig(kind="things")
    with pytest.raises(ValueError, match="must be one of"):
        DataConfig.from_dict({"kind": "things"})
    with pytest.raises(ValueError, match="square"):
        DataConfig(kind="objects", width=64)
