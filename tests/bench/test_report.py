"""The report of all benchmarks: time limits, what a stopped part leaves, and processes that are timed."""

from __future__ import annotations

import json
import sys

import report
from end_to_end import Table, latent3d, measure, run
from report import PARTS, Part, Result, run_all, run_part
from tables import Spread

SCRIPT = """
import sys, time
sys.path.insert(0, {bench!r})
from tables import Report, bench_parser
parser = bench_parser("fake")
parser.add_argument("--sleep", type=float, default=0)
options = parser.parse_args()
with Report("Fake", options) as report:
    table = report.table("Times", "case", "ms")
    table.add("first", [2.0, 1.0, 3.0])
    time.sleep(options.sleep)
    if options.sleep == 0:
        table.add("second", 5.0)
    else:
        raise SystemExit("no")
"""


def script(tmp_path):
    file = tmp_path / "fake.py"
    file.write_text(SCRIPT.format(bench=str(report.BENCH)))
    return file


def test_parts_fit_into_ten_minutes_and_their_scripts_exist():
    assert sum(part.share for part in PARTS) == 600
    assert all((report.BENCH / part.file).is_file() for part in PARTS)


def test_the_report_has_the_rows_of_all_parts_and_names_those_without_time(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "BENCH", script(tmp_path).parent)
    # Read by the parts' own interpreter; the folder of `tables` is in the script.
    parts = [Part("one", "One", "fake.py", share=100), Part("two", "Two", "fake.py", share=10)]
    assert run_all(parts, tmp_path / "out", seconds=200, threads=1)
    values = json.loads((tmp_path / "out" / "report.json").read_text())
    assert values["machine"]["processor"]
    assert [part["name"] for part in values["parts"]] == ["one", "two"]
    assert values["parts"][0]["tables"][0]["rows"][0]["ms"] == {"median": 2.0, "min": 1.0, "max": 3.0, "repeats": 3}
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| first | 2.00 (1.00 to 3.00) |" in text
    assert "[2/2] two" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.json", "report.md"]


def test_no_part_starts_when_no_time_is_left(tmp_path):
    assert run_all([Part("late", "Late", "missing.py")], tmp_path, seconds=0.0, threads=1)
    assert "It was not run: no time was left" in (tmp_path / "report.md").read_text()


def test_a_part_that_takes_too_long_is_stopped_and_leaves_its_rows(tmp_path):
    file = script(tmp_path)
    rows = tmp_path / "rows.json"
    command = [sys.executable, str(file), "--threads", "1", "--json", str(rows), "--sleep", "600"]
    limit = 2.0
    while True:  # a busy machine takes long to start
        result = run_part(Part("slow", "Slow", "fake.py"), command, rows, limit)
        if result.tables:
            break
        limit *= 2
    assert "was stopped after" in result.outcome
    assert not result.failed
    assert result.tables[0].rows == [("first", Spread(2.0, 1.0, 3.0, 3))]


def test_a_part_that_fails_is_reported_as_such(tmp_path):
    rows = tmp_path / "rows.json"
    command = [sys.executable, str(script(tmp_path)), "--threads", "1", "--json", str(rows), "--sleep", "0.01"]
    result = run_part(Part("bad", "Bad", "fake.py"), command, rows, 100)
    assert isinstance(result, Result)
    assert result.failed
    assert "exit code 1" in result.outcome
    assert len(result.tables[0].rows) == 1


def test_a_process_is_measured_and_a_long_one_is_stopped():
    work = "import time; block = bytearray(80_000_000); time.sleep(0.2)"
    done = run([sys.executable, "-c", work], limit=100, threads=1)
    assert done.code == 0
    assert done.seconds >= 0.2
    assert done.peak_mb > 76
    assert run([sys.executable, "-c", "import time; time.sleep(600)"], limit=0.3, threads=1).code < 0
    failed = run([sys.executable, "-c", "raise SystemExit('what went wrong')"], limit=100, threads=1)
    assert (failed.code, failed.error) == (1, "what went wrong")


def test_commands_are_run_as_users_run_them(capsys):
    table = Table("Commands", ("command", "first", "s", "cpu", "MB", "stages"))
    measure(table, ["--version"], rounds=1, limit=100, threads=1)
    assert table.rows[0][0] == "`latent3d --version`"
    assert isinstance(table.rows[0][2], Spread)
    assert latent3d(["scene", "nowhere.jpg"], limit=100, threads=1).code == 2
