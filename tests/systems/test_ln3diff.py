"""LN3Diff++ whole, at a size for tests: every stage learns, sampling is exact about calls and seeds."""

import pytest
import torch

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.object_cameras import orbit
from latent3d.object_presets import ln3diff_shapes, ln3diff_shapes_tiny
from latent3d.representations.objects import ObjectViews
from latent3d.representations.triplane import TriPlane
from latent3d.systems.ln3diff import LN3DiffSystem
from latent3d.systems.ln3diff_training import choose_views, denoising_error, render_crops


@pytest.fixture(scope="module")
def batch() -> ObjectViews:
    config = ln3diff_shapes_tiny()
    return config.data.stream(config.stages[0], 0).batch(0)


def tiny(denoiser: str = "dit") -> LN3DiffSystem:
    torch.manual_seed(0)
    return ln3diff_shapes_tiny(denoiser).system.build()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("stage", ["vae", "mesh", "splats", "conditioner", "diffusion"])
def test_each_stage_trains_its_own_parts_and_no_other(batch: ObjectViews, stage: str):
    system = tiny()
    system.finish_stage("vae", batch)
    names = [name for name, _ in system.trainable(stage)]
    weights = next(s for s in ln3diff_shapes_tiny().stages if s.name == stage).loss_weights
    terms = system.training_terms(batch, stage, generator())
    assert set(weights) <= set(terms)
    sum(weights[name] * terms[name] for name in weights).backward()
    touched = {name.split(".")[0] for name, p in system.named_parameters() if p.grad is not None}
    assert touched == {name.split(".")[0] for name in names}


