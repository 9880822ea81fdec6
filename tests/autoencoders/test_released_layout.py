"""The released layout of latents: what its layers compute, written out channel by channel, is what ours compute."""

import pytest
import torch
from torch.nn import functional as F

from latent3d.autoencoders.multiview_encoder import LOG_VARIANCE_LIMIT, MultiViewEncoderConfig
from latent3d.autoencoders.released_layout import encoder_head, from_decoder_groups, to_decoder_groups
from latent3d.autoencoders.triplane_decoder import PlaneUpsamplerConfig, TriPlaneDecoderConfig
from latent3d.denoisers.latent_unet import stack_planes
from latent3d.geometry.cameras import Cameras
from latent3d.representations.views import Views


def test_channels_are_those_of_the_stack():
    latents = torch.randn(2, 3, 4, 5, 5)
    groups, stack = to_decoder_groups(latents), stack_planes(latents)
    for plane in range(3):
        assert torch.equal(groups[:, plane], stack[:, 4 * plane : 4 * plane + 4])
    assert torch.equal(groups[:, 0, 3], latents[:, 0, 1])  # channel 3 = 3 * 1 + 0
    assert torch.equal(from_decoder_groups(groups), latents)
    assert torch.equal(to_decoder_groups(from_decoder_groups(latents)), latents)


def test_the_decoder_s_tokens_are_those_of_the_release():
    """Its patch layer: 12 channels of the stack in three contiguous groups."""
    upsampler = PlaneUpsamplerConfig(width=4, multipliers=(1, 2), blocks=1, features=4)
    decoder = TriPlaneDecoderConfig(latent_size=8, width=16, depth=1, heads=2, upsampler=upsampler).build()
    latents = torch.randn(2, 3, 4, 8, 8)
    released = F.conv2d(stack_planes(latents), decoder.embed.weight, decoder.embed.bias, stride=2, groups=3)
    torch.testing.assert_close(decoder.embed(to_decoder_groups(latents).flatten(1, 2)), released)


def test_the_encoder_s_moments_are_those_of_the_release():
    """The release: 3x3 convolution, mean over the views, grouped 1x1 convolution, a view as (2 c, 3), halves."""
    config = MultiViewEncoderConfig(plucker=False, depth=False, width=8, multipliers=(1, 2), attention="none")
    encoder = config.build().eval()
    theirs = [torch.randn_like(part) for part in (*encoder.conv_out.parameters(), *encoder.quantise.parameters())]
    head = encoder_head(*theirs)
    encoder.load_state_dict({**encoder.state_dict(), **head})
    entering: list[torch.Tensor] = []
    encoder.conv_out.register_forward_pre_hook(lambda module, args: entering.append(args[0]))
    views = Views(
        torch.rand(2, 3, 3, 8, 8), Cameras(torch.eye(4).expand(2, 3, 4, 4), torch.eye(3).expand(2, 3, 3, 3), 8, 8)
    )
    posterior = encoder(views)
    features = F.conv2d(entering[0], theirs[0], theirs[1], padding=1).unflatten(0, (2, 3)).mean(1)
    moments = F.conv2d(features, theirs[2], theirs[3], groups=3).view(2, 8, 3, 4, 4)
    mean, log_variance = moments.chunk(2, 1)
    torch.testing.assert_close(posterior.mean, mean.transpose(1, 2), rtol=1e-4, atol=1e-4)
    clamped = LOG_VARIANCE_LIMIT * torch.tanh(log_variance / LOG_VARIANCE_LIMIT)
    torch.testing.assert_close(posterior.log_variance, clamped.transpose(1, 2), rtol=1e-4, atol=1e-4)
    # and so the stack that diffusion sees is the release's: its first 12 channels
    flat = F.conv2d(features, theirs[2], theirs[3], groups=3)[:, :12]
    torch.testing.assert_close(stack_planes(posterior.mean), flat, rtol=1e-4, atol=1e-4)


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(ValueError, match="multiple of 6"):
        encoder_head(torch.zeros(9, 4, 3, 3), torch.zeros(9), torch.zeros(9, 3, 1, 1), torch.zeros(9))
