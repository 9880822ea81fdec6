"""What the stages of a training run share, and how a run ends."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from latent3d.training.config import TrainConfig
from latent3d.training.distributed import Ranks
from latent3d.training.metrics import MetricsLog
from latent3d.training.report import Reporter


class NonFiniteError(ArithmeticError):
    """A loss or gradient became NaN or infinite; the message says where and with which clips."""


@dataclass(frozen=True)
class TrainResult:
    """How training ended: ``finished``, ``time`` (is up) or ``interrupted``; where; the last step's terms."""

    reason: str
    stage: str
    step: int
    global_step: int
    terms: dict[str, float]


@dataclass
class RunState:
    """What the stages of a run share. ``seconds``: trained before this call; ``deadline``: in monotonic seconds."""

    config: TrainConfig
    out: Path
    device: torch.device
    model: Any  # a System that is an nn.Module
    report: Reporter
    log: MetricsLog | None  # None where another process writes
    deadline: float | None = None
    global_step: int = 0
    seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)
    stop_asked: bool = False
    ranks: Ranks = field(default_factory=Ranks)

    def trained_seconds(self) -> float:
        """Seconds trained so far, earlier calls included."""
        return self.seconds + time.monotonic() - self.began
