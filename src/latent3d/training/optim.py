"""Learning-rate schedules, parameter groups and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from latent3d.training.config import StageConfig
from latent3d.training.distributed import local, share_of
from latent3d.training.muon import Muon

T = TypeVar("T")


def learning_rate_factor(step: int, stage: StageConfig) -> float:
    """Factor of the base learning rate at a step counted from 0: linear warm-up, then the schedule.

    With progress p in [0, 1] after the warm-up and f = ``final_factor``: constant 1; linear 1 - (1 - f) p; cosine
    f + (1 - f) (1 + cos(pi p)) / 2.
    """
    if step < stage.warmup_steps:
        return (step + 1) / stage.warmup_steps
    progress = min(1.0, (step - stage.warmup_steps) / max(1, stage.steps - stage.warmup_steps))
    if stage.schedule == "constant":
        return 1.0
    shape = 1 - progress if stage.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return stage.final_factor + (1 - stage.final_factor) * shape


def parameter_groups(named: Mapping[str, nn.Parameter], stage: StageConfig) -> list[dict[str, Any]]:
    """Groups for `build_optimizer` by learning-rate multiplier, betas, decay and kind of step; vectors and scalars
    (biases, norms) do not decay.

    Raises:
        ValueError: a prefix in ``lr_multipliers``, ``betas_by_prefix`` or ``adamw_prefixes`` fits no parameter.
    """
    for field in ("lr_multipliers", "betas_by_prefix", "adamw_prefixes"):
        for prefix in getattr(stage, field):
            if not any(name.startswith(prefix) for name in named):
                raise ValueError(f"{field}: no parameter trained in stage '{stage.name}' starts with '{prefix}'")
    groups: dict[tuple[float, tuple[float, float], bool, bool], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        multiplier = _by_prefix(name, stage.lr_multipliers, 1.0)
        betas = _by_prefix(name, stage.betas_by_prefix, stage.betas)
        matrix = parameter.ndim > 1
        orthogonal = matrix and stage.optimizer == "muon" and not name.startswith(stage.adamw_prefixes)
        groups.setdefault((multiplier, betas, matrix, orthogonal), []).append(parameter)
    return [
        {
            "params": parameters,
            "multiplier": multiplier,
            "betas": betas,
            "weight_decay": stage.weight_decay if matrix else 0.0,
            "orthogonal": orthogonal,
        }
        for (multiplier, betas, matrix, orthogonal), parameters in groups.items()
    ]


def _by_prefix(name: str, values: Mapping[str, T], default: T) -> T:
    """The value of the longest prefix that ``name`` starts with."""
    return values[max(found, key=len)] if (found := [p for p in values if name.startswith(p)]) else default


def build_optimizer(named: Mapping[str, nn.Parameter], stage: StageConfig) -> torch.optim.AdamW:
    """Fused AdamW, or Muon, over the groups of `parameter_groups`."""
    groups = parameter_groups(named, stage)
    kind = Muon if stage.optimizer == "muon" else torch.optim.AdamW
    return kind(groups, lr=stage.learning_rate, betas=stage.betas, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's rate to ``rate`` times its multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["multiplier"]


def optimizer_tensors(optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Optimiser state as ``<parameter>/<key>`` tensors; parameters that never had a gradient have none."""
    return {
        f"{name}/{key}": value
        for name, parameter in named.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Inverse of `optimizer_tensors`. Raises ValueError for state of a parameter that is not trained here."""
    for full, value in tensors.items():
        name, _, key = full.rpartition("/")
        if name not in named:
            raise ValueError(f"the checkpoint has optimiser state of '{name}', which this stage does not train")
        parameter = named[name]
        if value.shape == parameter.shape:
            value = share_of(value, parameter)
        # in the memory layout of the parameter, which the fused kernel takes for granted
        layout = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
        optimizer.state[parameter][key] = layout.detach().to(parameter.device).copy_(value)


class Ema:
    """Exponential moving average of named parameters, kept beside them."""

    def __init__(self, named: Mapping[str, nn.Parameter], decay: float) -> None:
        self.names, self.decay = list(named), decay
        self._live = list(named.values())
        self._mean = [parameter.detach().clone() for parameter in self._live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After optimiser step ``step`` (from 0): mean += (1 - d) (live - mean), d = min(decay, (1 + t) / (10 + t))."""
        decay = min(self.decay, (1 + step) / (10 + step))
        live = [local(parameter.detach()) for parameter in self._live]
        torch._foreach_lerp_([local(mean) for mean in self._mean], live, 1 - decay)

    def tensors(self) -> dict[str, Tensor]:
        """Averages by parameter name."""
        return dict(zip(self.names, self._mean, strict=True))

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the averages. Raises ValueError where names differ."""
        if set(tensors) != set(self.names):
            odd = sorted(set(tensors) ^ set(self.names))[:4]
            raise ValueError(f"the checkpoint averages other parameters than this stage trains: {', '.join(odd)}")
        for name, mean in zip(self.names, self._mean, strict=True):
            mean.copy_(share_of(tensors[name], mean))

    def swap(self) -> None:
        """Exchange the live values with the averages, without copying where a process holds all of them."""
        for parameter, mean in zip(self._live, self._mean, strict=True):
            live, average = local(parameter.detach()), local(mean)
            if average is mean:
                parameter.data, mean.data = mean.data, parameter.data
            else:  # FSDP2 keeps its own handle on a share, so the values have to move
                kept = live.clone()
                live.copy_(average)
                average.copy_(kept)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights inside this block."""
        self.swap()
        try:
            yield
        finally:
            self.swap()