def test_the_autoencoder_learns(batch: ObjectViews):
    system = tiny()
    parameters = [p for _, p in system.trainable("vae")]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    seen = []
    for step in range(25):
        terms = system.training_terms(batch, "vae", generator(step % 2))
        loss = terms["l1"] + terms["alpha"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(float(loss.detach()))
    assert min(seen[-2:]) < 0.8 * max(seen[:2])


def test_latents_are_normalised_after_the_first_stage(batch: ObjectViews):
    system = tiny()
    system.finish_stage("vae", batch)
    draws = torch.stack([system.encode(batch.given, sample=True, generator=generator(s)) for s in range(200)])
    assert draws.mean((0, 1, 4, 5)).abs().max() < 0.1
    assert (draws.std((0, 1, 4, 5)) - 1).abs().max() < 0.1


def test_the_mesh_decoder_starts_as_the_field(batch: ObjectViews):
    """Where the density passes the level, the signed field passes zero."""
    system = tiny()
    system.finish_stage("vae", batch)
    assert system.mesh is not None
    planes = TriPlane(torch.randn(1, 3, 4, 16, 16), system.config.half_size)
    points = torch.rand(1, 50, 3) * 0.8 - 0.4
    density, colors = system.field_of(planes)(points)
    from latent3d.rendering.triplane_sampling import sample_triplane

    values = system.mesh.network(sample_triplane(planes.planes, points, planes.half_size, reduce="concat"))
    torch.testing.assert_close(values.density, density)
    torch.testing.assert_close(values.colors, colors)
    assert float(values.extra["deformation"].detach().abs().max()) == 0.0
    surface = system.mesh.surfaces(planes)[0]
    level = torch.as_tensor(system.mesh.level)
    assert torch.equal(values.raw > level, density > system.mesh.config.density)
    assert surface.mesh.colors is None or surface.mesh.colors.shape == surface.mesh.vertices.shape


def test_crops_are_cut_where_they_are_rendered(batch: ObjectViews):
    """A crop of a rendering is the rendering of the crop: compare with the whole picture."""
    system = tiny().eval()
    object.__setattr__(system, "config", system.config.replace(guided=False))
    with torch.no_grad():
        planes = system.planes_of(system.encoder(batch.given).mean)
        crops = render_crops(system, planes, batch, generator(3))
        index = choose_views(batch, system.config.rendered, generator(3))
        whole = system.render(planes, batch.views.cameras[:, index], system.config.training_volume)
    side = crops.rgb.shape[-1]
    windows = whole.rgb.unfold(-2, side, 1).unfold(-2, side, 1)  # every place of the window
    error = (windows - crops.rgb[:, :, :, None, None]).abs().amax((2, 5, 6)).flatten(2).amin(-1)
    assert error.max() < 1e-3


def test_novel_and_given_views_take_turns(batch: ObjectViews):
    for seed in range(5):
        index = choose_views(batch, 2, generator(seed))
        assert index[0] >= batch.inputs > index[1]
    assert sorted(choose_views(batch, 9, generator()).tolist()) == list(range(batch.shape[1]))


@pytest.mark.parametrize("denoiser", ["dit", "unet"])
def test_sampling_counts_calls_and_keeps_to_its_seeds(denoiser: str):
    system = tiny(denoiser).eval()
    condition = system.conditioner(labels=torch.tensor([1, 2]))
    plain = system.sample([5, 6], steps=4)
    assert plain.calls == 4
    assert system.sample([5, 6], condition, steps=4, guidance=3.0).calls == 8
    assert system.sample([5, 6], condition, steps=4, guidance=1.0).calls == 4
    heun = system.sample([5, 6], steps=4, sampler="heun").calls
    assert heun == (8 if denoiser == "dit" else 7)
    torch.testing.assert_close(system.sample([6], steps=4).latents[0], plain.latents[1], rtol=1e-4, atol=1e-5)
    steps = []
    system.sample([1], steps=3, on_step=steps.append)
    assert [(s.step, s.steps, s.calls) for s in steps] == [(1, 3, 1), (2, 3, 2), (3, 3, 3)]


def test_the_straight_path_is_learnt_exactly_by_a_perfect_network():
    """With one possible latent, the velocity (x - z) / t makes no error, and sampling ends at it."""
    system = tiny().eval()
    clean = torch.randn(1, *system.config.latent_shape)

    class Perfect(torch.nn.Module):
        def forward(self, x, t, condition=None):
            return (x - clean) / torch.as_tensor(t).reshape(-1, 1, 1, 1, 1).clamp_min(1e-6)

        def precompute(self, condition):
            return condition

    system.denoiser = Perfect()
    error = denoising_error(system, clean, system.conditioner(), generator())
    assert float(error) < 1e-6
    for sampler in ("euler", "midpoint"):  # Heun also asks at t = 0, where this network knows no noise
        torch.testing.assert_close(system.sample([0], steps=5, sampler=sampler).latents, clean, rtol=1e-4, atol=1e-4)


def test_rendering_without_gradient_skips_space_but_shows_the_same(batch: ObjectViews):
    system = tiny().eval()
    planes = system.planes_of(system.encoder(batch.given).mean)
    cameras = Cameras.cat([orbit(2, size=24)[None]] * 2)
    slow = system.render(planes, cameras)
    with torch.no_grad():
        fast = system.render(planes, cameras)
    assert (slow.rgb - fast.rgb).abs().max() < 2e-2


def test_configurations_that_do_not_fit_are_refused():
    system = ln3diff_shapes().system
    with pytest.raises(ValueError, match="make latent_channels and latent_size agree"):
        system.replace(encoder=system.encoder.replace(plane_size=128))
    with pytest.raises(ValueError, match="features per plane"):
        system.replace(field=system.field.replace(features=8))
    with pytest.raises(ValueError, match="belong together"):
        system.replace(denoiser=None)
    with pytest.raises(ValueError, match="no sampler 'leap'"):
        tiny().sample([0], steps=2, sampler="leap")
    with pytest.raises(ValueError, match="choose dit or unet"):
        ln3diff_shapes("transformer")
    with pytest.raises(ValueError, match="no stage 'train'"):
        list(tiny().trainable("train"))


def test_an_autoencoder_alone_does_not_sample():
    config = ln3diff_shapes_tiny().system.replace(denoiser=None, conditioner=None, mesh=None, splats=None)
    system = config.build()
    assert system.stages() == ("vae",)
    with pytest.raises(ValueError, match="autoencoder only"):
        system.sample([0])
