"""What the machine can do, detected and never guessed."""

from __future__ import annotations

from pathlib import Path

BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Instruction sets (x86-64, 64-bit Arm) with bfloat16 matrix arithmetic."""


def cpu_flags() -> set[str]:
    """Instruction sets that Linux reports; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return set()
    for line in path.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() in ("flags", "features"):
            return set(value.split())
    return set()


def has_bf16(device: str) -> bool:
    """Whether a device (``cpu`` or ``cuda``) computes in bfloat16 in hardware."""
    if device == "cuda":
        import torch

        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and bool(BF16_FLAGS & cpu_flags())
