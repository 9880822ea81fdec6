"""The shared thresholds and the order of equal depths, each hit on purpose, in every back end."""

from dataclasses import replace

import pytest
import torch

from latent3d.rendering.base import ALPHA_MAX, ALPHA_MIN, NEAR
from latent3d.rendering.splats import render_gaussians

from .scenes import BACKENDS, cloud, front_camera, relative_errors, ring_cameras, splats_on_axis, values_and_gradients

ALL = (*BACKENDS, "reference")
DTYPES = (torch.float32, torch.float64)
MIDDLE = (0, 0, 4, 4)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("dtype", DTYPES)
def test_alpha_is_clamped_and_has_no_gradient_there(backend, dtype):
    splat = splats_on_axis([2.0], [1.0], scale=1e-3, dtype=dtype)
    opacity = splat.opacities.requires_grad_()
    rendering = render_gaussians(splat, front_camera(dtype=dtype), backend=backend)
    assert rendering.alpha[MIDDLE].item() == pytest.approx(ALPHA_MAX, abs=1e-6)
    rendering.features[MIDDLE].backward()
    assert opacity.grad.item() == 0


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("dtype", DTYPES)
def test_alpha_below_one_in_255_counts_as_none(backend, dtype):
    camera = front_camera(dtype=dtype)
    below = render_gaussians(splats_on_axis([2.0], [ALPHA_MIN * 0.9999], dtype=dtype), camera, backend=backend)
    assert below.alpha.abs().max().item() == 0
    above = render_gaussians(splats_on_axis([2.0], [ALPHA_MIN * 1.0001], dtype=dtype), camera, backend=backend)
    assert above.alpha[MIDDLE].item() == pytest.approx(ALPHA_MIN * 1.0001, rel=1e-4)
    assert (above.alpha > 0).sum().item() == 1


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("dtype", DTYPES)
def test_stop_is_exclusive_and_ends_the_pixel(backend, dtype):
    """Transmittance 0.01, 2e-4; the third splat would leave 4e-5 and ends the pixel, also for the faint fourth."""
    splats = splats_on_axis([1.0, 2.0, 3.0, 4.0], [0.99, 0.98, 0.8, 0.1], scale=1e-3, dtype=dtype)
    opacities = splats.opacities.requires_grad_()
    rendering = render_gaussians(splats, front_camera(dtype=dtype), backend=backend)
    assert rendering.features[MIDDLE].item() == pytest.approx(0.99 * 1 + 0.01 * 0.98 * 10, rel=1e-5)
    assert 1 - rendering.alpha[MIDDLE].item() == pytest.approx(2e-4, rel=1e-3)
    rendering.features[MIDDLE].backward()
    assert opacities.grad[2:].abs().max().item() == 0
    assert opacities.grad[1].item() == pytest.approx(0.01 * 10, rel=1e-4)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("dtype", DTYPES)
def test_splats_at_or_behind_the_near_plane_are_dropped(backend, dtype):
    camera = front_camera(dtype=dtype)
    splats = splats_on_axis([-1.0, 0.0, NEAR], [0.9, 0.9, 0.9], scale=1e-4, dtype=dtype)
    means = splats.means.requires_grad_()
    hidden = render_gaussians(splats, camera, backend=backend)
    assert hidden.alpha.abs().max().item() == 0
    hidden.alpha.sum().backward()
    assert torch.equal(means.grad, torch.zeros_like(means))
    just_in_front = splats_on_axis([NEAR * 1.01], [0.9], scale=1e-4, dtype=dtype)
    assert render_gaussians(just_in_front, camera, backend=backend).alpha[MIDDLE].item() > 0.8


@pytest.mark.parametrize("backend", ALL)
def test_equal_depths_keep_input_order(backend):
    first = splats_on_axis([2.0, 2.0, 2.0], [0.5, 0.5, 0.5], scale=1e-3)
    rendering = render_gaussians(first, front_camera(), backend=backend)
    assert rendering.features[MIDDLE].item() == pytest.approx(0.5 * 1 + 0.25 * 10 + 0.125 * 100, rel=1e-12)
    turned = render_gaussians(first[torch.tensor([2, 0, 1])], front_camera(), backend=backend)
    assert turned.features[MIDDLE].item() == pytest.approx(0.5 * 100 + 0.25 * 1 + 0.125 * 10, rel=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_plane_full_of_ties_is_the_same_in_all_back_ends(backend):
    cameras = ring_cameras(1, 20, 24)
    gaussians = cloud(400, cameras)
    flat = gaussians.means.clone()
    rotation = cameras.w2c[0, :3, :3]
    local = flat @ rotation.T
    local[:, 2] = 0.25  # exactly equal only before the rotation, so look along z
    cameras = replace(cameras, w2c=cameras.w2c.clone())
    cameras.w2c[0, :3, :3] = torch.eye(3, dtype=torch.float64)
    gaussians = replace(gaussians, means=local)
    for dtype, bound in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        rounded = gaussians.to(dtype).to(torch.float64), cameras.to(dtype).to(torch.float64)
        truth = values_and_gradients(*rounded, "reference")
        found = values_and_gradients(gaussians.to(dtype), cameras.to(dtype), backend)
        errors = relative_errors(found, truth)
        assert max(errors.values()) <= bound, (dtype, errors)


@pytest.mark.parametrize("backend", ALL)
def test_a_splat_that_no_number_can_hold_is_dropped(backend):
    """float32 overflows in the covariance; the other splat is rendered as if alone."""
    splats = splats_on_axis([2.0, 2.0], [0.5, 0.5], scale=1e-3, dtype=torch.float32)
    scales = splats.scales.clone()
    scales[0] = 1e30
    camera = front_camera(dtype=torch.float32)
    both = render_gaussians(replace(splats, scales=scales), camera, backend=backend)
    assert torch.equal(both.alpha, render_gaussians(splats[1:], camera, backend=backend).alpha)
