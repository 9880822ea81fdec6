"""Camera encoder: shapes of the levels, order of frames, gradients, refusals."""

from __future__ import annotations

import pytest
import torch

from latent3d.conditioning.cameras import CameraEncoder


def _shaken(encoder: CameraEncoder) -> CameraEncoder:
    """Zero-initialised branches opened, so that a test sees through them."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


@pytest.mark.parametrize(
    ("size", "expected"), [((32, 48), [(4, 6), (2, 3), (1, 2)]), ((40, 24), [(5, 3), (3, 2), (2, 1)])]
)
def test_levels_halve_and_round_up(size, expected):
    encoder = CameraEncoder((16, 24, 32), channels=(8, 8, 16), blocks=1, heads=2)
    features = encoder(torch.randn(2, 3, 6, *size))
    assert [tuple(level.shape) for level in features] == [
        (2, 3, width, *level) for width, level in zip((16, 24, 32), expected, strict=True)
    ]


def test_frames_are_told_apart_by_their_number():
    encoder = _shaken(CameraEncoder((8, 16), blocks=1, heads=2))
    same = torch.randn(1, 1, 6, 16, 16, generator=torch.Generator().manual_seed(0)).expand(1, 3, -1, -1, -1)
    for level in encoder(same):
        assert (level[:, 0] - level[:, 1]).abs().max() > 1e-4


def test_scenes_of_a_batch_do_not_mix():
    encoder = _shaken(CameraEncoder((8, 16), blocks=2, heads=2))
    maps = torch.randn(3, 2, 6, 16, 16, generator=torch.Generator().manual_seed(0))
    for together, alone in zip(encoder(maps), encoder(maps[1:2]), strict=True):
        torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_parameter():
    encoder = _shaken(CameraEncoder((8, 16), channels=(8, 8), blocks=1, heads=2))
    sum(level.square().sum() for level in encoder(torch.randn(1, 2, 6, 16, 16))).backward()
    # without a projection after the last level the earlier one still has its own output
    assert [name for name, p in encoder.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


def test_refuses_odd_sizes_and_unequal_lists():
    with pytest.raises(ValueError, match="multiple of 8"):
        CameraEncoder((8,), blocks=1, heads=2)(torch.randn(1, 2, 6, 12, 16))
    with pytest.raises(ValueError, match="per level"):
        CameraEncoder((8, 16), channels=(8,))
