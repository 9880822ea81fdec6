"""Training: exact resume, stages, stops, averages, errors."""

from __future__ import annotations

import json
import os
import signal
import threading
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from latent3d.training import engine
from latent3d.training.checkpoints import list_checkpoints, load_checkpoint
from latent3d.training.config import StageConfig
from latent3d.training.engine import NonFiniteError, train
from latent3d.training.export import export_weights
from latent3d.training.loop import step_seed
from latent3d.training.metrics import read_metrics
from latent3d.weights import load_into, load_tensors, load_weights
from training.tiny_system import TinySystem, TinySystemConfig

VOLATILE = ("seconds", "samples_per_second")


def rows(out):
    return [{k: v for k, v in row.items() if k not in VOLATILE} for row in read_metrics(out)]


def final_tensors(out):
    return load_checkpoint(list_checkpoints(out / "checkpoints")[-1])[1]


def stop_after(monkeypatch, calls):
    """Let the system's n-th forward pass raise a signal, as Ctrl-C would at that moment."""
    original, counter = TinySystem.training_terms, iter(range(1, 10_000))

    def terms(self, batch, stage, generator):
        if torch.is_grad_enabled() and next(counter) == calls:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, batch, stage, generator)

    monkeypatch.setattr(TinySystem, "training_terms", terms)


@pytest.fixture
def whole(tiny_config, tmp_path):
    """An uninterrupted run."""
    result = train(tiny_config, tmp_path / "whole", progress=False)
    assert (result.reason, result.stage, result.step, result.global_step) == ("finished", "colour", 4, 11)
    return tmp_path / "whole"


@pytest.mark.parametrize("calls", [1, 6, 11, 17])
def test_a_run_stopped_by_ctrl_c_goes_on_bit_for_bit(tiny_config, tmp_path, whole, monkeypatch, calls):
    out = tmp_path / "stopped"
    stop_after(monkeypatch, calls)
    first = train(tiny_config, out, progress=False)
    assert first.reason == "interrupted"
    assert first.global_step == (calls + 1) // 2  # the step that was under way is completed
    monkeypatch.undo()
    torch.rand(7)  # the global generator's state must not matter
    assert train(tiny_config, out, progress=False).reason == "finished"
    assert rows(out) == rows(whole)
    for part, tensors in final_tensors(whole).items():
        again = final_tensors(out)[part]
        assert tensors.keys() == again.keys()
        assert all(torch.equal(value, again[name]) for name, value in tensors.items())


def test_rows_written_after_the_last_checkpoint_are_replaced(tiny_config, tmp_path, whole):
    """A power cut: the log is ahead of the checkpoint, its last line half written."""
    out = tmp_path / "cut"
    train(tiny_config, out, stage="depth", progress=False)
    last = list_checkpoints(out / "checkpoints")[-1]
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    with open(out / "metrics.jsonl", "a") as log:
        log.write('{"stage": "depth", "step"')
    train(tiny_config, out, progress=False)
    assert rows(out) == rows(whole)


def test_time_limit_saves_and_the_stages_can_be_trained_one_by_one(tiny_config, tmp_path, whole):
    out = tmp_path / "stages"
    stopped = train(tiny_config, out, max_minutes=0, progress=False)
    assert (stopped.reason, stopped.global_step) == ("time", 0)
    with pytest.raises(ValueError, match="'depth' has not reached its end"):
        train(tiny_config, out, stage="colour", progress=False)
    assert train(tiny_config, out, stage="depth", progress=False).stage == "depth"
    assert train(tiny_config, out, stage="colour", progress=False).stage == "colour"
    assert rows(out) == rows(whole)
    with pytest.raises(ValueError, match=r"'depth' of .* is over"):
        train(tiny_config, out, stage="depth", progress=False)


def test_seed_decides(tiny_config, tmp_path, whole):
    train(tiny_config.replace(seed=6), tmp_path / "other", progress=False)
    assert rows(tmp_path / "other")[0]["loss"] != rows(whole)[0]["loss"]
    assert step_seed(1, 2) != step_seed(2, 1)


