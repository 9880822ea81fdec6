"""What `ablations_ln3diff.py` trains: the rows of the published ladder, and two ways of latent diffusion.

The ladder adds one part at a time to the autoencoder (LN3Diff++, table IV); all rows make the same number of steps on
the same batches. The two denoisers start from one frozen autoencoder and get the same time on this machine, not the
same steps: steps of different networks cost differently.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from ablation_runs import BasePlan, keep_part, shortened, step_seconds, train_once

from latent3d.autoencoders.multiview_encoder import MultiViewEncoderConfig
from latent3d.autoencoders.plane_encoder import PlaneEncoderConfig
from latent3d.object_presets import ln3diff_shapes, ln3diff_shapes_tiny
from latent3d.systems.ln3diff_records import LN3DiffConfig
from latent3d.training.config import StageConfig, TrainConfig
from latent3d.weights import load_weights

AUTOENCODER = ("encoder", "decoder", "field")
"""Parts of the system that the denoisers share."""
CONDITIONER = "conditioner"
"""A further one, where it was taught before."""
PRESETS = {"ln3diff_shapes": ln3diff_shapes, "ln3diff_shapes_tiny": ln3diff_shapes_tiny}
ENCODERS = {
    "ln3diff_shapes": MultiViewEncoderConfig(patch_size=4, width=80, multipliers=(1, 2), heads=4, head_channels=48),
    "ln3diff_shapes_tiny": MultiViewEncoderConfig(
        patch_size=2, width=8, multipliers=(1, 2), blocks=1, heads=1, head_channels=8
    ),
}
"""The paper's kind of encoder at the size of a preset; latent channels are the preset's."""


@dataclass(frozen=True)
class Rung:
    """A row of the ladder: the switches of the autoencoder that are set.

    Attributes:
        title: as printed.
        plucker: rays as an input of the encoder.
        kind, inject, cross_plane, self_plane: of the decoder.
        own_encoder: the preset's encoder in place of the paper's kind.
    """

    title: str
    plucker: bool = False
    kind: str = "transformer"
    inject: str = "adaln"
    cross_plane: bool = False
    self_plane: bool = False
    own_encoder: bool = False

    def system(self, preset: str) -> LN3DiffConfig:
        """The autoencoder of this row."""
        system = PRESETS[preset]().system
        assert isinstance(system, LN3DiffConfig)
        encoder: MultiViewEncoderConfig | PlaneEncoderConfig = ENCODERS[preset].replace(
            latent_channels=system.decoder.latent_channels, plucker=self.plucker
        )
        if self.own_encoder:
            assert isinstance(system.encoder, PlaneEncoderConfig)
            encoder = system.encoder
        decoder = system.decoder.replace(
            kind=self.kind, inject=self.inject, cross_plane=self.cross_plane, self_plane=self.self_plane
        )
        return system.replace(encoder=encoder, decoder=decoder, denoiser=None, conditioner=None, mesh=None, splats=None)


LADDER = {
    "conv": Rung("2D convolution", kind="conv"),
    "vit": Rung("+ ViT", inject="input"),
    "dit": Rung("+ DiT block"),
    "plucker": Rung("+ Plücker", plucker=True),
    "cross_plane": Rung("+ cross-plane", plucker=True, cross_plane=True),
    "self_plane": Rung("+ self-plane", plucker=True, cross_plane=True, self_plane=True),
    "plane_encoder": Rung("+ encoder on planes (ours)", cross_plane=True, self_plane=True, own_encoder=True),
}
PUBLISHED = {"conv": 17.46, "vit": 18.92, "dit": 20.61, "plucker": 21.29, "cross_plane": 21.70, "self_plane": 21.95}
"""PSNR of LN3Diff++, table IV: 7 thousand objects of Objaverse, 100 thousand steps."""
DENOISERS = {"fm_dit": ("flow matching + DiT", "dit"), "ddpm_unet": ("DDPM (v) + U-Net", "unet")}
"""Titles, and the presets' names of the denoisers."""


