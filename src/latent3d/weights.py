"""Weights on disk: safetensors, a configuration, a card and a format number.

Layout of a weights folder::

    config.json                              format, dtype, sha256 of each file, configuration of the model
    card.json                                what its maker says: data, seeds, steps, figures, limits, licence
    weights.safetensors                      all tensors, or, where that file would be too large,
    weights-00001-of-00003.safetensors ...   shards, and weights.index.json, which says which tensor lies where

A tensor that alone is larger than a shard is cut along its first axis into pieces ``name#0``, ``name#1``, ...; the
index lists them. Loading is strict and complete: whatever is missing, left over, of another shape, cut off or altered
is an error that names file and remedy. There are no pickles.

An adapter holds only what differs from other weights, its base, which an entry ``base`` of its ``config.json`` names;
loading puts both together. The base is read where it was or in ``$LATENT3D_BASE`` and has to be the same bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from latent3d.config import Config

WEIGHTS_FORMAT = 1
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SHIPPED = Path(__file__).parent / "weights_data"
SHARD_BYTES = 15_000_000


def save_weights(
    folder: str | Path,
    tensors: Mapping[str, Tensor] | nn.Module,
    config: Config | Mapping[str, Any],
    card: Mapping[str, Any] | None = None,
    dtype: str = "fp32",
    max_shard_bytes: int = SHARD_BYTES,
    base: Mapping[str, Any] | None = None,
) -> Path:
    """Write a weights folder; it appears whole (a folder that was there is replaced) or not at all.

    Args:
        tensors: a module or its state dict. Floating-point tensors are stored as ``dtype``, others as they are.
        dtype: ``fp32``, ``fp16`` or ``bf16``.
        max_shard_bytes: largest size of one tensor file.
        base: for an adapter its ``source`` (path or name), ``sha256``, ``parts`` (see `read_base`) and, by the dtype to
            which they are rounded, the names of what is ``taken`` from there.

    Raises:
        ValueError: unknown dtype, a value that is not finite in ``dtype``, or too small a shard size.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype '{dtype}' is unknown; choose one of {', '.join(DTYPES)}")
    state = tensors.state_dict() if isinstance(tensors, nn.Module) else tensors
    stored = {name: _stored(name, tensor, DTYPES[dtype]) for name, tensor in state.items()}

    def fill(fresh: Path) -> None:
        files = save_tensors(fresh, "weights", stored, max_shard_bytes)
        head = {
            "format": WEIGHTS_FORMAT,
            "dtype": dtype,
            "sha256": {path.name: _sha256([path]) for path in files},
            "config": config.to_dict() if isinstance(config, Config) else dict(config),
        }
        if base is not None:
            head["base"] = dict(base)
        (fresh / "config.json").write_text(json.dumps(head, indent=1))
        (fresh / "card.json").write_text(json.dumps(dict(card or {}), indent=1))

    return replace_folder(folder, fill)


def load_weights(
    folder: str | Path, base: str | Path | None = None
) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Read a weights folder: (state dict with floats as float32, configuration as a dictionary, card). An
    adapter's ``base`` is named where it is not where it was.

    Raises:
        FileNotFoundError: no weights there, or a shard is missing.
        ValueError: another format number, a cut off, altered or unreadable file, or not the base of an adapter.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no weights: config.json is missing; give a folder written by latent3d")
    head = read_json(folder / "config.json")
    if head.get("format") != WEIGHTS_FORMAT:
        raise ValueError(
            f"{folder} has weights format {head.get('format')}, this version reads format {WEIGHTS_FORMAT}; "
            "install the version of latent3d that wrote it or fetch the weights again"
        )
    card = read_json(folder / "card.json") if (folder / "card.json").is_file() else {}
    tensors = load_tensors(folder, "weights")
    for name, digest in head.get("sha256", {}).items():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing; copy or download the weights again")
        if _sha256([folder / name]) != digest:
            raise ValueError(f"{folder / name} is not the file that was saved (sha256 differs); download it again")
    if "base" in head:
        tensors |= _of_base(folder, head["base"], base)
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    return state, head["config"], card


def load_module(folder: str | Path, config: type[Config], base: str | Path | None = None) -> tuple[Any, dict[str, Any]]:
    """The module that a weights folder holds, built from its own configuration and filled strictly, and its card.

    Args:
        config: class of the configuration; it has ``build()``.
        base: see `load_weights`.

    Raises:
        FileNotFoundError, ValueError: as `load_weights` and `load_into`, or for a configuration of another kind or
            version.
    """
    state, values, card = load_weights(folder, base)
    try:
        module = config.from_dict(values).build()  # type: ignore[attr-defined]
    except (ValueError, TypeError) as error:
        kind = config.__name__.removesuffix("Config")
        raise ValueError(f"the weights in '{folder}' are not of the {kind} model of this version: {error}") from error
    load_into(module, state, f"'{folder}'")
    return module, card


