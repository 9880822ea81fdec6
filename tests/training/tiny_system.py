"""A small real system for the engine's tests: a convolution that learns depth (stage one), then colour (stage two)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latent3d.config import Config
from latent3d.representations.views import Views


@dataclass(frozen=True, kw_only=True)
class TinySystemConfig(Config):
    """Width of the one hidden layer; ``poison``: the clip mean above which the loss becomes NaN (0: never)."""

    width: int = 6
    poison_step: int = -1

    def build(self) -> TinySystem:
        return TinySystem(self)


class TinySystem(nn.Module):
    """Regresses log depth from noisy images; the second stage trains the colour head only."""

    def __init__(self, config: TinySystemConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = nn.Sequential(nn.Conv2d(3, config.width, 3, padding=1), nn.SiLU(), nn.Dropout(0.1))
        self.trunk = self.trunk.to(memory_format=torch.channels_last)  # a layout that files do not keep
        self.depth_head = nn.Conv2d(config.width, 1, 1)
        self.colour_head = nn.Conv2d(config.width, 3, 1)
        self.register_buffer("mean", torch.zeros(3))
        self.calls = 0

    def stages(self) -> tuple[str, ...]:
        return ("depth", "colour")

    def trainable(self, stage: str):
        parts = ("trunk", "depth_head") if stage == "depth" else ("colour_head",)
        return [(name, value) for name, value in self.named_parameters() if name.startswith(parts)]

    def training_terms(self, batch: Views, stage: str, generator: torch.Generator) -> dict[str, Tensor]:
        images = batch.images.flatten(0, 1)
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        features = self.trunk(images + 0.1 * noise)
        self.calls += 1
        if stage == "colour":
            return {"colour": (self.colour_head(features) - images).square().mean()}
        error = self.depth_head(features) - batch.depths.flatten(0, 1).log()
        if self.calls == self.config.poison_step:
            error = error * float("nan")
        return {"depth": error.square().mean(), "absolute": error.detach().abs().mean()}

    def finish_stage(self, stage: str, batch: Views) -> None:
        self.mean += batch.images.mean((0, 1, 3, 4))

    def sample_sheet(self, batch: Views, stage: str, generator: torch.Generator) -> dict[str, Tensor]:
        features = self.trunk(batch.images[0])
        return {"image": batch.images[0], "depth": self.depth_head(features).exp()}