def test_files_of_a_run(tiny_config, whole):
    names = [path.name for path in list_checkpoints(whole / "checkpoints")]
    assert names == ["01_colour_00000003", "01_colour_00000004"]  # the last two
    assert [path.name for path in sorted((whole / "stages").iterdir())] == ["00_depth", "01_colour"]
    assert {path.name for path in (whole / "sheets").iterdir()} == {
        "00_depth_00000005.png",
        "00_depth_00000007.png",
        "01_colour_00000004.png",
    }
    sizes = [path.stat().st_size for path in (whole / "checkpoints").rglob("*.safetensors")]
    assert max(sizes) <= tiny_config.max_shard_bytes
    assert not [path for path in whole.rglob("*") if path.suffix in (".pt", ".pth", ".pkl", ".tmp")]
    logged = read_metrics(whole)
    assert [row["step"] for row in logged if "loss" in row] == [2, 4, 6, 7, 2, 4]
    assert {"loss/depth", "loss/absolute", "learning_rate", "gradient_norm", "samples_per_second"} <= logged[0].keys()
    assert logged[0]["loss"] == pytest.approx(2 * logged[0]["loss/depth"])
    assert any("validation/depth" in row for row in logged)


def test_training_lowers_the_loss(tiny_config, tmp_path):
    stage = tiny_config.stages[0].replace(steps=60, sheet_every=0, validate_every=0, save_every=0, log_every=10)
    train(tiny_config.replace(stages=(stage,)), tmp_path, progress=False)
    losses = [row["loss"] for row in read_metrics(tmp_path)]
    assert losses[-1] < 0.3 * losses[0]


def test_bf16_autocast_trains_close_to_float32(tiny_config, tmp_path, whole):
    stages = tuple(stage.replace(autocast="bf16") for stage in tiny_config.stages)
    train(tiny_config.replace(stages=stages), tmp_path / "bf16", progress=False)
    first, reference = rows(tmp_path / "bf16")[0]["loss"], rows(whole)[0]["loss"]
    assert first != reference
    assert first == pytest.approx(reference, rel=0.02)


@pytest.mark.parametrize("start", ["ema", "raw"])
def test_next_stage_starts_from_the_chosen_weights(tiny_config, tmp_path, monkeypatch, start):
    """A second stage that trains the same parameters, looked at before its first step."""
    monkeypatch.setattr(TinySystem, "trainable", lambda self, stage: list(self.named_parameters()))
    monkeypatch.setattr(TinySystem, "stages", lambda self: ("depth", "depth2"))
    second = tiny_config.stages[0].replace(name="depth2", start=start)
    config = tiny_config.replace(stages=(tiny_config.stages[0], second))
    train(config, tmp_path, stage="depth", progress=False)
    kept = {part: load_tensors(tmp_path / "stages" / "00_depth", part) for part in ("averaged", "raw")}
    assert not torch.equal(kept["averaged"]["trunk.0.weight"], kept["raw"]["trunk.0.weight"])
    train(config, tmp_path, stage="depth2", max_minutes=0, progress=False)
    began = final_tensors(tmp_path)
    wanted = kept["averaged" if start == "ema" else "raw"]
    assert torch.equal(began["model"]["trunk.0.weight"], wanted["trunk.0.weight"])
    assert torch.equal(began["ema"]["trunk.0.weight"], wanted["trunk.0.weight"])


def test_frozen_parameters_keep_the_averages_of_their_stage(whole):
    averaged = load_tensors(whole / "stages" / "00_depth", "averaged")
    last = final_tensors(whole)["model"]
    assert torch.equal(last["trunk.0.weight"], averaged["trunk.0.weight"])
    assert not torch.equal(last["colour_head.weight"], averaged["colour_head.weight"])


