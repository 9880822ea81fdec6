"""What a training run is: a system, its stages, its data and a seed."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from latent3d.config import Config
from latent3d.data.latent_bank import LatentStream
from latent3d.data.object_bank import ObjectStream, ObjectWorldStream
from latent3d.data.object_sources import ObjectCameras, ProceduralObjects
from latent3d.data.scenes import Batch, Stream, WorldStream
from latent3d.data.shards import BankStream
from latent3d.data.view_sampling import ViewSampling
from latent3d.memory import MemoryLevel, check_level


@runtime_checkable
class System(Protocol):
    """What the engine asks of a model (an ``nn.Module`` as well). Generators are CPU generators on every device.

    A system may also have ``sample_sheet(batch, stage, generator) -> dict[str, Tensor]``: rows of pictures (N, 3, H, W)
    in [0, 1] or depths (N, 1, H, W), drawn from time to time with the averaged weights; and
    ``finish_stage(stage, batch)``, called with the averaged weights and a validation batch when a stage has ended.
    """

    def stages(self) -> tuple[str, ...]:
        """Names of the training stages in their order."""

    def trainable(self, stage: str) -> Iterable[tuple[str, nn.Parameter]]:
        """The parameters a stage trains, named as in ``named_parameters()``; all others are frozen."""

    def training_terms(self, batch: Batch, stage: str, generator: torch.Generator) -> dict[str, Tensor]:
        """Named scalars; those with a weight in the stage's ``loss_weights`` are summed, all are logged."""


@dataclass(frozen=True, kw_only=True)
class StageConfig(Config):
    """One stage of training.

    Attributes:
        name: as in ``System.stages()``.
        steps: optimiser steps. batch_size: scenes per forward pass; accumulate: passes per step.
        schedule: of the learning rate after ``warmup_steps`` of linear rise: constant, cosine or linear down to
            ``final_factor`` times the base rate at the last step.
        clip_norm: largest gradient norm; 0 does not clip.
        ema_decay: of the averaged weights, warmed up as min(ema_decay, (1 + t) / (10 + t)).
        autocast: ``bf16`` or ``off``; the system keeps to float32 what needs it.
        frozen_dtype: how parameters that the stage does not train are held: ``fp32``, or ``bf16`` in half the memory
            (needs autocast bf16; they are rounded for good).
        loss_weights: weight per term; terms without one are only logged.
        sampling: which frames of a clip.
        loss_ramps: by term, (begin, end, initial): its weight is ``initial`` up to step ``begin``, runs linearly to the
            one in ``loss_weights`` and stays there from step ``end`` on; equal steps switch it at once. A term is left
            out while its weight is 0.
        optimizer: ``adamw``, or ``muon`` for kernels and matrices and AdamW for the rest (`latent3d.training.muon`).
        adamw_prefixes: kernels and matrices that AdamW keeps under ``muon``, such as a network's first and last layers;
            without effect under ``adamw``.
        lr_multipliers: factor of the learning rate by prefix of the parameter name; the longest prefix counts.
        betas_by_prefix: AdamW's betas in place of ``betas``, by prefix in the same way.
        start: what the stage's own parameters start from where an earlier stage trained them: its averaged (``ema``) or
            last (``raw``) weights. Frozen parameters are always the averaged ones.
        save_every, sheet_every, log_every, validate_every: intervals in steps; 0 is never (the end of a stage is
            always saved).
        save_minutes: a checkpoint at least that often.
        validate_batches: batches averaged per validation.
    """

    name: str
    steps: int
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float = 3e-4
    warmup_steps: int = 100
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    final_factor: float = 0.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    adamw_prefixes: tuple[str, ...] = ()
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    autocast: Literal["bf16", "off"] = "off"
    loss_weights: dict[str, float] = field(default_factory=dict)
    sampling: ViewSampling = field(default_factory=ViewSampling)
    loss_ramps: dict[str, tuple[int, int, float]] = field(default_factory=dict)
    lr_multipliers: dict[str, float] = field(default_factory=dict)
    betas_by_prefix: dict[str, tuple[float, float]] = field(default_factory=dict)
    start: Literal["ema", "raw"] = "ema"
    save_every: int = 1000
    save_minutes: float = 20.0
    sheet_every: int = 1000
    log_every: int = 20
    validate_every: int = 0
    validate_batches: int = 4
    frozen_dtype: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.accumulate, self.log_every) < 1:
            raise ValueError(f"stage '{self.name}' needs steps, batch_size, accumulate and log_every of at least 1")
        if self.schedule not in ("constant", "cosine", "linear"):
            raise ValueError(f"schedule '{self.schedule}' is unknown; choose constant, cosine or linear")
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f"stage '{self.name}': optimizer is 'adamw' or 'muon', found '{self.optimizer}'")
        if self.autocast not in ("bf16", "off") or self.start not in ("ema", "raw"):
            raise ValueError(f"stage '{self.name}': autocast is 'bf16' or 'off', start is 'ema' or 'raw'")
        if self.frozen_dtype not in ("fp32", "bf16") or (self.frozen_dtype == "bf16" and self.autocast != "bf16"):
            raise ValueError(f"stage '{self.name}': frozen_dtype is 'fp32', or 'bf16' together with autocast 'bf16'")
        if not any(self.loss_weights.values()):
            raise ValueError(f"stage '{self.name}' has no loss_weights; name at least one term and its weight")
        self._check_ramps()

    def _check_ramps(self) -> None:
        for term, (begin, end, _) in self.loss_ramps.items():
            if term not in self.loss_weights:
                raise ValueError(f"stage '{self.name}' has a ramp for '{term}', but loss_weights does not name it")
            if not 0 <= begin <= end:
                raise ValueError(f"stage '{self.name}': the ramp of '{term}' ends at step {end} before it begins")
        for step in (0, *(step for begin, end, _ in self.loss_ramps.values() for step in (begin, end))):
            if step < self.steps and not any(self.weights_at(step).values()):
                raise ValueError(f"stage '{self.name}': all terms have weight 0 at step {step}; ramp one of them later")

    def weights_at(self, step: int) -> dict[str, float]:
        """Weight of each term at an optimiser step counted from 0: `loss_weights`, along `loss_ramps`."""
        weights = dict(self.loss_weights)
        for term, (begin, end, initial) in self.loss_ramps.items():
            if step < end:
                share = max(0, step - begin) / max(1, end - begin)
                weights[term] = initial + share * (weights[term] - initial)
        return weights


