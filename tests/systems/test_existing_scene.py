"""Approximate scenes for the splat-conditional variant: where the splats lie, what is missing, when they are used."""

from __future__ import annotations

import pytest
import torch

from latent3d.rendering.splats import render_gaussians
from latent3d.systems import existing_scene
from latent3d.systems.existing_scene import approximate_scene
from latent3d.systems.ggs_training import existing_splats, scene_terms
from systems.common import SIZE, scene_views, tiny_config, tiny_system


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_without_errors_the_views_come_back(monkeypatch):
    monkeypatch.setattr(existing_scene, "DEPTH_ERROR", 0.0)
    monkeypatch.setattr(existing_scene, "MISSING", 0.0)
    views = scene_views(1, scenes=2)
    scenes = approximate_scene(views.images, views.depths, views.cameras, 1, seeded())
    for scene, images, depths, cameras in zip(scenes, views.images, views.depths, views.cameras.k, strict=True):
        assert len(scene) == SIZE * SIZE
        seen = render_gaussians(scene, views.cameras[0], low_pass=0.1)
        assert seen.rgb is not None
        inner = (..., slice(2, -2), slice(2, -2))
        assert (seen.depth - depths)[inner].abs().mean() < 0.02
        assert (seen.rgb - images)[inner].abs().mean() < 0.05
        assert cameras.shape[-2:] == (3, 3)


def test_depth_errs_and_patches_are_missing():
    views = scene_views(2, scenes=3)
    scenes = approximate_scene(views.images, views.depths, views.cameras, 2, seeded())
    again = approximate_scene(views.images, views.depths, views.cameras, 2, seeded())
    whole = 2 * (SIZE // 2) ** 2
    for scene, same in zip(scenes, again, strict=True):
        assert torch.equal(scene.means, same.means)
        assert 0.4 < len(scene) / whole < 0.95
    nothing = approximate_scene(views.images, torch.zeros_like(views.depths), views.cameras, 2, seeded())
    assert [len(scene) for scene in nothing] == [0, 0, 0]


def test_a_share_of_the_batches_sees_them():
    always, never = tiny_system(existing_share=1.0), tiny_system(existing_share=0.0)
    novel = scene_views(2)
    assert existing_splats(never, novel, seeded()) is None
    scenes = existing_splats(always, novel, seeded())
    assert scenes is not None
    assert len(scenes) == 2
    half = tiny_system(existing_share=0.5)
    generator = seeded()
    used = sum(existing_splats(half, novel, generator) is not None for _ in range(40))
    assert 10 < used < 30


def test_the_scene_stage_learns_from_them():
    system = tiny_system(existing_share=1.0)
    batch = scene_views(system.config.views + system.config.novel)
    terms = scene_terms(system, batch, seeded())
    sum(terms.values()).backward()
    condition = [p.grad for name, p in system.denoiser.named_parameters() if "condition" in name and p.grad is not None]
    assert condition
    assert any(grad.abs().max() > 0 for grad in condition)


def test_configurations_that_cannot_learn_it_are_refused():
    with pytest.raises(ValueError, match="existing_share"):
        tiny_config(existing_share=0.5, novel=0)
