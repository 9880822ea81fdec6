"""Everything a person may get wrong: one sentence with file and remedy, exit code 2, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from latent3d.apps.errors import run_safely, sentence
from latent3d.geometry.cameras import Cameras
from latent3d.io.camera_files import write_cameras
from latent3d.presets import ggs_rooms_tiny
from latent3d.weights import save_weights


def png_of_size(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def refused(result: tuple[int, str, str], *words: str) -> None:
    """Exit code 2, one line that holds the words, no trace."""
    code, out, err = result
    lines = [line for line in err.splitlines() if line.startswith("latent3d: error:")]
    assert code == 2, (out, err)
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert len(lines[0]) < 500
    for word in words:
        assert word in lines[0]


@pytest.fixture
def scene(run, weights, tmp_path):
    """Run the main job with short settings; afterwards nothing may be in the output's place."""
    (tmp_path / "place").mkdir()

    def call(*arguments: object, out: Path | None = None) -> tuple[int, str, str]:
        given = ["--weights", weights] if "--weights" not in arguments else []
        return run("scene", *arguments, *given, "--steps", 1, "--out", out or tmp_path / "place/out")

    yield call
    assert list((tmp_path / "place").iterdir()) == []


def test_missing_image(scene, tmp_path):
    refused(scene(tmp_path / "none.jpg"), "none.jpg", "check the name")


def test_no_image(run):
    refused(run("scene"), "give an image")


def test_unreadable_image(scene, picture, tmp_path, monkeypatch):
    if os.geteuid() != 0:
        path = tmp_path / "locked.jpg"
        path.write_bytes(picture.read_bytes())
        path.chmod(0)
    else:  # root reads everything: let the operating system's answer come from the open call
        path = picture

        def locked(*_args, **_options):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr(Image, "open", locked)
    refused(scene(path), path.name, "permission denied")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"plain text", "not an image"),
        (b"", "not an image"),
        (png_of_size(1), "1 x 1 pixels"),
        (png_of_size(60_000), "million pixels"),
        (png_of_size(64), "damaged or cut short"),
    ],
    ids=["text", "empty", "one pixel", "bomb", "no pixels"],
)
def test_bad_image(scene, tmp_path, content, words):
    (tmp_path / "odd.png").write_bytes(content)
    refused(scene(tmp_path / "odd.png"), "odd.png", words)


def test_truncated_photo(scene, picture, tmp_path):
    (tmp_path / "half.jpg").write_bytes(picture.read_bytes()[:700])
    refused(scene(tmp_path / "half.jpg"), "half.jpg", "damaged or cut short")


def camera_file(folder: Path, change=None, n: int = 3) -> Path:
    write_cameras(folder / "cameras.json", Cameras.from_fov(torch.eye(4).repeat(n, 1, 1), 60.0, 40, 60))
    content = json.loads((folder / "cameras.json").read_text())
    if change is not None:
        change(content["frames"][1])
    (folder / "cameras.json").write_text(json.dumps(content))
    return folder / "cameras.json"


def not_a_number(frame: dict) -> None:
    frame["camera_to_world"][0][3] = float("nan")


def sheared(frame: dict) -> None:
    frame["camera_to_world"][0][1] = 0.5


def mirrored(frame: dict) -> None:
    frame["camera_to_world"][0][0] = -1.0


@pytest.mark.parametrize(
    ("change", "words"), [(not_a_number, "NaN"), (sheared, "not a rotation"), (mirrored, "mirror")]
)
def test_bad_cameras(scene, picture, tmp_path, change, words):
    refused(scene(picture, "--cameras", camera_file(tmp_path, change)), "cameras.json", words)


def test_more_references_than_views(scene, picture, tmp_path):
    path = camera_file(tmp_path, n=2)
    refused(scene(picture, picture, picture, "--cameras", path), "3 images", "only 2 cameras")
    refused(scene(picture, picture, "--cameras", path), "leaves no view to generate")
    refused(scene(picture, picture), "add --cameras FILE")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--trajectory", "orbitt"), "did you mean 'orbit'"),
        (("--fov", "nan"), "field of view"),
        (("--views", "1"), "views"),
        (("--seed", "-1"), "seed"),
        (("--device", "cuda:77"), "device"),
        (("--device", "toaster"), "device"),
    ],
)
def test_bad_options(scene, picture, options, words):
    refused(scene(picture, *options), words)


def test_bad_steps(run, picture, weights, tmp_path):
    refused(run("scene", picture, "--weights", weights, "--steps", 0, "--out", tmp_path / "out"), "steps")


def test_unwritable_output(scene, picture, tmp_path):
    if not Path("/proc/version").exists():
        pytest.skip("needs a file system that refuses writes even to root (/proc)")
    refused(scene(picture, out=Path("/proc/latent3d")), "/proc", "choose")


def test_output_that_is_a_file(scene, picture, tmp_path):
    (tmp_path / "taken").write_text("mine")
    refused(scene(picture, out=tmp_path / "taken"), "is a file", "--out")
    assert (tmp_path / "taken").read_text() == "mine"


