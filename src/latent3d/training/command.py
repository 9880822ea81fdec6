"""``latent3d train``: a preset, some settings, a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from latent3d.memory import MemoryLevel
from latent3d.training.config import TrainConfig, apply_overrides
from latent3d.training.distributed import joined
from latent3d.training.engine import TrainResult, train
from latent3d.training.foreign import with_towers
from latent3d.training.prior import find_prior, with_autoencoder, with_prior


def pick_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one, else the CPU. Raises ValueError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device '{name}' cannot be used here; choose 'auto' or 'cpu'") from error
    return device


def find_preset(name: str) -> Callable[[], TrainConfig]:
    """A training preset by name. Raises ValueError with the known names."""
    from latent3d.presets import PRESETS

    presets: Mapping[str, Callable[[], TrainConfig]] = PRESETS
    if name not in presets:
        raise ValueError(f"there is no preset '{name}'; choose one of {', '.join(sorted(presets))}")
    return presets[name]


def with_pretrained(config: TrainConfig, prior: str | None, autoencoder: Path | None) -> TrainConfig:
    """A preset with other pre-trained parts than its own, if any are given, and with their sizes.

    Raises:
        FileNotFoundError, ValueError: see `training.prior`.
    """
    if prior is not None:
        config = config.replace(prior=None if prior == "none" else prior)
    if config.prior is not None:
        config = with_prior(config, find_prior(config.prior))
    elif prior == "none" and getattr(config.system, "image_encoder", None) is not None:
        config = config.replace(system=config.system.replace(image_encoder=None))
    if autoencoder is not None:
        config = with_autoencoder(config.replace(autoencoder=str(autoencoder)), autoencoder)
    return config


def train_command(
    preset: str,
    out: Path | None = None,
    *,
    stage: str | None = None,
    max_minutes: float | None = None,
    device: str = "auto",
    seed: int | None = None,
    bank: tuple[str, ...] = (),
    val_bank: tuple[str, ...] = (),
    overrides: tuple[str, ...] = (),
    threads: int | None = None,
    prior: str | None = None,
    autoencoder: Path | None = None,
    memory: MemoryLevel | None = None,
    resume: bool = True,
    progress: bool = True,
) -> TrainResult:
    """Train a preset; run it again with the same folder to go on.

    Args:
        preset: name of a training preset.
        out: folder of the run, default ``runs/<preset>``.
        stage: train only this stage.
        max_minutes: save and stop after that time.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:<n>``.
        seed: instead of the preset's.
        bank, val_bank: folders of rendered clips instead of the preset's data.
        overrides: ``path=value``, see `apply_overrides`.
        threads: CPU threads of PyTorch.
        prior: folder or hub name of a pre-trained video model instead of the preset's; ``none`` for none.
        autoencoder: folder of a pre-trained autoencoder.
        memory: ``fast``, ``lean`` or ``leanest`` instead of the preset's.

    Raises:
        ValueError: unknown preset, stage, setting or device, with the known ones.
        FileNotFoundError: pre-trained weights that are not there.
    """
    config = with_pretrained(find_preset(preset)(), prior, autoencoder)
    data = {"bank": tuple(bank)} if bank else {}
    data |= {"val_bank": tuple(val_bank)} if val_bank else {}
    config = config.replace(data=config.data.replace(**data))
    if seed is not None:
        config = config.replace(seed=seed)
    if memory is not None:
        config = config.replace(memory=memory)
    config = with_towers(apply_overrides(config, overrides))
    if threads is not None:
        torch.set_num_threads(threads)
    folder = Path("runs") / preset if out is None else out
    with joined(pick_device(device)) as (ranks, place):
        return train(
            config, folder, device=place, max_minutes=max_minutes, stage=stage, resume=resume, progress=progress,
            ranks=ranks,
        )  # fmt: skip
