"""The compact denoiser: symmetry under permuted views, reach of attention, gates, context."""

from __future__ import annotations

import pytest
import torch

from latent3d.denoisers.multiview_transformer import MultiViewTransformerConfig
from tests.denoisers.common import make_inputs, shake, without_gradient

TINY = MultiViewTransformerConfig.tiny(4)


def _build(**changes):
    torch.manual_seed(0)
    return shake(TINY.replace(**changes).build(), 0.1).double()


@torch.no_grad()
def test_permuting_posed_views_permutes_the_features():
    network, inputs = _build(), make_inputs(views=4, height=5, width=6, references=(0, 2)).to(torch.float64)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(network(*inputs.frames(order)), network(*inputs)[:, order])


@torch.no_grad()
def test_without_poses_the_order_of_frames_counts():
    network, inputs = _build(), make_inputs(posed=False).to(torch.float64)
    order = torch.tensor([2, 0, 1])
    assert (network(*inputs.frames(order)) - network(*inputs)[:, order]).abs().max() > 1e-3


@pytest.mark.parametrize(("global_every", "expected"), [(1, "111"), (2, "101"), (3, "001"), (9, "001")])
def test_blocks_alternate_and_end_over_all_views(global_every, expected):
    network = _build(depth=3, global_every=global_every)
    assert "".join(str(int(block.all_views)) for block in network.blocks) == expected


@torch.no_grad()
def test_information_crosses_views_only_through_the_all_view_blocks():
    network = _build(depth=2, global_every=2)
    inputs = make_inputs().to(torch.float64)
    noisy = inputs.noisy.clone()
    noisy[:, 2] += 1
    moved = inputs._replace(noisy=noisy)
    assert (network(*moved) - network(*inputs))[:, 0].abs().max() > 1e-6
    for block in network.blocks:
        block.all_views = False
    assert (network(*moved) - network(*inputs))[:, 0].abs().max() == 0


@torch.no_grad()
def test_blocks_and_velocity_start_closed():
    torch.manual_seed(0)
    network = TINY.build()
    inputs = make_inputs()
    features = network(*inputs)
    assert not network.velocity(features).any()
    noisy = inputs.noisy.clone()
    noisy[:, 2] += 1
    # gates at zero: nothing flows between views yet
    assert torch.equal(network(*inputs._replace(noisy=noisy))[:, 0], features[:, 0])


def test_gradients_reach_every_parameter():
    network = _build(context_dim=6)
    posed, free = (make_inputs(posed=posed).to(torch.float64) for posed in (True, False))
    context = torch.randn(2, 3, 6, dtype=torch.float64)
    # with and without cameras, with and without a context: every layer takes part in one of them
    loss = network.velocity(network(*posed, context)).square().mean() + network.velocity(network(*free)).square().mean()
    loss.backward()
    assert without_gradient(network) == []


@torch.no_grad()
def test_context_matters_and_is_refused_without_its_layers():
    network, inputs = _build(context_dim=6), make_inputs().to(torch.float64)
    context = torch.randn(2, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert (network(*inputs, context) - network(*inputs)).abs().max() > 1e-4
    with pytest.raises(ValueError, match="context"):
        _build()(*inputs, context)


@torch.no_grad()
@pytest.mark.parametrize("patch_size", [1, 3])
def test_patches_of_any_size_go_there_and_back(patch_size):
    network = _build(patch_size=patch_size)
    inputs = make_inputs(height=5, width=7).to(torch.float64)
    assert network(*inputs).shape == (2, 3, network.feature_channels, 5, 7)


def test_strict_loading_names_what_is_missing():
    state = TINY.build().state_dict()
    state.pop("stem.weight")
    with pytest.raises(RuntimeError, match=r"stem\.weight"):
        TINY.build().load_state_dict(state)
