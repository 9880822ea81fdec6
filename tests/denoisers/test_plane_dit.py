"""The plane transformer against a slow twin, its caches, its null conditions, and the published sizes."""

import pytest
import torch
import torch.nn.functional as F

from latent3d.conditioning.condition import Condition
from latent3d.denoisers.plane_dit import PlaneDiTConfig
from latent3d.denoisers.plane_positions import plane_positions
from latent3d.nn.attention import CrossAttention, SelfAttention
from tests.denoisers.common import shake, without_gradient

TINY = PlaneDiTConfig.tiny()


def condition_of(config: PlaneDiTConfig, batch: int, seed: int = 5) -> Condition:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int | None) -> torch.Tensor | None:
        return None if None in shape else torch.randn(batch, *shape, generator=generator)

    return Condition(
        draw(7, config.context_dim),
        draw(config.appended_tokens, config.appended_dim),
        draw(config.pooled_dim),
        torch.arange(batch) % config.classes if config.classes else None,
    )


def network_of(**changes):
    return shake(TINY.replace(**changes).build())


def noisy(batch: int = 2, height: int = 4, width: int = 6, seed: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, 4, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("modulation", ["single", "block"])
@pytest.mark.parametrize("context_layer", ["norm", "mlp"])
def test_shape_starts_at_zero_and_every_parameter_learns(modulation, context_layer):
    config = TINY.replace(modulation=modulation, context_layer=context_layer)
    network = config.build()
    latents, time = noisy(), torch.tensor([0.1, 0.9])
    out = network(latents, time, condition_of(config, 2))
    assert out.shape == latents.shape
    assert not out.any()
    shake(network)
    network(latents, time, condition_of(config, 2)).square().sum().backward()
    assert without_gradient(network) == []


def test_cached_condition_gives_the_same():
    network = network_of()
    latents, condition = noisy(), condition_of(TINY, 2)
    cached = network.precompute(condition)
    for level in (0.05, 0.5, 1.0):
        time = torch.full((2,), level)
        torch.testing.assert_close(network(latents, time, cached), network(latents, time, condition), atol=1e-6, rtol=0)


def slow_block(block, x: torch.Tensor, vector: torch.Tensor, shared, tokens, appended) -> torch.Tensor:
    """One block with all tokens in one plain attention, every projection computed, and the output cut back."""

    def norm(x):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    def heads(x):
        return x.unflatten(-1, (2, -1)).transpose(1, 2)

    if block.table is not None:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (shared.unflatten(-1, (6, -1)) + block.table).unbind(1)
    else:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = block.modulation.linear(F.silu(vector)).chunk(6, -1)
    y = norm(x) * (1 + scale_a[:, None]) + shift_a[:, None]
    q, k, v = block.attention.qkv(torch.cat([y, appended], 1)).chunk(3, -1)
    q, k, v = heads(q), heads(k), heads(v)
    q, k = norm(q) * block.attention.norm_q.weight, norm(k) * block.attention.norm_k.weight
    mixed = ((q @ k.mT / 16**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
    x = x + gate_a[:, None] * block.attention.out(mixed)[:, : x.shape[1]]
    q = norm(heads(block.cross.q(x))) * block.cross.norm_q.weight
    k, v = (heads(part) for part in block.cross.kv(tokens).chunk(2, -1))
    k = norm(k) * block.cross.norm_k.weight
    x = x + block.cross.out(((q @ k.mT / 16**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2))
    y = norm(x) * (1 + scale_m[:, None]) + shift_m[:, None]
    return x + gate_m[:, None] * block.mlp[2](F.gelu(block.mlp[0](y)))


@pytest.mark.parametrize("modulation", ["single", "block"])
def test_blocks_equal_a_slow_twin_in_values_and_gradients(modulation):
    network = network_of(modulation=modulation).double()
    latents, time = noisy().double(), torch.tensor([0.2, 0.7]).double()
    condition = condition_of(TINY, 2)
    condition = Condition(*(p.double() if p.is_floating_point() else p for p in vars(condition).values()))

    def twin() -> torch.Tensor:
        patches = latents.unfold(3, 2, 2).unfold(4, 2, 2)  # B k C y x p q
        weight = network.patches.weight
        x = torch.einsum("bkcyxpq,dcpq->bkyxd", patches, weight) + network.patches.bias
        x = x.flatten(1, 3) + plane_positions(2, 3, 32).double()
        pooled = network.pooled[1](network.pooled[0](condition.pooled))
        vector = network.time_embedding(time) + (pooled + network.classes.weight[condition.labels])
        shared = None if network.modulation is None else network.modulation(F.silu(vector))
        tokens, appended = network.context(condition.tokens), network.appended(condition.appended)
        for block in network.blocks:
            x = slow_block(block, x, vector, shared, tokens, appended)
        if network.table_out is not None:
            shift, scale = (network.table_out + vector[:, None]).unbind(1)
        else:
            shift, scale = network.modulation_out(F.silu(vector)).chunk(2, -1)
        x = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + scale[:, None]) + shift[:, None]
        out = network.out(x).reshape(2, 3, 2, 3, 4, 2, 2)  # B k y x C p q
        return out.permute(0, 1, 4, 2, 5, 3, 6).reshape(2, 3, 4, 4, 6)

    results = []
    for compute in (lambda: network(latents, time, condition), twin):
        network.zero_grad()
        out = compute()
        out.square().sum().backward()
        results.append((out, [p.grad.clone() for p in network.parameters()]))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-4, rtol=1e-4)


def test_appended_tokens_need_neither_queries_nor_an_output_projection():
    attention = SelfAttention(8, 2)
    tokens = torch.randn(2, 3, 8)
    keys, values = attention.keys_values(tokens)
    (keys.sum() + values.square().sum()).backward()
    assert not attention.qkv.weight.grad[:8].any()
    assert attention.qkv.weight.grad[8:].abs().max() > 0
    assert attention.out.weight.grad is None


def test_absent_parts_are_zeros_and_an_empty_context_adds_nothing():
    network = network_of()
    latents, time = noisy(), torch.tensor([0.3, 0.6])
    null = network(latents, time, condition_of(TINY, 2).null())
    torch.testing.assert_close(network(latents, time), null, atol=1e-6, rtol=0)
    torch.testing.assert_close(network(latents, time, Condition()), null, atol=1e-6, rtol=0)
    dropped = condition_of(TINY, 2).drop(torch.tensor([True, True]))
    torch.testing.assert_close(network(latents, time, dropped), null, atol=1e-6, rtol=0)
    cross = CrossAttention(8, 4, 2, kv_bias=False)
    nothing = cross(torch.randn(1, 3, 8), torch.zeros(1, 5, 4))
    torch.testing.assert_close(nothing, cross.out.bias.expand(1, 3, 8))


@pytest.mark.parametrize("part", ["tokens", "appended", "pooled", "labels"])
def test_every_part_of_the_condition_is_heard(part):
    network, latents, time = network_of(), noisy(), torch.tensor([0.3, 0.6])
    only = Condition(**{part: getattr(condition_of(TINY, 2), part)})
    assert (network(latents, time, only) - network(latents, time)).abs().max() > 1e-3


def test_one_cached_condition_serves_many_objects_and_one_time_all_of_them():
    network, latents = network_of(), noisy(3)
    single = network.precompute(condition_of(TINY, 1))
    out = network(latents, torch.tensor(0.4), single)
    expected = network(latents, torch.full((3,), 0.4), condition_of(TINY, 1).repeat(3))
    torch.testing.assert_close(out, expected)


def test_objects_of_a_batch_do_not_see_each_other():
    network, latents, time = network_of(), noisy(3), torch.tensor([0.1, 0.5, 0.9])
    condition = condition_of(TINY, 3)
    whole = network(latents, time, condition)
    torch.testing.assert_close(network(latents[1:2], time[1:2], condition[1:2]), whole[1:2])


def test_every_plane_sees_the_others_and_planes_are_told_apart():
    network, latents, time = network_of(), noisy(1, 4, 4), torch.tensor([0.5])
    out = network(latents, time)
    other = latents.clone()
    other[:, 2] += 1
    assert (network(other, time) - out)[:, 0].abs().max() > 1e-4
    turned = network(latents.roll(1, 1), time).roll(-1, 1)
    assert (turned - out).abs().max() > 1e-4


def test_positions_are_distinct_and_follow_the_axes_of_the_planes():
    codes = plane_positions(4, 5, 32)
    distance = torch.cdist(codes, codes) + 10 * torch.eye(60)
    assert distance.min() > 0.1
    x, y, z = plane_positions(5, 5, 32)[..., :30].reshape(3, 5, 5, 3, 10).unbind(-2)
    assert torch.equal(x[0][0], x[2][:, 0])  # columns of (x, y) and rows of (z, x)
    assert torch.equal(y[0][:, 0], y[1][0])
    assert torch.equal(z[1][:, 0], z[2][0])
    assert not x[1].any()
    assert not y[2].any()
    assert not z[0].any()


def test_recomputed_activations_give_the_same_gradients():
    grads = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = network_of(checkpointing=checkpointing)
        network(noisy(), torch.tensor([0.2, 0.8]), condition_of(TINY, 2)).square().sum().backward()
        grads.append([p.grad for p in network.parameters()])
    torch.testing.assert_close(grads[0], grads[1])


def test_half_precision_stays_close():
    network, latents, time = network_of(), noisy(), torch.tensor([0.2, 0.8])
    exact = network(latents, time, condition_of(TINY, 2))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(latents, time, condition_of(TINY, 2))
    half = network.to(torch.bfloat16)(latents, time, condition_of(TINY, 2))
    for out in (mixed, half):
        assert out.dtype == torch.float32
        assert (out - exact).norm() < 0.05 * exact.norm()


def test_what_does_not_fit_is_said():
    network = TINY.build()
    with pytest.raises(ValueError, match=r"shape \(batch, 3, 4"):
        network(torch.zeros(1, 3, 5, 4, 4), torch.zeros(1))
    with pytest.raises(ValueError, match="multiple of 2"):
        network(torch.zeros(1, 3, 4, 5, 4), torch.zeros(1))
    with pytest.raises(ValueError, match="one time"):
        network(noisy(), torch.zeros(3))
    with pytest.raises(ValueError, match="width 16, found 9"):
        network.precompute(Condition(tokens=torch.zeros(1, 2, 9)))
    with pytest.raises(ValueError, match=r"0\.\.2"):
        network.precompute(Condition(labels=torch.tensor([3])))
    bare = TINY.replace(context_dim=None, appended_dim=None, pooled_dim=None, classes=0).build()
    with pytest.raises(ValueError, match="without 'tokens'"):
        bare.precompute(Condition(tokens=torch.zeros(1, 2, 16)))
    with pytest.raises(ValueError, match="without classes"):
        bare.precompute(Condition(labels=torch.tensor([1])))
    assert bare(noisy(), torch.tensor(0.5), Condition(labels=torch.tensor([-1, -1]))).shape == noisy().shape
