"""Discriminators, adversarial losses, and the means to train both sides in one backward pass.

Letters: n = images, c = channels, H/W = their rows and columns, l = levels of a backbone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from latent3d.config import Config
from latent3d.nn.fixed_features import Backbone, RandomFeatures
from latent3d.nn.layers import group_count

Kind = Literal["hinge", "non_saturating"]


@dataclass(frozen=True, kw_only=True)
class PatchDiscriminatorConfig(Config):
    """Attributes:
    channels: of the pictures; more than 3 where depth or alpha is judged with the colour.
    width: channels of the first layer, doubled per layer up to eight times.
    layers: strided convolutions; 3 judge windows of 70 x 70 pixels (PatchGAN), 2 of 34, 1 of 16.
    norm: ``group`` norm, which does not mix the pictures of a batch, or ``none``.
    spectral: spectral norm of every convolution (Miyato et al. 2018).
    loss: of both sides, see `LOSSES`.
    """

    channels: int = 3
    width: int = 64
    layers: int = 3
    norm: Literal["group", "none"] = "group"
    spectral: bool = False
    loss: Kind = "hinge"

    def build(self) -> PatchDiscriminator:
        return PatchDiscriminator(self)


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017): a convolutional network that judges every window of a picture by itself."""

    def __init__(self, config: PatchDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * min(2**layer, 8) for layer in range(config.layers + 1)]
        stages: list[nn.Module] = [self._conv(config.channels, widths[0], 2), nn.LeakyReLU(0.2)]
        for layer, (before, width) in enumerate(pairwise(widths), start=1):
            stages.append(self._conv(before, width, 2 if layer < config.layers else 1))
            stages += [nn.GroupNorm(group_count(width), width)] if config.norm == "group" else []
            stages.append(nn.LeakyReLU(0.2))
        self.network = nn.Sequential(*stages, self._conv(widths[-1], 1, 1))

    def _conv(self, before: int, after: int, stride: int) -> nn.Module:
        conv = nn.Conv2d(before, after, 4, stride, padding=1)
        return spectral_norm(conv) if self.config.spectral else conv

    def forward(self, images: Float[Tensor, "n c H W"]) -> Float[Tensor, "n 1 h w"]:
        """Pictures in [0, 1] to one logit per window, real being high. Sides of 2^(layers + 1) + 8 pixels suffice."""
        return self.network(2 * images - 1).float()


@dataclass(frozen=True, kw_only=True)
class FeatureDiscriminatorConfig(Config):
    """Attributes:
    backbone: ``random`` convolutions with fixed weights, or ``dinov2`` from a local folder.
    widths, seed: of the random convolutions.
    folder, layers, size: of DINOv2: transformers' folder, which layers' tokens, side in pixels of what it sees.
    head_width: channels of the trained heads.
    spectral: spectral norm of the heads.
    loss: of both sides, see `LOSSES`.
    """

    backbone: Literal["random", "dinov2"] = "random"
    widths: tuple[int, ...] = (32, 64, 128)
    seed: int = 0
    folder: str = ""
    layers: tuple[int, ...] = (3, 6, 9, 12)
    size: int = 224
    head_width: int = 64
    spectral: bool = True
    loss: Kind = "non_saturating"

    def build(self, backbone: Backbone | None = None) -> FeatureDiscriminator:
        """The discriminator on its own backbone, or on the one that is given.

        Raises:
            FileNotFoundError, ValueError: from `nn.pretrained.read_dinov2`.
        """
        return FeatureDiscriminator(self, backbone or self._backbone())

    def _backbone(self) -> Backbone:
        if self.backbone == "random":
            return RandomFeatures(self.widths, self.seed)
        from latent3d.nn.pretrained import read_dinov2

        return read_dinov2(self.folder, self.layers, self.size)


