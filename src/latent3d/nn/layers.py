"""Shared blocks: norms, conditioning by scale and shift, residual blocks, and embeddings of coordinates.

Letters: n = images, c = channels, d = embedding width, h/w = rows and columns.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Real
from torch import Tensor, nn


def zero_init(module: nn.Module) -> nn.Module:
    """Set every parameter of ``module`` to zero and return it (a branch that starts by adding nothing)."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def sinusoidal_embedding(values: Real[Tensor, "*batch"], dim: int, max_period: float = 10000.0) -> Tensor:
    """Transformer position code of real numbers: [cos(v w_i), sin(v w_i)], w_i geometric from 1 to 1/max_period.

    Args:
        values: any shape, in units where differences of about one should be told apart.
        dim: even output width.
        max_period: slowest period divided by 2 pi.

    Returns:
        (..., dim), at least float32.

    Raises:
        ValueError: if ``dim`` is odd.
    """
    if dim % 2:
        raise ValueError(f"the embedding width must be even, got {dim}")
    wide = values if values.dtype == torch.float64 else values.float()
    steps = torch.arange(dim // 2, dtype=wide.dtype, device=values.device) / (dim // 2)
    angles = wide[..., None] * torch.exp(-math.log(max_period) * steps)
    return torch.cat([angles.cos(), angles.sin()], -1)


def fourier_embedding(values: Float[Tensor, "*batch c"], octaves: int, include_input: bool = True) -> Tensor:
    """NeRF's positional code: each coordinate with sin and cos at frequencies pi 2^0 .. pi 2^(octaves-1).

    Args:
        values: coordinates (..., c), best within [-1, 1].
        octaves: number of frequencies.
        include_input: put the coordinates themselves first.

    Returns:
        (..., fourier_width(c, octaves, include_input)).
    """
    frequencies = math.pi * 2.0 ** torch.arange(octaves, dtype=values.dtype, device=values.device)
    angles = (values[..., None] * frequencies).flatten(-2)
    parts = [values] if include_input else []
    return torch.cat([*parts, angles.sin(), angles.cos()], -1)


def fourier_width(channels: int, octaves: int, include_input: bool = True) -> int:
    """Number of channels `fourier_embedding` returns."""
    return channels * (2 * octaves + int(include_input))


class NoiseEmbedding(nn.Module):
    """Embedding of the noise level c_noise = 0.25 ln sigma: sinusoids, then a two-layer network.

    Args:
        dim: output width.
        hidden: width of the sinusoids and of the hidden layer; ``dim`` when None.
        scale: factor on c_noise before the sinusoids. EDM's c_noise spans about [-1.6, 1.7]; the factor spreads it
            so that neighbouring noise levels get different codes.
    """

    def __init__(self, dim: int, hidden: int | None = None, scale: float = 100.0) -> None:
        super().__init__()
        self.width = hidden or dim
        self.scale = scale
        self.network = nn.Sequential(nn.Linear(self.width, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, c_noise: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch d"]:
        """Noise levels (...) to embeddings (..., dim)."""
        code = sinusoidal_embedding(c_noise * self.scale, self.width)
        return self.network(code.to(next(self.network.parameters()).dtype))


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last axis with a learned gain (Zhang and Sennrich 2019)."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """x / rms(x) * gain, in the dtype of x."""
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


class FiLM(nn.Module):
    """Scale and shift of feature maps by a condition: x (1 + scale) + shift, zero-initialised (identity at the start).

    Args:
        cond_dim: width of the condition vector.
        channels: channels of the feature map.
    """

    def __init__(self, cond_dim: int, channels: int) -> None:
        super().__init__()
        self.linear = zero_init(nn.Linear(cond_dim, 2 * channels))

    def forward(self, x: Float[Tensor, "n c h w"], cond: Float[Tensor, "n d"]) -> Float[Tensor, "n c h w"]:
        """Feature maps (n, c, h, w) and conditions (n, d) to feature maps."""
        scale, shift = self.linear(F.silu(cond)).to(x.dtype)[..., None, None].chunk(2, dim=1)
        return torch.addcmul(shift, x, 1 + scale)


def group_count(channels: int, largest: int = 32) -> int:
    """Largest number of groups up to ``largest`` that divides ``channels`` and leaves groups of at least 4 channels."""
    return max(g for g in range(1, largest + 1) if channels % g == 0 and (g == 1 or channels // g >= 4))


class ResBlock2d(nn.Module):
    """Pre-activation residual block: GroupNorm, SiLU, conv, GroupNorm, [FiLM], SiLU, conv, plus the input.

    Args:
        in_channels, out_channels: a 1x1 convolution carries the input when they differ.
        cond_dim: width of a condition per image (FiLM after the second norm); None for no condition.
        kernel_size: odd size of both convolutions.
        groups: upper limit on the groups of each norm.
        dropout: probability before the second convolution.
        zero_last: start as the identity (last convolution zero).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        *,
        cond_dim: int | None = None,
        kernel_size: int = 3,
        groups: int = 32,
        dropout: float = 0.0,
        zero_last: bool = True,
    ) -> None:
        super().__init__()
        out_channels = out_channels or in_channels
        padding = kernel_size // 2
        self.norm1 = nn.GroupNorm(group_count(in_channels, groups), in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding)
        self.norm2 = nn.GroupNorm(group_count(out_channels, groups), out_channels)
        self.film = FiLM(cond_dim, out_channels) if cond_dim is not None else None
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size, padding=padding)
        if zero_last:
            zero_init(self.conv2)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Float[Tensor, "n c h w"], cond: Float[Tensor, "n d"] | None = None) -> Tensor:
        """Feature maps (n, in_channels, h, w), conditions (n, cond_dim) -> (n, out_channels, h, w).

        Raises:
            ValueError: if a condition is given to a block without one, or the reverse.
        """
        if (cond is None) != (self.film is None):
            raise ValueError("pass a condition exactly when the block was built with cond_dim")
        hidden = self.norm2(self.conv1(F.silu(self.norm1(x))))
        if self.film is not None and cond is not None:
            hidden = self.film(hidden, cond)
        return self.shortcut(x) + self.conv2(self.dropout(F.silu(hidden)))
