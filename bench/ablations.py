"""The comparisons of the GGS paper in equal conditions: one command trains, judges and writes the table.

    python bench/ablations.py --out DIR [--minutes 30 | --steps N] [--seeds 3] [--scenes 16] [--only ggs,no3d]
                              [--bank DIR ...] [--prior DIR] [--protocol ggs_two_ref]

Stop it at any point and start it again with the same folder: training goes on from its last step, finished runs and
judged scenes are not done again. The table (``ablations_<protocol>.md`` and ``.json``) is written anew after each run.
All runs make the same number of optimiser steps, as in the paper; ``--minutes`` finds it: so many that the slowest run
takes about that long here. ``--seconds`` measures and prints the time per step and stops.

Without ``--bank`` training clips are rendered once into DIR/bank. Autoencoder and reference geometry are those of the
shipped weights; the denoiser that all variants start from is trained in DIR as image-to-video model without poses, or
taken from ``--prior``, a weights folder of a denoiser.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from ablation_runs import VARIANTS, Plan, Workshop, keep_part, measure, settle, steps_for
from ablation_scores import Judging, judge
from ablation_table import claims, markdown, read_scores, summarise

from latent3d.data.shards import bank_command
from latent3d.evaluation.features import build_extractor
from latent3d.evaluation.protocols import PROTOCOLS
from latent3d.evaluation.scene_cache import SceneCache
from latent3d.io.atomic import write_text
from latent3d.io.cards import machine, versions
from latent3d.systems.ggs import GGSConfig
from latent3d.training.command import find_preset, pick_device
from latent3d.weights import find_shipped, save_weights

STOPPED = 130
"""Exit code after Ctrl-C."""


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the comparison; the same one continues it")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=30.0, help="of training per run")
    length.add_argument("--steps", type=int, help="of every variant instead")
    parser.add_argument("--decoder-steps", type=int, help="of the 3D decoder, with --steps; without it, half as many")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=16, help="test worlds")
    parser.add_argument("--only", default=",".join(VARIANTS), help="variants, separated by commas")
    parser.add_argument("--protocol", default="ggs_two_ref", help=", ".join(PROTOCOLS))
    parser.add_argument("--family", default="mixed", help="of the test worlds")
    parser.add_argument("--bank", type=Path, nargs="+", help="training clips, see `latent3d data bank`")
    parser.add_argument("--clips", type=int, default=512, help="to render where no bank is given")
    parser.add_argument("--batch", type=int, default=8, help="scenes per step")
    parser.add_argument("--prior", type=Path, help="weights folder of the denoiser that all variants start from")
    parser.add_argument("--preset", default="ggs_rooms")
    parser.add_argument("--weights", default="ggs_rooms", help="whose autoencoder and geometry are used; none: random")
    parser.add_argument("--sampling-steps", type=int, default=30)
    parser.add_argument("--iterations", type=int, default=1000, help="of scenes optimised from nothing on pictures")
    parser.add_argument("--refinements", type=int, default=300, help="iterations of refined scenes")
    parser.add_argument("--splats", type=int, default=20_000, help="at the start of a scene made from pictures alone")
    parser.add_argument("--extractor", default="random_conv", help="of the distances; others need --extractor-weights")
    parser.add_argument("--extractor-weights", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads of PyTorch")
    parser.add_argument("--seconds", action="store_true", help="only measure the time per step")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    if unknown := [name for name in options.only if name not in VARIANTS]:
        parser.error(f"there is no variant '{unknown[0]}'; choose among {', '.join(VARIANTS)}")
    if options.steps is not None and options.steps < 2:
        parser.error("--steps must be at least 2")
    if options.decoder_steps is not None and (options.steps is None or options.decoder_steps < 1):
        parser.error("--decoder-steps goes with --steps and must be at least 1")
    return options


def clips_of(options: argparse.Namespace) -> tuple[str, ...]:
    """The banks of training clips; rendered here where none is given."""
    if options.bank:
        return tuple(str(folder) for folder in options.bank)
    preset = find_preset(options.preset)()
    sampling = next(stage.sampling for stage in preset.stages if stage.name == "scene")
    folder, family = options.out / "bank", preset.data.family
    bank_command(folder, family, "train", 0, options.clips, sampling.views, sampling.novel, preset.data.size)
    return (str(folder),)


def weights_folder(options: argparse.Namespace) -> Path:
    """Weights that autoencoder and geometry are taken from; made here where they shall be random."""
    if options.weights != "none":
        named = Path(options.weights)
        return named if named.is_dir() else find_shipped(options.weights)
    torch.manual_seed(0)
    system = find_preset(options.preset)().system
    assert isinstance(system, GGSConfig)
    return save_weights(options.out / "parts" / "random", system.build(), system)


def set_up(options: argparse.Namespace) -> Workshop:
    """Clips, parts and plan of the folder.

    Raises:
        ValueError: if the folder holds a comparison of another kind.
    """
    out, device = options.out, pick_device(options.device)
    asked = Plan(preset=options.preset, bank=clips_of(options), batch=options.batch, steps=options.steps or 1)
    parts = {part: out / "parts" / part for part in ("vae", "geometry")}
    for part in [part for part, folder in parts.items() if not folder.exists()]:
        keep_part(weights_folder(options), part, parts[part])
    if options.prior is not None:
        parts["denoiser"] = options.prior

    def decide() -> Plan:
        if options.steps is not None:
            decoder = options.decoder_steps or max(1, options.steps // 2)
            return asked.replace(decoder_steps=decoder, prior_steps=options.steps)
        seconds = measure(Workshop(out, asked, parts, device), options.only)
        steps, decoder, prior = steps_for(seconds, options.minutes)
        return asked.replace(steps=steps, decoder_steps=decoder, prior_steps=prior, seconds=seconds)

    if options.seconds:
        plan = asked.replace(seconds=measure(Workshop(out, asked, parts, device), options.only))
        print(json.dumps(plan.seconds, indent=1))
        raise SystemExit(0)
    return Workshop(out, settle(out, asked, decide), parts, device, not options.quiet)


def write_table(shop: Workshop, judging: Judging, extractor: str, done: dict[str, dict[int, SceneCache]]) -> None:
    """The table of all runs judged so far."""
    scores = {name: read_scores(list(caches.values()), judging.scenes) for name, caches in done.items() if caches}
    record = {
        "plan": shop.plan.to_dict(),
        "judging": judging.to_dict(),
        "extractor": extractor,
        "seeds": {name: list(caches) for name, caches in done.items() if caches},
        "rows": summarise(scores),
        "claims": claims(scores),
        "versions": versions(),
        "machine": machine(),
    }
    stem = f"ablations_{judging.protocol}"
    write_text(shop.out / f"{stem}.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
    write_text(shop.out / f"{stem}.md", markdown(record))


def run(options: argparse.Namespace) -> int:
    """Train and judge everything that is not done yet; exit code."""
    extractor = build_extractor(options.extractor, options.extractor_weights)
    judging = Judging(
        protocol=options.protocol, family=options.family, scenes=options.scenes, steps=options.sampling_steps,
        iterations=options.iterations, refinements=options.refinements, splats=options.splats,
    )  # fmt: skip
    shop = set_up(options)
    if "denoiser" not in shop.parts:
        if not shop.train_prior():
            return STOPPED
        shop.parts["denoiser"] = shop.denoiser
    done: dict[str, dict[int, SceneCache]] = {name: {} for name in options.only}
    for seed in range(options.seeds):
        for name in options.only:
            print(f"{VARIANTS[name].title}, seed {seed}", flush=True)
            if not shop.train_variant(name, seed):
                return STOPPED
            cache = judge(
                shop.out / "scores", name, seed, shop.weights(name, seed), judging, extractor, str(shop.device)
            )
            cache.write_sheet(list(range(min(4, judging.scenes))), shop.out / "sheets" / f"{name}-{seed}.png")
            done[name][seed] = cache
            write_table(shop, judging, extractor.name, done)
    print((shop.out / f"ablations_{judging.protocol}.md").read_text(encoding="utf-8"))
    return 0


def run_command(options: argparse.Namespace, run: Callable[[argparse.Namespace], int]) -> int:
    """Exit code of a comparison: bad input is a sentence, Ctrl-C says how to go on."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        code = run(options)
    except KeyboardInterrupt:
        code = STOPPED
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if code == STOPPED:
        print(f"stopped; the same command goes on with '{options.out}'", file=sys.stderr)
    return code


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    return run_command(parse(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
