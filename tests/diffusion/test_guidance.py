"""Guidance: the formula, the number of calls, intervals, ramps, and whose aux is handed on."""

from __future__ import annotations

import pytest
import torch

from latent3d.diffusion.guidance import GuidedDenoiser, guide, linear_ramp


class Counting:
    """A denoiser that returns a constant and counts its calls."""

    def __init__(self, value: float, aux: object = None) -> None:
        self.value, self.aux, self.calls = value, aux, 0

    def __call__(self, z: torch.Tensor, level: torch.Tensor) -> object:
        self.calls += 1
        out = torch.full_like(z, self.value)
        return out if self.aux is None else (out, self.aux)


Z = torch.zeros(3, 4, 2, 2, dtype=torch.float64)


@pytest.mark.parametrize("scale", [1.0, torch.ones(3)])
def test_scale_one_is_conditional_only_and_makes_one_call(scale: float | torch.Tensor) -> None:
    conditional, unconditional = Counting(2.0), Counting(1.0)
    out = GuidedDenoiser(conditional, unconditional, scale)(Z, torch.tensor(5.0))
    assert (conditional.calls, unconditional.calls) == (1, 0)
    assert (out == 2).all()


def test_guided_value_is_extrapolated() -> None:
    conditional, unconditional = Counting(2.0), Counting(1.0)
    out = GuidedDenoiser(conditional, unconditional, 3.0)(Z, torch.tensor(5.0))
    assert (conditional.calls, unconditional.calls) == (1, 1)
    assert (out == 4).all()


@pytest.mark.parametrize(("level", "active"), [(0.4, False), (0.5, False), (0.6, True), (2.0, True), (2.1, False)])
def test_outside_the_interval_no_second_call(level: float, active: bool) -> None:
    conditional, unconditional = Counting(2.0), Counting(1.0)
    guided = GuidedDenoiser(conditional, unconditional, 3.0, interval=(0.5, 2.0))
    out = guided(Z, torch.tensor([0.0, level, level]))
    assert unconditional.calls == int(active)
    assert (out == (4 if active else 2)).all()


def test_scale_per_frame() -> None:
    ramp = linear_ramp(3, 1.0, 3.0)
    assert ramp.tolist() == [1, 2, 3]
    out = GuidedDenoiser(Counting(2.0), Counting(1.0), ramp)(Z, torch.tensor(5.0))
    assert out.mean(dim=(1, 2, 3)).tolist() == [2, 3, 4]
    batched = guide(Z[None] + 2, Z[None] + 1, ramp[None])
    assert batched.mean(dim=(0, 2, 3, 4)).tolist() == [2, 3, 4]


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_scene_of_the_conditional_branch_is_passed_on(scale: float) -> None:
    guided = GuidedDenoiser(Counting(2.0, "conditional"), Counting(1.0, "unconditional"), scale)
    _, aux = guided(Z, torch.tensor(5.0))
    assert aux == "conditional"


def test_one_call_for_both_gives_the_same_and_the_two_are_not_asked() -> None:
    conditional, unconditional, level = Counting(2.0, "scene"), Counting(1.0), torch.tensor(5.0)
    turns = GuidedDenoiser(conditional, unconditional, 3.0, (1.0, 6.0))
    out, aux = turns(Z, level)
    together = GuidedDenoiser(
        conditional, unconditional, 3.0, (1.0, 6.0), both=lambda z, level: ((torch.full_like(z, 2.0), "scene"), Z + 1)
    )
    again, again_aux = together(Z, level)
    assert torch.equal(out, again)
    assert aux == again_aux
    assert (conditional.calls, unconditional.calls) == (1, 1)
    together(Z, torch.tensor(7.0))  # outside the interval one is enough
    assert (conditional.calls, unconditional.calls) == (2, 1)


def test_an_empty_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="low < high"):
        GuidedDenoiser(Counting(2.0), Counting(1.0), 2.0, interval=(2.0, 2.0))
