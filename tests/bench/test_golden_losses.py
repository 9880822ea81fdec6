"""No change drifts: the tiny presets' first losses and norms of gradients are the recorded ones."""

import golden_losses
import pytest
import torch

KIND = torch.backends.cpu.get_cpu_capability()


@pytest.mark.parametrize("kind", ["AVX2", "AVX512"])
def test_every_tiny_preset_is_recorded(kind):
    assert tuple(golden_losses.recorded()[kind]) == golden_losses.NAMES


@pytest.mark.skipif(KIND not in golden_losses.recorded(), reason=f"nothing is recorded for processors with {KIND}")
@pytest.mark.parametrize("name", golden_losses.NAMES)
def test_first_steps_are_the_recorded_ones(name):
    """To four digits: processors of one kind add alike, up to the compiled loops' own vectors."""
    found, golden = golden_losses.figures(name), golden_losses.recorded()[KIND][name]
    assert found.keys() == golden.keys()
    for stage, values in golden.items():
        assert found[stage] == pytest.approx(values, rel=1e-4), stage
