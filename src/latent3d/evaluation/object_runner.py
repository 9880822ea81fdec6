"""Reconstruction of unseen objects from some of their views, object by object and resumable.

Per object the novel views of the model, of its nearest input picture and of an empty picture are scored; numbers and
features go to a cache, from which record, table and picture sheet follow.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from latent3d.data.object_sources import HALF_SIZE
from latent3d.evaluation.baselines import nearest_reference
from latent3d.evaluation.features import FeatureExtractor, extract, random_conv, score_name, to_uint8
from latent3d.evaluation.object_cases import CaseSource
from latent3d.evaluation.object_metrics import RECONSTRUCTION_COLUMNS, reconstruction_scores
from latent3d.evaluation.object_protocols import ObjectCase, ObjectSystem, ReconstructionProtocol
from latent3d.evaluation.perceptual import PerceptualDistance
from latent3d.evaluation.records import INTERVAL, METRIC_VERSION, Table, markdown, plain, score_columns, set_distances
from latent3d.evaluation.scene_cache import ResultCache
from latent3d.evaluation.scoring import TRUTH
from latent3d.evaluation.sheets import depth_picture
from latent3d.geometry.cameras import Cameras
from latent3d.io.atomic import write_text
from latent3d.io.cards import machine, versions
from latent3d.representations.views import Views

MODEL, NEAREST_INPUT, EMPTY = "reconstruction", "nearest_input", "white"
"""Rows of the table: the model; the input picture of the nearest camera; nothing at all."""


def object_conditions(
    protocol: dict[str, Any],
    source: dict[str, Any],
    extractor: FeatureExtractor,
    weights: dict[str, Any] | None,
    first: Tensor,
    **more: Any,
) -> dict[str, Any]:
    """What the numbers of objects depend on, JSON-able.

    Args:
        source: description of the objects; how many there are is no condition of one of them.
        first: pictures of the first object (V, 3, H, W): a changed generator must not continue an old cache.
        more: further conditions.

    Raises:
        ValueError: for weights without their sha256 (a cache could be mistaken for another model's).
    """
    if weights is not None and not weights.get("sha256"):
        raise ValueError("name the model's weights by their sha256, so that results of two models cannot mix")
    return {
        "metric_version": METRIC_VERSION,
        "protocol": protocol,
        "scenes": {key: value for key, value in source.items() if key != "indices"},
        "extractor": {"name": extractor.name, "sha256": extractor.sha256, "resize_rule": extractor.resize_rule},
        "weights": weights,
        "first_scene_sha256": hashlib.sha256(to_uint8(first).numpy().tobytes()).hexdigest(),
        **more,
    }


def write_record(out: Path, stem: str, record: dict[str, Any]) -> dict[str, Any]:
    """Complete a record by versions and machine, write ``<stem>.json`` and ``<stem>.md``, and return it."""
    record = plain(
        record | {"interval": INTERVAL.format(items="objects"), "versions": versions(), "machine": machine()}
    )
    write_text(out / f"{stem}.json", json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    write_text(out / f"{stem}.md", markdown(record))
    return record


def distance_columns(extractor: str) -> dict[str, tuple[str, str]]:
    """Headings and formats of the distances of feature sets."""
    return {name: (name, ".4g") for name in (score_name(kind, extractor) for kind in ("FD", "KD"))}


def spread(total: int, count: int) -> set[int]:
    """``count`` numbers evenly over 0 .. total - 1."""
    return set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())


def evaluate_reconstruction(
    system: ObjectSystem | None,
    source: CaseSource,
    out: str | Path,
    *,
    protocol: ReconstructionProtocol | None = None,
    extractor: FeatureExtractor | None = None,
    perceptual: PerceptualDistance | None = None,
    weights: dict[str, Any] | None = None,
    sheet_objects: int = 8,
    progress: bool = True,
) -> dict[str, Any]:
    """Reconstruct every object of a source and write ``<protocol>_<family>.json``, ``.md`` and ``.png``.

    Args:
        system: None: the baselines alone.
        source: the objects; all of them are evaluated.
        out: folder of results; per-object numbers lie in its ``cache``, by a hash of everything they depend on.
        extractor: of the distances; default random_conv.
        perceptual: LPIPS, where its files are at hand.
        weights: what identifies the model, with its ``sha256``.
        sheet_objects: objects on the picture sheet, spread over the list.
        progress: progress bar with the time left, on stderr.

    Returns:
        The record: rows by method, then by method and class where there are several.

    Raises:
        ValueError: without objects, or for a model without ``weights``.
    """
    protocol, extractor, out = protocol or ReconstructionProtocol(), extractor or random_conv(), Path(out)
    if len(source) < 1:
        raise ValueError("there is nothing to evaluate; ask for at least one object")
    if system is not None and weights is None:
        raise ValueError("name the model's weights by their sha256, so that results of two models cannot mix")
    about = None if perceptual is None else {"name": perceptual.name, "sha256": list(perceptual.sha256)}
    conditions = object_conditions(
        protocol.to_dict(), source.describe(), extractor, weights if system is not None else None,
        source.case(0, protocol).novel.images, perceptual=about,
    )  # fmt: skip
    cache, total = ResultCache(out / "cache", conditions), len(source)
    stem = f"{protocol.name}_{source.describe()['family']}"
    shown = spread(total, sheet_objects)
    for index in tqdm(range(total), desc=stem, unit="object", disable=not progress):
        if cache.has(index, index in shown):
            continue
        case = source.case(index, protocol)
        answers = answers_to(system, case)
        scores = {
            name: reconstruction_scores(views, case.novel, 2 * HALF_SIZE, perceptual) | {"seconds": seconds}
            for name, (views, seconds) in answers.items()
        }
        features = {name: extract(extractor, to_uint8(views.images)) for name, (views, _) in answers.items()}
        features[TRUTH] = extract(extractor, to_uint8(case.novel.images))
        titles, pictures = _sheet_row(case, answers) if index in shown else ([], [])
        entry = {"scores": scores, "label": case.label, "titles": titles, "size": list(case.novel.images.shape[-2:])}
        cache.write(index, entry, features, pictures)
    record = _record(conditions | {"scenes": source.describe()}, protocol, cache, total, extractor.name)
    record = write_record(out, stem, record)
    if shown:
        cache.write_sheet(sorted(shown), out / f"{stem}.png")
    return record


@torch.no_grad()
def answers_to(system: ObjectSystem | None, case: ObjectCase) -> dict[str, tuple[Views, float]]:
    """Novel views of the model and of what needs none, with the seconds they took."""
    cameras, answers = case.novel.cameras, {}
    if system is not None:
        start = time.perf_counter()
        asset = system.reconstruct(case.given)
        answers[MODEL] = (asset.render(cameras).to("cpu"), time.perf_counter() - start)
    nearest = case.given[nearest_reference(case.given.cameras, cameras)]
    answers[NEAREST_INPUT] = (_repeated(nearest, cameras), math.nan)
    white = torch.ones_like(case.novel.images)
    answers[EMPTY] = (Views(white, cameras, alphas=torch.zeros_like(white[:, :1])), math.nan)
    return answers


def _repeated(views: Views, cameras: Cameras) -> Views:
    """Pictures passed off as those of other cameras, at their size."""
    size = (cameras.height, cameras.width)

    def fitted(images: Tensor) -> Tensor:
        if images.shape[-2:] == size:
            return images
        return torch.nn.functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)

    assert views.alphas is not None
    return Views(fitted(views.images), cameras, alphas=fitted(views.alphas))


def _sheet_row(case: ObjectCase, answers: dict[str, tuple[Views, float]]) -> tuple[list[str], list[Tensor]]:
    """Inputs, then two novel views of truth and model with their depths."""
    inputs = _repeated(case.given, case.novel.cameras).images
    columns = [(f"input {i + 1}", image) for i, image in enumerate(inputs)]
    for at in sorted({len(case.novel) // 4, (3 * len(case.novel)) // 4}):
        true_depth = None if case.novel.depths is None else case.novel.depths[at]
        columns.append((TRUTH, case.novel.images[at]))
        if MODEL in answers:
            columns.append((MODEL, answers[MODEL][0].images[at]))
        if true_depth is not None:
            columns.append(("true depth", depth_picture(true_depth)))
        for views, _ in (answers[name] for name in (MODEL,) if name in answers):
            if views.depths is not None:
                columns.append(("depth", depth_picture(views.depths[at], true_depth)))
    return [title for title, _ in columns], [picture for _, picture in columns]


def _record(
    conditions: dict[str, Any], protocol: ReconstructionProtocol, cache: ResultCache, total: int, extractor: str
) -> dict[str, Any]:
    entries, features = cache.entries(total), cache.features(total)
    names, methods = list(entries[0]["scores"]), {}
    for name in names:
        methods[name] = score_columns([entry["scores"][name] for entry in entries], RECONSTRUCTION_COLUMNS)
        methods[name]["distances"] = set_distances(features[TRUTH], features[name], extractor)
    labels = _in_order(entry["label"] for entry in entries if entry["label"])
    for name, label in ((name, label) for name in names[:1] for label in labels if len(labels) > 1):
        rows = [entry["scores"][name] for entry in entries if entry["label"] == label]
        methods[f"{name}, {label}"] = score_columns(rows, RECONSTRUCTION_COLUMNS) | {"distances": None}
    perceptual = conditions["perceptual"]
    columns = {key: column for key, column in RECONSTRUCTION_COLUMNS.items() if key != "lpips" or perceptual}
    images, (height, width) = len(features[TRUTH]), entries[0]["size"]
    caption = (
        f"Means over {total} objects ({images} novel views of {width} x {height}) with "
        f"half the 95 % bootstrap interval over objects; {protocol.inputs} views with depth are given, none of them "
        "judged. PSNR over white per image, then averaged, and on the object's own pixels; depth where both show the "
        "object, without alignment: mean error in percent of the box's side, AbsRel. `white`: a picture without "
        f"object. Extractor {extractor} ({conditions['extractor']['sha256'][:12]}), N = {images}."
    )
    if perceptual:
        caption += f" LPIPS is {perceptual['name']}, v0.1 heads."
    return conditions | {
        "scenes": conditions["scenes"] | {"count": total, "targets": images},
        "resolution": entries[0]["size"],
        "depth": {"alignment": "none", "views": "novel", "kind": "z-depth"},
        "table": Table(columns, distance_columns(extractor), "objects").to_dict(),
        "caption": caption,
        "methods": methods,
    }


def _in_order(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
