"""``latent3d data objects`` and ``latent3d data render``: from the command line to files and back."""

from __future__ import annotations

import pytest

from latent3d.data.object_bank import ObjectBank


def test_a_bank_of_procedural_objects(run, tmp_path):
    bank = tmp_path / "bank"
    options = ("--out", bank, "--labels", "chair,table", "--views", 3, "--size", 32, "--workers", 1, "--split", "val")
    code, out, err = run("data", "objects", *options, "-n", 2, "--first", 4)
    assert code == 0, err
    assert f"--bank {bank}" in out
    assert ObjectBank(bank).names == ["chair/val/4", "table/val/5"]
    assert run("data", "objects", *options, "-n", 3, "--first", 4)[0] == 0
    found = ObjectBank(bank)
    assert len(found) == 3
    assert [found.label_names[label] for label in found.labels] == ["chair", "table", "chair"]
    assert all("chair" in text or "stool" in text for text in found.captions[0])
    assert 0.02 < found.views(0).alphas.mean() < 0.6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-n", 0), "at least one object"),
        (("--size", 8), "--size from 16"),
        (("--labels", "chair,house"), "no object class 'house'; choose from chair"),
        (("--first", -1), "--first of 0"),
    ],
)
def test_bad_options_write_nothing(run, tmp_path, options, words):
    code, _, err = run("data", "objects", "--out", tmp_path / "none", *options)
    assert code == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "none").exists()
