"""The C++ rasteriser of the benchmarks against the all-pairs oracle in float64: values and all gradients."""

from dataclasses import fields, replace

import pytest
import splats_cpp
import torch

from latent3d.geometry.cameras import Cameras
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians
from tests.rendering.scenes import clear_of_thresholds, cloud, relative_errors, ring_cameras

BOUND = 1e-5
NAMES = tuple(field.name for field in fields(splats_cpp.Gradients))


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    reason = splats_cpp.missing()
    if reason is not None:
        pytest.skip(reason)


def _incoming(outputs) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return [torch.randn(value.shape, generator=g) for value in outputs]


def _truth(gaussians: Gaussians, cameras: Cameras, **options) -> dict[str, torch.Tensor]:
    """Outputs and gradients of the oracle in float64."""
    leaves = {name: getattr(gaussians, name).double().requires_grad_() for name in NAMES}
    seen = render_gaussians(Gaussians(**leaves), cameras.to(torch.float64), backend="reference", **options)
    outputs = {"features": seen.features, "depth": seen.depth, "alpha": seen.alpha}
    incoming = [value.double() for value in _incoming(outputs.values())]
    gradients = torch.autograd.grad(list(outputs.values()), list(leaves.values()), incoming)
    names = [f"d_{name}" for name in NAMES]
    return {name: value.detach() for name, value in outputs.items()} | dict(zip(names, gradients, strict=True))


def _found(gaussians: Gaussians, cameras: Cameras, threads: int, **options) -> dict[str, torch.Tensor]:
    seen = splats_cpp.render(gaussians, cameras, threads=threads, **options)
    outputs = {"features": seen.features, "depth": seen.depth, "alpha": seen.alpha}
    gradients = seen.backward(*_incoming(outputs.values()))
    return outputs | {f"d_{name}": getattr(gradients, name) for name in NAMES}


@pytest.mark.parametrize("channels", [1, 3, 16, 130, 320])
@pytest.mark.parametrize("threads", [1, 3])
def test_values_and_gradients_agree_with_the_oracle(channels, threads):
    cameras = ring_cameras(2, 35, 40)  # not divisible by the tile's side
    gaussians = clear_of_thresholds(cloud(250, cameras, colors=False, channels=channels), cameras)
    gaussians, cameras = gaussians.to(torch.float32), cameras.to(torch.float32)
    errors = relative_errors(_found(gaussians, cameras, threads), _truth(gaussians, cameras))
    assert max(errors.values()) <= BOUND, errors


@pytest.mark.parametrize(
    ("scene", "options"),
    [
        ({"sigma": 5.0, "opacity_bias": 5.0}, {}),  # saturated pixels
        ({"sigma": 0.1}, {"low_pass": 0.1}),
        ({"spread": 0.15, "sigma": 0.7}, {}),  # empty tiles
    ],
)
def test_hard_scenes_agree_with_the_oracle(scene, options):
    cameras = ring_cameras(2, 35, 40)
    gaussians = clear_of_thresholds(cloud(250, cameras, colors=False, channels=3, **scene), cameras, **options)
    gaussians, cameras = gaussians.to(torch.float32), cameras.to(torch.float32)
    errors = relative_errors(_found(gaussians, cameras, 2, **options), _truth(gaussians, cameras, **options))
    assert max(errors.values()) <= BOUND, errors


def test_splats_behind_and_beside_the_camera_are_left_out():
    cameras = ring_cameras(2, 20, 24, distance=0.9)
    gaussians = clear_of_thresholds(cloud(150, cameras, colors=False, sigma=1.0), cameras, near=0.4)
    gaussians, cameras = gaussians.to(torch.float32), cameras.to(torch.float32)
    errors = relative_errors(_found(gaussians, cameras, 1, near=0.4), _truth(gaussians, cameras, near=0.4))
    assert max(errors.values()) <= BOUND, errors


def test_equal_depths_keep_the_input_order():
    """A plane of splats at one depth, seen head on: the same picture as the oracle's, and another when reversed."""
    cameras = ring_cameras(1, 33, 33).to(torch.float32)
    cameras = replace(cameras, w2c=torch.eye(4)[None])
    gaussians = cloud(60, cameras, colors=False, channels=2, sigma=3.0).to(torch.float32)
    gaussians = replace(gaussians, means=torch.cat([gaussians.means[:, :2], torch.full((60, 1), 3.0)], -1))
    seen = splats_cpp.render(gaussians, cameras, threads=2)
    truth = render_gaussians(gaussians, cameras, backend="reference")
    torch.testing.assert_close(seen.features, truth.features, rtol=1e-4, atol=1e-4)
    turned = splats_cpp.render(gaussians[torch.arange(59, -1, -1)], cameras, threads=2)
    assert (turned.features - seen.features).abs().max() > 0.1


def test_no_splats_show_nothing():
    cameras = ring_cameras(2, 9, 20).to(torch.float32)
    gaussians = cloud(5, cameras, colors=False).to(torch.float32)[torch.zeros(0, dtype=torch.long)]
    seen = splats_cpp.render(gaussians, cameras)
    assert not seen.features.any()
    assert not seen.alpha.any()
    assert seen.backward(*_incoming((seen.features, seen.depth, seen.alpha))).means.shape == (0, 3)


def test_a_machine_without_compiler_is_told_so(monkeypatch):
    monkeypatch.setattr(splats_cpp, "compiler", lambda: None)
    splats_cpp.library.cache_clear()
    assert "install g++" in splats_cpp.missing()
    monkeypatch.undo()
    splats_cpp.library.cache_clear()
    assert splats_cpp.missing() is None


def test_a_compiler_that_fails_is_quoted(monkeypatch, tmp_path):
    monkeypatch.setattr(splats_cpp, "FLAGS", ("-fno-such-option",))
    monkeypatch.setattr(splats_cpp, "_folder", lambda: tmp_path)
    splats_cpp.library.cache_clear()
    assert "no-such-option" in splats_cpp.missing()
    splats_cpp.library.cache_clear()


def test_a_folder_of_others_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setattr(splats_cpp.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = splats_cpp._folder()
    folder.chmod(0o777)
    with pytest.raises(splats_cpp.CompilerMissingError, match="open to other users"):
        splats_cpp._folder()
