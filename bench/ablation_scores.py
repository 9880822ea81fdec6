"""How `ablations.py` judges a trained variant: pictures at the targets, and 3D scenes at views between them.

Scenes are test worlds filmed with 2 V - 1 views along the path: V for the protocol, and between every two neighbours
one that nobody generates, whose truth is known. By the paper's protocol for 3D scenes, renderings there are compared
with the truth: of the splats of GGS, of the same refined by optimisation, and, for pictures alone, of splats optimised
from nothing on references and generated views. GGS is reconstructed from its pictures too, which tells apart what its
pictures and what its splats are worth.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from ablation_runs import VARIANTS, Variant
from torch import Tensor

from latent3d.config import Config
from latent3d.evaluation.consistency import TSEDConfig
from latent3d.evaluation.features import FeatureExtractor, extract, to_uint8
from latent3d.evaluation.protocols import ViewProtocol, WorldScenes, get_protocol
from latent3d.evaluation.records import METRIC_VERSION
from latent3d.evaluation.scene_cache import SceneCache
from latent3d.evaluation.scoring import TRUTH, Prediction, SceneTask, score_prediction
from latent3d.evaluation.visibility import SEEN_TOLERANCE
from latent3d.geometry.cameras import Cameras
from latent3d.hardware import has_bf16
from latent3d.rendering.base import LOW_PASS_PX
from latent3d.rendering.refinement import RefinementConfig, refine, scatter_splats
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.views import Views
from latent3d.systems.ggs import GGSConfig, GGSOutput, GGSSystem
from latent3d.systems.no3d import sample_twin
from latent3d.weights import load_module, read_json, weights_hash

IMAGES, DECODER, REFINED, RECONSTRUCTED = "pictures", "splats", "splats, refined", "reconstructed"
"""What is judged: decoded pictures; the 3D decoder's splats; these, optimised; splats from the pictures alone."""
BETWEEN = "between: "
"""Begins the names of scores at the views between."""


@dataclass(frozen=True, kw_only=True)
class Judging(Config):
    """Settings that change numbers.

    Attributes:
        protocol: name of the view protocol.
        family, scenes: test worlds 0 to ``scenes`` - 1.
        steps: of the sampler; scene i starts from the noise of seed i, in every variant and run.
        iterations: of scenes that are optimised from nothing.
        refinements: iterations of scenes that are refined.
        splats: an optimisation from nothing starts with this many.
        tsed: thresholds and matcher.
    """

    protocol: str = "ggs_two_ref"
    family: str = "mixed"
    scenes: int = 16
    steps: int = 30
    iterations: int = 1000
    refinements: int = 300
    splats: int = 20_000
    tsed: TSEDConfig = field(default_factory=TSEDConfig)


@dataclass(frozen=True)
class Trial:
    """One scene: what a model is asked for, and the views between, with the references it may show."""

    task: SceneTask
    between: SceneTask


def between_protocol(protocol: ViewProtocol) -> tuple[ViewProtocol, list[int]]:
    """The views midway between neighbours as targets, beside the same references, and their frames of 2 V - 1."""
    made = sorted({*protocol.references, *protocol.targets})
    references = [2 * index for index in protocol.references]
    frames = sorted({*references, *(one + two for one, two in itertools.pairwise(made))})
    positions = tuple(frames.index(frame) for frame in references)
    return ViewProtocol(name=f"{protocol.name}_between", views=len(frames), references=positions), frames


@functools.lru_cache(maxsize=64)
def trial(protocol_name: str, family: str, index: int, size: tuple[int, int]) -> Trial:
    """A test world under a protocol."""
    protocol = get_protocol(protocol_name)
    count = 2 * protocol.views - 1
    clip = WorldScenes(family, index + 1, views=count, size=size).scene(index)
    middle, frames = between_protocol(protocol)
    return Trial(
        SceneTask.from_clip(clip[list(range(0, count, 2))], protocol, SEEN_TOLERANCE),
        SceneTask.from_clip(clip[frames], middle, SEEN_TOLERANCE),
    )


