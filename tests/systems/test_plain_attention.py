"""T_epi's plain kind: the comparison without epipolar sampling."""

from __future__ import annotations

import pytest
import torch

from latent3d.geometry.depth_range import DepthRange
from latent3d.nn.layers import fourier_embedding
from latent3d.systems.epipolar_transformer import EpipolarTransformerConfig, PlainAttention, epipolar_lines
from systems.common import batched, scene_views, shaken, tiny_config, walk_cameras

SPAN = DepthRange(near=0.4, far=20.0, spacing="log")


def config(**changes) -> EpipolarTransformerConfig:
    values = {"depth_range": SPAN, "width": 8, "heads": 2, "layers": 2, "samples": 5, "octaves": 2, "kind": "plain"}
    return EpipolarTransformerConfig(**(values | changes))


def attention_case(views: int = 4, max_sources: int | None = None):
    settings = config(max_sources=max_sources)
    layer = shaken(settings.build(8).attentions[0], 0.3).double()
    cameras = batched(walk_cameras(views, step=0.6, dtype=torch.float64), 2)
    lines = epipolar_lines(cameras, torch.arange(views) == 1, settings, 2, 3)
    return layer, lines, torch.randn(2, views, 6, 8, dtype=torch.float64)


def slow_attention(layer: PlainAttention, x: torch.Tensor, lines) -> torch.Tensor:
    """One query and one key at a time."""
    heads, octaves = layer.config.heads, layer.config.octaves
    tokens = layer.norm(x) + layer.code(fourier_embedding(lines.rays, octaves))
    query, key, value = (part.unflatten(-1, (heads, -1)) for part in layer.qkv(tokens).chunk(3, -1))
    null, out = layer.null.unflatten(-1, (heads, -1)), torch.zeros_like(x)
    for scene in range(x.shape[0]):
        for view in range(x.shape[1]):
            for pixel in range(x.shape[2]):
                mixed = []
                for head in range(heads):
                    q = query[scene, view, pixel, head]
                    others = [(s, p) for s in lines.sources[scene, view].tolist() for p in range(x.shape[2])]
                    scores = [q @ key[scene, s, p, head] for s, p in others] + [q @ null[head]]
                    weights = (torch.stack(scores) / len(q) ** 0.5).softmax(0)
                    values = torch.stack([value[scene, s, p, head] for s, p in others])
                    mixed.append((weights[:-1, None] * values).sum(0))
                out[scene, view, pixel] = torch.cat(mixed)
    return layer.out(out)


@pytest.mark.parametrize("max_sources", [None, 2])
def test_it_equals_a_loop_over_queries_and_keys(max_sources):
    layer, lines, x = attention_case(max_sources=max_sources)
    fast = layer(x, lines)
    assert fast.abs().mean() > 0.05
    torch.testing.assert_close(fast, slow_attention(layer, x, lines), rtol=1e-9, atol=1e-9)


def test_every_pixel_of_every_source_is_read_and_no_other_view():
    layer, lines, x = attention_case(max_sources=2)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x, lines)[0, 3, 0].square().sum(), x)
    touched = gradient.abs().amax(-1) > 0
    expected = torch.zeros(4, 6, dtype=torch.bool)
    expected[lines.sources[0, 3]] = True
    expected[3, 0] = True  # the query itself
    assert torch.equal(touched[0], expected)
    assert not touched[1].any()


def test_rays_matter():
    layer, lines, x = attention_case()
    other = epipolar_lines(batched(walk_cameras(4, step=0.1), 2), torch.arange(4) == 1, layer.config, 2, 3)
    moved = layer(x, type(lines)(lines.sources, lines.corners, lines.weights, lines.valid, other.rays.double()))
    assert (moved - layer(x, lines)).abs().mean() > 1e-3


@pytest.mark.parametrize("count", [1, 2])
def test_a_single_view_still_works_and_gradients_flow(count):
    settings = config()
    network = shaken(settings.build(6))
    lines = epipolar_lines(batched(walk_cameras(count), 2), torch.arange(count) == 0, settings, 4, 4)
    features = torch.randn(2, count, 6, 4, 4, requires_grad=True)
    out = network(features, lines)
    assert out.shape == (2, count, 8, 4, 4)
    out[:, 0].square().sum().backward()
    assert (features.grad.abs().amax((2, 3, 4)) > 0).all()
    silent = [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert count == 1 or not silent


def test_it_has_about_as_many_parameters():
    from latent3d.presets import ggs_rooms

    epipolar = ggs_rooms().system.epipolar
    counts = [
        sum(p.numel() for p in epipolar.replace(kind=kind).build(128).parameters()) for kind in ("epipolar", "plain")
    ]
    assert abs(counts[1] / counts[0] - 1) < 0.03


def test_the_system_trains_with_it():
    parts = tiny_config()
    system = parts.replace(epipolar=parts.epipolar.replace(kind="plain"), geometry=None).build()
    shaken(system)
    terms = system.training_terms(scene_views(5), "scene", torch.Generator().manual_seed(0))
    sum(term for term in terms.values()).backward()
    gradient = system.epipolar.attentions[0].qkv.weight.grad
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'epipolar', 'plain'"):
        EpipolarTransformerConfig.from_dict({**config().to_dict(), "kind": "dense"})


def test_lines_of_the_other_kind_are_refused():
    layer, _, x = attention_case()
    cameras = batched(walk_cameras(4, dtype=torch.float64), 2)
    lines = epipolar_lines(cameras, torch.arange(4) == 1, config(kind="epipolar"), 2, 3)
    with pytest.raises(ValueError, match="rays"):
        layer(x, lines)
