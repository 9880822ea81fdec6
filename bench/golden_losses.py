"""Losses and norms of gradients in the first steps of every tiny preset, beside recorded ones: has anything drifted?

    python bench/golden_losses.py [--record] [PRESET ...]

Every stage makes two steps in float32 from seed 0, on the data that the preset itself makes. The recorded figures lie
beside the test that compares them on every run (`tests/bench/test_golden_losses.py`), for each kind of vector
instructions that torch was run with: decisions of the 3D decoder that lie on an edge fall otherwise where sums are
rounded otherwise (AVX2 against AVX-512: losses by 5e-5, norms by 1e-3). Where a change is meant to alter them, --record
writes the new ones, also under ATEN_CPU_CAPABILITY=avx2, and the change says why.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

from latent3d.io.atomic import write_text
from latent3d.presets import PRESETS
from latent3d.training.config import apply_overrides
from latent3d.training.engine import train
from latent3d.training.metrics import read_metrics

RECORD = Path(__file__).resolve().parents[1] / "tests" / "bench" / "golden_losses.json"
NAMES = tuple(name for name in PRESETS if name.endswith("_tiny"))
SETTINGS = ("steps=2", "warmup_steps=1", "log_every=1", "sheet_every=0", "validate_every=0", "autocast=off")


def figures(name: str) -> dict[str, list[float]]:
    """By stage, loss and norm of the gradient of the first step, then of the second; on one thread of the CPU."""
    config = apply_overrides(PRESETS[name](), [f"*.{setting}" for setting in SETTINGS])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as out:
            train(config, Path(out), device=torch.device("cpu"), progress=False)
            rows = [row for row in read_metrics(Path(out)) if "loss" in row]
    finally:
        torch.set_num_threads(threads)
    return {
        stage.name: [row[key] for row in rows if row["stage"] == stage.name for key in ("loss", "gradient_norm")]
        for stage in config.stages
    }


def recorded() -> dict[str, dict[str, dict[str, list[float]]]]:
    """What `RECORD` holds, by kind of processor, preset and stage."""
    return json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}


def main() -> None:
    """Print the figures beside the recorded ones, or record them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=NAMES, metavar="PRESET", help=", ".join(NAMES))
    parser.add_argument("--record", action="store_true", help="keep these as the golden ones")
    options = parser.parse_args()
    if unknown := [name for name in options.presets if name not in NAMES]:
        parser.error(f"there is no tiny preset '{unknown[0]}'; choose among {', '.join(NAMES)}")
    kinds = recorded()
    golden = kinds.setdefault(torch.backends.cpu.get_cpu_capability(), {})
    print("| preset | stage | loss, norm, loss, norm | recorded | relative difference |")
    print("|---|---|---|---|---|")
    for name in options.presets:
        found = figures(name)
        for stage, values in found.items():
            known = golden.get(name, {}).get(stage, [])
            off = max((abs(a / b - 1) for a, b in zip(values, known, strict=False)), default=float("nan"))
            print(f"| `{name}` | {stage} | {_listed(values)} | {_listed(known)} | {off:.1e} |", flush=True)
        golden[name] = {stage: [float(f"{value:.7g}") for value in values] for stage, values in found.items()}
    if options.record:
        write_text(RECORD, json.dumps(kinds, indent=1) + "\n")


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values) or "-"


if __name__ == "__main__":
    main()
