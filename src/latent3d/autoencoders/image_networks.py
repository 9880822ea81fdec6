"""The networks inside `ImageVAE`, by kind; those of diffusers carry no usable types."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import nn

from latent3d.autoencoders.blocks import PooledBlock
from latent3d.autoencoders.tiny_network import TinyNetwork

if TYPE_CHECKING:
    from latent3d.autoencoders.image_vae import ImageVAEConfig


def build_network(config: ImageVAEConfig) -> Any:
    """The network of that kind, with random weights."""
    levels, folded = len(config.block_out_channels), 3 * config.patch_size**2
    if config.kind == "AutoencoderTiny":
        network = TinyNetwork(
            folded,
            config.latent_channels,
            encoder_widths=config.block_out_channels,
            decoder_widths=config.decoder_channels or config.block_out_channels[::-1],
            encoder_blocks=config.encoder_layers,
            decoder_blocks=config.decoder_layers or config.encoder_layers[::-1],
            act=config.act,
        )
        if config.mid_pool:
            _pool_coarsest_blocks(network, config)
        return network
    import diffusers  # heavy: only when one of its networks is built

    ends: dict[str, Any] = {
        "in_channels": folded,
        "out_channels": folded,
        "latent_channels": config.latent_channels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "block_out_channels": config.block_out_channels,
        "layers_per_block": config.encoder_layers[0],
    }
    if config.kind == "AutoencoderKLTemporalDecoder":
        return diffusers.AutoencoderKLTemporalDecoder(**ends)
    return diffusers.AutoencoderKL(
        **ends,
        up_block_types=("UpDecoderBlock2D",) * levels,
        act_fn=config.act,
        norm_num_groups=config.norm_groups,
        mid_block_add_attention=config.mid_attention,
        use_quant_conv=config.quant_conv,
        use_post_quant_conv=config.post_quant_conv,
    )


def silence_outputs(network: Any, config: ImageVAEConfig) -> None:
    """Start the network at zero, so that the linear path alone speaks at first; a learned std starts at 0.05."""
    tiny = config.kind == "AutoencoderTiny"
    if tiny:
        ends = [network.encoder.layers[-1], network.decoder.layers[-1]]
    else:
        temporal = config.kind == "AutoencoderKLTemporalDecoder"
        ends = [network.encoder.conv_out if network.quant_conv is None else network.quant_conv]
        ends.append(network.decoder.time_conv_out if temporal else network.decoder.conv_out)
    for end in ends:
        nn.init.zeros_(end.weight)
        nn.init.zeros_(end.bias)
    if tiny:
        nn.init.constant_(ends[1].bias, 0.5)  # this kind's decoder works in [0, 1]: 0.5 is its neutral grey
    else:
        nn.init.constant_(ends[0].bias[config.latent_channels :], 2 * math.log(0.05))


def _pool_coarsest_blocks(network: Any, config: ImageVAEConfig) -> None:
    encoder, decoder = network.encoder.layers, network.decoder.layers
    last = len(encoder) - 1  # the final convolution; the coarsest blocks lie right before it
    for index in range(last - config.encoder_layers[-1], last):
        encoder[index] = PooledBlock(encoder[index], config.block_out_channels[-1])
    for index in range(2, 2 + (config.decoder_layers or config.encoder_layers[::-1])[0]):  # behind conv and activation
        decoder[index] = PooledBlock(decoder[index], (config.decoder_channels or config.block_out_channels)[0])
