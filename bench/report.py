"""All benchmarks of the CPU one after the other, as one report: report.md, report.json and growth of cost as a picture.

    python bench/report.py [--out out/bench] [--minutes 10] [--threads 2] [--only NAME ...]

Every part is a script of its own with a share of the time; what the parts before it have not used is added. One that
does not end in time is stopped, and the report has the rows that it had until then.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tables import Table, described, machine, read_json

BENCH = Path(__file__).resolve().parent
LEAST = 1.0
"""Seconds below which a part is not started."""


@dataclass(frozen=True)
class Part:
    """A script and what it may take.

    Attributes:
        name: for the options and the progress lines.
        title: heading in the report.
        arguments: of the script ``file`` in this folder; "OUT" stands for the report's folder.
        share: seconds of ten minutes; it may take this share of the time that is left for it and the parts behind it.
        picture: file that it writes into the report's folder.
    """

    name: str
    title: str
    file: str
    arguments: tuple[str, ...] = ()
    share: float = 60.0
    picture: str | None = None


PARTS = (
    Part("end-to-end", "End to end", "end_to_end.py", ("--limit", "45"), share=100),
    Part("splats", "Splatting", "rasteriser.py", share=190),
    Part("volume", "Tri-planes: sampling and volume rendering", "volume.py", share=40),
    Part("meshes", "Meshes", "meshes.py", share=25),
    Part("denoisers", "Denoisers of scenes", "denoisers.py", share=30),
    Part("growth", "How cost grows", "scaling.py", ("--picture", "OUT/scaling.png"), share=75, picture="scaling.png"),
    Part("objects-denoiser", "Denoiser of objects", "denoisers_plane.py", share=70),
    Part("objects-decoder", "Decoder of objects", "triplane_decoder.py", share=70),
)


TITLE = "Benchmarks of latent3d on the CPU"


@dataclass
class Result:
    """What became of a part.

    Attributes:
        outcome: "done", or a sentence that says why not.
        failed: whether it ended with an error.
    """

    part: Part
    outcome: str
    seconds: float = 0.0
    load_average: list[float] | None = None
    tables: list[Table] = field(default_factory=list)
    failed: bool = False


def run_part(part: Part, command: Sequence[str], json_file: Path, limit: float) -> Result:
    """Run a part's command, which writes its tables to ``json_file``, for at most ``limit`` seconds."""
    json_file.unlink(missing_ok=True)
    start = time.monotonic()
    process = subprocess.Popen(command, start_new_session=True)
    outcome, failed = "done", False
    try:
        if process.wait(limit) != 0:
            outcome, failed = f"It ended with an error (exit code {process.returncode}).", True
    except subprocess.TimeoutExpired:
        outcome = f"It was stopped after {limit:.0f} s; the rows are those until then."
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # with what it has started
            process.wait()
    seconds = time.monotonic() - start
    if not json_file.is_file():
        return Result(part, outcome, seconds, failed=failed)
    _, about, tables = read_json(json_file)
    json_file.unlink()
    return Result(part, outcome, seconds, about["load_average"], tables, failed)


def report_markdown(about: dict[str, Any], results: Sequence[Result], seconds: float, out: Path, title: str) -> str:
    """The whole report."""
    lines = [f"# {title}", "", f"{described(about)}.", ""]
    lines += [
        f"Took {seconds:.0f} s. Repeated measurements are given as their median (smallest to largest); the first, "
        "which may compile, is not counted. Things that are compared took turns. The load before every part was "
        + ", ".join(f"{r.part.name} {r.load_average[0]:.1f}" for r in results if r.load_average)
        + "; above half a core the figures are those of a busy machine.",
        "",
    ]
    for result in results:
        if result.outcome != "done":
            lines += [f"## {result.part.title}", "", result.outcome, ""]
        lines += [table.markdown() for table in result.tables]
        if result.part.picture and (out / result.part.picture).is_file():
            lines += [f"![{result.part.title}]({result.part.picture})", ""]
    return "\n".join(lines)


def write(out: Path, about: dict[str, Any], results: Sequence[Result], seconds: float, title: str) -> None:
    """Write both files."""
    parts = [
        {
            **asdict(result.part),
            "outcome": result.outcome,
            "seconds": round(result.seconds, 1),
            "load_average": result.load_average,
            "tables": [table.as_dict() for table in result.tables],
        }
        for result in results
    ]
    values = {"title": title, "machine": about, "seconds": round(seconds, 1), "parts": parts}
    (out / "report.json").write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (out / "report.md").write_text(report_markdown(about, results, seconds, out, title), encoding="utf-8")


def minutes(seconds: float) -> str:
    """``3 min 20 s``."""
    whole = max(0, round(seconds))
    return f"{whole // 60} min {whole % 60} s"


def run_all(parts: Sequence[Part], out: Path, seconds: float, threads: int, title: str = TITLE, **more: Any) -> bool:
    """Run the parts within ``seconds`` and write the report after each; whether none failed.

    ``more`` joins the description of the machine.
    """
    out.mkdir(parents=True, exist_ok=True)
    about, results, start = machine(threads) | more, [], time.monotonic()
    for index, part in enumerate(parts):
        left = seconds - (time.monotonic() - start)
        limit = left * part.share / sum(each.share for each in parts[index:])
        print(f"\n[{index + 1}/{len(parts)}] {part.name}: at most {minutes(limit)}; all at most {minutes(left)} more\n")
        sys.stdout.flush()
        if limit < LEAST:
            results.append(Result(part, "It was not run: no time was left; give more with --minutes."))
            continue
        own = [argument.replace("OUT", str(out)) for argument in part.arguments]
        json_file = out / f"{part.name}.json"
        command = [sys.executable, str(BENCH / part.file), "--threads", str(threads), "--json", str(json_file), *own]
        results.append(run_part(part, command, json_file, limit))
        write(out, about, results, time.monotonic() - start, title)
    write(out, about, results, time.monotonic() - start, title)
    print(f"\nTook {minutes(time.monotonic() - start)}; the report is {out / 'report.md'}", flush=True)
    return not any(result.failed for result in results)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the options ask for."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    parser.add_argument("--minutes", type=float, default=10.0, help="for everything")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"some of {', '.join(names)}")
    options = parser.parse_args(arguments)
    parts = [part for part in PARTS if options.only is None or part.name in options.only]
    return 0 if run_all(parts, options.out, 60 * options.minutes, options.threads) else 1


if __name__ == "__main__":
    raise SystemExit(main())
