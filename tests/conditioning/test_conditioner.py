"""One model for every kind of condition: what is absent is zero, and training hears random subsets."""

import pytest
import torch

from latent3d.conditioning.conditioner import ConditionerConfig
from latent3d.denoisers.plane_dit import PlaneDiTConfig


def inputs(batch: int = 3) -> dict:
    generator = torch.Generator().manual_seed(3)
    return {
        "labels": torch.tensor([0, -1, 2]),
        "captions": ["a mug", "", "a lamp"],
        "pictures": torch.rand(batch, 3, 20, 24, generator=generator),
        "alphas": torch.ones(batch, 1, 20, 24),
    }


def test_all_kinds_give_all_parts_and_fit_the_denoiser():
    config = ConditionerConfig.tiny()
    condition = config.build()(**inputs())
    fields = config.denoiser_fields()
    assert condition.tokens.shape == (3, 12 + 4, fields["context_dim"])
    assert condition.pooled.shape == (3, fields["pooled_dim"])
    assert condition.appended.shape == (3, fields["appended_tokens"], fields["appended_dim"])
    assert condition.labels.tolist() == [0, -1, 2]
    network = PlaneDiTConfig.tiny().replace(**fields).build()
    latents = torch.randn(3, 3, 4, 4, 4)
    assert network(latents, torch.rand(3), condition).shape == latents.shape


def test_an_empty_caption_is_an_absent_one():
    condition = ConditionerConfig.tiny().build()(**inputs())
    assert not condition.tokens[1, :12].any()
    assert not condition.pooled[1, :16].any()
    assert condition.tokens[1, 12:].any()


def test_one_kind_alone_equals_the_others_not_kept():
    conditioner = ConditionerConfig.tiny().build()
    everything = inputs()
    only_text = torch.tensor([[False, True, False]]).expand(3, 3)
    masked = conditioner(**everything, kept=only_text)
    alone = conditioner(captions=everything["captions"])
    torch.testing.assert_close(masked.tokens, alone.tokens)
    torch.testing.assert_close(masked.pooled, alone.pooled)
    assert masked.labels.tolist() == [-1, -1, -1]
    assert not masked.appended.any()
    assert alone.appended is None
    assert alone.labels is None


def test_nothing_asked_is_the_empty_condition_and_unknown_kinds_are_refused():
    assert ConditionerConfig.tiny().build()().batch is None
    deaf = ConditionerConfig(classes=2).build()
    with pytest.raises(ValueError, match="cannot be asked by text; it listens to label"):
        deaf(captions=["a mug"])
    with pytest.raises(ValueError, match="as many of each kind"):
        ConditionerConfig.tiny().build()(labels=torch.tensor([1]), captions=["a", "b"])
    tiny = ConditionerConfig.tiny()
    with pytest.raises(ValueError, match="same embedding"):
        tiny.replace(text=tiny.text.replace(embedding=8)).build()


def test_random_subsets_have_the_frequencies_asked_for():
    config = ConditionerConfig.tiny().replace(drop=0.15, keep_label=0.8, keep_text=0.5, keep_picture=0.3)
    conditioner = config.build()
    kept = conditioner.draw(40_000, torch.Generator().manual_seed(0)).float()
    expected = 0.85 * torch.tensor([0.8, 0.5, 0.3])
    torch.testing.assert_close(kept.mean(0), expected, atol=0.01, rtol=0)
    nothing = (kept.sum(1) == 0).float().mean().item()
    assert nothing == pytest.approx(0.15 + 0.85 * 0.2 * 0.5 * 0.7, abs=0.01)
    assert torch.equal(kept, conditioner.draw(40_000, torch.Generator().manual_seed(0)).float())


def test_gradients_reach_encoders_of_what_is_kept_only():
    conditioner = ConditionerConfig.tiny().build()
    condition = conditioner(**inputs(), kept=torch.tensor([[True, True, False]]).expand(3, 3))
    (condition.tokens.square().sum() + condition.pooled.sum()).backward()
    assert conditioner.text.out.weight.grad.abs().max() > 0
    assert conditioner.picture.out.weight.grad.abs().max() == 0


def test_shared_place_prefers_the_picture():
    tiny = ConditionerConfig.tiny()
    config = ConditionerConfig(text=tiny.text.replace(length=4), picture=tiny.picture, shared=True)
    conditioner = config.build()
    everything = inputs()
    del everything["labels"]
    kept = torch.tensor([[True, True, True], [True, True, True], [True, True, False]])
    both = conditioner(**everything, kept=kept)
    assert both.tokens.shape == (3, 4, 16)
    picture = conditioner(pictures=everything["pictures"], alphas=everything["alphas"])
    text = conditioner(captions=everything["captions"])
    torch.testing.assert_close(both.tokens[:2], picture.tokens[:2])
    torch.testing.assert_close(both.tokens[2:], text.tokens[2:])
    assert config.denoiser_fields()["pooled_dim"] == 16
