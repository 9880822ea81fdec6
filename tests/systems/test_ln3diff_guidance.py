"""Guidance in sampling: one call of a doubled batch or two calls, within an interval or always."""

import pytest
import torch

from latent3d.conditioning.condition import Condition
from latent3d.object_presets import ln3diff_shapes_tiny
from latent3d.systems.ln3diff import LN3DiffSystem
from tests.denoisers.common import shake


def tiny(denoiser: str) -> LN3DiffSystem:
    system = ln3diff_shapes_tiny(denoiser).system.replace(discriminator=None).build().eval()
    shake(system.denoiser)
    return system


def told(system: LN3DiffSystem) -> Condition:
    return system.conditioner(torch.tensor([1, 2]), ["a red chair", "a lamp"])


@pytest.mark.parametrize("denoiser", ["dit", "unet"])
def test_one_call_of_both_gives_what_two_calls_give(denoiser: str):
    system = tiny(denoiser)
    condition = told(system)
    one, two = (system.sample([3, 4], condition, steps=3, guidance=4.0, batched=flag) for flag in (True, False))
    assert one.calls == two.calls == 6
    torch.testing.assert_close(one.latents, two.latents, rtol=1e-4, atol=1e-4)
    plain = system.sample([3, 4], condition, steps=3)
    assert (one.latents - plain.latents).abs().max() > 1e-2
    # one condition may serve several objects
    shared = [system.sample([3, 4], condition[:1], steps=3, guidance=4.0, batched=flag) for flag in (True, False)]
    torch.testing.assert_close(shared[0].latents, shared[1].latents, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batched", [True, False])
def test_outside_the_interval_only_the_conditional_call_is_made(batched: bool):
    system = tiny("dit")
    condition = told(system)
    seen = system.sample([3, 4], condition, steps=4, guidance=4.0, interval=(0.3, 0.8), batched=batched)
    assert seen.calls == 4 + 2  # of the times 1, 0.75, 0.5, 0.25 two lie within
    never = system.sample([3, 4], condition, steps=4, guidance=4.0, interval=(2.0, 3.0), batched=batched)
    plain = system.sample([3, 4], condition, steps=4)
    assert never.calls == plain.calls == 4
    assert torch.equal(never.latents, plain.latents)
