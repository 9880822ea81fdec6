"""Presets: they travel as JSON, fit together, and have the sizes they promise."""

from __future__ import annotations

import json

import pytest
import torch

from latent3d.presets import CONDITION_CHANNELS, PRESETS, ggs_rooms, ggs_rooms_tiny
from latent3d.systems.ggs import STAGES, GGSConfig
from latent3d.training.config import DataConfig, StageConfig

BUILDERS = (ggs_rooms, ggs_rooms_tiny)


@pytest.mark.parametrize("denoiser", ["transformer", "unet"])
@pytest.mark.parametrize("build", BUILDERS)
def test_presets_travel_as_json(build, denoiser):
    config = build(denoiser)
    plain = json.loads(json.dumps(config.to_dict()))
    system = GGSConfig.from_dict(plain["system"])
    assert system == config.system
    assert type(system.denoiser) is type(config.system.denoiser)
    assert tuple(StageConfig.from_dict(stage) for stage in plain["stages"]) == config.stages
    assert DataConfig.from_dict(plain["data"]) == config.data


@pytest.mark.parametrize("build", BUILDERS)
def test_another_denoiser_is_refused(build):
    with pytest.raises(ValueError, match=r"no denoiser 'dit'; choose transformer or unet"):
        build("dit")


def test_every_preset_has_a_tiny_sibling_with_the_same_stages():
    large = [name for name in PRESETS if not name.endswith("_tiny")]
    assert large
    for name in large:
        full, tiny = PRESETS[name](), PRESETS[f"{name}_tiny"]()
        assert [stage.name for stage in full.stages] == [stage.name for stage in tiny.stages]
        assert [stage.loss_weights for stage in full.stages] == [stage.loss_weights for stage in tiny.stages]
        assert tiny.system.to_dict().keys() == full.system.to_dict().keys()


@pytest.mark.parametrize("denoiser", ["transformer", "unet"])
def test_the_denoisers_have_twelve_and_sixteen_million_parameters(denoiser):
    config = ggs_rooms(denoiser).system
    with torch.device("meta"):
        network = config.denoiser.build()
    count = sum(parameter.numel() for parameter in network.parameters())
    assert abs(count - {"transformer": 11.9e6, "unet": 16.2e6}[denoiser]) < 0.3e6


def test_most_of_the_shipped_parameters_are_the_denoisers():
    system = ggs_rooms().system.build()
    count = sum(value.numel() for value in system.state_dict().values())
    assert 2 * count < 40e6  # bytes as bf16, the limit of the shipped weights
    assert sum(parameter.numel() for parameter in system.denoiser.parameters()) > count / 2


@pytest.mark.parametrize("build", BUILDERS)
def test_parts_fit_together(build):
    """What one part hands out is what the next was built for."""
    config = build()
    system = config.system
    assert system.denoiser.latent_channels == system.vae.latent_channels
    factor = system.vae.factor
    assert system.denoiser.downscale == factor
    assert system.denoiser.condition_channels == 5 * (factor // system.condition_stride) ** 2 == CONDITION_CHANNELS
    assert system.height % 16 == system.width % 16 == 0
    assert system.height % factor == 0
    spans = {system.depth_range, system.epipolar.depth_range, system.geometry.depth_range}
    assert len(spans) == 1  # coordinates of depth pass between the parts
    assert len(system.reference_weights) <= system.views - 1
    for stage in config.stages:
        assert stage.name in STAGES
        if stage.name in ("scene", "decoder"):
            assert stage.sampling.novel == system.novel
            assert stage.sampling.views == system.views
    order = [STAGES.index(stage.name) for stage in config.stages]
    assert order == sorted(order)
