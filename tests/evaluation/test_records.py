import json
import math

import numpy as np
import pytest

from latent3d.evaluation.records import interval, plain, read_record


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


def test_records_that_are_none_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="latent3d evaluate"):
        read_record(tmp_path / "no.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        read_record(tmp_path / "bad.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="not a results file"):
        read_record(tmp_path / "list.json")
