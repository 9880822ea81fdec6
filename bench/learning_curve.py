"""How losses fell during training, as a Markdown table, from the logs of one or several runs.

    python bench/learning_curve.py RUN [RUN ...] --stage geometry --terms depth [--bins 6]

Rows are terms, columns equal stretches of steps; a cell is the mean of the term over its stretch. Runs given together
follow each other: their steps are added.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np

from latent3d.training.metrics import read_metrics


def curve(runs: list[Path], stage: str, term: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps, counted on from run to run, and the logged means of a term."""
    steps, values, before = [], [], 0
    for run in runs:
        rows = [row for row in read_metrics(run) if row["stage"] == stage and row.get(f"loss/{term}") is not None]
        steps += [before + row["step"] for row in rows]
        values += [row[f"loss/{term}"] for row in rows]
        before = steps[-1] if steps else 0
    if not steps:
        raise SystemExit(f"no figures of '{term}' in stage '{stage}' in {', '.join(map(str, runs))}")
    return np.array(steps), np.array(values)


def table(runs: list[Path], stage: str, terms: list[str], bins: int) -> str:
    """The Markdown table."""
    lines: list[str] = []
    for term in terms:
        steps, values = curve(runs, stage, term)
        edges = np.linspace(0, steps[-1], bins + 1).round().astype(int)
        if not lines:
            lines = [f"| {stage}, steps | " + " | ".join(f"{a}-{b}" for a, b in pairwise(edges)) + " |"]
            lines.append("|---" * (bins + 1) + "|")
        place = np.digitize(steps, edges[1:-1], right=True)
        cells = [f"{values[place == i].mean():.3f}" if (place == i).any() else "-" for i in range(bins)]
        lines.append(f"| {term} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders, in the order of training")
    parser.add_argument("--stage", required=True)
    parser.add_argument("--terms", nargs="+", default=["diffusion"], help="names without 'loss/'")
    parser.add_argument("--bins", type=int, default=6)
    options = parser.parse_args()
    print(table(options.runs, options.stage, options.terms, options.bins))


if __name__ == "__main__":
    main()
