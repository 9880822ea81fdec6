"""What `ablations.py` trains: the variants, their configurations, equal steps for all, and runs that continue.

Every run of one seed sees the same clips, frames, references, noise levels and noise: batches and draws are functions
of (seed, stage number, step), and all variants ask for them in the same order. Every run starts from the same
autoencoder and the same denoiser, trained as image-to-video model without poses; the rest starts random.
"""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch

from latent3d.autoencoders.image_vae import ImageVAEConfig
from latent3d.config import Config
from latent3d.io.atomic import write_text
from latent3d.systems.ggs import GGSConfig
from latent3d.systems.reference_geometry import ReferenceGeometryConfig
from latent3d.training.command import find_preset
from latent3d.training.config import StageConfig, TrainConfig
from latent3d.training.engine import build_system, train
from latent3d.training.export import export_weights
from latent3d.training.optim import build_optimizer
from latent3d.weights import load_weights, read_json, save_weights

DEPTH_TERMS = ("point", "depth", "rendered_depth")
"""Losses of the splats' stage that read true depth."""
DECODER_SHARE = 0.3
"""Of a run's minutes, for the 3D decoder."""


@dataclass(frozen=True)
class Variant:
    """A row of the comparison.

    Attributes:
        title: as printed.
        splats: whether the splats are inside the denoiser; if not, it is the twin without 3D.
        scene: whether a 3D scene is made of it and judged: by the 3D decoder, and by optimisation on its pictures.
        geometry: whether the references' own geometry conditions the denoiser (ours, beyond the paper).
        change: what else differs from GGS.
    """

    title: str
    splats: bool = True
    scene: bool = False
    geometry: bool = False
    change: Callable[[GGSConfig, StageConfig], tuple[GGSConfig, StageConfig]] = lambda system, stage: (system, stage)


def _without_novel(system: GGSConfig, stage: StageConfig) -> tuple[GGSConfig, StageConfig]:
    """No view but the denoised ones is rendered, so none of the losses sees others."""
    weights = {name: weight for name, weight in stage.loss_weights.items() if name != "novel_low_res"}
    return system.replace(novel=0), stage.replace(loss_weights=weights, sampling=stage.sampling.replace(novel=0))


def _without_depth(system: GGSConfig, stage: StageConfig) -> tuple[GGSConfig, StageConfig]:
    weights = {name: weight for name, weight in stage.loss_weights.items() if name not in DEPTH_TERMS}
    return system, stage.replace(loss_weights=weights)


def _categorical(system: GGSConfig, stage: StageConfig) -> tuple[GGSConfig, StageConfig]:
    depth = system.head.depth.replace(kind="categorical")
    return system.replace(head=system.head.replace(depth=depth)), stage


def _plain(system: GGSConfig, stage: StageConfig) -> tuple[GGSConfig, StageConfig]:
    return system.replace(epipolar=system.epipolar.replace(kind="plain")), stage


VARIANTS = {
    "ggs": Variant("GGS", scene=True),
    "no3d": Variant("No3D twin", splats=False, scene=True),
    "no_novel": Variant("without novel-view loss", change=_without_novel),
    "no_depth": Variant("without depth supervision", change=_without_depth),
    "categorical": Variant("categorical depth head", change=_categorical),
    "plain": Variant("plain cross-view attention", change=_plain),
    "ggs_geometry": Variant("GGS + reference geometry (ours)", scene=True, geometry=True),
    "no3d_geometry": Variant("No3D twin + the same condition", splats=False, scene=True, geometry=True),
}


@dataclass(frozen=True, kw_only=True)
class BasePlan(Config):
    """What all runs of any comparison share; written once and kept when it is continued.

    Attributes:
        preset: training preset whose sizes and stages are used.
        bank: folders of training data.
        batch: scenes or objects per step.
        steps: optimiser steps; the same for every variant.
        seconds: measured per step, by variant; empty where steps were given.
    """

    preset: str
    bank: tuple[str, ...]
    batch: int
    steps: int = 1
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan(BasePlan):
    """Of the comparisons of GGS.

    Attributes:
        decoder_steps, prior_steps: optimiser steps of the 3D decoder, which has the preset's batch, and of the prior;
            their seconds are ``decoder`` and ``prior``.
    """

    decoder_steps: int = 1
    prior_steps: int = 1


AnyPlan = TypeVar("AnyPlan", bound=BasePlan)


