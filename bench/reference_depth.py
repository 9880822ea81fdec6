"""Depth of the reference views by the reference geometry alone, on held-back clips, as a Markdown table.

    python bench/reference_depth.py --bank DIR [--weights NAME|DIR] [--clips 48]

One reference is the first view of a clip, two are the first and the last. Errors are means over pixels, then clips:
|ln predicted - ln true|, and AbsRel without alignment. "Agreed" are pixels at which the other reference's splats show
the same surface (depth coordinate within 0.04): their share, the error there, and the error of both references' mean.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from latent3d.data.shards import BankStream
from latent3d.systems.ggs import GGSConfig, GGSSystem
from latent3d.weights import find_shipped, load_module

AGREED = 0.04


@torch.no_grad()
def measure(system: GGSSystem, stream: BankStream, count: int, clips: int) -> list[float]:
    """Means over clips: ln error, AbsRel, share agreed, ln error there, ln error of the mean there."""
    span, views = system.config.depth_range, stream.info.num_views
    role = torch.zeros(views, dtype=torch.bool)
    role[torch.tensor([0, views - 1])[:count]] = True
    rows = []
    for step in range(clips):
        clip = stream.batch(step)
        assert clip.depths is not None
        context = system.context_of(clip.images, clip.cameras, role)
        assert context.relative is not None
        assert context.crossed is not None
        truth = clip.depths[:, role].clamp_min(span.near)
        depth, other = span.depth(context.relative), context.crossed[:, :, 4:]
        error = (depth.log() - truth.log()).abs()
        mean = (span.depth((context.relative + other) / 2).log() - truth.log()).abs()
        agreed = (context.crossed[:, :, 3:4] > 0.9) & ((other - context.relative).abs() < AGREED)
        figures = [error.mean(), ((depth - truth).abs() / truth).mean(), agreed.float().mean()]
        rows.append(torch.stack([*figures, error[agreed].mean(), mean[agreed].mean()]))
    return torch.stack(rows).nanmean(0).tolist()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=Path, required=True, help="held-back clips, see `latent3d data bank`")
    parser.add_argument("--weights", default="ggs_rooms", help="name of shipped weights, or their folder")
    parser.add_argument("--clips", type=int, default=48)
    options = parser.parse_args()
    folder = Path(options.weights) if Path(options.weights).is_dir() else find_shipped(options.weights)
    system, _ = load_module(folder, GGSConfig)
    system.eval()
    stream = BankStream(options.bank, 1)
    print("| references | ln depth error | AbsRel | agreed | error there | error of the mean there |")
    print("|---|---|---|---|---|---|")
    for count in (1, 2):
        cells = [f"{value:.3f}" if value == value else "-" for value in measure(system, stream, count, options.clips)]
        print(f"| {count} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
