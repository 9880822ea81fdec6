"""Scenes that grow from five references along a walk that looks around, as a Markdown table.

    python bench/growth.py [--weights NAME|DIR] [--scenes 8] [--references 5] [--refine 60] [--picture FILE]

A walk of 25 views turns by `--turn` degrees on the way through a world; every sixth view is a reference, the other 20
are asked for, at most eight at a time. With more `--references` the walk has more views. Rows: the nearest reference;
every chunk on its own (each view from the scene of its own chunk alone: several scenes, not one); the grown scene; the
grown scene refined. PSNR of the asked views, of the references, splats, seconds, and the highest memory of the first
chunk, which has no scene before it, of the second and of the last.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latent3d.apps.scene import Scene
from latent3d.evaluation.baselines import repeat_references
from latent3d.evaluation.image_metrics import psnr
from latent3d.geometry.rotations import from_rotation_vector, quaternion_to_matrix
from latent3d.hardware import has_bf16
from latent3d.io.cards import Stopwatch
from latent3d.io.images import save_image
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.origin import Origin
from latent3d.representations.views import Views
from latent3d.systems.ggs import GGSConfig, GGSOutput, GGSSystem
from latent3d.systems.growth import grow, plan_growth, seed_scene
from latent3d.weights import find_shipped, load_module
from latent3d.worlds.clips import as_views, lens, photograph, plan_shot

GAP = 6
TINTS = {Origin.SEEN: (0.75, 0.75, 0.75), Origin.INTERPOLATED: (0.25, 0.45, 0.95), Origin.INVENTED: (0.95, 0.5, 0.1)}


def look_around(family: str, split: str, index: int, turn_degrees: float, views: int, side: int = 128) -> Views:
    """A walk along a clip's path that turns to the right on the way, (views,)."""
    shot = plan_shot(family, split, index)
    poses = []
    for time_on_path in np.linspace(0, 1, views):
        angle = torch.tensor([0.0, np.radians(turn_degrees) * (time_on_path - 0.5), 0.0], dtype=torch.float64)
        turn = np.eye(4)
        turn[:3, :3] = quaternion_to_matrix(from_rotation_vector(angle)).numpy()
        poses.append(shot.path.pose(float(time_on_path)) @ turn)
    k = lens(shot.fov, side, side)
    stacked = np.stack(poses)
    pictures = shot.tracer.render(stacked, k, side, side, exposure=shot.exposure)
    return as_views(photograph(pictures.colours, shot.effect_seed, views), pictures, stacked, k)


