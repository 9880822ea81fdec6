"""The U-Net on stacked planes: the released order of channels, its published size, null conditions, mixing."""

import pytest
import torch

from latent3d.conditioning.condition import Condition
from latent3d.denoisers.latent_unet import LatentUNetConfig, stack_planes, unstack_planes
from latent3d.diffusion.parameterization import mix_noise, noise_from_v_vp
from tests.denoisers.common import shake, without_gradient

TINY = LatentUNetConfig.tiny()


def noisy(batch: int = 2, size: int = 4) -> torch.Tensor:
    return torch.randn(batch, 3, 4, size, size, generator=torch.Generator().manual_seed(2))


def condition_of(batch: int) -> Condition:
    generator = torch.Generator().manual_seed(3)
    tokens, pooled = torch.randn(batch, 5, 16, generator=generator), torch.randn(batch, 32, generator=generator)
    return Condition(tokens=tokens, pooled=pooled, labels=torch.arange(batch) % 3)


def test_channels_are_interleaved_as_released_and_come_back():
    latents = torch.arange(2 * 3 * 4).reshape(2, 3, 4, 1, 1).float()
    stack = stack_planes(latents)
    assert stack.shape == (2, 12, 1, 1)
    for plane in range(3):
        for channel in range(4):
            assert torch.equal(stack[:, 3 * channel + plane], latents[:, plane, channel])
    assert torch.equal(unstack_planes(stack), latents)
    assert torch.equal(unstack_planes(stack[0]), latents[0])
    with pytest.raises(ValueError, match="multiple of 3"):
        unstack_planes(torch.zeros(1, 10, 2, 2))


def test_the_large_model_has_the_published_size():
    """800.9 M, to the last printed digit; the learned shares of mixed prediction are 12 numbers more."""
    with torch.device("meta"):
        network = LatentUNetConfig.large().build()
    assert round(sum(p.numel() for p in network.network.parameters()) / 1e6, 1) == 800.9
    assert network.mixing.shape == (3, 4, 1, 1)
    transformers = [name for name, part in network.named_modules() if type(part).__name__ == "Transformer2DModel"]
    assert len(transformers) == 6


def test_small_is_small():
    with torch.device("meta"):
        network = LatentUNetConfig.small(classes=7).build()
    assert 5e6 < sum(p.numel() for p in network.parameters()) < 9e6


def test_shape_starts_at_zero_and_every_parameter_learns():
    network = TINY.build()
    latents, time = noisy(), torch.tensor([0.1, 0.9])
    assert not network(latents, time, condition_of(2)).any()
    shake(network)
    out = network(latents, time, condition_of(2))
    assert out.shape == latents.shape
    out.square().sum().backward()
    assert without_gradient(network) == []


def test_absent_parts_are_zeros():
    network = shake(TINY.build())
    latents, time = noisy(), torch.tensor([0.3, 0.6])
    null = network(latents, time, condition_of(2).null())
    torch.testing.assert_close(network(latents, time), null, atol=1e-6, rtol=0)
    torch.testing.assert_close(network(latents, time, network.precompute(Condition())), null, atol=1e-6, rtol=0)
    dropped = condition_of(2).drop(torch.tensor([True, False]))
    torch.testing.assert_close(network(latents, time, dropped)[:1], null[:1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("part", ["tokens", "pooled", "labels"])
def test_every_part_of_the_condition_is_heard(part):
    network, latents, time = shake(TINY.build()), noisy(), torch.tensor([0.3, 0.6])
    only = Condition(**{part: getattr(condition_of(2), part)})
    assert (network(latents, time, only) - network(latents, time)).abs().max() > 1e-5


def test_one_time_and_one_condition_serve_all_objects():
    network, latents = shake(TINY.build()), noisy(3)
    out = network(latents, torch.tensor(0.4), condition_of(1))
    torch.testing.assert_close(out, network(latents, torch.full((3,), 0.4), condition_of(1).repeat(3)))


def test_mixing_scales_v_and_that_is_lsgms_mixing_of_noise():
    plain, mixed = TINY.replace(mixed=False).build(), TINY.build()
    shake(plain)
    mixed.network.load_state_dict(plain.network.state_dict())
    latents, time = noisy(), torch.tensor([0.3, 0.6])
    v = plain(latents, time)
    share = torch.tensor(-3.0).sigmoid()
    torch.testing.assert_close(mixed(latents, time), share * v)
    sigma = torch.tensor([0.5, 4.0])
    expected = mix_noise(latents, noise_from_v_vp(latents, v, sigma), sigma, share)
    torch.testing.assert_close(noise_from_v_vp(latents, share * v, sigma), expected)


def test_recomputed_activations_and_half_precision():
    network = shake(TINY.build())
    again = shake(TINY.replace(checkpointing=True).build())
    again.load_state_dict(network.state_dict())
    latents, time = noisy(), torch.tensor([0.3, 0.6])
    grads = []
    for model in (network, again):
        model.train()(latents, time, condition_of(2)).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(grads[0], grads[1])
    exact = network(latents, time, condition_of(2))
    half = network.to(torch.bfloat16)(latents, time, condition_of(2))
    assert half.dtype == torch.float32
    assert (half - exact).norm() < 0.05 * exact.norm()


def test_what_does_not_fit_is_said():
    network = TINY.build()
    with pytest.raises(ValueError, match=r"shape \(batch, 3, 4"):
        network(torch.zeros(1, 3, 5, 4, 4), torch.zeros(1))
    with pytest.raises(ValueError, match="multiple of 2"):
        network(torch.zeros(1, 3, 4, 5, 4), torch.zeros(1))
    with pytest.raises(ValueError, match="one time"):
        network(noisy(), torch.zeros(3))
    with pytest.raises(ValueError, match="without 'appended'"):
        network.precompute(Condition(appended=torch.zeros(1, 2, 3)))
    with pytest.raises(ValueError, match="width 16, found 9"):
        network.precompute(Condition(tokens=torch.zeros(1, 2, 9)))
    with pytest.raises(ValueError, match=r"0\.\.2"):
        network.precompute(Condition(labels=torch.tensor([3])))
    with pytest.raises(ValueError, match="one entry per level"):
        TINY.replace(attention=(True,)).build()
