"""The bounded depth coordinate: known answers, inverse, spacing, bad ranges."""

from __future__ import annotations

import math

import pytest
import torch

from latent3d.geometry.depth_range import DepthRange
from latent3d.geometry.epipolar import depth_to_relative_disparity, relative_disparity_to_depth

SPACINGS = ("disparity", "log")


@pytest.mark.parametrize("spacing", SPACINGS)
def test_ends_and_inverse(spacing):
    span = DepthRange(near=0.5, far=20.0, spacing=spacing)
    r = torch.linspace(0, 1, 33, dtype=torch.float64)
    depth = span.depth(r)
    assert depth[0].item() == pytest.approx(0.5, rel=1e-12)
    assert depth[-1].item() == pytest.approx(20.0, rel=1e-12)
    assert (depth.diff() > 0).all()
    torch.testing.assert_close(span.relative(depth), r, rtol=0, atol=1e-12)


def test_known_values():
    disparity, log = (DepthRange(near=1.0, far=4.0, spacing=spacing) for spacing in SPACINGS)
    half = torch.tensor(0.5, dtype=torch.float64)
    assert disparity.depth(half).item() == pytest.approx(1.6)  # 1 / mean(1, 1/4)
    assert log.depth(half).item() == pytest.approx(2.0)  # sqrt(1 * 4)
    assert log.log_ratio == pytest.approx(math.log(4))


def test_disparity_spacing_is_that_of_the_epipolar_samples():
    span = DepthRange(near=0.7, far=9.0, spacing="disparity")
    r = torch.rand(50, dtype=torch.float64)
    torch.testing.assert_close(span.depth(r), relative_disparity_to_depth(r, 0.7, 9.0))
    depth = 0.7 + 8.3 * r
    torch.testing.assert_close(span.relative(depth), depth_to_relative_disparity(depth, 0.7, 9.0))


def test_equal_steps():
    r = torch.linspace(0, 1, 11, dtype=torch.float64)
    inverse = 1 / DepthRange(spacing="disparity").depth(r)
    torch.testing.assert_close(inverse.diff(), inverse.diff()[:1].expand(10))
    log = DepthRange(spacing="log")
    steps = log.depth(r).log().diff()
    torch.testing.assert_close(steps, torch.full_like(steps, 0.1 * log.log_ratio))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_depth_outside_the_range_is_clamped(spacing):
    span = DepthRange(near=0.5, far=20.0, spacing=spacing)
    outside = torch.tensor([0.0, 0.4, 25.0, 1e9])
    torch.testing.assert_close(span.relative(outside), torch.tensor([0.0, 0.0, 1.0, 1.0]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_gradients(spacing):
    span = DepthRange(near=0.5, far=20.0, spacing=spacing)
    r = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(span.depth, (r,))
    depth = torch.tensor([0.7, 3.0, 15.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(span.relative, (depth,))


@pytest.mark.parametrize(("near", "far"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 2.0), (3.0, 1.0), (math.nan, 1.0)])
def test_impossible_ranges_are_refused(near, far):
    with pytest.raises(ValueError, match="0 < near < far"):
        DepthRange(near=near, far=far)


def test_round_trip_as_dictionary():
    span = DepthRange(near=0.2, far=33.0, spacing="log")
    assert DepthRange.from_dict(span.to_dict()) == span
    with pytest.raises(ValueError, match="spacing"):
        DepthRange.from_dict({**span.to_dict(), "spacing": "linear"})
