"""``latent3d object`` with a tiny model of random weights: every file, read back; the same in Python; bad inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import latent3d
from latent3d.apps.object_pictures import read_object_picture
from latent3d.evaluation.object_protocols import ObjectSystem
from latent3d.geometry.object_cameras import orbit, turntable
from latent3d.io.cards import read_card
from latent3d.io.mesh_files import read_mesh
from latent3d.io.splat_files import read_splats
from latent3d.io.video import read_video
from latent3d.object_presets import ln3diff_shapes_tiny
from latent3d.rendering.meshes import render_mesh
from latent3d.rendering.surface import is_watertight
from latent3d.representations.triplane import TriPlane
from latent3d.weights import save_weights
from latent3d.worlds.objects import OBJECT_LABELS


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A tiny model with random weights whose every object fills a part of its box."""
    torch.manual_seed(1)
    config = ln3diff_shapes_tiny().system.replace(discriminator=None)
    system = config.build()
    with torch.no_grad():
        system.field.layers[-1].bias[0] = 1.5
        system.field.layers[-1].weight[0] *= 8
    system.mesh.start_from(system.field)
    return save_weights(tmp_path_factory.mktemp("weights") / "tiny", system, config, {"data": "random numbers"})


@pytest.fixture(scope="module")
def cup(tmp_path_factory) -> Path:
    """A picture with transparency."""
    pixels = np.zeros((40, 60, 4), np.uint8)
    pixels[10:30, 20:45] = (200, 30, 30, 255)
    path = tmp_path_factory.mktemp("pictures") / "a cup.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def made(weights, tmp_path_factory) -> Path:
    """A folder that the command wrote."""
    from latent3d.apps.cli import main

    out = tmp_path_factory.mktemp("made") / "object"
    arguments = ["object", "--text", "a red mug", "--weights", weights, "--out", out, "--steps", 2, "--seed", 3]
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == 0
    return out


def test_all_files_are_there_and_nothing_else(made):
    assert sorted(path.name for path in made.iterdir()) == [
        "cameras.json", "card.json", "object.glb", "object.obj", "object.ply", "sheet.png", "turntable.mp4",
        "viewer.html", "views",
    ]  # fmt: skip
    assert [path.name for path in made.parent.iterdir()] == ["object"]


def test_mesh_splats_film_and_card(made):
    mesh = read_mesh(made / "object.glb")
    assert is_watertight(mesh)
    assert mesh.colors is not None
    loaded = trimesh.load(made / "object.glb", force="mesh")
    assert len(loaded.faces) == len(mesh)
    assert loaded.is_watertight
    # glTF is y-up: what is up in the scene's z is up in the file's y
    high = float(mesh.vertices[:, 2].max())
    assert float(loaded.vertices[:, 1].max()) == pytest.approx(high, abs=1e-4)
    gaussians, _ = read_splats(made / "object.ply")
    assert len(gaussians) == 256
    film, rate = read_video(made / "turntable.mp4")
    assert film.shape[1:] == (3, 256, 256)
    assert rate == 24
    card = read_card(made / "card.json")
    assert card["seed"] == 3
    assert card["prompt"]["text"] == "a red mug"
    assert card["outputs"]["mesh"]["watertight"] is True
    assert card["calls"] == 4  # two steps, with guidance


def test_splats_hold_the_low_pass_of_the_pictures_that_they_were_learnt_in(weights):
    """0.3 square pixels, a pixel being one of the model's pictures at the distance of the turntable."""
    (asset,) = latent3d.LN3Diff.from_pretrained(weights).sample([3], steps=1)
    batch = TriPlane(asset.planes.planes[None], asset.planes.half_size)
    with torch.no_grad():
        bare = asset.system.splats(batch, asset.system.field_of(batch))[0]
    camera = turntable(32, 1)[0]
    pixel = camera.centers.norm() / camera.k[0, 0]
    splats = asset.gaussians()
    variance = bare.scales.square() + 0.3 * pixel**2
    torch.testing.assert_close(splats.scales.square(), variance, rtol=1e-5, atol=0)
    assert torch.equal(splats.means, bare.means)


