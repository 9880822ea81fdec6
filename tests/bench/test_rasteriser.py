"""The benchmark of splatting back ends: what it measures, and that all back ends render the same scene."""

import math

import pytest
import rasteriser
import splats_cpp
import torch
from rasteriser import CASES, Case, cloud, garden, main
from tables import read_json

from latent3d.rendering.splats import render_gaussians


def test_sizes_are_read_with_the_width_first():
    assert Case.parse("500,1920x1080,3,2") == Case(500, 1080, 1920, 3, 2)
    assert Case.parse("4096,64,64,4") == Case(4096, 64, 64, 64, 4)
    sizes = {(case.splats, case.width, case.height) for case in CASES}
    assert {(4096, 64, 64), (500_000, 1920, 1080)} <= sizes
    assert {3, 320} <= {case.channels for case in CASES}


def test_a_wide_picture_is_full_of_splats_of_about_a_pixel():
    case = Case(4000, 40, 80, 3, 2)
    gaussians, cameras = cloud(case)
    seen = render_gaussians(gaussians, cameras, backend="torch")
    for place in (slice(0, 16), slice(-16, None)):
        assert seen.alpha[0, 0, 10:30, place].mean() > 0.1
    pixels = gaussians.scales.log().mean().exp() * 0.5 * case.height / math.tan(math.radians(25)) / 3.2
    assert pixels == pytest.approx(1.0, rel=0.05)


def test_all_back_ends_are_in_both_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(rasteriser, "PAUSE", 0.0)
    file = tmp_path / "splats.json"
    before = torch.get_num_threads()
    main(["--threads", "1", "--rounds", "3", "--seconds", "0", "--json", str(file), "--case", "50,16,2,1"])
    torch.set_num_threads(before)
    title, about, (times, slower) = read_json(file)
    assert title == "Splatting on the CPU"
    assert about["threads"] == 1
    names = [row[times.columns.index("back end")] for row in times.rows]
    built = splats_cpp.missing() is None
    assert names == ["reference", "torch", "numba", *(["C++"] if built else [])]
    assert times.rows[0][:5] == ("cloud", 50, "16x16", 2, 1)
    forward, both = (times.rows[2][times.columns.index(f"{name}, ms")] for name in ("forward", "forward + backward"))
    assert forward.repeats == both.repeats == 3
    ratios = slower.rows[0][5:]
    assert all(value > 0 for value in ratios[:2])
    assert (ratios[2] is not None) == built


def test_a_machine_without_compiler_gets_the_other_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(rasteriser, "PAUSE", 0.0)
    monkeypatch.setattr(splats_cpp, "missing", lambda: "the C++ column is left out: no compiler")
    file = tmp_path / "splats.json"
    before = torch.get_num_threads()
    main(["--threads", "1", "--rounds", "3", "--seconds", "0", "--json", str(file), "--case", "50,16,2,1"])
    torch.set_num_threads(before)
    _, _, (times, slower) = read_json(file)
    assert len(times.rows) == 3
    assert "The C++ column is left out: no compiler." in times.notes
    assert slower.rows[0][-1] is None


def test_real_points_fill_their_views(shared_data):
    gaussians, cameras = garden(shared_data("garden_points_cameras/test_garden.npz"))
    assert len(gaussians) == 138_766
    assert len(cameras) == 3
    small = cameras.resized(42, 65)
    seen = render_gaussians(gaussians, small)
    assert seen.alpha.mean() > 0.5
    assert torch.isfinite(seen.features).all()
