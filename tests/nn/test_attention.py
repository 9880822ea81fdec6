"""Attention: the CPU's half-precision path against the exact one, symmetries, limits with known answers."""

from __future__ import annotations

import pytest
import torch

from latent3d.nn.attention import AdaLN, CrossAttention, FeedForward, GatedFeedForward, SelfAttention, attend, modulate


def _qkv(dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, n, 16, generator=generator).to(dtype) for n in (9, 11, 11)]


def test_attend_equals_the_written_formula():
    q, k, v = _qkv(torch.float64)
    expected = torch.einsum("bhnl,bhlc->bhnc", torch.softmax(torch.einsum("bhnc,bhlc->bhnl", q, k) / 4, -1), v)
    torch.testing.assert_close(attend(q, k, v), expected)


def test_half_precision_on_cpu_agrees_with_single_in_values_and_gradients():
    exact = [tensor.requires_grad_() for tensor in _qkv(torch.float32)]
    half = [tensor.detach().bfloat16().requires_grad_() for tensor in exact]
    out, rough = attend(*exact), attend(*half)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), out, atol=0.03, rtol=0.03)
    out.square().sum().backward()
    rough.float().square().sum().backward()
    for a, b in zip(exact, half, strict=True):
        assert (a.grad - b.grad.float()).norm() < 0.03 * a.grad.norm()


def test_one_context_token_gives_its_value_to_every_query():
    torch.manual_seed(0)
    attention = CrossAttention(16, 6, 2)
    context = torch.randn(2, 1, 6)
    out = attention(torch.randn(2, 5, 16), context)
    value = attention.out(attention.kv(context)[..., 16:])
    torch.testing.assert_close(out, value.expand(2, 5, 16))


def test_self_attention_commutes_with_permutations():
    torch.manual_seed(0)
    attention, x = SelfAttention(16, 2), torch.randn(2, 7, 16)
    order = torch.randperm(7)
    torch.testing.assert_close(attention(x)[:, order], attention(x[:, order]))


@pytest.mark.parametrize("build", [lambda: SelfAttention(10, 3), lambda: CrossAttention(10, 4, 3)])
def test_width_must_be_a_multiple_of_heads(build):
    with pytest.raises(ValueError, match="multiple"):
        build()


def test_adaptive_norm_starts_closed():
    parts = AdaLN(8, 16, branches=3)(torch.randn(2, 5, 8))
    assert len(parts) == 9
    assert all(part.shape == (2, 5, 16) and not part.any() for part in parts)


def test_modulate_scales_and_shifts():
    x = torch.tensor([1.0, 2.0])
    assert modulate(x, torch.tensor([1.0, 1.0]), torch.tensor([0.0, 2.0])).tolist() == [2.0, 7.0]


@pytest.mark.parametrize("kind", [FeedForward, GatedFeedForward])
def test_feed_forward_acts_per_token(kind):
    torch.manual_seed(0)
    layer, x = kind(8, 20), torch.randn(2, 5, 8)
    torch.testing.assert_close(layer(x)[:, 3], layer(x[:, 3]))