@dataclass(frozen=True)
class Workshop:
    """Where a comparison is made.

    Attributes:
        out: its folder.
        plan: see `Plan`.
        parts: weights folders by part of the system from which every variant starts: ``vae``, ``geometry`` and,
            once it is trained, ``denoiser``.
        device, progress: as in `latent3d.training.engine.train`.
    """

    out: Path
    plan: Plan
    parts: dict[str, Path]
    device: torch.device
    progress: bool = True

    def config(self, name: str, seed: int) -> TrainConfig:
        """The training run of a variant."""
        variant, plan, system = VARIANTS[name], self.plan, self._system()
        stages = {stage.name: stage for stage in find_preset(plan.preset)().stages}
        stage = shortened(stages["scene"], plan.steps).replace(batch_size=plan.batch)
        if not variant.splats:
            sampling = stage.sampling.replace(novel=0)
            stage = stage.replace(name="twin", loss_weights={"diffusion": 1.0}, sampling=sampling)
        if not variant.geometry:
            system = system.replace(geometry=None)
        system, stage = variant.change(system, stage)
        runs = [stage]
        if variant.scene and variant.splats:
            decoder = shortened(stages["decoder"], plan.decoder_steps)
            if not variant.geometry:
                weights = {key: value for key, value in decoder.loss_weights.items() if key != "reference_depth"}
                decoder = decoder.replace(loss_weights=weights, lr_multipliers={})
            runs.append(decoder)
        parts = {part: folder for part, folder in self.parts.items() if part != "geometry" or variant.geometry}
        return self._run(system, runs, seed, parts)

    def prior_config(self) -> TrainConfig:
        """The run that trains the denoiser all variants start from."""
        stage = next(stage for stage in find_preset(self.plan.preset)().stages if stage.name == "prior")
        stage = shortened(stage, self.plan.prior_steps).replace(batch_size=self.plan.batch)
        parts = {part: folder for part, folder in self.parts.items() if part == "vae"}
        return self._run(self._system().replace(geometry=None), [stage], 0, parts)

    def _system(self) -> GGSConfig:
        """The preset's system with the parts' own sizes."""
        system = find_preset(self.plan.preset)().system
        assert isinstance(system, GGSConfig)
        kinds: dict[str, type[Config]] = {
            "vae": ImageVAEConfig,
            "geometry": ReferenceGeometryConfig,
            "denoiser": type(system.denoiser),
        }
        sizes = {part: read_json(folder / "config.json")["config"] for part, folder in self.parts.items()}
        return system.replace(**{part: kinds[part].from_dict(values) for part, values in sizes.items()})

    def _run(self, system: GGSConfig, stages: list[StageConfig], seed: int, parts: dict[str, Path]) -> TrainConfig:
        preset, bank = find_preset(self.plan.preset)(), self.plan.bank
        return preset.replace(
            system=system,
            stages=tuple(stages),
            seed=seed,
            data=preset.data.replace(bank=bank, val_bank=bank),
            initial_weights={part: str(folder) for part, folder in parts.items()},
            max_shard_bytes=10**9,
        )

    def weights(self, name: str, seed: int) -> Path:
        """Where the weights of a finished run lie."""
        return self.out / "weights" / f"{name}-{seed}"

    def train_variant(self, name: str, seed: int) -> bool:
        """Train a variant, going on where it stopped; False where Ctrl-C ended it before its end."""
        return self._train(self.config(name, seed), self.out / "runs" / f"{name}-{seed}", self.weights(name, seed))

    def train_prior(self) -> bool:
        """Train the common denoiser; False where Ctrl-C ended it before its end."""
        whole = self.out / "weights" / "prior"
        if not self._train(self.prior_config(), self.out / "runs" / "prior", whole):
            return False
        if not self.denoiser.exists():
            keep_part(whole, "denoiser", self.denoiser)
        return True

    @property
    def denoiser(self) -> Path:
        """Where the common denoiser lies once it is trained here."""
        return self.out / "parts" / "denoiser"

    def _train(self, config: TrainConfig, run: Path, weights: Path) -> bool:
        return train_once(config, run, weights, self.device, self.progress)


