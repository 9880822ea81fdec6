"""Discriminators: shapes, known losses, and that one backward pass trains both sides separately."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from latent3d.nn.discriminators import (
    FeatureDiscriminatorConfig,
    PatchDiscriminatorConfig,
    adversarial_terms,
    frozen_call,
    hinge_discriminator,
    hinge_generator,
    lazy_r1_penalty,
    non_saturating_discriminator,
    non_saturating_generator,
    novel_view_adversarial,
    r1_penalty,
)

PATCH = PatchDiscriminatorConfig(width=4, layers=2)
FEATURES = FeatureDiscriminatorConfig(widths=(4, 6), head_width=4)
DISCRIMINATORS = [
    PATCH,
    PATCH.replace(norm="none"),
    PATCH.replace(spectral=True),
    FEATURES,
    FEATURES.replace(spectral=False),
]


def gradients(module):
    return [None if p.grad is None else p.grad.clone() for p in module.parameters()]


def test_a_patch_discriminator_has_the_window_of_the_paper():
    """Gradient of one logit of the full-size network: 70 x 70 pixels, and 3-layer PatchGAN's 2.76 M weights."""
    network = PatchDiscriminatorConfig(norm="none").build()
    assert sum(p.numel() for p in network.parameters()) == 2_764_737
    small = PatchDiscriminatorConfig(width=2, norm="none").build()
    images = torch.rand(1, 3, 128, 128, requires_grad=True)
    logits = small(images)
    assert logits.shape == (1, 1, 14, 14)
    (slope,) = torch.autograd.grad(logits[0, 0, 7, 7], images)
    touched = slope.abs().sum((0, 1)) > 0
    assert (int(touched.any(0).sum()), int(touched.any(1).sum())) == (70, 70)


@pytest.mark.parametrize("config", DISCRIMINATORS)
def test_pictures_of_a_batch_do_not_mix(config):
    network = config.build().eval()
    images = torch.rand(3, 3, 24, 24)
    logits = network(images)
    assert logits.shape[0] == 3
    torch.testing.assert_close(network(images[1:2]), logits[1:2])
    assert type(config).from_dict(config.to_dict()) == config


def test_losses_at_known_logits():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 1.0])
    assert float(hinge_discriminator(real, fake)) == pytest.approx(0.25 + 1.0)
    assert float(hinge_generator(fake)) == pytest.approx(1.0)
    zero = torch.zeros(4)
    assert float(non_saturating_discriminator(zero, zero)) == pytest.approx(2 * 0.693147, abs=1e-5)
    assert float(non_saturating_generator(fake)) == pytest.approx((3.048587 + 0.313262) / 2, abs=1e-5)


