"""``latent3d doctor``: what this machine has, and what would add the rest."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from latent3d.hardware import BF16_FLAGS, cpu_flags


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Print versions, device, live fast paths and shipped weights, and the commands that add what is missing."""

    def run(self) -> None:
        advice: list[str] = []
        for title, lines in (
            ("versions", version_lines()),
            ("device", device_lines()),
            ("fast paths", fast_path_lines(advice)),
            ("weights", weight_lines(advice)),
        ):
            print(title)
            for name, text in lines:
                print(f"  {name:<14} {text}")
        if advice:
            print("to add what is missing")
            for line in advice:
                print(f"  {line}")


def version_lines() -> list[tuple[str, str]]:
    """Name and version of everything that shapes results."""
    from latent3d.io.cards import versions

    return list(versions().items())


def device_lines() -> list[tuple[str, str]]:
    """Devices, threads and number formats."""
    import torch

    lines = [("system", f"{platform.system()} {platform.machine()}"), ("threads", str(torch.get_num_threads()))]
    lines.append(("CPU", torch.backends.cpu.get_cpu_capability()))
    bf16 = sorted(BF16_FLAGS & cpu_flags())
    lines.append(("CPU bf16", f"in hardware ({', '.join(bf16)})" if bf16 else "emulated (slower; fp32 is used)"))
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            lines.append((f"GPU {index}", torch.cuda.get_device_name(index)))
    else:
        lines.append(("GPU", "none that PyTorch can use; everything runs on the CPU"))
    return lines


def fast_path_lines(advice: list[str]) -> list[tuple[str, str]]:
    """Which faster ways are live; commands for the missing ones go to ``advice``."""
    import torch

    from latent3d.optional import OPTIONAL, is_installed, version

    if is_installed("numba"):
        lines = [("CPU splats", "numba kernels: live")]
    else:
        lines = [("CPU splats", "numba is missing: PyTorch tiles, several times slower")]
        advice.append("pip install numba")
    gpu = "live" if torch.cuda.is_available() else "idle without a GPU"
    lines.append(("GPU splats", f"PyTorch tiles: {gpu}"))
    for package in OPTIONAL.values():
        found = version(package.module) if is_installed(package.module) else None
        if not found and package.install not in advice:
            advice.append(package.install)
        lines.append((package.module, f"{package.purpose}: {found or 'not installed'}"))
    return lines


def weight_lines(advice: list[str]) -> list[tuple[str, str]]:
    """Weights that are found by name, with size and hash."""
    import os

    from latent3d.weights import SHIPPED, weights_hash

    extra = os.environ.get("LATENT3D_WEIGHTS")
    lines = []
    for root in [SHIPPED, *([Path(extra).expanduser()] if extra else [])]:
        for folder in sorted(path.parent for path in root.glob("*/config.json")):
            try:
                size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e6
                lines.append((folder.name, f"{size:.1f} MB, sha256 {weights_hash(folder)[:12]}"))
            except FileNotFoundError as error:
                lines.append((folder.name, f"incomplete: {error}"))
                advice.append("pip install --force-reinstall latent3d")
    if not lines:
        lines.append(("none", "no weights are shipped with this installation"))
        advice.append("latent3d train ggs_rooms, or set LATENT3D_WEIGHTS to a folder that holds weights")
    return lines
