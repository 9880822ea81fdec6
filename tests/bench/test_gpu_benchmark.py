"""The GPU benchmark as far as a machine without a GPU goes: its counts, its tables from given times, its refusal."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import gpu_networks
import gpu_rasteriser
import gpu_report
import gpu_timing
import pytest
import tables
import torch
from gpu_contests import GEOMETRY, Contest, Work, blending, on_screen, whole_call, work
from gpu_rasteriser import COLUMNS, HEAD, Result, add_rows, compete, relative_error, truth_of, values
from rasteriser import Case, cloud
from tables import Report, Table

from latent3d.rendering import splats_reference
from tests.rendering.scenes import front_camera, splats_on_axis

SMALL = Case.parse("60,20x12,3,2")


class Ticks:
    """A clock on which every look takes a quarter of a second."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 0.25
        return self.seconds


@pytest.fixture
def report(monkeypatch, tmp_path):
    monkeypatch.setitem(tables.CLOCKS, gpu_timing.CLOCK, Ticks())
    options = argparse.Namespace(threads=1, json=tmp_path / "gpu.json", clock=gpu_timing.CLOCK)
    return Report("GPU", options, gpu="none")


@pytest.mark.parametrize("module", [gpu_report, gpu_rasteriser, gpu_networks])
def test_without_a_gpu_one_sentence_and_exit_code_2(module, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        module.main([])
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "needs an NVIDIA GPU" in err
    assert err.count("\n") == 1


def test_work_of_two_splats_on_the_axis_is_counted_by_hand():
    """An opaque small splat in front, one behind it that covers the picture of two by two tiles."""
    cameras = front_camera(size=15, focal=20.0, dtype=torch.float32)
    gaussians = splats_on_axis([2.0, 4.0], [0.6, 0.9], dtype=torch.float32)
    gaussians = replace(gaussians, scales=torch.tensor([[0.01] * 3, [20.0] * 3]))
    projected = on_screen(gaussians, cameras)
    done = work(projected, 5, 15, 15)
    alphas = splats_reference.blend(projected, torch.ones(1, 2, 1), 15, 15)[2]
    near = splats_reference.blend(on_screen(gaussians[:1], cameras), torch.ones(1, 1, 1), 15, 15)[2]
    assert float(alphas.min()) > 0.8
    assert done.entries == done.blended == 8  # the pixel in the middle belongs to one tile, its neighbours to all four
    assert done.pairs == 15 * 15 + int((near > 0).sum())
    assert done.flop == 6 * 64 * 5 * 8
    assert done.bytes == 4 * (3 * 2 * (GEOMETRY + 5) + 2 * 15 * 15 * (5 + 2))


def test_what_lies_behind_opaque_tiles_is_not_blended():
    cameras = front_camera(size=15, focal=20.0, dtype=torch.float32)
    gaussians = splats_on_axis([2.0, 2.5, 3.0, 4.0], [1.0, 1.0, 1.0, 0.5], scale=30.0, dtype=torch.float32)
    done = work(on_screen(gaussians, cameras), 1, 15, 15)
    assert done.entries == 4 * 4
    assert done.blended == 4  # 0.99 ends a pixel at the second: 0.01^2 is not above the least transmittance


def test_both_contests_render_the_same_scene(report):
    gaussians, cameras = cloud(SMALL)
    projected = on_screen(gaussians, cameras)
    whole = whole_call(gaussians, cameras, entries=100, triton=False)
    part = blending(gaussians, cameras, projected, triton=False)
    assert set(whole.renderers) <= {"torch", "gsplat"}
    assert set(part.renderers) == {"torch"}
    pictures = [values(contest.truth, contest.leaves)[0] for contest in (whole, part)]
    for a, b in zip(*pictures, strict=True):
        torch.testing.assert_close(a, b)
    dtype, results = compete(part, report, rounds=3, seconds=0, device="cpu")
    assert dtype == "float64"
    assert 0 < results["torch"].error < 1e-5
    assert 0 < results["torch"].gradient_error < 1e-4
    assert results["torch"].peak_mb is None
    assert results["torch"].forward == results["torch"].both == [250.0] * 3


def test_the_truth_falls_back_to_float32_and_failures_are_named(report):
    gaussians, cameras = cloud(SMALL)
    whole = whole_call(gaussians, cameras, entries=100, triton=False)

    def small_memory(leaves):
        if leaves[0].dtype == torch.float64:
            raise torch.OutOfMemoryError("too large")
        return whole.truth(leaves)

    def broken(leaves):
        raise RuntimeError("no kernel image\nsecond line")

    contest = Contest(whole.leaves, small_memory, {"broken": broken, "torch": whole.truth})
    assert truth_of(contest)[0] == "float32"
    dtype, results = compete(contest, report, rounds=1, seconds=0, device="cpu")
    assert dtype == "float32"
    assert results["broken"] == Result(obstacle="RuntimeError: no kernel image")
    assert results["torch"].error == 0


def test_rows_from_given_times(capsys):
    table = Table("Blending", (*HEAD, *COLUMNS))
    results = {
        "triton tf32": Result([1.0, 2.0, 1.0], [4.0, 5.0, 4.0], 3e-4, 5e-4, 10.0),
        "per-pixel": Result([2.0, 8.0, 3.0], [20.0, 25.0, 16.0], 1e-6, 2e-6, 20.0),
        "triton bf16": Result(obstacle="OutOfMemoryError: too large"),
    }
    add_rows(table, ("cloud", 7, "8x8", 3, 1), results, Work(30, 20, 1_500_000, 4e9, 8e9), "float64")
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert rows[0]["forward, ms"].median == 1.0
    assert rows[0]["GB/s, f + b"].median == 1000.0
    assert rows[0]["TFLOP/s, f + b"].median == 2.0
    assert rows[0]["times as fast, forward"] == 3.0
    assert rows[0]["times as fast, forward + backward"] == 5.0
    assert (rows[0]["error"], rows[0]["error of gradients"], rows[0]["peak, MB"]) == (3e-4, 5e-4, 10.0)
    assert rows[1]["times as fast, forward"] is None
    assert rows[2]["renderer"] == "triton bf16: OutOfMemoryError: too large"
    assert rows[2]["forward, ms"] is None
    assert "compared with per-pixel, truth in float64; 30 pairs" in table.notes[0]
    assert "1.50 M pairs" in table.notes[0]
    assert "| cloud | 7 | 8x8 | 3 | 1 | triton tf32 | 1.00 (1.00 to 2.00) |" in capsys.readouterr().out


def test_a_contest_that_nobody_finishes_has_rows_all_the_same():
    table = Table("Blending", (*HEAD, *COLUMNS))
    add_rows(table, ("cloud", 7, "8x8", 3, 1), {"torch": Result(obstacle="X: y")}, Work(3, 2, 1, 4.0, 8.0), "float64")
    assert "compared with nothing" in table.notes[0]


def test_relative_errors_are_the_largest_of_all_tensors():
    truth = [torch.tensor([3.0, 4.0]), torch.zeros(2)]
    assert relative_error([torch.tensor([3.0, 4.5]), torch.zeros(2)], truth) == pytest.approx(0.1)


def test_limits_and_a_scene_reach_the_file(report):
    gpu_timing.limits(report, "cpu", side=8, count=1 << 20)
    options = argparse.Namespace(case=["40,10,2,1"], garden=Path("none"), rounds=3, seconds=0.0)
    gpu_rasteriser.measure(report, options, "whole", "cpu", triton=False)
    report.write()
    copy, *products = json.loads(report.file.read_text())["tables"][0]["rows"]
    assert copy["GB/s"]["median"] == pytest.approx(2 * (1 << 20) / 0.25 / 1e9)
    assert [row["TFLOP/s"]["median"] for row in products] == [pytest.approx(2 * 8**3 / 0.25 / 1e12)] * 3
    row = json.loads(report.file.read_text())["tables"][1]["rows"][0]
    assert (row["splats"], row["image"], row["channels"], row["renderer"]) == (40, "10x10", 2, "torch")
    assert row["forward, ms"] == {"median": 250.0, "min": 250.0, "max": 250.0, "repeats": 3}


def test_cases_are_those_of_the_specification():
    cases = gpu_rasteriser.CASES
    assert {case.channels for case in cases} == {3, 32, 128, 320}
    assert Case(500_000, 1080, 1920, 320, 1) in cases
    assert Case(4096, 64, 64, 128, 4) in cases
    assert len(set(cases)) == 20


def test_parts_exist_and_take_the_report_s_options(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(gpu_report, "need_gpu", lambda: None)
    monkeypatch.setattr(gpu_report, "describe_gpu", lambda: {"gpu": "none"})
    monkeypatch.setattr(gpu_report, "run_all", lambda *a, **more: calls.append((*a, more)) or True)
    assert gpu_report.main(["--only", "networks", "--minutes", "2", "--out", str(tmp_path)]) == 0
    parts, out, seconds, threads, title, more = calls[0]
    assert [part.name for part in parts] == ["networks"]
    assert (out, seconds, threads, title, more) == (tmp_path, 120, 2, gpu_report.TITLE, {"gpu": "none"})
    assert all((Path(gpu_report.__file__).parent / part.file).is_file() for part in gpu_report.PARTS)


def test_networks_use_the_tables_of_the_cpu_on_their_device(monkeypatch, report):
    calls = []

    def record(name):
        return lambda *arguments: calls.append((name, arguments[-1]))

    for module, name in (
        (gpu_networks.volume, "training_table"),
        (gpu_networks.volume, "inference_table"),
        (gpu_networks.denoisers_plane, "measure"),
        (gpu_networks.triplane_decoder, "measure"),
    ):
        monkeypatch.setattr(module, name, record(name))
    gpu_networks.measure(report, 1, 0.0, "cpu")
    assert calls == [(name, "cpu") for name in ("training_table", "inference_table", "measure", "measure")]
