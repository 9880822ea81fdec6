"""The table of `ablations.py`: means, intervals over scenes, spread over seeds, and differences to GGS.

A number of a scene is first averaged over the seeds; intervals are 95 % percentile bootstraps over scenes. A Fréchet
distance belongs to a set of images: it is taken per seed over all scenes and averaged; its interval draws scenes, the
same ones for every row, so that ratios of two rows are paired.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ablation_runs import VARIANTS
from ablation_scores import BETWEEN, DECODER, IMAGES, RECONSTRUCTED, REFINED
from torch import Tensor

from latent3d.evaluation.distributions import frechet_distance
from latent3d.evaluation.features import score_name
from latent3d.evaluation.records import interval, plain
from latent3d.evaluation.scene_cache import SceneCache
from latent3d.evaluation.scoring import TRUTH

METRICS = {
    "psnr": ("PSNR", 2),
    "ssim": ("SSIM", 3),
    "tsed": ("TSED", 2),
    "abs_rel": ("AbsRel", 3),
    f"{BETWEEN}psnr": ("PSNR between", 2),
    f"{BETWEEN}tsed": ("TSED between", 2),
    "seconds": ("s/scene", 1),
}
"""Numbers of a scene that are printed: heading and digits."""
DISTANCES = {"distance": "", f"{BETWEEN}distance": " of 3D scenes"}
"""Fréchet distances: at the targets, and by the paper's protocol for scenes at the views between."""
BASE = "ggs"
DRAWS = 200
"""Of the bootstrap of distances."""


@dataclass(frozen=True)
class Scores:
    """What one way of judging gives for a variant.

    Attributes:
        numbers: by metric, (seeds, scenes), NaN where there is none.
        distances: by kind, (seeds, 1 + DRAWS): over all scenes, then over each draw of scenes; empty without.
    """

    numbers: dict[str, np.ndarray]
    distances: dict[str, np.ndarray]


def read_scores(caches: list[SceneCache], scenes: int, draws: int = DRAWS) -> dict[str, Scores]:
    """Scores of a variant by way of judging, from the caches of its seeds."""
    entries = [cache.entries(scenes) for cache in caches]
    features = [cache.features(scenes) for cache in caches]
    picks = np.random.default_rng(0).integers(0, scenes, (draws, scenes))
    out = {}
    for way in (key for key in entries[0][0]["scores"] if not key.startswith(BETWEEN)):
        numbers = {}
        for metric in METRICS:
            name = f"{BETWEEN}{way}" if metric.startswith(BETWEEN) else way
            key = metric.removeprefix(BETWEEN)
            rows = [[entry["scores"].get(name, {}).get(key) for entry in of_seed] for of_seed in entries]
            numbers[metric] = np.array(rows, dtype=np.float64)  # None becomes NaN
        distances = {}
        for kind in DISTANCES:
            prefix = BETWEEN if kind.startswith(BETWEEN) else ""
            if way != TRUTH and f"{prefix}{way}" in features[0]:
                pairs = [(of_seed[f"{prefix}{TRUTH}"], of_seed[f"{prefix}{way}"]) for of_seed in features]
                distances[kind] = np.stack([_distances(*pair, picks) for pair in pairs])
        out[way] = Scores(numbers, distances)
    return out


def _distances(real: Tensor, fake: Tensor, picks: np.ndarray) -> np.ndarray:
    """Distance over all scenes and over each draw of scenes, (1 + draws,)."""
    real, fake = (part.unflatten(0, (picks.shape[1], -1)) for part in (real, fake))
    draws = [np.arange(picks.shape[1]), *picks]
    return np.array(
        [frechet_distance(real[one].flatten(0, 1), fake[one].flatten(0, 1)) for one in map(torch.tensor, draws)]
    )


def summarise(scores: dict[str, dict[str, Scores]]) -> dict[str, Any]:
    """Rows by variant and way of judging: every number with interval and spread, and its difference to GGS's own row.

    Pictures are compared with GGS's pictures, scenes with the scenes of GGS's 3D decoder. Distances are compared by
    their ratio.
    """
    rows: dict[str, Any] = {}
    for name, ways in scores.items():
        for way, own in ways.items():
            base = _base(scores, name, way)
            row: dict[str, Any] = {"variant": name, "way": way, "metrics": {}, "difference": {}, "ratio": {}}
            for metric, values in own.numbers.items():
                row["metrics"][metric] = interval(over_seeds(values)) | {"seeds": spread(over_scenes(values))}
                if base is not None:
                    row["difference"][metric] = interval(over_seeds(values) - over_seeds(base.numbers[metric]))
            for kind, values in own.distances.items():
                row["metrics"][kind] = _percentiles(values.mean(0)) | {"seeds": spread(values[:, 0])}
                if base is not None and kind in base.distances:
                    row["ratio"][kind] = _percentiles(values.mean(0) / base.distances[kind].mean(0))
            rows[f"{name}/{way}"] = row
    return plain(rows)


def claims(scores: dict[str, dict[str, Scores]]) -> list[dict[str, Any]]:
    """The paper's headline: distance of scenes with splats in the denoiser over that of the twin's, by way of judging.

    The twin's scenes are reconstructed from its pictures. Ratios are paired by draw of scenes.
    """
    kind, out = f"{BETWEEN}distance", []
    for ours, twin in (("ggs", "no3d"), ("ggs_geometry", "no3d_geometry")):
        for way in (DECODER, REFINED, RECONSTRUCTED):
            one, two = scores.get(ours, {}).get(way), scores.get(twin, {}).get(RECONSTRUCTED)
            if one and two and kind in one.distances and kind in two.distances:
                ratio = _percentiles(one.distances[kind].mean(0) / two.distances[kind].mean(0))
                out.append({"variant": ours, "way": way, "twin": twin, "ratio": ratio})
    return plain(out)


