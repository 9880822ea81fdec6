"""Result records: means with bootstrap intervals, JSON and Markdown tables.

A record carries everything a number depends on (extractor and hash, N, resolution, resize rule, thresholds, alignment,
axes, seeds, weights, versions); two records whose settings differ are not compared.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from latent3d.evaluation.distributions import frechet_distance, kernel_distance, precision_recall
from latent3d.evaluation.features import score_name
from latent3d.evaluation.scoring import METRICS, NEAREST, TRUTH
from latent3d.io.cards import machine, versions

METRIC_VERSION = 2
"""Raised whenever a metric changes its value for the same input."""
BOOTSTRAP_DRAWS = 2000
INTERVAL = f"95 % percentile bootstrap over {{items}}, {BOOTSTRAP_DRAWS} draws"
COLUMNS = {
    "psnr": ("PSNR", 2),
    "psnr_seen": ("seen", 2),
    "psnr_unseen": ("unseen", 2),
    "ssim": ("SSIM", 3),
    "lpips": ("LPIPS", 3),
    "sharpness_seen": ("sharpness", 2),
    "abs_rel": ("AbsRel", 3),
    "tsed": ("TSED", 2),
    "tsed_matches": ("matches", 0),
    "warp_distance": ("{warp}", 3),
    "warp_distance_own": ("{warp}, own depth", 3),
    "warp_overlap_own": ("overlap", 2),
    "seconds": ("s/scene", 2),
}
"""Per-scene numbers that the table prints: heading (with the name of the measure after a warp) and digits."""
CLIP = "clip "
"""Begins the names of features of clips, which stand beside those of single images."""
PARTS = ("metric_version", "protocol", "scenes", "first_scene_sha256", "resolution", "extractor", "methods")
"""What every record holds, by which a file is known to be one."""


def interval(values: np.ndarray, seed: int = 0) -> dict[str, float | int | None]:
    """Mean of per-scene values with its 95 % bootstrap interval over scenes; NaN scenes are left out.

    Percentile bootstrap with `BOOTSTRAP_DRAWS` draws. All entries are None when no scene has the number.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return {"mean": None, "low": None, "high": None, "scenes": 0}
    picks = np.random.default_rng(seed).integers(0, len(values), (BOOTSTRAP_DRAWS, len(values)))
    low, high = np.percentile(values[picks].mean(1), [2.5, 97.5])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high), "scenes": len(values)}


@dataclass(frozen=True)
class Table:
    """How a record is printed.

    Attributes:
        columns: numbers of single items: heading and digits.
        distances: numbers of whole sets: heading, and format of a number.
        items: what a set consists of, in the plural.
    """

    columns: dict[str, tuple[str, int]]
    distances: dict[str, tuple[str, str]]
    items: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; part of a record (see `table_of`)."""
        return asdict(self)


def table_of(record: dict[str, Any]) -> Table:
    """The table that a record brings along; of one without, the table of scenes."""
    own = record.get("table")
    if own is not None:
        columns, distances = (
            {key: tuple(value) for key, value in own[part].items()} for part in ("columns", "distances")
        )
        return Table(columns, distances, own["items"])
    names = [score_name(kind, record["extractor"]["name"]) for kind in ("FD", "KD")]
    names += [score_name("FVD", record["video"]["name"])] if record.get("video") else []
    warp = record.get("warp")
    left_out = [key for key in COLUMNS if key.startswith("warp_") and not warp]
    left_out += [] if record.get("perceptual") else ["lpips"]
    columns = {
        key: (head.format(warp=warp and warp["name"]), digits)
        for key, (head, digits) in COLUMNS.items()
        if key not in left_out
    }
    return Table(columns, {name: (name, ".4g") for name in names}, "scenes")


def score_columns(rows: list[dict[str, Any]], keys: Iterable[str]) -> dict[str, Any]:
    """``scores`` (means with intervals) and ``per_scene`` (the numbers themselves) of a method's items."""
    columns = {key: [row.get(key) for row in rows] for key in keys}
    return {"scores": {key: interval(array(values)) for key, values in columns.items()}, "per_scene": columns}


