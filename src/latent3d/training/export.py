"""From a training run to a weights folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latent3d.training.checkpoints import list_checkpoints, load_checkpoint
from latent3d.training.metrics import read_metrics
from latent3d.training.prior import PRIOR_PARTS, find_prior
from latent3d.weights import DTYPES, SHARD_BYTES, find_shipped, load_tensors, read_base, read_json, save_weights


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
    weights, config, training = _averaged(Path(run))
    return save_weights(out, weights, config["system"], {"training": training, **(card or {})}, dtype, max_shard_bytes)


def export_adapter(
    run: str | Path,
    out: str | Path,
    base: str | Path | None = None,
    dtype: str = "bf16",
    max_shard_bytes: int = SHARD_BYTES,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """As `export_weights`, but without the tensors that are still those of the weights the run started from.

    What remains is what training added or changed: of a run with ``system.adapt=added`` the low-rank changes, camera
    layers and modules beside the prior. `weights.load_weights` puts it together with its base, after checking that to
    be the same files. What is taken from the base comes back bit for bit as the run held it, rounded where
    ``frozen_dtype`` rounded it. The card names the base and its sha256 under ``base``.

    Args:
        base: a prior in diffusers' layout or a weights folder (or name of shipped weights); default what the run was
            started from.

    Raises:
        FileNotFoundError: as `export_weights`, or the base is not there.
        ValueError: as `export_weights`, or the run started from no other weights, or has changed all of them.
    """
    weights, config, training = _averaged(Path(run))
    source = base or config.get("prior") or config.get("initial_weights", {}).get("")
    if source is None:
        raise ValueError(
            f"the run in {run} started from no other weights, so that there is no adapter to them; export it whole, or "
            "name its base"
        )
    folder, parts = _base(str(source))
    theirs, digest = read_base(folder, parts)
    taken: dict[str, list[str]] = {}
    kinds = {dtype: kind for kind, dtype in DTYPES.items()}
    for name, value in weights.items():
        own = theirs.get(name) if value.dtype in kinds else None
        if own is not None and own.shape == value.shape and torch.equal(own.to(value.dtype), value):
            taken.setdefault(kinds[value.dtype], []).append(name)
    same = {name for names in taken.values() for name in names}
    rest = {name: value for name, value in weights.items() if name not in same}
    if not taken:
        raise ValueError(f"nothing in the run in {run} is still as in '{source}'; export it whole")
    about = {"name": str(source), "sha256": digest, "tensors_taken": len(same), "tensors_added": len(rest)}
    return save_weights(
        out, rest, config["system"], {"training": training, "base": about, **(card or {})}, dtype, max_shard_bytes,
        base={"source": str(source), "sha256": digest, "parts": parts, "taken": taken},
    )  # fmt: skip


def _base(source: str) -> tuple[Path, list[tuple[str, str, str]]]:
    """The folder of a base and its parts, as `read_base` takes them."""
    own = Path(source).expanduser()
    own = own if own.is_dir() or source.count("/") else find_shipped(source)
    if (own / "config.json").is_file():
        return own, [("", "", "weights")]
    return find_prior(source), PRIOR_PARTS


def _averaged(run: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Averaged weights of a run's last checkpoint, the run's configuration, and what a card says of its training."""
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
    return weights, config, training