@dataclass(frozen=True, kw_only=True)
class ObjectPlan(BasePlan):
    """What all runs share.

    Attributes:
        denoiser_batch: objects per step of the denoisers.
        denoiser_steps: optimiser steps by denoiser, so that all take the same time.
    """

    denoiser_batch: int = 32
    denoiser_steps: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ObjectWorkshop:
    """Where a comparison is made.

    Attributes:
        out: its folder.
        plan: see `ObjectPlan`.
        device, progress: as in `latent3d.training.engine.train`.
        autoencoder: weights folder of the system whose autoencoder the denoisers share, and its encoders of text and
            picture if it has them; None: of the ladder's rung ``plane_encoder``, the first seed.
    """

    out: Path
    plan: ObjectPlan
    device: torch.device
    progress: bool = True
    autoencoder: Path | None = None

    def config(self, name: str, seed: int) -> TrainConfig:
        """The training run of a rung or of a denoiser."""
        return self._rung(name, seed) if name in LADDER else self._denoiser(name, seed)

    def _rung(self, name: str, seed: int) -> TrainConfig:
        plan = self.plan
        stage = shortened(_stages(plan.preset)["vae"], plan.steps).replace(batch_size=plan.batch)
        return self._run(LADDER[name].system(plan.preset), (stage,), seed, {})

    def _denoiser(self, name: str, seed: int) -> TrainConfig:
        """Denoising on the latents of the shared autoencoder.

        One step of rate 0 comes first: when it ends, the system measures mean and deviation of the latents. Then the
        encoders of text and picture are taught, the same ones for both denoisers, unless they come with the weights.
        """
        plan = self.plan
        preset = PRESETS[plan.preset](DENOISERS[name][1])
        system = preset.system
        assert isinstance(system, LN3DiffConfig)
        stages = {stage.name: stage for stage in preset.stages}
        still = shortened(stages["vae"], 1).replace(batch_size=plan.denoiser_batch, learning_rate=0.0, loss_ramps={})
        steps = plan.denoiser_steps.get(name, 1)
        taught = shortened(stages["conditioner"], plan.steps).replace(batch_size=plan.denoiser_batch)
        stage = shortened(stages["diffusion"], steps).replace(batch_size=plan.denoiser_batch)
        parts = self.parts()
        before = (still,) if CONDITIONER in parts else (still, taught)
        return self._run(system.replace(mesh=None, splats=None), (*before, stage), seed, parts)

    def _run(
        self, system: LN3DiffConfig, stages: tuple[StageConfig, ...], seed: int, parts: dict[str, Path]
    ) -> TrainConfig:
        preset, bank = PRESETS[self.plan.preset](), self.plan.bank
        return preset.replace(
            system=system,
            stages=stages,
            seed=seed,
            data=preset.data.replace(bank=bank, val_bank=bank),
            initial_weights={part: str(folder) for part, folder in parts.items()},
            max_shard_bytes=10**9,
        )

    def parts(self) -> dict[str, Path]:
        """The parts of the shared autoencoder as weights folders; cut from its weights when they are first needed."""
        whole = self.autoencoder or self.weights("plane_encoder", 0)
        names = list(AUTOENCODER)
        if self.autoencoder is not None and load_weights(self.autoencoder)[1]["conditioner"] is not None:
            names.append(CONDITIONER)
        folders = {part: self.out / "parts" / part for part in names}
        if whole.exists():
            for part, folder in folders.items():
                if not folder.exists():
                    keep_part(whole, part, folder, LN3DiffConfig)
        return {part: folder for part, folder in folders.items() if folder.exists()}

    def weights(self, name: str, seed: int) -> Path:
        """Where the weights of a finished run lie."""
        return self.out / "weights" / f"{name}-{seed}"

    def train(self, name: str, seed: int) -> bool:
        """Train a run, going on where it stopped; False where Ctrl-C ended it before its end."""
        run = self.out / "runs" / f"{name}-{seed}"
        return train_once(self.config(name, seed), run, self.weights(name, seed), self.device, self.progress)


def _stages(preset: str) -> dict[str, StageConfig]:
    return {stage.name: stage for stage in PRESETS[preset]().stages}


def measure(shop: ObjectWorkshop, names: list[str]) -> dict[str, float]:
    """Seconds per step of each run."""
    seconds = {}
    for name in names:
        config = shop.config(name, 0)
        seconds[name] = step_seconds(config.replace(initial_weights={}), len(config.stages) - 1, shop.device)
    return seconds


def steps_of(seconds: dict[str, float], minutes: float, steps: int | None) -> tuple[int, dict[str, int]]:
    """Equal steps of the rungs, and equal time of the denoisers in steps of each.

    Args:
        seconds: per step, by run.
        minutes: of the slowest rung, and of every denoiser.
        steps: of every rung, and of the slowest denoiser, in place of minutes.
    """
    rungs = [value for name, value in seconds.items() if name in LADDER]
    denoisers = {name: value for name, value in seconds.items() if name in DENOISERS}
    shared = steps or max(1, int(60 * minutes / max(rungs, default=1.0)))
    budget = 60 * minutes if steps is None else steps * max(denoisers.values(), default=0.0)
    return shared, {name: max(1, round(budget / value)) for name, value in denoisers.items()}
