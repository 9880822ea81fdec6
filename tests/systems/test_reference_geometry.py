"""Depth of the references: the matching volume's known answers, sizes, losses with unknown depth."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.depth_range import DepthRange
from latent3d.systems.reference_geometry import ReferenceGeometryConfig, _relative_error, ray_slopes
from systems.common import batched, rigid, shaken, smooth_images, walk_cameras

SPAN = DepthRange(near=0.5, far=8.0, spacing="log")


def network(**changes):
    torch.manual_seed(0)
    values = {"depth_range": SPAN, "hypotheses": 8, "widths": (8, 8, 16, 16), "match_channels": 6, "heads": 2} | changes
    return ReferenceGeometryConfig(**values).build()


def sidestep(baseline: float, size: int, count: int = 2) -> Cameras:
    """Cameras (1, count) in a row with a focal length of ``size`` pixels, all looking along +z."""
    c2w = torch.eye(4).repeat(1, count, 1, 1)
    c2w[0, :, 0, 3] = baseline * torch.arange(count)
    k = torch.tensor([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1.0]]).expand(1, count, 3, 3)
    return Cameras.from_c2w(c2w, k.contiguous(), size, size)


def plane_waves(cameras: Cameras, depth: float, channels: int, size: int, frequency: float) -> torch.Tensor:
    """What each camera sees of a plane z = depth with smooth random waves on it, (1, k, channels, size, size)."""
    generator = torch.Generator().manual_seed(0)
    frequencies = frequency * torch.randn(channels, 2, generator=generator)
    phases = 6.28 * torch.rand(channels, generator=generator)
    places = cameras.centers[0, :, None, None, :2] + depth * ray_slopes(cameras.resized(size, size))[0].movedim(1, -1)
    return torch.sin(places @ frequencies.T + phases).movedim(-1, 1)[None]


def test_a_single_reference_has_no_matching_volume():
    cost, share = network().match(torch.randn(2, 1, 6, 16), batched(walk_cameras(1), 2), 4, 4)
    assert cost.shape == share.shape == (2, 1, 8, 4, 4)
    assert not cost.any()
    assert not share.any()


@pytest.mark.parametrize("bin_", [1, 3, 5])
@pytest.mark.parametrize("count", [2, 3])
def test_correlation_peaks_at_the_depth_of_a_plane(bin_, count):
    net = network()
    centres = (torch.arange(8) + 0.5) / 8
    depth = float(SPAN.depth(centres[bin_]))
    cameras = sidestep(0.12 * depth, 16, count)  # about two pixels of disparity between neighbours
    features = F.normalize(plane_waves(cameras, depth, 24, 16, 6.0), dim=2).flatten(3)
    cost, share = net.match(features, cameras, 16, 16)
    inside = share[:, :, bin_] == 1  # seen by all others
    assert inside.float().mean() > 0.3
    best = cost.argmax(2)[inside]
    assert (best == bin_).float().mean() > 0.95
    at_truth = cost[:, :, bin_][inside] / net.temperature.exp()
    assert at_truth.min() > 0.9
    assert at_truth.max() <= 1 + 1e-4


def test_the_mean_is_over_the_references_that_see_the_point():
    cameras = sidestep(0.3, 16, 3)
    features = F.normalize(torch.ones(1, 3, 6, 256), dim=2)
    net = network()
    cost, share = net.match(features, cameras, 16, 16)
    assert set(share.unique().tolist()) == {0.0, 0.5, 1.0}
    assert not cost[share == 0].any()
    well_inside = cost[share > 0] / net.temperature.exp()
    assert well_inside.median().item() == pytest.approx(1.0, abs=1e-4)  # equal features everywhere
    assert well_inside.min() >= 0.5 - 1e-4  # on the rim the sample blends with zero padding


@pytest.mark.parametrize("bin_", [2, 4])
def test_an_untrained_network_matches_patches_of_a_textured_plane(bin_):
    net = network()
    depth = float(SPAN.depth((torch.tensor(bin_) + 0.5) / 8))
    cameras = sidestep(0.125 * depth, 64)  # eight pixels of disparity: two cells
    images = 0.5 + 0.2 * plane_waves(cameras, depth, 3, 64, 20 / depth)
    no_say = torch.zeros(1, 2, 6, 256)
    cost, share = net.match(net.match_features(no_say, images), cameras, 16, 16)
    rim = torch.zeros(16, 16, dtype=torch.bool)
    rim[1:-1, 4:-4] = True  # patches on the border, or matched with them, hold padding
    inside = (share[:, :, bin_] == 1) & rim
    assert inside.float().mean() > 0.3
    assert (cost.argmax(2)[inside] == bin_).float().mean() > 0.95


@pytest.mark.parametrize("wrong_by", [-2, 0, 3])
def test_the_second_sweep_finds_the_plane_around_a_wrong_estimate(wrong_by):
    """Before any training, patches of stride 2 agree best at the hypothesis that undoes the error of the start."""
    net = network(fine_hypotheses=9, fine_step=0.5)
    depth = float(SPAN.depth(torch.tensor(0.5)))
    cameras = sidestep(0.25 * depth, 64)  # sixteen pixels of disparity
    images = 0.5 + 0.2 * plane_waves(cameras, depth, 3, 64, 40 / depth)
    offsets = net.fine_offsets(images)
    start = torch.full((1, 2, 1, 32, 32), 0.5) - offsets[4 + wrong_by]
    near, share = net.match_near(start, torch.zeros(1, 2, 16, 32, 32), images, cameras)
    assert near.shape == share.shape == (1, 2, 9, 32, 32)
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[2:-2, 12:-12] = True
    inside = inside & (share[:, :, 4 + wrong_by] == 1)
    assert inside.float().mean() > 0.1
    assert (near.argmax(2)[inside] == 4 + wrong_by).float().mean() > 0.9


def test_a_single_reference_has_no_second_sweep():
    near, share = network().match_near(
        torch.full((2, 1, 1, 16, 16), 0.5), torch.randn(2, 1, 16, 16, 16), torch.rand(2, 1, 3, 32, 32),
        batched(walk_cameras(1), 2),
    )  # fmt: skip
    assert near.shape == (2, 1, 9, 16, 16)
    assert not near.any()
    assert not share.any()


def test_match_features_are_unit_vectors_but_for_patches_without_contrast():
    net = network()
    images = torch.full((1, 1, 3, 32, 32), 0.7)
    images[..., 16:] = torch.rand(1, 1, 3, 32, 16)
    learned = torch.randn(1, 1, 6, 64)
    features = net.match_features(learned, images)
    share = torch.sigmoid(net.learned_share)
    length = features.square().sum(2).reshape(8, 8)
    torch.testing.assert_close(length[1:-1, 5:-1], torch.ones(6, 2), rtol=0, atol=0.02)
    torch.testing.assert_close(length[1:-1, 1:3], share.expand(6, 2), rtol=0, atol=1e-5)
    brighter = net.match_features(learned, 0.5 * images + 0.2)  # zero mean, unit norm: exposure does not matter
    torch.testing.assert_close(brighter[..., 13:15], features[..., 13:15], rtol=0, atol=0.02)


def test_shapes_and_ranges():
    net = shaken(network())
    out = net(smooth_images(4).unflatten(0, (2, 2)), batched(walk_cameras(2), 2))
    assert out.relative.shape == out.spread.shape == (2, 2, 1, 32, 32)
    assert out.coarse.shape == (2, 2, 1, 8, 8)
    assert out.logits.shape == (2, 2, 8, 8, 8)
    assert out.relative.min() >= 0
    assert out.relative.max() <= 1
    assert out.spread.min() > 0
    centres = (torch.arange(8) + 0.5) / 8
    expected = torch.einsum("bkshw,s->bkhw", out.logits.softmax(2), centres)[:, :, None]
    torch.testing.assert_close(out.coarse, expected)


def test_images_need_not_be_square():
    cameras = batched(walk_cameras(2)).resized(16, 48)
    out = network()(torch.rand(1, 2, 3, 16, 48), cameras)
    assert out.relative.shape == (1, 2, 1, 16, 48)


@pytest.mark.parametrize("size", [(24, 32), (32, 40), (31, 32)])
def test_sizes_that_are_no_multiple_of_16_are_refused(size):
    with pytest.raises(ValueError, match="multiples of 16"):
        network()(torch.zeros(1, 1, 3, *size), batched(walk_cameras(1)).resized(*size))


def test_the_frame_of_the_world_does_not_matter_and_the_order_of_references_only_permutes():
    net = shaken(network())
    images, cameras = smooth_images(3)[None], batched(walk_cameras(3))
    with torch.no_grad():
        plain = net(images, cameras).relative
        moved = net(images, cameras.relative_to(rigid().expand(1, 3, 4, 4))).relative
        order = torch.tensor([2, 0, 1])
        permuted = net(images[:, order], cameras[:, order]).relative
    torch.testing.assert_close(moved, plain, rtol=0, atol=1e-4)
    torch.testing.assert_close(permuted, plain[:, order], rtol=0, atol=1e-4)
    assert (plain[:, 0] - plain[:, 1]).abs().max() > 1e-3


def test_scenes_of_a_batch_do_not_see_each_other_but_references_of_a_scene_do():
    net = shaken(network())
    images = smooth_images(4).unflatten(0, (2, 2)).requires_grad_()
    out = net(images, batched(walk_cameras(2), 2)).relative
    (gradient,) = torch.autograd.grad(out[0, 0].sum(), images)
    assert gradient[0, 0].abs().max() > 0
    assert gradient[0, 1].abs().max() > 0
    assert gradient[1].abs().max() == 0


def test_unknown_depth_does_not_count():
    """Whatever stands behind a pixel of depth zero: terms do not see it."""
    net = shaken(network())
    images, cameras = smooth_images(2)[None], batched(walk_cameras(2))
    depths = 1.0 + 2 * torch.rand(1, 2, 1, 32, 32)
    depths[..., 8:24, 4:20] = 0.0
    with torch.no_grad():
        out = net(images, cameras)
        terms = net.training_terms(images, cameras, depths)
    known = depths > 0
    error = SPAN.log_ratio * (out.relative - SPAN.relative(depths)).abs()
    torch.testing.assert_close(terms["depth"], error[known].mean())
    spread = out.spread.log() + error / SPAN.log_ratio / out.spread
    torch.testing.assert_close(terms["spread"], spread[known].mean())
    assert terms["edges"] == 0  # differences across the border of the unknown would be meaningless
    assert all(torch.isfinite(term) for term in terms.values())


def test_nothing_known_gives_zero_depth_terms():
    net = network()
    terms = net.training_terms(smooth_images(1)[None], batched(walk_cameras(1)), torch.zeros(1, 1, 1, 32, 32))
    assert set(terms) == {"depth", "relative", "coarse", "edges", "spread"}
    assert not any(terms.values())


def test_depth_terms_are_errors_of_ln_depth():
    """Before training the refinement is zero: a constant depth twice the coarse one costs ln 2 everywhere."""
    net = network()
    with torch.no_grad():
        net.to_logits.weight.zero_()
        net.to_logits.bias.zero_()
        net.refine.bias.zero_()
        terms = net.training_terms(
            torch.rand(1, 1, 3, 32, 32), batched(walk_cameras(1)), torch.full((1, 1, 1, 32, 32), 4.0)
        )
    # uniform logits: r = 1/2, depth = sqrt(0.5 * 8) = 2
    for name in ("depth", "coarse"):
        assert terms[name].item() == pytest.approx(0.6931, abs=1e-3)
    assert terms["edges"].item() == pytest.approx(0.0, abs=1e-5)


def test_gradients_reach_every_parameter():
    net = shaken(network())
    images, cameras = smooth_images(2)[None], batched(walk_cameras(2))
    sum(net.training_terms(images, cameras, 1 + torch.rand(1, 2, 1, 32, 32)).values()).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_ray_slopes_are_tangents_of_the_view_angle():
    cameras = Cameras.from_fov(torch.eye(4), 90.0, 2, 4)  # focal length 2, centre (2, 1)
    u, v = ray_slopes(cameras)
    torch.testing.assert_close(u[0], torch.tensor([-0.75, -0.25, 0.25, 0.75]))
    torch.testing.assert_close(v[:, 0], torch.tensor([-0.25, 0.25]))


def test_relative_error_known_answers():
    ratio = torch.tensor([1.0, 0.5, 2.0, math.e])
    torch.testing.assert_close(_relative_error(ratio.log()), torch.tensor([0.0, 0.5, 1.0, math.e - 1]))
    steep, straight = (_relative_error(torch.tensor(x)) for x in (1.0, 2.0))
    torch.testing.assert_close(straight - steep, torch.tensor(math.e))
