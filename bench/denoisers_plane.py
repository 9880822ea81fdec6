"""One call of the paper-size denoiser of tri-plane latents, timed, with its operations counted.

    python bench/denoisers_plane.py [--preset large_image] [--rounds 3] [--threads 2] [--clock wall] [--json FILE]

Random weights, batch 1, latents 3x4x32x32, 256 context and 256 appended tokens; the condition's part is computed once
and timed apart. Values of a network at its start are trivial, so its parameters are shaken, and the precisions' outputs
compared. An earlier implementation of this architecture took 8.4 s a call in fp32 on two threads of a shared machine
(740 GFLOP).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tables import Report, bench_parser, interleaved
from torch import Tensor

from latent3d.conditioning.condition import Condition
from latent3d.denoisers.plane_cost import flops
from latent3d.denoisers.plane_dit import PlaneDiT, PlaneDiTConfig
from latent3d.hardware import onednn_is_faster
from latent3d.nn.inference import for_inference

SIDE = 32
PRESETS = ("large_image", "large_text", "small")


def shaken(config: PlaneDiTConfig) -> PlaneDiT:
    """Random weights, also where training begins at zero."""
    network = config.build().eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if not parameter.any():
            parameter.data.normal_(std=0.3 if name.endswith("table") else 0.01, generator=generator)
    return network


@torch.no_grad()
def measure(
    report: Report, name: str, config: PlaneDiTConfig, rounds: int, seconds: float, device: str = "cpu"
) -> None:
    """Add the table of a network in both precisions."""
    torch.manual_seed(0)
    context = 77 if config.context_layer == "mlp" else 256
    condition = Condition(
        None if config.context_dim is None else torch.randn(1, context, config.context_dim),
        None if config.appended_dim is None else torch.randn(1, config.appended_tokens, config.appended_dim),
        None if config.pooled_dim is None else torch.randn(1, config.pooled_dim),
    )
    condition = condition.to(device)
    latents = torch.randn(1, 3, config.latent_channels, SIDE, SIDE).to(device)
    level = torch.tensor(0.5, device=device)
    network = for_inference(shaken(config).to(device), direct=onednn_is_faster())
    cost = flops(config, side=SIDE, context=context)
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    columns = ("precision", "condition, ms", "ms a call", "GFLOP/s", "difference to fp32")
    table = report.table(f"Denoiser of tri-plane latents, {name}", *columns)
    exact: Tensor | None = None
    for dtype in (torch.float32, torch.bfloat16):
        network = network.to(dtype)
        cached = network.precompute(condition)
        out = network(latents, level, cached)
        exact = out if exact is None else exact
        calls = {
            "condition": lambda: network.precompute(condition),  # noqa: B023
            "call": lambda: network(latents, level, cached),  # noqa: B023
        }
        times = interleaved(calls, report.clock, rounds=rounds, seconds=seconds)
        rate = [cost.call / 1e6 / value for value in times["call"]]
        difference = float((out - exact).norm() / exact.norm())
        table.add(str(dtype).removeprefix("torch."), times["condition"], times["call"], rate, difference)
    table.note(
        f"{millions:.1f} M parameters, {cost.call / 1e9:.0f} GFLOP a call and {cost.condition / 1e9:.0f} GFLOP once "
        "per sample, batch 1, random weights."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = bench_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="per precision, after which no round is started")
    parser.add_argument("--preset", default="large_image", choices=PRESETS)
    options = parser.parse_args(arguments)
    with Report("Denoiser of tri-plane latents", options) as report:
        measure(report, options.preset, getattr(PlaneDiTConfig, options.preset)(), options.rounds, options.seconds)


if __name__ == "__main__":
    main()
