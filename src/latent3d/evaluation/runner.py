"""The tables: a model and its baselines over the scenes of a protocol, scene by scene and resumable.

Per scene the model samples with each number of steps; its splats, its 2D decoding, the warp by its own depth and the
baselines are scored (`scoring`), and numbers and features go to a cache. The record, the table and the picture sheet
follow from the cache, so that an interrupted run continues where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from latent3d.config import Config
from latent3d.evaluation.baselines import repeat_references, warp_references
from latent3d.evaluation.consistency import TSEDConfig
from latent3d.evaluation.features import FeatureExtractor, random_conv, to_uint8
from latent3d.evaluation.measures import Measures
from latent3d.evaluation.perceptual import PerceptualDistance
from latent3d.evaluation.protocols import SceneSource, ViewProtocol
from latent3d.evaluation.published import PublishedCases
from latent3d.evaluation.records import METRIC_VERSION, build_record, markdown
from latent3d.evaluation.scene_cache import SceneCache
from latent3d.evaluation.scoring import NEAREST, ROUND_TRIP, TRUE_WARP, TRUTH, Prediction, SceneTask
from latent3d.evaluation.two_view_baselines import METHODS
from latent3d.evaluation.video_features import VideoExtractor
from latent3d.evaluation.visibility import SEEN_TOLERANCE
from latent3d.evaluation.warp_distance import WarpMetric
from latent3d.geometry.cameras import Cameras
from latent3d.io.atomic import write_text
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.views import Views

SHIPPED = "ggs_rooms"
"""Shipped weights that are evaluated when none are named."""
MIN_ALPHA = 0.5
"""A pixel that the model's splats cover less than this has no depth of its own."""


class SceneOutput(Protocol):
    """What a scene model returns (see `latent3d.systems.ggs.GGSOutput`): references first, then targets."""

    @property
    def gaussians(self) -> Gaussians: ...

    @property
    def images(self) -> Tensor: ...

    @property
    def depths(self) -> Tensor: ...

    @property
    def is_reference(self) -> Tensor: ...

    @property
    def low_pass_px(self) -> float: ...


class SceneModel(Protocol):
    """Posed pictures and target cameras in, a scene out (see `latent3d.systems.ggs.GGSSystem`)."""

    def sample(self, references: Views, targets: Cameras, *, steps: int, seed: int, bf16: bool) -> SceneOutput: ...

    def round_trip(self, images: Tensor) -> Tensor:
        """Pictures (M, 3, H, W) through the image autoencoder."""
        ...


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(Config):
    """Settings that change numbers.

    Attributes:
        steps: numbers of denoising steps to evaluate; (1, full).
        seed: scene i samples with seed + i.
        seen_tolerance: relative depth difference of the seen masks.
        tsed: thresholds and matcher.
        median_depth: scenes are scaled so that points matched between their references lie at this median depth; None
            leaves their units alone.
        bf16: run the networks in bfloat16.
    """

    steps: tuple[int, ...] = (1, 30)
    seed: int = 0
    seen_tolerance: float = SEEN_TOLERANCE
    tsed: TSEDConfig = field(default_factory=TSEDConfig)
    median_depth: float | None = None
    bf16: bool = False


@torch.no_grad()
def predict(
    model: SceneModel, task: SceneTask, steps: int, seed: int, device: str = "cpu", bf16: bool = False
) -> dict[str, Prediction]:
    """A model's answers to one scene: ``splats``, ``decoded_2d`` and ``warp_model_depth``.

    Splats are rendered at the targets at full size. The warp carries the references by the depth of the model's own
    splats at the reference cameras.
    """
    from latent3d.rendering.splats import render_gaussians

    references, targets = task.model_input(), task.targets.cameras
    start = time.perf_counter()
    output = model.sample(references.to(device), targets.to(device), steps=steps, seed=seed, bf16=bf16)
    sampled = time.perf_counter() - start
    images, depths = output.images[~output.is_reference].cpu(), output.depths[~output.is_reference].cpu()
    size = images.shape[-2:]
    depths = torch.nn.functional.interpolate(depths, size=size, mode="bilinear", align_corners=False)
    start = time.perf_counter()
    seen = render_gaussians(output.gaussians, targets.to(device), low_pass=output.low_pass_px)
    assert seen.rgb is not None
    splats = Prediction(seen.rgb.cpu(), seen.depth.cpu(), sampled + time.perf_counter() - start)
    start = time.perf_counter()
    own = render_gaussians(output.gaussians, references.cameras.to(device), low_pass=output.low_pass_px)
    own_depth = torch.where(own.alpha > MIN_ALPHA, own.depth, torch.zeros_like(own.depth)).cpu()
    warp = warp_references(replace(references, depths=own_depth), targets)
    return {
        "splats": splats,
        "decoded_2d": Prediction(images, depths, sampled),
        "warp_model_depth": Prediction(warp.images, warp.depths, sampled + time.perf_counter() - start),
    }


def baselines(task: SceneTask) -> dict[str, Prediction]:
    """What needs no model: truth (for TSED and depth scores), nearest reference, warps.

    Two references with all targets between them are also blended, and warped by a homography and by optical flow; the
    warp by true depth needs references with depth.
    """
    start = time.perf_counter()
    repeated = repeat_references(task.references, task.targets.cameras)
    out = {
        TRUTH: Prediction(task.targets.images, task.targets.depths),
        NEAREST: Prediction(repeated, None, time.perf_counter() - start),
    }
    for name, method in METHODS.items() if task.protocol.interpolates else ():
        start = time.perf_counter()
        out[name] = Prediction(method(task.references, task.targets.cameras), None, time.perf_counter() - start)
    if task.references.depths is not None:
        start = time.perf_counter()
        warp = warp_references(task.references, task.targets.cameras)
        out[TRUE_WARP] = Prediction(warp.images, warp.depths, time.perf_counter() - start)
    return out


