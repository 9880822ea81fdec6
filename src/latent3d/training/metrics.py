"""The log of a run: ``metrics.jsonl`` always, TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class MetricsLog:
    """Rows of figures, one JSON object per line, in order of ``global_step``."""

    def __init__(self, out: Path, resumed_at: int) -> None:
        """Open for appending; rows after ``resumed_at`` (written after the last checkpoint) are dropped."""
        self.path = out / "metrics.jsonl"
        if self.path.exists():
            rows = [row for row in read_metrics(out) if row["global_step"] <= resumed_at]
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
            os.replace(temporary, self.path)
        self._file = open(self.path, "a", buffering=1)  # noqa: SIM115 - lives as long as the run
        self._board = None
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(out / "tensorboard"), purge_step=resumed_at + 1)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row; it has ``global_step``, ``stage`` and numbers. NaN and infinity become null."""
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        self._file.write(json.dumps(plain) + "\n")
        if self._board:
            for name, value in row.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{row['stage']}/{name}", value, row["global_step"])

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._board:
            self._board.close()


def read_metrics(out: str | Path) -> list[dict[str, Any]]:
    """Rows of a run's ``metrics.jsonl``; a last line that was cut off in writing is left out."""
    rows = []
    for line in (Path(out) / "metrics.jsonl").read_text().splitlines():
        if line.endswith("}"):
            rows.append(json.loads(line))
    return rows
