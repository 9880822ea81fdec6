"""Sizes against the published ones on the meta device, and operations against PyTorch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from latent3d.conditioning.condition import Condition
from latent3d.denoisers.plane_cost import flops
from latent3d.denoisers.plane_dit import PlaneDiT, PlaneDiTConfig

POSITIONS = 3 * 16 * 16 * 1024
"""The released models store their fixed positions among their weights; here they are computed."""


def on_meta(config: PlaneDiTConfig) -> PlaneDiT:
    with torch.device("meta"):
        return config.build()


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_picture_model_has_the_published_size_but_for_weights_it_never_uses():
    """416.5 M were measured on the release, whose checkpoints hold parameters that its picture model never reads.

    They are a label embedding, a projection of pooled text and one more norm per block; besides the positions (0.79 M),
    and the gains and biases named below (0.12 M), 1.98 M are left for them.
    """
    network = on_meta(PlaneDiTConfig.large_image())
    assert count(network) == 413_612_560
    gains = 24 * 2 * 1024 + 1024  # RMS norms before attention and feed-forward and at the end: here part of the scale
    biases = 24 * 2 * 1024  # of the context's keys and values
    blocks = 24 * (4 * 1024 * 1025 + 128 + 4 * 1024 * 1025 - 2048 + 128 + 8 * 1024**2 + 5 * 1024 + 6 * 1024)
    assert count(network.blocks) == blocks
    never_used = 416.5e6 - count(network) - POSITIONS - gains - biases
    assert never_used == pytest.approx(2.0e6, abs=0.06e6)
    assert count(network) == pytest.approx(416.5e6, rel=0.01)


def test_the_text_model_has_the_published_size_without_its_cross_attention():
    """459.4 M (458 M in the paper) is exactly this model without the 24 cross-attentions, which add 100.7 M."""
    network = on_meta(PlaneDiTConfig.large_text())
    crossed = sum(count(block.cross) for block in network.blocks)
    assert crossed == 24 * (4 * 1024**2 + 2 * 1024 + 2 * 64)
    assert round((count(network) - crossed + POSITIONS) / 1e6, 1) == 459.4


def test_small_and_tiny_are_small():
    assert 7e6 < count(on_meta(PlaneDiTConfig.small(classes=7))) < 9e6
    assert count(on_meta(PlaneDiTConfig.tiny())) < 1e5


@pytest.mark.parametrize(
    "config",
    [
        PlaneDiTConfig.small(),
        PlaneDiTConfig.tiny(),
        PlaneDiTConfig.tiny().replace(modulation="block", context_layer="mlp", cross_every=2),
    ],
)
def test_operations_agree_with_pytorchs_counter(config):
    """In half precision, where attention consists of plain products, which the counter sees."""
    network = config.build().to(torch.bfloat16)
    batch, context = 2, 9
    appended = None
    if config.appended_dim is not None:
        appended = torch.randn(batch, config.appended_tokens, config.appended_dim)
    condition = Condition(
        torch.randn(batch, context, config.context_dim), appended, torch.randn(batch, config.pooled_dim)
    )
    with torch.no_grad(), FlopCounterMode(display=False) as before:
        cached = network.precompute(condition)
    with torch.no_grad(), FlopCounterMode(display=False) as call:
        network(torch.randn(batch, 3, config.latent_channels, 16, 16), torch.rand(batch), cached)
    cost = flops(config, batch, side=16, context=context)
    assert before.get_total_flops() == cost.condition
    assert call.get_total_flops() == cost.call


def test_the_cache_saves_what_the_specification_says():
    """740 GFLOP a call in the release; 78 linear and 26 of attention are saved, 14 %."""
    cost = flops(PlaneDiTConfig.large_image(), context=256)
    assert cost.call / 1e9 == pytest.approx(740 - 78 - 26, rel=0.01)
