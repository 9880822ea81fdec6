"""A tiny bank and a tiny run."""

from __future__ import annotations

import pytest
import torch
from data.tiny_family import sample_wall

from latent3d.data.shards import render_bank
from latent3d.data.view_sampling import ViewSampling
from latent3d.training.config import DataConfig, StageConfig, TrainConfig
from training.tiny_system import TinySystemConfig


@pytest.fixture(scope="session")
def bank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank")
    return render_bank(folder, "wall", "train", 0, 12, 3, 1, 16, shard_clips=5, sampler=sample_wall)


@pytest.fixture
def tiny_config(bank):
    """Two stages of a few steps, with dropout, noise, accumulation, mirroring and every interval in use."""
    torch.set_num_threads(1)
    common = {
        "batch_size": 2,
        "accumulate": 2,
        "warmup_steps": 2,
        "learning_rate": 1e-2,
        "sampling": ViewSampling(views=2, novel=1, reverse=0.5, mirror=0.5),
        "log_every": 2,
        "save_every": 3,
        "sheet_every": 5,
        "validate_every": 4,
        "validate_batches": 2,
    }
    return TrainConfig(
        system=TinySystemConfig(),
        stages=(
            StageConfig(name="depth", steps=7, loss_weights={"depth": 2.0}, **common),
            StageConfig(name="colour", steps=4, loss_weights={"colour": 1.0}, **common),
        ),
        data=DataConfig(bank=(str(bank),), val_bank=(str(bank),)),
        seed=5,
        max_shard_bytes=4000,
    )
