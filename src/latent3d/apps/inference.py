"""What the applications do to a system before they use it."""

from __future__ import annotations

from typing import Any

from latent3d.hardware import onednn_is_faster, require_compiler
from latent3d.nn.inference import compile_network, for_inference


def prepared(system: Any, compile: bool = False) -> Any:
    """A system with everything that makes it faster without gradients and changes no result but by rounding.

    Args:
        compile: its denoiser is compiled in the first call (see `compile_network`).

    Raises:
        ValueError: without a C++ compiler, or for a system without denoiser.
    """
    if compile:
        require_compiler()
        compile_network(system.denoiser)
    return for_inference(system, direct=onednn_is_faster())
