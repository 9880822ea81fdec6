"""Several processes that share the passes of every training step, started by ``torchrun``; on their own, one process.

A step has ``accumulate`` passes; process r of n does the passes r, r + n, ... Batches and random numbers belong to the
pass and not to the process, so a run computes the same on any number of processes that divides ``accumulate``, up to
the order of sums, and may go on with another number.

``ddp`` keeps the whole model in each process and averages gradients after the last pass of a step: nobody waits for
another in the middle of one, so where the memory of any is not enough, all begin the step again with less. ``fsdp``
(FSDP2, one group for the whole system) holds weights, gradients, optimiser state and averages in shares, and gathers
the weights for the time of a pass.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from latent3d.data.scenes import Batch, Stream
from latent3d.memory import LEVELS, MemoryLevel, NotEnoughMemoryError, is_out_of_memory, retried

T = TypeVar("T")
BUCKET_BYTES = 64 * 2**20
"""Gradients are exchanged so many bytes at a time."""


@dataclass(frozen=True)
class Ranks:
    """This process among all: its number and how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def agree(self, *flags: bool) -> list[bool]:
        """Flags that any process has raised, the same in all."""
        if self.size == 1:
            return list(flags)
        raised: list[Any] = [None] * self.size
        dist.all_gather_object(raised, flags)
        return [any(column) for column in zip(*raised, strict=True)]

    def mean(self, values: Tensor) -> Tensor:
        """Average over the processes."""
        if self.size == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values / self.size

    def retried(
        self, work: Callable[[], T], remedy: str, lowered: Callable[[MemoryLevel], None], meets: bool = False
    ) -> T:
        """`memory.retried`, in all processes alike: where one runs out, all lower their level and begin again.

        Args:
            meets: processes exchange within the work; they get one attempt, as the others wait in the middle of theirs.

        Raises:
            NotEnoughMemoryError: the memory is not enough.
        """
        if not meets or self.size == 1:
            return retried(work, remedy, lowered, lambda failed: self.agree(failed)[0])
        try:
            return work()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        raise NotEnoughMemoryError(
            f"the memory of process {self.rank} is not enough, and processes that share one model cannot go on with "
            f"less in the middle of a step; start them with a leaner memory ({', '.join(LEVELS)}), or {remedy}"
        )

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


def is_main() -> bool:
    """Whether this process writes files, as ``torchrun`` numbers them."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """The processes that ``torchrun`` started, and the device of this one; without ``torchrun``, one process.

    Args:
        device: as chosen; a GPU without a number becomes the one of this process on its machine.

    Raises:
        ValueError: fewer GPUs than processes on this machine.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks(), device
        return
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"process {local} on this machine finds {torch.cuda.device_count()} GPUs; start no more processes than "
                "GPUs (torchrun --nproc-per-node), or train with --device cpu"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), size), device
    finally:
        dist.destroy_process_group()


class Share:
    """The batches of this process: its n-th one is number n * size + rank of the stream."""

    def __init__(self, stream: Stream, ranks: Ranks) -> None:
        self.stream, self.ranks, self.batch_size = stream, ranks, stream.batch_size

    def number(self, step: int) -> int:
        """Place in the stream of this process's batch number ``step``."""
        return step * self.ranks.size + self.ranks.rank

    def batch(self, step: int) -> Batch:
        """Batch number ``step`` of this process."""
        return self.stream.batch(self.number(step))

    def describe(self, step: int) -> list[str]:
        """Names of its clips."""
        return self.stream.describe(self.number(step))


