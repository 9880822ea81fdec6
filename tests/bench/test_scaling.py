"""How cost grows: exponents that are known, and one small axis measured and drawn."""

from __future__ import annotations

import pytest
import scaling
from scaling import Axis, Curve, denoising, draw, fitted_exponent, measure, splatting
from tables import Report, bench_parser

from latent3d.denoisers.multiview_transformer import MultiViewTransformer
from latent3d.rendering.splats import render_gaussians


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.7, 2.0])
def test_the_exponent_of_a_power_law_is_found(exponent):
    sizes = [3, 1, 10, 100, 31, 1000]
    assert fitted_exponent(sizes, [0.7 * size**exponent for size in sizes]) == pytest.approx(exponent, abs=1e-12)


def test_fixed_costs_at_small_sizes_do_not_hide_the_exponent():
    sizes = [4**power for power in range(8)]
    assert fitted_exponent(sizes, [100 + size**1.5 for size in sizes]) == pytest.approx(1.5, abs=0.15)
    assert fitted_exponent(sizes, [1e9] * 4 + [size**2 for size in sizes[4:]]) == pytest.approx(2)


@pytest.mark.parametrize(("sizes", "costs"), [([1, 2], [1, 2]), ([1, 2, 3], [1, 0, 2]), ([1, 2, 3], [1, 2])])
def test_what_has_no_exponent_is_refused(sizes, costs):
    with pytest.raises(ValueError, match="three sizes with positive costs"):
        fitted_exponent(sizes, costs)


def test_an_axis_is_measured_and_drawn(tmp_path):
    options = bench_parser("about", threads=1).parse_args(["--clock", "cpu"])
    axis = Axis("splats", (16, 64, 256), {"splatting": lambda n: splatting(splats=n, pixels=64)})
    report = Report("Growth", options)
    (curve,) = measure(report, axis, seconds=0.0)
    assert curve.sizes == axis.sizes
    assert min(curve.ms) > 0
    assert [row[0] for row in report.tables[0].rows] == [16, 64, 256]
    assert f"splats^{curve.exponent:.2f}" in report.tables[0].notes[0]
    pytest.importorskip("matplotlib")
    more = Curve("views", "splatting", (1, 2, 4), (1.0, 2.0, 4.0))
    draw([curve, more, Curve("views", "another", (1, 2, 4), (1.0, 4.0, 16.0))], tmp_path / "plot.png", "title")
    content = (tmp_path / "plot.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) < 150_000


def test_every_number_can_change_alone(monkeypatch):
    seen = []

    def watched(gaussians, cameras):
        out = render_gaussians(gaussians, cameras)
        seen.append((len(gaussians), *out.features.shape))
        return out

    monkeypatch.setattr(scaling, "render_gaussians", watched)
    for sizes in ({}, {"pixels": 64}, {"channels": 5}, {"views": 2}):
        splatting(**({"splats": 8, "pixels": 16} | sizes))()
    views, channels = scaling.VIEWS, scaling.CHANNELS
    assert seen == [(8, views, channels, 4, 4), (8, views, channels, 8, 8), (8, views, 5, 4, 4), (8, 2, channels, 4, 4)]


def test_the_denoiser_takes_any_number_of_frames(monkeypatch):
    seen = []
    velocity = MultiViewTransformer.velocity

    def watched(self, features):
        out = velocity(self, features)
        seen.append(out.shape[1])
        return out

    monkeypatch.setattr(MultiViewTransformer, "velocity", watched)
    denoising("transformer", 2)()
    denoising("transformer", 3)()
    assert seen == [2, 3]