def test_output_with_foreign_files(scene, picture, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    refused(scene(picture, "--overwrite", out=tmp_path / "mine"), "did not write")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("writer", ["write_splats", "write_video", "write_viewer", "write_card"])
def test_full_disk(scene, picture, monkeypatch, writer):
    """The disk fills up in any stage of the writing; /dev/full gives the operating system's own answer."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, the device that is always full")

    def full(path: Path, *_args, **_options):
        path.write_bytes(b"half a file")
        with open("/dev/full", "wb") as file:
            file.write(bytes(10_000))

    monkeypatch.setattr(f"latent3d.apps.scene.{writer}", full)
    refused(scene(picture, "--views", 2), "disk is full", "--out")


def copy_of(folder: Path, target: Path) -> Path:
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_truncated_weights(scene, picture, weights, tmp_path):
    bad = copy_of(weights, tmp_path / "bad")
    file = next(bad.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])
    refused(scene(picture, "--weights", bad), file.name, "again")


def test_weights_of_another_shape(scene, picture, weights, tmp_path):
    config = ggs_rooms_tiny().system
    state = config.build().state_dict()
    name = next(key for key, value in state.items() if value.ndim == 4)
    state[name] = state[name][:, :, :1]
    bad = save_weights(tmp_path / "bad", state, config)
    refused(scene(picture, "--weights", bad), "not fit this model", name)
    del state[name]
    bad = save_weights(tmp_path / "bad", state, config)
    refused(scene(picture, "--weights", bad), "missing", name)


def test_altered_weights(scene, picture, weights, tmp_path):
    bad = copy_of(weights, tmp_path / "bad")
    file = next(bad.glob("*.safetensors"))
    tensors = load_file(file)
    first = next(iter(tensors))
    tensors[first] = tensors[first] + 1
    save_file(tensors, file)
    refused(scene(picture, "--weights", bad), file.name)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 99}', '{"format": 1, "config": {"type": "Other"}}'])
def test_weights_with_a_bad_configuration(scene, picture, weights, tmp_path, text):
    bad = copy_of(weights, tmp_path / "bad")
    (bad / "config.json").write_text(text)
    refused(scene(picture, "--weights", bad), str(bad))


def test_missing_weights(scene, picture, tmp_path):
    refused(scene(picture, "--weights", tmp_path / "none"), "no weights folder")
    refused(scene(picture, "--weights", "nonesuch"), "nonesuch")
    (tmp_path / "empty").mkdir()
    refused(scene(picture, "--weights", tmp_path / "empty"), "holds no weights")


def test_bad_scenes_for_view_and_render(run, tmp_path):
    refused(run("view", tmp_path / "none"), "there is no scene")
    refused(run("view", tmp_path), "holds no scene.ply")
    (tmp_path / "scene.ply").write_bytes(b"ply\nrubbish")
    refused(run("view", tmp_path), "scene.ply")
    refused(run("render", tmp_path / "scene.ply", "--out", tmp_path / "a.mp4"), "scene.ply")
    refused(run("render", tmp_path, "--out", tmp_path / "a.gif"), "ends in .mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.ply"]


def test_debug_shows_the_trace(run, tmp_path):
    code, _, err = run("scene", tmp_path / "none.jpg", "--out", tmp_path / "out", "--debug")
    assert code == 2
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("latent3d: error:")


def test_our_own_mistakes_keep_their_trace():
    def broken() -> None:
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError):
        run_safely(broken)


def test_sentences():
    assert sentence(ValueError("one\n  two")) == "one two"
    assert "disk is full" in sentence(OSError(errno.ENOSPC, "No space left on device", "a/b"))
    assert "'a/b'" in sentence(OSError(errno.ENOSPC, "No space left on device", "a/b"))
    assert "memory" in sentence(MemoryError())


@pytest.mark.skipif(os.name == "nt", reason="SIGINT is sent as on POSIX")
@pytest.mark.parametrize(("stage", "steps"), [(b"sampling", 1000), (b"writing", 1)], ids=["sampling", "writing"])
def test_ctrl_c_leaves_nothing(weights, picture, tmp_path, stage, steps):
    out = tmp_path / "place/out"
    command = [sys.executable, "-c", "from latent3d.apps.cli import main; main()", "scene", str(picture)]
    command += ["--weights", str(weights), "--out", str(out), "--steps", str(steps)]
    # pytest-xdist and some shells start their children with SIGINT ignored; a terminal does not.
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    seen = b""
    deadline = time.monotonic() + 120
    while stage not in seen and time.monotonic() < deadline and process.poll() is None:
        seen += os.read(process.stderr.fileno(), 4096)
    assert stage in seen, seen
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in seen + rest
    assert b"interrupted" in rest
    assert list(tmp_path.iterdir()) == []


def test_guidance_of_weights_that_cannot_be_guided(scene, picture):
    refused(scene(picture, "--guidance", 2), "trained with its references always", "system.reference_dropout")
    refused(scene(picture, "--guidance", -1), "guidance is a scale of 0 or more")