def build_record(
    conditions: dict[str, Any], entries: list[dict[str, Any]], features: dict[str, Tensor]
) -> dict[str, Any]:
    """Everything about one protocol on one source of scenes, JSON-able.

    Args:
        conditions: metric_version, protocol, scenes, config, extractor and weights, as plain dictionaries.
        entries: per scene ``scores`` (by method, then number), ``size``, ``factor`` and perhaps ``seen_share``.
        features: of all target images by method, (N, d), the truth's among them; those of clips, one per scene, begin
            with `CLIP`.
    """
    extractor, config = conditions["extractor"], conditions["config"]
    methods: dict[str, dict[str, Any]] = {}
    for name in entries[0]["scores"]:
        rows = [entry["scores"][name] for entry in entries]
        curve = {t: interval(array([item["tsed_curve"][t] for item in rows]))["mean"] for t in rows[0]["tsed_curve"]}
        methods[name] = score_columns(rows, METRICS) | {
            "tsed_curve": curve,
            "distances": None if name == TRUTH else _distances(features, name, extractor, conditions.get("video")),
        }
    nearest = array(methods[NEAREST]["per_scene"]["psnr"])
    shares = array([entry.get("seen_share") for entry in entries])
    record = conditions | {
        "scenes": conditions["scenes"] | {"count": len(entries), "targets": len(features[TRUTH])},
        "resolution": entries[0]["size"],
        "seeds": f"{config['seed']} + scene index",
        "tsed": config["tsed"] | {"unit": "pixels at a shorter side of 256", "axes": "OpenCV", "sift": "OpenCV"},
        "depth": {"alignment": "none; abs_rel_median_aligned: median ratio", "views": "targets", "kind": "z-depth"},
        "scale": _scale([entry["factor"] for entry in entries], config["median_depth"]),
        "seen": {"tolerance": config["seen_tolerance"], "share": interval(shares)["mean"]},
        "interval": INTERVAL.format(items="scenes"),
        "versions": versions(),
        "machine": machine(),
        "gain_over_nearest_reference": {
            name: interval(array(method["per_scene"]["psnr"]) - nearest)
            for name, method in methods.items()
            if name not in (TRUTH, NEAREST)
        },
        "methods": methods,
    }
    return plain(record)


def _distances(
    features: dict[str, Tensor], name: str, extractor: dict[str, Any], video: dict[str, Any] | None
) -> dict[str, float] | None:
    """Distances of a method's images and, where a video extractor was given, of its clips to the truth."""
    images = set_distances(features[TRUTH], features[name], extractor["name"])
    if video is None or len(features[CLIP + TRUTH]) < 2:
        return images
    clips = frechet_distance(features[CLIP + TRUTH], features[CLIP + name])
    return (images or {}) | {score_name("FVD", video["name"]): clips}


def set_distances(real: Tensor, fake: Tensor, extractor: str) -> dict[str, float] | None:
    """Distances of N fake to N real images by name; precision and recall with 3 neighbours. None for a single image."""
    if len(real) < 2:
        return None
    scores = {score_name("FD", extractor): frechet_distance(real, fake)}
    scores[score_name("KD", extractor)] = kernel_distance(real, fake).mean
    if len(real) > 3:
        scores["precision"], scores["recall"] = precision_recall(real, fake)
    return scores


def _scale(factors: list[float], median_depth: float | None) -> dict[str, Any]:
    """How scenes were scaled by what their references show: the depth aimed at, scenes scaled, range of factors."""
    scaled = [factor for factor in factors if factor != 1]
    spread = [min(scaled), max(scaled)] if scaled else None
    return {"median_depth": median_depth, "scenes": len(scaled), "factors": spread, "by": "matches of the references"}


