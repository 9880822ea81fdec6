"""``latent3d compare`` on records that ``latent3d evaluate`` wrote."""

import json


def test_two_results_and_what_is_none(run, tmp_path):
    for folder, scenes in (("a", 1), ("b", 2)):
        code, _, err = run(
            "evaluate", "--baselines-only", "--scenes", scenes, "--family", "rooms", "--views", 3,
            "--protocol", "ggs_two_ref", "ggs_one_ref", "--split", "val", "--out", tmp_path / folder,
        )  # fmt: skip
        assert code == 0, err
    one, two = (tmp_path / folder / "ggs_two_ref_rooms.json" for folder in "ab")
    code, out, err = run("compare", one, two, "--out", tmp_path / "c.md")
    assert code == 0, err
    assert "b/ggs_two_ref_rooms against a/ggs_two_ref_rooms" in out
    assert "| flow_warp | +0.00 ± 0.00 |" in out
    assert (tmp_path / "c.md").read_text() == out
    code, _, err = run("compare", one, tmp_path / "a/ggs_one_ref_rooms.json", "--out", tmp_path / "d.md")
    assert code == 2
    assert "other protocols" in err
    assert not (tmp_path / "d.md").exists()
    record = json.loads(one.read_text()) | {"metric_version": 1}
    (tmp_path / "old.json").write_text(json.dumps(record))
    assert run("compare", tmp_path / "old.json", two)[0] == 2
    (tmp_path / "no.json").write_text(json.dumps({"loss": 1}))
    code, _, err = run("compare", one, tmp_path / "no.json")
    assert (code, "not a results file" in err) == (2, True)
    assert run("compare", one, tmp_path / "missing.json")[0] == 2