STREAMS: dict[str, Callable[..., Stream]] = {"scenes": BankStream, "objects": ObjectStream, "latents": LatentStream}
"""What reads the banks of each kind of data."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """Where clips come from: banks on disk where ``bank`` names folders, else worlds rendered on the fly.

    Attributes:
        kind: ``scenes`` gives `Views` of clips, ``objects`` gives `ObjectViews`, ``latents`` `ObjectLatents` of objects
            that were encoded before; banks are of that kind.
        bank, val_bank: bank folders for training and for validation and sheets.
        max_clips: use only that many clips (or objects) of the training banks.
        family, size, path_views, extra_views, workers: for worlds rendered on the fly, as in `WorldStream`; validation
            without ``val_bank`` uses the family's ``val`` split.
        width: of their pictures, where they are not square; ``size`` is the height then.
        labels: classes of the objects that are rendered on the fly; all where it is empty. Each gets just the views
            that the stage asks for, or ``path_views``.
    """

    kind: Literal["scenes", "objects", "latents"] = "scenes"
    bank: tuple[str, ...] = ()
    val_bank: tuple[str, ...] = ()
    max_clips: int | None = None
    family: str = "mixed"
    size: int = 128
    path_views: int | None = None
    extra_views: int | None = None
    workers: int = 0
    width: int | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in STREAMS:
            raise ValueError(f"the kind of data '{self.kind}' is unknown; choose one of {', '.join(STREAMS)}")
        if self.kind == "objects" and self.width not in (None, self.size):
            raise ValueError("pictures of objects are square; leave out data.width")

    def stream(self, stage: StageConfig, seed: int, *, rank: int = 0, world_size: int = 1) -> Stream:
        """Training batches of a stage as a function of (seed, rank, step)."""
        if self.bank:
            most = {"max_clips" if self.kind == "scenes" else "max_objects": self.max_clips}
            return STREAMS[self.kind](
                self.bank, stage.batch_size, stage.sampling, seed, rank=rank, world_size=world_size, **most
            )
        return self._worlds("train", stage, seed, self.workers, rank, world_size)

    def validation(self, stage: StageConfig) -> Stream:
        """Fixed batches, the same for every run, in their own colours and whole."""
        stage = stage.replace(sampling=stage.sampling.replace(recolor=0.0, zoom=1.0))
        if self.val_bank:
            return STREAMS[self.kind](self.val_bank, stage.batch_size, stage.sampling, 0)
        return self._worlds("val", stage, 0, 0)

    def _worlds(
        self, split: str, stage: StageConfig, seed: int, workers: int, rank: int = 0, world_size: int = 1
    ) -> Stream:
        if self.kind == "latents":
            raise ValueError("latents come from a bank; write one with latent3d data latents, and name it as data.bank")
        if self.kind == "objects":
            views = self.path_views or stage.sampling.views + stage.sampling.novel
            source = ProceduralObjects(ObjectCameras(views=views, size=self.size), split, self.labels)
            return ObjectWorldStream(
                source, stage.batch_size, stage.sampling, seed, workers=workers, rank=rank, world_size=world_size
            )
        return WorldStream(
            self.family, stage.batch_size, stage.sampling, seed, split=split,
            size=(self.size, self.width or self.size),
            path_views=self.path_views, extra_views=self.extra_views, workers=workers,
            rank=rank, world_size=world_size,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """A training run.

    Attributes:
        system: configuration whose ``build()`` gives a `System`.
        stages: in order; names among ``System.stages()``.
        initial_weights: weights folders (or names of shipped weights; CLIP's and DINOv2's own folders for the parts
            that are such, see `training.foreign`) by module prefix (``""`` is the whole system),
            loaded strictly before the first stage.
        max_shard_bytes: largest file of a checkpoint. keep: checkpoints kept.
        prior: folder or hub name of a pre-trained video model that fills autoencoder, image encoder and U-Net before
            the first stage, see `training.prior`; None trains them from scratch.
        autoencoder: folder of a pre-trained autoencoder; None for the prior's or one trained here.
        distributed: how several processes (``torchrun``) share a step: ``ddp`` keeps everything in each, ``fsdp``
            splits weights (between steps), gradients, optimiser state and averages.
        memory: ``fast``, ``lean`` or ``leanest``, with the same results (see `latent3d.memory`). Each stage begins with
            it, and goes on with a leaner one where it does not fit.
        compile: run the denoiser through ``torch.compile``; the first steps take minutes longer.
    """

    system: Config
    stages: tuple[StageConfig, ...]
    data: DataConfig = field(default_factory=DataConfig)
    seed: int = 0
    initial_weights: dict[str, str] = field(default_factory=dict)
    max_shard_bytes: int = 15_000_000
    keep: int = 2
    prior: str | None = None
    autoencoder: str | None = None
    distributed: Literal["ddp", "fsdp"] = "ddp"
    memory: MemoryLevel = "fast"
    compile: bool = False

    def __post_init__(self) -> None:
        check_level(self.memory)
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"a run needs stages of different names, found: {', '.join(names) or 'none'}")

    def stage_index(self, name: str) -> int:
        """Position of a stage. Raises ValueError with the known names."""
        names = [stage.name for stage in self.stages]
        if name not in names:
            raise ValueError(f"there is no stage '{name}'; choose one of {', '.join(names)}")
        return names.index(name)


def apply_overrides(config: TrainConfig, overrides: Sequence[str]) -> TrainConfig:
    """Change fields by ``path=value``: ``gs.steps=500``, ``gs.loss_weights.depth=2``, ``*.batch_size=4``, ``seed=3``.

    The first part of a path is a stage (``*`` for all), ``system``, ``data`` or a field of the run; values are JSON or
    plain text.

    Raises:
        ValueError: unknown path (with the nearest known name) or a value of another type than the field's.
    """
    for text in overrides:
        path, found, raw = text.partition("=")
        if not found:
            raise ValueError(f"'{text}' is no setting; write name=value, for example {config.stages[0].name}.steps=500")
        try:
            value = json.loads(raw)
        except json.JSONDecodeError:
            value = raw
        head, _, rest = path.strip().partition(".")
        stages = [stage.name for stage in config.stages]
        if head == "*" or head in stages:
            changed = [_set(s, rest, value) if head in ("*", s.name) else s for s in config.stages]
            config = config.replace(stages=tuple(changed))
        elif head in ("system", "data") and rest:
            config = config.replace(**{head: _set(getattr(config, head), rest, value)})
        else:
            simple = {f.name for f in dataclasses.fields(config)} - {"system", "stages", "data"}
            if head not in simple:
                near = difflib.get_close_matches(head, [*stages, *simple, "system", "data"], n=1)
                hint = f"; did you mean '{near[0]}'?" if near else f"; stages: {', '.join(stages)}"
                raise ValueError(f"'{head}' in '{text}' is no stage or setting{hint}")
            old = getattr(config, head)
            if not rest and type(value) is not type(old):
                raise ValueError(f"'{head}' must be of type {type(old).__name__}, found {value!r}")
            config = config.replace(**{head: _set_item(old, rest, value) if rest else value})
    return config


def _set(config: Config, path: str, value: Any) -> Config:
    """Copy of a configuration with one (nested) field changed."""
    name, _, rest = path.partition(".")
    old = getattr(config, name, None)
    if rest and isinstance(old, Config):
        value = _set(old, rest, value).to_dict()
    elif rest:
        value = _set_item(old, rest, value)
    elif isinstance(old, tuple) and not isinstance(value, list):
        value = [value]
    return type(config).from_dict({**config.to_dict(), name: value})


def _set_item(old: Any, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(old, dict):
        raise ValueError(f"'{key}' cannot be set: its parent is not a group of settings")
    return {**old, key: value}
