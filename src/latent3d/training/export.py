"""From a training run to a weights folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from latent3d.training.checkpoints import list_checkpoints, load_checkpoint
from latent3d.training.metrics import read_metrics
from latent3d.weights import SHARD_BYTES, load_tensors, read_json, save_weights


def export_weights(
    run: str | Path,
    out: str | Path,
    dtype: str = "bf16",
    max_shard_bytes: int = SHARD_BYTES,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write the averaged weights of a run's last checkpoint as a weights folder with the system's configuration.

    Parameters that the last stage does not train have the averages of the stage that trained them last. The card gets
    an entry ``training``: stages with their steps, data, seed, hours, device, last logged figures.

    Raises:
        FileNotFoundError: ``run`` is no training run or has no checkpoint yet.
        ValueError: a damaged checkpoint, or values that ``dtype`` cannot hold.
    """
    run = Path(run)
    checkpoints = list_checkpoints(run / "checkpoints")
    if not checkpoints or not (run / "config.json").is_file():
        raise FileNotFoundError(f"{run} holds no training run with a checkpoint; give the folder that training wrote")
    config = read_json(run / "config.json")
    state, tensors = load_checkpoint(checkpoints[-1])
    stages = config["stages"]
    index = next(number for number, stage in enumerate(stages) if stage["name"] == state["stage"])
    done = [{"name": s["name"], "steps": s["steps"]} for s in stages[:index]]
    done.append({"name": state["stage"], "steps": state["step"]})
    for entry in done:
        stage = next(s for s in stages if s["name"] == entry["name"])
        entry["scenes_per_step"] = stage["batch_size"] * stage["accumulate"]
    last = [row for row in read_metrics(run) if row["stage"] == state["stage"] and "loss" in row][-1:]
    training = {
        "stages": done,
        "data": config["data"],
        "seed": config["seed"],
        "hours": round(state["seconds"] / 3600, 3),
        "device": state["device"],
        "torch": state["torch"],
        "threads": torch.get_num_threads(),
        "last_figures": {name: value for row in last for name, value in row.items() if name.startswith("loss")},
    }
    weights = tensors["model"] | tensors["ema"]
    end = run / "stages" / f"{index:02d}_{state['stage']}"
    if (end / "state.json").is_file() and read_json(end / "state.json")["step"] == state["step"]:
        weights = load_tensors(end, "averaged")  # with what the system did when the stage had ended
    return save_weights(out, weights, config["system"], {"training": training, **(card or {})}, dtype, max_shard_bytes)
