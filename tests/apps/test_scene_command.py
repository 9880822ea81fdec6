"""The main job with a tiny model of random weights: every file, read back; the same in Python."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image

import latent3d
from latent3d.io.camera_files import read_cameras
from latent3d.io.cards import read_card
from latent3d.io.images import load_image
from latent3d.io.splat_files import read_splats
from latent3d.io.video import read_video
from latent3d.weights import weights_hash


@pytest.fixture(scope="module")
def made(weights, picture, tmp_path_factory):
    """A folder that the command wrote."""
    from latent3d.apps.cli import main

    out = tmp_path_factory.mktemp("made") / "scene"
    arguments = ["scene", picture, "--weights", weights, "--out", out, "--steps", 2, "--views", 4, "--seed", 5]
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == 0
    return out


def test_all_files_are_there_and_nothing_else(made):
    assert sorted(path.name for path in made.iterdir()) == [
        "cameras.json", "card.json", "depth", "flythrough.mp4", "scene.ply", "viewer.html", "views",
    ]  # fmt: skip
    assert sorted(path.name for path in made.parent.iterdir()) == ["scene"]
    assert len(list((made / "views").iterdir())) == 8
    assert len(list((made / "depth").iterdir())) == 5


def test_splats_film_and_cameras(made):
    gaussians, _ = read_splats(made / "scene.ply")
    assert len(gaussians) > 100
    film, rate = read_video(made / "flythrough.mp4")
    assert film.shape[1:] == (3, 256, 256)
    assert rate == 24
    file = read_cameras(made / "cameras.json")
    assert file.is_reference == (True, False, False, False)
    assert torch.allclose(file.cameras.c2w[0], torch.eye(4), atol=1e-6)
    assert (file.cameras.height, file.cameras.width) == (32, 32)
    for name in file.images:
        assert load_image(made / name).image.shape == (3, 32, 32)


def test_reference_view_is_the_picture(made, picture):
    """The first view is the given picture, cut and resized; nothing else happened to it."""
    with Image.open(picture) as source:
        expected = np.asarray(source.convert("RGB").crop((10, 0, 50, 40)).resize((32, 32), Image.Resampling.BILINEAR))
    written = np.asarray(Image.open(made / "views/view_00.png"))
    assert np.abs(written.astype(int) - expected).mean() < 2


def test_depth_is_raw_and_drawn(made):
    with np.load(made / "depth/depth.npz") as arrays:
        assert arrays["depth"].shape == (4, 1, 32, 32)
        assert arrays["alpha"].shape == (4, 1, 32, 32)
        assert np.isfinite(arrays["depth"]).all()
        assert arrays["alpha"].max() <= 1


def test_card_says_what_was_done(made, weights):
    card = read_card(made / "card.json")
    assert card["seed"] == 5
    assert card["steps"] == 2
    assert card["weights"]["sha256"] == weights_hash(weights)
    assert card["weights"]["licence"] == "Apache-2.0"
    assert card["versions"]["latent3d"] == latent3d.__version__
    assert card["inputs"][0]["file"] == "photo.jpg"
    assert any("Cut from 60 x 40" in note for note in card["inputs"][0]["notes"])
    assert any("60.0 degrees, the default" in note for note in card["cameras"])
    assert set(card["seconds"]) >= {"inputs", "sampling", "splats", "film", "page"}
    # No folder of this machine is in it.
    assert str(made.parent) not in json.dumps(card)


def test_three_lines_of_python_give_the_same_scene(made, weights, picture, tmp_path):
    model = latent3d.GGS.from_pretrained(weights)
    scene = model.sample(picture, steps=2, seed=5, num_views=4)
    scene.save(tmp_path / "again")
    assert (tmp_path / "again/scene.ply").read_bytes() == (made / "scene.ply").read_bytes()
    other = model.sample(picture, steps=2, seed=6, num_views=4)
    assert not torch.equal(other.output.images[1:], scene.output.images[1:])


def test_own_cameras_and_views_are_inputs_again(made, weights, run, tmp_path):
    code, out, err = run(
        "scene", made / "views/view_00.png", made / "views/view_02.png", "--cameras", made / "cameras.json",
        "--weights", weights, "--steps", 1, "--out", tmp_path / "again",
    )  # fmt: skip
    assert code == 0, err
    assert "wrote" in out
    first, second = read_cameras(made / "cameras.json"), read_cameras(tmp_path / "again/cameras.json")
    assert second.is_reference == (True, True, False, False)
    assert torch.allclose(second.cameras.c2w, first.cameras.c2w[[0, 2, 1, 3]], atol=1e-5)


def test_render_flies_through_the_scene(made, run, tmp_path):
    code, _, err = run(
        "render", made, "--trajectory", "dolly", "--frames", 5, "--side", 32, "--out", tmp_path / "d.mp4"
    )
    assert code == 0, err
    film, _ = read_video(tmp_path / "d.mp4")
    assert film.shape == (5, 3, 32, 32)
    code, _, err = run("render", made / "scene.ply", "--cameras", made / "cameras.json", "--out", tmp_path / "d.mp4")
    assert code == 2
    assert "add --overwrite" in err
    code, _, err = run("render", made / "scene.ply", "--trajectory", "loop", "--out", tmp_path / "e.mp4")
    assert code == 2
    assert "no trajectory 'loop'" in err


def test_view_serves_the_scene_until_ctrl_c(made):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from latent3d.apps.cli import main; main()", "view", str(made)]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert f"http://localhost:{port}" in process.stdout.readline()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for attempt in range(60):  # the server answers soon after it says where it is
        try:
            with opener.open(f"http://127.0.0.1:{port}", timeout=30) as reply:
                assert b"<html" in reply.read()
            break
        except OSError:
            assert attempt < 59
            time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "closed" in out
    assert "Traceback" not in err


def test_an_earlier_result_is_kept_unless_asked(made, weights, picture, run):
    before = (made / "card.json").read_bytes()
    code, _, err = run("scene", picture, "--weights", weights, "--out", made)
    assert code == 2
    assert "--overwrite" in err
    assert (made / "card.json").read_bytes() == before
