"""The plan of a run: counts with known answers, the same on real tensors, and what changes them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from latent3d.memory import LEVELS, memory
from latent3d.presets import PRESETS
from latent3d.systems.ggs_cost import network_pass
from latent3d.training.plan import DEVICES, RESERVE, UTILISATION, PeakMemory, plan_sampling, plan_stage

CONFIG = PRESETS["ggs_re10k_tiny"]()


def test_peak_memory_counts_storages_that_live_together():
    with PeakMemory() as memory:
        a = torch.zeros(1000)  # 4000 bytes
        b = a + 1  # 8000
        view = b[:10]
        del a
        assert memory.now == 4000
        c = b * 2  # 8000
        del b
        assert memory.now == 8000  # the view keeps its storage
        del view
        c.add_(1)
        assert (memory.now, memory.peak) == (4000, 8000)


def test_checkpointing_trades_memory_for_operations():
    config = CONFIG.system
    low = CONFIG.replace(system=config.replace(denoiser=config.denoiser.replace(checkpointing=True)))
    plain, saved = plan_stage(CONFIG, "twin"), plan_stage(low, "twin")
    assert saved.activations < plain.activations
    assert saved.backward > plain.backward
    assert saved.forward == plain.forward


@pytest.fixture(scope="module")
def scene():
    return plan_stage(CONFIG, "scene", "A100")


def test_counts_are_those_of_a_real_pass(scene):
    system = CONFIG.system.build()
    system.requires_grad_(False)
    trained = dict(system.trainable("scene"))
    for parameter in trained.values():
        parameter.requires_grad_(True)
    with FlopCounterMode(display=False) as forward:
        loss = network_pass(system, "scene", 1)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert (forward.get_total_flops(), backward.get_total_flops()) == (scene.forward, scene.backward)
    assert torch.isfinite(loss)
    reached = {name for name, parameter in trained.items() if parameter.grad is not None}
    single = (".attn2.to_q.", ".attn2.to_k.", ".norm2.")  # idle where there is a single context token
    missed = {name for name in trained.keys() - reached if not any(part in name for part in single)}
    assert missed <= {name for name in trained if name.startswith(("denoiser.conv_out.", "denoiser.conv_norm_out."))}


def test_a_known_network_has_known_operations():
    """Two multiply-adds per weight and row forward, twice that backward (less the input's share)."""
    layer = nn.Linear(10, 20, bias=False)
    with FlopCounterMode(display=False) as forward:
        out = layer(torch.randn(5, 10))
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    assert (forward.get_total_flops(), backward.get_total_flops()) == (2000, 2000)


def test_bytes_follow_the_parameters(scene):
    trained = sum(part.trained for part in scene.parts)
    assert {part.name for part in scene.parts if part.trained} == {"denoiser", "epipolar", "head", "velocity"}
    assert (scene.gradients, scene.optimizer, scene.average) == (4 * trained, 8 * trained, 4 * trained)
    assert scene.exchange == 0
    stays = scene.weights + scene.gradients + scene.optimizer + scene.average
    assert scene.memory == pytest.approx(RESERVE * (stays + scene.activations))
    rate = UTILISATION * DEVICES["A100"][0] * 1e12 / 15  # float32
    assert scene.step_seconds == pytest.approx(2 * (scene.forward + scene.backward) / rate)


def test_frozen_priors_and_more_devices_take_less(scene):
    stages = tuple(stage.replace(autocast="bf16", frozen_dtype="bf16") for stage in CONFIG.stages)
    frozen = CONFIG.replace(stages=stages, system=CONFIG.system.replace(adapt="added"))
    small = plan_stage(frozen, "scene", "A100", devices=2, sharded=True)
    one = plan_stage(frozen, "scene", "A100")
    assert one.weights < scene.weights
    assert small.weights == one.weights * 3 // 2  # whole for the time of a pass, and a half that stays
    assert (small.optimizer, small.exchange, one.exchange) == (one.optimizer // 2, one.gradients, 0)
    trained = sum(part.trained for part in small.parts)
    assert small.optimizer == 4 * trained
    assert (small.passes, scene.passes) == (1, 2)
    assert small.backward < scene.backward


def test_what_cannot_be_planned_is_said():
    with pytest.raises(ValueError, match="choose one of A100"):
        plan_stage(CONFIG, "scene", "abacus")
    with pytest.raises(ValueError, match="3 devices cannot share the 2 passes"):
        plan_stage(CONFIG, "scene", devices=3)
    with pytest.raises(ValueError, match="cannot be counted"):
        plan_stage(PRESETS["ggs_rooms_tiny"](), "geometry")
    with pytest.raises(ValueError, match="follows surfaces and cannot be counted"):
        plan_stage(PRESETS["ln3diff_objaverse_image_tiny"](), "mesh")
    with pytest.raises(ValueError, match="networks of a StageConfig cannot be counted"):
        plan_stage(CONFIG.replace(system=CONFIG.stages[0]), "scene")


def test_other_presets_can_be_planned():
    config = PRESETS["ggs_rooms_tiny"]()
    for name in ("vae", "prior", "scene", "decoder"):
        assert plan_stage(config, name).forward > 0


def test_plain_attention_can_be_planned(scene):
    config = CONFIG.system
    plain = CONFIG.replace(system=config.replace(epipolar=config.epipolar.replace(kind="plain")))
    assert plan_stage(plain, "scene").forward != scene.forward


OBJECTS = ("ln3diff_shapes", "ln3diff_ffhq", "ln3diff_objaverse_text", "ln3diff_objaverse_image")


@pytest.mark.parametrize("stage", ["vae", "diffusion"])
@pytest.mark.parametrize("name", OBJECTS)
def test_objects_are_counted_as_they_are_computed(name, stage):
    """Each kind of encoder, denoiser and condition; every trained parameter but the classes' is reached."""
    config = PRESETS[f"{name}_tiny"]()
    plan = plan_stage(config, stage)
    system = config.system.build()
    with torch.no_grad():
        for parameter in system.parameters():  # layers that begin at zero pass no gradient on
            parameter.add_(0.01 * torch.randn(parameter.shape))
    trained = dict(system.trainable(stage))
    system.requires_grad_(False)
    for parameter in trained.values():
        parameter.requires_grad_(True)
    settings = config.stages[config.stage_index(stage)]
    with FlopCounterMode(display=False) as forward:
        loss = config.system.network_pass(system, stage, settings.batch_size, settings.sampling.views)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert (forward.get_total_flops(), backward.get_total_flops()) == (plan.forward, plan.backward)
    assert {part.name: part.trained for part in plan.parts if part.trained} == {
        part: sum(p.numel() for path, p in trained.items() if path.startswith(f"{part}."))
        for part in {path.split(".")[0] for path in trained}
    }
    reached = {path for path, parameter in trained.items() if parameter.grad is not None}
    missed = {path for path in trained.keys() - reached if ".attn2." not in path and ".norm2." not in path}
    assert not missed


def test_more_views_cost_more():
    config = PRESETS["ln3diff_objaverse_image_tiny"]()
    stages = tuple(s.replace(sampling=s.sampling.replace(views=3)) for s in config.stages)
    assert plan_stage(config.replace(stages=stages), "vae").forward > plan_stage(config, "vae").forward


def test_what_checkpointing_computes_anew_is_let_go_again():
    """Of 16 blocks one at a time is in memory, whatever counts the operations."""
    config = PRESETS["ln3diff_objaverse_image_tiny"]()
    deep = config.system.denoiser.replace(dim=64, depth=16)
    plain, saved = (
        plan_stage(config.replace(system=config.system.replace(denoiser=deep.replace(checkpointing=on))), "diffusion")
        for on in (False, True)
    )
    assert saved.activations < plain.activations / 2
    assert saved.backward > plain.backward


@pytest.mark.parametrize(
    ("name", "stage"),
    [("ggs_rooms_tiny", "decoder"), ("ln3diff_shapes_tiny", "vae")],
)
def test_leaner_levels_take_less(name, stage):
    levels = plan_stage(PRESETS[name](), stage, levels=LEVELS).levels
    assert levels["fast"] > levels["lean"] > levels["leanest"]


def test_sampling_is_planned_at_each_level():
    plan = plan_sampling(PRESETS["ggs_rooms_tiny"](), 8)
    assert plan.levels["fast"] > plan.levels["lean"] > plan.levels["leanest"]
    assert plan.memory_at("lean") == pytest.approx(RESERVE * (plan.weights + plan.levels["lean"]))
    config = PRESETS["ln3diff_shapes_tiny"]()
    assert plan_sampling(config).levels["fast"] > 0
    with pytest.raises(ValueError, match="cannot sample"):
        plan_sampling(config.replace(system=config.system.replace(denoiser=None, conditioner=None)))


@pytest.mark.parametrize("stage", ["vae", "diffusion"])
def test_a_real_step_takes_what_was_planned(stage):
    """Within a quarter: the plan's stand-ins for what depends on values are not of the same bytes."""
    config = PRESETS["ln3diff_shapes_tiny"]()
    settings = config.stages[config.stage_index(stage)]
    system, batch = config.system.build(), config.data.stream(settings, 0).batch(0)
    chosen = dict(system.trainable(stage))
    system.requires_grad_(False)
    for parameter in chosen.values():
        parameter.requires_grad_(True)
        parameter.grad = torch.zeros_like(parameter)
    planned = plan_stage(config, stage, levels=LEVELS).levels
    for level in LEVELS:
        with memory(level), PeakMemory() as peak:
            terms = system.training_terms(batch, stage, torch.Generator().manual_seed(0))
            sum(weight * terms[term] for term, weight in settings.loss_weights.items()).backward()
        del terms
        assert peak.peak == pytest.approx(planned[level], rel=0.25)
