"""Two gloo processes on the CPU compute what one computes, in both modes, and runs change between them."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from latent3d.memory import is_lean
from latent3d.training.checkpoints import list_checkpoints, load_checkpoint
from latent3d.training.config import TrainConfig
from latent3d.training.distributed import Ranks, Share, joined, local, share_of, whole
from latent3d.training.engine import build_system, train
from latent3d.training.loop import RunState, StageLoop
from latent3d.training.metrics import read_metrics
from latent3d.training.report import Reporter
from training.tiny_system import TinySystem, TinySystemConfig

VOLATILE = ("seconds", "samples_per_second")


@dataclass(frozen=True, kw_only=True)
class SteadyConfig(TinySystemConfig):
    """The tiny system without dropout."""

    def build(self) -> TinySystem:
        system = super().build()
        system.trunk[2].p = 0.0
        return system


def _rank(rank: int, port: int, jobs: list[tuple[TrainConfig, Path, str | None]]) -> None:
    """One of two processes, started as torchrun would."""
    torch.set_num_threads(1)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(address, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    with joined(torch.device("cpu")) as (ranks, device):
        assert (ranks.rank, ranks.size) == (rank, 2)
        assert ranks.agree(rank == 1, False) == [True, False]
        for config, out, stage in jobs:
            train(config, out, device=device, stage=stage, progress=False, ranks=ranks)


def on_two(*jobs: tuple[TrainConfig, Path, str | None]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(_rank, (port, list(jobs)), nprocs=2)


def rows(out: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in VOLATILE} for row in read_metrics(out)]


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in rows(out) if "loss" in row]


def same(first: Path, second: Path) -> None:
    """Equal rows and equal last checkpoints, up to the order of sums."""
    assert [row.keys() for row in rows(first)] == [row.keys() for row in rows(second)]
    for ours, theirs in zip(rows(first), rows(second), strict=True):
        assert ours.pop("stage") == theirs.pop("stage")
        assert ours == pytest.approx(theirs, rel=2e-4, abs=1e-6)
    last = [load_checkpoint(list_checkpoints(out / "checkpoints")[-1])[1] for out in (first, second)]
    for part, tensors in last[0].items():
        assert tensors.keys() == last[1][part].keys()
        for name, value in tensors.items():
            torch.testing.assert_close(value, last[1][part][name], rtol=2e-3, atol=2e-5)


def test_two_processes_are_one_and_runs_change_hands(tiny_config, tmp_path):
    """Whole runs in both modes, and runs that begin on one process or two and end on two or one, in mid-stage."""
    stages = tuple(stage.replace(schedule="constant", log_every=1) for stage in tiny_config.stages)
    config = tiny_config.replace(stages=stages)
    # FSDP2 has the weights in the plain layout, in which dropout draws in another order
    steady = config.replace(system=SteadyConfig())
    train(config, tmp_path / "one", progress=False)
    train(steady, tmp_path / "steady", progress=False)

    def short(run: TrainConfig) -> TrainConfig:
        return run.replace(stages=(stages[0].replace(steps=3), stages[1]))

    train(short(steady), tmp_path / "one_two", stage="depth", progress=False)
    shared = steady.replace(distributed="fsdp")
    on_two(
        (config, tmp_path / "ddp", None),
        (shared, tmp_path / "fsdp", None),
        (short(steady), tmp_path / "ddp_one", "depth"),
        (short(shared), tmp_path / "fsdp_one", "depth"),
        (shared, tmp_path / "one_two", None),
    )
    same(tmp_path / "ddp", tmp_path / "one")
    same(tmp_path / "fsdp", tmp_path / "steady")
    train(steady, tmp_path / "ddp_one", progress=False)
    train(steady, tmp_path / "fsdp_one", progress=False)
    for name in ("ddp_one", "fsdp_one", "one_two"):
        handed, whole_run = (losses(tmp_path / run) for run in (name, "steady"))
        assert len(handed) == 7 + 4
        assert handed == pytest.approx(whole_run, rel=2e-4)


@dataclass(frozen=True, kw_only=True)
class LargeConfig(SteadyConfig):
    """From its third pass on, the second of two processes has not enough memory before a level."""

    level: str = "lean"

    def build(self) -> TinySystem:
        system = super().build()
        terms, calls = system.training_terms, iter(range(1, 10_000))

        def limited(batch, stage, generator):
            out = terms(batch, stage, generator)
            if os.environ.get("RANK") == "1" and next(calls) >= 3 and not is_lean(self.level):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return out

        system.training_terms = limited
        return system


def test_where_one_process_has_not_enough_memory_all_step_down(tiny_config, tmp_path):
    """The run ends as one that had the leaner level from the start, and the message of FSDP2's says what to do."""
    stage = tiny_config.stages[0].replace(schedule="constant", log_every=1)
    config = tiny_config.replace(stages=(stage,), system=LargeConfig())
    train(config.replace(memory="lean"), tmp_path / "lean", progress=False)
    on_two((config, tmp_path / "stepped", None))
    told = [row["memory"] for row in read_metrics(tmp_path / "stepped") if "memory" in row]
    assert told == ["lean"]
    stepped, lean = losses(tmp_path / "stepped"), losses(tmp_path / "lean")
    assert len(stepped) == stage.steps
    assert stepped == pytest.approx(lean, rel=2e-4)
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="start them with a leaner memory"):
        on_two((config.replace(distributed="fsdp"), tmp_path / "fsdp", None))


def test_passes_that_cannot_be_shared_are_refused(tiny_config, tmp_path):
    stages = tuple(stage.replace(accumulate=3) for stage in tiny_config.stages)
    config, device = tiny_config.replace(stages=stages), torch.device("cpu")
    run = RunState(
        config, tmp_path, device, build_system(config, device), Reporter(False), None, ranks=Ranks(0, 2)
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"2 processes cannot share the 3 passes .* set depth.accumulate"):
        StageLoop(run, 0)


def test_processes_share_a_stream_without_gap_or_overlap():
    class Numbers:
        batch_size = 1

        def batch(self, step):
            return step

        def describe(self, step):
            return [str(step)]

    shares = [Share(Numbers(), Ranks(rank, 4)) for rank in range(4)]
    assert sorted(share.batch(step) for step in range(3) for share in shares) == list(range(12))
    assert shares[3].describe(2) == ["11"]


def test_one_process_shares_nothing():
    tensor, alone = torch.arange(3.0), Ranks()
    assert whole(tensor) is local(tensor) is share_of(tensor, tensor) is alone.mean(tensor) is tensor
    assert alone.agree(True, False) == [True, False]
    with joined(torch.device("cpu")) as (ranks, device):
        assert (ranks, device.type) == (alone, "cpu")
