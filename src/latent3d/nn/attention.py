"""Attention and transformer blocks on PyTorch's own scaled dot product.

Letters: b = batch, n = tokens, d = width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from latent3d.nn.layers import RMSNorm, zero_init

KeysValues = tuple[Float[Tensor, "b heads _ c"], Float[Tensor, "b heads _ c"]]
"""Normalised keys, and values, of tokens: all that queries need of them, computed once where tokens do not change."""


def attend(
    q: Float[Tensor, "b heads n c"],
    k: Float[Tensor, "b heads l c"],
    v: Float[Tensor, "b heads l c"],
    keep: Bool[Tensor, "b l"] | None = None,
) -> Float[Tensor, "b heads n c"]:
    """softmax(q k^T / sqrt(c)) v, over the keys that ``keep`` names (at least one for each batch entry).

    PyTorch's fused kernel everywhere, except in half precision on a CPU: there its kernel makes no use of bfloat16
    dot products, and two plain matrix products are 2 to 5 times faster as long as the weights fit into the cache.
    """
    mask = None if keep is None else keep[:, None, None, :]
    half_on_cpu = q.device.type == "cpu" and q.dtype in (torch.bfloat16, torch.float16)
    if half_on_cpu and q.shape[-2] * k.shape[-2] <= 2**21:
        logits = torch.matmul(q * q.shape[-1] ** -0.5, k.mT)
        weights = (logits if mask is None else logits.masked_fill(~mask, -torch.inf)).softmax(-1)
        return torch.matmul(weights.to(v.dtype), v)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class SelfAttention(nn.Module):
    """Multi-head self-attention with normalised queries and keys (Henry et al. 2020; RMS as in SD3).

    Args:
        dim: token width, a multiple of ``heads``.
        heads: number of heads.
        norm_queries: off for networks of the older kind, whose queries and keys are used as they are.

    Raises:
        ValueError: if ``dim`` is no multiple of ``heads``.
    """

    def __init__(self, dim: int, heads: int, norm_queries: bool = True) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"the width {dim} must be a multiple of the number of heads {heads}")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.norm_q = RMSNorm(dim // heads) if norm_queries else nn.Identity()
        self.norm_k = RMSNorm(dim // heads) if norm_queries else nn.Identity()
        self.out = nn.Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        beside: KeysValues | None = None,
        keep: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Tokens (b, n, dim) to tokens; every token sees every other of its batch entry.

        Args:
            x: tokens.
            beside: keys and values of further tokens, which are seen but not updated (see `keys_values`).
            keep: tokens that are seen; None for all. Not together with ``beside``.
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        q, k, v = self.norm_q(q).transpose(1, 2), self.norm_k(k).transpose(1, 2), v.transpose(1, 2)
        if beside is not None:
            k, v = (torch.cat([own, more.to(own.dtype)], 2) for own, more in zip((k, v), beside, strict=True))
        return self.out(rearrange(attend(q, k, v, keep), "b heads n c -> b n (heads c)"))

    def keys_values(self, tokens: Float[Tensor, "b l d"]) -> KeysValues:
        """Keys and values of tokens that ask nothing themselves: no query and no output projection is computed."""
        width = self.qkv.in_features
        both = F.linear(tokens, self.qkv.weight[width:], self.qkv.bias[width:])
        k, v = both.unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return self.norm_k(k).transpose(1, 2), v.transpose(1, 2)


class CrossAttention(nn.Module):
    """Multi-head attention from tokens to a context of another width, with normalised queries and keys.

    Args:
        dim: token width, a multiple of ``heads``.
        context_dim: context width.
        heads: number of heads.
        kv_bias: whether keys and values have a bias. Without it a context of zeros adds nothing.

    Raises:
        ValueError: if ``dim`` is no multiple of ``heads``.
    """

    def __init__(self, dim: int, context_dim: int, heads: int, kv_bias: bool = True) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"the width {dim} must be a multiple of the number of heads {heads}")
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(context_dim, 2 * dim, bias=kv_bias)
        self.norm_q = RMSNorm(dim // heads)
        self.norm_k = RMSNorm(dim // heads)
        self.out = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "b n d"], context: Float[Tensor, "b l e"] | KeysValues
    ) -> Float[Tensor, "b n d"]:
        """Tokens (b, n, dim) and context (b, l, context_dim), or its `keys_values`, to tokens (b, n, dim)."""
        k, v = context if isinstance(context, tuple) else self.keys_values(context)
        q = self.norm_q(self.q(x).unflatten(-1, (self.heads, -1))).transpose(1, 2)
        return self.out(rearrange(attend(q, k.to(q.dtype), v.to(q.dtype)), "b heads n c -> b n (heads c)"))

    def keys_values(self, context: Float[Tensor, "b l e"]) -> KeysValues:
        """Keys and values of a context, which may serve many queries."""
        k, v = self.kv(context).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return self.norm_k(k).transpose(1, 2), v.transpose(1, 2)


class AdaLN(nn.Module):
    """Scale, shift and gate of several residual branches from one condition (DiT, Peebles and Xie 2023, adaLN-Zero).

    Args:
        cond_dim: width of the condition.
        dim: token width.
        branches: number of residual branches; each takes (shift, scale, gate).
    """

    def __init__(self, cond_dim: int, dim: int, branches: int = 2) -> None:
        super().__init__()
        self.branches = branches
        self.linear = zero_init(nn.Linear(cond_dim, 3 * branches * dim))

    def forward(self, cond: Float[Tensor, "*batch e"]) -> tuple[Tensor, ...]:
        """Condition (..., cond_dim) -> 3 * branches tensors (..., dim) in the order shift, scale, gate per branch."""
        return self.linear(F.silu(cond)).chunk(3 * self.branches, dim=-1)


class FeedForward(nn.Sequential):
    """Two linear layers with GELU between.

    Args:
        dim: input and output width.
        hidden: width between.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class GatedFeedForward(nn.Module):
    """SwiGLU (Shazeer 2020): W3 (silu(W1 x) * W2 x).

    Args:
        dim: input and output width.
        hidden: width between.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate_and_value = nn.Linear(dim, 2 * hidden)
        self.out = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Tokens (..., dim) to tokens."""
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        return self.out(F.silu(gate) * value)


class EncoderBlock(nn.Module):
    """Pre-norm transformer block without modulation, for encoders of words and of picture patches.

    Args:
        dim: token width, a multiple of ``heads``.
        heads: number of heads.
        mlp_ratio: hidden over token width in the feed-forward layer.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norm_attention = RMSNorm(dim)
        self.attention = SelfAttention(dim, heads)
        self.norm_mlp = RMSNorm(dim)
        self.mlp = FeedForward(dim, round(dim * mlp_ratio))

    def forward(self, x: Float[Tensor, "b n d"], keep: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b n d"]:
        """Tokens (b, n, dim) to tokens; those outside ``keep`` are not seen by the others."""
        x = x + self.attention(self.norm_attention(x), keep=keep)
        return x + self.mlp(self.norm_mlp(x))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift; all tensors broadcast."""
    return torch.addcmul(shift.to(x.dtype), x, 1 + scale.to(x.dtype))
