"""Classifier-free guidance of scenes: what a model knows without references, how it learns that, how estimates mix."""

from __future__ import annotations

import functools

import pytest
import torch

from latent3d.presets import ggs_re10k_tiny
from latent3d.systems import no3d
from latent3d.systems.ggs import GGSSystem
from latent3d.systems.ggs_guidance import anchor_of, check_guidance, guided, without_references
from latent3d.systems.ggs_training import TERMS
from latent3d.systems.no3d import sample_twin
from systems.common import scene_views, shaken, tiny_system

NOBODY = torch.zeros(3, dtype=torch.bool)


@pytest.fixture(scope="module")
def system() -> GGSSystem:
    return shaken(tiny_system(reference_dropout=0.1)).eval()


def asked(scenes: int = 1):
    """One reference and three targets."""
    views = scene_views(4, scenes)
    return views[0][[0]], views.cameras[0][[1, 2, 3]]


def test_without_references_a_context_holds_cameras_alone(system):
    views = scene_views(3)
    context = system.context_of(views.images, views.cameras, NOBODY)
    for value in (context.latents, context.images, context.known, context.known_share, context.carried):
        assert not value.any()
    assert context.crossed is None
    assert context.relative is None
    torch.testing.assert_close(context.cameras.w2c[:, 0], torch.eye(4).expand(2, 4, 4))
    # pictures do not matter, cameras do
    noisy, sigma = torch.randn(2, 3, *context.latents.shape[2:]), torch.ones(2)
    seen = system(noisy, sigma, context).z0
    other = system.context_of(1 - views.images, views.cameras, NOBODY)
    assert torch.equal(system(noisy, sigma, other).z0, seen)
    moved = system.context_of(views.images, views.cameras[:, [0, 2, 1]], NOBODY)
    assert not torch.allclose(system(noisy, sigma, moved).z0, seen)


def test_a_model_with_tokens_gets_zeros_for_them():
    config = ggs_re10k_tiny()
    assert config.system.reference_dropout == 0.1
    torch.manual_seed(0)
    system = config.system.build()
    views = scene_views(4)
    tokens = system.embed(views.images[:, :0, :, :32, :48])
    assert tokens.shape == (2, 1, 16)
    assert not tokens.any()


def test_scale_one_is_the_model_itself_and_costs_nothing(system, monkeypatch):
    references, targets = asked()
    plain = system.sample(references, targets, steps=2, seed=1)
    calls = []
    original = GGSSystem.context_of
    monkeypatch.setattr(GGSSystem, "context_of", lambda self, *a, **k: (calls.append(1), original(self, *a, **k))[1])
    same = system.sample(references, targets, steps=2, seed=1, guidance=(1.0, 1.0))
    assert torch.equal(plain.latents, same.latents)
    assert len(calls) == 1


@pytest.mark.parametrize("sample", [GGSSystem.sample, sample_twin])
def test_guidance_moves_targets_and_no_reference(system, sample):
    references, targets = asked()
    run = functools.partial(sample, system, references, targets, steps=2, seed=1)
    plain, led = run(), run(guidance=3.0)
    assert torch.equal(plain.latents[0], led.latents[0])
    assert (plain.latents[1:] - led.latents[1:]).abs().amax((1, 2, 3)).min() > 1e-4
    assert torch.isfinite(led.images).all()


def test_estimates_mix_along_the_path_and_splats_stay_conditional(system):
    references, targets = asked()
    start = system.begin(references, targets, 1, 0)
    assert start.context.is_reference.tolist() == [True, False, False, False]
    shape = start.noisy.shape
    given, alone = torch.full(shape, 5.0), torch.full((1, 3, *shape[2:]), 2.0)
    contexts = []

    def estimate(latents, sigma, context):
        assert latents.shape == alone.shape
        contexts.append(context)
        return alone

    led = guided(system, start, (1.0, 3.0), lambda latents, levels: (given, "splats"), estimate)
    clean, splats = led(start.noisy, torch.ones(1, 4))
    assert splats == "splats"
    expected = torch.tensor([2 + scale * 3.0 for scale in (1.0, 2.0, 3.0)])
    torch.testing.assert_close(clean[0, 1:].mean((1, 2, 3)), expected)
    assert not contexts[0].is_reference.any()
    torch.testing.assert_close(contexts[0].cameras.w2c[0, 0], torch.eye(4), atol=1e-5, rtol=0)


def test_models_that_never_saw_cameras_alone_refuse():
    references, targets = asked()
    with pytest.raises(ValueError, match=r"trained with its references always, so it cannot be guided by 2.0"):
        tiny_system().sample(references, targets, steps=1, guidance=2.0)
    config = tiny_system().config
    assert check_guidance(config, 1) == (1.0, 1.0)
    for bad in (-1.0, float("nan"), (1.0, float("inf"))):
        with pytest.raises(ValueError, match="a scale of 0 or more"):
            check_guidance(config.replace(reference_dropout=0.1), bad)
    with pytest.raises(ValueError, match="from 0 to below 1"):
        config.replace(reference_dropout=1.0)


def test_what_is_left_of_a_batch_are_targets_and_further_views():
    batch = scene_views(5)
    left, role = without_references(batch, torch.tensor([True, False, False, True]))
    assert torch.equal(left.images, batch.images[:, [1, 2, 4]])
    assert role.tolist() == [False, False]
    assert anchor_of(role) == 0
    assert anchor_of(torch.tensor([False, False, True, True])) == 2


@pytest.mark.parametrize("stage", ["prior", "twin", "scene"])
def test_batches_without_references_teach_every_view(stage, monkeypatch):
    """All of them are targets, and the terms reach the parameters that the stage trains."""
    system = shaken(tiny_system(reference_dropout=0.99))
    seen = []
    original = GGSSystem.denoise

    def denoise(self, noisy, latents, *rest):
        seen.append((noisy.shape[1], bool(latents.any())))
        return original(self, noisy, latents, *rest)

    monkeypatch.setattr(GGSSystem, "denoise", denoise)
    batch = scene_views(5)
    terms = TERMS[stage](system, batch, torch.Generator().manual_seed(0))
    count, has_references = seen[0]
    assert count < 5 - (system.config.novel if stage == "scene" else 0)
    assert not has_references
    assert torch.isfinite(torch.stack(list(terms.values()))).all()
    terms["diffusion"].backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in system.denoiser.parameters())


def test_the_twin_without_references_is_the_same_network(system):
    """The unconditional call of the twin sees targets only."""
    views = scene_views(3)
    context = system.context_of(views.images, views.cameras, NOBODY)
    out = no3d.denoise_twin(system, torch.randn(2, 3, *context.latents.shape[2:]), torch.ones(2), context)
    assert out.shape == context.latents.shape
    assert torch.isfinite(out).all()
