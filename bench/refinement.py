"""What photometric refinement gains on views that it never saw, for the shipped model's scenes, as a Markdown table.

    python bench/refinement.py [--weights NAME|DIR] [--family mixed] [--scenes 3] [--iterations 30] [--threads 1]

Every scene has 2 references, the first and the last of 8 views of a clip of split "val", and the model makes splats and
6 generated pictures of the others. Refinement sees the references and, by choice, the generated pictures: decoded in
2D, or the starting splats' own renderings. PSNR is against the true pictures, per image, then averaged: at the
references, at the 6 target views, and at further views between them. "start" is the scene before refinement.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from latent3d.evaluation.image_metrics import psnr
from latent3d.geometry.cameras import Cameras
from latent3d.rendering.refinement import RefinementConfig, gentle_refinement, refine
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.views import Views
from latent3d.systems.ggs import GGSConfig, GGSOutput, GGSSystem
from latent3d.weights import find_shipped, load_module
from latent3d.worlds.clips import sample_clip

VIEWS, EXTRA = 8, 3
GROUPS = ("references", "targets", "between")


@dataclass(frozen=True)
class Choice:
    """What refinement is asked to reproduce.

    Attributes:
        pictures: of the generated views: "decoded", "splats", or none.
        weight: of a generated view where a reference has 1.
        gentle: with the small steps of `gentle_refinement` instead of the default's.
        changes: of the configuration; ``depth_weight`` is of the starting scene's own depth.
    """

    name: str
    pictures: str | None = None
    weight: float = 1.0
    gentle: bool = False
    changes: tuple[tuple[str, float], ...] = ()


CHOICES = (
    Choice("references"),
    Choice("references, own depth 1", changes=(("depth_weight", 1.0),)),
    Choice("references + decoded", "decoded"),
    Choice("references + decoded at 0.2", "decoded", 0.2),
    Choice("references + splats", "splats"),
    Choice("references + splats at 0.2", "splats", 0.2),
    Choice("references, doubled early", changes=(("densify_every", 10),)),
    Choice("references, gentle", gentle=True),
    Choice("references + splats at 0.2, gentle", "splats", 0.2, gentle=True),
)


@torch.no_grad()
def start(system: GGSSystem, clip: Views, steps: int) -> tuple[GGSOutput, Views, Views]:
    """The model's scene, the views that refinement may see (generated ones last), and the splats' own views there."""
    ends = torch.tensor([0, VIEWS - 1])
    output = system.sample(clip[ends], clip.cameras[1 : VIEWS - 1], steps=steps, seed=0)
    seen = render_gaussians(output.gaussians, output.cameras, low_pass=output.low_pass_px)
    assert seen.rgb is not None
    depths = torch.where(seen.alpha > 0.5, seen.depth, torch.zeros_like(seen.depth))
    pictures = torch.cat([output.images[:2], seen.rgb[2:].clamp(0, 1)])
    return output, Views(output.images, output.cameras, depths), Views(pictures, output.cameras, depths)


@torch.no_grad()
def scores(gaussians: Gaussians, clip: Views, low_pass: float) -> list[float]:
    """Mean PSNR at references, targets and views between."""

    def mean(cameras: Cameras, truth: Tensor) -> float:
        rgb = render_gaussians(gaussians, cameras, low_pass=low_pass).rgb
        assert rgb is not None
        return float(psnr(rgb, truth).mean())

    last = VIEWS - 1
    sets = [clip[torch.tensor([0, last])], clip[1:last], clip[VIEWS:]]
    return [mean(views.cameras, views.images) for views in sets]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="ggs_rooms", help="name of shipped weights, or their folder")
    parser.add_argument("--family", default="mixed")
    parser.add_argument("--scenes", type=int, default=3)
    parser.add_argument("--iterations", type=int, nargs="+", default=[30])
    parser.add_argument("--steps", type=int, help="of the sampler; default as the weights' card recommends")
    parser.add_argument("--choices", nargs="+", help="names of choices, default all")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="of the configuration, numbers")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = Path(options.weights) if Path(options.weights).is_dir() else find_shipped(options.weights)
    system, card = load_module(folder, GGSConfig)
    system.eval()
    steps = options.steps or int(card.get("default_steps", 30))
    fixed = {name: float(value) for name, value in (item.split("=") for item in options.set)}
    chosen = [choice for choice in CHOICES if options.choices is None or choice.name in options.choices]
    rows: dict[tuple[str, int], list[list[float]]] = {}
    for index in range(options.scenes):
        clip = sample_clip(options.family, "val", index, num_views=VIEWS, extra_views=EXTRA)
        output, decoded, splats = start(system, clip, steps)
        count = len(output.gaussians)
        before = scores(output.gaussians, clip, output.low_pass_px)
        rows.setdefault(("start", 0), []).append([*before, count, 0.0])
        for choice in chosen:
            views = splats if choice.pictures == "splats" else decoded
            if choice.pictures is None:
                views = views[:2]
            weights = torch.tensor([1.0, 1.0] + [choice.weight] * (len(views) - 2))
            for iterations in options.iterations:
                config = gentle_refinement() if choice.gentle else RefinementConfig()
                config = config.replace(iterations=iterations, low_pass_px=output.low_pass_px)
                own = dict(choice.changes) | fixed
                config = config.replace(**{name: type(getattr(config, name))(value) for name, value in own.items()})
                begin = time.process_time()
                refined = refine(output.gaussians, views, config, weights=weights)
                seconds = (time.process_time() - begin) / max(iterations, 1)
                after = scores(refined.gaussians, clip, output.low_pass_px)
                row = [*after, len(refined.gaussians), seconds]
                rows.setdefault((choice.name, iterations), []).append(row)
                gains = ", ".join(f"{a - b:+.2f}" for a, b in zip(after, before, strict=True))
                print(f"{options.family} {index}, {choice.name}, {iterations}: {gains}", file=sys.stderr, flush=True)
    print("| refined on | iterations | " + " | ".join(GROUPS) + " | splats | s/iteration |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    base = rows[("start", 0)]
    for (name, iterations), values in rows.items():
        cells = []
        for column in range(3):
            gains = [value[column] - first[column] for value, first in zip(values, base, strict=True)]
            mean = statistics.mean(value[column] for value in values)
            spread = f" ({statistics.mean(gains):+.2f}: {min(gains):+.2f} to {max(gains):+.2f})" if iterations else ""
            cells.append(f"{mean:.2f}{spread}")
        splats_mean, seconds = (statistics.mean(value[column] for value in values) for column in (3, 4))
        print(f"| {name} | {iterations} | " + " | ".join(cells) + f" | {splats_mean:.0f} | {seconds:.3f} |")
    print(f"\nMeans over {options.scenes} scenes of {options.family}, in dB; gain over the start: mean, least, most.")


if __name__ == "__main__":
    main()
