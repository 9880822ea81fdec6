"""Objects with one view each: pictures judge renderings at given views only, novel views are judged by renderings."""

import pytest
import torch

from latent3d.nn.discriminators import adversarial_terms, novel_view_adversarial
from latent3d.object_presets_paper import ln3diff_ffhq_tiny, ln3diff_objaverse_image_tiny
from latent3d.systems import object_losses as losses
from latent3d.systems.ln3diff_training import render_crops, vae_terms
from latent3d.systems.object_views import with_others_views


def test_each_term_sees_its_own_views():
    config = ln3diff_ffhq_tiny()
    batch = config.data.stream(config.stages[0], 0).batch(0)
    assert batch.shape == (2, 1)
    system = config.system.build().eval()
    with torch.no_grad():
        terms = vae_terms(system, batch, torch.Generator().manual_seed(4))
        draws = torch.Generator().manual_seed(4)
        planes = system.planes_of(system.encoder(batch.given).sample(draws))
        crops = render_crops(system, planes, with_others_views(batch), draws)
        assert crops.seen.tolist() == [False, True]  # one novel view and the given one
        seen, novel, truth = crops.rgb[:, 1:], crops.rgb[:, :1], crops.images[:, 1:]
        expected = {"l1": losses.l1(seen, truth), "perceptual": system.perceptual(seen, truth)}
        expected |= adversarial_terms(system.discriminator, truth, seen)
        own = novel_view_adversarial(system.novel_discriminator, seen, novel)
        expected |= {f"novel_{name}": value for name, value in own.items()}
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-5, atol=1e-6)
    assert (seen - novel).abs().max() > 1e-6


def test_one_object_alone_has_no_novel_view():
    config = ln3diff_ffhq_tiny()
    batch = config.data.stream(config.stages[0], 0).batch(0)[:1]
    with pytest.raises(ValueError, match="raise batch_size"):
        vae_terms(config.system.build(), batch, torch.Generator())


def test_renderings_are_judged_at_their_own_size():
    """Pictures of 32 pixels, renderings of 24 whose crops have 16: a crop covers two thirds of the picture."""
    config = ln3diff_objaverse_image_tiny()
    batch = config.data.stream(config.stages[0], 0).batch(0)
    system = config.system.build().eval()
    sides = {}
    for size in (24, 16, None):
        object.__setattr__(system, "config", config.system.replace(render_size=size))
        with torch.no_grad():
            planes = system.planes_of(system.encoder(batch.given).mean)
            crops = render_crops(system, planes, batch, torch.Generator().manual_seed(0))
        assert crops.rgb.shape == crops.images.shape == (2, 2, 3, 16, 16)
        sides[size] = float(crops.alphas.mean())
    assert len(set(sides.values())) == 3
    whole = torch.nn.functional.interpolate(batch.views.alphas.flatten(0, 1), scale_factor=0.5, mode="area")
    assert sides[16] == pytest.approx(float(whole.mean()), abs=0.02)  # the whole picture at half the size
