"""Two records side by side: paired where scenes are the same, unpaired where not, refused where figures differ."""

import copy

import numpy as np
import pytest

from latent3d.evaluation.comparison import compare, difference, same_scenes
from latent3d.evaluation.records import COLUMNS


def _record(psnr, family="rooms", **changes):
    n = len(psnr)
    columns = {key: [None] * n for key in COLUMNS} | {"psnr": psnr, "ssim": [0.5] * n}
    method = {"per_scene": columns, "distances": {"FD_random_conv": 0.125}}
    record = {
        "metric_version": 2,
        "protocol": {"name": "ggs_one_ref", "views": 8},
        "scenes": {"source": "worlds", "family": family, "indices": f"0..{n - 1}", "count": n, "targets": 7 * n},
        "first_scene_sha256": family,
        "resolution": [128, 128],
        "extractor": {"name": "random_conv", "sha256": "0" * 64, "resize_rule": "none"},
        "tsed": {"headline": 2.0},
        "depth": {"alignment": "none"},
        "seen": {"tolerance": 0.03, "share": 0.5},
        "weights": {"name": "ggs_rooms", "sha256": "a" * 64},
        "methods": {"truth": {"per_scene": columns, "distances": None}, "splats@1": method},
    }
    return record | changes


def test_a_shift_of_every_scene_is_certain_when_paired_and_not_otherwise():
    values = [10.0, 20.0, 30.0, 40.0]
    text = compare(_record(values), _record([value + 1 for value in values]), ("old", "new"))
    assert "| splats@1 | **+1.00 ± 0.00** |" in text
    assert "0.125 to 0.125" in text
    assert "paired over the 4 scenes" in text
    assert "### new against old: ggs_one_ref" in text
    text = compare(_record(values), _record([value + 1 for value in values], family="other"))
    row = next(line for line in text.splitlines() if line.startswith("| splats@1"))
    assert "| +1.00 ± " in row
    assert "**" not in row
    assert "unpaired" in text


def test_the_longer_record_is_cut_to_the_scenes_of_the_shorter():
    first, second = _record([10.0, 20.0]), _record([11.0, 21.0, 99.0])
    assert same_scenes(first, second)
    assert "**+1.00 ± 0.00**" in compare(first, second)
    assert "over the 2 scenes" in compare(first, second)


def test_unpaired_intervals_are_those_of_two_independent_means():
    rng = np.random.default_rng(0)
    one, two = rng.normal(0, 2, 300), rng.normal(1, 1, 200)
    found = difference(one, two, paired=False)
    half = 1.96 * (one.var(ddof=1) / 300 + two.var(ddof=1) / 200) ** 0.5
    assert found["mean"] == pytest.approx(two.mean() - one.mean())
    assert found["high"] - found["low"] == pytest.approx(2 * half, rel=0.1)
    assert difference(np.array([np.nan]), two, paired=False)["mean"] is None
    # Pairs in which one scene has no number do not count.
    assert difference(np.array([1.0, np.nan, 2.0]), np.array([2.0, 5.0, 3.0]), paired=True)["scenes"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric_version": 3}, "versions 2 and 3 of the metrics"),
        ({"protocol": {"name": "ggs_two_ref", "views": 8}}, "'ggs_one_ref' and 'ggs_two_ref'"),
        ({"protocol": {"name": "ggs_one_ref", "views": 4}}, "other views"),
        ({"extractor": {"name": "clip", "sha256": "1" * 64, "resize_rule": "none"}}, "random_conv and clip"),
        ({"resolution": [64, 64]}, "resolution"),
        ({"seen": {"tolerance": 0.1, "share": 0.5}}, "other pixels as seen"),
        ({"methods": {}}, "no method"),
    ],
)
def test_what_does_not_compare_is_named(changes, message):
    first = _record([1.0, 2.0])
    with pytest.raises(ValueError, match=message):
        compare(first, copy.deepcopy(first) | changes)
