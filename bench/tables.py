"""What the benchmarks share: timing in turns, the machine's description, and tables as Markdown and as JSON.

A benchmark makes a `Report` from its options, opens tables in it and adds rows as they are measured: each is printed at
once, and the JSON file holds all rows so far, so that a benchmark that is stopped leaves what it has.

    parser = bench_parser(__doc__)
    with Report("Rasteriser", parser.parse_args()) as report:
        table = report.table("Forward", "splats", "ms")
        table.add(4096, interleaved({"numba": call}, report.clock, rounds=9, seconds=5)["numba"])
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

Name = TypeVar("Name")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
VERSIONS = ("latent3d", "torch", "numba", "numpy")
MIN_ROUNDS = 3


@dataclass(frozen=True)
class Spread:
    """Median and extremes of repeated measurements, in the unit of the column."""

    median: float
    min: float
    max: float
    repeats: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    def __str__(self) -> str:
        if self.repeats == 1:
            return number(self.median)
        return f"{number(self.median)} ({number(self.min)} to {number(self.max)})"


Cell = str | int | float | Spread | None


def number(value: float) -> str:
    """Three significant digits, without exponent between 0.001 and a million."""
    if math.isnan(value):
        return "-"
    if value == 0 or not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def text(cell: Cell) -> str:
    """A cell of a Markdown table; None is a dash."""
    if cell is None:
        return "-"
    return number(cell) if isinstance(cell, float) else str(cell).replace("|", "\\|")


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table."""
    lines = [columns, ["---"] * len(columns), *([text(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


@dataclass
class Table:
    """A table that prints itself row by row."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    changed: Callable[[], None] = lambda: None

    def add(self, *cells: Cell | list[float]) -> None:
        """A row; a list of measurements becomes its `Spread`."""
        if len(cells) != len(self.columns):
            raise ValueError(f"the table '{self.title}' has {len(self.columns)} columns, but the row has {len(cells)}")
        row = tuple(Spread.of(cell) if isinstance(cell, list) else cell for cell in cells)
        self.rows.append(row)
        print("| " + " | ".join(text(cell) for cell in row) + " |", flush=True)
        self.changed()

    def note(self, sentence: str) -> None:
        """A sentence below the table."""
        self.notes.append(sentence)
        print(sentence, flush=True)
        self.changed()

    def markdown(self) -> str:
        """Heading, table and notes."""
        return "\n".join([f"## {self.title}", "", markdown(self.columns, self.rows), *(f"{n}\n" for n in self.notes)])

    def as_dict(self) -> dict[str, Any]:
        """For JSON: rows are dictionaries by column, NaN is None."""
        rows = [dict(zip(self.columns, map(_plain, row), strict=True)) for row in self.rows]
        return {"title": self.title, "columns": list(self.columns), "rows": rows, "notes": self.notes}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Table:
        """The inverse of `as_dict`."""
        columns = tuple(values["columns"])
        rows = [tuple(_cell(row[name]) for name in columns) for row in values["rows"]]
        return cls(values["title"], columns, rows, list(values["notes"]))


class Report:
    """The tables of one benchmark, with what they depend on."""

    def __init__(self, title: str, options: argparse.Namespace, **more: Any) -> None:
        """Describe the machine, set the number of threads and print both; ``more`` joins the description."""
        import torch

        torch.set_num_threads(options.threads)
        self.title, self.file, self.clock = title, options.json, options.clock
        self.machine = machine(options.threads, options.clock) | more
        self.tables: list[Table] = []
        print(f"# {title}\n\n{described(self.machine)}", flush=True)

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_: object) -> None:
        self.write()

    def table(self, title: str, *columns: str) -> Table:
        """Open a table; its head is printed."""
        table = Table(title, columns, changed=self.write)
        self.tables.append(table)
        print(f"\n## {title}\n\n{markdown(columns, [])}", end="", flush=True)
        return table

    def write(self) -> None:
        """Write the JSON, if a file was named."""
        if self.file is not None:
            write_json(self.file, self.title, self.machine, self.tables)


def write_json(path: Path, title: str, machine: Mapping[str, Any], tables: Sequence[Table]) -> None:
    """Title, machine and tables as JSON; a file that is being replaced stays whole."""
    values = {"title": title, "machine": dict(machine), "tables": [table.as_dict() for table in tables]}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> tuple[str, dict[str, Any], list[Table]]:
    """What `write_json` wrote."""
    values = json.loads(path.read_text(encoding="utf-8"))
    return values["title"], values["machine"], [Table.from_dict(table) for table in values["tables"]]


def bench_parser(description: str | None, threads: int = 2) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=threads)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor time, for a busy machine")
    parser.add_argument("--json", type=Path, help="also write the tables to this file")
    return parser


PAUSE = 0.02
"""Seconds before a call, in which threads that wait for work by spinning go to sleep."""


def interleaved(
    calls: Mapping[Name, Callable[[], object]],
    clock: str = "wall",
    *,
    rounds: int = 9,
    seconds: float = 10.0,
    pause: float = 0.0,
) -> dict[Name, list[float]]:
    """Milliseconds of every call, in rounds over all of them, so that a busy machine slows all alike.

    The order is drawn anew in every round: none finds the caches as always the same one left them.
    The first round, which may compile, is not counted; at least `MIN_ROUNDS` are, until ``rounds`` or ``seconds`` are
    used up. Ratios are best taken round by round, see `ratio`. ``pause`` seconds before each call let threads go to
    sleep that spin while they wait for work.
    """
    now = CLOCKS[clock]
    for call in calls.values():
        call()
    times: dict[Name, list[float]] = {name: [] for name in calls}
    shuffle = random.Random(0)
    end = time.perf_counter() + seconds
    for done in range(max(rounds, 1)):
        if done >= MIN_ROUNDS and time.perf_counter() > end:
            break
        for name in shuffle.sample(list(calls), len(calls)):
            time.sleep(pause)
            start = now()
            calls[name]()
            times[name].append(1e3 * (now() - start))
    return times


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median of the ratios of the rounds that both took part in."""
    return statistics.median(s / f for s, f in zip(slow, fast, strict=False))


def machine(threads: int, clock: str = "wall") -> dict[str, Any]:
    """What figures depend on, without names of host or user."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": processor(),
        "logical_cores": os.cpu_count(),
        "usable_cores": usable,
        "threads": threads,
        "clock": clock,
        "load_average": [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "memory_gb": memory_gb(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: _version(name) for name in VERSIONS},
    }


def described(machine: Mapping[str, Any]) -> str:
    """The machine in one line."""
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in machine.items() if value is not None)


def processor() -> str:
    """Name of the processor's model."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def memory_gb() -> float | None:
    """Memory of the machine; None where the system does not tell."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)


def peak_growth(function: Callable[[], object]) -> float | None:
    """MB by which the resident set's peak exceeds its size before the call; None without Linux' counters."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _status("VmRSS")
    except OSError:
        return None
    function()
    return max(0.0, _status("VmHWM") - before)


def _status(key: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/self/status has no {key}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _plain(cell: Cell) -> Any:
    if isinstance(cell, Spread):
        return {key: _plain(value) for key, value in asdict(cell).items()}
    if isinstance(cell, float):
        return None if math.isnan(cell) else float(f"{cell:.6g}")
    return cell


def _cell(value: Any) -> Cell:
    return Spread(**value) if isinstance(value, dict) else value
