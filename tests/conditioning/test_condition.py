"""A condition that is dropped, absent or null says the same: nothing."""

import pytest
import torch

from latent3d.conditioning.condition import Condition, drop_mask


def full(batch: int = 3) -> Condition:
    generator = torch.Generator().manual_seed(0)
    return Condition(
        torch.randn(batch, 4, 8, generator=generator),
        torch.randn(batch, 5, 6, generator=generator),
        torch.randn(batch, 7, generator=generator),
        torch.arange(batch),
    )


def test_one_mask_drops_every_part_and_leaves_the_others_alone():
    condition = full()
    dropped = condition.drop(torch.tensor([False, True, False]))
    for name in ("tokens", "appended", "pooled"):
        before, after = getattr(condition, name), getattr(dropped, name)
        assert not after[1].any()
        assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert dropped.labels.tolist() == [0, -1, 2]
    assert condition.labels.tolist() == [0, 1, 2]


def test_null_is_everything_dropped():
    condition = full()
    dropped, null = condition.drop(torch.ones(3, dtype=torch.bool)), condition.null()
    assert all(torch.equal(getattr(dropped, name), getattr(null, name)) for name in vars(null))
    assert null.batch == 3


def test_parts_may_be_absent():
    condition = Condition(pooled=torch.ones(2, 3))
    assert condition.batch == 2
    assert condition.drop(torch.tensor([True, False])).pooled.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert condition.null().tokens is None
    assert Condition().batch is None


def test_batches_are_joined_repeated_and_cut():
    condition = full()
    both = Condition.cat([condition, condition.null()])
    assert both.batch == 6
    assert both[:3].labels.tolist() == [0, 1, 2]
    assert condition.repeat(2).labels.tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(ValueError, match="the same parts"):
        Condition.cat([condition, Condition(labels=torch.zeros(1, dtype=torch.long))])


def test_about_fifteen_percent_are_dropped_and_the_seed_decides():
    def draw() -> torch.Tensor:
        return drop_mask(20_000, generator=torch.Generator().manual_seed(1))

    assert abs(draw().float().mean().item() - 0.15) < 0.01
    assert torch.equal(draw(), draw())
