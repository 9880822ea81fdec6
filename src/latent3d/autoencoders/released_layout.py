"""How LN3Diff++'s released weights lay out a tri-plane latent, for whoever brings such weights or latents here.

Here a latent has a plane axis, (b, 3, c, h, w), and what belongs to a plane is computed by convolutions of its own. In
the release, latents are stacks of 3 c channels, channel 3 i + plane (`denoisers.latent_unet.stack_planes`); but its
grouped convolutions take *contiguous* runs of channels for planes. So there every "plane" of the encoder and of the
decoder holds a mixture of all three. The functions below compute exactly what the release computes, mixture included.

Released latents are divided by one number before diffusion (0.96806 for Objaverse, 1 for ShapeNet and FFHQ): it goes
into ``latent_std`` of a system.

Letters: b = objects, c = latent channels per plane, d = channels before the moments, h/w = rows and columns.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def to_decoder_groups(latents: Float[Tensor, "b 3 c h w"]) -> Float[Tensor, "b 3 c h w"]:
    """Latents as a decoder with the release's patch layer takes them: runs of c channels of the stack as planes."""
    stack = rearrange(latents, "b p c h w -> b (c p) h w")
    return rearrange(stack, "b (p c) h w -> b p c h w", p=3)


def from_decoder_groups(groups: Float[Tensor, "b 3 c h w"]) -> Float[Tensor, "b 3 c h w"]:
    """Inverse of `to_decoder_groups`."""
    stack = rearrange(groups, "b p c h w -> b (p c) h w")
    return rearrange(stack, "b (c p) h w -> b p c h w", p=3)


def encoder_head(
    out_weight: Float[Tensor, "m d y x"],
    out_bias: Float[Tensor, " m"],
    quantise_weight: Float[Tensor, "m g 1 1"],
    quantise_bias: Float[Tensor, " m"],
) -> dict[str, Tensor]:
    """Weights of `MultiViewEncoder`'s last two layers that give the moments of the release's last two, m = 6 c.

    The release applies a convolution of three contiguous groups to m channels and reads the result as (2 c, 3): first
    the means and then the log-variances, planes fastest. No grouped layer with planes apart can do that; but the layer
    before it is linear and mixes everything, so both go into that one, in this project's order (plane, moment, c), and
    ``quantise`` becomes the identity.

    Args:
        out_weight, out_bias: of the last convolution. quantise_weight, quantise_bias: of the grouped one after it, with
            g = m / 3 inputs.

    Returns:
        ``conv_out.weight``, ``conv_out.bias``, ``quantise.weight`` and ``quantise.bias``.

    Raises:
        ValueError: for a number of channels that is no multiple of 6.
    """
    moments, group = quantise_weight.shape[:2]
    if moments % 6 or group * 3 != moments:
        raise ValueError(f"moments of three planes are a multiple of 6 channels in 3 groups, found {moments}, {group}")
    mixing = torch.block_diag(*quantise_weight[..., 0, 0].chunk(3)).to(out_weight)
    order = rearrange(torch.arange(moments), "(m c p) -> (p m c)", m=2, p=3)
    weight = torch.einsum("ij, j d y x -> i d y x", mixing, out_weight)[order]
    bias = (mixing @ out_bias + quantise_bias)[order]
    identity = torch.eye(group).to(out_weight).repeat(3, 1)[..., None, None]
    return {
        "conv_out.weight": weight,
        "conv_out.bias": bias,
        "quantise.weight": identity,
        "quantise.bias": torch.zeros_like(quantise_bias),
    }
