import json
import math

import numpy as np
import pytest

from latent3d.evaluation.records import compare, interval, plain, read_record


def test_interval_of_a_constant_and_of_noise():
    assert interval(np.full(10, 3.0)) == {"mean": 3.0, "low": 3.0, "high": 3.0, "scenes": 10}
    values = np.random.default_rng(0).normal(5, 2, 400)
    score = interval(values)
    # The normal approximation of the same interval.
    half = 1.96 * values.std(ddof=1) / 20
    assert score["low"] == pytest.approx(values.mean() - half, abs=0.03)
    assert score["high"] == pytest.approx(values.mean() + half, abs=0.03)
    assert interval(values) == score


def test_scenes_without_a_number_are_left_out():
    assert interval(np.array([1.0, math.nan, 3.0, math.inf]))["scenes"] == 2
    assert interval(np.array([math.nan]))["mean"] is None


def test_plain_is_strict_json():
    value = {"a": (1, np.float32(2.5)), "b": {"c": math.nan, 3: np.int64(4)}}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {"a": [1, 2.5], "b": {"c": None, "3": 4}}


def _record(psnr, extractor="random_conv"):
    scores = {key: [0.5, 0.5] for key in ("psnr_seen", "psnr_unseen", "ssim", "sharpness_seen", "abs_rel", "tsed")}
    columns = scores | {"psnr": psnr, "tsed_matches": [None, 20.0]}
    return {"metric_version": 1, "extractor": {"name": extractor}, "methods": {"splats@1": {"per_scene": columns}}}


def test_compare_pairs_scenes_and_refuses_other_conditions():
    text = compare(_record([20.0, 30.0]), _record([21.0, 31.0]))
    assert "| splats@1 | +1.00 ± 0.00 |" in text
    with pytest.raises(ValueError, match="extractor"):
        compare(_record([20.0, 30.0]), _record([21.0, 31.0], extractor="clip"))


def test_records_that_are_none_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="latent3d evaluate"):
        read_record(tmp_path / "no.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        read_record(tmp_path / "bad.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="not a results file"):
        read_record(tmp_path / "list.json")
