"""Low-rank changes: nothing at first, exactly W + B A later, under the names of the layers they change."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from latent3d.nn.lora import LORA_SUFFIXES, LowRankLinear, add_low_rank


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"to_q": nn.Linear(5, 3), "to_k": nn.Linear(5, 3, bias=False), "other": nn.Linear(5, 3)})


def test_the_change_begins_at_zero_and_is_b_times_a():
    plain, x = network(), torch.randn(2, 4, 5)
    before = {name: layer(x) for name, layer in plain.items()}
    keys = set(plain.state_dict())
    assert add_low_rank(plain, 2, ("to_q", "to_k")) == 2
    assert all(torch.equal(layer(x), before[name]) for name, layer in plain.items())
    added = set(plain.state_dict()) - keys
    assert keys <= set(plain.state_dict())
    assert len(added) == 4
    assert all(name.endswith(LORA_SUFFIXES) for name in added)
    layer = plain["to_q"]
    nn.init.normal_(layer.lora_up)
    full = nn.Linear(5, 3)
    full.weight.data = layer.weight.data + layer.lora_up.data @ layer.lora_down.data
    full.bias.data = layer.bias.data
    torch.testing.assert_close(layer(x), full(x))


def test_both_factors_learn():
    layer = LowRankLinear(nn.Linear(5, 3), 2)
    layer(torch.randn(4, 5)).square().sum().backward()
    assert layer.lora_up.grad.abs().max() > 0  # the first step moves B, the next one A
    nn.init.normal_(layer.lora_up)
    layer(torch.randn(4, 5)).square().sum().backward()
    assert layer.lora_down.grad.abs().max() > 0


def test_what_cannot_be_adapted_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        add_low_rank(network(), 0, ("to_q",))
    with pytest.raises(ValueError, match="no linear layer named to_z"):
        add_low_rank(network(), 1, ("to_z",))
