"""The ablations of LN3Diff++ in equal conditions: one command trains, judges and writes the tables.

    python bench/ablations_ln3diff.py --out DIR [--minutes 30 | --steps N] [--seeds 3] [--objects 64]
                                      [--only conv,vit,fm_dit] [--bank DIR ...] [--weights DIR]

Two tables: the ladder of the autoencoder, from convolutions to attention within and across planes, by reconstruction of
unseen procedural objects; and flow matching with a DiT against DDPM with a U-Net, by samples against held-back shapes.
Rungs make equal steps on equal batches; ``--minutes`` finds as many as the slowest makes in that time. Denoisers share
a frozen autoencoder (``--weights``, else the last rung, trained here) and get equal time.

Stop it at any point and start it again with the same folder: training goes on from its last step, finished runs and
judged objects are not done again. The tables (``ladder`` and ``denoisers``, .md and .json) are written anew after each
run. Without ``--bank`` the training objects are rendered once into DIR/bank. ``--seconds`` only measures.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ablation_runs import settle
from ablation_table import cell, change, over_scenes, over_seeds, spread
from ablations import STOPPED, run_command
from ablations_ln3diff_runs import (
    DENOISERS,
    LADDER,
    PRESETS,
    PUBLISHED,
    ObjectPlan,
    ObjectWorkshop,
    measure,
    steps_of,
)

from latent3d.apps.objects import LN3Diff
from latent3d.data.object_bank import render_object_bank
from latent3d.data.object_sources import ObjectCameras, ProceduralObjects
from latent3d.evaluation.features import FeatureExtractor, build_extractor
from latent3d.evaluation.object_command import ObjectModel, evaluate_objects
from latent3d.evaluation.object_generation import PRIOR, SUBSET
from latent3d.evaluation.object_metrics import RECONSTRUCTION_COLUMNS
from latent3d.evaluation.object_runner import MODEL
from latent3d.evaluation.records import array, interval, number, plain, table_of
from latent3d.io.atomic import write_text
from latent3d.io.cards import machine, versions
from latent3d.training.command import pick_device
from latent3d.weights import find_shipped

NAMES = (*LADDER, *DENOISERS)
METRICS = ("psnr", "psnr_foreground", "ssim", "mask_iou", "depth_error")
"""Of `RECONSTRUCTION_COLUMNS`: what the ladder's table shows."""
Records = dict[str, dict[int, dict[str, Any]]]
"""By run and seed."""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the comparison; the same one continues it")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=30.0, help="of training per run")
    length.add_argument("--steps", type=int, help="of every rung instead, and of the slower denoiser")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--objects", type=int, default=64, help="test objects, and samples of each kind")
    parser.add_argument("--only", default=",".join(NAMES), help="runs, separated by commas")
    parser.add_argument("--bank", type=Path, nargs="+", help="training objects, see `latent3d data objects`")
    parser.add_argument("--train-objects", type=int, default=2048, help="to render where no bank is given")
    parser.add_argument("--batch", type=int, default=8, help="objects per step of the ladder")
    parser.add_argument("--denoiser-batch", type=int, default=32, help="objects per step of the denoisers")
    parser.add_argument("--preset", default="ln3diff_shapes", choices=list(PRESETS))
    parser.add_argument("--weights", help="whose autoencoder the denoisers share; default the ladder's last rung")
    parser.add_argument("--sampling-steps", type=int, default=50)
    parser.add_argument("--training-shapes", type=int, default=256, help="to look for the nearest ones among; 0: none")
    parser.add_argument("--extractor", default="random_conv", help="of the distances; others need --extractor-weights")
    parser.add_argument("--extractor-weights", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads of PyTorch")
    parser.add_argument("--seconds", action="store_true", help="only measure the time per step")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    if unknown := [name for name in options.only if name not in NAMES]:
        parser.error(f"there is no run '{unknown[0]}'; choose among {', '.join(NAMES)}")
    if options.steps is not None and options.steps < 2:
        parser.error("--steps must be at least 2")
    # The denoisers follow the ladder, whose last rung is their autoencoder.
    options.only = [name for name in NAMES if name in options.only]
    if any(name in DENOISERS for name in options.only) and options.weights is None:
        needed = "plane_encoder"
        if needed not in options.only:
            parser.error(f"the denoisers need an autoencoder: give --weights, or add {needed} to --only")
    return options


def set_up(options: argparse.Namespace) -> ObjectWorkshop:
    """Objects, autoencoder and plan of the folder.

    Raises:
        ValueError: if the folder holds a comparison of another kind.
    """
    out, device = options.out, pick_device(options.device)
    bank = tuple(str(folder) for folder in options.bank or ())
    if not bank:
        preset = PRESETS[options.preset]()
        views = max(16, *(stage.sampling.views + stage.sampling.novel for stage in preset.stages))
        source = ProceduralObjects(ObjectCameras(views=views, size=preset.data.size))
        bank = (str(render_object_bank(out / "bank", source, 0, options.train_objects)),)
    asked = ObjectPlan(
        preset=options.preset, bank=bank, batch=options.batch, steps=options.steps or 1,
        denoiser_batch=options.denoiser_batch,
    )  # fmt: skip
    autoencoder = None
    if options.weights is not None:
        autoencoder = Path(options.weights) if Path(options.weights).is_dir() else find_shipped(options.weights)

    def decide() -> ObjectPlan:
        seconds = measure(ObjectWorkshop(out, asked, device), list(NAMES))
        steps, denoisers = steps_of(seconds, options.minutes, options.steps)
        return asked.replace(steps=steps, denoiser_steps=denoisers, seconds=seconds)

    if options.seconds:
        print(json.dumps(measure(ObjectWorkshop(out, asked, device), options.only), indent=1))
        raise SystemExit(0)
    return ObjectWorkshop(out, settle(out, asked, decide), device, not options.quiet, autoencoder)


def judge(
    shop: ObjectWorkshop, name: str, seed: int, options: argparse.Namespace, extractor: FeatureExtractor
) -> dict[str, Any]:
    """The record of a finished run; what its cache holds is not done again."""
    pipeline = LN3Diff.from_pretrained(shop.weights(name, seed), str(shop.device))
    model = ObjectModel(pipeline, pipeline.weights, pipeline.system.config.image_size)
    protocol = "objects_reconstruction" if name in LADDER else "objects_generation"
    return evaluate_objects(
        model, shop.out / "scores" / f"{name}-{seed}", protocol=(protocol,), objects=options.objects,
        steps=(options.sampling_steps,), training=options.training_shapes, extractor=extractor,
        progress=shop.progress,
    )[0]  # fmt: skip


def ladder_rows(records: Records) -> dict[str, Any]:
    """Every number of every rung: mean over seeds with its interval over objects, spread between seeds, and the
    difference to the rung before, paired by object."""
    rows: dict[str, Any] = {}
    before: dict[str, np.ndarray] | None = None
    for name in (name for name in LADDER if records.get(name)):
        numbers = {
            metric: np.stack([array(one["methods"][MODEL]["per_scene"][metric]) for one in records[name].values()])
            for metric in METRICS
        }
        row: dict[str, Any] = {"metrics": {}, "difference": {}, "published": PUBLISHED.get(name)}
        for metric, values in numbers.items():
            row["metrics"][metric] = interval(over_seeds(values)) | {"seeds": spread(over_scenes(values))}
            if before is not None:
                row["difference"][metric] = interval(over_seeds(values) - over_seeds(before[metric]))
        rows[name], before = row, numbers
    return plain(rows)


def ladder_markdown(rows: dict[str, Any], plan: ObjectPlan, records: Records, objects: int) -> str:
    """The ladder, the step of each rung, and the conditions of both."""
    heads = [RECONSTRUCTION_COLUMNS[metric] for metric in METRICS]
    lines = ["### The autoencoder's ladder", "", "| autoencoder | " + " | ".join(head for head, _ in heads)]
    lines[-1] += " | PSNR published | PSNR over the row before |"
    lines.append("|---|" + "---:|" * (len(heads) + 2))
    for name, row in rows.items():
        cells = [cell(row["metrics"][metric], digits) for metric, (_, digits) in zip(METRICS, heads, strict=True)]
        cells.append("-" if row["published"] is None else f"{row['published']:.2f}")
        cells.append(change(row["difference"].get("psnr"), 2))
        lines.append(f"| {LADDER[name].title} | " + " | ".join(cells) + " |")
    counts = ", ".join(f"{LADDER[name].title} {len(records[name])}" for name in rows)
    lines += [
        "",
        f"Means over {objects} unseen procedural objects with half the 95 % bootstrap interval over objects, and in "
        f"brackets the standard deviation between seeds (seeds: {counts}); differences paired by object. Every run: "
        f"{plan.steps} steps of {plan.batch} objects, same batches per seed. Published: 7 thousand objects of "
        "Objaverse, 100 thousand steps; only its direction compares.",
    ]
    return "\n".join(lines) + "\n"


def denoiser_rows(records: Records) -> dict[str, Any]:
    """Distances of every kind of condition and of the yardsticks, as means over seeds with their spread."""
    rows: dict[str, Any] = {}
    for name, by_seed in records.items():
        for method in next(iter(by_seed.values()))["methods"]:
            found = [record["methods"][method]["distances"] for record in by_seed.values()]
            if any(item is None for item in found):
                continue
            # Yardsticks do not depend on the denoiser: one row for all.
            shared = method in (SUBSET, PRIOR)
            values = {key: np.array([item[key] for item in found], float) for key in found[0] if key in found[-1]}
            rows[method if shared else f"{name}, {method}"] = {
                key: {"mean": value.mean(), "seeds": spread(value)} for key, value in values.items()
            }
    return plain(rows)


def denoiser_markdown(rows: dict[str, Any], plan: ObjectPlan, records: Records) -> str:
    """The distances of both denoisers beside the yardsticks."""
    some = next(iter(next(iter(records.values())).values()))
    columns = table_of(some).distances
    lines = ["### Flow matching with a DiT against DDPM with a U-Net", ""]
    lines += ["| samples | " + " | ".join(head for head, _ in columns.values()) + " |"]
    lines.append("|---|" + "---:|" * len(columns))
    for name, row in rows.items():
        denoiser, _, kind = name.partition(", ")
        title = f"{DENOISERS[denoiser][0]}: {kind}" if kind else name
        means = {key: value["mean"] for key, value in row.items()}
        cells = []
        for key, (_, form) in columns.items():
            seeds = (row.get(key) or {}).get("seeds")
            cells.append(number(means, key, form) + ("" if seeds is None else f" ({seeds:{form}})"))
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    made = ", ".join(f"{DENOISERS[name][0]} {plan.denoiser_steps[name]} steps" for name in records)
    seconds = ", ".join(f"{DENOISERS[name][0]} {plan.seconds[name]:.3g} s" for name in records)
    lines += [
        "",
        f"Means over seeds, in brackets the standard deviation between them ({len(next(iter(records.values())))} "
        f"seeds). Equal time of training on one frozen autoencoder: {made} of {plan.denoiser_batch} objects (per step: "
        f"{seconds}). {some['caption']}",
    ]
    return "\n".join(lines) + "\n"


def write_tables(shop: ObjectWorkshop, records: Records, objects: int) -> list[Path]:
    """The tables of all runs judged so far; their files."""
    about = {"plan": shop.plan.to_dict(), "objects": objects, "versions": versions(), "machine": machine()}
    rungs = {name: one for name, one in records.items() if name in LADDER and one}
    denoisers = {name: one for name, one in records.items() if name in DENOISERS and one}
    texts = {}
    if rungs:
        rows = ladder_rows(rungs)
        texts["ladder"] = (rows, ladder_markdown(rows, shop.plan, rungs, objects), rungs)
    if denoisers:
        rows = denoiser_rows(denoisers)
        texts["denoisers"] = (rows, denoiser_markdown(rows, shop.plan, denoisers), denoisers)
    for stem, (rows, text, runs) in texts.items():
        record = about | {"rows": rows, "seeds": {name: list(by_seed) for name, by_seed in runs.items()}}
        write_text(shop.out / f"{stem}.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
        write_text(shop.out / f"{stem}.md", text)
    return [shop.out / f"{stem}.md" for stem in texts]


def run(options: argparse.Namespace) -> int:
    """Train and judge everything that is not done yet; exit code."""
    extractor = build_extractor(options.extractor, options.extractor_weights)
    shop = set_up(options)
    records: Records = {name: {} for name in options.only}
    tables: list[Path] = []
    for seed in range(options.seeds):
        for name in options.only:
            title = LADDER[name].title if name in LADDER else DENOISERS[name][0]
            print(f"{title}, seed {seed}", flush=True)
            if not shop.train(name, seed):
                return STOPPED
            records[name][seed] = judge(shop, name, seed, options, extractor)
            tables = write_tables(shop, records, options.objects)
    for path in tables:
        print(path.read_text(encoding="utf-8"))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    return run_command(parse(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
