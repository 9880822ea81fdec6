"""``latent3d train``: from a preset to weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from latent3d.apps.options import option
from latent3d.memory import MemoryLevel


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a preset; the same command again goes on where it stopped.

    On several GPUs: torchrun --nproc-per-node N --no-python latent3d train PRESET, where N divides the
    passes of a step (the setting accumulate).
    """

    preset: tyro.conf.Positional[str]
    """Name of a training preset, for example ggs_rooms or ggs_rooms_tiny."""
    out: Annotated[Path | None, option("DIR", "runs/ and the preset's name")] = None
    """Folder of the run."""
    stage: Annotated[str | None, option("NAME", "all")] = None
    """Train only this stage."""
    max_minutes: Annotated[float | None, option("MINUTES", "no limit")] = None
    """Save and stop after that time."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    seed: Annotated[int | None, option("N", "the preset's")] = None
    """Random seed."""
    bank: tuple[str, ...] = ()
    """Folders of rendered clips data."""
    val_bank: tuple[str, ...] = ()
    """The same for validation."""
    set: tuple[str, ...] = ()
    """Settings that differ from the preset, as path=value."""
    prior: Annotated[str | None, option("FOLDER-OR-NAME", "the preset's")] = None
    """Stable Video Diffusion: a folder in diffusers' layout, or a model of the Hugging Face hub; 'none' for none."""
    autoencoder: Annotated[Path | None, option("DIR", "the prior's, or one trained here")] = None
    """Folder of a pre-trained image autoencoder, whose latents are used."""
    threads: Annotated[int | None, option("N", "all cores")] = None
    """CPU threads of PyTorch."""
    memory: Annotated[MemoryLevel | None, option("LEVEL", "the preset's, usually fast")] = None
    """fast, lean or leanest: less memory, more time, the same results. Where one does not fit, the next is taken."""
    fresh: bool = False
    """Insist on a folder without a run instead of going on."""
    export: Annotated[Path | None, option("DIR", "none")] = None
    """Write the averaged weights into this folder at the end."""
    export_adapter: Annotated[Path | None, option("DIR", "none")] = None
    """The same without what is still as in the weights that training began with; those are needed to load it."""
    export_dtype: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Number format of the exported weights."""

    def run(self) -> None:
        from latent3d.training.command import train_command

        train_command(
            self.preset,
            self.out,
            stage=self.stage,
            max_minutes=self.max_minutes,
            device=self.device,
            seed=self.seed,
            bank=self.bank,
            val_bank=self.val_bank,
            overrides=self.set,
            threads=self.threads,
            prior=self.prior,
            autoencoder=self.autoencoder,
            memory=self.memory,
            resume=not self.fresh,
        )
        from latent3d.training.distributed import is_main

        if not is_main():
            return
        from latent3d.training.export import export_adapter, export_weights

        run = self.out or Path("runs") / self.preset
        if self.export is not None:
            print(f"wrote weights to {export_weights(run, self.export, dtype=self.export_dtype)}")
        if self.export_adapter is not None:
            print(f"wrote an adapter to {export_adapter(run, self.export_adapter, dtype=self.export_dtype)}")