def peak_megabytes(reset: bool = False) -> float:
    """Highest memory since the last reset; NaN where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return float("nan")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(line.split()[1]) / 1024


def measure(system: GGSSystem, clip: Views, steps: int, refine: int) -> tuple[dict[str, list[float]], GGSOutput]:
    """Rows of one walk: PSNR of asked views, of references, splats, seconds, memory of three chunks."""
    shown = torch.arange(0, len(clip), GAP)
    asked = torch.tensor([i for i in range(len(clip)) if i % GAP])
    references, targets = clip[shown], clip[asked]
    truth = torch.cat([references.images, targets.images])
    k, none = len(shown), float("nan")
    nearest = repeat_references(references, targets.cameras)
    rows = {"nearest reference": [float(psnr(nearest, truth[k:]).mean()), none, 0, 0.0, none, none, none]}
    state = seed_scene(system, references, targets.cameras)
    chunks = plan_growth(state.output.cameras, k)
    bf16 = has_bf16("cpu")

    start, alone = time.perf_counter(), []
    for number, chunk in enumerate(chunks):
        views, n = torch.tensor(chunk.references + chunk.targets), len(chunk.references)
        part = system.sample(
            Views(truth[views[:n]], state.output.cameras[views[:n]]), state.output.cameras[views[n:]], steps=steps,
            seed=number, bf16=bf16,
        )  # fmt: skip
        alone.append((part, truth[views]))
    scores = [scored(part, pictures, int(part.is_reference.sum())) for part, pictures in alone]
    splats = sum(len(part.gaussians) for part, _ in alone)
    rows["a scene per chunk"] = [*np.mean(scores, 0).tolist(), splats, time.perf_counter() - start, none, none, none]

    start, peaks = time.perf_counter(), []
    peak_megabytes(reset=True)
    output = state.output
    for grown in grow(system, state, chunks, steps=steps, bf16=bf16):
        output = grown.output
        peaks.append(peak_megabytes(reset=True))
    seconds = time.perf_counter() - start
    rows["grown"] = [*scored(output, truth, k), len(output.gaussians), seconds, peaks[0], peaks[1], peaks[-1]]
    if refine:
        start = time.perf_counter()
        output = Scene(output, (), {}, Stopwatch()).refined(refine).output
        seconds += time.perf_counter() - start
        rows[f"grown, refined by {refine}"] = [
            *scored(output, truth, k),
            len(output.gaussians),
            seconds,
            none,
            none,
            none,
        ]
    return rows, output


@torch.no_grad()
def scored(output: GGSOutput, truth: Tensor, references: int) -> list[float]:
    """PSNR of the asked views and of the references, as the splats show them."""
    seen = render_gaussians(output.gaussians, output.cameras, low_pass=output.low_pass_px).rgb
    assert seen is not None
    values = psnr(seen, truth)
    return [float(values[references:].mean()), float(values[:references].mean())]


@torch.no_grad()
def picture(output: GGSOutput, truth: Views, path: Path) -> None:
    """Rows of every third view: truth, splats, and where the splats come from."""
    views = len(truth)
    order = torch.cat([torch.arange(0, views, GAP), torch.tensor([i for i in range(views) if i % GAP])]).argsort()
    cameras = output.cameras[order[::4]]
    tints = torch.tensor([TINTS[kind] for kind in Origin])[output.origin]
    shades = [
        render_gaussians(scene, cameras, low_pass=output.low_pass_px).rgb
        for scene in (output.gaussians, replace(output.gaussians, colors=tints))
    ]
    assert shades[0] is not None
    assert shades[1] is not None
    light = shades[0].mean(1, keepdim=True)
    rows = [truth.images[::4], shades[0], shades[1] * (0.35 + 0.65 * light)]
    save_image(path, torch.cat([torch.cat(list(row), 2) for row in rows], 1).clamp(0, 1))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="ggs_rooms", help="name of shipped weights, or their folder")
    parser.add_argument("--family", default="rooms")
    parser.add_argument("--split", default="test", choices=("test", "val"))
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--references", type=int, default=5, help="along the walk, six views apart; three or more")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--turn", type=float, default=120.0, help="degrees from the first view to the last")
    parser.add_argument("--refine", type=int, default=60)
    parser.add_argument("--picture", type=Path, help="picture of the first walk")
    options = parser.parse_args()
    if options.references < 3:
        parser.error("--references must be at least 3, for two chunks")
    folder = Path(options.weights) if Path(options.weights).is_dir() else find_shipped(options.weights)
    system, _ = load_module(folder, GGSConfig)
    system.eval()
    results = []
    for index in range(options.scenes):
        clip = look_around(options.family, options.split, index, options.turn, 1 + GAP * (options.references - 1))
        rows, output = measure(system, clip, options.steps, options.refine)
        results.append(rows)
        if index == 0 and options.picture:
            picture(output, clip, options.picture)
    asked = (GAP - 1) * (options.references - 1)
    print(f"| | PSNR of {asked} views | of {options.references} references | splats | s | MB, chunk 1 | 2 | last |")
    print("|---|---|---|---|---|---|---|---|")
    for name in results[0]:
        values = np.mean([rows[name] for rows in results], 0)
        cells = [f"{value:.{digits}f}" for value, digits in zip(values, (2, 2, 0, 1, 0, 0, 0), strict=True)]
        print(f"| {name} | " + " | ".join("-" if cell == "nan" else cell for cell in cells) + " |")


if __name__ == "__main__":
    main()
