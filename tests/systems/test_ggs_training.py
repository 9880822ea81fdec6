"""Losses of all stages: finite, reaching what they train and nothing else, and known answers of their parts."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.presets import ggs_rooms_tiny
from latent3d.representations.views import Views
from latent3d.systems.ggs import STAGES, Denoised
from latent3d.systems.ggs_training import (
    anchored,
    choose_references,
    depth_terms,
    draw_depth,
    draw_sigma,
    encode,
    geometry_terms,
    median_pool,
    split,
)
from latent3d.systems.splat_head import DepthHeadConfig, DepthSample, lift_pixels
from systems.common import batched, scene_views, shaken, smooth_images, tiny_config, tiny_system, walk_cameras

UNUSED = {
    "transformer": {
        # the prior has neither rays nor a condition; the others know places by rays instead of frame numbers
        "prior": ("denoiser.stem_rays.", "denoiser.rays.", "denoiser.condition_in."),
        "twin": ("denoiser.frame.",),
        # features go on to the splats: the network's own output layer belongs to prior and twin
        "scene": ("denoiser.frame.", "denoiser.norm_out.", "denoiser.conv_out."),
    },
    "unet": {
        "prior": ("denoiser.camera_encoder.", "denoiser.camera_merges.", "denoiser.condition_in."),
        "twin": (),
        "scene": ("denoiser.conv_norm_out.", "denoiser.conv_out."),
    },
}
"""Parameters that a stage lists as trainable and that its losses cannot reach, by prefix."""


def reads_context(name: str) -> bool:
    """Cross-attention of the tiny U-Net sees a context of zeros here: nothing but its output bias can act."""
    return ".attn2." in name or "transformer_blocks.0.norm2." in name


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weighted(terms: dict[str, Tensor]) -> Tensor:
    """All terms with equal weights."""
    return torch.stack(list(terms.values())).sum()


@pytest.fixture(scope="module")
def batch() -> Views:
    return scene_views(5)


@pytest.mark.parametrize(
    ("kind", "stage"),
    [("transformer", stage) for stage in STAGES] + [("unet", "prior"), ("unet", "twin"), ("unet", "scene")],
)
def test_terms_are_finite_and_reach_what_the_stage_trains(kind, stage, batch):
    """Over a few batches, so that every role and number of references occurs."""
    system = shaken(tiny_system(kind), 0.03)
    if stage == "vae":
        system.vae.requires_grad_(True)
    for seed in range(3):
        terms = system.training_terms(batch, stage, generator(seed))
        assert all(torch.isfinite(value) and value.ndim == 0 for value in terms.values())
        weighted(terms).backward()
    listed = dict(system.trainable(stage))
    assert listed
    reached = {name for name, p in system.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert all(torch.isfinite(p.grad).all() for p in system.parameters() if p.grad is not None)
    unused = UNUSED[kind].get(stage, ())
    silent = {name for name in set(listed) - reached if not reads_context(name)}
    expected = {name for name in listed if name.startswith(unused)}
    assert silent == expected


@pytest.mark.parametrize("stage", STAGES)
def test_terms_are_a_function_of_the_generator(stage, batch):
    system = tiny_system()
    with torch.no_grad():
        first, again, other = (system.training_terms(batch, stage, generator(seed)) for seed in (1, 1, 2))
    assert first == again
    assert stage == "geometry" or first != other


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_down_the_gradient_lowers_the_loss(stage, batch):
    system = shaken(tiny_system(), 0.03)
    parameters = [p for _, p in system.trainable(stage)]
    before = weighted(system.training_terms(batch, stage, generator()))
    gradients = torch.autograd.grad(before, parameters, allow_unused=True)
    norm2 = sum(g.square().sum() for g in gradients if g is not None)
    assert norm2 > 0
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.sub_(gradient * (1e-3 / norm2.sqrt()))
        after = weighted(system.training_terms(batch, stage, generator()))
    assert after < before


def test_presets_weigh_terms_that_exist(batch):
    system = tiny_system()
    for stage in ggs_rooms_tiny().stages:
        with torch.no_grad():
            terms = system.training_terms(batch, stage.name, generator())
        assert set(stage.loss_weights) <= set(terms)


def test_data_without_depth_trains_without_depth_terms(batch):
    plain = dataclasses.replace(batch, depths=None)
    system = tiny_system()
    with torch.no_grad():
        scene = system.training_terms(plain, "scene", generator())
        decoder = system.training_terms(plain, "decoder", generator())
    assert not {"point", "depth", "rendered_depth"} & scene.keys()
    assert not {"depth", "reference_depth"} & decoder.keys()
    assert {"diffusion", "low_res", "novel_low_res"} <= scene.keys()


def test_the_paper_s_model_trains_a_step(batch):
    """No reference geometry: the stage is absent, and scene and decoder train without carried pixels."""
    config = tiny_config()
    system = tiny_system(geometry=None, denoiser=config.denoiser.replace(condition_channels=0))
    assert system.stages() == tuple(stage for stage in STAGES if stage != "geometry")
    optimizer = torch.optim.SGD([p for _, p in system.trainable("scene")], lr=1e-3)
    before = weighted(system.training_terms(batch, "scene", generator()))
    before.backward()
    torch.nn.utils.clip_grad_norm_(system.parameters(), 1.0)
    optimizer.step()
    after = weighted(system.training_terms(batch, "scene", generator()))
    assert after < before
    terms = system.training_terms(batch, "decoder", generator())
    weighted(terms).backward()
    assert system.decoder.head.weight.grad.abs().max() > 0
    assert "reference_depth" not in terms


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_decoder_batches_of_true_and_of_estimated_latents(batch, share):
    system = tiny_system(refined=share)
    with torch.no_grad():
        terms = system.training_terms(batch, "decoder", generator())
    assert all(torch.isfinite(value) for value in terms.values())


def test_the_categorical_head_trains_in_the_scene_stage(batch):
    config = tiny_config()
    head = config.head.replace(depth=DepthHeadConfig(kind="categorical", buckets=4, samples=2))
    system = shaken(tiny_system(head=head), 0.03)
    weighted(system.training_terms(batch, "scene", generator())).backward()
    assert (system.head.to_depth.weight.grad.abs().amax((1, 2, 3)) > 0).all()
    assert draw_depth(system, 2, 3, 4, 5, generator()).shape == (2, 3, 2, 4, 5)


# ---- parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("views", [2, 3, 8])
def test_there_is_always_a_reference_and_a_target(views):
    draws = generator()
    counts = [int(choose_references(views, (0.4, 0.4, 0.2), draws).sum()) for _ in range(200)]
    assert set(counts) == set(range(1, min(3, views - 1) + 1))


def test_references_are_often_the_ends_of_the_path():
    draws = generator()
    masks = [tuple(choose_references(8, (0.0, 1.0), draws).nonzero()[:, 0].tolist()) for _ in range(300)]
    ends = masks.count((0, 7)) / 300
    assert 0.5 < ends < 0.75
    assert len(set(masks)) > 10


def test_noise_levels_follow_their_distribution_and_the_sampler_s_range():
    system = tiny_system()
    sigma = draw_sigma(system, 4000, generator())
    assert sigma.min() >= system.config.sigma_min
    assert sigma.max() <= system.config.sigma_max
    assert sigma.log().mean().item() == pytest.approx(system.config.noise_mean, abs=0.1)
    assert sigma.log().std().item() == pytest.approx(system.config.noise_std, abs=0.1)


def test_novel_cameras_move_to_the_frame_of_the_first_reference():
    views = scene_views(5)
    shown, novel = split(views, 2)
    assert shown.shape == (2, 3)
    assert novel.shape == (2, 2)
    role = torch.tensor([False, True, True])
    moved = anchored(shown, novel.cameras, role)
    context = tiny_system().context_of(shown.images, shown.cameras, role)
    joined = Cameras.cat([context.cameras, moved], 1)
    between = joined.w2c[:, 4] @ torch.linalg.inv(joined.w2c[:, 0])
    expected = views.cameras.w2c[:, 4] @ torch.linalg.inv(views.cameras.w2c[:, 0])
    torch.testing.assert_close(between, expected, rtol=0, atol=1e-5)


def test_median_pool_does_not_mix_across_edges():
    depths = torch.ones(1, 1, 1, 4, 4)
    depths[..., :, 3] = 9.0
    depths[..., 3, :] = 9.0
    assert median_pool(depths, 1, 1).item() == 1.0
    assert median_pool(depths, 4, 4).equal(depths)


def true_state(system, views: Views, factor: float = 1.0) -> tuple[Denoised, object]:
    """A state whose splats lie at ``factor`` times the true depth, and its context."""
    b, m = views.shape
    h = w = 4
    role = torch.arange(m) == 0
    context = system.context_of(views.images, views.cameras, role)
    small = median_pool(views.depths, h, w)
    span = system.config.depth_range
    depth = (small * factor).clamp_min(span.near)
    splats = lift_pixels(
        context.cameras, depth, opacity=torch.ones_like(depth), color=torch.zeros(b, m, 3, h, w), scale_px=0.3
    )
    sample = DepthSample(span.relative(depth), torch.ones_like(depth), span.relative(depth))
    zero = torch.zeros(b, m, 1, h, w)
    latents = context.latents
    return Denoised(latents, latents, latents, zero, splats, sample, zero, torch.ones_like(zero), depth), context


def test_depth_terms_vanish_on_the_truth_and_are_ln_two_at_twice_the_depth():
    system = tiny_system()
    views = Views(
        smooth_images(6).unflatten(0, (2, 3)), batched(walk_cameras(3), 2), torch.full((2, 3, 1, 32, 32), 2.0)
    )
    state, context = true_state(system, views)
    terms = depth_terms(system, views, views, state, context, (4, 4))
    for value in terms.values():
        assert value.item() == pytest.approx(0.0, abs=1e-4)
    state, context = true_state(system, views, 2.0)
    terms = depth_terms(system, views, views, state, context, (4, 4))
    assert terms["depth"].item() == pytest.approx(math.log(2), abs=1e-3)
    assert terms["rendered_depth"].item() == pytest.approx(math.log(2), abs=1e-3)
    assert terms["point"] > 0.1


def test_unknown_depth_is_left_out():
    system = tiny_system()
    depths = torch.full((2, 3, 1, 32, 32), 2.0)
    depths[..., :16] = 0.0
    views = Views(smooth_images(6).unflatten(0, (2, 3)), batched(walk_cameras(3), 2), depths)
    state, context = true_state(system, views)
    terms = depth_terms(system, views, views, state, context, (4, 4))
    for value in terms.values():
        assert value.item() == pytest.approx(0.0, abs=1e-4)


def test_encoding_records_no_gradient_and_finishing_the_autoencoder_normalises_latents(batch):
    system = tiny_system()
    assert not encode(system, batch.images).requires_grad
    system.finish_stage("vae", batch)
    latents = encode(system, batch.images).flatten(0, 1)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-3)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), rtol=1e-2, atol=0)
    before = {name: value.clone() for name, value in system.state_dict().items()}
    system.finish_stage("scene", batch)
    assert all(torch.equal(value, before[name]) for name, value in system.state_dict().items())


@pytest.mark.parametrize("stage", STAGES)
def test_sheets_show_rows_of_equal_pictures(stage, batch):
    rows = tiny_system().sample_sheet(batch, stage, generator())
    assert "truth" in rows
    for name, row in rows.items():
        assert row.ndim == 4
        assert torch.isfinite(row).all(), name
    counts = {len(row) for row in rows.values()}
    assert len(counts) == 1


def test_only_several_views_change_their_unit_of_length(monkeypatch):
    batch, seen = scene_views(3, scenes=4), []
    for weights in ((1.0,), (0.0, 1.0)):
        system = tiny_system(unit_jitter=2.0, reference_weights=weights)
        monkeypatch.setattr(system.geometry, "training_terms", lambda *given: seen.append(given) or {})
        geometry_terms(system, batch, torch.Generator().manual_seed(0))
    (_, one_cameras, one_depths), (_, cameras, depths) = seen
    assert any(torch.equal(one_depths, batch.depths[:, i : i + 1]) for i in range(3))
    assert any(torch.equal(one_cameras.w2c, batch.cameras.w2c[:, i : i + 1]) for i in range(3))
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    ratios = [depths / batch.depths[:, list(pair)] for pair in pairs]
    factor = next(r for r in ratios if (r.flatten(1).std(1) < 1e-5).all()).flatten(1)[:, 0]
    assert (factor > 0.5).all()
    assert (factor < 2.0).all()
    assert factor.std() > 0.05
    moves = (cameras.centers[:, 0] - cameras.centers[:, 1]).norm(dim=-1)
    true = [(batch.cameras.centers[:, i] - batch.cameras.centers[:, j]).norm(dim=-1) for i, j in pairs]
    assert any(torch.allclose(moves, factor * t, rtol=1e-4) for t in true)
