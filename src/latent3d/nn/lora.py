"""Low-rank adaptation of linear layers (Hu et al. 2022, LoRA): y = W x + b + B A x with A, B of rank r, W kept."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

LORA_SUFFIXES = (".lora_down", ".lora_up")
"""Endings of the names of the added parameters."""


class LowRankLinear(nn.Linear):
    """A linear layer with a learned low-rank change that begins at zero; the names of its own weights stay.

    Args:
        layer: the layer to adapt; its parameters are taken over.
        rank: r, at least 1.
    """

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        factory: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.lora_down = nn.Parameter(torch.randn(rank, layer.in_features, **factory) * layer.in_features**-0.5)
        self.lora_up = nn.Parameter(torch.zeros(layer.out_features, rank, **factory))

    def forward(self, input: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        """W x + b + B A x."""
        return super().forward(input) + F.linear(F.linear(input, self.lora_down), self.lora_up)


def add_low_rank(network: nn.Module, rank: int, names: tuple[str, ...]) -> int:
    """Adapt every linear layer of a network whose qualified name ends in one of ``names``; returns how many.

    Raises:
        ValueError: a rank below 1, or no layer of these names.
    """
    if rank < 1:
        raise ValueError(f"the rank of a low-rank change must be at least 1, got {rank}")
    chosen = [
        (name, layer)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and name.endswith(names)
    ]
    if not chosen:
        raise ValueError(f"the network has no linear layer named {' or '.join(names)}")
    for name, layer in chosen:
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, LowRankLinear(layer, rank))
    return len(chosen)