def load_into(module: nn.Module, state: Mapping[str, Tensor], source: str | Path = "the weights") -> None:
    """Copy a state dict into a module, strictly; values are cast to the module's dtypes and devices.

    Raises:
        ValueError: naming the missing and unexpected keys and the shapes that differ; the module is then unchanged.
    """
    own = module.state_dict()
    problems = []
    if missing := [name for name in own if name not in state]:
        problems.append(f"missing: {_some(missing)}")
    if unexpected := [name for name in state if name not in own]:
        problems.append(f"unexpected: {_some(unexpected)}")
    if differ := [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]:
        problems.append(f"other shapes: {_some(differ)}")
    if problems:
        raise ValueError(f"{source} do not fit this model ({'; '.join(problems)}); build it from their config.json")
    module.load_state_dict(dict(state), strict=True)


def weights_hash(folder: str | Path) -> str:
    """sha256 over the tensor files of a weights folder in order of their names, as 64 hexadecimal digits."""
    files = sorted(Path(folder).glob("weights*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no weights (*.safetensors); give a folder written by latent3d")
    return _sha256(files)


def find_shipped(name: str) -> Path:
    """Folder of weights by name: first those that come with the package, then ``$LATENT3D_WEIGHTS/<name>``.

    Raises:
        FileNotFoundError: naming the places that were searched and the weights that are there.
    """
    extra = os.environ.get("LATENT3D_WEIGHTS")
    roots = [SHIPPED, *([Path(extra).expanduser()] if extra else [])]
    for root in roots:
        if (root / name / "config.json").is_file():
            return root / name
    known = sorted({path.parent.name for root in roots for path in root.glob("*/config.json")})
    places = " or ".join(str(root) for root in roots)
    raise FileNotFoundError(
        f"no weights named '{name}' in {places} (there: {', '.join(known) or 'none'}); "
        "set LATENT3D_WEIGHTS to the folder that holds them, or train them with 'latent3d train'"
    )


def save_tensors(folder: Path, stem: str, tensors: Mapping[str, Tensor], max_shard_bytes: int) -> list[Path]:
    """Write tensors as ``<stem>.safetensors`` or as shards with ``<stem>.index.json``; returns the tensor files.

    Raises:
        ValueError: a single row of a tensor does not fit in ``max_shard_bytes``.
    """
    pieces = [piece for name, tensor in tensors.items() for piece in _pieces(name, tensor, max_shard_bytes)]
    shards: list[dict[str, Tensor]] = [{}]
    room = max_shard_bytes - 16
    for name, tensor in pieces:
        cost = tensor.nbytes + _header_bytes(name)
        if cost > room and shards[-1]:
            shards.append({})
            room = max_shard_bytes - 16
        shards[-1][name] = tensor
        room -= cost
    total = len(shards)
    names = [f"{stem}-{i + 1:05d}-of-{total:05d}.safetensors" for i in range(total)]
    cut = any("#" in name for name, _ in pieces)
    if total == 1:
        names = [f"{stem}.safetensors"]
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, folder / name)
    if total > 1 or cut:
        index = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        size = sum(tensor.nbytes for _, tensor in pieces)
        text = json.dumps({"metadata": {"total_size": size}, "weight_map": index}, indent=1)
        (folder / f"{stem}.index.json").write_text(text)
    return [folder / name for name in names]


def load_tensors(folder: Path, stem: str) -> dict[str, Tensor]:
    """Inverse of `save_tensors`. Raises FileNotFoundError or ValueError with the file and the remedy."""
    index_path = folder / f"{stem}.index.json"
    if not index_path.is_file():
        return _read(folder / f"{stem}.safetensors")
    index = read_json(index_path)["weight_map"]
    found: dict[str, Tensor] = {}
    for file in dict.fromkeys(index.values()):
        found.update(_read(folder / file))
    if set(found) != set(index):
        odd = sorted(set(found) ^ set(index))
        raise ValueError(f"{index_path} does not match its shards ({_some(odd)}); copy or download the weights again")
    return _joined({name: found[name] for name in index})


