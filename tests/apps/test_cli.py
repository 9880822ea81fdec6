"""The command itself: quick, quiet, and honest about what the machine has."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import latent3d
from latent3d import optional
from latent3d.apps.cli import main
from latent3d.geometry.trajectories import TRAJECTORIES
from latent3d.io.images import load_image

HEAVY = ("torch", "numpy", "diffusers", "transformers", "viser", "numba", "av", "cv2", "PIL")


def heavy_after(code: str) -> tuple[list[str], str]:
    """Which heavy packages a fresh interpreter has loaded after some code, and what the code printed."""
    tail = f"\nimport sys, json\nprint('\\n@' + json.dumps([n for n in {HEAVY!r} if n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True)
    printed, _, found = done.stdout.rpartition("\n@")
    return json.loads(found), printed + done.stderr


def test_import_is_light_and_silent():
    assert heavy_after("import latent3d") == ([], "")


@pytest.mark.parametrize("arguments", [["--help"], ["scene", "--help"], ["--version"]])
def test_help_is_light(arguments):
    code = (
        "from latent3d.apps.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n    assert not end.code"
    )
    found, printed = heavy_after(code)
    assert found == []
    assert "latent3d" in printed


def test_version(run):
    assert run("--version") == (0, f"latent3d {latent3d.__version__}\n", "")


def test_every_command_has_help(run):
    code, out, _ = run("--help")
    assert code == 0
    for name in ("scene", "view", "render", "evaluate", "train", "data", "worlds", "doctor"):
        assert name in out
        code, text, _ = run(name, "--help")
        assert code == 0
        assert f"latent3d {name}" in text


def test_help_names_all_trajectories(run):
    for command in ("scene", "render"):
        text = " ".join(run(command, "--help")[1].replace("│", " ").split())
        for name in TRAJECTORIES:
            assert name in text


def test_unknown_command_and_option(run):
    assert run("scnee")[0] == 2
    assert run("scene", "a.jpg", "--colour", "red")[0] == 2


def test_the_facade_and_other_names():
    assert latent3d.GGS.__name__ == "GGS"
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = latent3d.Nothing


def test_doctor(run, weights, monkeypatch):
    monkeypatch.setenv("LATENT3D_WEIGHTS", str(weights.parent))
    code, out, _ = run("doctor")
    assert code == 0
    for word in ("versions", "torch", "device", "threads", "CPU bf16", "numba", "tiny", "sha256"):
        assert word in out


def test_doctor_names_the_command_that_adds_what_is_missing(run, monkeypatch, tmp_path):
    monkeypatch.setitem(
        optional.OPTIONAL, "tensorboard", optional.OptionalPackage("no_such_pkg", "curves", "pip install x")
    )
    monkeypatch.setattr("latent3d.weights.SHIPPED", tmp_path)
    monkeypatch.delenv("LATENT3D_WEIGHTS", raising=False)
    _, out, _ = run("doctor")
    assert "pip install x" in out
    assert "latent3d train ggs_rooms" in out
    broken = tmp_path / "half"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    assert "incomplete" in run("doctor")[1]


def test_optional_packages_are_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(
        optional.OPTIONAL, "no_such_pkg", optional.OptionalPackage("no_such_pkg", "magic", "pip install x")
    )
    with pytest.raises(
        optional.MissingPackageError, match="magic needs the package 'no_such_pkg'; add it with: pip install x"
    ):
        optional.require("no_such_pkg")


def test_data_bank(run, tmp_path):
    bank = tmp_path / "bank"
    options = ("--count", 2, "--views", 2, "--novel", 1, "--size", 32, "--workers", 1)
    code, _, err = run("data", "bank", "--out", bank, *options)
    assert code == 0, err
    from latent3d.data.shards import BankStream

    assert BankStream(bank, 2).batch(0).images.shape[-2:] == (32, 32)
    code, _, err = run("data", "bank", "--out", tmp_path / "none", "--count", 0)
    assert code == 2
    assert not (tmp_path / "none").exists()


def test_worlds_preview(run, tmp_path):
    sheet = tmp_path / "sheet.png"
    code, _, err = run(
        "worlds", "preview", "--count", 2, "--views", 3, "--size", 32, "--layers", "images", "depth", "--out", sheet
    )
    assert code == 0, err
    assert load_image(sheet).image.shape == (3, 4 * 32, 3 * 32)
    assert run("worlds", "preview", "--count", 0, "--out", sheet)[0] == 2
    assert run("worlds", "preview", "--family", "rums", "--out", sheet)[0] == 2


def test_train_and_evaluate_reach_their_parts(run, tmp_path):
    code, out, err = run(
        "train", "ggs_rooms_tiny", "--stage", "vae", "--out", tmp_path / "r", "--export", tmp_path / "w"
    )
    assert code == 0, err
    assert "wrote weights" in out
    assert (tmp_path / "w/config.json").is_file()
    assert run("train", "ggs_roms", "--out", tmp_path / "s")[0] == 2
    code, _, err = run(
        "evaluate", "--baselines-only", "--scenes", 1, "--family", "rooms", "--protocol", "ggs_one_ref",
        "--out", tmp_path / "e",
    )  # fmt: skip
    assert code == 0, err
    assert (tmp_path / "e/results.md").is_file()
    assert run("evaluate", "--protocol", "nonesuch", "--baselines-only", "--out", tmp_path / "f")[0] == 2


def test_the_command_lets_torchs_threads_sleep_unless_the_user_says_otherwise(monkeypatch):
    for asked, kept in (({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)):
        for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
            monkeypatch.delenv(name, raising=False)
        for name, value in asked.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit):
            main(["--version"])
        assert os.environ.get("GOMP_SPINCOUNT") == kept
