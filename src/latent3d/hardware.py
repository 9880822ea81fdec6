"""What the machine can do, detected and never guessed."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Literal

BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Instruction sets (x86-64, 64-bit Arm) with bfloat16 matrix arithmetic."""

Precision = Literal["auto", "bf16", "fp32"]
"""Number format of networks at inference; ``auto``: bfloat16 where the device computes in it."""


def cpu_flags() -> set[str]:
    """Instruction sets that Linux reports; empty elsewhere."""
    return set(_cpu_info("flags", "features").split())


def has_bf16(device: str) -> bool:
    """Whether a device (``cpu`` or ``cuda``) computes in bfloat16 in hardware."""
    if device == "cuda":
        import torch

        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and bool(BF16_FLAGS & cpu_flags())


def in_bf16(precision: str, device: str) -> bool:
    """Whether networks run in bfloat16 on a device, for a `Precision`.

    Raises:
        ValueError: for another word.
    """
    if precision not in ("auto", "bf16", "fp32"):
        raise ValueError(f"the precision '{precision}' is unknown; choose auto, bf16 or fp32")
    return precision == "bf16" or (precision == "auto" and has_bf16(device))


def onednn_is_faster() -> bool:
    """Whether float32 matrix products on this CPU belong to oneDNN and not to MKL, which PyTorch takes by itself.

    MKL keeps its AVX-512 kernels to Intel's CPUs and runs AVX2 ones on others: half the speed (Zen 5: 100 and 215
    GFLOP/s per core).
    """
    if "avx512f" not in cpu_flags() or _cpu_info("vendor_id") in ("", "GenuineIntel"):
        return False
    import torch

    return torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()


def cpp_compiler() -> str | None:
    """The C++ compiler that ``torch.compile`` would call (``CXX``, or the system's), or None if it is not there."""
    named = os.environ.get("CXX") or {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    return shutil.which(named)


def require_compiler() -> None:
    """Check that ``torch.compile`` finds what it needs.

    Raises:
        ValueError: without a C++ compiler or Python's headers, with the remedy.
    """
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if cpp_compiler() is None:
        missing, remedy = "a C++ compiler, and none was found", "install one (for example g++) or name it in CXX"
    elif not headers.is_file():
        missing, remedy = f"Python's headers, and {headers} is not there", "install them (for example python3-dev)"
    else:
        return
    raise ValueError(f"compiling a network needs {missing}; {remedy}, or leave compiling out")


def _cpu_info(*names: str) -> str:
    """The first entry of one of these names in what Linux says of its processors; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return ""
    for line in path.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() in names:
            return value.strip()
    return ""
