"""Run configurations and settings given as text."""

from __future__ import annotations

import pytest

from latent3d.training.config import DataConfig, StageConfig, System, TrainConfig, apply_overrides


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


def test_streams_follow_the_data_configuration(tiny_config, bank):
    stage = tiny_config.stages[0]
    assert len(tiny_config.data.replace(max_clips=4).stream(stage, 0)) == 4
    worlds = DataConfig(family="open", path_views=5)
    train = worlds.stream(stage, 1, rank=1, world_size=2)
    assert train.describe(0) == ["open/train/10000002", "open/train/10000003"]
    assert worlds.validation(stage).describe(0) == ["open/val/0", "open/val/1"]
