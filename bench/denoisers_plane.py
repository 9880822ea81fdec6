"""One call of the paper-size denoiser of tri-plane latents, timed, with its operations counted.

    python bench/denoisers_plane.py [--threads 2] [--calls 2] [--preset large_image]

Random weights, batch 1, latents 3x4x32x32, 256 context and 256 appended tokens; the condition's part is computed once
and timed apart. Values of a network at its start are trivial, so its parameters are shaken, and the precisions' outputs
compared. The shortest of the calls counts; on a busy machine the processor's time tells more than the clock.
An earlier implementation of this architecture took 8.4 s a call in fp32 on two threads of a shared machine (740 GFLOP).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from latent3d.conditioning.condition import Condition
from latent3d.denoisers.plane_cost import flops
from latent3d.denoisers.plane_dit import PlaneDiT, PlaneDiTConfig

SIDE = 32


def timed(function: Callable, calls: int) -> tuple[float, float, Any]:
    """Shortest time on the clock and of the processor, and the last result."""
    clock = processor = float("inf")
    for _ in range(calls):
        start = time.perf_counter(), time.process_time()
        result = function()
        clock = min(clock, time.perf_counter() - start[0])
        processor = min(processor, time.process_time() - start[1])
    return clock, processor, result


def shaken(config: PlaneDiTConfig) -> PlaneDiT:
    """Random weights, also where training begins at zero."""
    network = config.build().eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if not parameter.any():
            parameter.data.normal_(std=0.3 if name.endswith("table") else 0.01, generator=generator)
    return network


@torch.no_grad()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--calls", type=int, default=2)
    parser.add_argument("--preset", default="large_image", choices=("large_image", "large_text", "small"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    config: PlaneDiTConfig = getattr(PlaneDiTConfig, options.preset)()
    torch.manual_seed(0)
    context = 77 if config.context_layer == "mlp" else 256
    condition = Condition(
        None if config.context_dim is None else torch.randn(1, context, config.context_dim),
        None if config.appended_dim is None else torch.randn(1, config.appended_tokens, config.appended_dim),
        None if config.pooled_dim is None else torch.randn(1, config.pooled_dim),
    )
    latents, level = torch.randn(1, 3, config.latent_channels, SIDE, SIDE), torch.tensor(0.5)
    network = shaken(config)
    cost = flops(config, side=SIDE, context=context)
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    print(f"{options.preset}: {millions:.1f} M parameters, {cost.call / 1e9:.0f} GFLOP a call, ", end="")
    print(f"{cost.condition / 1e9:.0f} GFLOP once per sample; {options.threads} threads")
    print("| precision | condition s | call s | processor s | GFLOP per processor s | difference to fp32 |")
    print("|---" * 6 + "|")
    exact: Tensor | None = None
    for dtype in (torch.float32, torch.bfloat16):
        network = network.to(dtype)
        before, _, cached = timed(lambda: network.precompute(condition), 1)  # noqa: B023
        call, processor, out = timed(lambda: network(latents, level, cached), options.calls)  # noqa: B023
        exact = out if exact is None else exact
        difference = float((out - exact).norm() / exact.norm())
        name = str(dtype).removeprefix("torch.")
        rate = cost.call / processor / 1e9
        print(f"| {name} | {before:.2f} | {call:.2f} | {processor:.2f} | {rate:.0f} | {difference:.1e} |", flush=True)


if __name__ == "__main__":
    main()
