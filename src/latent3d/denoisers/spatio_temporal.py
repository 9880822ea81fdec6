"""Walks through diffusers' spatio-temporal blocks that carry camera features along.

The modules (and with them the names of SVD's weights) stay diffusers' own; only the order of calls is written here,
because their forward methods have no place for camera features and recompute on every frame what all frames share.
With no camera features the results equal theirs.

Letters: B = batch, M = frames, N = B M, c = channels, h, w = size, L = context tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock, TemporalBasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import AlphaBlender, SpatioTemporalResBlock, TemporalResnetBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.memory import recomputed
from latent3d.nn.attention import attend


@dataclass(frozen=True)
class Pose:
    """Camera features at one attention: tokens (B h w, M, c), the zero-initialised merge, and the factor s."""

    tokens: Tensor
    merge: nn.Linear
    strength: float

    def into(self, x: Float[Tensor, "n m c"]) -> Float[Tensor, "n m c"]:
        """x + s Linear(x + pose)."""
        return x + self.strength * self.merge(x + self.tokens)


def blend(mixer: AlphaBlender, spatial: Tensor, temporal: Tensor) -> Tensor:
    """alpha spatial + (1 - alpha) temporal with the learned alpha = sigmoid(mix_factor)."""
    alpha = mixer.get_parameter("mix_factor").sigmoid().to(spatial.dtype)
    return alpha * spatial + (1 - alpha) * temporal


def temporal_convolution(conv: nn.Conv3d, x: Float[Tensor, "B c M p"]) -> Float[Tensor, "B d M p"]:
    """A (3, 1, 1) convolution as a (3, 1) one over flattened pixels: the same sum, up to 3 times faster on a CPU."""
    return F.conv2d(x, conv.weight.squeeze(-1), conv.bias, padding=(1, 0))


def temporal_residual(block: TemporalResnetBlock, x: Float[Tensor, "B c M p"], embedding: Tensor) -> Tensor:
    """Residual block over frames: norm, SiLU, conv, + noise embedding (B, M, e), norm, SiLU, conv, + input."""
    hidden = temporal_convolution(block.conv1, F.silu(block.norm1(x)))
    hidden = hidden + rearrange(block.time_emb_proj(F.silu(embedding)), "B M c -> B c M 1")
    return x + temporal_convolution(block.conv2, F.silu(block.norm2(hidden)))


def residual(block: SpatioTemporalResBlock, x: Float[Tensor, "N c h w"], embedding: Tensor) -> Float[Tensor, "N d h w"]:
    """Spatial residual block on every frame, then the temporal one, blended; embedding (B, M, e)."""
    frames = embedding.shape[1]
    spatial = recomputed(block.spatial_res_block, x, embedding.flatten(0, 1), level="leanest")
    height = spatial.shape[-2]
    stacked = rearrange(spatial, "(B M) c h w -> B c M (h w)", M=frames)
    mixed = blend(block.time_mixer, stacked, temporal_residual(block.temporal_res_block, stacked, embedding))
    return rearrange(mixed, "B c M (h w) -> (B M) c h w", h=height)


def self_attention(attention: Attention, x: Float[Tensor, "n t c"]) -> Float[Tensor, "n t c"]:
    """Self-attention with the weights of diffusers' module."""
    q, k, v = (
        layer(x).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for layer in (attention.to_q, attention.to_k, attention.to_v)
    )
    return attention.to_out[0](rearrange(attend(q, k, v), "n heads t c -> n t (heads c)"))


def cross_attention(attention: Attention, x: Tensor, norm: nn.Module, context: Float[Tensor, "B L e"]) -> Tensor:
    """What the tokens x (B k, t, c) of each batch entry draw from its context; (B k, t, c) or broadcastable to it.

    A single context token gets all attention whatever the query asks, so queries and keys are left out then (an image
    prior such as SVD has exactly one); they would get zero gradients and get none.
    """
    batch = context.shape[0]
    if context.shape[1] == 1:
        value = attention.to_out[0](attention.to_v(context))
        return value.repeat_interleave(x.shape[0] // batch, 0)
    tokens = norm(x).reshape(batch, -1, x.shape[-1])
    q, k, v = (
        layer(part).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for layer, part in ((attention.to_q, tokens), (attention.to_k, context), (attention.to_v, context))
    )
    mixed = rearrange(attend(q, k, v), "n heads t c -> n t (heads c)")
    return attention.to_out[0](mixed).reshape(x.shape)


def spatial_block(block: BasicTransformerBlock, x: Float[Tensor, "N p c"], context: Tensor | None) -> Tensor:
    """Attention within each frame, to the context, feed-forward."""
    x = x + self_attention(block.attn1, block.norm1(x))
    if context is not None and block.attn2 is not None:
        x = x + cross_attention(block.attn2, x, block.norm2, context)
    return x + block.ff(block.norm3(x))


def temporal_block(
    block: TemporalBasicTransformerBlock, x: Float[Tensor, "n M c"], context: Tensor | None, pose: Pose | None
) -> Float[Tensor, "n M c"]:
    """Feed-forward, attention over the frames at each pixel (where cameras enter), to the context, feed-forward."""
    x = x + block.ff_in(block.norm_in(x))
    normed = block.norm1(x)
    x = x + self_attention(block.attn1, normed if pose is None else pose.into(normed))
    if context is not None and block.attn2 is not None:
        x = x + cross_attention(block.attn2, x, block.norm2, context)
    return x + block.ff(block.norm3(x))


def transformer(
    model: TransformerSpatioTemporalModel,
    x: Float[Tensor, "N c h w"],
    frames: int,
    context: Float[Tensor, "B L e"] | None,
    pose: Pose | None,
) -> Float[Tensor, "N c h w"]:
    """Spatial, then temporal transformer, blended, plus the input."""
    height, width = x.shape[-2:]
    number = model.time_proj(torch.arange(frames, device=x.device)).to(x.dtype)
    frame_code = model.time_pos_embed(number)
    tokens = model.proj_in(rearrange(model.norm(x), "N c h w -> N (h w) c"))
    spatial: Any = model.transformer_blocks[0]
    temporal: Any = model.temporal_transformer_blocks[0]
    tokens = recomputed(spatial_block, spatial, tokens, context, level="leanest")
    over_time = rearrange(tokens, "(B M) p c -> (B p) M c", M=frames) + frame_code
    over_time = recomputed(temporal_block, temporal, over_time, context, pose, level="leanest")
    over_time = rearrange(over_time, "(B p) M c -> (B M) p c", p=height * width)
    tokens = model.proj_out(blend(model.time_mixer, tokens, over_time))
    return x + rearrange(tokens, "N (h w) c -> N c h w", h=height)
