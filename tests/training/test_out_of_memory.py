"""Training that runs out of memory steps down and ends as if it had begun with less."""

from __future__ import annotations

import pytest
import torch

from latent3d.memory import NotEnoughMemoryError, is_lean
from latent3d.training.checkpoints import list_checkpoints, load_checkpoint
from latent3d.training.engine import train
from latent3d.training.metrics import read_metrics
from training.tiny_system import TinySystem

VOLATILE = ("seconds", "samples_per_second")


def figures(out):
    rows = [row for row in read_metrics(out) if "memory" not in row]
    return [{k: v for k, v in row.items() if k not in VOLATILE} for row in rows]


def weights(out):
    return load_checkpoint(list_checkpoints(out / "checkpoints")[-1])[1]


def runs_out(monkeypatch, at, level):
    """From the n-th pass on, a system does not fit before ``level``, which shows after it has drawn numbers."""
    original, calls = TinySystem.training_terms, iter(range(1, 10_000))

    def terms(self, batch, stage, generator):
        out = original(self, batch, stage, generator)
        if next(calls) >= at and (level is None or not is_lean(level)):
            with torch.no_grad():
                self.mean += 1  # as spectral norms change what is no parameter
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return out

    monkeypatch.setattr(TinySystem, "training_terms", terms)


@pytest.mark.parametrize(("at", "level"), [(1, "lean"), (4, "leanest"), (10, "lean")])
def test_stepping_down_changes_no_weight(tiny_config, tmp_path, monkeypatch, at, level):
    """In the first and second pass of a step, and in validation."""
    train(tiny_config.replace(memory=level), tmp_path / "lean", stage="depth", progress=False)
    runs_out(monkeypatch, at, level)
    result = train(tiny_config, tmp_path / "stepped", stage="depth", progress=False)
    assert result.reason == "finished"
    told = [row["memory"] for row in read_metrics(tmp_path / "stepped") if "memory" in row]
    assert told == (["lean"] if level == "lean" else ["lean", "leanest"])
    assert figures(tmp_path / "stepped") == figures(tmp_path / "lean")
    expected = weights(tmp_path / "lean")
    for part, tensors in weights(tmp_path / "stepped").items():
        for name, value in tensors.items():
            if name != "mean" or at != 10:  # validation does not undo what a pass changes: it changes nothing
                assert torch.equal(value, expected[part][name]), name


def test_what_does_not_fit_is_saved_and_named(tiny_config, tmp_path, monkeypatch):
    runs_out(monkeypatch, 3, None)
    with pytest.raises(NotEnoughMemoryError, match=r"stage 'depth', step 1: lower depth.batch_size"):
        train(tiny_config, tmp_path, progress=False)
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == ["00_depth_00000001"]


def test_unknown_levels_are_refused(tiny_config):
    with pytest.raises(ValueError, match="choose one of fast, lean, leanest"):
        tiny_config.replace(memory="thin")
