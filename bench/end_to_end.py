"""The commands of latent3d as a user runs them, each a process of its own, as a table.

    python bench/end_to_end.py [--rounds 3] [--threads 2] [--image FILE] [--objects NAME|DIR] [--json FILE]

Seconds from start to end, processor seconds, the highest memory, and the seconds that the result's card names by stage.
The first run of a command stands apart: after installation it compiles the kernels that later runs find on disk.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tables import Report, Table, bench_parser

from latent3d.weights import find_shipped

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "from latent3d.apps.cli import main; main()"
OBJECTS = "ln3diff_shapes"


@dataclass(frozen=True)
class Run:
    """What one process took.

    Attributes:
        seconds, cpu: on the clock, and of the processor in all threads.
        peak_mb: highest resident memory.
        code: exit code, negative where it was stopped.
        error: end of what it wrote to stderr.
        stages: seconds by stage, from the card.
    """

    seconds: float
    cpu: float
    peak_mb: float
    code: int
    error: str = ""
    stages: dict[str, float] = field(default_factory=dict)


def run(command: Sequence[str], limit: float, threads: int) -> Run:
    """Run a process to its end, or for ``limit`` seconds, after which it is stopped."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, cwd=ROOT, env=environment)
        try:
            while True:
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
                if ended:
                    break
                if time.perf_counter() - start > limit:
                    process.send_signal(signal.SIGKILL)
                time.sleep(0.01)
        except BaseException:
            process.kill()
            process.wait()
            raise
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        said = errors.read()[-300:].decode("utf-8", errors="replace").strip()
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / scale, process.returncode, said)


def latent3d(arguments: Sequence[str], limit: float, threads: int) -> Run:
    """Run a command of latent3d; one that makes something writes it to a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "result"
        making = arguments[0] in ("scene", "object")
        extra = ["--out", str(out)] if making else []
        done = run([sys.executable, "-c", COMMAND, *arguments, *extra], limit, threads)
        card = out / "card.json"
        stages = json.loads(card.read_text(encoding="utf-8"))["seconds"] if card.is_file() else {}
    return Run(done.seconds, done.cpu, done.peak_mb, done.code, done.error, stages)


def measure(table: Table, arguments: Sequence[str], rounds: int, limit: float, threads: int) -> None:
    """Add a command's row: a first run, then ``rounds`` more; together they may take ``limit`` seconds."""
    name = "latent3d " + " ".join(Path(word).name if "/" in word else word for word in arguments)
    end = time.perf_counter() + limit
    runs: list[Run] = []
    while len(runs) <= rounds and (not runs or time.perf_counter() + runs[-1].seconds < end):
        runs.append(latent3d(arguments, end - time.perf_counter(), threads))
        if runs[-1].code < 0:
            table.note(f"`{name}` was stopped after {runs[-1].seconds:.0f} s.")
            return
        if runs[-1].code:
            raise RuntimeError(f"`{name}` failed: {runs[-1].error}")
    later = runs[1:] or runs
    stages = {stage: statistics.median(one.stages[stage] for one in later) for stage in later[0].stages}
    shown = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in stages.items()) or None
    seconds, cpu = [one.seconds for one in later], [one.cpu for one in later]
    table.add(f"`{name}`", runs[0].seconds, seconds, cpu, max(one.peak_mb for one in runs), shown)


def object_weights(asked: str) -> str | None:
    """The weights for `latent3d object`, or None where they do not come with the package."""
    if Path(asked).is_dir():
        return asked
    try:
        find_shipped(asked)
    except FileNotFoundError:
        return None
    return asked


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = bench_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs after the first one")
    parser.add_argument("--limit", type=float, default=60.0, help="most seconds for a command with all its runs")
    parser.add_argument("--image", type=Path, default=ROOT / "examples" / "room.jpg")
    parser.add_argument("--objects", default=OBJECTS, help="weights for latent3d object")
    options = parser.parse_args(arguments)
    columns = ("command", "first run, s", "s", "processor s", "peak MB", "stages, s")
    with Report("End to end", options) as report:
        table = report.table("End to end: commands", *columns)

        def add(*words: str) -> None:
            measure(table, words, options.rounds, options.limit, options.threads)

        add("--version")
        add("scene", str(options.image.resolve()))
        weights = object_weights(options.objects)
        if weights is None:
            table.note(f"`latent3d object` was not run: no weights named {options.objects} come with this version.")
        else:
            add("object", "--weights", weights)


if __name__ == "__main__":
    main()
