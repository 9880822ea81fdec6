"""CLIP and DINOv2 from folders on this machine, in the layout of transformers; nothing is downloaded.

A CLIP folder is that of the whole model, of one tower, or a Stable Diffusion folder with ``text_encoder/`` and
``tokenizer/``. Weights are read from safetensors only, and strictly: what is missing or misshapen is named.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from torch import nn

from latent3d.conditioning.towers import (
    CLIPPicture,
    CLIPPictureConfig,
    CLIPText,
    CLIPTextConfig,
    DINOv2,
    DINOv2Config,
)

Encoder = TypeVar("Encoder", bound=nn.Module)


def load_clip_text(folder: str | Path, tokens: Literal["words", "embedding"] = "words") -> CLIPText:
    """CLIP's text tower with its tokenizer.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: another kind of model, a damaged file, or weights that do not fit.
    """
    folder = Path(folder)
    model = folder / "text_encoder" if (folder / "text_encoder").is_dir() else folder
    words = folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder
    whole = _described(model, ("clip", "clip_text_model"))
    described = whole.get("text_config", {}) if whole["model_type"] == "clip" else whole
    tokenizer = _tokenizer(words)
    projected = "CLIPTextModel" not in whole.get("architectures", [])
    text = tokenizer.backend_tokenizer.to_str().encode()
    config = CLIPTextConfig(
        tokens=tokens,
        width=described.get("hidden_size", 512),
        hidden=described.get("intermediate_size", 2048),
        layers=described.get("num_hidden_layers", 12),
        heads=described.get("num_attention_heads", 8),
        length=described.get("max_position_embeddings", 77),
        vocabulary=described.get("vocab_size", 49408),
        act=described.get("hidden_act", "quick_gelu"),
        embedding=whole.get("projection_dim", 512) if projected else None,
        end=tokenizer.eos_token_id,
        padding=tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        tokenizer_bytes=len(text),
    )
    encoder = _filled(config.build(), "network", model)
    encoder.tokenizer.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
    return encoder


def load_clip_picture(folder: str | Path, tokens: Literal["patches", "embedding"] = "patches") -> CLIPPicture:
    """CLIP's vision tower with its projection. Raises as `load_clip_text`."""
    folder = Path(folder)
    model = folder / "image_encoder" if (folder / "image_encoder").is_dir() else folder
    whole = _described(model, ("clip", "clip_vision_model"))
    described = whole.get("vision_config", {}) if whole["model_type"] == "clip" else whole
    values = {**described, "projection_dim": whole.get("projection_dim", 512)}
    values["architectures"] = ["CLIPVisionModelWithProjection"]
    sizes = cast(CLIPPictureConfig, CLIPPictureConfig.from_transformers(values))
    return _filled(sizes.replace(tokens=tokens).build(), "tower.network", model)


def load_dinov2(folder: str | Path, image_size: int = 224) -> DINOv2:
    """DINOv2 with or without registers. Raises as `load_clip_text`.

    Args:
        folder: the model's.
        image_size: side of the pictures that it will be given.
    """
    folder = Path(folder)
    described = _described(folder, ("dinov2", "dinov2_with_registers"))
    registers = described.get("num_register_tokens", 4) if described["model_type"].endswith("registers") else 0
    config = DINOv2Config(
        width=described.get("hidden_size", 768),
        layers=described.get("num_hidden_layers", 12),
        heads=described.get("num_attention_heads", 12),
        mlp_ratio=described.get("mlp_ratio", 4),
        patch_size=described.get("patch_size", 14),
        registers=registers,
        trained_size=described.get("image_size", 224),
        image_size=image_size,
        gated=described.get("use_swiglu_ffn", False),
    )
    return _filled(config.build(), "network", folder)


def _described(folder: Path, kinds: tuple[str, ...]) -> dict[str, Any]:
    """``config.json`` of a model of one of these kinds."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; give the folder that holds the model's config.json")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); download it again") from error
    kind = values.get("model_type") if isinstance(values, dict) else None
    if kind not in kinds:
        raise ValueError(f"{path} describes a model of type {kind!r}; one of {', '.join(kinds)} is needed")
    return values


def _tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    if not (folder / "tokenizer.json").is_file():
        for name in ("vocab.json", "merges.txt"):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder / name} is missing; CLIP's text tower needs its tokenizer files")
    with _quiet():
        return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)


def _filled(encoder: Encoder, part: str, folder: Path) -> Encoder:
    """The encoder with the weights of a folder in its transformers network, strictly."""
    from safetensors import SafetensorError

    network: Any = encoder.get_submodule(part)
    if not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(f"{folder / 'model.safetensors'} is missing; weights are read from safetensors only")
    try:
        with _quiet():
            loaded, report = type(network).from_pretrained(
                str(folder),
                config=network.config,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the weights in {folder} are damaged or do not fit their config.json ({reason})") from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ValueError(
            f"the weights in {folder} lack {len(missing)} tensors ({', '.join(missing[:4])}); download them again"
        )
    network.load_state_dict(loaded.state_dict())
    return encoder


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """transformers without its progress bars and reports: what is missing is raised here."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