def test_nan_stops_with_step_stage_and_clips_and_resumes_before_it(tiny_config, tmp_path, bank):
    config = tiny_config.replace(system=TinySystemConfig(poison_step=6))
    with pytest.raises(NonFiniteError, match="step 2 of stage 'depth'") as caught:
        train(config, tmp_path, progress=False)
    stream = config.data.stream(config.stages[0], 16 * config.seed)
    clips = stream.describe(4) + stream.describe(5)
    assert all(clip in str(caught.value) for clip in clips)
    tensors = final_tensors(tmp_path)
    assert list_checkpoints(tmp_path / "checkpoints")[-1].name == "00_depth_00000002"
    assert all(torch.isfinite(value).all() for part in tensors.values() for value in part.values())


def test_export_gives_the_averages_and_the_card(tiny_config, tmp_path, whole):
    folder = export_weights(whole, tmp_path / "export", dtype="fp32", card={"licence": "Apache-2.0"})
    state, config, card = load_weights(folder)
    system = TinySystemConfig.from_dict(config).build()
    load_into(system, state)
    averaged = load_tensors(whole / "stages" / "01_colour", "averaged")
    assert all(torch.equal(value, averaged[name]) for name, value in system.state_dict().items())
    assert card["licence"] == "Apache-2.0"
    assert card["training"]["stages"] == [
        {"name": "depth", "steps": 7, "scenes_per_step": 4},
        {"name": "colour", "steps": 4, "scenes_per_step": 4},
    ]
    with pytest.raises(FileNotFoundError, match="no training run"):
        export_weights(tmp_path, tmp_path / "x")


def test_what_follows_a_stage_is_kept(tiny_config, tmp_path):
    """Buffers that the system sets at the end of a stage reach the next stage and the export, once per stage."""
    mean = tiny_config.data.validation(tiny_config.stages[0]).batch(0).images.mean((0, 1, 3, 4))
    train(tiny_config, tmp_path / "run", stage="depth", progress=False)
    state = load_weights(export_weights(tmp_path / "run", tmp_path / "a", dtype="fp32"))[0]
    torch.testing.assert_close(state["mean"], mean)
    train(tiny_config, tmp_path / "run", stage="colour", max_minutes=0, progress=False)
    assert torch.equal(final_tensors(tmp_path / "run")["model"]["mean"], state["mean"])
    train(tiny_config, tmp_path / "run", progress=False)
    state = load_weights(export_weights(tmp_path / "run", tmp_path / "b", dtype="fp32"))[0]
    torch.testing.assert_close(state["mean"], 2 * mean)


def test_initial_weights_load_strictly_by_part(tiny_config, tmp_path, whole):
    trunk = {name.removeprefix("trunk."): v for name, v in final_tensors(whole)["model"].items() if "trunk" in name}
    engine_weights = tmp_path / "trunk"
    from latent3d.weights import save_weights

    save_weights(engine_weights, trunk, {})
    model = engine.build_system(
        tiny_config.replace(initial_weights={"trunk": str(engine_weights)}), torch.device("cpu")
    )
    assert torch.equal(model.trunk[0].weight, trunk["0.weight"])
    with pytest.raises(ValueError, match="missing: weight, bias"):
        engine.build_system(
            tiny_config.replace(initial_weights={"depth_head": str(engine_weights)}), torch.device("cpu")
        )
    with pytest.raises(ValueError, match="no part 'nose'"):
        engine.build_system(tiny_config.replace(initial_weights={"nose": str(engine_weights)}), torch.device("cpu"))


def test_wrong_runs_are_refused(tiny_config, tmp_path, whole):
    with pytest.raises(ValueError, match="holds a run already"):
        train(tiny_config, whole, resume=False, progress=False)
    with pytest.raises(ValueError, match="configured otherwise"):
        train(tiny_config.replace(system=TinySystemConfig(width=5)), whole, progress=False)
    with pytest.raises(ValueError, match="there is no stage 'paint'; choose one of depth, colour"):
        train(tiny_config, whole, stage="paint", progress=False)
    fresh = StageConfig(name="paint", steps=1, loss_weights={"x": 1.0})
    with pytest.raises(ValueError, match="the system has no stage 'paint'"):
        train(tiny_config.replace(stages=(fresh,)), tmp_path / "a", progress=False)
    wrong = tiny_config.stages[0].replace(loss_weights={"deepth": 1.0})
    with pytest.raises(ValueError, match="names 'deepth', which the system does not give; its terms: depth, absolute"):
        train(tiny_config.replace(stages=(wrong,)), tmp_path / "b", progress=False)
    with pytest.raises(ValueError, match="starts from the end of 'depth'"):
        train(tiny_config, tmp_path / "c", stage="colour", progress=False)


