"""No change drifts: the tiny presets' first losses and norms of gradients are the recorded ones."""

import golden_losses
import pytest


def test_every_tiny_preset_is_recorded():
    assert tuple(golden_losses.recorded()) == golden_losses.NAMES


@pytest.mark.parametrize("name", golden_losses.NAMES)
def test_first_steps_are_the_recorded_ones(name):
    """To three digits: processors add in other orders, which two steps hardly amplify."""
    found, golden = golden_losses.figures(name), golden_losses.recorded()[name]
    assert found.keys() == golden.keys()
    for stage, values in golden.items():
        assert found[stage] == pytest.approx(values, rel=1e-3), stage
