"""The benchmark's copy of gsplat's scheme, under Triton's interpreter (which decides at import: another process)."""

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
from latent3d.rendering import splats_reference, splats_torch
from tests.rendering.scenes import cloud, clear_of_thresholds, relative_errors, ring_cameras, values_and_gradients

gpu_per_pixel.CHUNK = 4  # the interpreter is slow: six values in two launches
cameras = ring_cameras(2, 5, 19)
opaque = {"count": 10, "channels": 2, "colors": False, "sigma": 4.0, "opacity_bias": 6.0}
results = {}
for name, options in {"sparse": {"count": 8, "channels": 2, "sigma": 2.0}, "opaque": opaque}.items():
    gaussians = clear_of_thresholds(cloud(cameras=cameras, **options), cameras)
    truth = values_and_gradients(gaussians, cameras, "reference")
    theirs, splats_reference.blend = splats_reference.blend, gpu_per_pixel.blend
    found = values_and_gradients(gaussians.to(torch.float32), cameras.to(torch.float32), "reference")
    splats_reference.blend = theirs
    results[name] = relative_errors(found, truth) | {"least transmittance": 1 - float(truth["alpha"].max())}
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[str, float]]:
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(ROOT / "bench"), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("scene", "tolerance"), [("sparse", 5e-5), ("opaque", 5e-4)])
def test_values_and_gradients_are_those_of_the_reference(errors, scene, tolerance):
    """Opaque pixels cost digits, because the transmittance behind them is recovered from alpha, as in gsplat."""
    found = dict(errors[scene])
    assert (found.pop("least transmittance") < 1e-3) == (scene == "opaque")
    assert {"features", "depth", "alpha", "d_means", "d_quaternions", "d_opacities", "d_features"} <= found.keys()
    assert max(found.values()) < tolerance, found