class FeatureDiscriminator(nn.Module):
    """Heads on the features of a network that is not trained, in the manner of Vision-aided GAN (Kumari et al. 2022).

    Only the heads are parameters. With the random backbone it is a discriminator that sees fixed random patterns: it
    cannot learn to look at a detail that the generator does not yet have wrong, but it knows nothing about pictures
    either, and it is weaker than one on DINOv2.

    Args:
        backbone: images in [0, 1] to feature maps; a module whose weights are fixed (`nn.fixed_features.fixed`).
    """

    def __init__(self, config: FeatureDiscriminatorConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.heads = nn.ModuleList(self._head(channels, config.head_width) for channels in backbone.channels)

    def _head(self, channels: int, width: int) -> nn.Module:
        norm: Callable[[Any], Any] = spectral_norm if self.config.spectral else lambda layer: layer
        return nn.Sequential(
            norm(nn.Conv2d(channels, width, 3, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            norm(nn.Conv2d(width, width, 3, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            norm(nn.Linear(width, 1)),
        )

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n l"]:
        """Pictures in [0, 1] to one logit per level of the backbone, real being high."""
        maps = self.backbone(images)
        return torch.cat([head(level) for head, level in zip(self.heads, maps, strict=True)], 1).float()


def hinge_discriminator(real: Float[Tensor, "*n"], fake: Float[Tensor, "*m"]) -> Float[Tensor, ""]:
    """E[max(0, 1 - D(real))] + E[max(0, 1 + D(fake))] of logits (Lim and Ye 2017)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator(fake: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
    """-E[D(fake)] of logits (Lim and Ye 2017)."""
    return -fake.mean()


def non_saturating_discriminator(real: Float[Tensor, "*n"], fake: Float[Tensor, "*m"]) -> Float[Tensor, ""]:
    """E[softplus(-D(real))] + E[softplus(D(fake))]: cross-entropy of logits (Goodfellow et al. 2014)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def non_saturating_generator(fake: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
    """E[softplus(-D(fake))] of logits (Goodfellow et al. 2014)."""
    return F.softplus(-fake).mean()


LOSSES = {
    "hinge": (hinge_discriminator, hinge_generator),
    "non_saturating": (non_saturating_discriminator, non_saturating_generator),
}


def r1_penalty(discriminator: nn.Module, real: Float[Tensor, "*batch c H W"]) -> Float[Tensor, ""]:
    """E |grad_x D(x)|^2 / 2 on real pictures (Mescheder et al. 2018), D averaged over its logits; in float32.

    Its gradient reaches the discriminator's parameters only.
    """
    with torch.enable_grad(), torch.autocast(real.device.type, enabled=False):
        images = flat(real).detach().float().requires_grad_()
        logits = discriminator(images).flatten(1).mean(1)
        (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return 0.5 * slope.square().flatten(1).sum(1).mean()


def lazy_r1_penalty(
    discriminator: nn.Module, real: Float[Tensor, "*batch c H W"], every: int, generator: torch.Generator
) -> Float[Tensor, ""]:
    """`r1_penalty` times ``every`` in one of ``every`` steps (Karras et al. 2020), else 0; the same on average.

    Which steps is drawn, so it needs no counter and a resumed run does the same.
    """
    if float(torch.rand((), generator=generator)) * every >= 1:
        return real.new_zeros((), dtype=torch.float32)
    return every * r1_penalty(discriminator, real)


def frozen_call(module: nn.Module, *args: Any) -> Any:
    """``module(*args)`` with its parameters detached: gradients pass through to ``args`` and reach no parameter.

    So the generator's and the discriminator's terms can be added and go through one backward pass and one optimiser.
    """
    detached = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return torch.func.functional_call(module, detached, args)


def adversarial_terms(
    discriminator: nn.Module,
    real: Float[Tensor, "*batch c H W"],
    fake: Float[Tensor, "*others c H W"],
    kind: Kind | None = None,
) -> dict[str, Tensor]:
    """``generator`` and ``discriminator``: terms of both sides, to be weighted and added.

    The generator's term sees a discriminator without gradient, the discriminator's sees pictures without gradient, so
    each side is trained by its own term alone whatever the weights are.

    Args:
        real, fake: pictures in [0, 1] of one size; their numbers may differ.
        kind: of loss; None takes the ``loss`` of the discriminator's configuration.
    """
    settings: Any = discriminator
    judge, deceive = LOSSES[kind or settings.config.loss]
    real, fake = flat(real), flat(fake)
    logits = discriminator(torch.cat([real.detach().to(fake), fake.detach()]))
    return {
        "generator": deceive(frozen_call(discriminator, fake)),
        "discriminator": judge(logits[: len(real)], logits[len(real) :]),
    }


def novel_view_adversarial(
    discriminator: nn.Module,
    seen: Float[Tensor, "*batch c H W"],
    novel: Float[Tensor, "*others c H W"],
    kind: Kind | None = None,
) -> dict[str, Tensor]:
    """`adversarial_terms` between a model's own renders (LN3Diff section on monocular training).

    Renders at the input views count as real, renders at novel views as fake: from anywhere an object should look as it
    does from where it was seen. Real pictures in the place of ``seen`` make the posterior collapse (paper). No gradient
    reaches the renders at the input views, which have their pictures to learn from.
    """
    return adversarial_terms(discriminator, seen, novel, kind)


def flat(images: Float[Tensor, "*batch c H W"]) -> Float[Tensor, "n c H W"]:
    """All leading axes as one."""
    return images.reshape(-1, *images.shape[-3:])
