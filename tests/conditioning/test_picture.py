"""Preparation of pictures with known answers, and the small vision transformer."""

import pytest
import torch

from latent3d.conditioning.picture import SmallViTConfig, over_white, prepare_picture


def square_object(top: int, left: int, side: int, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """A red square over white, and its alpha."""
    alpha = torch.zeros(1, 1, size, size)
    alpha[..., top : top + side, left : left + side] = 1
    red = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(1, 3, size, size)
    return over_white(red, alpha), alpha


def test_the_object_is_centred_and_takes_its_share():
    prepared = prepare_picture(*square_object(5, 28, 34), 100)
    red = (prepared[0, 1] < 0.5).nonzero()
    low, high = red.min(0).values, red.max(0).values + 1
    assert (high - low).tolist() == pytest.approx([85, 85], abs=1)
    assert ((low + high) / 2 - 50).abs().max() <= 0.5
    assert prepared[..., 0, :].min() > 0.999


def test_place_and_size_in_the_picture_do_not_matter():
    reference = prepare_picture(*square_object(20, 20, 34), 40)
    for top, left in ((0, 0), (30, 3), (10, 30)):
        torch.testing.assert_close(prepare_picture(*square_object(top, left, 34), 40), reference)
    twice = prepare_picture(*square_object(3, 9, 68, 128), 40)
    assert (twice - reference).abs().mean() < 0.02


def test_a_long_object_keeps_its_proportions():
    alpha = torch.zeros(1, 1, 40, 80)
    alpha[..., 15:25, 10:70] = 1
    prepared = prepare_picture(1 - alpha.expand(1, 3, 40, 80), alpha, 144, foreground=60 / 72)
    dark = (prepared[0, 0] < 0.5).nonzero()
    extent = dark.max(0).values + 1 - dark.min(0).values
    assert extent.tolist() == pytest.approx([20, 120], abs=1)


def test_without_alpha_the_whole_picture_is_kept_without_margin():
    picture = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(prepare_picture(picture, None, 16), picture)
    wide = prepare_picture(torch.zeros(1, 3, 8, 16), None, 16)
    assert wide[..., :4, :].min() == 1
    assert wide[..., 4:12, :].max() == 0


def test_an_empty_picture_is_refused_by_its_number():
    picture, alpha = square_object(4, 4, 8)
    with pytest.raises(ValueError, match="picture 1 of the batch shows nothing"):
        prepare_picture(picture.repeat(2, 1, 1, 1), torch.cat([alpha, 0 * alpha]), 16)
    with pytest.raises(ValueError, match="share"):
        prepare_picture(picture, alpha, 16, foreground=1.5)


def test_vision_transformer_gives_a_token_per_patch_and_every_parameter_learns():
    config = SmallViTConfig.tiny()
    encoder = config.build()
    out = encoder(torch.rand(2, 3, 16, 16))
    assert out.tokens.shape == (2, config.token_count, config.token_dim) == (2, 4, 16)
    assert out.pooled.shape == (2, config.pooled_dim)
    (out.tokens.square().sum() + out.pooled.square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in encoder.parameters())
    with pytest.raises(ValueError, match="multiple of the patch"):
        SmallViTConfig(image_size=20, patch=8).build()


def test_colours_over_white():
    rgb, alpha = torch.tensor([0.2, 0.4, 0.6])[:, None, None], torch.tensor([[[0.5]]])
    torch.testing.assert_close(over_white(rgb, alpha).flatten(), torch.tensor([0.6, 0.7, 0.8]))
