"""``latent3d evaluate``: the tables of docs/results.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure a model beside its baselines; writes JSON and Markdown."""

    weights: str | None = None
    """Folder of weights, or the name of shipped ones. Default: the shipped ggs_rooms."""
    out: Path = Path("out/evaluation")
    """Folder for the tables."""

    def run(self) -> None:
        from latent3d.evaluation.runner import evaluate_command

        evaluate_command(self.weights, self.out)
