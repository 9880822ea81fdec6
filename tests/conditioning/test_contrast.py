import math

import pytest
import torch

from latent3d.conditioning.conditioner import ConditionerConfig
from latent3d.conditioning.contrast import contrastive_loss, similarities
from latent3d.object_presets import ln3diff_shapes, ln3diff_shapes_tiny

NAMES = ["a", "b", "c", "d"]


def test_vectors_that_say_nothing_leave_the_choice_among_all():
    same = torch.ones(4, 6)
    assert float(contrastive_loss(same, same, NAMES)) == pytest.approx(math.log(4), abs=1e-5)


def test_pairs_that_match_cost_nothing_and_pairs_that_are_swapped_cost_much():
    vectors = torch.eye(4)
    assert float(contrastive_loss(vectors, vectors, NAMES)) < 1e-5
    assert float(contrastive_loss(vectors, vectors.roll(1, 0), NAMES)) == pytest.approx(1 / 0.07, rel=1e-3)


def test_lengths_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    text, picture = torch.randn(2, 4, 6, generator=generator)
    torch.testing.assert_close(similarities(text, picture), similarities(3 * text, 0.1 * picture))


def test_equal_captions_share_their_pictures():
    """Two of four objects bear one caption; either picture is right, so the least possible loss is the choice of one
    out of two in half of the rows."""
    vectors = torch.eye(4)
    vectors[1] = vectors[0]
    assert float(contrastive_loss(vectors, vectors, ["a", "a", "c", "d"])) == pytest.approx(math.log(2) / 2, abs=1e-4)
    assert float(contrastive_loss(vectors, vectors, NAMES)) == pytest.approx(math.log(2) / 2, abs=1e-4)
    apart = torch.eye(4)
    assert float(contrastive_loss(apart, apart, ["a", "a", "c", "d"])) > 1


def test_one_caption_per_vector():
    with pytest.raises(ValueError, match="give as many"):
        contrastive_loss(torch.eye(4), torch.eye(4), NAMES[:3])


def test_encoders_learn_which_text_belongs_to_which_picture():
    torch.manual_seed(0)
    conditioner = ConditionerConfig.tiny().build()
    captions = ["red", "green", "blue", "white"]
    pictures = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])[:, :, None, None].expand(4, 3, 16, 16)
    optimizer = torch.optim.Adam(conditioner.parameters(), lr=3e-3)
    for _ in range(60):
        loss = contrastive_loss(*conditioner.pair(captions, pictures), captions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = similarities(*conditioner.pair(captions, pictures)).argmax(1)
    assert found.tolist() == [0, 1, 2, 3]


def test_only_encoders_that_are_trained_here_have_the_stage():
    config = ln3diff_shapes_tiny().system
    assert "conditioner" in config.build().stages()
    assert ln3diff_shapes().system.conditioner.paired
    deaf = config.replace(
        conditioner=config.conditioner.replace(picture=None),
        denoiser=config.denoiser.replace(pooled_dim=config.conditioner.text.pooled_dim),
    )
    assert "conditioner" not in deaf.build().stages()
    assert not ConditionerConfig.large_shared().paired
    with pytest.raises(ValueError, match="no pairs"):
        deaf.build().conditioner.pair(["a"], torch.zeros(1, 3, 8, 8))
