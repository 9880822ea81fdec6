"""Run configurations and settings given as text."""

from __future__ import annotations

import pytest

from latent3d.training.config import DataConfig, StageConfig, System, TrainConfig, apply_overrides
from latent3d.training.engine import _check_optimizers, train


def changed(config, *texts):
    return apply_overrides(config, texts)


def test_the_tiny_system_is_a_system(tiny_config):
    assert isinstance(tiny_config.system.build(), System)


def test_settings_reach_their_field(tiny_config):
    config = changed(
        tiny_config,
        "depth.steps=500",
        "*.batch_size=3",
        "depth.loss_weights.absolute=0.5",
        "colour.sampling.views=1",
        "colour.betas=[0.5, 0.9]",
        "colour.learning_rate=1",
        "colour.schedule=linear",
        "data.family=open",
        "data.bank=somewhere",
        "system.width=8",
        "initial_weights.trunk=folder",
        "seed=3",
    )
    depth, colour = config.stages
    assert (depth.steps, depth.batch_size, colour.steps, colour.batch_size) == (500, 3, 4, 3)
    assert depth.loss_weights == {"depth": 2.0, "absolute": 0.5}
    assert (depth.sampling.views, colour.sampling.views) == (2, 1)
    assert colour.betas == (0.5, 0.9)
    assert isinstance(colour.learning_rate, float)
    assert colour.schedule == "linear"
    assert (config.data.family, config.data.bank) == ("open", ("somewhere",))
    assert config.system.width == 8
    assert config.initial_weights == {"trunk": "folder"}
    assert config.seed == 3
    assert tiny_config.stages[0].steps == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("depth.steps", "write name=value, for example depth.steps=500"),
        ("depht.steps=1", "did you mean 'depth'"),
        ("sed=1", "did you mean 'seed'"),
        ("depth.step=1", "did you mean 'steps'"),
        ("depth.steps=many", "must be of type int, found 'many'"),
        ("depth.steps=true", "must be of type int, found True"),
        ("depth.steps=0", "at least 1"),
        ("depth.steps.x=0", "its parent is not a group"),
        ("depth.schedule=odd", "must be one of 'constant', 'cosine', 'linear'"),
        ("system.widht=1", "did you mean 'width'"),
        ("seed=x", "'seed' must be of type int, found 'x'"),
        ("stages=1", "is no stage or setting"),
    ],
)
def test_wrong_settings_are_refused(tiny_config, text, message):
    with pytest.raises(ValueError, match=message):
        changed(tiny_config, text)


def test_stages_survive_the_dictionary(tiny_config):
    stage = tiny_config.stages[0]
    assert StageConfig.from_dict(stage.to_dict()) == stage
    assert DataConfig.from_dict(tiny_config.data.to_dict()) == tiny_config.data


def test_weights_run_along_their_ramps(tiny_config):
    """LN3Diff's KL weight: 1e-9 up to step 5,000, 1e-6 from 30,000 on; a term that is switched on at once."""
    stage = StageConfig(
        name="vae",
        steps=40_000,
        loss_weights={"l1": 1.0, "kl": 1e-6, "gan": 0.08},
        loss_ramps={"kl": (5_000, 30_000, 1e-9), "gan": (20_000, 20_000, 0.0)},
    )
    kl = {step: stage.weights_at(step)["kl"] for step in (0, 5_000, 17_500, 30_000, 39_999)}
    assert (kl[0], kl[5_000], kl[30_000], kl[39_999]) == (1e-9, 1e-9, 1e-6, 1e-6)
    assert kl[17_500] == pytest.approx((1e-9 + 1e-6) / 2)
    assert [stage.weights_at(step)["gan"] for step in (19_999, 20_000)] == [0.0, 0.08]
    assert {stage.weights_at(step)["l1"] for step in (0, 20_000, 39_999)} == {1.0}
    assert StageConfig.from_dict(stage.to_dict()) == stage
    assert changed(tiny_config, "depth.loss_ramps.depth=[1, 3, 0.5]").stages[0].weights_at(2)["depth"] == 1.25
    with pytest.raises(ValueError, match="has a ramp for 'gna'"):
        stage.replace(loss_ramps={"gna": (0, 1, 0.0)})
    with pytest.raises(ValueError, match="ends at step 2 before it begins"):
        stage.replace(loss_ramps={"kl": (3, 2, 0.0)})
    with pytest.raises(ValueError, match="all terms have weight 0 at step 0"):
        StageConfig(name="x", steps=9, loss_weights={"a": 1.0}, loss_ramps={"a": (0, 5, 0.0)})


def test_wrong_runs_are_refused(tiny_config):
    stage = tiny_config.stages[0]
    with pytest.raises(ValueError, match="different names, found: depth, depth"):
        TrainConfig(system=tiny_config.system, stages=(stage, stage))
    with pytest.raises(ValueError, match="found: none"):
        tiny_config.replace(stages=())
    with pytest.raises(ValueError, match="has no loss_weights"):
        StageConfig(name="x", steps=1)
    with pytest.raises(ValueError, match="autocast is 'bf16' or 'off'"):
        stage.replace(autocast="fp16")


def test_muon_needs_whole_matrices(tiny_config, tmp_path):
    """FSDP2 refuses it before anything is written, for stages that are to run, and the remedy it names is enough."""
    stages = tuple(stage.replace(optimizer="muon", adamw_prefixes=("x",)) for stage in tiny_config.stages)
    shared = tiny_config.replace(stages=stages, distributed="fsdp")
    name = stages[0].name
    with pytest.raises(ValueError, match=rf"muon needs whole matrices.*use ddp, or set {name}\.optimizer=adamw"):
        train(shared, tmp_path / "run", stage=name, progress=False)
    assert not (tmp_path / "run").exists()
    mended = apply_overrides(shared, [f"{name}.optimizer=adamw"])
    assert mended.stages[0].optimizer == "adamw"
    _check_optimizers(mended, [0])
    with pytest.raises(ValueError, match="optimizer is 'adamw' or 'muon', found 'sgd'"):
        tiny_config.stages[0].replace(optimizer="sgd")


def test_streams_follow_the_data_configuration(tiny_config, bank):
    stage = tiny_config.stages[0]
    assert len(tiny_config.data.replace(max_clips=4).stream(stage, 0)) == 4
    worlds = DataConfig(family="open", path_views=5)
    train = worlds.stream(stage, 1, rank=1, world_size=2)
    assert train.describe(0) == ["open/train/10000002", "open/train/10000003"]
    assert worlds.validation(stage).describe(0) == ["open/val/0", "open/val/1"]
