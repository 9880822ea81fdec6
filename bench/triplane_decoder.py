"""Time of the paper-size tri-plane decoder (LN3Diff++: 454 M parameters in the transformer) on this machine.

    python bench/triplane_decoder.py [--threads 2] [--calls 2]

Random weights, batch 1, latents 3x4x32x32 to planes 3x32x128x128. The zero-initialised layers are shaken, so that the
precisions' outputs can be compared. The shortest of the calls counts. An earlier implementation of this architecture
took 11.3 s a call in fp32 on two threads of a shared machine (735 GFLOP).
"""

from __future__ import annotations

import argparse
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from latent3d.autoencoders.triplane_decoder import TriPlaneDecoder, TriPlaneDecoderConfig


def shaken(decoder: TriPlaneDecoder) -> TriPlaneDecoder:
    """Small random numbers in place of zeros."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in decoder.parameters():
            if not bool(parameter.any()):
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    return decoder.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--calls", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    decoder = shaken(TriPlaneDecoderConfig().build())
    latents = torch.randn(1, 3, 4, 32, 32)
    with FlopCounterMode(display=False) as counter:
        truth = decoder(latents)
    millions = sum(parameter.numel() for parameter in decoder.parameters()) / 1e6
    print(
        f"{millions:.1f} M parameters, {counter.get_total_flops() / 1e9:.0f} GFLOP a call; {arguments.threads} threads"
    )
    print("| precision | call s | processor s | largest difference to fp32, in the planes' spread | mean (rms) |")
    print("|---|---|---|---|---|")
    for dtype in (torch.float32, torch.bfloat16):
        model = decoder.to(dtype)
        clock, processor = float("inf"), float("inf")
        for _ in range(arguments.calls):
            start, used = time.perf_counter(), time.process_time()
            planes = model(latents.to(dtype))
            clock = min(clock, time.perf_counter() - start)
            processor = min(processor, time.process_time() - used)
        error = (planes.float() - truth) / truth.std()
        errors = f"{float(error.abs().max()):.1e} | {float(error.square().mean().sqrt()):.1e}"
        print(f"| {str(dtype).removeprefix('torch.')} | {clock:.2f} | {processor:.2f} | {errors} |")


if __name__ == "__main__":
    main()