class Terms(nn.Module):
    """A system's `training_terms` as the forward pass of a module, which is where FSDP2 begins.

    Every trained parameter takes part in every pass, with gradient zero where it has none: processes need the same set.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, stage: str, generator: torch.Generator) -> dict[str, Tensor]:
        """Named terms."""
        terms = self.model.training_terms(batch, stage, generator)
        nothing = sum(0.0 * parameter.sum() for parameter in self.model.parameters() if parameter.requires_grad)
        return {name: term + nothing if term.requires_grad else term for name, term in terms.items()}


class Team:
    """How a stage's passes run and its gradients meet. With one process: directly, and not at all.

    Args:
        model: a system, whose parameters require gradients or not as the stage needs it; ``fsdp`` replaces them by
            shares, so optimisers and averages are to be made afterwards.
    """

    def __init__(self, model: Any, ranks: Ranks, mode: Literal["ddp", "fsdp"]) -> None:
        self.model, self.ranks = model, ranks
        self.sharded = ranks.size > 1 and mode == "fsdp"
        self._module: Any = None
        if self.sharded:
            from torch.distributed.fsdp import fully_shard

            for parameter in model.parameters():  # FSDP2 knows only the plain layout
                parameter.data = parameter.data.contiguous()
            self._module = fully_shard(Terms(model), reshard_after_forward=False)

    @property
    def terms(self) -> Callable[[Batch, str, torch.Generator], dict[str, Tensor]]:
        """The function of a training pass."""
        return self.model.training_terms if self._module is None else self._module

    def begin_pass(self, last: bool) -> None:
        """Before a pass, forward and backward; shares of gradients are exchanged in the last one of a step."""
        if self.sharded:
            self._module.set_requires_gradient_sync(last)

    def exchange(self) -> None:
        """After a step's passes: average whole gradients over the processes. Buffers become those of the first one.

        A parameter that a process did not use counts as zero there; one that nobody used stays without gradient.
        """
        if self.sharded or self.ranks.size == 1:
            return
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        buffers = list(self.model.buffers())
        used = torch.tensor([parameter.grad is not None for parameter in trained], device=trained[0].device).byte()
        dist.all_reduce(used, dist.ReduceOp.MAX)
        gradients = []
        for parameter, anywhere in zip(trained, used.tolist(), strict=True):
            if anywhere:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                gradients.append(parameter.grad)
        for part in _buckets(gradients):
            flat = self.ranks.mean(torch.cat([gradient.flatten() for gradient in part]))
            for gradient, values in zip(part, flat.split([gradient.numel() for gradient in part]), strict=True):
                gradient.copy_(values.view_as(gradient))
        for buffer in buffers:
            dist.broadcast(buffer, 0)

    def put_together(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors in the first process, nothing elsewhere. Shares are gathered one tensor after the other into
        its CPU's memory, so that no device ever holds more than one of them whole. All processes call it."""
        if not self.sharded:
            return {name: value.detach() for name, value in tensors.items()}
        kept = {}
        for name, value in tensors.items():
            together = whole(value.detach())
            if self.ranks.main:
                kept[name] = together.cpu()
        return kept

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Inside, the model holds whole weights and can be used without `terms`."""
        if not self.sharded:
            yield
            return
        self._module.unshard()
        try:
            yield
        finally:
            self._module.reshard()


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Groups of one type and at most `BUCKET_BYTES`, or of one tensor, in an order that all processes share."""
    for dtype in sorted({tensor.dtype for tensor in tensors}, key=str):
        group: list[Tensor] = []
        size = 0
        for tensor in (tensor for tensor in tensors if tensor.dtype == dtype):
            if group and size + tensor.nbytes > BUCKET_BYTES:
                yield group
                group, size = [], 0
            group.append(tensor)
            size += tensor.nbytes
        yield group


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which processes hold shares, put together in each of them; any other as it is."""
    shared: Any = tensor
    return shared.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def share_of(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, known to all processes, split as ``like`` is; unchanged where ``like`` is whole."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    split: Any = like
    return distribute_tensor(tensor.to(like.device), split.device_mesh, split.placements, src_data_rank=None)


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    shared: Any = tensor
    return shared.to_local() if hasattr(tensor, "to_local") else tensor
