"""``latent3d data objects`` and ``latent3d data render``: from the command line to files and back."""

from __future__ import annotations

import pytest
import torch
from data.tiny_objects import box

from latent3d.data.object_bank import ObjectBank
from latent3d.data.objects import extent, read_object
from latent3d.io.mesh_files import write_mesh


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


@pytest.fixture(scope="module")
def meshes(tmp_path_factory):
    """Two boxes in a folder below, one of them with a space in its name, and a broken file."""
    folder = tmp_path_factory.mktemp("meshes")
    (folder / "in").mkdir()
    write_mesh(folder / "in" / "a box.glb", box((0.2, 0.4, 0.6)))
    write_mesh(folder / "other.obj", box((3.0, 3.0, 1.0), (0.1, 0.5, 0.9)))
    (folder / "broken.ply").write_text("ply\nformat nonsense")
    return folder


def test_meshes_become_folders_of_pictures_that_the_check_accepts(run, meshes, tmp_path):
    out = tmp_path / "pictures"
    options = ("--views", 6, "--size", 48, "--layout", "orbit", "--out", out)
    code, text, err = run("data", "render", meshes, *options)
    assert code == 0, err
    assert "left out: the mesh file" in err
    assert "broken.ply" in err
    assert text.startswith("2 meshes are in")
    assert sorted(path.name for path in out.iterdir()) == ["a box", "card.json", "other"]
    code, text, err = run("data", "check", out / "a box")
    assert code == 0, err
    assert "6 frames; 48 x 48 pixels, 40 degrees" in text
    found = read_object(out / "other", 48, fit=False).views
    torch.testing.assert_close(found.cameras.centers.norm(dim=-1), torch.full((6,), 1.8))
    low, high = extent(found)
    torch.testing.assert_close(high - low, torch.tensor([0.9, 0.9, 0.3]), rtol=0, atol=0.05)
    code, _, err = run("data", "render", meshes, *options)
    assert code == 2
    assert "already holds a result" in err
    assert run("data", "render", meshes / "other.obj", *options, "--overwrite")[0] == 0
    assert sorted(path.name for path in out.iterdir()) == ["card.json", "other"]


def test_meshes_become_a_bank(run, meshes, tmp_path):
    bank = tmp_path / "bank"
    options = ("--bank", "--views", 3, "--size", 32, "--workers", 1, "--out", bank)
    code, _, err = run("data", "render", meshes, *options)
    assert code == 0, err
    assert "broken.ply" in err
    found = ObjectBank(bank)
    assert found.names == ["a box.glb", "other.obj"]
    assert found.labels.tolist() == [-1, -1]
    assert found.captions == [(), ()]
    points, _ = found.points(0)
    torch.testing.assert_close(points.abs().amax(0), torch.tensor([0.15, 0.3, 0.45]), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("{folder}/none.glb",), "there is no mesh file"),
        (("{folder}/broken.ply",), "broken.ply"),
        (("{folder}/notes.txt",), "no mesh file that can be read"),
        (("{empty}",), "holds no mesh file"),
        ((), "at least one mesh file"),
        (("{folder}/other.obj", "--views", 0), "at least one object, view"),
        (("{folder}/other.obj", "--radius", 0.5), "--radius from 1 to 6"),
        (("{folder}/other.obj", "--size", 5000), "--size from 16 to 1024"),
    ],
)
def test_bad_meshes_write_nothing(run, meshes, tmp_path, options, words):
    (meshes / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    given = [str(option).format(folder=meshes, empty=tmp_path / "empty") for option in options]
    for kind in ((), ("--bank",)):
        code, _, err = run("data", "render", *given, "--out", tmp_path / "none", *kind)
        assert code == 2
        assert words in err
        assert err.count("latent3d: error: ") == 1
        assert not (tmp_path / "none").exists()


def test_rendered_meshes_can_be_imported_as_objects(run, meshes, tmp_path):
    assert run("data", "render", meshes, "--views", 5, "--size", 48, "--out", tmp_path / "pictures")[0] == 0
    bank = tmp_path / "bank"
    options = ("--size", 32, "--workers", 1, "--out", bank)
    code, _, err = run("data", "import-objects", tmp_path / "pictures", "--views", 4, *options)
    assert code == 0, err
    found = ObjectBank(bank)
    assert (found.names, found.num_views) == (["a box", "other"], 4)
    assert found.sample(0).normals.norm(dim=-1).median() == pytest.approx(1, abs=1e-2)
    code, _, err = run("data", "import-objects", tmp_path / "pictures", "--views", 9, "--out", tmp_path / "none")
    assert code == 2
    assert "5 usable views of 9" in err
    assert "none of the folders" in err
    assert run("data", "import-objects", "--out", tmp_path / "none")[0] == 2
    assert run("data", "import-objects", tmp_path / "gone", "--out", tmp_path / "none")[0] == 2
    assert not (tmp_path / "none").exists()
