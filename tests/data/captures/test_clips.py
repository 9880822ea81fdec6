"""Frames as the papers choose them, published indices, and banks made of captures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.captures.places import poses, write_transforms
from latent3d.data.captures.bank import CaptureClips, at_median_depth, capture_bank
from latent3d.data.captures.clips import ClipFrames, EvaluationIndex, read_evaluation_index
from latent3d.data.captures.matches import match_pairs
from latent3d.data.captures.reading import read_capture
from latent3d.data.captures.scale import measure
from latent3d.data.shards import BankStream
from latent3d.data.view_sampling import ViewSampling


@given(
    st.integers(0, 1000), st.integers(1, 300), st.integers(1, 10), st.integers(0, 4), st.integers(1, 100),
    st.integers(1, 100), st.sampled_from(["stride", "gap"]),
)  # fmt: skip
def test_chosen_frames(seed, frames, views, extra, stride, gap, mode):
    choice = ClipFrames(mode=mode, stride=stride, gap=gap, min_gap=min(8, gap))
    rng = np.random.default_rng(seed)
    if frames < views + extra:
        with pytest.raises(ValueError, match="cannot be cut"):
            choice.choose(rng, frames, views, extra)
        return
    chosen = choice.choose(rng, frames, views, extra)
    path = chosen[:views]
    assert len(chosen) == len(set(chosen.tolist())) == views + extra
    assert 0 <= chosen.min() <= chosen.max() < frames
    assert (np.diff(path) > 0).all()
    if views > 1 and mode == "stride":
        assert set(np.diff(path)) == {min(stride, (frames - 1) // (views - 1))}
    if views > 1 and mode == "gap":
        assert path[-1] - path[0] <= max(gap, views + extra - 1)
        assert ((chosen >= path[0]) & (chosen <= path[-1])).all()


def test_gaps_take_all_lengths():
    choice, rng = ClipFrames(gap=20, min_gap=10), np.random.default_rng(0)
    spans = {int(np.ptp(choice.choose(rng, 200, 4))) for _ in range(300)}
    assert spans == set(range(10, 21))


def test_choices_that_cannot_be():
    for wrong in ({"mode": "random"}, {"stride": 0}, {"gap": 3, "min_gap": 5}):
        with pytest.raises(ValueError, match=r"choose|needed"):
            ClipFrames(**wrong)


def test_published_indices(tmp_path, shared_data):
    folder = shared_data("evaluation_indices_re10k_acid")
    cases, without = read_evaluation_index(folder / "evaluation_index_re10k.json")
    assert cases[0] == EvaluationIndex("5aca87f95a9412c6", (58, 133), (84, 102, 129))
    content = json.loads((folder / "evaluation_index_re10k.json").read_text())
    assert (len(cases), without) == (
        sum(v is not None for v in content.values()),
        sum(v is None for v in content.values()),
    )
    folder = shared_data("evaluation_indices_dl3dv")
    cases, without = read_evaluation_index(folder / "re10k" / "re10k_extra_latentsplat.json")
    assert cases[0] == EvaluationIndex("5aca87f95a9412c6", (58, 133), (13, 135, 141))
    assert without > 0
    for count in (3, 4, 5, 6, 7):
        cases, _ = read_evaluation_index(folder / "dl3dv" / f"dl3dv_ctx_{count}v_tgt_56v.json")
        assert {(len(case.context), len(case.target)) for case in cases} == {(count, 56)}


@pytest.mark.parametrize(
    "content",
    [
        "[]", "{}", '{"a": null}', '{"a": 3}', '{"a": [3]}', '{"a": {"context": [1, 2]}}', "{",
        '{"a": {"context": [1, 1], "target": [2]}}', '{"a": {"context": [1, -1], "target": [2]}}',
        '{"a": {"context": [1, 2], "target": []}}', '{"a": {"context": [1.5], "target": [1]}}',
        '{"a": {"context": [true], "target": [1]}}',
    ],
)  # fmt: skip
def test_broken_indices(tmp_path, content):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(ValueError, match=r"index\.json"):
        read_evaluation_index(tmp_path / "index.json")


@pytest.fixture(scope="module")
def captures(tmp_path_factory):
    found = []
    for name, count in (("one", 12), ("two", 9)):
        folder = tmp_path_factory.mktemp(name)
        write_transforms(folder, poses(count))
        found.append(read_capture(folder))
    return found


CLIPS = {"num_views": 3, "extra_views": 1, "size": (24, 32), "shard_clips": 2}


def test_a_bank_of_captures_is_read_by_training(tmp_path, captures):
    capture_bank(tmp_path / "bank", captures, count=5, **CLIPS)
    stream = BankStream(tmp_path / "bank", 2, ViewSampling(views=3, novel=1), seed=1)
    assert len(stream) == 5
    assert {name.split("/")[0] for step in range(3) for name in stream.describe(step)} == {"captures"}
    batch = stream.batch(0)
    assert batch.images.shape == (2, 4, 3, 24, 32)
    # Clip 2 of the bank is the clip that the sampler makes: same pictures, cameras relative to the first.
    clip = CaptureClips(tuple(captures), ClipFrames())(
        "captures", "train", 2, num_views=3, height=24, width=32, extra_views=1
    )
    stored = np.load(tmp_path / "bank" / "shard_00001" / "images.npy")[0]
    assert np.abs(stored - clip.images.numpy() * 255).max() <= 0.51
    torch.testing.assert_close(clip.cameras.c2w[0], torch.eye(4), atol=1e-6, rtol=0)
    np.testing.assert_allclose(np.load(tmp_path / "bank" / "shard_00001" / "w2c.npy")[0], clip.cameras.w2c.numpy())


def test_a_bank_goes_on_where_it_stopped(tmp_path, captures):
    capture_bank(tmp_path / "whole", captures, count=6, **CLIPS)
    done = []
    capture_bank(tmp_path / "parts", captures, count=2, **CLIPS)
    capture_bank(tmp_path / "parts", captures, count=6, on_clips=done.append, **CLIPS)
    assert done == [2, 2, 2]
    for shard in ("shard_00000", "shard_00002"):
        for channel in ("images", "w2c", "k", "depths"):
            one, two = (np.load(tmp_path / name / shard / f"{channel}.npy") for name in ("whole", "parts"))
            assert np.array_equal(one, two)
    with pytest.raises(ValueError, match="other captures"):
        capture_bank(tmp_path / "parts", captures[:1], count=6, **CLIPS)
    with pytest.raises(ValueError, match="other frames"):
        capture_bank(tmp_path / "parts", captures, count=6, frames=ClipFrames(gap=9), **CLIPS)


def test_captures_that_cannot_fill_a_bank(tmp_path, captures):
    with pytest.raises(ValueError, match="9 usable frames, fewer than the 8 \\+ 2"):
        capture_bank(tmp_path / "bank", captures, count=2)
    with pytest.raises(ValueError, match="at least one capture"):
        capture_bank(tmp_path / "bank", [], count=2)
    (tmp_path / "worlds").mkdir()
    (tmp_path / "worlds" / "bank.json").write_text("{}")
    with pytest.raises(ValueError, match="not made of captures"):
        capture_bank(tmp_path / "worlds", captures, count=2, **CLIPS)
    assert not (tmp_path / "bank").exists()


def test_a_common_median_depth(captures):
    same = at_median_depth(captures[0], 5.0)
    assert measure(same, match_pairs(same)).depth[1] == pytest.approx(5, rel=1e-3)


def test_commands(tmp_path, capsys):
    from latent3d.apps.cli import main

    write_transforms(tmp_path / "place", poses(6))
    (tmp_path / "place" / "images" / "001.png").write_bytes(b"")

    def run(*arguments: str) -> int:
        with pytest.raises(SystemExit) as end:
            main([str(item) for item in arguments])
        return int(end.value.code or 0)

    assert run("data", "check", tmp_path / "place", "--out", tmp_path / "sheet.png") == 0
    text = capsys.readouterr().out
    assert "5 frames, 1 unusable" in text
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
    assert run("data", "check", tmp_path / "place", "--axes", "opencv") == 0
    assert "--axes opengl" in capsys.readouterr().out
    bank = ["--out", tmp_path / "bank", "--size", 32, "--views", 3, "--novel", 1, "--workers", 1]
    assert run("data", "import", tmp_path / "place", *bank, "-n", 2, "--median-depth", 4) == 0
    assert len(BankStream(tmp_path / "bank", 1)) == 2
    capsys.readouterr()
    assert run("data", "import", tmp_path / "place", *bank, "-n", 3, "--median-depth", 3) == 2
    assert "other captures" in capsys.readouterr().err
    assert run("data", "check", tmp_path / "nowhere") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "check the name" in error