def test_a_texture_shows_what_the_colours_of_vertices_show(run, weights, made, tmp_path):
    arguments = ["--text", "a red mug", "--steps", 2, "--seed", 3, "--format", "glb", "--texture", 512]
    assert run("object", "--weights", weights, "--out", tmp_path / "o", *arguments)[0] == 0
    textured, plain = read_mesh(tmp_path / "o" / "object.glb"), read_mesh(made / "object.glb")
    assert textured.texture is not None
    assert textured.texture.shape == (3, 512, 512)
    assert textured.colors is None
    assert read_card(tmp_path / "o" / "card.json")["outputs"]["mesh"]["texture"] == 512
    cameras = orbit(4, size=48)
    (seen, bare) = (render_mesh(mesh, cameras) for mesh in (textured, plain))
    assert torch.equal(seen.alphas, bare.alphas)
    assert (seen.images - bare.images).abs().mean() < 0.01


def test_formats_and_count(run, weights, tmp_path):
    code, out, err = run(
        "object", "--label", "chair", "--count", 2, "--format", "ply", "--weights", weights, "--steps", 1,
        "--out", tmp_path / "chairs",
    )  # fmt: skip
    assert code == 0, err
    folders = sorted(path.name for path in (tmp_path / "chairs").iterdir())
    assert folders == ["0000", "0001"]
    names = {path.name for path in (tmp_path / "chairs" / "0001").iterdir()}
    assert "object.ply" in names
    assert "object.glb" not in names
    assert str(tmp_path / "chairs" / "0000") in out


def test_a_picture_is_cut_out_by_its_transparency(run, weights, cup, tmp_path):
    out = tmp_path / "o"
    code, _, err = run("object", "--image", cup, "--weights", weights, "--steps", 1, "--format", "ply", "--out", out)
    assert code == 0, err
    notes = " ".join(read_card(out / "card.json")["prompt"]["notes"])
    assert "transparency" in notes


def test_what_a_picture_s_object_is(cup, tmp_path):
    found = read_object_picture(cup)
    assert found.alpha.shape == (1, 40, 60)
    assert float(found.alpha.sum()) == 20 * 25
    assert float(found.image[:, 0, 0].min()) == 1.0
    white = tmp_path / "white.png"
    pixels = np.full((30, 30, 3), 255, np.uint8)
    pixels[8:20, 8:20] = 40
    pixels[12:14, 12:14] = 255  # a white spot inside belongs to the object
    Image.fromarray(pixels).save(white)
    found = read_object_picture(white)
    assert float(found.alpha.sum()) == 144
    assert any("white around the object" in note for note in found.notes)
    busy = tmp_path / "busy.png"
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(busy)
    found = read_object_picture(busy)
    assert float(found.alpha.min()) == 1.0
    assert any("whole picture" in note for note in found.notes)


def test_three_lines_of_python_do_the_same(made, weights, tmp_path):
    model = latent3d.LN3Diff.from_pretrained(weights)
    (mug,) = model.sample([3], [latent3d.Prompt(text="a red mug")], steps=2)
    mug.save(tmp_path / "mug", formats=("glb",))
    assert (tmp_path / "mug" / "object.glb").read_bytes() == (made / "object.glb").read_bytes()
    assert isinstance(model, ObjectSystem)
    assert model.conditions == ("none", "class", "text", "image")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--label", "dragon"), "knows no 'dragon'"),
        (("--text", "  "), "the text is empty"),
        (("--count", 0), "0 objects are not possible"),
        (("--format", "stl"), "no format 'stl'"),
        (("--image", "missing.png"), "missing.png"),
        (("--steps", 0), "0 steps are not possible"),
        (("--seed", -1), "the seed -1"),
        (("--sampler", "leap"), "no sampler 'leap'"),
        (("--texture", 8), "a texture of 8 texels"),
        (("--texture", 512, "--format", "ply"), "a texture belongs to a mesh"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(run, weights, tmp_path, arguments, sentence):
    code, _, err = run("object", *arguments, "--weights", weights, "--out", tmp_path / "out")
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_an_empty_picture_is_refused(run, weights, tmp_path):
    Image.fromarray(np.zeros((20, 20, 4), np.uint8)).save(tmp_path / "nothing.png")
    code, _, err = run("object", "--image", tmp_path / "nothing.png", "--weights", weights, "--out", tmp_path / "out")
    assert code == 2
    assert "no object" in err


def test_labels_are_those_of_the_worlds():
    assert ln3diff_shapes_tiny().system.labels == OBJECT_LABELS
