"""What makes networks faster when no gradient is asked for, with results equal up to rounding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DIRECT_PRODUCTS = 2**21
"""Multiplications from which a matrix product pays for oneDNN's preparations; below, PyTorch's own way is faster."""


class DirectLinear(nn.Linear):
    """A linear layer whose large float32 products on a CPU go to oneDNN, where no gradient is recorded.

    Where MKL is at half the speed of oneDNN (see `latent3d.hardware.onednn_is_faster`), so is every float32 network;
    in bfloat16 PyTorch calls oneDNN by itself.
    """

    def forward(self, input: Tensor) -> Tensor:
        """W x + b."""
        recorded = torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad)
        direct = (
            not recorded
            and input.dtype == self.weight.dtype == torch.float32
            and input.device.type == "cpu"
            and input.numel() * self.out_features >= DIRECT_PRODUCTS
            and not torch.is_autocast_enabled("cpu")
        )
        if not direct:
            return super().forward(input)
        return torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], "")


def for_inference(network: nn.Module, *, direct: bool = False) -> nn.Module:
    """Prepare a network for calls without gradient, in place; parameters and their names stay. Returns it.

    Convolutions of modules with a true ``prefers_channels_last`` get their weights in that layout, which their feature
    maps then take over.

    Args:
        direct: make plain linear layers `DirectLinear`; for CPUs on which that is faster.
    """
    direct = direct and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    for module in network.modules():
        if direct and type(module) is nn.Linear:
            module.__class__ = DirectLinear
        if getattr(module, "prefers_channels_last", False):
            for convolution in module.modules():
                if isinstance(convolution, nn.Conv2d):
                    weight = convolution.weight
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return network


def compile_network(network: nn.Module | None, backend: str = "inductor") -> None:
    """Compile a network's calls with ``torch.compile``, in place; parameters and their names stay.

    A network with a list ``blocks`` is compiled block by block: equal blocks share one compilation, so that its time
    does not grow with the depth.

    Args:
        network: a system's denoiser.
        backend: of ``torch.compile``.

    Raises:
        ValueError: where there is none.
    """
    if network is None:
        raise ValueError("this system has no denoiser, which is what would be compiled; leave compiling out")
    blocks = getattr(network, "blocks", None)
    for part in blocks if isinstance(blocks, nn.ModuleList) else [network]:
        part.compile(backend=backend)