def test_ramped_weights_are_exact_and_resume_exactly(tiny_config, tmp_path, monkeypatch):
    """The log has the weight of every step; a stop in the middle of the ramp changes nothing."""
    stage = tiny_config.stages[0].replace(
        loss_weights={"depth": 2.0, "absolute": 1.0},
        loss_ramps={"depth": (1, 5, 1.0), "absolute": (4, 4, 0.0)},
        log_every=1,
    )
    config = tiny_config.replace(stages=(stage,))
    train(config, tmp_path / "whole", progress=False)
    logged = [row for row in rows(tmp_path / "whole") if "loss" in row]
    assert [row["weight/depth"] for row in logged] == [1.0, 1.0, 1.25, 1.5, 1.75, 2.0, 2.0]
    assert [row["weight/absolute"] for row in logged] == [0.0] * 4 + [1.0] * 3
    for row in logged:
        total = row["weight/depth"] * row["loss/depth"] + row["weight/absolute"] * row["loss/absolute"]
        assert row["loss"] == pytest.approx(total, rel=1e-6)
    stop_after(monkeypatch, 6)
    assert train(config, tmp_path / "stopped", progress=False).reason == "interrupted"
    monkeypatch.undo()
    train(config, tmp_path / "stopped", progress=False)
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")
    missing = stage.replace(loss_weights={"depth": 2.0, "later": 1.0}, loss_ramps={"later": (5, 6, 0.0)})
    with pytest.raises(ValueError, match="names 'later', which the system does not give"):
        train(tiny_config.replace(stages=(missing,)), tmp_path / "late", progress=False)


def test_a_bank_that_grew_is_said(tiny_config, tmp_path, capsys):
    train(tiny_config.replace(data=tiny_config.data.replace(max_clips=8)), tmp_path, stage="depth", progress=False)
    longer = tiny_config.replace(stages=(tiny_config.stages[0].replace(steps=8), tiny_config.stages[1]))
    train(longer, tmp_path, stage="depth")
    assert "the data changed from 8 to 12 clips" in capsys.readouterr().err


def test_a_damaged_checkpoint_names_the_remedy(tiny_config, whole):
    newest = list_checkpoints(whole / "checkpoints")[-1]
    file = sorted(newest.glob("model*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match="delete this folder to go on from the one before it"):
        train(tiny_config, whole, progress=False)


def test_checkpoints_are_readable_by_safetensors_alone(whole):
    files = sorted((whole / "checkpoints").rglob("ema*.safetensors"))
    assert all(value.dtype == torch.float32 for file in files for value in load_file(file).values())


def test_training_runs_outside_the_main_thread(tiny_config, tmp_path):
    results = []
    config = replace(tiny_config, stages=tiny_config.stages[:1])
    thread = threading.Thread(target=lambda: results.append(train(config, tmp_path, progress=False)))
    thread.start()
    thread.join(60)
    assert results[0].reason == "finished"


def test_progress_and_changed_settings_are_said(tiny_config, tmp_path, capsys):
    train(tiny_config, tmp_path, stage="depth", max_minutes=5)
    longer = tiny_config.replace(stages=(tiny_config.stages[0].replace(steps=9), tiny_config.stages[1]))
    result = train(longer, tmp_path, stage="depth")
    said = capsys.readouterr().err
    assert result.step == 9
    assert "settings that changed since this run began: stages" in said
    assert "going on from 00_depth_00000007" in said
    assert "stops in" in said
    assert json.loads((tmp_path / "config.json").read_text())["stages"][0]["steps"] == 9
