"""Published cases on a capture whose frames are known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latent3d.evaluation.command import evaluate_command
from latent3d.evaluation.published import PublishedCases, PublishedScenes
from latent3d.geometry.cameras import Cameras
from latent3d.io.camera_files import write_cameras

SIZE = 32


@pytest.fixture
def captures(tmp_path) -> Path:
    """Two clips of 6 frames; frame i is grey of level 40 i and was taken at x = i."""
    for name in ("aaa", "bbb"):
        folder = tmp_path / "clips" / name
        folder.mkdir(parents=True)
        names = [f"{i}.png" for i in range(6)]
        for i, file in enumerate(names):
            Image.fromarray(np.full((SIZE, SIZE, 3), 40 * i, np.uint8)).save(folder / file)
        c2w = torch.eye(4).repeat(6, 1, 1)
        c2w[:, 0, 3] = torch.arange(6.0)
        write_cameras(folder / "cameras.json", Cameras.from_fov(c2w, 60.0, SIZE, SIZE), names)
    return tmp_path / "clips"


def _index(path: Path, content: dict) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_references_and_targets_are_the_frames_of_the_file(captures, tmp_path):
    # A target may be a context frame (pixelSplat's file has such), frames need no order, other scenes are left out.
    content = {"zzz": {"context": [0, 1], "target": [2]}, "bbb": {"context": [1, 4], "target": [3, 2, 4]}, "aaa": None}
    source = PublishedScenes(captures, _index(tmp_path / "index.json", content), size=(SIZE, SIZE))
    assert len(source) == 1
    assert source.describe()["without_pictures"] == 1
    clip, protocol = source.scene(0), source.protocol.for_scene(0)
    shown, asked = protocol.split(clip)
    level = [40 / 255 * i for i in (1, 4, 3, 2, 4)]
    found = torch.cat([shown.images, asked.images]).mean((1, 2, 3)).tolist()
    assert found == pytest.approx(level, abs=1e-3)
    assert asked.cameras.centers[:, 0].tolist() == pytest.approx([2, 1, 3])
    assert protocol.interpolates
    ordered = protocol.in_path_order(shown.images, asked.images).mean((1, 2, 3))
    assert (ordered.diff() >= 0).all()


def test_cases_beyond_the_clip_and_strange_files_are_refused(captures, tmp_path):
    beyond = _index(tmp_path / "a.json", {"aaa": {"context": [0, 9], "target": [3]}})
    with pytest.raises(ValueError, match="up to frame 9"):
        PublishedScenes(captures, beyond).scene(0)
    strangers = _index(tmp_path / "b.json", {"zzz": {"context": [0, 9], "target": [3]}})
    with pytest.raises(ValueError, match="names none of the 2 captures"):
        PublishedScenes(captures, strangers)
    with pytest.raises(ValueError, match="no test case"):
        PublishedCases.of(_index(tmp_path / "c.json", {"aaa": None}), {"aaa"})
    with pytest.raises(ValueError, match="--data"):
        evaluate_command(index=beyond, baselines_only=True, out=tmp_path / "out", progress=False)


def test_the_command_runs_published_cases(captures, tmp_path):
    content = {name: {"context": [0, 5], "target": [1, 2, 4]} for name in ("aaa", "bbb")}
    index = _index(tmp_path / "pairs.json", content)
    record = evaluate_command(out=tmp_path / "out", data=captures, index=index, baselines_only=True, progress=False)[0]
    assert record["protocol"]["name"] == "pairs"
    assert record["scenes"]["count"] == 2
    # Grey pictures: the blend is as good as rounding allows, the nearer reference is not.
    scores = {name: method["scores"]["psnr"]["mean"] for name, method in record["methods"].items()}
    assert scores["blend"] > 50 > scores["nearest_reference"]
    assert (tmp_path / "out" / "pairs_clips.md").is_file()


def test_the_published_files_are_read_in_full(shared_data):
    file = shared_data("evaluation_indices_re10k_acid") / "evaluation_index_re10k.json"
    cases = PublishedCases.of(file, {"5aca87f95a9412c6"})
    assert cases.frames(0) == [58, 84, 102, 129, 133]
    assert cases.for_scene(0).references == (0, 4)
    assert cases.without_pictures > 5000
