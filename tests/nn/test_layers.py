"""Shared blocks: known values of embeddings, identities at the start, gradients everywhere."""

from __future__ import annotations

import math

import pytest
import torch

from latent3d.nn.layers import (
    FiLM,
    NoiseEmbedding,
    ResBlock2d,
    RMSNorm,
    fourier_embedding,
    fourier_width,
    group_count,
    sinusoidal_embedding,
)


def test_sinusoids_have_known_values():
    code = sinusoidal_embedding(torch.tensor([0.0, math.pi]), 4, max_period=4.0)
    expected = torch.tensor([[1.0, 1.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 1.0]])
    torch.testing.assert_close(code, expected, atol=1e-6, rtol=0)


def test_sinusoids_reject_odd_widths():
    with pytest.raises(ValueError, match="even"):
        sinusoidal_embedding(torch.zeros(2), 5)


def test_sinusoids_keep_double_precision_and_promote_integers():
    assert sinusoidal_embedding(torch.zeros(2, dtype=torch.float64), 4).dtype == torch.float64
    assert sinusoidal_embedding(torch.arange(3), 4).dtype == torch.float32


@pytest.mark.parametrize("include_input", [True, False])
def test_fourier_code_has_known_values_and_width(include_input):
    code = fourier_embedding(torch.tensor([[0.5, 0.25]], dtype=torch.float64), 2, include_input)
    assert code.shape[-1] == fourier_width(2, 2, include_input)
    root = math.sqrt(0.5)
    # per coordinate: sin at pi x and 2 pi x, then the cosines
    known = torch.tensor([1.0, 0.0, root, 1.0, 0.0, -1.0, root, 0.0], dtype=torch.float64)
    torch.testing.assert_close(code[0, -8:], known)


def test_rms_norm_gives_unit_mean_square():
    x = 5 * torch.randn(3, 7, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    norm = RMSNorm(64).double()
    torch.testing.assert_close(norm(x).square().mean(-1), torch.ones(3, 7, dtype=torch.float64), atol=1e-5, rtol=0)
    assert norm(x.float()).dtype == torch.float32


def test_film_is_identity_at_the_start_and_then_scales_and_shifts():
    film = FiLM(4, 2)
    x, cond = torch.randn(3, 2, 5, 5), torch.randn(3, 4)
    assert torch.equal(film(x, cond), x)
    with torch.no_grad():
        film.linear.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 3.0]))
    torch.testing.assert_close(film(x, cond), torch.stack([2 * x[:, 0], x[:, 1] + 3], 1))


@pytest.mark.parametrize(("channels", "groups"), [(8, 2), (96, 24), (128, 32), (320, 32), (7, 1), (3, 1)])
def test_group_count_divides(channels, groups):
    assert group_count(channels) == groups


def test_residual_block_starts_as_identity():
    block = ResBlock2d(8, cond_dim=4)
    x = torch.randn(2, 8, 5, 6)
    assert torch.equal(block(x, torch.randn(2, 4)), x)


def test_residual_block_gradients_reach_everything():
    torch.manual_seed(0)
    block = ResBlock2d(8, 12, cond_dim=4, kernel_size=1, dropout=0.1, zero_last=False)
    torch.nn.init.normal_(block.film.linear.weight)
    cond = torch.randn(2, 4, requires_grad=True)
    out = block(torch.randn(2, 8, 5, 6), cond)
    assert out.shape == (2, 12, 5, 6)
    out.square().sum().backward()
    assert cond.grad.abs().max() > 0
    assert all(parameter.grad.abs().max() > 0 for parameter in block.parameters())


def test_residual_block_insists_on_its_condition():
    with pytest.raises(ValueError, match="condition"):
        ResBlock2d(8, cond_dim=4)(torch.randn(1, 8, 4, 4))
    with pytest.raises(ValueError, match="condition"):
        ResBlock2d(8)(torch.randn(1, 8, 4, 4), torch.randn(1, 4))


def test_noise_embedding_tells_levels_apart():
    torch.manual_seed(0)
    embedding = NoiseEmbedding(32, hidden=16)
    levels = torch.linspace(-1.6, 1.7, 30).reshape(5, 6)
    codes = embedding(levels)
    assert codes.shape == (5, 6, 32)
    distances = torch.cdist(codes.flatten(0, 1), codes.flatten(0, 1)) + 10 * torch.eye(30)
    assert distances.min() > 1e-3
