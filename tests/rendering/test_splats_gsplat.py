"""The adapter of gsplat: its conventions against a stand-in of what gsplat documents, and against gsplat itself."""

import importlib.util
import sys
from dataclasses import replace

import pytest
import torch

from latent3d.rendering import splats, splats_gsplat
from latent3d.rendering.splats import render_gaussians

from . import fake_gsplat
from .scenes import cloud, relative_errors, ring_cameras, values_and_gradients


@pytest.fixture
def gsplat(monkeypatch):
    """The stand-in in place of gsplat, allowed to render on the CPU; the results of its calls."""
    calls = []

    def rasterization(**arguments):
        result = fake_gsplat.rasterization(**arguments)
        calls.append(arguments | result[2])
        return result

    module = fake_gsplat.module()
    module.rasterization = rasterization
    monkeypatch.setitem(sys.modules, "gsplat", module)
    monkeypatch.setattr(splats_gsplat, "check", lambda device: None)
    return calls


def scene(views: int = 2, count: int = 40, **options):
    cameras = ring_cameras(views, 14, 22).to(torch.float32)
    return cloud(count, cameras, **options).to(torch.float32), cameras


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({"channels": 2}, {}),
        ({"channels": 29}, {"background": torch.tensor([0.2, 0.5, 0.9])}),
        ({"channels": 0, "harmonics": 3}, {"antialiased": True}),
        ({"channels": 5, "colors": False}, {"low_pass": 0.7, "near": 3.0}),
    ],
)
def test_arguments_mean_what_gsplat_documents(gsplat, options, settings):
    gaussians, cameras = scene(**options)
    found = values_and_gradients(gaussians, cameras, "gsplat", **settings)
    truth = values_and_gradients(gaussians, cameras, "reference", **settings)
    assert max(relative_errors(found, truth).values()) < 1e-5
    assert [call["pieces"] for call in gsplat] == [1]


def test_one_view_with_colours_of_its_own_and_no_channels_at_all(gsplat):
    gaussians, cameras = scene(views=1, harmonics=8)
    truth = render_gaussians(gaussians, cameras, backend="reference")
    torch.testing.assert_close(render_gaussians(gaussians, cameras, backend="gsplat").rgb, truth.rgb)
    bare = render_gaussians(replace(gaussians, colors=None, features=None, harmonics=None), cameras, backend="gsplat")
    assert bare.rgb is None
    torch.testing.assert_close(bare.depth, truth.depth)
    torch.testing.assert_close(bare.alpha, truth.alpha)


def test_gradients_reach_the_poses_and_are_refused_for_intrinsics(gsplat):
    gaussians, cameras = scene()
    with pytest.raises(ValueError, match="no gradient for the cameras' k"):
        values_and_gradients(gaussians, cameras, "gsplat", camera_gradients=True)
    gradients = []
    for backend in ("gsplat", "reference"):
        w2c = cameras.w2c.clone().requires_grad_()
        out = render_gaussians(gaussians, replace(cameras, w2c=w2c), backend=backend)
        gradients.append(torch.autograd.grad(out.depth.sum() + out.rgb.square().sum(), w2c)[0])
    torch.testing.assert_close(*gradients)
    with torch.no_grad():
        assert render_gaussians(gaussians, replace(cameras, k=cameras.k.requires_grad_()), backend="gsplat").alpha.any()


def test_what_gsplat_cannot_do_is_refused(gsplat):
    gaussians, cameras = scene(channels=30)
    with pytest.raises(ValueError, match="at most 32 channels, found 33"):
        render_gaussians(gaussians, cameras, backend="gsplat")
    gaussians, cameras = scene()
    with pytest.raises(ValueError, match="float32"):
        render_gaussians(gaussians.to(torch.float64), cameras, backend="gsplat")
    assert gsplat == []


def test_other_devices_and_a_missing_package_are_named(monkeypatch):
    with pytest.raises(ValueError, match="NVIDIA GPUs, the splats are on 'cpu'"):
        splats._choose("gsplat", torch.device("cpu"))
    monkeypatch.setitem(sys.modules, "gsplat", None)
    with pytest.raises(ValueError, match=r"cannot be used .* install gsplat"):
        splats._choose("gsplat", torch.device("cuda"))
    monkeypatch.setitem(sys.modules, "gsplat", fake_gsplat.module())
    assert splats._choose("gsplat", torch.device("cuda")) == "gsplat"


@pytest.mark.skipif(
    importlib.util.find_spec("gsplat") is None or not torch.cuda.is_available(), reason="needs gsplat and a GPU"
)
@pytest.mark.parametrize("channels", [0, 29])
@pytest.mark.parametrize("antialiased", [False, True])
def test_gsplat_itself_agrees(channels, antialiased):
    """Opacities below 0.99, so that the clamp of the version does not matter."""
    gaussians, cameras = scene(views=3, count=400, channels=channels)
    gaussians = replace(gaussians, opacities=gaussians.opacities.clamp_max(0.95)).to("cuda")
    cameras = cameras.to("cuda")
    found = values_and_gradients(gaussians, cameras, "gsplat", antialiased=antialiased)
    truth = values_and_gradients(gaussians, cameras, "torch", antialiased=antialiased)
    assert max(relative_errors(found, truth).values()) < 1e-3