@pytest.mark.parametrize("config", DISCRIMINATORS)
@pytest.mark.parametrize("kind", ["hinge", "non_saturating"])
def test_one_backward_pass_trains_each_side_by_its_own_term(config, kind):
    """Against the usual two passes: the generator's step with a frozen critic, the critic's on detached fakes."""
    torch.manual_seed(0)
    critic, generator = config.build(), nn.Conv2d(3, 3, 3, padding=1)
    real, noise = torch.rand(2, 1, 3, 24, 24), torch.rand(3, 3, 24, 24)
    together = copy.deepcopy(critic), copy.deepcopy(generator)
    terms = adversarial_terms(together[0], real, together[1](noise), kind)
    (0.3 * terms["generator"] + 2.0 * terms["discriminator"]).backward()

    apart = copy.deepcopy(critic), copy.deepcopy(generator)
    fake = apart[1](noise)
    logits = apart[0](torch.cat([real.flatten(0, 1), fake.detach()]))
    judge = {"hinge": hinge_discriminator, "non_saturating": non_saturating_discriminator}[kind]
    (2.0 * judge(logits[:2], logits[2:])).backward()
    expected = gradients(apart[0])
    apart[0].requires_grad_(False)
    deceive = {"hinge": hinge_generator, "non_saturating": non_saturating_generator}[kind]
    (0.3 * deceive(apart[0](fake))).backward()

    for mine, theirs in zip(gradients(together[0]), expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    for mine, theirs in zip(gradients(together[1]), gradients(apart[1]), strict=True):
        torch.testing.assert_close(mine, theirs)
    assert all(grad.abs().sum() > 0 for grad in (*gradients(together[0])[:1], *gradients(together[1])))


@pytest.mark.parametrize("config", DISCRIMINATORS)
def test_each_term_leaves_the_other_side_alone(config):
    critic, fake = config.build(), torch.rand(2, 3, 24, 24, requires_grad=True)
    terms = adversarial_terms(critic, torch.rand(2, 3, 24, 24), fake)
    terms["generator"].backward(retain_graph=True)
    assert all(grad is None for grad in gradients(critic))
    assert fake.grad is not None
    assert fake.grad.abs().sum() > 0
    fake.grad = None
    terms["discriminator"].backward()
    assert fake.grad is None
    assert any(grad is not None and grad.abs().sum() > 0 for grad in gradients(critic))


def test_the_loss_is_that_of_the_configuration():
    real, fake = torch.rand(2, 2, 3, 24, 24).unbind(0)
    assert (PATCH.loss, FEATURES.loss) == ("hinge", "non_saturating")  # as the paper pairs them
    for kind in ("hinge", "non_saturating"):
        for config in (PATCH, FEATURES):
            critic = config.replace(loss=kind).build().eval()
            assert adversarial_terms(critic, real, fake) == adversarial_terms(critic, real, fake, kind)


def test_a_frozen_call_gives_the_same_values():
    critic = PATCH.build()
    images = torch.rand(2, 3, 24, 24)
    assert torch.equal(frozen_call(critic, images), critic(images))
    assert frozen_call(critic, images).requires_grad is False


def test_seen_renders_are_the_real_ones_and_learn_nothing_from_novel_ones():
    """A critic that is the mean brightness: bright seen renders and dark novel ones are what it wants."""

    class Brightness(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(()))

        def forward(self, images):
            return self.gain * images.mean((1, 2, 3))[:, None]

    critic = Brightness()
    seen = torch.full((2, 1, 3, 8, 8), 0.9, requires_grad=True)
    novel = torch.full((2, 2, 3, 8, 8), 0.1, requires_grad=True)
    terms = novel_view_adversarial(critic, seen, novel, "non_saturating")
    expected = torch.nn.functional.softplus(torch.tensor([-0.9, 0.1])).sum()
    torch.testing.assert_close(terms["discriminator"], expected)
    sum(terms.values()).backward()
    assert seen.grad is None
    assert (novel.grad < 0).all()  # brighter novel views deceive better
    assert critic.gain.grad < 0  # a larger gain tells them apart better


def test_the_penalty_of_a_linear_critic_is_its_squared_weight():
    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.arange(12.0).reshape(3, 2, 2))

        def forward(self, images):
            return (images * self.weight).sum((1, 2, 3))[:, None].expand(-1, 4)

    critic, real = Linear(), torch.rand(2, 2, 3, 2, 2, requires_grad=True)
    penalty = r1_penalty(critic, real)
    expected = float(penalty.detach())
    torch.testing.assert_close(penalty, 0.5 * critic.weight.square().sum())
    penalty.backward()
    torch.testing.assert_close(critic.weight.grad, critic.weight)
    assert real.grad is None
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([lazy_r1_penalty(critic, real, 4, generator).detach() for _ in range(400)])
    assert set(drawn.tolist()) == {0.0, 4 * expected}
    assert float(drawn.mean()) == pytest.approx(expected, rel=0.2)
    with torch.no_grad():
        assert float(r1_penalty(critic, real)) == expected


def test_the_backbone_is_neither_trained_nor_saved():
    critic = FEATURES.build()
    assert {name.split(".")[0] for name in critic.state_dict()} == {"heads"}
    assert {name.split(".")[0] for name, _ in critic.named_parameters()} == {"heads"}
    twin = FEATURES.build()
    twin.load_state_dict(critic.state_dict())
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(twin.eval()(images), critic.eval()(images))
    other = FEATURES.replace(seed=1).build().eval()
    other.load_state_dict(critic.state_dict())
    assert not torch.equal(other(images), critic(images))


def test_a_discriminator_learns_to_tell_two_kinds_of_pictures():
    torch.manual_seed(0)
    for config in (PATCH, FEATURES.replace(spectral=False)):
        critic = config.build()
        optimizer = torch.optim.AdamW(critic.parameters(), 2e-3, betas=(0.0, 0.999))
        flat_picture = torch.full((4, 3, 24, 24), 0.5)
        for _ in range(30):
            real = flat_picture + 0.2 * torch.randn(4, 3, 24, 24)
            optimizer.zero_grad()
            adversarial_terms(critic, real, flat_picture)["discriminator"].backward()
            optimizer.step()
        critic.eval()
        assert critic(flat_picture + 0.2 * torch.randn(4, 3, 24, 24)).mean() > critic(flat_picture).mean() + 0.5