def evaluate(
    model: SceneModel | None,
    source: SceneSource,
    protocol: ViewProtocol | PublishedCases,
    out: str | Path,
    *,
    config: EvaluationConfig | None = None,
    extractor: FeatureExtractor | None = None,
    perceptual: PerceptualDistance | None = None,
    video: VideoExtractor | None = None,
    warp: WarpMetric | None = None,
    weights: dict[str, Any] | None = None,
    device: str = "cpu",
    sheet_scenes: int = 6,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluate a model (None: the baselines alone) and write ``<protocol>_<family>.json``, ``.md`` and ``.png``.

    Args:
        source: the scenes; all of them are evaluated.
        protocol: one for all scenes, or published cases together with their `PublishedScenes`.
        out: folder of results; per-scene numbers lie in its ``cache``, by a hash of everything they depend on.
        extractor, perceptual, video, warp: see `Measures`; without an extractor random_conv.
        weights: what identifies the model, with its ``sha256``; goes into the record and the hash.
        sheet_scenes: scenes on the picture sheet, spread over the list.
        progress: progress bar with the time left, on stderr.

    Returns:
        The record.

    Raises:
        ValueError: without scenes, for a model without ``weights`` (its cache could be mistaken for another's), or for
            scenes with fewer frames than ``video`` needs.
    """
    config = config or EvaluationConfig()
    if len(source) < 1:
        raise ValueError("there is nothing to evaluate; ask for at least one scene")
    if model is not None and not (weights or {}).get("sha256"):
        raise ValueError("name the model's weights by their sha256, so that results of two models cannot mix")
    measures = Measures(extractor or random_conv(), perceptual, video, warp)
    measures.check(protocol, len(source))
    about = weights if model is not None else None
    # The number of scenes is no condition of a scene: a longer run continues a shorter one.
    scenes = {key: value for key, value in source.describe().items() if key != "indices"}
    conditions = {
        "metric_version": METRIC_VERSION,
        "protocol": protocol.to_dict(),
        "scenes": scenes,
        "config": config.to_dict(),
        "weights": about,
        # A changed world generator or changed photos must not continue an old cache.
        "first_scene_sha256": hashlib.sha256(to_uint8(source.scene(0).images).numpy().tobytes()).hexdigest(),
        **measures.conditions(),
    }
    out, total = Path(out), len(source)
    cache = SceneCache(out / "cache", conditions)
    shown = set(np.linspace(0, total - 1, min(sheet_scenes, total)).round().astype(int).tolist())
    for index in tqdm(range(total), desc=f"{protocol.name}, {scenes['family']}", unit="scene", disable=not progress):
        if cache.has(index, index in shown):
            continue
        task = SceneTask.from_clip(
            source.scene(index), protocol.for_scene(index), config.seen_tolerance, config.median_depth
        )
        predictions = baselines(task)
        if model is not None:
            restored = model.round_trip(task.targets.images.to(device))
            predictions[ROUND_TRIP] = Prediction(restored.cpu(), None)
            for steps in config.steps:
                answers = predict(model, task, steps, config.seed + index, device, config.bf16)
                predictions |= {f"{name}@{steps}": answer for name, answer in answers.items()}
        scores, features = measures.of(predictions, task, config.tsed)
        cache.store(index, task, predictions, scores, features, index in shown)
    record = build_record(conditions | {"scenes": source.describe()}, cache.entries(total), cache.features(total))
    stem = f"{protocol.name}_{scenes['family']}"
    write_text(out / f"{stem}.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
    write_text(out / f"{stem}.md", markdown(record))
    if shown:
        cache.write_sheet(sorted(shown), out / f"{stem}.png")
    return record


def load_model(weights: str | Path | None, device: str) -> tuple[SceneModel, dict[str, Any], tuple[int, int]]:
    """A GGS system from a weights folder or a shipped name, what identifies it, and its image size (height, width).

    Raises:
        FileNotFoundError, ValueError: if there are no such weights or they do not fit.
    """
    from latent3d.systems.ggs import GGSConfig

    system, about = load_system(weights or SHIPPED, GGSConfig, device)
    return system, about, (system.config.height, system.config.width)


def load_system(weights: str | Path, kind: type[Config], device: str) -> tuple[Any, dict[str, Any]]:
    """A system from a weights folder or a name, in evaluation mode on its device, and what identifies it.

    Raises:
        FileNotFoundError, ValueError: if there are no such weights or they are of another kind.
    """
    from latent3d.weights import load_module, weights_hash

    folder = weights_folder(weights)
    system, card = load_module(folder, kind)
    about = {"name": folder.resolve().name, "sha256": weights_hash(folder), "licence": card.get("licence")}
    return system.eval().to(device), about


def weights_folder(weights: str | Path) -> Path:
    """A folder as it is, or the folder of shipped weights of that name.

    Raises:
        FileNotFoundError: if there is neither.
    """
    from latent3d.weights import find_shipped

    return Path(weights) if Path(weights).is_dir() else find_shipped(str(weights))
