"""An adaptive solver of the flow's equation: it takes as many steps as the error that is asked for needs.

Dormand and Prince 1980: an embedded Runge-Kutta pair of orders 5 and 4 with seven stages, of which the last is the next
step's first. A step that is accepted therefore costs six calls of the network, and so does one that is refused, besides
one call at the very start: calls = 1 + 6 (accepted + refused).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from latent3d.diffusion.parameterization import z0_from_velocity
from latent3d.diffusion.samplers import Network, SamplerStep

NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
"""Weights of the earlier slopes at each stage; the last row is the solution of order 5."""
ORDER_4 = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
SAFETY, SMALLEST_CHANGE, LARGEST_CHANGE = 0.9, 0.2, 5.0
"""Factor on the next step, and the limits of its change (Hairer, Norsett and Wanner, II.4)."""


@dataclass(frozen=True)
class AdaptiveStep(SamplerStep):
    """An accepted step.

    Attributes:
        calls: network calls up to and including this step.
        refused: steps that were tried and refused so far.
    """

    calls: int = 0
    refused: int = 0


def sample_flow_adaptive(
    velocity: Network,
    latents: Tensor,
    *,
    start: float = 1.0,
    end: float = 0.0,
    rtol: float = 1e-3,
    atol: float = 1e-4,
    first_step: float = 0.05,
    max_calls: int = 1000,
) -> Iterator[AdaptiveStep]:
    """Dormand-Prince on dx/dt = u(x, t) from ``start`` down to ``end``, with the step's error kept below a tolerance.

    The error of a step is the root mean square over all latents of its two solutions' difference, in units of
    atol + rtol max(|x|, |x'|). The whole batch takes the same steps.

    Args:
        velocity: network; may return (u, aux).
        latents: at time ``start``.
        start, end: times, 1 = noise and 0 = data.
        rtol, atol: tolerances.
        first_step: length of the first try.
        max_calls: a bound on the cost.

    Raises:
        ValueError: for times that do not fall or tolerances that are not positive.
        RuntimeError: where ``max_calls`` is reached, or the steps become too small to tell times apart.
    """
    if not start > end >= 0:
        raise ValueError(f"the times must fall and end at 0 or above, found {start} and {end}")
    if rtol <= 0 or atol <= 0 or first_step <= 0:
        raise ValueError(f"tolerances and the first step must be positive, found {rtol}, {atol} and {first_step}")
    time, length, step, refused = start, min(first_step, start - end), 0, 0
    slope, aux = _call(velocity, latents, time)
    calls = 1
    while time > end:
        if calls + 6 > max_calls:
            raise RuntimeError(
                f"no end after {calls} network calls, at time {time:.4g}; loosen rtol or raise max_calls"
            )
        time_next = end if time - length <= end + 1e-9 else time - length
        if not time_next < time - 1e-9:
            raise RuntimeError(f"the steps became too small at time {time:.4g}; the velocity may not be finite")
        moved, slopes, aux_next = _try(velocity, latents, slope, time, time_next)
        calls += 6
        error = _error(latents, moved, slopes, time_next - time, rtol, atol)
        change = SAFETY * error ** (-1 / 5) if error > 0 else LARGEST_CHANGE
        length = (time - time_next) * min(max(change, SMALLEST_CHANGE), LARGEST_CHANGE)
        if not error <= 1:
            refused += 1
            continue
        z0 = z0_from_velocity(latents, slope, time)
        yield AdaptiveStep(step, time, time_next, moved, z0, aux, calls=calls, refused=refused)
        latents, time, slope, aux, step = moved, time_next, slopes[-1], aux_next, step + 1


def _try(
    velocity: Network, latents: Tensor, slope: Tensor, time: float, time_next: float
) -> tuple[Tensor, list[Tensor], object]:
    """The solution of order 5 at ``time_next``, all seven slopes, and what came beside the last."""
    slopes, moved, aux = [slope], latents, None
    for node, weights in zip(NODES, STAGES, strict=True):
        change = sum(weight * k for weight, k in zip(weights, slopes, strict=True) if weight)
        moved = latents + (time_next - time) * change
        slope, aux = _call(velocity, moved, time + node * (time_next - time))
        slopes.append(slope)
    return moved, slopes, aux


def _error(old: Tensor, new: Tensor, slopes: list[Tensor], length: float, rtol: float, atol: float) -> float:
    """Difference of the two solutions in units of the tolerance; infinite where it is not a number."""
    weights = [fifth - fourth for fifth, fourth in zip((*STAGES[-1], 0.0), ORDER_4, strict=True)]
    difference = length * sum(weight * k for weight, k in zip(weights, slopes, strict=True) if weight)
    scale = atol + rtol * torch.maximum(old.abs(), new.abs())
    error = float((torch.as_tensor(difference) / scale).square().mean().sqrt())
    return error if error == error else float("inf")


def _call(velocity: Network, latents: Tensor, time: float) -> tuple[Tensor, object]:
    out = velocity(latents, torch.full((), time, dtype=latents.dtype, device=latents.device))
    return out if isinstance(out, tuple) else (out, None)
