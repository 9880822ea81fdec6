"""Tables of the benchmarks: numbers, spread, Markdown, JSON there and back, and timing in turns."""

from __future__ import annotations

import json
import math

import pytest
from tables import MIN_ROUNDS, Report, Spread, Table, bench_parser, interleaved, machine, number, ratio, read_json


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (3.14159, "3.14"), (31.4159, "31.4"), (314.159, "314"), (31415.9, "31416"), (0.0123456, "0.0123"),
     (9.999, "10.00"), (2e-5, "2e-05"), (-2.5, "-2.50"), (math.nan, "-")],
)  # fmt: skip
def test_numbers_have_three_digits(value, shown):
    assert number(value) == shown


def test_spread_of_known_values():
    spread = Spread.of([5.0, 1.0, 2.0, 40.0])
    assert spread == Spread(3.5, 1.0, 40.0, 4)
    assert str(spread) == "3.50 (1.00 to 40.0)"
    assert str(Spread.of([7.0])) == "7.00"


def test_ratio_is_taken_round_by_round():
    """The machine was ten times slower in the last round; the ratio does not see it."""
    assert ratio([2.0, 4.0, 30.0], [1.0, 2.0, 15.0]) == 2.0


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="2 columns, but the row has 1"):
        Table("t", ("a", "b")).add(1)


def test_a_report_prints_rows_at_once_and_its_json_gives_the_tables_back(tmp_path, capsys):
    file = tmp_path / "new" / "report.json"
    options = bench_parser("about", threads=1).parse_args(["--json", str(file)])
    with Report("Some figures", options, gpu="none") as report:
        table = report.table("Speed", "case", "ms", "ratio")
        table.add("a|b", [3.0, 1.0, 2.0], math.nan)
        assert "| a\\|b | 2.00 (1.00 to 3.00) | - |" in capsys.readouterr().out
        assert len(read_json(file)[2][0].rows) == 1  # what is there survives a stop
        table.add("not run", None, 2)
        table.note("The second was too large.")
    title, about, (read,) = read_json(file)
    assert (title, about["gpu"], about["threads"]) == ("Some figures", "none", 1)
    assert read.rows == [("a|b", Spread(2.0, 1.0, 3.0, 3), None), ("not run", None, 2)]
    assert read.markdown() == table.markdown()
    assert "| not run | - | 2 |" in read.markdown()
    assert read.markdown().rstrip().endswith("The second was too large.")
    json.loads(file.read_text())


def test_calls_take_turns_and_the_first_round_is_not_counted():
    order: list[str] = []
    times = interleaved({name: lambda n=name: order.append(n) for name in "ab"}, rounds=9, seconds=60)
    rounds = ["".join(order[i : i + 2]) for i in range(0, 20, 2)]
    assert rounds[0] == "ab"
    assert set(rounds[1:]) == {"ab", "ba"}
    assert {name: len(values) for name, values in times.items()} == {"a": 9, "b": 9}


def test_time_that_is_used_up_still_gives_the_least_number_of_rounds():
    times = interleaved({"a": lambda: None}, "cpu", rounds=50, seconds=0.0)
    assert len(times["a"]) == MIN_ROUNDS


def test_the_machine_is_described_without_its_name():
    import platform

    about = machine(2)
    assert about["processor"]
    assert about["torch"]
    assert platform.node() not in json.dumps(about).split('"')
