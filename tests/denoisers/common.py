"""Inputs and helpers for tests of both denoisers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Inputs(NamedTuple):
    """Arguments of a denoiser in order."""

    noisy: Tensor
    reference: Tensor
    c_noise: Tensor
    plucker: Tensor | None

    def frames(self, order: Tensor) -> Inputs:
        """The same frames in another order."""
        return Inputs(*(None if part is None else part[:, order] for part in self))

    def to(self, dtype: torch.dtype) -> Inputs:
        return Inputs(*(None if part is None else part.to(dtype) for part in self))


def make_inputs(batch=2, views=3, channels=4, height=8, width=8, references=(0,), seed=0, posed=True) -> Inputs:
    """Random frames; those in ``references`` carry their latents in the second half."""
    generator = torch.Generator().manual_seed(seed)
    noisy = torch.randn(batch, views, channels, height, width, generator=generator)
    reference = torch.zeros_like(noisy)
    reference[:, list(references)] = noisy[:, list(references)]
    c_noise = torch.randn(batch, views, generator=generator)
    plucker = torch.randn(batch, views, 6, 8 * height, 8 * width, generator=generator)
    return Inputs(noisy, reference, c_noise, plucker if posed else None)


def shake(network: nn.Module, amount: float = 0.05, seed: int = 1) -> nn.Module:
    """Add noise to every parameter, so that zero-initialised branches take part."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator))
    return network


def without_gradient(network: nn.Module) -> list[str]:
    """Names of parameters that the last backward pass did not reach."""
    return [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