def array(values: list[float | None]) -> np.ndarray:
    """Per-scene numbers as float64, NaN where a scene has none."""
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def plain(value: Any) -> Any:
    """JSON-able copy: NaN and infinities become null, tuples lists, NumPy scalars Python ones."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_record(path: str | Path) -> dict[str, Any]:
    """Read a record written by `evaluate`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a record.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no result '{path}'; make one with latent3d evaluate")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"'{path}' is not JSON ({error}); give a results file of latent3d evaluate") from error
    if not isinstance(record, dict) or not all(key in record for key in PARTS):
        raise ValueError(f"'{path}' is not a results file of latent3d evaluate")
    return record


def markdown(record: dict[str, Any]) -> str:
    """A record as a Markdown table with a caption that states its conditions."""
    table = table_of(record)
    heads = [head for head, _ in (*table.columns.values(), *table.distances.values())]
    lines = [
        f"### {record['protocol']['name']} on {record['scenes']['family']}",
        "",
        "| method | " + " | ".join(heads) + " |",
        "|---|" + "---:|" * len(heads),
    ]
    for name, method in record["methods"].items():
        cells = [cell(method["scores"].get(key), digits) for key, (_, digits) in table.columns.items()]
        cells += [number(method["distances"], key, form) for key, (_, form) in table.distances.items()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", record["caption"] if "caption" in record else _scene_caption(record)]
    gains = [f"- {name}: {_gain(gain)}" for name, gain in record.get("gain_over_nearest_reference", {}).items()]
    if gains:
        lines += ["", "PSNR over the nearest reference's picture, paired by scene:", "", *gains]
    return "\n".join(lines) + "\n"


def number(distances: dict[str, float] | None, key: str, form: str) -> str:
    """A number of a set as it stands in a table."""
    value = (distances or {}).get(key)
    return "-" if value is None else format(value, form)


def _scene_caption(record: dict[str, Any]) -> str:
    scenes, tsed, side = record["scenes"], record["tsed"], min(record["resolution"])
    text = (
        f"Means over {scenes['count']} scenes ({scenes['targets']} target views) with half the 95 % bootstrap interval "
        f"over scenes; images {record['resolution'][1]} x {record['resolution'][0]}. PSNR per image, then averaged; "
        "sharpness = gradient energy over ground truth on seen pixels; AbsRel without alignment; TSED at "
        f"{tsed['headline'] * side / 256:g} px (T_error = {tsed['headline']:g} at 256 px) with at least "
        f"{tsed['min_matches']} SIFT matches; extractor {record['extractor']['name']} "
        f"({record['extractor']['sha256'][:12]}), N = {scenes['targets']}. `@n` = n denoising steps."
    )
    if perceptual := record.get("perceptual"):
        text += f" LPIPS is {perceptual['name']}, v0.1 heads."
    if video := record.get("video"):
        text += (
            f" {score_name('FVD', video['name'])}: {video['name']} ({video['sha256'][:12]}), {video['resize_rule']}, "
            f"N = {scenes['count']} clips of {video['clips']}."
        )
    if warp := record.get("warp"):
        text += (
            f" {warp['name']}: features of a view, carried into its neighbour, against the neighbour's own; by true "
            "depth, or among the targets by the method's own rendered depth (overlap: share of pixels that took part); "
            f"{warp['extractor']['name']} ({warp['extractor']['sha256'][:12]})."
        )
    scale = record.get("scale", {})
    if scale.get("median_depth") is not None:
        text += (
            f" Translations of {scale['scenes']} of {scenes['count']} scenes were scaled so that points matched "
            f"between their references lie at a median depth of {scale['median_depth']:g}."
        )
    return text


def _gain(gain: dict[str, Any]) -> str:
    return "-" if gain["mean"] is None else f"{cell(gain, 2, sign='+')} dB"


def cell(score: dict[str, Any] | None, digits: int, sign: str = "") -> str:
    """Mean and half the interval as they stand in a table."""
    if score is None or score["mean"] is None:
        return "-"
    half = 0.5 * (score["high"] - score["low"])
    return f"{score['mean']:{sign}.{digits}f} ± {half:.{digits}f}"
