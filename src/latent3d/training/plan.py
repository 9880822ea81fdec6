"""What a stage of training will cost: parameters, operations, memory and time, before any of it is spent.

The networks run, forward and backward, on tensors that have shapes but no values (PyTorch's fake tensors), with every
operation and every allocation counted, the latter at each memory level. What depends on values (rendering, geometry) is
not run.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from latent3d.memory import LEVELS, MemoryLevel, memory
from latent3d.training.config import StageConfig, TrainConfig

DEVICES = {
    "A100": (312.0, 80.0),
    "H100": (989.0, 80.0),
    "H200": (989.0, 141.0),
    "B200": (2250.0, 180.0),
    "L40S": (362.0, 48.0),
    "RTX4090": (165.0, 24.0),
    "RTX3090": (71.0, 24.0),
}
"""Peak of dense bfloat16 products in TFLOP/s, and memory in GB, as their makers state them."""
UTILISATION = 0.35
"""Share of the peak that training such networks is assumed to reach."""
FP32_SHARE = 1 / 15
"""Speed of float32 products against bfloat16 ones (A100 and later, without TF32)."""
RESERVE = 1.1
"""Memory on top for the allocator's gaps and the device's own libraries."""


@runtime_checkable
class Countable(Protocol):
    """A system's configuration that knows what a pass of its networks is.

    Attributes:
        uncounted: stages whose cost depends on values, so that they cannot be planned.
    """

    uncounted: ClassVar[tuple[str, ...]]

    def network_pass(self, system: Any, stage: str, scenes: int, views: int) -> Tensor:
        """A scalar that depends on all trained networks of a stage as its loss does, for ``scenes`` scenes or objects
        of which ``views`` views each are given. It runs on tensors without values. Raises ValueError for a stage that
        cannot."""

    def sampling_pass(self, system: Any, views: int) -> None:
        """What sampling one scene or object of so many views takes in memory, likewise. Raises ValueError for a system
        that cannot."""


@dataclass(frozen=True)
class PartCost:
    """Parameters of one part of a system, and how many of them the stage trains."""

    name: str
    parameters: int
    trained: int


@dataclass(frozen=True)
class Plan:
    """Cost of one step of a stage on one of ``devices`` devices.

    Attributes:
        parts: parameters by part.
        forward, backward: operations of one pass (a multiply-add counts twice); recomputation belongs to the latter.
        passes: per device and step.
        weights, gradients, optimizer, average: bytes per device that stay; the average is the weights' moving one.
        levels: largest number of bytes in use at once during a pass, beyond those, by memory level.
        level: the one that the run begins with.
        exchange: bytes per device for gradients under way between devices.
        tflops, capacity: of the named device, in operations per second and bytes.
    """

    stage: StageConfig
    parts: tuple[PartCost, ...]
    forward: int
    backward: int
    passes: int
    weights: int
    gradients: int
    optimizer: int
    average: int
    levels: dict[MemoryLevel, int]
    level: MemoryLevel
    exchange: int
    tflops: float
    capacity: float

    @property
    def activations(self) -> int:
        """Bytes at the level that the run begins with."""
        return self.levels[self.level]

    @property
    def memory(self) -> float:
        """Predicted bytes per device."""
        return self.memory_at(self.level)

    def memory_at(self, level: MemoryLevel) -> float:
        """Predicted bytes per device at a level."""
        stays = self.weights + self.gradients + self.optimizer + self.average
        return RESERVE * (stays + self.levels[level] + self.exchange)

    @property
    def step_seconds(self) -> float:
        """Estimated seconds per step, rendering and data not counted."""
        return self.passes * (self.forward + self.backward) / (UTILISATION * self.tflops)


@dataclass(frozen=True)
class SamplingPlan:
    """Memory of sampling one scene or object.

    Attributes:
        views: of a scene, the given one included; that see an object together.
        weights: bytes, in float32.
        levels: largest number of bytes in use at once beyond those, by memory level.
    """

    views: int
    weights: int
    levels: dict[MemoryLevel, int]

    def memory_at(self, level: MemoryLevel) -> float:
        """Predicted bytes at a level."""
        return RESERVE * (self.weights + self.levels[level])


class PeakMemory(TorchDispatchMode):
    """Bytes of all storages that operations inside allocate: now, and at most so far."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage(), before)
        return result

    def _add(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen or key in before:
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def plan_stage(
    config: TrainConfig,
    name: str,
    device: str = "H100",
    devices: int = 1,
    sharded: bool = False,
    levels: Sequence[MemoryLevel] = (),
) -> Plan:
    """Count what a stage costs.

    Args:
        name: of the stage.
        device: one of `DEVICES`.
        devices: how many share a step.
        sharded: gradients, optimiser state and averages are split over them (FSDP2).
        levels: of memory that are measured beside the one that the run begins with.

    Raises:
        ValueError: unknown device or stage, a system whose networks cannot be counted, or devices that do not divide
            the passes of a step.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    if device not in DEVICES:
        raise ValueError(f"the device '{device}' is unknown; choose one of {', '.join(DEVICES)}")
    stage = config.stages[config.stage_index(name)]
    if devices < 1 or stage.accumulate % devices:
        raise ValueError(
            f"{devices} devices cannot share the {stage.accumulate} passes of a step; choose a number that divides them"
        )
    system, model = _blank(config)
    with FakeTensorMode():
        _fill(model)
        trained = dict(model.trainable(name))
        model.requires_grad_(False)
        for parameter in trained.values():
            parameter.requires_grad_(True)
            parameter.grad = torch.zeros_like(parameter)

        def run() -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=stage.autocast == "bf16"):
                return system.network_pass(model, name, stage.batch_size, stage.sampling.views)

        # a pass of its own: the counter of operations holds on to what checkpointing computes anew
        wanted = [level for level in LEVELS if level in (*levels, config.memory)]
        activations = {level: _peak(level, lambda: run().backward()) for level in wanted}
        with memory(config.memory), FlopCounterMode(display=False) as forward:
            loss = run()
            with FlopCounterMode(display=False) as backward:
                loss.backward()
        total_forward = forward.get_total_flops() - backward.get_total_flops()
    parts = tuple(_part(part, module, trained) for part, module in model.named_children())
    parts = tuple(part for part in parts if part.parameters)
    count = sum(parameter.numel() for parameter in trained.values())
    everything = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    frozen = (everything - count) * (2 if stage.frozen_dtype == "bf16" else 4)
    share = devices if sharded else 1
    weights = 4 * count + frozen
    if share > 1:  # the gathered weights of a pass, and this device's share of them
        weights += math.ceil(weights / share)
    peak, capacity = DEVICES[device]
    return Plan(
        stage=stage,
        parts=parts,
        forward=total_forward,
        backward=backward.get_total_flops(),
        passes=stage.accumulate // devices,
        weights=weights,
        gradients=math.ceil(4 * count / share),
        optimizer=math.ceil(optimizer_bytes(trained, stage) / share),
        average=math.ceil(4 * count / share),
        levels=activations,
        level=config.memory,
        exchange=4 * count if devices > 1 else 0,
        tflops=peak * 1e12 * (1.0 if stage.autocast == "bf16" else FP32_SHARE),
        capacity=capacity * 1e9,
    )


def optimizer_bytes(trained: dict[str, Any], stage: StageConfig) -> int:
    """State of AdamW (two averages), or of Muon where it turns matrices (one)."""
    from latent3d.training.optim import parameter_groups

    return sum(
        (4 if group["orthogonal"] else 8) * parameter.numel()
        for group in parameter_groups(trained, stage)
        for parameter in group["params"]
    )


def plan_sampling(config: TrainConfig, views: int = 8) -> SamplingPlan:
    """Memory that sampling takes, networks in bfloat16.

    Args:
        views: of a scene, the given one included; that see an object together.

    Raises:
        ValueError: for a system that cannot sample or be counted.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    system, model = _blank(config)
    with FakeTensorMode():
        _fill(model)
        model.requires_grad_(False).eval()

        def run() -> None:
            with torch.autocast("cpu", torch.bfloat16):
                system.sampling_pass(model, views)

        levels = {level: _peak(level, run) for level in LEVELS}
    return SamplingPlan(views, sum(4 * value.numel() for value in model.state_dict().values()), levels)


def _peak(level: MemoryLevel, run: Callable[[], None]) -> int:
    with memory(level), PeakMemory() as peak:
        run()
    return peak.peak


def _blank(config: TrainConfig) -> tuple[Any, Any]:
    """A system's configuration, and its networks on the meta device. Raises ValueError where they cannot be counted."""
    system: Any = config.system
    if not isinstance(system, Countable):
        raise ValueError(f"the networks of a {type(system).__name__} cannot be counted; plan another preset")
    with torch.device("meta"):
        return system, system.build()  # type: ignore[attr-defined]


def _fill(model: nn.Module) -> None:
    """Give a network on the meta device tensors of the present mode on the CPU, in the same layouts."""
    for module in model.modules():
        for name, value in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(_empty(value), requires_grad=value.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, _empty(buffer))


def _empty(value: Tensor) -> Tensor:
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cpu")


def _part(name: str, module: Any, trained: dict[str, Any]) -> PartCost:
    chosen = sum(parameter.numel() for key, parameter in trained.items() if key.startswith(f"{name}."))
    return PartCost(name, sum(parameter.numel() for parameter in module.parameters()), chosen)
