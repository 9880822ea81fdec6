"""The multi-view encoder: size of the paper's network, freedom of the views, planes kept apart."""

import pytest
import torch

from latent3d.autoencoders.multiview_encoder import LOG_VARIANCE_LIMIT, MultiViewEncoderConfig, TriPlanePosterior
from latent3d.geometry.cameras import Cameras
from latent3d.representations.views import Views

TINY = MultiViewEncoderConfig(latent_channels=2, width=8, multipliers=(1, 2, 2, 2), heads=2, head_channels=4)


def views_of(b: int, v: int, size: int = 16, seed: int = 0) -> Views:
    generator = torch.Generator().manual_seed(seed)
    k = torch.tensor([[1.25 * size, 0, size / 2], [0, 1.25 * size, size / 2], [0, 0, 1]]).expand(b, v, 3, 3)
    w2c = torch.eye(4).repeat(b, v, 1, 1)
    w2c[..., :3, 3] = torch.randn(b, v, 3, generator=generator)
    images = torch.rand(b, v, 3, size, size, generator=generator)
    return Views(images, Cameras(w2c, k, size, size), torch.rand(b, v, 1, size, size, generator=generator))


def test_the_default_has_the_published_size():
    with torch.device("meta"):
        encoder = MultiViewEncoderConfig().build()
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(11.12e6, rel=1e-3)
    assert MultiViewEncoderConfig().factor == 8
    assert MultiViewEncoderConfig().in_channels == 10


@pytest.mark.parametrize("attention", ["all", "each", "none"])
def test_shapes_with_any_number_of_views(attention: str):
    encoder = TINY.replace(attention=attention).build()
    for v in (1, 3):
        posterior = encoder(views_of(2, v))
        assert posterior.mean.shape == posterior.log_variance.shape == (2, 3, 2, 2, 2)


def test_the_order_of_views_does_not_matter():
    encoder, views = TINY.build(), views_of(1, 4)
    torch.testing.assert_close(encoder(views).mean, encoder(views[:, torch.tensor([2, 0, 3, 1])]).mean)


def test_views_see_each_other_only_with_joint_attention():
    """Through the mean alone the effects of two views on the latent add up."""
    views, other = views_of(1, 2), views_of(1, 2, seed=1)
    for attention, additive in (("each", True), ("all", False)):
        torch.manual_seed(0)
        encoder = TINY.replace(attention=attention).build()
        torch.nn.init.normal_(encoder.transformer.leave.weight)
        sources = (views[0], other[0])

        def latent(i: int, j: int, encoder=encoder, sources=sources) -> torch.Tensor:
            one = Views.stack([sources[i][0], sources[j][1]])
            return encoder(Views.stack([one])).mean

        cross = latent(0, 0) + latent(1, 1) - latent(0, 1) - latent(1, 0)
        assert (cross.abs().max() < 1e-5) == additive


def test_planes_do_not_mix_after_the_mean():
    encoder, views = TINY.build(), views_of(1, 1)
    before = encoder(views).mean
    with torch.no_grad():
        encoder.conv_out.bias[:4] += 1.0  # the moments of plane 0
    change = (encoder(views).mean - before).abs().amax(dim=(0, 2, 3, 4))
    assert change[0] > 1e-3
    assert change[1:].max() < 1e-6


def test_log_variance_is_clamped_softly():
    encoder = TINY.build()
    with torch.no_grad():
        encoder.quantise.bias.fill_(1e3)
    log_variance = encoder(views_of(1, 1)).log_variance
    assert log_variance.max() <= LOG_VARIANCE_LIMIT
    assert log_variance.min() > 0.99 * LOG_VARIANCE_LIMIT


def test_a_sample_has_the_posterior_s_moments():
    mean = torch.full((1, 3, 4, 32, 32), 2.0)
    posterior = TriPlanePosterior(mean, torch.full_like(mean, -1.0))
    draw = posterior.sample(torch.Generator().manual_seed(0))
    assert draw.mean() == pytest.approx(2.0, abs=0.02)
    assert draw.std() == pytest.approx(float(torch.exp(torch.tensor(-0.5))), rel=0.02)
    torch.testing.assert_close(draw, posterior.sample(torch.Generator().manual_seed(0)))


def test_errors_are_sentences():
    views = views_of(1, 1)
    with pytest.raises(ValueError, match="not a multiple of 8"):
        TINY.build()(views_of(1, 1, size=12))
    with pytest.raises(ValueError, match="reads depth maps"):
        TINY.build()(Views(views.images, views.cameras))
    with pytest.raises(ValueError, match="choose all, each or none"):
        MultiViewEncoderConfig(attention="both")
