"""Adversarial terms in the engine: one optimiser, one backward pass, two sides."""

from __future__ import annotations

import signal
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from latent3d.config import Config
from latent3d.nn.discriminators import FeatureDiscriminatorConfig, PatchDiscriminatorConfig, adversarial_terms
from latent3d.representations.views import Views
from latent3d.training.checkpoints import list_checkpoints, load_checkpoint
from latent3d.training.engine import train
from latent3d.training.metrics import read_metrics


@dataclass(frozen=True, kw_only=True)
class PainterConfig(Config):
    """A generator of one convolution and two critics."""

    patch: PatchDiscriminatorConfig = PatchDiscriminatorConfig(width=4, layers=1, spectral=True)
    features: FeatureDiscriminatorConfig = FeatureDiscriminatorConfig(widths=(4, 4), head_width=4)

    def build(self) -> Painter:
        return Painter(self)


class Painter(nn.Module):
    """Paints pictures from blurred ones; the critics are part of the system and of its one stage."""

    def __init__(self, config: PainterConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = nn.Conv2d(3, 3, 3, padding=1)
        self.patch, self.features = config.patch.build(), config.features.build()

    def stages(self) -> tuple[str, ...]:
        return ("paint",)

    def trainable(self, stage: str):
        return list(self.named_parameters())

    def training_terms(self, batch: Views, stage: str, generator: torch.Generator) -> dict[str, Tensor]:
        real = batch.images.flatten(0, 1)
        noise = 0.1 * torch.randn(real.shape, generator=generator)
        fake = self.generator(real.mean((2, 3), keepdim=True) + noise)
        terms = {"l1": (fake - real).abs().mean()}
        for name, critic in (("patch", self.patch), ("features", self.features)):
            terms |= {f"{name}_{side}": term for side, term in adversarial_terms(critic, real, fake).items()}
        return terms


@pytest.fixture
def config(tiny_config):
    weights = {"l1": 1.0, "patch_generator": 0.1, "patch_discriminator": 1.0, "features_discriminator": 1.0}
    stage = tiny_config.stages[0].replace(
        name="paint",
        loss_weights={**weights, "features_generator": 0.05},
        loss_ramps={"features_generator": (3, 3, 0.0), "features_discriminator": (2, 2, 0.0)},
        lr_multipliers={"patch": 2.0, "features": 0.5},
        betas_by_prefix={"patch": (0.0, 0.999), "features": (0.0, 0.999)},
    )
    return tiny_config.replace(system=PainterConfig(), stages=(stage,))


def tensors(out):
    return load_checkpoint(list_checkpoints(out / "checkpoints")[-1])[1]


def test_both_sides_train_resume_exactly_and_leave_no_backbone_behind(config, tmp_path, monkeypatch):
    """Also where spectral norm keeps a state, and where a critic is switched on in the middle."""
    assert train(config, tmp_path / "whole", progress=False).reason == "finished"
    original, calls = Painter.training_terms, iter(range(100))

    def interrupted(self, *args):
        if torch.is_grad_enabled() and next(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        return original(self, *args)

    monkeypatch.setattr(Painter, "training_terms", interrupted)
    assert train(config, tmp_path / "cut", progress=False).reason == "interrupted"
    monkeypatch.undo()
    train(config, tmp_path / "cut", progress=False)
    whole, cut = tensors(tmp_path / "whole"), tensors(tmp_path / "cut")
    for part, values in whole.items():
        assert values.keys() == cut[part].keys()
        assert all(torch.equal(value, cut[part][name]) for name, value in values.items())
    assert not [name for name in whole["model"] if "backbone" in name]
    start = PainterConfig().build().state_dict()
    assert whole["model"].keys() == start.keys()
    rows = [row for row in read_metrics(tmp_path / "whole") if "loss" in row]
    assert {"loss/patch_generator", "loss/features_discriminator", "weight/features_generator"} <= rows[0].keys()


def test_a_critic_that_is_not_yet_on_does_not_move(config, tmp_path):
    """Up to step 2 the weight of its term is 0, so it has no gradient and no state."""
    train(config.replace(stages=(config.stages[0].replace(steps=2),)), tmp_path, progress=False)
    found = tensors(tmp_path)
    assert not [name for name in found["optimizer"] if name.startswith("features")]
    assert [name for name in found["optimizer"] if name.startswith("patch")]
