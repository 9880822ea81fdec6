"""Every back end against the float64 oracle: values and all gradients."""

import pytest
import torch

from latent3d.geometry.cameras import Cameras
from latent3d.representations.gaussians import Gaussians

from .scenes import BACKENDS, clear_of_thresholds, cloud, relative_errors, ring_cameras, values_and_gradients

BOUNDS = {torch.float64: 1e-9, torch.float32: 1e-5}


def _scene(name: str) -> tuple[Gaussians, Cameras, dict]:
    cameras = ring_cameras(2, 35, 40)  # not divisible by 8 or 16
    match name:
        case "random":
            return cloud(300, cameras), cameras, {}
        case "saturated":
            return cloud(300, cameras, sigma=5.0, opacity_bias=5.0), cameras, {}
        case "sub-pixel":
            return cloud(400, cameras, sigma=0.1), cameras, {"low_pass": 0.1}
        case "empty tiles":
            return cloud(60, cameras, spread=0.15, sigma=0.7), cameras, {}
        case "one splat":
            return cloud(1, cameras), cameras, {}
        case "one channel":
            return cloud(100, cameras, colors=False, channels=1), cameras, {}
        case "64 channels":
            return cloud(100, cameras, colors=False, channels=64), cameras, {}
        case "130 channels":
            return cloud(100, cameras, channels=127), cameras, {}
        case "colours only":
            return cloud(100, cameras, channels=0), cameras, {}
        case "harmonics":
            return cloud(100, cameras, channels=3, harmonics=15), cameras, {}
        case "harmonics and many channels":
            return cloud(100, cameras, channels=9, harmonics=3), cameras, {}
        case "anti-aliased":
            return cloud(300, cameras, sigma=0.4), cameras, {"antialiased": True}
        case "background":
            return cloud(60, cameras), cameras, {"background": torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)}
        case "small image":
            small = ring_cameras(5, 3, 5)
            return cloud(50, small, spread=0.5), small, {"low_pass": 0.1}
        case "near plane":
            near = ring_cameras(2, 20, 24, distance=0.9)  # splats behind the cameras, at the plane and beside the image
            return cloud(150, near, sigma=1.0), near, {"near": 0.4}
    raise AssertionError(name)


SCENES = (
    "random", "saturated", "sub-pixel", "empty tiles", "one splat", "one channel", "64 channels", "130 channels",
    "colours only", "harmonics", "harmonics and many channels", "anti-aliased", "background", "small image",
    "near plane",
)  # fmt: skip


@pytest.mark.parametrize("name", SCENES)
def test_values_and_gradients_agree_with_the_oracle(name):
    gaussians, cameras, options = _scene(name)
    gaussians = clear_of_thresholds(gaussians, cameras, **{k: v for k, v in options.items() if k != "background"})
    for dtype, bound in BOUNDS.items():
        rounded, views = gaussians.to(dtype), cameras.to(dtype)
        truth = values_and_gradients(rounded.to(torch.float64), views.to(torch.float64), "reference", **options)
        for backend in BACKENDS:
            found = values_and_gradients(rounded, views, backend, **options)
            errors = relative_errors(found, truth)
            assert max(errors.values()) <= bound, (backend, dtype, errors)
            assert all(tensor.dtype == dtype for tensor in found.values())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("antialiased", [False, True])
def test_gradients_reach_the_cameras(backend, antialiased):
    cameras = ring_cameras(3, 18, 33)
    gaussians = clear_of_thresholds(cloud(120, cameras, harmonics=3), cameras, antialiased=antialiased)
    for dtype, bound in BOUNDS.items():
        options = {"camera_gradients": True, "antialiased": antialiased}
        rounded, views = gaussians.to(dtype), cameras.to(dtype)
        truth = values_and_gradients(rounded.to(torch.float64), views.to(torch.float64), "reference", **options)
        errors = relative_errors(values_and_gradients(rounded, views, backend, **options), truth)
        assert {"d_w2c", "d_k"} <= errors.keys()
        assert max(errors.values()) <= bound, (dtype, errors)


def test_all_views_in_one_call_are_the_views_one_by_one():
    cameras = ring_cameras(4, 20, 20)
    gaussians = cloud(100, cameras, channels=12)
    for backend in (*BACKENDS, "reference"):
        together = values_and_gradients(gaussians, cameras, backend)
        for view in range(4):
            alone = values_and_gradients(gaussians, cameras[view : view + 1], backend)
            for name in ("rgb", "features", "depth", "alpha"):
                torch.testing.assert_close(together[name][view], alone[name][0], rtol=1e-12, atol=1e-12)
