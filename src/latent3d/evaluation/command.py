"""``latent3d evaluate``: a model of scenes or of objects, under one or several protocols, on any kind of data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from latent3d.data.captures.reference_scale import TYPICAL_DEPTH
from latent3d.evaluation.dense_features import build_dense_extractor
from latent3d.evaluation.features import build_extractor
from latent3d.evaluation.object_command import OBJECT_PROTOCOLS, TRAINING_SHAPES, ObjectModel, evaluate_objects
from latent3d.evaluation.perceptual import lpips
from latent3d.evaluation.protocols import (
    MAIN,
    BankScenes,
    CaptureScenes,
    SceneSource,
    ViewProtocol,
    WorldScenes,
    get_protocol,
)
from latent3d.evaluation.published import PublishedCases, PublishedScenes
from latent3d.evaluation.records import markdown
from latent3d.evaluation.runner import EvaluationConfig, evaluate, load_model, weights_folder
from latent3d.evaluation.video_features import build_video_extractor
from latent3d.evaluation.warp_distance import WarpMetric
from latent3d.hardware import has_bf16
from latent3d.io.atomic import write_text
from latent3d.weights import read_json

OBJECTS = "objects_"
"""Begins the names of protocols of objects."""
FAMILIES = ("mixed", "other")
STEPS = (1, 30)


def evaluate_command(
    weights: str | Path | None = None,
    out: str | Path = "out/evaluation",
    *,
    data: str | Path | Sequence[str | Path] = (),
    index: str | Path | None = None,
    protocol: str | Sequence[str] = (),
    views: int = 8,
    stride: int = 1,
    scale: float | None = None,
    family: str | Sequence[str] = (),
    scenes: int = 64,
    steps: Sequence[int] = (),
    seed: int = 0,
    split: str = "test",
    extractor: str = "random_conv",
    extractor_weights: str | Path | None = None,
    video_extractor: str | None = None,
    video_weights: str | Path | None = None,
    warp_extractor: str | None = None,
    warp_weights: str | Path | None = None,
    lpips_files: tuple[str | Path, str | Path] | None = None,
    clip: str | Path | None = None,
    inputs: int = 4,
    conditions: Sequence[str] = (),
    guidance: float | None = None,
    training: int = TRAINING_SHAPES,
    load_objects: Callable[[str | Path | None, str], ObjectModel] | None = None,
    baselines_only: bool = False,
    device: str = "cpu",
    progress: bool = True,
) -> list[dict[str, Any]]:
    """The tables of a weights folder: every protocol on every source of scenes, and ``results.md`` with all of them.

    Args:
        weights: folder, or name of shipped weights; default the shipped ``ggs_rooms``, for protocols of objects
            ``ln3diff_shapes``.
        data: folders of captures (any layout) or banks of clips in place of the worlds; for models of objects folders
            of meshes or banks of objects.
        index: file of published cases, for which ``data`` holds the captures; takes the place of ``protocol``.
        protocol: one or several names; default those of the weights' kind: `MAIN` or `OBJECT_PROTOCOLS`.
        views: views per scene.
        stride: distance of neighbouring photos of a scene in a capture.
        scale: factor on a capture's translations. None: captures that are not in metres are scaled, scene by scene, so
            that the points that match between the references lie at a median depth of `TYPICAL_DEPTH`.
        family: one or several kinds of worlds (default mixed, other) or classes of objects (default all), where no data
            is given.
        scenes: at most so many scenes or objects per source (worlds: clips 0 .. scenes - 1 of the split).
        steps: numbers of denoising steps (default 1 and 30; for objects what the weights recommend); scene i samples
            with ``seed`` + i.
        extractor, extractor_weights: see `latent3d.evaluation.features.build_extractor`.
        video_extractor, video_weights: of the Fréchet distance of clips of scenes, see
            `latent3d.evaluation.video_features.build_video_extractor`; without a name no such distance.
        warp_extractor, warp_weights: of the distance of neighbouring views of scenes after a warp, see
            `latent3d.evaluation.dense_features.build_dense_extractor`; without a name no such score.
        lpips_files: trunk and linear heads (see `latent3d.evaluation.perceptual.lpips`); without them no LPIPS.
        clip: folder of a CLIP model, for CLIP-I of objects (with ``extractor`` clip, that one serves).
        inputs, conditions, guidance, training: of objects, see `latent3d.evaluation.object_command.evaluate_objects`.
        load_objects: gives the model of objects of some weights on a device; only for models of objects.
        baselines_only: score what needs no model, at 128 x 128.

    Returns:
        The records.

    Raises:
        FileNotFoundError, ValueError: for weights, names or folders that cannot be used.
    """
    folders = [Path(data)] if isinstance(data, str | Path) else [Path(folder) for folder in data]
    names = _names(protocol) or list(_protocols_of(weights))
    kinds = _names(family)
    features = build_extractor(extractor, extractor_weights)
    perceptual = None if lpips_files is None else lpips(*lpips_files)
    video = None if video_extractor is None else build_video_extractor(video_extractor, video_weights)
    warp = None if warp_extractor is None else WarpMetric(build_dense_extractor(warp_extractor, warp_weights))
    if any(name.startswith(OBJECTS) for name in names):
        if video is not None or warp is not None:
            raise ValueError(
                "clips and warps are of scenes; leave --video-extractor and --warp-extractor out for objects"
            )
        embedding = features if clip is None and extractor == "clip" else clip and build_extractor("clip", clip)
        if load_objects is None and not baselines_only:
            raise ValueError(
                "models of objects come from latent3d.apps.objects; give evaluate_command its load_objects"
            )
        model_of_objects = None if load_objects is None or baselines_only else load_objects(weights, device)
        records = evaluate_objects(
            model_of_objects, out, protocol=names, data=folders, family=kinds, objects=scenes, inputs=inputs,
            conditions=conditions or None, steps=steps, guidance=guidance, training=training, seed=seed,
            split=split, extractor=features, embedding=embedding or None, perceptual=perceptual,
            progress=progress,
        )  # fmt: skip
        return _written(records, out)
    protocols = [get_protocol(name, views) for name in names]
    model, about, size = (None, None, (128, 128)) if baselines_only else load_model(weights, device)
    config = EvaluationConfig(steps=tuple(steps or STEPS), seed=seed, bf16=has_bf16(torch.device(device).type))
    jobs: list[tuple[SceneSource, ViewProtocol | PublishedCases, EvaluationConfig]] = []
    if index is not None:
        for folder in _needed(folders):
            published = PublishedScenes(folder, index, size=size, count=scenes)
            jobs.append((published, published.protocol, _scaled(config, scale)))
    elif folders:
        for source, metric in (
            _source(folder, views=views, size=size, stride=stride, scale=scale, scenes=scenes) for folder in folders
        ):
            jobs += [(source, each, config if metric else _scaled(config, scale)) for each in protocols]
    else:
        worlds = [WorldScenes(kind, scenes, split, views, size) for kind in kinds or FAMILIES]
        jobs += [(source, each, config) for source in worlds for each in protocols]
    records = [
        evaluate(
            model, source, each, out, config=settings, extractor=features, perceptual=perceptual, video=video,
            warp=warp, weights=about, device=device, progress=progress,
        )
        for source, each, settings in jobs
    ]  # fmt: skip
    return _written(records, out)


def _written(records: list[dict[str, Any]], out: str | Path) -> list[dict[str, Any]]:
    write_text(Path(out) / "results.md", "\n".join(markdown(record) for record in records))
    return records


def _names(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _protocols_of(weights: str | Path | None) -> tuple[str, ...]:
    """The protocols of weights by the kind of model that they hold."""
    if weights is None:
        return MAIN
    folder = weights_folder(weights)
    if not (folder / "config.json").is_file():
        return MAIN
    config = read_json(folder / "config.json").get("config", {})
    return OBJECT_PROTOCOLS if config.get("type") == "LN3DiffConfig" else MAIN


def _scaled(config: EvaluationConfig, scale: float | None) -> EvaluationConfig:
    return config.replace(median_depth=TYPICAL_DEPTH) if scale is None else config


def _needed(folders: list[Path]) -> list[Path]:
    if not folders:
        raise ValueError("published cases need their pictures; give the folder of captures with --data")
    return folders


def _source(
    folder: Path, *, views: int, size: tuple[int, int], stride: int, scale: float | None, scenes: int
) -> tuple[SceneSource, bool]:
    """A bank or a capture, and whether its units are metres (or taken for it)."""
    if (folder / "bank.json").is_file():
        bank = BankScenes(folder, scenes, views)
        if bank.size != size:
            raise ValueError(f"the clips of '{folder}' are {bank.size} pixels (height, width), the model takes {size}")
        return bank, True
    capture = CaptureScenes(
        folder, views=views, size=size, stride=stride, scale=1.0 if scale is None else scale, count=scenes
    )
    return capture, capture.capture.metric
