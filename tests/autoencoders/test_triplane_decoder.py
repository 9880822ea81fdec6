"""The tri-plane decoder: size of the paper's network, planes apart until they attend to each other, all switches."""

import pytest
import torch

from latent3d.autoencoders.triplane_decoder import PlaneUpsamplerConfig, TriPlaneDecoderConfig, plane_positions

TINY = TriPlaneDecoderConfig(
    latent_channels=2, latent_size=4, width=16, depth=2, heads=2,
    upsampler=PlaneUpsamplerConfig(width=4, multipliers=(1, 2), blocks=1, features=5),
)  # fmt: skip


def awake(config: TriPlaneDecoderConfig):
    """A decoder whose zero-initialised parts are not zero."""
    torch.manual_seed(0)
    decoder = config.build()
    for name, parameter in decoder.named_parameters():
        if "adaln" in name or "conv2" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return decoder.eval()


def test_the_default_has_the_published_size():
    with torch.device("meta"):
        decoder = TriPlaneDecoderConfig().build()
    upsampler = sum(p.numel() for p in decoder.upsampler.parameters())
    assert upsampler == pytest.approx(3.05e6, rel=1e-3)
    assert sum(p.numel() for p in decoder.parameters()) - upsampler == pytest.approx(454.1e6, rel=1e-3)
    assert TriPlaneDecoderConfig().plane_size == 128
    block = decoder.blocks[0]
    counts = [sum(p.numel() for p in part.parameters()) for part in (block.attention, block.mlp, block.adaln)]
    assert counts == pytest.approx([4.20e6, 8.39e6, 6.30e6], rel=1e-3)


@pytest.mark.parametrize("kind", ["transformer", "conv"])
@pytest.mark.parametrize("inject", ["adaln", "input"])
@pytest.mark.parametrize(("own", "cross"), [(True, True), (True, False), (False, True), (False, False)])
def test_every_switch_gives_planes_that_depend_on_the_latent(kind: str, inject: str, own: bool, cross: bool):
    decoder = awake(TINY.replace(kind=kind, inject=inject, self_plane=own, cross_plane=cross))
    latents = torch.randn(2, 3, 2, 4, 4)
    planes = decoder(latents)
    assert planes.shape == (2, 3, 5, 4, 4)
    assert (decoder(latents.flip(0)) - planes.flip(0)).abs().max() < 1e-5
    assert (decoder(latents + 0.1) - planes).abs().max() > 1e-4


def test_a_latent_plane_reaches_only_its_own_tokens_before_cross_plane_attention():
    latents = torch.randn(1, 3, 2, 4, 4, requires_grad=True)
    for cross, reached in ((False, [0, 0, 1]), (True, [1, 1, 1])):
        planes = awake(TINY.replace(cross_plane=cross))(latents)
        (gradient,) = torch.autograd.grad(planes[:, 2].sum(), latents)
        assert [int(g > 0) for g in gradient.abs().amax(dim=(0, 2, 3, 4))] == reached


def test_blocks_alternate_between_own_and_all_planes():
    assert [block.crosses for block in TINY.replace(depth=4).build().blocks] == [False, True, False, True]
    assert [block.crosses for block in TINY.replace(self_plane=False).build().blocks] == [True, True]


def test_the_latent_enters_only_through_adaln_and_starts_silent():
    decoder = TINY.build()
    latents = torch.randn(1, 3, 2, 4, 4)
    torch.testing.assert_close(decoder(latents), decoder(2 * latents))


def test_positions_tell_every_token_apart():
    code = plane_positions(3, 4, 16).flatten(1, 2)[0]
    distances = torch.cdist(code, code) + 10 * torch.eye(48)
    assert distances.min() > 0.1


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match=r"takes latents \(b, 3, 2, 4, 4\)"):
        TINY.build()(torch.zeros(1, 3, 2, 8, 8))
    with pytest.raises(ValueError, match="do not divide into patches"):
        TINY.replace(latent_size=5)
