"""All benchmarks of an NVIDIA GPU one after the other, as one report: report.md and report.json.

    python bench/gpu_report.py [--out out/bench-gpu] [--minutes 40] [--only NAME ...]

As `report` does it for the CPU: every part is a script of its own with a time limit, and one that does not end in time
leaves the rows that it had until then. Without a GPU it says so and ends with exit code 2.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from gpu_timing import describe_gpu, need_gpu
from report import Part, run_all

TITLE = "Benchmarks of latent3d on a GPU"
PARTS = (
    Part("blending", "Splatting: blending", "gpu_rasteriser.py", ("--contest", "blending"), share=225),
    Part("splats", "Splatting: the whole call", "gpu_rasteriser.py", ("--contest", "whole"), share=225),
    Part("networks", "Tri-planes, denoiser and decoder of objects", "gpu_networks.py", share=75),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the options ask for."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/bench-gpu"))
    parser.add_argument("--minutes", type=float, default=40.0, help="for everything")
    parser.add_argument("--threads", type=int, default=2, help="of the host")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"some of {', '.join(names)}")
    options = parser.parse_args(arguments)
    need_gpu()
    parts = [part for part in PARTS if options.only is None or part.name in options.only]
    done = run_all(parts, options.out, 60 * options.minutes, options.threads, TITLE, **describe_gpu())
    return 0 if done else 1


if __name__ == "__main__":
    raise SystemExit(main())
