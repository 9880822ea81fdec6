"""Options of how networks are run: precision, compiling, the interval of guidance."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from latent3d.apps.inference import prepared
from latent3d.apps.objects import LN3Diff, Prompt
from latent3d.apps.pipelines import GGS
from latent3d.hardware import has_bf16
from latent3d.io.cards import read_card
from latent3d.nn.inference import DirectLinear
from latent3d.object_presets import ln3diff_shapes_tiny
from latent3d.weights import save_weights


@pytest.fixture(scope="module")
def objects(tmp_path_factory) -> Path:
    """A tiny model of objects with random weights."""
    torch.manual_seed(1)
    config = ln3diff_shapes_tiny().system.replace(discriminator=None)
    return save_weights(tmp_path_factory.mktemp("weights") / "tiny", config.build(), config, {})


@pytest.mark.parametrize("precision", ["auto", "bf16", "fp32"])
def test_scenes_run_in_the_precision_asked_for(weights: Path, picture: Path, precision: str):
    model = GGS.from_pretrained(weights, "cpu", precision=precision)
    scene = model.sample(picture, steps=1, num_views=2)
    expected = precision == "bf16" or (precision == "auto" and has_bf16("cpu"))
    assert scene.card["precision"] == ("bf16" if expected else "fp32")


def test_objects_say_their_precision_and_interval(run, objects: Path, tmp_path: Path):
    code, _, err = run(
        "object", "--label", "chair", "--weights", objects, "--steps", 4, "--guidance", 3, "--guidance-interval", 0.3,
        0.8, "--precision", "fp32", "--format", "ply", "--out", tmp_path / "chair",
    )  # fmt: skip
    assert code == 0, err
    card = read_card(tmp_path / "chair" / "card.json")
    assert (card["precision"], card["guidance_interval"], card["calls"]) == ("fp32", [0.3, 0.8], 6)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--guidance-interval", 0.8, 0.3, "--label", "chair"), "low < high"),
        (("--compile",), "C++ compiler"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(run, objects: Path, tmp_path: Path, monkeypatch, arguments, sentence):
    monkeypatch.setenv("CXX", "no-such-compiler")
    code, _, err = run("object", *arguments, "--weights", objects, "--out", tmp_path / "out")
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err


def test_compiling_marks_the_denoiser_of_either_system(monkeypatch, weights: Path, objects: Path):
    monkeypatch.setattr("latent3d.apps.inference.require_compiler", lambda: None)
    for model in (GGS.from_pretrained(weights, "cpu", compile=True), LN3Diff.from_pretrained(objects, compile=True)):
        assert all(block._compiled_call_impl is not None for block in model.system.denoiser.blocks)
    with pytest.raises(ValueError, match="no denoiser"):
        prepared(ln3diff_shapes_tiny().system.replace(denoiser=None, conditioner=None).build(), compile=True)


def test_direct_products_change_objects_by_rounding_alone(monkeypatch, objects: Path):
    pictures = []
    for direct in (False, True):
        monkeypatch.setattr("latent3d.apps.inference.onednn_is_faster", lambda direct=direct: direct)
        monkeypatch.setattr("latent3d.nn.inference.DIRECT_PRODUCTS", 0)
        model = LN3Diff.from_pretrained(objects, "cpu", precision="fp32")
        assert any(type(layer) is DirectLinear for layer in model.system.modules()) is direct
        (asset,) = model.sample([0], [Prompt(label="chair")], steps=2)
        pictures.append(asset.planes.planes)
    torch.testing.assert_close(pictures[0], pictures[1], rtol=1e-3, atol=1e-4)