def train_once(config: TrainConfig, run: Path, weights: Path, device: torch.device, progress: bool) -> bool:
    """Train a run to its end and export it, going on where it stopped; False where Ctrl-C ended it before."""
    if weights.exists():
        return True
    result = train(config, run, device=device, progress=progress)
    if result.reason != "finished":
        return False
    export_weights(run, weights, "fp32", 10**9)
    for used in ("checkpoints", "stages"):  # hundreds of megabytes that nothing reads any more
        shutil.rmtree(run / used)
    return True


def shortened(stage: StageConfig, steps: int) -> StageConfig:
    """A stage with another number of steps, ramps in proportion, without pictures."""
    share = steps / stage.steps
    ramps = {term: (int(share * begin), int(share * end), low) for term, (begin, end, low) in stage.loss_ramps.items()}
    warmup = min(stage.warmup_steps, steps // 10)
    return stage.replace(steps=steps, warmup_steps=warmup, loss_ramps=ramps, sheet_every=0)


def keep_part(weights: Path, part: str, folder: Path, system: type[Config] = GGSConfig) -> Path:
    """One part of a system's weights as a weights folder of its own.

    Args:
        system: kind of its configuration.

    Raises:
        ValueError: if the weights have no such part.
    """
    state, values, _ = load_weights(weights)
    own = {key.removeprefix(f"{part}."): value for key, value in state.items() if key.startswith(f"{part}.")}
    if not own:
        raise ValueError(f"the weights in '{weights}' have no part '{part}'; give weights of a system that has it")
    return save_weights(folder, own, getattr(system.from_dict(values), part), {}, "fp32", 10**9)


def step_seconds(config: TrainConfig, index: int, device: torch.device, steps: int = 2) -> float:
    """Median wall-clock time of a training step of one stage, after one that is not counted; reading included."""
    stage = config.stages[index]
    model = build_system(config, device).train()
    model.requires_grad_(False)
    trained = dict(model.trainable(stage.name))
    for parameter in trained.values():
        parameter.requires_grad_(True)
    optimizer, stream = build_optimizer(trained, stage), config.data.stream(stage, 0)
    times = []
    for step in range(steps + 1):
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=stage.autocast == "bf16"):
            terms = model.training_terms(stream.batch(step).to(device), stage.name, torch.Generator().manual_seed(step))
        loss = sum(weight * terms[name].float() for name, weight in stage.loss_weights.items())
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def measure(shop: Workshop, names: list[str]) -> dict[str, float]:
    """Seconds per step of each variant, of the 3D decoder (the slowest) and of the prior."""
    seconds = {"prior": step_seconds(shop.prior_config(), 0, shop.device)}
    for name in names:
        config = shop.config(name, 0)
        seconds[name] = step_seconds(config, 0, shop.device)
        if len(config.stages) > 1:
            seconds["decoder"] = max(seconds.get("decoder", 0.0), step_seconds(config, 1, shop.device))
    return seconds


def steps_for(seconds: dict[str, float], minutes: float) -> tuple[int, int, int]:
    """Steps of the variants, of the 3D decoder and of the prior, so that no run takes longer than ``minutes``.

    The variants' steps are equal: as many as the slowest one makes beside the decoder's share.
    """
    slowest = max(value for name, value in seconds.items() if name not in ("decoder", "prior"))
    share = DECODER_SHARE if "decoder" in seconds else 0.0
    budget = 60 * minutes
    return (
        max(1, int((1 - share) * budget / slowest)),
        max(1, int(share * budget / seconds.get("decoder", 1.0))),
        max(1, int(budget / seconds["prior"])),
    )


def settle(out: Path, asked: AnyPlan, decide: Callable[[], AnyPlan]) -> AnyPlan:
    """The plan of a folder: the one it holds, else what ``decide`` finds, which is written.

    Raises:
        ValueError: if the folder's comparison has another preset, other clips or another batch than asked for, or other
            steps than asked for (where they are, ``asked.steps`` is above 1).
    """
    path = out / "plan.json"
    if not path.is_file():
        plan = decide()
        write_text(path, json.dumps(plan.to_dict(), indent=1) + "\n")
        return plan
    plan = type(asked).from_dict(read_json(path))
    keys = ["preset", "bank", "batch"] + (["steps"] if asked.steps > 1 else [])
    for key in keys:
        if getattr(plan, key) != getattr(asked, key):
            raise ValueError(
                f"'{out}' holds a comparison with {key} {getattr(plan, key)}, not {getattr(asked, key)}; "
                "choose another folder, or ask for the same"
            )
    return plan
