"""The train command with the shipped presets' tiny sibling: every stage steps, resumes exactly and exports."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from latent3d.data.shards import render_bank
from latent3d.presets import PRESETS
from latent3d.training.command import pick_device, train_command
from latent3d.training.export import export_weights
from latent3d.training.metrics import read_metrics
from latent3d.weights import load_into, load_weights

VOLATILE = ("seconds", "samples_per_second")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    return str(render_bank(tmp_path_factory.mktemp("rooms"), "rooms", "train", 0, 4, 4, 1, 32, shard_clips=4))


def run(out, rooms, **options):
    common = {"device": "cpu", "threads": 1, "progress": False, "bank": (rooms,), "val_bank": (rooms,)}
    return train_command("ggs_rooms_tiny", out, **common, **options)


def rows(out):
    return [{k: v for k, v in row.items() if k not in VOLATILE} for row in read_metrics(out)]


def test_tiny_preset_trains_all_stages_and_resumes_exactly(rooms, tmp_path, monkeypatch):
    """One run in a go; one that gets Ctrl-C in the second step of every stage."""
    config = PRESETS["ggs_rooms_tiny"]()
    result = run(tmp_path / "whole", rooms)
    assert (result.reason, result.stage) == ("finished", config.stages[-1].name)
    assert result.global_step == sum(stage.steps for stage in config.stages)
    kind = type(config.system.build())
    original, asked = kind.training_terms, []

    def terms(self, batch, stage, generator):
        if torch.is_grad_enabled():
            asked.append(stage)
            if asked.count(stage) == 2:
                os.kill(os.getpid(), signal.SIGINT)
        return original(self, batch, stage, generator)

    monkeypatch.setattr(kind, "training_terms", terms)
    calls = [run(tmp_path / "parts", rooms) for _ in range(len(config.stages) + 1)]
    assert [call.reason for call in calls] == ["interrupted"] * len(config.stages) + ["finished"]
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    logged = rows(tmp_path / "whole")
    for stage in config.stages:
        of_stage = [row for row in logged if row["stage"] == stage.name and "loss" in row]
        assert {f"loss/{name}" for name in stage.loss_weights} <= of_stage[0].keys()
    monkeypatch.undo()
    folder = export_weights(tmp_path / "parts", tmp_path / "export", dtype="bf16")
    state, system, card = load_weights(folder)
    load_into(type(config.system).from_dict(system).build(), state)
    assert [stage["name"] for stage in card["training"]["stages"]] == [stage.name for stage in config.stages]


def test_settings_of_the_command_reach_the_run(rooms, tmp_path):
    first = PRESETS["ggs_rooms_tiny"]().stages[0].name
    result = run(tmp_path, rooms, stage=first, seed=4, overrides=(f"{first}.steps=1", "*.sheet_every=0"))
    assert (result.stage, result.step) == (first, 1)
    assert not (tmp_path / "sheets").exists()
    assert (tmp_path / "metrics.jsonl").read_text()


def test_wrong_commands_are_refused(rooms, tmp_path):
    with pytest.raises(ValueError, match=r"there is no preset 'ggs'; choose one of .*ggs_rooms_tiny"):
        train_command("ggs", tmp_path)
    with pytest.raises(ValueError, match="there is no stage 'x'"):
        run(tmp_path, rooms, stage="x")
    with pytest.raises(ValueError, match="device 'abacus' cannot be used here"):
        pick_device("abacus")
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda")
