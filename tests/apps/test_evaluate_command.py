"""``latent3d evaluate`` on a training run, a bank and a capture."""

import json

import numpy as np
import torch
from PIL import Image

from latent3d.geometry.cameras import Cameras
from latent3d.io.camera_files import write_cameras
from latent3d.presets import ggs_rooms_tiny


def test_a_training_run_is_evaluated_on_a_bank(run, tmp_path):
    size = ggs_rooms_tiny().system.height
    code, _, err = run("train", "ggs_rooms_tiny", "--stage", "vae", "--out", tmp_path / "myrun")
    assert code == 0, err
    bank = tmp_path / "bank"
    code, _, err = run("data", "bank", "--out", bank, "--count", 1, "--views", 4, "--novel", 0, "--size", size)
    assert code == 0, err
    options = ("--data", bank, "--protocol", "ggs_two_ref", "--steps", 1, "--out", tmp_path / "out")
    code, out, err = run("evaluate", tmp_path / "myrun", *options, "--views", 3)
    assert code == 0, err
    assert "results.md" in out
    record = json.loads((tmp_path / "out/ggs_two_ref_bank.json").read_text())
    assert record["weights"]["name"] == "myrun"
    assert record["scenes"]["source"] == "bank"
    assert {"blend", "homography_warp", "flow_warp", "splats@1"} <= set(record["methods"])
    code, _, err = run("evaluate", tmp_path / "myrun", *options, "--views", 9)
    assert (code, "have 4 views, not 9" in err) == (2, True)


def test_captures_are_scaled_by_their_references_unless_told_otherwise(run, tmp_path):
    folder = tmp_path / "place"
    folder.mkdir()
    names = [f"{i}.png" for i in range(3)]
    noise = np.random.default_rng(0).integers(0, 256, (40, 140, 3), np.uint8)
    wide = np.asarray(Image.fromarray(noise).resize((420, 120), Image.Resampling.BICUBIC))
    for i, name in enumerate(names):  # a wall that moves 12 pixels per step: depth 8 at a focal length of 96
        Image.fromarray(wide[:, 12 * i : 12 * i + 120]).save(folder / name)
    c2w = torch.eye(4).repeat(3, 1, 1)
    c2w[:, 0, 3] = torch.arange(3.0)
    k = torch.tensor([[96.0, 0, 60], [0, 96, 60], [0, 0, 1]]).repeat(3, 1, 1)
    write_cameras(folder / "cameras.json", Cameras.from_c2w(c2w, k, 120, 120), names)
    options = ("--baselines-only", "--data", folder, "--protocol", "ggs_two_ref", "--views", 3)
    for name, extra in (("auto", ()), ("given", ("--scale", 0.5))):
        code, _, err = run("evaluate", *options, *extra, "--out", tmp_path / name)
        assert code == 0, err
    found, given = (json.loads((tmp_path / n / "ggs_two_ref_place.json").read_text()) for n in ("auto", "given"))
    assert found["scale"]["scenes"] == 1
    assert abs(found["scale"]["factors"][0] - 0.25) < 0.01
    assert given["scale"] | {"by": ""} == {"median_depth": None, "scenes": 0, "factors": None, "by": ""}
    # A homography meets the wall half way.
    scores = {name: method["scores"]["psnr"]["mean"] for name, method in found["methods"].items()}
    assert scores["homography_warp"] > scores["blend"] + 5
    assert run("evaluate", *options, "--scale", -1, "--out", tmp_path / "bad")[0] == 2
    assert run("evaluate", "--index", folder / "cameras.json", "--baselines-only", "--out", tmp_path / "bad")[0] == 2
