"""Time of the paper-size tri-plane decoder (LN3Diff++: 454 M parameters in the transformer) on this machine.

    python bench/triplane_decoder.py [--rounds 3] [--threads 2] [--clock wall] [--json FILE]

Random weights, batch 1, latents 3x4x32x32 to planes 3x32x128x128. The zero-initialised layers are shaken, so that the
precisions' outputs can be compared. An earlier implementation of this architecture took 11.3 s a call in fp32 on two
threads of a shared machine (735 GFLOP).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tables import Report, bench_parser, interleaved
from torch.utils.flop_counter import FlopCounterMode

from latent3d.autoencoders.triplane_decoder import TriPlaneDecoder, TriPlaneDecoderConfig
from latent3d.hardware import onednn_is_faster
from latent3d.nn.inference import for_inference


def shaken(decoder: TriPlaneDecoder) -> TriPlaneDecoder:
    """Small random numbers in place of zeros."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in decoder.parameters():
            if not bool(parameter.any()):
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    return decoder.eval().requires_grad_(False)


@torch.no_grad()
def measure(report: Report, config: TriPlaneDecoderConfig, rounds: int, seconds: float, device: str = "cpu") -> None:
    """Add the table of a decoder in both precisions."""
    torch.manual_seed(0)
    decoder = shaken(config.build()).to(device)
    latents = torch.randn(1, 3, 4, 32, 32).to(device)
    with FlopCounterMode(display=False) as counter:
        truth = decoder(latents)
    flops = counter.get_total_flops()
    for_inference(decoder, direct=onednn_is_faster())  # as applications do; the counter does not know its operations
    millions = sum(parameter.numel() for parameter in decoder.parameters()) / 1e6
    columns = ("precision", "ms a call", "GFLOP/s", "difference to fp32, rms, in the planes' spread", "largest")
    table = report.table("Tri-plane decoder of the paper's size", *columns)
    for dtype in (torch.float32, torch.bfloat16):
        model, inputs = decoder.to(dtype), latents.to(dtype)
        error = (model(inputs).float() - truth) / truth.std()
        times = interleaved({"call": lambda: model(inputs)}, report.clock, rounds=rounds, seconds=seconds)["call"]  # noqa: B023
        rate = [flops / 1e6 / value for value in times]
        rms = float(error.square().mean().sqrt())
        table.add(str(dtype).removeprefix("torch."), times, rate, rms, float(error.abs().max()))
    table.note(f"{millions:.1f} M parameters, {flops / 1e9:.0f} GFLOP a call, batch 1, random weights.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = bench_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="per precision, after which no round is started")
    options = parser.parse_args(arguments)
    with Report("Tri-plane decoder", options) as report:
        measure(report, TriPlaneDecoderConfig(), options.rounds, options.seconds)


if __name__ == "__main__":
    main()
