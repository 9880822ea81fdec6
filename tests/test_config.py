"""Configurations travel as plain dictionaries and reject what they do not know."""

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latent3d import presets
from latent3d.config import Config
from latent3d.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class ConvConfig(Config):
    width: int = 8
    kernels: tuple[int, ...] = (3, 3)


@dataclass(frozen=True, kw_only=True)
class AttentionConfig(Config):
    heads: int = 2
    rate: float = 0.1


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    name: str
    body: ConvConfig | AttentionConfig = ConvConfig()
    stem: ConvConfig = ConvConfig()
    head: AttentionConfig | None = None
    stages: tuple[ConvConfig, ...] = ()
    parts: dict[str, ConvConfig] = dataclasses.field(default_factory=dict)
    limit: int | None = None
    size: tuple[int, float] = (1, 2.0)
    mode: Literal["fast", "exact"] = "fast"


NESTED = ModelConfig(
    name="all",
    body=AttentionConfig(heads=4),
    stem=ConvConfig(width=3, kernels=(1, 5, 7)),
    head=AttentionConfig(rate=0.5),
    stages=(ConvConfig(width=1), ConvConfig(width=2)),
    parts={"a": ConvConfig(width=9)},
    limit=3,
    size=(4, 5.5),
)


@pytest.mark.parametrize("config", [NESTED, ModelConfig(name="defaults")])
def test_round_trip_through_json_restores_types_and_values(config):
    values = json.loads(json.dumps(config.to_dict()))
    assert ModelConfig.from_dict(values) == config


@given(st.integers(), st.lists(st.integers(1, 9), max_size=4), st.booleans())
def test_round_trip_of_drawn_values(width, kernels, attention):
    stem = ConvConfig(width=width, kernels=tuple(kernels))
    config = ModelConfig(name="x", stem=stem, body=AttentionConfig(heads=width) if attention else stem)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_polymorphic_field_is_chosen_by_its_type_key():
    values = {"name": "x", "body": {"type": "AttentionConfig", "heads": 7}}
    assert ModelConfig.from_dict(values).body == AttentionConfig(heads=7)
    with pytest.raises(ValueError, match=r"unknown part 'RnnConfig'; choose one of ConvConfig, AttentionConfig"):
        ModelConfig.from_dict({"name": "x", "body": {"type": "RnnConfig"}})


def test_unknown_key_names_the_nearest_known_one():
    with pytest.raises(ValueError, match="ConvConfig has no key 'widht'; did you mean 'width'"):
        ModelConfig.from_dict({"name": "x", "stem": {"widht": 4}})
    with pytest.raises(ValueError, match="no key 'zzz'; known keys: heads, rate"):
        AttentionConfig.from_dict({"zzz": 1})


def test_a_field_of_a_base_class_takes_any_subclass_that_is_imported():
    config = presets.ggs_rooms_tiny()
    again = TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert type(again.system).__name__ == "GGSConfig"
    with pytest.raises(ValueError, match="unknown part 'NoSuchConfig'"):
        TrainConfig.from_dict({"system": {"type": "NoSuchConfig"}, "stages": []})


def test_missing_key_and_foreign_type_are_errors():
    with pytest.raises(ValueError, match="name"):
        ModelConfig.from_dict({})
    with pytest.raises(ValueError, match="expected the configuration of a ConvConfig, found one of a AttentionConfig"):
        ConvConfig.from_dict({"type": "AttentionConfig"})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("name", 3, "ModelConfig.name must be of type str, found 3"),
        ("limit", "many", "ModelConfig.limit must be of type int, found 'many'"),
        ("stem", 4, "ModelConfig.stem must be the configuration of a ConvConfig, found 4"),
        ("stem", {"width": True}, "ConvConfig.width must be of type int, found True"),
        ("stem", {"kernels": 3}, "ConvConfig.kernels must be a list, found 3"),
        ("body", {"type": "AttentionConfig", "rate": "a"}, "AttentionConfig.rate must be of type float, found 'a'"),
        ("size", [1, 2.0, 3], "ModelConfig.size must have 2 entries, found 3"),
        ("mode", "slow", "ModelConfig.mode must be one of 'fast', 'exact', found 'slow'"),
    ],
)
def test_wrong_type_names_the_field_and_the_value(key, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ModelConfig.from_dict({"name": "x", key: value})


def test_integers_are_welcome_where_floats_are_expected():
    rate = AttentionConfig.from_dict({"rate": 1}).rate
    assert (rate, type(rate)) == (1.0, float)


def test_from_dict_leaves_its_input_alone_and_configs_are_frozen():
    values = {"type": "ConvConfig", "width": 4}
    config = ConvConfig.from_dict(values)
    assert values == {"type": "ConvConfig", "width": 4}
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.width = 5
    assert (config.replace(width=6).width, config.width) == (6, 4)
    with pytest.raises(TypeError):
        ConvConfig(4)
