"""Checkpoints of a training run: sharded safetensors and one JSON file, written whole or not at all.

A checkpoint folder ``checkpoints/<stage number>_<stage>_<step>/`` holds ``model*``, ``ema*`` and ``optimizer*`` tensor
files and ``state.json`` (format, stage, step, counters, pending sums of the log). Random states need no place: every
step draws from generators seeded by (seed, rank, stage, step).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from latent3d.weights import load_tensors, read_json, replace_folder, save_tensors

CHECKPOINT_FORMAT = 1
PARTS = ("model", "ema", "optimizer")


def save_checkpoint(
    root: Path,
    state: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Tensor]],
    *,
    max_shard_bytes: int,
    keep: int = 2,
) -> Path:
    """Write a checkpoint and drop all but the last ``keep``.

    Args:
        state: JSON-able, with ``stage_index``, ``stage`` and ``step``.
        tensors: by part, one of `PARTS`.
    """

    def fill(folder: Path) -> None:
        for part in PARTS:
            save_tensors(folder, part, tensors[part], max_shard_bytes)
        (folder / "state.json").write_text(json.dumps({"format": CHECKPOINT_FORMAT, **state}, indent=1))

    name = f"{state['stage_index']:02d}_{state['stage']}_{state['step']:08d}"
    written = replace_folder(root / name, fill)
    for old in list_checkpoints(root)[:-keep]:
        shutil.rmtree(old)
    return written


def list_checkpoints(root: Path) -> list[Path]:
    """Checkpoint folders, oldest first (by stage, then step)."""
    return sorted(path.parent for path in root.glob("[0-9]*/state.json"))


def load_checkpoint(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """State and tensors by part. Raises ValueError or FileNotFoundError with file and remedy."""
    state = read_json(folder / "state.json")
    if state.get("format") != CHECKPOINT_FORMAT:
        raise ValueError(
            f"{folder} has checkpoint format {state.get('format')}, this version reads {CHECKPOINT_FORMAT}"
        )
    try:
        return state, {part: load_tensors(folder, part) for part in PARTS}
    except (ValueError, FileNotFoundError) as error:
        message = f"the checkpoint {folder} is damaged ({error}); delete this folder to go on from the one before it"
        raise ValueError(message) from error
