"""Muon: steps along the orthogonalised momentum of every matrix, AdamW for all else.

K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; the size of a step as in J. Liu et
al., "Muon is scalable for LLM training", arXiv 2502.16982, so that one learning rate serves both kinds of parameters.
torch's own Muon takes matrices only; here kernels of convolutions are matrices too, (out, in x rows x columns).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that pushes singular values towards 1: fast from small ones on, at the price of ending within 0.7 and
1.2 (Jordan)."""
ADAM_RMS = 0.2
"""Root mean square of AdamW's usual update, which the orthogonal one is scaled to (Liu, equation 4)."""


class Muon(torch.optim.AdamW):
    """AdamW but for parameter groups with ``orthogonal=True``, whose parameters have at least two axes."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all groups. A parameter without gradient stays as it is."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group.get("orthogonal")]
        try:
            result = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group.get("orthogonal"):
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._turn(parameter, group["lr"], group["weight_decay"])
        return result

    def _turn(self, parameter: Tensor, rate: float, decay: float) -> None:
        """Nesterov momentum, orthogonalised, at AdamW's size; decay apart from it."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        ahead = gradient.lerp(state["momentum"], MOMENTUM).flatten(1)
        update = orthogonalised(ahead).view_as(parameter)
        parameter.mul_(1 - rate * decay).sub_(update, alpha=rate * ADAM_RMS * max(ahead.shape) ** 0.5)


def orthogonalised(matrix: Float[Tensor, "r c"]) -> Float[Tensor, "r c"]:
    """About the nearest matrix with orthonormal rows (or columns): singular vectors stay, singular values go near 1, by
    Newton-Schulz iterations. Zero stays zero."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.mT if tall else matrix) / matrix.norm().clamp_min(1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x
