"""Samples of objects by kind of condition against held-back shapes, sample by sample and resumable.

All sets are seen by the same cameras: the held-back shapes, the samples of each kind of condition, and the yardsticks:
training shapes drawn at random (what a perfect memory would reach) and the autoencoder's prior decoded without
diffusion (what diffusion has to beat). Pictures give Fréchet and kernel distances, points on the surfaces coverage, MMD
and 1-NNA; each sample's nearest training shape tells invention from memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latent3d.evaluation.features import FeatureExtractor, random_conv
from latent3d.evaluation.object_metrics import SHAPE_DISTANCES, nearest_shapes, shape_distances
from latent3d.evaluation.object_protocols import (
    GenerationProtocol,
    MeshAsset,
    ObjectAsset,
    ObjectSystem,
    Prompt,
    ShapeSource,
)
from latent3d.evaluation.object_runner import distance_columns, object_conditions, spread, write_record
from latent3d.evaluation.object_sets import (
    SHEET_VIEWS,
    Judge,
    Maker,
    ObjectSet,
    SetPlan,
    clouds_of_shapes,
    sheet_rows,
    sheet_views,
)
from latent3d.evaluation.records import Table, score_columns, set_distances
from latent3d.evaluation.scene_cache import ResultCache
from latent3d.evaluation.sheets import sheet
from latent3d.io.images import save_image

HELD_BACK, SUBSET, PRIOR = "held_back", "training_subset", "prior_decoded"
"""Rows without diffusion: the held-back shapes themselves, and the two yardsticks."""
COLUMNS = {"novelty": ("to training ‰", 2), "clip_i": ("CLIP-I", 2), "seconds": ("s/object", 2)}
"""Numbers of one object: heading and digits."""

Nearest = dict[str, tuple[Tensor, Tensor]]
"""By row: distance and number of the nearest training shape of each object, (N,) each."""


def evaluate_generation(
    system: ObjectSystem | None,
    references: ShapeSource,
    out: str | Path,
    *,
    training: ShapeSource | None = None,
    samples: int | None = None,
    protocol: GenerationProtocol | None = None,
    steps: Sequence[int] = (50,),
    guidance: float | None = None,
    seed: int = 0,
    batch: int = 4,
    yardsticks: dict[str, Maker] | None = None,
    extractor: FeatureExtractor | None = None,
    embedding: FeatureExtractor | None = None,
    weights: dict[str, Any] | None = None,
    sheet_objects: int = 8,
    progress: bool = True,
) -> dict[str, Any]:
    """Sample by every kind of condition and write ``<protocol>_<family>.json``, ``.md`` and a sheet for every row.

    Args:
        system: None: the yardsticks alone.
        references: held-back shapes. Sample i is told what reference i (modulo their number) is.
        out: folder of results; numbers, features and clouds lie in its ``cache``.
        training: shapes that the model was trained on (or a part of them): for novelty, and for the first yardstick.
        samples: objects per row; as many as references by default, which 1-NNA needs.
        steps: numbers of denoising steps.
        guidance: None: the model's own for each kind of condition.
        seed: sample i has the seed ``seed`` + i.
        batch: samples drawn at once.
        yardsticks: further rows by name, made from seeds; default: the system's prior, decoded.
        extractor: of the distances; default random_conv.
        embedding: gives CLIP-I to samples that were told a picture.
        weights: what identifies the model, with its ``sha256``.
        sheet_objects: objects on each picture sheet.
        progress: progress bars on stderr.

    Returns:
        The record.

    Raises:
        ValueError: without references, with fewer training shapes than samples, or for a model without ``weights``.
    """
    protocol, extractor, out = protocol or GenerationProtocol(), extractor or random_conv(), Path(out)
    count = len(references) if samples is None else samples
    if min(count, len(references)) < 1:
        raise ValueError("there is nothing to compare; give at least one held-back shape and ask for one sample")
    if system is not None and weights is None:
        raise ValueError("name the model's weights by their sha256, so that results of two models cannot mix")
    if training is not None and len(training) < count:
        raise ValueError(f"{len(training)} training shapes are fewer than {count} samples; give as many or more")
    first = MeshAsset(references.shape(0).mesh).render(protocol.picture_camera()).images
    shared = object_conditions(
        protocol.to_dict(), references.describe(), extractor, weights if system is not None else None, first,
        embedding=None if embedding is None else {"name": embedding.name, "sha256": embedding.sha256},
    )  # fmt: skip
    plans = _real_plans(references, training, count)
    for name, make in (yardsticks or ({} if system is None else {PRIOR: system.prior})).items():
        plans[name] = _seeded(make, count, seed)
    if system is not None:
        for kind, number in itertools.product(protocol.conditions, steps):
            plans[f"{kind}@{number}"] = _sampled(system, protocol, references, kind, count, number, guidance, seed)
    judge, sets = Judge(protocol, extractor, embedding), {}
    for name, plan in plans.items():
        # Real shapes do not depend on the model: another model finds them in the same cache.
        conditions = shared | {"row": name, **plan.conditions} | ({"weights": None} if plan.real else {})
        cache = ResultCache(out / "cache", conditions)
        sets[name] = judge.look_at_all(plan, cache, f"{protocol.name}, {name}", batch, progress)
    nearest = {} if training is None else _nearest(sets, plans, training, protocol, out, progress)
    about = {"guidance": guidance, "seeds": f"{seed} + number of the sample"}
    record = shared | about | _numbers(shared, references, training, protocol, sets, nearest)
    stem = f"{protocol.name}_{references.describe()['family']}"
    for name, one in sets.items():
        _write_sheet(out / f"{stem}_{name}.png", one, protocol, training, nearest.get(name), sheet_objects)
    return write_record(out, stem, record)


def _real_plans(references: ShapeSource, training: ShapeSource | None, count: int) -> dict[str, SetPlan]:
    """The held-back shapes and, where training shapes are known, as many of these as there are samples."""

    def shapes(source: ShapeSource, order: Sequence[int]) -> Maker:
        return lambda numbers: [MeshAsset(source.shape(order[number]).mesh) for number in numbers]

    plans = {HELD_BACK: SetPlan(len(references), shapes(references, range(len(references))), {}, real=True)}
    if training is not None:
        picks = np.random.default_rng(0).permutation(len(training))[:count].tolist()
        conditions = {"training": training.describe(), "picks": picks}
        plans[SUBSET] = SetPlan(count, shapes(training, picks), conditions, real=True, skip=picks)
    return plans


def _seeded(make: Maker, count: int, seed: int) -> SetPlan:
    """A yardstick that is made from seeds."""
    return SetPlan(count, lambda numbers: make([seed + number for number in numbers]), {"seed": seed})


def _sampled(
    system: ObjectSystem,
    protocol: GenerationProtocol,
    references: ShapeSource,
    kind: str,
    count: int,
    steps: int,
    guidance: float | None,
    seed: int,
) -> SetPlan:
    """Samples that are told one kind of thing."""

    def prompt(number: int) -> Prompt:
        return protocol.prompt(kind, references.shape(number % len(references)))

    def make(numbers: Sequence[int]) -> Sequence[ObjectAsset]:
        prompts = [prompt(number) for number in numbers]
        return system.sample([seed + number for number in numbers], prompts, steps=steps, guidance=guidance)

    conditions = {"kind": kind, "steps": steps, "guidance": guidance, "seed": seed}
    return SetPlan(count, make, conditions, prompt)


def _nearest(
    sets: dict[str, ObjectSet],
    plans: dict[str, SetPlan],
    training: ShapeSource,
    protocol: GenerationProtocol,
    out: Path,
    progress: bool,
) -> Nearest:
    """The nearest training shape of every object."""
    about = {key: value for key, value in training.describe().items() if key != "indices"}
    cache = ResultCache(out / "cache", {"training": about, "points": protocol.points, "outer": protocol.outer})
    clouds = clouds_of_shapes(training, cache, protocol, progress)
    return {name: nearest_shapes(one.clouds, clouds, plans[name].skip) for name, one in sets.items()}


def _numbers(
    shared: dict[str, Any],
    references: ShapeSource,
    training: ShapeSource | None,
    protocol: GenerationProtocol,
    sets: dict[str, ObjectSet],
    nearest: Nearest,
) -> dict[str, Any]:
    """What the record says beside its conditions."""
    truth, extractor, methods = sets[HELD_BACK], shared["extractor"], {}
    for name, one in sets.items():
        rows = [dict(entry) for entry in one.entries]
        if name in nearest:
            rows = [row | {"novelty": value} for row, value in zip(rows, nearest[name][0].tolist(), strict=True)]
        methods[name] = score_columns(rows, COLUMNS) | {"distances": None, "objects": len(rows)}
        if name in nearest:
            methods[name]["nearest_training"] = nearest[name][1].tolist()
        if one is not truth:
            pictures = set_distances(torch.cat(truth.features), torch.cat(one.features), extractor["name"])
            methods[name]["distances"] = (pictures or {}) | shape_distances(truth.clouds, one.clouds)
    hidden = ["novelty"] * (not nearest) + ["clip_i"] * (shared["embedding"] is None)
    columns = {key: column for key, column in COLUMNS.items() if key not in hidden}
    return {
        "scenes": references.describe() | {"count": len(truth), "targets": len(truth) * protocol.views},
        "resolution": [protocol.size, protocol.size],
        "training": None if training is None else training.describe() | {"count": len(training)},
        "clouds": {
            "points": protocol.points,
            "surface": "outer" if protocol.outer else "whole",
            "scale": "box centred, longest side [-1, 1]",
            "distance": "squared Chamfer, sum of the means of both directions",
            "resolution": protocol.mesh_resolution,
        },
        "table": Table(columns, distance_columns(extractor["name"]) | SHAPE_DISTANCES, "objects").to_dict(),
        "caption": _caption(shared, protocol, sets, training),
        "methods": methods,
    }


def _caption(
    shared: dict[str, Any], protocol: GenerationProtocol, sets: dict[str, ObjectSet], training: ShapeSource | None
) -> str:
    sizes = sorted({len(one) for one in sets.values()})
    text = (
        f"{' or '.join(map(str, sizes))} objects per row against {len(sets[HELD_BACK])} held-back shapes; distances of "
        f"pictures from {protocol.views} fixed cameras at {protocol.size} x {protocol.size}, extractor "
        f"{shared['extractor']['name']} ({shared['extractor']['sha256'][:12]}); COV, MMD and 1-NNA on "
        f"{protocol.points} points of the {'outer' if protocol.outer else 'whole'} surface, box centred and longest "
        "side scaled to [-1, 1], squared Chamfer (sum of both directions' means). `@n` = n denoising steps."
    )
    if training is not None:
        text += (
            f" To training: Chamfer distance to the nearest of {len(training)} training shapes, mean with half the "
            f"95 % bootstrap interval; the row `{SUBSET}` are some of these, each compared with the others."
        )
    if shared["embedding"] is not None:
        embedding = shared["embedding"]
        text += f" CLIP-I over white with {embedding['name']} ({embedding['sha256'][:12]})."
    lost = {name: sum(not len(cloud) for cloud in one.clouds) for name, one in sets.items()}
    if any(lost.values()):
        text += " Without a surface: " + ", ".join(f"{name} {number}" for name, number in lost.items() if number) + "."
    return text


def _write_sheet(
    path: Path,
    one: ObjectSet,
    protocol: GenerationProtocol,
    training: ShapeSource | None,
    nearest: tuple[Tensor, Tensor] | None,
    count: int,
) -> None:
    """Objects of a row, each beside its nearest training shape; the novelty sheet."""
    blank = torch.ones(SHEET_VIEWS, *one.pictures[0].shape[1:])

    def beside(number: int) -> Tensor:
        assert nearest is not None
        assert training is not None
        at = int(nearest[1][number])
        return blank if at < 0 else sheet_views(MeshAsset(training.shape(at).mesh), protocol)

    if count > 0:
        rows, titles = sheet_rows(one, sorted(spread(len(one), count)), None if nearest is None else beside)
        save_image(path, sheet(rows, titles))
