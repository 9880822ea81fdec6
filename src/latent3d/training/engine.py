"""Training: stages of a system, exactly resumable, on one device or several (see `distributed`).

What happens in a step is a function of (seed, stage, step) and the weights alone: batches come from a stream by number
and every forward pass draws from generators seeded for it. So a run that was stopped, by Ctrl-C, by ``max_minutes`` or
by a power cut, goes on from its last checkpoint with the same losses bit for bit.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from latent3d.autoencoders.pretrained import load_autoencoder
from latent3d.hardware import require_compiler
from latent3d.nn.inference import compile_network
from latent3d.training.checkpoints import list_checkpoints, load_checkpoint
from latent3d.training.config import TrainConfig
from latent3d.training.distributed import Ranks, share_of, whole
from latent3d.training.foreign import fill_part, random_towers
from latent3d.training.loop import StageLoop
from latent3d.training.metrics import MetricsLog
from latent3d.training.prior import find_prior, load_prior
from latent3d.training.report import Reporter
from latent3d.training.run_state import NonFiniteError, RunState, TrainResult
from latent3d.weights import load_into, load_tensors, read_json, replace_folder, save_tensors

__all__ = ["NonFiniteError", "TrainResult", "train"]


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    device: str | torch.device = "cpu",
    max_minutes: float | None = None,
    stage: str | None = None,
    resume: bool = True,
    progress: bool = True,
    ranks: Ranks | None = None,
) -> TrainResult:
    """Train the stages of a system in order, going on from the last checkpoint in ``out``.

    ``out`` receives ``config.json``, ``metrics.jsonl``, ``checkpoints/``, ``stages/<number>_<name>/`` (averaged weights
    at the end of each stage), ``sheets/`` and, where TensorBoard is installed, ``tensorboard/``. Ctrl-C or SIGTERM
    saves and returns after the present step; a second one stops at once.

    Args:
        max_minutes: save and return after that time; the schedules do not change.
        stage: train only this one, from the end of the stage before it.
        resume: False demands a folder without a run.
        ranks: this process among those that train together, each on a ``device`` of its own; see `distributed`.

    Raises:
        NonFiniteError: a loss or the gradient became NaN or infinite; the state before that step is saved.
        ValueError: unknown stage or term; ``out`` holds another run (or any, with resume=False); the stage before the
            one asked for is not trained, or a later one has begun.
    """
    ranks = ranks or Ranks()
    out, report = Path(out), Reporter(progress and ranks.main)
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    wanted = range(len(config.stages)) if stage is None else [config.stage_index(stage)]
    _check_optimizers(config, wanted)
    checkpoints = list_checkpoints(out / "checkpoints")
    if checkpoints and not resume:
        raise ValueError(f"{out} holds a run already; choose another folder or let it resume")
    _check_system(config, out)
    state, tensors = load_checkpoint(checkpoints[-1]) if checkpoints else (None, {})
    model = build_system(config, torch.device(device), foreign=state is None)
    position = -1
    if state is None:
        for name in random_towers(model, config):
            report.say(f"'{name}' has random weights and is never trained; give it some by initial_weights.{name}")
    if state is not None:
        position = config.stage_index(state["stage"])
        if wanted[-1] < position:
            raise ValueError(f"stage '{stage}' of {out} is over and a later one has begun; use another folder")
        load_into(model, tensors["model"], f"the weights of {checkpoints[-1]}")
        report.say(f"going on from {checkpoints[-1].name}")
    elif wanted[0] > 0:
        first = config.stages[wanted[0] - 1].name
        raise ValueError(f"stage '{stage}' starts from the end of '{first}'; train that in {out} first")
    ranks.wait()  # nobody reads any more what the main process may now replace
    log = None
    if ranks.main:
        _write_config(config, out, report)
        log = MetricsLog(out, state["global_step"] if state else 0)
    run = RunState(config, out, torch.device(device), model, report, log, deadline, ranks=ranks)
    if state is not None:
        run.global_step, run.seconds = state["global_step"], state["seconds"]
    with nullcontext() if log is None else closing(log), _stop_on_signal(run):
        for index in wanted:
            if index < position:
                continue
            if state is not None and index == wanted[0] and index > position:
                _load_stage_end(run, index - 1)
            loop = StageLoop(run, index)
            if state is not None and index == position:
                loop.restore(state, tensors)
            else:
                _begin_stage(run, loop)
            result = loop.run_steps()
            if result.reason != "finished":
                break
            _end_stage(run, loop)
    return result


def build_system(config: TrainConfig, device: torch.device, foreign: bool = True) -> Any:
    """The system with seeded initial values, then the pre-trained parts (unless not ``foreign``: a checkpoint follows
    that holds them), then ``initial_weights``.

    Raises:
        ValueError: a configured stage that the system does not have, or weights that do not fit; nothing to compile, or
            nothing to compile with.
        FileNotFoundError: weights that are not there.
    """
    if config.compile:
        require_compiler()
    torch.manual_seed(config.seed)
    model = config.system.build().to(device)  # type: ignore[attr-defined]
    for stage in config.stages:
        if stage.name not in model.stages():
            raise ValueError(f"the system has no stage '{stage.name}'; it has {', '.join(model.stages())}")
    if foreign and config.prior is not None:
        load_prior(model, find_prior(config.prior), autoencoder=config.autoencoder is None)
    if foreign and config.autoencoder is not None:
        load_into(model.vae, load_autoencoder(config.autoencoder).state_dict(), f"the weights in {config.autoencoder}")
    for prefix, source in config.initial_weights.items():
        try:
            part = model.get_submodule(prefix)
        except AttributeError as error:
            raise ValueError(f"initial_weights: the system has no part '{prefix}'") from error
        fill_part(part, source)
    if config.compile:
        compile_network(getattr(model, "denoiser", None))
    return model


def stage_folder(out: Path, config: TrainConfig, index: int) -> Path:
    """Where the end of a stage is kept."""
    return out / "stages" / f"{index:02d}_{config.stages[index].name}"


def _begin_stage(run: RunState, loop: StageLoop) -> None:
    """Start from raw weights where the stage says so (the model holds the averaged ones of earlier stages)."""
    if loop.stage.start == "raw":
        with torch.no_grad():
            for index in range(loop.index):
                raw = load_tensors(stage_folder(run.out, run.config, index), "raw")
                for name in raw.keys() & loop.named.keys():
                    loop.named[name].copy_(share_of(raw[name], loop.named[name]))
    loop.reset_average()


def _end_stage(run: RunState, loop: StageLoop) -> None:
    """Keep the end of a stage, averaged and raw, and leave the averaged weights in the model."""
    raw = {name: whole(parameter.detach()).clone() for name, parameter in loop.named.items()}
    loop.ema.swap()
    if hasattr(run.model, "finish_stage"):
        run.model.eval()
        with torch.no_grad(), loop.team.gathered():
            run.model.finish_stage(loop.stage.name, loop.fixed_batch(0).to(run.device))
    full = {name: whole(value.detach()) for name, value in run.model.state_dict().items()}

    def fill(folder: Path) -> None:
        save_tensors(folder, "averaged", full, run.config.max_shard_bytes)
        save_tensors(folder, "raw", raw, run.config.max_shard_bytes)
        (folder / "state.json").write_text(json.dumps({"stage": loop.stage.name, "step": loop.step}))

    if run.ranks.main:
        replace_folder(stage_folder(run.out, run.config, loop.index), fill)
    run.ranks.wait()
    if loop.team.sharded:  # shares are of one stage; the next one begins with a whole model
        run.model = build_system(run.config, run.device, foreign=False)
        load_into(run.model, full)


def _load_stage_end(run: RunState, index: int) -> None:
    folder = stage_folder(run.out, run.config, index)
    if not folder.exists():
        name = run.config.stages[index].name
        raise ValueError(f"stage '{name}' has not reached its end in {run.out}; train it first")
    load_into(run.model, load_tensors(folder, "averaged"), f"the weights in {folder}")


def _check_optimizers(config: TrainConfig, wanted: Iterable[int]) -> None:
    """Raise ValueError for a stage that FSDP2 cannot train."""
    turned = [config.stages[index].name for index in wanted if config.stages[index].optimizer == "muon"]
    if config.distributed == "fsdp" and turned:
        raise ValueError(
            "muon needs whole matrices, which distributed=fsdp does not keep: "
            f"use ddp, or set {' '.join(f'{name}.optimizer=adamw' for name in turned)}"
        )


def _check_system(config: TrainConfig, out: Path) -> None:
    """A run keeps its system. Keys that an older version did not write have their defaults."""
    if not (out / "config.json").exists():
        return
    message = f"{out} holds a run of a system that is configured otherwise; choose another folder"
    try:
        old = type(config.system).from_dict(read_json(out / "config.json").get("system", {}))
    except ValueError as error:
        raise ValueError(f"{message} ({error})") from error
    if old.to_dict() != config.system.to_dict():
        raise ValueError(message)


def _write_config(config: TrainConfig, out: Path, report: Reporter) -> None:
    """Write ``config.json``; settings other than the system may change in a run, and that is said."""
    out.mkdir(parents=True, exist_ok=True)
    path, fresh = out / "config.json", json.loads(json.dumps(config.to_dict()))
    if path.exists():
        old = read_json(path)
        changed = [key for key in fresh if old.get(key) != fresh[key]]
        if changed:
            report.say(f"settings that changed since this run began: {', '.join(changed)}")
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(fresh, indent=1))
    os.replace(temporary, path)


@contextmanager
def _stop_on_signal(run: RunState) -> Iterator[None]:
    """Within: the first SIGINT or SIGTERM asks for a stop after the present step, a second SIGINT interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if run.stop_asked:
            raise KeyboardInterrupt
        run.stop_asked = True
        run.report.say("stopping after this step and saving (once more to stop at once)")

    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
