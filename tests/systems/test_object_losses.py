"""Terms of the autoencoder's loss: known answers and invariants."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from latent3d.autoencoders.image_vae import kl_to_standard_normal
from latent3d.autoencoders.multiview_encoder import soft_clamp
from latent3d.nn.lpips import TRUNKS
from latent3d.systems.object_losses import (
    Perceptual,
    PerceptualConfig,
    alpha_l1,
    depth_smoothness,
    foreground_l2,
    kl_divergence,
    l1,
    scale_and_shift,
    scale_shift_depth,
)


@pytest.mark.parametrize("rays", [False, True])
def test_foreground_counts_as_much_as_background_whatever_its_size(rays):
    """A tenth of the pixels errs by 0.4, the others by 0.1."""
    rgb, target = torch.zeros(1, 2, 3, 5, 10), torch.full((1, 2, 3, 5, 10), 0.1)
    alpha = torch.zeros(1, 2, 1, 5, 10)
    alpha[..., 0] = 1
    target[..., 0] = 0.4
    if rays:
        rgb, target, alpha = (x.permute(0, 1, 3, 4, 2).flatten(1, 3) for x in (rgb, target, alpha))
    assert float(foreground_l2(rgb, target, alpha)) == pytest.approx(0.16 + 0.01)
    assert float(foreground_l2(rgb, target, alpha, 0.5)) == pytest.approx(0.16 + 0.005)
    assert float(foreground_l2(rgb, target, torch.zeros_like(alpha))) == pytest.approx(0.16 * 0.1 + 0.01 * 0.9)
    assert float(l1(rgb, target)) == pytest.approx(0.13)
    assert float(alpha_l1(alpha, torch.full_like(alpha, 0.25))) == pytest.approx(0.1 * 0.75 + 0.9 * 0.25)


def depth_case(n=3, side=16):
    generator = torch.Generator().manual_seed(1)
    target = 1.5 + 0.2 * torch.rand(1, n, 1, side, side, generator=generator)
    mask = torch.rand(1, n, 1, side, side, generator=generator) < 0.7
    return target, mask


def test_depth_term_forgets_scale_and_shift():
    target, mask = depth_case()
    scales = torch.tensor([0.3, 2.0, 9.0]).view(1, 3, 1, 1, 1)
    seen = torch.where(mask, scales * target - 0.7, torch.tensor(50.0))  # outside the mask anything goes
    assert float(scale_shift_depth(seen, target, mask)) == pytest.approx(0, abs=1e-5)
    noisy = target + 0.02 * torch.randn_like(target)
    loss = scale_shift_depth(noisy, target, mask)
    assert 0 < float(loss) < 0.2
    torch.testing.assert_close(scale_shift_depth(3 * noisy + 1, target, mask.float()), loss, rtol=1e-3, atol=1e-6)


def test_scale_and_shift_are_the_least_squares_solution():
    target, mask = depth_case()
    depth = target**2 + 0.05 * torch.randn_like(target)
    parts = [x.flatten(0, 2).double() for x in (depth, target, mask)]
    scale, shift = scale_and_shift(*parts)
    for d, t, m, s, o in zip(*parts, scale, shift, strict=True):
        rows = torch.stack([d[m > 0], torch.ones_like(d[m > 0])], 1)
        expected = torch.linalg.lstsq(rows, t[m > 0][:, None]).solution.flatten()
        torch.testing.assert_close(torch.stack([s, o]), expected)


def test_depth_term_by_hand():
    """One picture, mask everywhere, an error that no scale and shift can take: a checkerboard on a ramp."""
    ramp = torch.arange(8.0).expand(8, 8)
    checks = 0.1 * (-1.0) ** (torch.arange(8)[:, None] + torch.arange(8))
    target = (ramp + checks)[None, None]
    mask = torch.ones_like(target)
    scale, _ = scale_and_shift(ramp[None], target[0], mask[0])
    assert float(scale) == pytest.approx(1, abs=1e-6)
    data = 0.01 / 2
    slopes = 0.2 * 2 * 7 * 8 / 64  # every pair of neighbours differs by 0.2; coarser levels see one colour only
    found = scale_shift_depth(ramp[None, None], target, mask, alpha=0.5, cutoff=1.0)
    assert float(found) == pytest.approx(data + 0.5 * slopes, rel=1e-5)
    assert float(scale_shift_depth(ramp[None, None], target, mask, alpha=0.0)) == pytest.approx(data, rel=1e-5)


def test_pictures_above_the_cutoff_are_left_out():
    target, mask = depth_case(n=2)
    depth = target.clone()
    depth[0, 1] = torch.rand_like(depth[0, 1])
    depth += 0.01 * torch.randn_like(depth)
    depth.requires_grad_()
    alone = scale_shift_depth(depth[:, :1], target[:, :1], mask[:, :1], cutoff=0.05)
    bad = scale_shift_depth(depth[:, 1:], target[:, 1:], mask[:, 1:], cutoff=9.0)
    assert float(bad.detach()) > 0.05 > float(alone.detach()) > 0
    both = scale_shift_depth(depth, target, mask, cutoff=0.05)
    torch.testing.assert_close(both, alone)
    both.backward()
    assert depth.grad[0, 0].abs().sum() > 0
    assert depth.grad[0, 1].abs().sum() == 0
    for odd in (torch.zeros_like(mask), mask):  # nothing known; nothing to align
        depth = torch.ones_like(target, requires_grad=True)
        loss = scale_shift_depth(depth, target, odd)
        loss.backward()
        assert loss.isfinite()
        assert depth.grad.isfinite().all()


def test_depth_gradients_are_right():
    target, mask = (x[..., :6, :6].double() for x in depth_case(n=1))
    depth = (target + 0.1 * torch.rand_like(target)).requires_grad_()

    def loss(values):
        return scale_shift_depth(values, target, mask, cutoff=9.0)

    assert gradcheck(loss, (depth,))


def test_smoothness_of_a_step():
    """A depth step of 2 between two columns: 1 of 3 horizontal neighbours, none of the vertical ones."""
    depth = torch.tensor([1.0, 1.0, 3.0, 3.0]).expand(1, 1, 4, 4).clone().requires_grad_()
    assert float(depth_smoothness(depth.detach())) == pytest.approx(0.5 * 4 / 3)
    image = torch.tensor([0.0, 0.0, 0.3, 0.3]).expand(1, 3, 4, 4)
    assert float(depth_smoothness(depth.detach(), image)) == pytest.approx(0.5 * 4 / 3 * math.exp(-3))
    mask = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(1, 1, 4, 4)
    assert float(depth_smoothness(depth.detach(), mask=mask)) == 0
    assert float(depth_smoothness(depth.detach(), image, mask > 0, sharpness=1.0)) == 0
    depth_smoothness(depth, image).backward()
    assert (depth.grad[..., 1] < 0).all()
    assert (depth.grad[..., 2] > 0).all()


def test_kl_and_soft_clamp():
    mean, log_variance = torch.randn(3, 3, 4, 2, 2), torch.randn(3, 3, 4, 2, 2)
    expected = kl_to_standard_normal(mean, (0.5 * log_variance).exp()).flatten(1).sum(1).mean()
    torch.testing.assert_close(kl_divergence(mean, log_variance), expected)
    assert float(kl_divergence(torch.zeros(2, 5), torch.zeros(2, 5))) == 0
    assert float(kl_divergence(torch.ones(2, 6), torch.zeros(2, 6))) == pytest.approx(3)
    values = torch.tensor([-1e4, -0.1, 0.0, 0.1, 1e4])
    torch.testing.assert_close(soft_clamp(values), torch.tensor([-20.0, -0.1, 0.0, 0.1, 20.0]), atol=1e-5, rtol=1e-4)
    assert float(soft_clamp(torch.tensor(3.0), 5.0)) == pytest.approx(5 * math.tanh(0.6))


def picture(side=32):
    """Stripes that get finer to the right, with a disc."""
    x, y = torch.linspace(0, 1, side), torch.linspace(0, 1, side)[:, None]
    stripes = 0.5 + 0.4 * torch.sin(40 * x**2 + 5 * y)
    disc = ((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.06).float()
    return torch.stack([stripes, disc, 0.5 * (stripes + disc)])[None]


def test_the_substitute_punishes_blur_more_than_a_change_of_brightness():
    distance = PerceptualConfig(widths=(8, 8, 8)).build()
    truth = picture()
    blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(truth, (1,) * 4, mode="replicate"), 3, 1)
    # a brightness change of the same mean absolute error
    brighter = truth + (blurred - truth).abs().mean()
    assert float(distance(truth, truth)) == pytest.approx(0, abs=1e-6)
    assert float(distance(blurred, truth)) > 3 * float(distance(brighter, truth))
    near, far = (distance(truth + s * torch.randn_like(truth), truth) for s in (0.02, 0.2))
    assert 0 < float(near) < float(far)
    shifted, more = (distance(truth.roll(pixels, -1), truth) for pixels in (1, 3))
    assert 0 < float(shifted) < float(more)


def test_the_substitute_is_the_same_everywhere_and_brings_pictures_together():
    config = PerceptualConfig(widths=(8, 8))
    distance, twin = config.build(), Perceptual.__new__(Perceptual)
    twin.__init__(PerceptualConfig.from_dict(config.to_dict()))
    truth = picture(16)[None]
    images = torch.rand(1, 1, 3, 16, 16).requires_grad_()
    assert torch.equal(distance(images, truth), twin(images, truth))
    assert list(distance.parameters()) == []
    assert dict(distance.state_dict()) == {}
    first = float(distance(images, truth).detach())
    optimizer = torch.optim.Adam([images], 0.05)
    for _ in range(40):
        optimizer.zero_grad()
        distance(images, truth).backward()
        optimizer.step()
    assert float(distance(images, truth).detach()) < 0.3 * first
    with pytest.raises(ValueError, match="needs pictures of 8 pixels"):
        distance(truth[..., :7], truth[..., :7])


def test_lpips_comes_from_files(tmp_path):
    layers, taps = TRUNKS["alex"]()
    trunk, heads = tmp_path / "trunk.pth", tmp_path / "alex.pth"
    torch.save({f"features.{key}": value for key, value in layers.state_dict().items()}, trunk)
    weights = {f"lin{i}.model.1.weight": torch.ones(1, layers[t - 1].out_channels, 1, 1) for i, t in enumerate(taps)}
    torch.save(weights, heads)
    config = PerceptualConfig(kind="lpips_alex", trunk=str(trunk), heads=str(heads))
    images, truth = torch.rand(2, 1, 2, 3, 40, 40).unbind(0)
    distance = config.build()
    assert float(distance(truth, truth)) == 0
    assert 0 < float(distance(images, truth)) < 10
    with pytest.raises(ValueError, match="network of lpips_alex, but lpips_vgg"):
        config.replace(kind="lpips_vgg").build()
    with pytest.raises(FileNotFoundError, match="local file"):
        PerceptualConfig(kind="lpips_vgg").build()
    with pytest.raises(ValueError, match="32 pixels"):
        distance(images[..., :20], truth[..., :20])
