"""``latent3d evaluate``: the tables of docs/results.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from latent3d.apps.options import option


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure a model beside its baselines; writes JSON and Markdown, and goes on where it stopped."""

    weights: Annotated[str | None, option("NAME|DIR", "ggs_rooms")] = None
    """Folder of weights, or the name of shipped ones."""
    out: Path = Path("out/evaluation")
    """Folder for the tables."""
    protocol: tuple[str, ...] = ()
    """Which references and targets, by name. Default: all protocols."""
    family: tuple[str, ...] = ("mixed", "other")
    """Kinds of worlds; other is never trained on."""
    split: Literal["test", "val"] = "test"
    """Which part of the seeds."""
    scenes: int = 64
    """Scenes per family."""
    steps: tuple[int, ...] = (1, 30)
    """Numbers of sampler steps to compare."""
    seed: int = 0
    """Random seed; scene i samples with seed + i."""
    capture: Annotated[Path | None, option("DIR", "none")] = None
    """Folder of a posed capture instead of worlds (see latent3d data check)."""
    capture_stride: int = 1
    """Photos that far apart."""
    capture_scale: float = 1.0
    """Factor of the photos' translations, to metres."""
    extractor: str = "random_conv"
    """Network whose features the Frechet distance compares."""
    extractor_weights: Annotated[Path | None, option("FILE", "none")] = None
    """Its weights, where it needs some."""
    baselines_only: bool = False
    """Score what needs no model."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""

    def run(self) -> None:
        if self.scenes < 1 or not self.steps or min(self.steps) < 1 or self.capture_stride < 1:
            raise ValueError("give at least one of --scenes and --steps, and a --capture-stride of 1 or more")
        from latent3d.evaluation.protocols import PROTOCOLS
        from latent3d.evaluation.runner import evaluate_command

        evaluate_command(
            self.weights,
            self.out,
            protocol=self.protocol or tuple(PROTOCOLS),
            family=self.family,
            scenes=self.scenes,
            steps=self.steps,
            seed=self.seed,
            split=self.split,
            capture=self.capture,
            capture_stride=self.capture_stride,
            capture_scale=self.capture_scale,
            extractor=self.extractor,
            extractor_weights=self.extractor_weights,
            baselines_only=self.baselines_only,
            device=self.device,
        )
