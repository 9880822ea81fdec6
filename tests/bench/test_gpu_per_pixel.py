"""Renderers of the GPU benchmark under Triton's interpreter (which decides at import: another process)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, sys
sys.path[:0] = sys.argv[1:]
import gpu_per_pixel
import torch
from gpu_contests import GRAPH, blending, on_screen, whole_call
from gpu_rasteriser import relative_error, truth_of, values
from rasteriser import Case, cloud
from latent3d.rendering import splats_reference
from tests.rendering.scenes import cloud as small_cloud
from tests.rendering.scenes import clear_of_thresholds, relative_errors, ring_cameras, values_and_gradients

gpu_per_pixel.CHUNK = 4  # the interpreter is slow: six values in two launches
cameras = ring_cameras(2, 5, 19)
opaque = {"count": 10, "channels": 2, "colors": False, "sigma": 4.0, "opacity_bias": 6.0}
results = {}
for name, options in {"sparse": {"count": 8, "channels": 2, "sigma": 2.0}, "opaque": opaque}.items():
    gaussians = clear_of_thresholds(small_cloud(cameras=cameras, **options), cameras)
    truth = values_and_gradients(gaussians, cameras, "reference")
    theirs, splats_reference.blend = splats_reference.blend, gpu_per_pixel.blend
    found = values_and_gradients(gaussians.to(torch.float32), cameras.to(torch.float32), "reference")
    splats_reference.blend = theirs
    results[name] = relative_errors(found, truth) | {"least transmittance": 1 - float(truth["alpha"].max())}

gaussians, cameras = cloud(Case.parse("12,11x7,2,2"))
whole = whole_call(gaussians, cameras, entries=60, triton=True)
part = blending(gaussians, cameras, on_screen(gaussians, cameras), triton=True)
for title, contest, names in (
    ("whole", whole, ("triton ieee", "triton bf16", GRAPH)),
    ("blending", part, ("triton ieee", "triton bf16", "per-pixel")),
):
    _, truth = truth_of(contest)
    for name in names:
        found = values(contest.renderers[name], contest.leaves)
        results[f"{title}, {name}"] = max(relative_error(f, t) for f, t in zip(found, truth))
results["names"] = [list(contest.renderers) for contest in (whole, part)]
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def found() -> dict:
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(ROOT / "bench"), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("scene", "tolerance"), [("sparse", 5e-5), ("opaque", 5e-4)])
def test_the_per_pixel_scheme_computes_what_the_reference_does(found, scene, tolerance):
    """Opaque pixels cost digits, because the transmittance behind them is recovered from alpha, as in gsplat."""
    errors = dict(found[scene])
    assert (errors.pop("least transmittance") < 1e-3) == (scene == "opaque")
    assert {"features", "depth", "alpha", "d_means", "d_quaternions", "d_opacities", "d_features"} <= errors.keys()
    assert max(errors.values()) < tolerance, errors


def test_all_renderers_of_the_contests_agree_with_the_truth(found):
    whole, part = found["names"]
    assert whole[:4] == ["triton tf32", "triton ieee", "triton bf16", "triton tf32, CUDA graph"]
    assert part == ["triton tf32", "triton ieee", "triton bf16", "per-pixel", "torch"]
    for name in (
        "whole, triton ieee",
        "whole, triton tf32, CUDA graph",
        "blending, triton ieee",
        "blending, per-pixel",
    ):
        assert 0 < found[name] < 2e-5, name
    for name in ("whole, triton bf16", "blending, triton bf16"):
        assert 1e-4 < found[name] < 1e-2, name
