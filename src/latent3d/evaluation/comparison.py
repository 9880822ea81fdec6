"""What changed between two records: differences of means with bootstrap intervals, paired by scene where possible.

A pair of measurements of one scene differs far less by luck than two scenes do, so records of the same scenes (of which
one may hold more) are compared scene by scene; records of other scenes of the same kind by their means alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from latent3d.evaluation.records import BOOTSTRAP_DRAWS, array, cell, interval, number, table_of

COUNTS = ("indices", "count", "targets")
"""Entries of a record's scenes that say how many there are, not which."""


def same_scenes(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether scene i of one record is scene i of the other (one may hold more of them)."""
    one, two = ({k: v for k, v in record["scenes"].items() if k not in COUNTS} for record in (first, second))
    return one == two and first["first_scene_sha256"] == second["first_scene_sha256"]


def check_comparable(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Refuse two records whose numbers do not mean the same.

    Raises:
        ValueError: naming what differs.
    """
    one, two = first["metric_version"], second["metric_version"]
    if one != two:
        raise ValueError(f"the two results were made with versions {one} and {two} of the metrics; evaluate both anew")
    if first["protocol"] != second["protocol"]:
        names = [f"'{record['protocol']['name']}'" for record in (first, second)]
        how = f"are of other protocols ({' and '.join(names)})" if names[0] != names[1] else "take other views"
        raise ValueError(f"the two results {how} and cannot be compared; evaluate both with one --protocol and --views")
    one, two = first["extractor"], second["extractor"]
    if one != two:
        raise ValueError(
            f"the features of the two results come from other extractors ({one['name']} and {two['name']}, or another "
            "file or resize rule); evaluate both with one --extractor"
        )
    for key in ("resolution", "tsed", "depth", "perceptual", "video", "warp", "clouds", "embedding"):
        if first.get(key) != second.get(key):
            raise ValueError(f"the two results differ in '{key}' and cannot be compared; evaluate both the same way")
    one, two = (record.get("seen", {}).get("tolerance") for record in (first, second))
    if one != two:
        raise ValueError(
            "the two results count other pixels as seen and cannot be compared; evaluate both the same way"
        )


def difference(first: np.ndarray, second: np.ndarray, paired: bool, seed: int = 0) -> dict[str, float | int | None]:
    """Mean of ``second`` minus mean of ``first`` with its 95 % bootstrap interval over scenes, as `interval`.

    Args:
        first, second: per-scene numbers (N,) and (M,); NaN where a scene has none.
        paired: scene i is the same in both: the shorter list's scenes are compared one by one. Otherwise both means are
            drawn independently.
    """
    if paired:
        count = min(len(first), len(second))
        return interval(second[:count] - first[:count], seed)
    first, second = (np.asarray(values, dtype=np.float64) for values in (first, second))
    first, second = first[np.isfinite(first)], second[np.isfinite(second)]
    if len(first) == 0 or len(second) == 0:
        return {"mean": None, "low": None, "high": None, "scenes": 0}
    rng = np.random.default_rng(seed)
    means = [v[rng.integers(0, len(v), (BOOTSTRAP_DRAWS, len(v)))].mean(1) for v in (first, second)]
    low, high = np.percentile(means[1] - means[0], [2.5, 97.5])
    scenes = min(len(first), len(second))
    return {"mean": float(second.mean() - first.mean()), "low": float(low), "high": float(high), "scenes": scenes}


def compare(first: dict[str, Any], second: dict[str, Any], names: tuple[str, str] = ("first", "second")) -> str:
    """Markdown table of the changes from ``first`` to ``second``, for every method that both hold.

    A difference whose 95 % interval does not contain 0 is bold. Distances of feature sets have no interval and stand
    as they were measured, first and second.

    Raises:
        ValueError: if the records were made under different conditions or share no method.
    """
    check_comparable(first, second)
    methods = [name for name in first["methods"] if name in second["methods"]]
    if not methods:
        raise ValueError("the two results share no method; evaluate both with the same --steps")
    paired = same_scenes(first, second)
    table = table_of(first)
    heads = [head for head, _ in (*table.columns.values(), *table.distances.values())]
    lines = [
        f"### {names[1]} against {names[0]}: {first['protocol']['name']}",
        "",
        "| method | " + " | ".join(heads) + " |",
        "|---|" + "---:|" * len(heads),
    ]
    for name in methods:
        one, two = (record["methods"][name] for record in (first, second))
        cells = []
        for key, (_, digits) in table.columns.items():
            change = difference(array(one["per_scene"][key]), array(two["per_scene"][key]), paired)
            cells.append(_marked(change, digits))
        for key, (_, form) in table.distances.items():
            both = [number(method["distances"], key, form) for method in (one, two)]
            cells.append("-" if "-" in both else " to ".join(both))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", _caption(first, second, names, paired, table.items)]
    return "\n".join(lines) + "\n"


def _marked(change: dict[str, Any], digits: int) -> str:
    text = cell(change, digits, sign="+")
    sure = change["mean"] is not None and not change["low"] <= 0 <= change["high"]
    return f"**{text}**" if sure else text


def _caption(first: dict[str, Any], second: dict[str, Any], names: tuple[str, str], paired: bool, items: str) -> str:
    counts = [record["scenes"]["count"] for record in (first, second)]
    families = [record["scenes"]["family"] for record in (first, second)]
    if paired:
        how = f"paired over the {min(counts)} {items} that both hold ({families[0]})"
    else:
        how = f"unpaired, since the {items} differ ({counts[0]} of {families[0]}, {counts[1]} of {families[1]})"
    weights = [(record.get("weights") or {}) for record in (first, second)]
    made = "; ".join(
        f"{name}: weights {item.get('name', 'none')} {item.get('sha256', '')[:12]}".rstrip()
        for name, item in zip(names, weights, strict=True)
    )
    return (
        f"Differences {names[1]} minus {names[0]}, {how}, with half the 95 % bootstrap interval over {items}; "
        f"bold where that interval does not contain 0. {made}."
    )
