"""Tri-planes, the denoiser of objects and its decoder on an NVIDIA GPU: the tables of the CPU's benchmarks, and memory.

    python bench/gpu_networks.py [--rounds 10] [--seconds 5] [--json FILE]

The scripts `volume`, `denoisers_plane` and `triplane_decoder` say what their tables hold; here CUDA events give the
times. Products in fp32 are not rounded to tf32.
"""

from __future__ import annotations

from collections.abc import Sequence

import denoisers_plane
import torch
import triplane_decoder
import volume
from gpu_timing import CLOCK, describe_gpu, gpu_parser, need_gpu
from tables import Report

from latent3d.autoencoders.triplane_decoder import TriPlaneDecoderConfig
from latent3d.denoisers.plane_dit import PlaneDiTConfig


def measure(report: Report, rounds: int, seconds: float, device: str = CLOCK) -> None:
    """All tables; below each the most memory that was allocated."""
    denoiser, decoder = PlaneDiTConfig.large_image(), TriPlaneDecoderConfig()
    parts = (
        lambda: volume.training_table(report, rounds, device),
        lambda: volume.inference_table(report, rounds, device),
        lambda: denoisers_plane.measure(report, "large_image", denoiser, rounds, seconds, device),
        lambda: triplane_decoder.measure(report, decoder, rounds, seconds, device),
    )
    for part in parts:
        if device == CLOCK:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        part()
        if device == CLOCK:
            peak = torch.cuda.max_memory_allocated() / 1e6
            report.tables[-1].note(f"At most {peak:.0f} MB of device memory were allocated, weights included.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = gpu_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0, help="per precision, after which no round is started")
    options = parser.parse_args(arguments)
    need_gpu()
    with Report("Networks on a GPU", options, **describe_gpu()) as report:
        measure(report, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
