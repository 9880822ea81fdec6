"""T_epi: its sources, a slow twin that gathers every sample, single views, gradients."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.depth_range import DepthRange
from latent3d.geometry.plane_sweep import plane_sweep_positions
from latent3d.nn.layers import fourier_embedding
from latent3d.systems.epipolar_transformer import (
    EpipolarAttention,
    EpipolarTransformerConfig,
    epipolar_lines,
    hypotheses,
)
from systems.common import batched, shaken, walk_cameras

SPAN = DepthRange(near=0.4, far=20.0, spacing="log")


def config(**changes) -> EpipolarTransformerConfig:
    values = {"depth_range": SPAN, "width": 8, "heads": 2, "layers": 2, "samples": 5, "octaves": 2} | changes
    return EpipolarTransformerConfig(**values)


def naive_attention(
    layer: EpipolarAttention, x: Tensor, cameras: Cameras, sources: Tensor, height: int, width: int
) -> Tensor:
    """One key and one value vector gathered by `grid_sample` for every sample; softmax over a Python list of scores."""
    settings = layer.config
    b, m, _, channels = x.shape
    query, key, value = layer.qkv(layer.norm(x)).chunk(3, -1)
    r = hypotheses(settings, x.device).to(x.dtype)
    code_k, code_v = layer.code(fourier_embedding(r[:, None] * 2 - 1, settings.octaves)).chunk(2, -1)
    per_head = channels // settings.heads
    out = torch.zeros_like(x)
    for scene in range(b):
        for view in range(m):
            scores, values = [], []
            for source in sources[scene, view].tolist():
                positions, valid = plane_sweep_positions(
                    cameras[scene, view], cameras[scene, source], settings.depth_range.depth(r), height, width
                )
                grid = (positions / positions.new_tensor([width, height]) * 2 - 1).reshape(1, -1, 1, 2)
                maps = torch.cat([key[scene, source], value[scene, source]], -1).T.reshape(1, -1, height, width)
                sampled = F.grid_sample(maps, grid, align_corners=False)[0, :, :, 0].T
                sampled = sampled.unflatten(0, (settings.samples, height * width))
                keys = sampled[..., :channels] + code_k[:, None]
                dots = (keys * query[scene, view]).unflatten(-1, (settings.heads, per_head)).sum(-1)
                dots = dots / math.sqrt(per_head)
                scores.append(dots.masked_fill(valid.flatten(1)[..., None] == 0, -torch.inf))
                values.append(sampled[..., channels:] + code_v[:, None])
            scores.append(layer.null.expand(1, height * width, settings.heads))
            weights = torch.cat(scores).softmax(0)[:-1]
            weights = weights.repeat_interleave(per_head, -1)
            out[scene, view] = (weights * torch.cat(values)).sum(0)
    return layer.out(out)


def attention_case(dtype, max_sources=None):
    settings = config(max_sources=max_sources)
    torch.manual_seed(0)
    layer = shaken(settings.build(8).attentions[0], 0.3).to(dtype)
    cameras = batched(walk_cameras(4, step=0.6, dtype=dtype), 2)
    is_reference = torch.tensor([False, True, False, False])
    lines = epipolar_lines(cameras, is_reference, settings, 4, 6)
    x = torch.randn(2, 4, 24, 8, dtype=dtype)
    return layer, cameras, lines, x


@pytest.mark.parametrize("max_sources", [None, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_equals_a_twin_that_gathers_every_sample(dtype, max_sources):
    layer, cameras, lines, x = attention_case(dtype, max_sources)
    assert 0.1 < lines.valid.mean() < 0.9  # both kinds of samples take part
    fast, slow = layer(x, lines), naive_attention(layer, x, cameras, lines.sources, 4, 6)
    assert fast.abs().mean() > 0.05
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)


def test_gradients_equal_those_of_the_twin():
    layer, cameras, lines, x = attention_case(torch.float64)
    x.requires_grad_()
    wanted = [x, *layer.parameters()]
    probe = torch.randn(x.shape, dtype=x.dtype)
    fast = torch.autograd.grad((layer(x, lines) * probe).sum(), wanted)
    slow = torch.autograd.grad((naive_attention(layer, x, cameras, lines.sources, 4, 6) * probe).sum(), wanted)
    for a, b in zip(fast, slow, strict=True):
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_query_reads_its_sources_only_where_its_lines_run():
    """Changing a source pixel that no valid sample of a query touches leaves that query unchanged."""
    layer, _, lines, x = attention_case(torch.float64, max_sources=1)
    with torch.no_grad():
        before = layer(x, lines)
        source = int(lines.sources[0, 2, 0])
        changed = x.clone()
        changed[0, source, 7] = torch.randn(8, dtype=x.dtype)
        after = layer(changed, lines)
        weight = lines.weights[0, 2, 0].unflatten(-1, (-1, 4)) * lines.valid[0, 2, 0][..., None]
    touched = ((lines.corners[0, 2, 0].unflatten(-1, (-1, 4)) == 7) & (weight > 0)).any(-1).any(-1)
    moved = (before - after)[0, 2].abs().amax(-1) > 1e-9
    assert touched.any()
    assert not touched.all()
    assert torch.equal(moved, touched)


def test_sources_are_references_first_then_the_nearest_and_never_the_view_itself():
    cameras = batched(walk_cameras(5), 2)  # views 0 to 4 in a row, equally spaced
    is_reference = torch.tensor([False, False, False, True, False])
    lines = epipolar_lines(cameras, is_reference, config(), 2, 2)
    assert lines.sources.shape == (2, 5, 4)
    assert torch.equal(lines.sources[0], lines.sources[1])
    assert lines.sources[0, 0].tolist() == [3, 1, 2, 4]
    assert lines.sources[0, 4].tolist()[0] == 3
    assert lines.sources[0, 3, 0].item() in (2, 4)
    assert lines.sources[0, 3, -1].item() == 0
    for view in range(5):
        assert sorted(lines.sources[0, view].tolist()) == [other for other in range(5) if other != view]
    two = torch.tensor([True, False, False, False, True])
    few = epipolar_lines(cameras, two, config(max_sources=2), 2, 2).sources[0]
    assert few[[0, 1, 3, 4]].tolist() == [[4, 1], [0, 4], [4, 0], [0, 3]]
    assert sorted(few[2].tolist()) == [0, 4]  # in the middle


def test_roles_may_differ_between_scenes():
    cameras = batched(walk_cameras(4), 2)
    roles = torch.tensor([[True, False, False, False], [False, False, False, True]])
    sources = epipolar_lines(cameras, roles, config(max_sources=1), 2, 2).sources
    assert sources[0, 1:].flatten().tolist() == [0, 0, 0]
    assert sources[1, :3].flatten().tolist() == [3, 3, 3]


def test_views_at_one_place_have_lines_too():
    """Pure rotation: no distances, no parallax; lines are single points and everything stays finite."""
    cameras = batched(walk_cameras(3, step=0.0))
    lines = epipolar_lines(cameras, torch.tensor([True, False, False]), config(), 4, 4)
    assert lines.sources[0, 1].tolist()[0] == 0
    weights = lines.weights.unflatten(-1, (5, 4))
    torch.testing.assert_close(weights, weights[..., :1, :].expand_as(weights), rtol=0, atol=1e-3)


def test_weights_are_bilinear():
    """They sum to one well inside the image, and to zero outside of it."""
    cameras = batched(walk_cameras(3, step=0.6))
    lines = epipolar_lines(cameras, torch.tensor([True, False, False]), config(), 8, 8)
    total = lines.weights.unflatten(-1, (5, 4)).sum(-1)
    assert total.min() >= 0
    assert total.max() <= 1 + 1e-5
    assert (total[lines.valid > 0] >= 0.25 - 1e-5).all()  # a corner pixel's outer quarter keeps a quarter
    assert lines.corners.min() >= 0
    assert lines.corners.max() < 64
    assert (total[lines.valid > 0] - 1).abs().median() < 1e-5


@pytest.mark.parametrize("count", [1, 2])
def test_a_single_view_still_works_and_gradients_flow(count):
    settings = config()
    network = shaken(settings.build(6))
    cameras = batched(walk_cameras(count), 2)
    lines = epipolar_lines(cameras, torch.arange(count) == 0, settings, 4, 4)
    features = torch.randn(2, count, 6, 4, 4, requires_grad=True)
    out = network(features, lines)
    assert out.shape == (2, count, 8, 4, 4)
    out.square().sum().backward()
    assert features.grad.abs().amax((2, 3, 4)).min() > 0
    silent = [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    crossing = ("norm", "qkv", "code", "null", "out.weight")
    expected = [
        name
        for name, _ in network.named_parameters()
        if name.startswith("attentions") and any(c in name for c in crossing)
    ]
    assert silent == ([] if count > 1 else expected)


def test_it_starts_as_a_projection_of_its_input():
    """Zero-initialised branches: before training T_epi only projects, so views are still apart."""
    settings = config()
    network = settings.build(6)
    cameras = batched(walk_cameras(3))
    lines = epipolar_lines(cameras, torch.tensor([True, False, False]), settings, 4, 4)
    features = torch.randn(1, 3, 6, 4, 4)
    torch.testing.assert_close(network(features, lines)[0], network.project(features[0]))
