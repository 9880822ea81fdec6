"""The small convolutional autoencoder computes bit for bit what diffusers' class does, from the same start."""

from __future__ import annotations

import pytest
import torch

from latent3d.autoencoders.image_vae import image_vae_small_tiny
from latent3d.autoencoders.tiny_network import ACTIVATIONS, TinyNetwork

SIZES = {
    "one level": ((8,), (8,), (1,), (2,)),
    "folded patches": ((16, 16), (16, 16), (2, 2), (3, 3)),
    "TAESD": ((8,) * 4, (16,) * 4, (1, 3, 3, 3), (3, 3, 3, 1)),
}


def both(sizes, act="relu"):
    from diffusers import AutoencoderTiny

    encoder, decoder, encoder_blocks, decoder_blocks = sizes
    torch.manual_seed(0)
    ours = TinyNetwork(
        12, 4, encoder_widths=encoder, decoder_widths=decoder, encoder_blocks=encoder_blocks,
        decoder_blocks=decoder_blocks, act=act,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = AutoencoderTiny(
        in_channels=12, out_channels=12, latent_channels=4, encoder_block_out_channels=encoder,
        decoder_block_out_channels=decoder, num_encoder_blocks=encoder_blocks, num_decoder_blocks=decoder_blocks,
        act_fn=act,
    )  # fmt: skip
    return ours, theirs


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_the_same_keys_values_and_gradients(sizes):
    ours, theirs = both(sizes)
    own, other = ours.state_dict(), theirs.state_dict()
    assert list(own) == list(other)
    assert all(torch.equal(own[key], other[key]) for key in own)
    pictures = torch.rand(2, 12, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents, expected = ours.encode(pictures), theirs.encode(pictures).latents
    assert torch.equal(latents, expected)
    z = 5 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(2))  # beyond the soft bound of 3 too
    restored = ours.decode(z)
    assert torch.equal(restored, theirs.decode(z).sample)
    (latents.square().mean() + restored.square().mean()).backward()
    (expected.square().mean() + theirs.decode(z).sample.square().mean()).backward()
    for (name, mine), their in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine.grad, their.grad), name


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_every_activation_is_the_one_of_that_name(act):
    ours, theirs = both(SIZES["one level"], act)
    pictures = torch.rand(1, 12, 8, 8, generator=torch.Generator().manual_seed(3)) * 2 - 1
    assert torch.equal(ours.encode(pictures), theirs.encode(pictures).latents)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="no activation 'sine'"):
        image_vae_small_tiny().replace(act="sine").build()


def test_the_shipped_kind_needs_no_import_of_diffusers():
    import subprocess
    import sys

    code = (
        "import sys; from latent3d.presets import ggs_rooms; ggs_rooms().system.vae.build(); "
        "sys.exit('diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
