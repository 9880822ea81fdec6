"""All memory levels give the same losses, gradients and samples, and what runs out of memory ends the same."""

from __future__ import annotations

import pytest
import torch

from latent3d.apps.object_asset import ObjectAsset
from latent3d.geometry.cameras import Cameras
from latent3d.memory import LEVELS, NotEnoughMemoryError, is_lean, memory
from latent3d.presets import PRESETS
from latent3d.rendering.triplane_sampling import TriPlaneRows
from latent3d.representations.triplane import TriPlane
from latent3d.representations.views import Views
from latent3d.systems import triplane_mesh


def woken(preset):
    """A tiny system whose layers that begin at zero pass gradients on."""
    torch.manual_seed(1)
    config = PRESETS[preset]()
    system = config.system.build()
    with torch.no_grad():
        for parameter in system.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    return config, system


def step(config, system, stage, level):
    """Terms and gradients of a training step."""
    settings = config.stages[config.stage_index(stage)]
    batch = config.data.stream(settings, 0).batch(0)
    chosen = dict(system.trainable(stage))
    system.requires_grad_(False)
    for parameter in chosen.values():
        parameter.requires_grad_(True)
        parameter.grad = None
    torch.manual_seed(7)
    with memory(level):
        terms = system.train().training_terms(batch, stage, torch.Generator().manual_seed(7))
        sum(weight * terms[name] for name, weight in settings.loss_weights.items() if name in terms).backward()
    gradients = {name: p.grad.clone() for name, p in chosen.items() if p.grad is not None}
    return {name: term.detach() for name, term in terms.items()}, gradients


STAGES = [
    ("ggs_rooms_tiny", "scene"),
    ("ggs_rooms_tiny", "decoder"),
    ("ggs_re10k_tiny", "twin"),
    ("ln3diff_shapes_tiny", "vae"),
    ("ln3diff_shapenet_tiny", "diffusion"),
    ("ln3diff_objaverse_image_tiny", "diffusion"),
]


@pytest.mark.parametrize(("preset", "stage"), STAGES)
def test_training_steps_are_the_same(preset, stage):
    """To the rounding of sums, whose order changes where scenes, views and points are worked off in parts."""
    config, system = woken(preset)
    terms, gradients = step(config, system, stage, "fast")
    assert gradients
    for level in LEVELS[1:]:
        others, other_gradients = step(config, system, stage, level)
        for name, term in terms.items():
            torch.testing.assert_close(others[name], term, rtol=1e-5, atol=1e-6)
        assert other_gradients.keys() == gradients.keys()
        scale = max(float(gradient.abs().max()) for gradient in gradients.values())
        for name, gradient in gradients.items():
            torch.testing.assert_close(other_gradients[name], gradient, rtol=1e-3, atol=1e-5 * scale, msg=name)


def fails_once_per_level(monkeypatch, module, until):
    """Let a network run out of memory in its second call and at every level before ``until``."""
    original, calls = type(module).forward, iter(range(1000))

    def forward(self, *inputs, **named):
        if next(calls) > 0 and not is_lean(until):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return original(self, *inputs, **named)

    monkeypatch.setattr(type(module), "forward", forward)


def scene(system, level="fast"):
    config = system.config
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[:, 0, 3] = torch.tensor([0.0, 0.1, 0.2])
    k = torch.tensor([[32.0, 0, 16], [0, 32, 16], [0, 0, 1]]).expand(3, 3, 3)
    cameras = Cameras(poses, k, config.height, config.width)
    picture = torch.rand(1, 3, config.height, config.width, generator=torch.Generator().manual_seed(2))
    with memory(level) as used:
        return system.eval().sample(Views(picture, cameras[:1]), cameras[1:], steps=3, seed=4), used.level


def test_scenes_are_the_same_and_stepping_down_ends_the_same(monkeypatch):
    _, system = woken("ggs_rooms_tiny")
    results = {level: scene(system, level)[0] for level in LEVELS}
    for level in LEVELS[1:]:
        for name in ("latents", "images", "depths"):
            torch.testing.assert_close(
                getattr(results[level], name), getattr(results["fast"], name), rtol=1e-4, atol=1e-4, msg=name
            )
    fails_once_per_level(monkeypatch, system.denoiser, "leanest")
    stepped, level = scene(system)
    assert level == "leanest"
    torch.testing.assert_close(stepped.gaussians.means, results["leanest"].gaussians.means, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(stepped.images, results["leanest"].images, rtol=1e-4, atol=1e-4)


def test_meshes_and_splats_are_the_same_and_stepping_down_ends_the_same(monkeypatch):
    """At the lean levels of one to three chunks of points."""
    monkeypatch.setattr(triplane_mesh, "CHUNK_LEAN", 100)
    monkeypatch.setattr(triplane_mesh, "CHUNK_LEANEST", 40)
    _, system = woken("ln3diff_shapes_tiny")
    system = system.eval()
    planes = 0.3 * torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    system.mesh.start_from(system.field)
    with torch.no_grad():
        system.mesh.level = float(system.mesh._at(rows(planes), torch.zeros(1, 3), 0.45).raw) - 0.01

    def make(level="fast"):
        with memory(level) as used:
            asset = ObjectAsset(system, TriPlane(planes, 0.45))
            return asset.mesh(), asset.gaussians(), used.level

    results = {level: make(level) for level in LEVELS}
    assert len(results["fast"][0]) > 0
    for level in LEVELS[1:]:
        torch.testing.assert_close(results[level][0].vertices, results["fast"][0].vertices, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(results[level][1].means, results["fast"][1].means, rtol=1e-4, atol=1e-5)
    fails_once_per_level(monkeypatch, system.mesh.network, "lean")
    mesh, _, level = make()
    assert level == "lean"
    torch.testing.assert_close(mesh.vertices, results["lean"][0].vertices, rtol=1e-4, atol=1e-5)


def rows(planes):
    return TriPlaneRows.of(planes[None])


def test_what_does_not_fit_at_all_says_what_to_lower(monkeypatch):
    _, system = woken("ggs_rooms_tiny")

    def never(*inputs, **named):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")

    monkeypatch.setattr(system.denoiser, "forward", never)
    with pytest.raises(NotEnoughMemoryError, match="use fewer views"):
        scene(system)


def test_objects_are_the_same_and_stepping_down_ends_the_same(monkeypatch):
    _, system = woken("ln3diff_shapes_tiny")
    system.eval()

    def draw(level="fast"):
        with memory(level) as used, torch.no_grad():
            condition = system.conditioner(torch.arange(5) % 2)
            latents = system.sample(range(5), condition, steps=2, guidance=2.0).latents
            return system.decode(latents).planes, used.level

    results = {level: draw(level)[0] for level in LEVELS}
    for level in LEVELS[1:]:
        torch.testing.assert_close(results[level], results["fast"], rtol=1e-4, atol=1e-4)
    fails_once_per_level(monkeypatch, system.denoiser, "lean")
    planes, level = draw()
    assert level == "lean"
    torch.testing.assert_close(planes, results["lean"], rtol=1e-4, atol=1e-4)