def _base(scores: dict[str, dict[str, Scores]], name: str, way: str) -> Scores | None:
    """GGS's row that another is compared with."""
    own = IMAGES if way == IMAGES else DECODER
    if way == TRUTH or (name, way) == (BASE, own):
        return None
    return scores.get(BASE, {}).get(own)


def over_seeds(values: np.ndarray) -> np.ndarray:
    """Mean of each scene over the seeds that have the number."""
    known = np.isfinite(values)
    return np.where(known.any(0), np.where(known, values, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)


def over_scenes(values: np.ndarray) -> np.ndarray:
    return over_seeds(values.T)


def spread(values: np.ndarray) -> float:
    """Standard deviation between seeds; NaN for one."""
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _percentiles(values: np.ndarray) -> dict[str, float]:
    """The number over all scenes, which comes first, with the percentiles of the draws."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return {"mean": float(values[0]), "low": float(low), "high": float(high)}


def markdown(record: dict[str, Any]) -> str:
    """The table, the differences to GGS, and the conditions of both."""
    rows, extractor = record["rows"], record["extractor"]
    distance = score_name("FD", extractor)
    heads = [head for head, _ in METRICS.values()] + [f"{distance}{words}" for words in DISTANCES.values()]
    lines = [f"### {record['judging']['protocol']} on {record['judging']['family']}", ""]
    lines += ["| model | judged by | " + " | ".join(heads) + " |", "|---|---|" + "---:|" * len(heads)]
    truth = False
    for row in rows.values():
        if row["way"] == TRUTH and truth:
            continue
        title = "true pictures" if row["way"] == TRUTH else VARIANTS[row["variant"]].title
        truth = truth or row["way"] == TRUTH
        cells = [cell(row["metrics"].get(key), digits) for key, (_, digits) in METRICS.items()]
        cells += [cell(row["metrics"].get(kind), 3) for kind in DISTANCES]
        lines.append(f"| {title} | {'-' if row['way'] == TRUTH else row['way']} | " + " | ".join(cells) + " |")
    lines += ["", _conditions(record), "", "Differences to GGS, paired by scene (distances: ratio):", ""]
    lines += ["| model | judged by | " + " | ".join(heads) + " |", "|---|---|" + "---:|" * len(heads)]
    for row in rows.values():
        if row["difference"]:
            cells = [change(row["difference"].get(key), digits) for key, (_, digits) in METRICS.items()]
            cells += [_ratio(row["ratio"].get(kind)) for kind in DISTANCES]
            lines.append(f"| {VARIANTS[row['variant']].title} | {row['way']} | " + " | ".join(cells) + " |")
    lines += ["", f"`{IMAGES}` against GGS's {IMAGES}, everything else against GGS's {DECODER}.", ""]
    if record["claims"]:
        lines += [
            f"{distance} of 3D scenes over that of the scenes of the model without 3D (the paper: about 0.8):",
            "",
        ]
        for claim in record["claims"]:
            titles = VARIANTS[claim["variant"]].title, VARIANTS[claim["twin"]].title
            lines.append(f"- {titles[0]}, {claim['way']}, over {titles[1]}: {_ratio(claim['ratio'])}")
    return "\n".join(lines) + "\n"


def _conditions(record: dict[str, Any]) -> str:
    plan, judging, seeds = record["plan"], record["judging"], record["seeds"]
    counts = ", ".join(f"{VARIANTS[name].title} {len(of_run)}" for name, of_run in seeds.items())
    return (
        f"Means over {judging['scenes']} test worlds with half the 95 % bootstrap interval over scenes, and in "
        f"brackets the standard deviation between seeds (seeds: {counts}). Every run: {plan['steps']} steps of "
        f"{plan['batch']} scenes from the same autoencoder and the same denoiser, same batches per seed; 3D decoder "
        f"{plan['decoder_steps']} steps. {judging['steps']} sampling steps, the same noise per scene for all; refined "
        f"by {judging['refinements']} iterations, reconstructed by {judging['iterations']}. Between: views midway "
        "between the generated ones. AbsRel of pictures: depth of the latent splats. Distances with "
        f"{record['extractor']} on sets of equal size, to be compared with each other only. Seconds: of making one "
        "scene, as it ran."
    )


def cell(score: dict[str, Any] | None, digits: int) -> str:
    if score is None or score["mean"] is None:
        return "-"
    spread = "" if score["seeds"] is None else f" ({score['seeds']:.{digits}f})"
    return f"{score['mean']:.{digits}f} ± {0.5 * (score['high'] - score['low']):.{digits}f}{spread}"


def change(score: dict[str, Any] | None, digits: int) -> str:
    if score is None or score["mean"] is None:
        return "-"
    return f"{score['mean']:+.{digits}f} [{score['low']:+.{digits}f}, {score['high']:+.{digits}f}]"


def _ratio(score: dict[str, Any] | None) -> str:
    return "-" if score is None else f"{score['mean']:.2f} [{score['low']:.2f}, {score['high']:.2f}]"
