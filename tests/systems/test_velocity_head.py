"""f_v: the closed form, its limits, what the skip alone can do, and that frames stay apart."""

from __future__ import annotations

import pytest
import torch

from latent3d.diffusion.parameterization import c_out, c_skip, v_from_z0, z0_from_v
from latent3d.systems.velocity_head import VelocityHeadConfig, blend_velocity
from systems.common import shaken


def head(features=6, channels=4, **changes):
    return VelocityHeadConfig(width=8, blocks=1, **changes).build(channels, features)


@pytest.mark.parametrize("error", [0.05, 0.5, 2.0])
def test_blend_is_the_best_linear_estimate(error):
    """Read back through c_skip and c_out, v gives z0 = (sigma^2 A f + t^2 z) / (sigma^2 + t^2)."""
    generator = torch.Generator().manual_seed(0)
    rendered, noisy = torch.randn(2, 64, generator=generator, dtype=torch.float64)
    sigma = torch.exp(2 * torch.randn(64, generator=generator, dtype=torch.float64))
    t = torch.tensor(error, dtype=torch.float64)
    z0 = c_skip(sigma) * noisy + c_out(sigma) * blend_velocity(rendered, noisy, sigma, t)
    expected = (sigma**2 * rendered + t**2 * noisy) / (sigma**2 + t**2)
    torch.testing.assert_close(z0, expected, rtol=1e-10, atol=1e-10)


def test_blend_weighs_by_inverse_variance():
    """Equal errors meet in the middle; without noise the latent wins, with all noise the render."""
    rendered, noisy, one = torch.tensor([2.0]), torch.tensor([4.0]), torch.tensor(1.0)
    for sigma, expected in ((1.0, 3.0), (1e-4, 4.0), (1e4, 2.0)):
        level = torch.tensor([sigma])
        z0 = c_skip(level) * noisy + c_out(level) * blend_velocity(rendered, noisy, level, one)
        assert z0.item() == pytest.approx(expected, abs=1e-3)


def test_blend_is_smooth_down_to_no_noise():
    rendered, noisy = torch.full((7,), 1.5), torch.full((7,), -0.5)
    sigma = torch.tensor([0.0, 1e-8, 1e-6, 1e-4, 1e-3, 2e-3, 4e-3]).requires_grad_()
    v = blend_velocity(rendered, noisy, sigma, torch.tensor(0.5))
    (slope,) = torch.autograd.grad(v.sum(), sigma)
    assert v[0] == 0
    assert torch.isfinite(slope).all()
    torch.testing.assert_close(slope[:4], slope[:1].expand(4), rtol=1e-3, atol=0)
    # dv/dsigma at 0 is -(A f / t^2 + z (t^2 - 1) / t^2)
    assert slope[0].item() == pytest.approx(-(1.5 / 0.25 - 0.5 * (0.25 - 1) / 0.25), rel=1e-6)


def test_no_noise_gives_the_noisy_latent_back():
    network = shaken(head())
    features, noisy = torch.randn(2, 6, 5, 5), torch.randn(2, 4, 5, 5)
    sigma = torch.full((2,), 1e-6)
    v, _ = network(features, torch.rand(2, 1, 5, 5), noisy, sigma, torch.zeros(2))
    torch.testing.assert_close(z0_from_v(noisy, v, sigma), noisy, rtol=0, atol=1e-4)


def test_an_oracle_render_leaves_nothing_to_learn():
    """Features that contain z_0 (spec 12.3): with A fitted by least squares and a small render error, v is right at
    every noise level before any training."""
    generator = torch.Generator().manual_seed(1)
    z0 = torch.randn(8, 4, 6, 6, generator=generator)
    mix = torch.randn(6, 4, generator=generator)
    features = torch.einsum("fc,nchw->nfhw", mix, z0)
    sigma = torch.exp(0.7 + 1.6 * torch.randn(8, generator=generator))
    noisy = z0 + sigma[:, None, None, None] * torch.randn(z0.shape, generator=generator)
    network = head(render_error=0.01)
    with torch.no_grad():
        pixels = features.permute(0, 2, 3, 1).reshape(-1, 6)
        fitted = torch.linalg.lstsq(pixels, z0.permute(0, 2, 3, 1).reshape(-1, 4), driver="gelsd").solution
        network.to_latent.weight.copy_(fitted.T[:, :, None, None])
        network.to_latent.bias.zero_()
        v, rendered = network(features, torch.ones(8, 1, 6, 6), noisy, sigma, torch.zeros(8))
    torch.testing.assert_close(rendered, z0, rtol=0, atol=1e-4)
    error = (v - v_from_z0(noisy, z0, sigma)).square().mean()
    assert error < 1e-3
    assert (network.to_latent(features.flip(0)) - z0).square().mean() > 0.5  # another frame's render would not do


def test_frames_do_not_see_each_other():
    network = shaken(head())
    inputs = [torch.randn(3, 6, 5, 5), torch.rand(3, 1, 5, 5), torch.randn(3, 4, 5, 5), torch.rand(3) + 0.5]
    inputs = [value.requires_grad_() for value in inputs]
    v, rendered = network(*inputs, torch.tensor([1.0, 0.0, 0.0]))
    for output in (v, rendered):
        gradients = torch.autograd.grad(output[1].sum(), inputs, retain_graph=True, allow_unused=True)
        for gradient in gradients:
            if gradient is None:
                continue
            assert gradient[1].abs().max() > 0
            assert gradient[0].abs().max() == 0
            assert gradient[2].abs().max() == 0


def test_the_residual_starts_at_zero():
    network = head()
    features, noisy, sigma = torch.randn(2, 6, 5, 5), torch.randn(2, 4, 5, 5), torch.tensor([0.3, 7.0])
    v, rendered = network(features, torch.rand(2, 1, 5, 5), noisy, sigma, torch.zeros(2))
    expected = blend_velocity(rendered, noisy, sigma[:, None, None, None], torch.tensor(0.5))
    torch.testing.assert_close(v, expected)