def judge(
    folder: Path, name: str, seed: int, weights: Path, judging: Judging, extractor: FeatureExtractor, device: str
) -> SceneCache:
    """Score a finished run scene by scene; scenes that the cache in ``folder`` holds are not done again."""
    config = GGSConfig.from_dict(read_json(weights / "config.json")["config"])
    size = (config.height, config.width)
    first = trial(judging.protocol, judging.family, 0, size).task.targets.images
    conditions = {
        "metric_version": METRIC_VERSION,
        "judging": {key: value for key, value in judging.to_dict().items() if key != "scenes"},
        "extractor": {"name": extractor.name, "sha256": extractor.sha256},
        "run": f"{name}-{seed}",
        "weights": weights_hash(weights),
        # A changed world generator must not continue an old cache.
        "first_scene_sha256": hashlib.sha256(to_uint8(first).numpy().tobytes()).hexdigest(),
    }
    cache = SceneCache(folder, conditions)
    missing = [index for index in range(judging.scenes) if not cache.has(index, True)]
    if not missing:
        return cache
    system, _ = load_module(weights, GGSConfig)
    system = system.eval().to(device)
    for index in missing:
        scene = trial(judging.protocol, judging.family, index, size)
        shown, between = answers(system, VARIANTS[name], scene, judging, index, device)
        scores = {key: score_prediction(item, scene.task, judging.tsed) for key, item in shown.items()}
        scores |= {BETWEEN + key: score_prediction(item, scene.between, judging.tsed) for key, item in between.items()}
        pictures = shown | {BETWEEN + key: item for key, item in between.items()}
        features = {key: extract(extractor, to_uint8(item.images)) for key, item in pictures.items()}
        cache.store(index, scene.task, shown, scores, features, True)
    return cache


def answers(
    system: GGSSystem, variant: Variant, scene: Trial, judging: Judging, index: int, device: str
) -> tuple[dict[str, Prediction], dict[str, Prediction]]:
    """Everything a variant makes of a scene, at the targets and at the views between, with the truth of both."""
    references, targets = scene.task.model_input().to(device), scene.task.targets.cameras.to(device)
    middle = scene.between.targets
    start = time.perf_counter()
    sample = system.sample if variant.splats else functools.partial(sample_twin, system)
    out = sample(references, targets, steps=judging.steps, seed=index, bf16=has_bf16(device.partition(":")[0]))
    seconds = time.perf_counter() - start
    images = out.images[~out.is_reference].cpu()
    shown = {TRUTH: Prediction(scene.task.targets.images, scene.task.targets.depths)}
    shown[IMAGES] = Prediction(images, image_depths(out) if isinstance(out, GGSOutput) else None, seconds)
    between = {TRUTH: Prediction(middle.images, middle.depths)}
    if not variant.scene:
        return shown, between

    low_pass = out.low_pass_px if isinstance(out, GGSOutput) else LOW_PASS_PX
    scenes: dict[str, tuple[Gaussians, float, float]] = {}
    views = Views(out.images.detach().clamp(0, 1), out.cameras)
    optimiser = RefinementConfig(iterations=judging.refinements, low_pass_px=low_pass)
    if isinstance(out, GGSOutput):
        scenes[DECODER] = (out.gaussians, seconds, low_pass)
        start = time.perf_counter()
        refined = refine(out.gaussians, views, optimiser).gaussians
        scenes[REFINED] = (refined, seconds + time.perf_counter() - start, low_pass)
    start = time.perf_counter()
    span = system.config.depth_range
    nothing = scatter_splats(out.cameras, judging.splats, span.near, span.far, index)
    rebuilt = refine(nothing, views, RefinementConfig(iterations=judging.iterations)).gaussians
    scenes[RECONSTRUCTED] = (rebuilt, seconds + time.perf_counter() - start, LOW_PASS_PX)
    for key, (splats, spent, smoothing) in scenes.items():
        shown[key] = rendered(splats, targets, spent, smoothing)
        between[key] = rendered(splats, middle.cameras.to(device), spent, smoothing)
    return shown, between


def image_depths(out: GGSOutput) -> Tensor:
    """Depth of the latent splats at the targets at image size, (M, 1, H, W)."""
    depths = out.depths[~out.is_reference].cpu()
    return torch.nn.functional.interpolate(depths, size=out.images.shape[-2:], mode="bilinear", align_corners=False)


@torch.no_grad()
def rendered(splats: Gaussians, cameras: Cameras, seconds: float, low_pass: float) -> Prediction:
    """A scene seen from some cameras; the time is that of making it and of this."""
    start = time.perf_counter()
    out = render_gaussians(splats, cameras, low_pass=low_pass)
    assert out.rgb is not None
    return Prediction(out.rgb.cpu(), out.depth.cpu(), seconds + time.perf_counter() - start)
