"""The oracle against closed forms and finite differences, away from the thresholds."""

import math

import pytest
import torch

from latent3d.rendering import splats_reference
from latent3d.rendering.projection import project_splats
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians

from .scenes import front_camera, ring_cameras, splats_on_axis


def test_one_round_splat_is_a_gaussian_on_the_screen():
    camera = front_camera(size=9, focal=20.0)
    rendering = render_gaussians(splats_on_axis([2.0], [0.8], scale=0.2), camera, backend="reference", low_pass=0.3)
    variance = (20.0 * 0.2 / 2.0) ** 2 + 0.3
    offset = torch.arange(9, dtype=torch.float64) - 4
    expected = 0.8 * torch.exp(-(offset[:, None] ** 2 + offset**2) / (2 * variance))
    torch.testing.assert_close(rendering.alpha[0, 0], expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(rendering.features[0, 0], expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(rendering.depth[0, 0], torch.full((9, 9), 2.0, dtype=torch.float64), rtol=1e-12, atol=0)


def test_covariance_is_the_projected_one():
    """Off the axis and rotated: J R Sigma R^T J^T from the textbook formulas, written with matrices."""
    camera = ring_cameras(1, 40, 50)
    mean = torch.tensor([[0.2, -0.1, 0.4]], dtype=torch.float64)
    half = math.radians(50) / 2
    axis = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64) / math.sqrt(6)
    quaternion = torch.cat([torch.tensor([math.cos(half)], dtype=torch.float64), math.sin(half) * axis])[None] * 1.7
    scales = torch.tensor([[0.3, 0.1, 0.02]], dtype=torch.float64)
    x, y, z = axis
    skew = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    rotation = torch.matrix_exp(2 * half * skew)
    sigma = rotation @ torch.diag(scales[0] ** 2) @ rotation.T
    w2c, k = camera.w2c[0], camera.k[0]
    px, py, pz = w2c[:3, :3] @ mean[0] + w2c[:3, 3]
    jacobian = torch.tensor([[k[0, 0] / pz, 0, -k[0, 0] * px / pz**2], [0, k[1, 1] / pz, -k[1, 1] * py / pz**2]])
    screen = jacobian.double() @ w2c[:3, :3]
    covariance = screen @ sigma @ screen.T + 0.3 * torch.eye(2, dtype=torch.float64)
    opacity = torch.tensor([0.5], dtype=torch.float64)
    seen = project_splats(mean, quaternion, scales, opacity, camera.w2c, camera.k, 40, 50, 0.3, 0.01, False)
    a, b, c = seen.conics[0, 0]
    conic = torch.stack([torch.stack([a, b]), torch.stack([b, c])])
    torch.testing.assert_close(conic, torch.linalg.inv(covariance), rtol=1e-6, atol=1e-9)


def test_blending_is_front_to_back():
    camera = front_camera()
    rendering = render_gaussians(splats_on_axis([3.0, 2.0], [0.5, 0.25], scale=1e-3), camera, backend="reference")
    # the second splat (feature 10, z = 2) lies in front of the first (feature 1, z = 3)
    assert rendering.features[0, 0, 4, 4].item() == pytest.approx(0.25 * 10 + 0.75 * 0.5 * 1, rel=1e-12)
    assert rendering.alpha[0, 0, 4, 4].item() == pytest.approx(1 - 0.75 * 0.5, rel=1e-12)
    assert rendering.depth[0, 0, 4, 4].item() == pytest.approx((0.25 * 2 + 0.375 * 3) / 0.625, rel=1e-12)


@pytest.mark.parametrize("antialiased", [False, True])
def test_gradients_by_finite_differences(antialiased):
    """Splats so wide and so few that no pixel is near 1/255, the clamp or the end of its transmittance."""
    g = torch.Generator().manual_seed(3)
    camera = ring_cameras(2, 4, 5)
    count = 4
    means = (torch.rand(count, 3, generator=g, dtype=torch.float64) - 0.5) * 0.8
    quaternions = torch.randn(count, 4, generator=g, dtype=torch.float64)
    scales = 0.8 + torch.rand(count, 3, generator=g, dtype=torch.float64)
    opacities = 0.4 + 0.3 * torch.rand(count, generator=g, dtype=torch.float64)
    colors, features = (torch.randn(count, c, generator=g, dtype=torch.float64) for c in (3, 2))

    def render(means, quaternions, scales, opacities, colors, features, w2c, k):
        gaussians = Gaussians(means, quaternions, scales, opacities, colors, features)
        seen = type(camera)(w2c, k, camera.height, camera.width)
        out = render_gaussians(gaussians, seen, backend="reference", antialiased=antialiased)
        return out.rgb, out.features, out.depth, out.alpha

    seen = project_splats(means, quaternions, scales, opacities, camera.w2c, camera.k, 4, 5, 0.3, 0.01, antialiased)
    _, _, alpha = splats_reference.blend(seen, features[None], 4, 5)
    assert alpha.min() > 0.2
    assert alpha.max() < 0.999
    inputs = (means, quaternions, scales, opacities, colors, features, camera.w2c, camera.k)
    assert torch.autograd.gradcheck(render, [t.clone().requires_grad_() for t in inputs], eps=1e-6, atol=1e-6)


def test_clamped_jacobian_by_finite_differences():
    """A splat far beside the image, where the Jacobian no longer follows it."""
    camera = front_camera(size=9, focal=20.0)
    gaussians = splats_on_axis([2.0], [0.9], scale=0.6)
    mean = torch.tensor([[1.2, -1.1, 2.0]], dtype=torch.float64, requires_grad=True)

    def render(mean):
        moved = Gaussians(mean, gaussians.quaternions, gaussians.scales, gaussians.opacities, None, gaussians.features)
        out = render_gaussians(moved, camera, backend="reference")
        return out.alpha[..., :4, 5:]

    assert render(mean).min() > 0.02
    assert torch.autograd.gradcheck(render, [mean], eps=1e-6, atol=1e-7)


def test_antialiasing_keeps_the_mass_of_a_small_splat():
    """Sum of alpha over pixels: 2 pi o s^2 without the low-pass, kept by anti-aliasing, inflated without it."""
    camera = front_camera(size=41, focal=20.0)
    splat = splats_on_axis([1.0], [0.9], scale=0.02)  # 0.4 px
    mass = 2 * math.pi * 0.9 * 0.4**2
    plain = render_gaussians(splat, camera, backend="reference").alpha.sum().item()
    kept = render_gaussians(splat, camera, backend="reference", antialiased=True).alpha.sum().item()
    assert kept == pytest.approx(mass, rel=0.05)
    assert plain > 2 * mass
