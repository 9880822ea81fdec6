"""The twin without 3D: what it samples, from what, and that it is what its training stage trains."""

from __future__ import annotations

import pytest
import torch

from latent3d.diffusion.parameterization import c_in, c_out, c_skip
from latent3d.geometry.cameras import Cameras
from latent3d.representations.views import Views
from latent3d.systems import no3d
from latent3d.systems.ggs_training import choose_references, draw_sigma
from latent3d.systems.no3d import denoise_twin, sample_twin
from systems.common import scene_views, shaken, smooth_images, tiny_system, walk_cameras


def references_and_targets(count: int = 1) -> tuple[Views, Cameras]:
    cameras = walk_cameras(4)
    return Views(smooth_images(count), cameras[:count]), cameras[count:]


@pytest.mark.parametrize("geometry", [True, False])
@pytest.mark.parametrize("count", [1, 2])
def test_it_gives_pictures_in_the_given_order(count, geometry):
    system = shaken(tiny_system(**({} if geometry else {"geometry": None}))).eval()
    references, targets = references_and_targets(count)
    out = sample_twin(system, references, targets, steps=2)
    assert out.images.shape == (4, 3, 32, 32)
    assert out.is_reference.tolist() == [i < count for i in range(4)]
    assert torch.equal(out.images[:count], references.images)
    assert torch.isfinite(out.images).all()
    assert out.latents[count:].std() > 0.1
    torch.testing.assert_close(out.cameras.w2c[count:], targets.w2c)
    shuffled = sample_twin(system, references, targets[[*range(len(targets))][::-1]], steps=2)
    torch.testing.assert_close(shuffled.cameras.w2c[count:], targets.w2c.flip(0))


def test_it_starts_from_the_noise_of_the_system_with_splats(monkeypatch):
    system = tiny_system().eval()
    references, targets = references_and_targets()
    seen: dict[str, torch.Tensor] = {}

    def keep(name, estimate):
        def denoise(latents):
            seen.setdefault(name, latents.clone())
            return estimate(latents)

        return denoise

    plain = no3d.denoise_twin
    monkeypatch.setattr(no3d, "denoise_twin", lambda s, z, *rest: keep("twin", lambda x: plain(s, x, *rest))(z))
    forward = type(system).forward
    monkeypatch.setattr(type(system), "forward", lambda s, z, *rest: keep("ggs", lambda x: forward(s, x, *rest))(z))
    sample_twin(system, references, targets, steps=1, seed=5)
    system.sample(references, targets, steps=1, seed=5)
    assert torch.equal(seen["twin"], seen["ggs"])


def test_the_same_seed_gives_the_same_pictures_and_another_one_others():
    system = shaken(tiny_system()).eval()
    one, two, other = (sample_twin(system, *references_and_targets(), steps=2, seed=s).images for s in (1, 1, 2))
    assert torch.equal(one, two)
    assert (one - other).abs().max() > 1e-3


def test_no_splat_takes_part(monkeypatch):
    system = shaken(tiny_system(geometry=None)).eval()

    def fail(*args, **kwargs):
        raise AssertionError("splats were made")

    for part in ("epipolar", "head", "velocity", "decoder"):
        monkeypatch.setattr(getattr(system, part), "forward", fail)
    sample_twin(system, *references_and_targets(), steps=1)


def test_the_training_stage_measures_this_denoiser():
    """The loss of stage ``twin`` is the v error of `denoise_twin`: both at one noise level and the same draws."""
    system = shaken(tiny_system(noise_std=0.0, reference_weights=(1.0,))).eval()
    batch = scene_views(4)
    loss = system.training_terms(batch, "twin", torch.Generator().manual_seed(3))["diffusion"]

    draws = torch.Generator().manual_seed(3)
    role = choose_references(4, (1.0,), draws)
    sigma = draw_sigma(system, 2, draws)
    clean = system.vae.encode(batch.images)
    noise = torch.randn(clean.shape, generator=draws)
    noisy = clean + sigma[:, None, None, None, None] * noise
    context = system.context_of(batch.images, batch.cameras, role)
    z0 = denoise_twin(system, noisy, sigma, context)
    level = sigma[:, None, None, None, None]
    velocity = (z0 - c_skip(level) * noisy) / c_out(level)
    truth = (noise - level * clean) * c_in(level)
    expected = (velocity - truth).square()[:, ~role].mean()
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=1e-4)


def test_what_it_cannot_do_is_said():
    system = tiny_system()
    references, targets = references_and_targets()
    with pytest.raises(ValueError, match="at least one reference"):
        sample_twin(system, references[:0], targets)
    with pytest.raises(ValueError, match="at least one target"):
        sample_twin(system, references, targets[:0])