def read_base(folder: Path, parts: Sequence[Sequence[str]]) -> tuple[dict[str, Tensor], str]:
    """Tensors of an adapter's base under the names of the whole system, and the sha256 of their files.

    ``parts``: (beginning of the system's names, subfolder, stem of the files) of each, in this module's layout or that
    of diffusers and transformers. Raises FileNotFoundError or ValueError with the file and the remedy.
    """
    tensors: dict[str, Tensor] = {}
    files: list[Path] = []
    for prefix, place, stem in parts:
        kinds = (".index.json", ".safetensors.index.json", ".safetensors", ".fp16.safetensors")
        there = [folder / place / f"{stem}{kind}" for kind in kinds]
        first = next((path for path in there if path.is_file()), there[2])
        index = read_json(first)["weight_map"] if first.suffix == ".json" else {"": first.name}
        own = [first.with_name(name) for name in sorted(set(index.values()))]
        files += own
        read = _joined({name: tensor for path in own for name, tensor in _read(path).items()})
        tensors |= {prefix + name: tensor for name, tensor in read.items()}
    return tensors, _sha256(files)


def replace_folder(folder: str | Path, fill: Callable[[Path], None]) -> Path:
    """Let ``fill`` write into a fresh folder beside ``folder``, then put it in its place by renaming."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        fresh = Path(scratch) / "new"
        fresh.mkdir()
        fill(fresh)
        if folder.exists():
            os.replace(folder, Path(scratch) / "old")
        os.replace(fresh, folder)
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ValueError naming the file where it is none."""
    try:
        values = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); copy or download it again") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} should hold a JSON object; copy or download it again")
    return values


def _of_base(folder: Path, about: Mapping[str, Any], given: str | Path | None) -> dict[str, Tensor]:
    """What an adapter takes from its base; ValueError where that is not the right one."""
    name = str(given or os.environ.get("LATENT3D_BASE") or about["source"])
    place = next((path for path in (Path(name).expanduser(), SHIPPED / name) if path.is_dir()), None)
    tensors, digest = ({}, "") if place is None else read_base(place, about["parts"])
    if digest != about["sha256"]:
        found = "is no folder" if place is None else f"holds other weights ({digest[:12]})"
        raise ValueError(
            f"{folder} is an adapter of {about['source']} (sha256 {about['sha256'][:12]}), and '{name}' {found}; set "
            "LATENT3D_BASE to the folder of the weights that it was trained on"
        )
    return {name: tensors[name].to(DTYPES[dtype]) for dtype, names in about["taken"].items() for name in names}


def _joined(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put the pieces ``name#0``, ``name#1``, ... of cut tensors together."""
    out = {name: tensor for name, tensor in tensors.items() if "#" not in name}
    for name in {piece.rpartition("#")[0] for piece in tensors.keys() - out.keys()}:
        count = sum(piece.startswith(f"{name}#") for piece in tensors)
        out[name] = torch.cat([tensors[f"{name}#{i}"] for i in range(count)])
    return out


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; copy or download the weights again")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is cut off or damaged ({error}); copy or download it again") from error


def _stored(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu()
    if not tensor.is_floating_point():
        return tensor.contiguous().clone()
    cast = tensor.to(dtype).contiguous().clone()
    if not torch.isfinite(cast).all():
        reason = "NaN or infinite" if not torch.isfinite(tensor).all() else f"too large for {dtype}"
        raise ValueError(f"tensor {name} holds values that are {reason}; the weights were not saved")
    return cast


def _pieces(name: str, tensor: Tensor, max_bytes: int) -> list[tuple[str, Tensor]]:
    tensor = tensor.detach().cpu().contiguous()
    limit = max_bytes - _header_bytes(name) - 16
    if tensor.nbytes <= limit:
        return [(name, tensor)]
    if "#" in name:
        raise ValueError(f"tensor name {name} contains '#', which marks pieces of large tensors; rename it")
    rows = tensor.shape[0] if tensor.ndim else 1
    per_piece = limit // max(tensor.nbytes // rows, 1)
    if tensor.ndim == 0 or per_piece < 1:
        raise ValueError(f"tensor {name} does not fit in shards of {max_bytes} bytes; raise max_shard_bytes")
    return [(f"{name}#{i}", part.clone()) for i, part in enumerate(tensor.split(per_piece))]


def _header_bytes(name: str) -> int:
    """Upper bound of what one tensor adds to a safetensors header: name, dtype, up to 8 sizes and two offsets."""
    return 2 * len(name.encode()) + 200


def _sha256(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _some(names: list[str], limit: int = 4) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
