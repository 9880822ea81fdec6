"""One stage of training: the loop over steps, and what is saved of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sized
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from latent3d.data.scenes import Batch, prefetch
from latent3d.memory import MemoryLevel, NotEnoughMemoryError, memory, release
from latent3d.training.checkpoints import save_checkpoint
from latent3d.training.distributed import Share, Team, whole
from latent3d.training.optim import (
    Ema,
    build_optimizer,
    learning_rate_factor,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
)
from latent3d.training.run_state import NonFiniteError, RunState, TrainResult
from latent3d.training.sheets import save_sheet

T = TypeVar("T")
STAGE_SEEDS = 16  # the stages of one run read different streams: stream seed = 16 * seed + stage number


def step_seed(*key: int) -> int:
    """A well-mixed 63-bit seed from integers such as (seed, rank, stage, step, pass)."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def round_frozen(model: nn.Module) -> None:
    """Hold parameters without gradient in bfloat16, and those with one (which an earlier stage may have held so) in
    float32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else torch.bfloat16)


class StageLoop:
    """Optimiser, averages and counters of one stage."""

    def __init__(self, run: RunState, index: int) -> None:
        self.run, self.index, self.stage = run, index, run.config.stages[index]
        chosen = dict(run.model.trainable(self.stage.name))
        if not chosen:
            raise ValueError(f"the system trains no parameter in stage '{self.stage.name}'")
        if self.stage.accumulate % run.ranks.size:
            raise ValueError(
                f"{run.ranks.size} processes cannot share the {self.stage.accumulate} passes of a step of stage "
                f"'{self.stage.name}'; start a number that divides them, or set {self.stage.name}.accumulate"
            )
        run.model.requires_grad_(False)
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        if self.stage.frozen_dtype == "bf16":
            round_frozen(run.model)
        run.model.train()
        self.team = Team(run.model, run.ranks, run.config.distributed)
        parameters = dict(run.model.named_parameters())
        self.named: dict[str, nn.Parameter] = {name: parameters[name] for name in chosen}
        self.optimizer = build_optimizer(self.named, self.stage)
        self.ema = Ema(self.named, self.stage.ema_decay)
        self.stream = run.config.data.stream(self.stage, STAGE_SEEDS * run.config.seed + index)
        self.step = 0
        self.terms: dict[str, float] = {}
        self._sums: dict[str, float] = {}
        self._count = 0
        self._fixed: dict[int, Batch] = {}
        self._saved_step: int | None = None
        self._saved_at = self._window_at = time.monotonic()

    def restore(self, state: dict[str, Any], tensors: dict[str, dict[str, Tensor]]) -> None:
        """Go on from a checkpoint (whose model weights are loaded already)."""
        restore_optimizer(self.optimizer, self.named, tensors["optimizer"])
        self.ema.restore(tensors["ema"])
        self.step = self._saved_step = state["step"]
        self._sums, self._count = dict(state["pending"]["sums"]), state["pending"]["count"]
        if state["clips"] != self._clips():
            self.run.report.say(
                f"the data changed from {state['clips']} to {self._clips()} clips: other batches follow"
            )

    def _clips(self) -> int | None:
        """Number of clips of a bank; None for endless streams."""
        return len(self.stream) if isinstance(self.stream, Sized) else None

    def reset_average(self) -> None:
        """Begin the average at the present weights."""
        self.ema = Ema(self.named, self.stage.ema_decay)

    def run_steps(self) -> TrainResult:
        """Train to the end of the stage, of the time, or until a stop is asked for; the state is saved in any case."""
        stage, run = self.stage, self.run
        share, passes = Share(self.stream, run.ranks), stage.accumulate // run.ranks.size
        batches = prefetch(share, self.step * passes, stage.steps * passes)
        bar = run.report.bar(stage.name, stage.steps, self.step)
        with closing(batches), bar, memory(run.config.memory):
            while self.step < stage.steps:
                late = run.deadline is not None and time.monotonic() >= run.deadline
                stop_asked, late = run.ranks.agree(run.stop_asked, late)
                if stop_asked:
                    return self._end("interrupted")
                if late:
                    return self._end("time")
                self.terms = self._train_step(batches)
                self.step += 1
                run.global_step += 1
                self._after_step()
                bar.update()
                bar.set_postfix_str(self._status(), refresh=False)
        return self._end("finished")

    def _end(self, reason: str) -> TrainResult:
        self.save()
        if hasattr(self.stream, "close"):
            self.stream.close()
        return TrainResult(reason, self.stage.name, self.step, self.run.global_step, self.terms)

    def _train_step(self, batches: Iterator[tuple[int, Batch]]) -> dict[str, float]:
        """One optimiser step; figures of it. Nothing changes where a figure is not finite."""
        stage, ranks = self.stage, self.run.ranks
        rate = stage.learning_rate * learning_rate_factor(self.step, stage)
        set_learning_rate(self.optimizer, rate)
        taken: list[Batch] = []
        # spectral norms go on with their power iteration in every pass
        before = [(buffer, buffer.clone()) for buffer in self.run.model.buffers()]

        def attempt() -> list[dict[str, Tensor]]:
            for buffer, value in before:
                buffer.copy_(value)
            return self._passes(batches, taken)

        try:
            passes = self._retried(attempt, meets=self.team.sharded)
        except NotEnoughMemoryError:
            if not self.team.sharded:
                self.save()
            raise
        self.team.exchange()
        norm = whole(nn.utils.clip_grad_norm_(list(self.named.values()), stage.clip_norm or math.inf))
        means = [torch.stack([one[name].float() for one in passes]).mean() for name in passes[0]]
        figures = ranks.mean(torch.stack([*means, norm.float()]))
        values: dict[str, float] = dict(zip([*passes[0], "gradient_norm"], figures.tolist(), strict=True))
        self._check_finite(values)
        self.optimizer.step()
        self.ema.update(self.step)
        weights = stage.weights_at(self.step)
        return {**values, "learning_rate": rate, **{f"weight/{name}": weights[name] for name in stage.loss_ramps}}

    def _passes(self, batches: Iterator[tuple[int, Batch]], taken: list[Batch]) -> list[dict[str, Tensor]]:
        """This process's passes of a step: gradients, and figures of each. ``taken`` keeps their batches for a second
        attempt."""
        stage, ranks = self.stage, self.run.ranks
        self.optimizer.zero_grad(set_to_none=True)
        passes = []
        for number, part in enumerate(range(ranks.rank, stage.accumulate, ranks.size)):
            if number == len(taken):
                taken.append(next(batches)[1])
            batch = taken[number]
            self.team.begin_pass(part + ranks.size >= stage.accumulate)
            key = (self.run.config.seed, 0, self.index, self.step, part)
            terms = self._terms(batch, key, self.team.terms)
            loss = self._weighted(terms)
            (loss / (stage.accumulate // ranks.size)).backward()
            passes.append({"loss": loss.detach(), **{f"loss/{name}": value.detach() for name, value in terms.items()}})
        return passes

    def _retried(self, work: Callable[[], T], meets: bool = False) -> T:
        """``work()``, again at a leaner memory level where it does not fit. What it draws is seeded within, so that
        the result is that of a run which had that level from the start."""
        name = self.stage.name
        remedy = f"lower {name}.batch_size (and raise {name}.accumulate as much), or the size and number of views"
        return self.run.ranks.retried(work, f"stage '{name}', step {self.step}: {remedy}", self._lowered, meets)

    def _lowered(self, level: MemoryLevel) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        release()
        self._row({"memory": level})
        self.run.report.say(f"step {self.step}: the memory is not enough; going on as '{level}', with the same results")

    def _terms(
        self, batch: Batch, key: tuple[int, ...], compute: Callable[[Batch, str, torch.Generator], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The system's terms, by ``compute``, with all randomness seeded by ``key``."""
        device = self.run.device
        seed = step_seed(*key)
        torch.manual_seed(seed)  # dropout and whatever else uses the global generator
        generator = torch.Generator().manual_seed(seed)  # on the CPU: the same draws on every device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.stage.autocast == "bf16"):
            return compute(batch.to(device), self.stage.name, generator)

    def _weighted(self, terms: dict[str, Tensor]) -> Tensor:
        weights = {name: weight for name, weight in self.stage.weights_at(self.step).items() if weight}
        needed = {name for name, weight in self.stage.loss_weights.items() if weight} | self.stage.loss_ramps.keys()
        if missing := sorted(needed - terms.keys()):
            raise ValueError(
                f"loss_weights of stage '{self.stage.name}' names '{missing[0]}', which the system does not give; "
                f"its terms: {', '.join(terms)}"
            )
        total = sum(weight * terms[name].float() for name, weight in weights.items())
        if not isinstance(total, Tensor) or total.ndim:
            raise ValueError(f"the terms of stage '{self.stage.name}' should be scalars")
        return total

    def _check_finite(self, values: dict[str, float]) -> None:
        weighted = [f"loss/{name}" for name, weight in self.stage.weights_at(self.step).items() if weight]
        watched = [*weighted, "loss", "gradient_norm"]
        bad = [name for name in watched if not math.isfinite(values[name])]
        if not bad:
            return
        folder = self.save()
        first = self.step * self.stage.accumulate
        clips = [clip for part in range(self.stage.accumulate) for clip in self.stream.describe(first + part)]
        raise NonFiniteError(
            f"training stopped: {', '.join(bad)} became NaN or infinite at step {self.step} of stage "
            f"'{self.stage.name}' (seed {self.run.config.seed}, clips {', '.join(clips)}); the state before this step "
            f"is in {folder}: resume with a lower learning rate or look at these clips"
        )

    def _after_step(self) -> None:
        """Log, validate, draw and save when it is time."""
        stage, done = self.stage, self.step == self.stage.steps
        for name, value in self.terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        if done or self.step % stage.log_every == 0:
            self._log()
        if stage.validate_every and (done or self.step % stage.validate_every == 0):
            self._validate()
        if stage.sheet_every and (done or self.step % stage.sheet_every == 0):
            self._sheet()
        late = time.monotonic() - self._saved_at > 60 * stage.save_minutes
        if any(self.run.ranks.agree(late)) or (stage.save_every and self.step % stage.save_every == 0):
            self.save()

    def _row(self, figures: dict[str, Any]) -> None:
        head = {"stage": self.stage.name, "step": self.step, "global_step": self.run.global_step}
        if self.run.log is not None:
            self.run.log.write({**head, **figures})

    def _log(self) -> None:
        means = {name: value / self._count for name, value in self._sums.items()}
        now = time.monotonic()
        samples = self._count * self.stage.batch_size * self.stage.accumulate
        speed = samples / max(now - self._window_at, 1e-9)
        self._row({**means, "samples_per_second": speed, "seconds": self.run.trained_seconds()})
        self._sums, self._count, self._window_at = {}, 0, now

    @torch.no_grad()
    def _validate(self) -> None:
        """Terms on fixed batches with fixed noise and the averaged weights."""
        sums: dict[str, float] = {}
        self.run.model.eval()
        with self.ema.applied(), self.team.gathered():
            for number in range(self.stage.validate_batches):
                batch = self.fixed_batch(number)
                terms = self._retried(lambda: self._terms(batch, (number,), self.run.model.training_terms))  # noqa: B023
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0.0) + float(value)
        self.run.model.train()
        self._row({f"validation/{name}": value / self.stage.validate_batches for name, value in sums.items()})

    @torch.no_grad()
    def _sheet(self) -> None:
        """A sheet of samples with the averaged weights, where the system draws any."""
        if not hasattr(self.run.model, "sample_sheet"):
            return
        batch = self.fixed_batch(0).to(self.run.device)
        self.run.model.eval()

        def drawn() -> dict[str, Tensor]:
            generator = torch.Generator().manual_seed(self.run.config.seed)
            return self.run.model.sample_sheet(batch, self.stage.name, generator)

        with self.ema.applied(), self.team.gathered():
            rows = self._retried(drawn)
        self.run.model.train()
        if self.run.ranks.main:
            save_sheet(self.run.out / "sheets" / f"{self.index:02d}_{self.stage.name}_{self.step:08d}.png", rows)

    def fixed_batch(self, number: int) -> Batch:
        """Validation batch, kept in memory: the worlds would take long to draw it again."""
        if number not in self._fixed:
            self._fixed[number] = self.run.config.data.validation(self.stage).batch(number)
        return self._fixed[number]

    def save(self) -> Path:
        """Write a checkpoint, unless the last one is of this step."""
        root = self.run.out / "checkpoints"
        if self._saved_step == self.step:
            return root / f"{self.index:02d}_{self.stage.name}_{self.step:08d}"
        state = {
            "stage_index": self.index,
            "stage": self.stage.name,
            "step": self.step,
            "global_step": self.run.global_step,
            "seconds": self.run.trained_seconds(),
            "seed": self.run.config.seed,
            "clips": self._clips(),
            "pending": {"sums": self._sums, "count": self._count},
            "torch": torch.__version__,
            "device": str(self.run.device),
        }
        tensors = {
            "model": self.run.model.state_dict(),
            "ema": self.ema.tensors(),
            "optimizer": optimizer_tensors(self.optimizer, self.named),
        }
        # shares are put together: a checkpoint does not know how many processes wrote it
        put_together = {part: self.team.put_together(of) for part, of in tensors.items()}
        self._saved_step, self._saved_at = self.step, time.monotonic()
        if not self.run.ranks.main:
            self.run.ranks.wait()
            return root
        limits = {"max_shard_bytes": self.run.config.max_shard_bytes, "keep": self.run.config.keep}
        folder = save_checkpoint(root, state, put_together, **limits)
        self.run.ranks.wait()
        return folder

    def _status(self) -> str:
        text = f"loss {self.terms['loss']:.4g}"
        if self.run.deadline is not None:
            left = max(0.0, self.run.deadline - time.monotonic())
            text += f", stops in {left / 60:.0f} min"
        return text
