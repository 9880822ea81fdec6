"""CLIP and DINOv2 from folders in the layout of transformers, as initial weights of a system's parts.

``initial_weights={"conditioner.picture": FOLDER}`` takes such a folder where the part is one of those towers, and
``{"encoder": FOLDER}`` where it is a `ViTEncoder`; every other part takes a weights folder of this package.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from latent3d.autoencoders.pretrained import start_from_dinov2
from latent3d.autoencoders.vit_encoder import ViTEncoder
from latent3d.conditioning.conditioner import ConditionerConfig
from latent3d.conditioning.pretrained import load_clip_picture, load_clip_text, load_dinov2
from latent3d.conditioning.towers import CLIPPictureConfig, CLIPTextConfig, DINOv2Config, FrozenTower
from latent3d.nn.lora import LORA_SUFFIXES
from latent3d.training.config import TrainConfig
from latent3d.weights import find_shipped, load_into, load_weights, read_json

TOWERS: dict[type, Callable[[Path, Any], FrozenTower]] = {
    CLIPTextConfig: lambda folder, config: load_clip_text(folder, config.tokens),
    CLIPPictureConfig: lambda folder, config: load_clip_picture(folder, config.tokens),
    DINOv2Config: lambda folder, config: load_dinov2(folder, config.image_size),
}
"""What loads the tower of each kind of configuration."""


def fill_part(part: nn.Module, source: str) -> None:
    """Fill a part of a system, strictly.

    Args:
        source: weights folder or name of shipped weights; for a tower or a `ViTEncoder`, transformers' folder as well.

    Raises:
        FileNotFoundError: weights that are not there.
        ValueError: damaged weights, or such that do not fit.
    """
    folder = Path(source) if Path(source).exists() else find_shipped(source)
    if _is_own(folder) or not isinstance(part, FrozenTower | ViTEncoder):
        state = load_weights(folder)[0]
        # Low-rank changes begin at zero on weights that have none of their own.
        own_start = {name: value for name, value in part.state_dict().items() if name.endswith(LORA_SUFFIXES)}
        load_into(part, own_start | state, f"the weights in {folder}")
    elif isinstance(part, ViTEncoder):
        start_from_dinov2(part, folder)
    else:
        own: Any = part.config
        tower = TOWERS[type(own)](folder, own)
        if tower.config != own:
            raise ValueError(f"the model in {folder} has other sizes than this system's; see training.with_towers")
        load_into(part, tower.state_dict(), f"the weights in {folder}")


def with_towers(config: TrainConfig) -> TrainConfig:
    """A run whose conditions have the sizes of the towers that ``initial_weights`` names, tokenizers included.

    Raises:
        FileNotFoundError, ValueError: see `conditioning.pretrained`.
    """
    system: Any = config.system
    conditioner = getattr(system, "conditioner", None)
    if not isinstance(conditioner, ConditionerConfig):
        return config
    before = conditioner.denoiser_fields()
    for name in ("text", "picture", "appended"):
        source, own = config.initial_weights.get(f"conditioner.{name}"), getattr(conditioner, name)
        if source is None or type(own) not in TOWERS or not Path(source).is_dir() or _is_own(Path(source)):
            continue
        conditioner = conditioner.replace(**{name: TOWERS[type(own)](Path(source), own).config})
    told = {name: value for name, value in conditioner.denoiser_fields().items() if value != before[name]}
    return config.replace(system=system.replace(conditioner=conditioner, denoiser=system.denoiser.replace(**told)))


def random_towers(model: nn.Module, config: TrainConfig) -> list[str]:
    """Towers that no entry of ``initial_weights`` fills: they are never trained, so what they say stays random."""
    towers = [name for name, module in model.named_modules() if isinstance(module, FrozenTower)]
    return [name for name in towers if not f"{name}.".startswith(tuple(_prefixes(config)))]


def _prefixes(config: TrainConfig) -> list[str]:
    return [f"{prefix}." if prefix else "" for prefix in config.initial_weights]


def _is_own(folder: Path) -> bool:
    """Whether a folder was written by `weights.save_weights`."""
    path = folder / "config.json"
    return path.is_file() and "format" in read_json(path)
