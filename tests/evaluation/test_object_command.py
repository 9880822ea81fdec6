"""``latent3d evaluate`` on objects, from what is asked for to the written tables."""

import numpy as np
import pytest
import torch

from latent3d.data.object_bank import render_object_bank
from latent3d.data.object_sources import ObjectCameras, ProceduralObjects
from latent3d.evaluation.command import evaluate_command
from latent3d.evaluation.object_cases import BankCases, MeshFolder
from latent3d.evaluation.object_cases import ProceduralObjects as Shapes
from latent3d.evaluation.object_command import OBJECT_PROTOCOLS, ObjectModel
from latent3d.evaluation.object_protocols import ReconstructionProtocol
from latent3d.io.mesh_files import write_mesh
from latent3d.worlds.objects import OBJECT_LABELS

from .mesh_world import Oracle, shape


def test_baselines_of_procedural_objects_need_no_weights(tmp_path):
    records = evaluate_command(
        out=tmp_path,
        protocol=OBJECT_PROTOCOLS,
        family=("mug",),
        scenes=2,
        training=2,
        split="val",
        baselines_only=True,
        progress=False,
    )
    assert [record["protocol"]["name"] for record in records] == list(OBJECT_PROTOCOLS)
    assert list(records[0]["methods"]) == ["nearest_input", "white"]
    assert list(records[1]["methods"]) == ["held_back", "training_subset"]
    assert records[0]["scenes"]["labels"] == ["mug"]
    text = (tmp_path / "results.md").read_text()
    assert "objects_reconstruction on mug" in text
    assert "objects_generation on mug" in text
    # Two mugs that nobody trained on are no copies of two others.
    assert records[1]["methods"]["held_back"]["scores"]["novelty"]["low"] > 0


def test_the_list_of_procedural_objects_is_fixed_and_takes_all_classes():
    shapes = Shapes(len(OBJECT_LABELS))
    assert [shapes.shape(index).label for index in range(len(shapes))] == list(OBJECT_LABELS)
    torch.testing.assert_close(shapes.shape(1).mesh.vertices, Shapes(30).shape(1).mesh.vertices)


def test_meshes_in_a_folder_are_objects(tmp_path):
    for index in range(5):
        write_mesh(tmp_path / "deep" / f"{index}.glb", shape(index).mesh)
    (tmp_path / "notes.txt").write_text("no mesh")
    folder = MeshFolder(tmp_path, 2)
    assert [path.name for path in folder.paths] == ["1.glb", "3.glb"]
    low, high = folder.shape(0).mesh.bounds()
    assert float((high - low).max()) == pytest.approx(0.9, abs=1e-5)
    assert len(MeshFolder(tmp_path / "deep" / "0.glb")) == 1


def test_a_bank_gives_some_views_and_is_asked_for_others(tmp_path):
    render_object_bank(tmp_path / "bank", ProceduralObjects(ObjectCameras(views=7, size=32), "val"), count=2)
    cases = BankCases(tmp_path / "bank")
    protocol = ReconstructionProtocol(inputs=3, novel=12, input_size=32)
    case = cases.case(1, protocol)
    assert (len(case.given), len(case.novel)) == (3, 4)
    assert case.label in OBJECT_LABELS
    stored = cases.bank.views(1)
    given = {tuple(np.round(centre, 5)) for centre in case.given.cameras.centers.tolist()}
    novel = {tuple(np.round(centre, 5)) for centre in case.novel.cameras.centers.tolist()}
    assert not given & novel
    assert given | novel == {tuple(np.round(centre, 5)) for centre in stored.cameras.centers.tolist()}
    with pytest.raises(ValueError, match="leave none"):
        cases.case(0, protocol.replace(inputs=7))
    with pytest.raises(ValueError, match="the model takes 64"):
        cases.case(0, protocol.replace(input_size=64))


def test_what_cannot_be_asked_is_named(tmp_path):
    with pytest.raises(ValueError, match="for objects"):
        evaluate_command(out=tmp_path, protocol=("objects_generation", "ggs_one_ref"), baselines_only=True)
    write_mesh(tmp_path / "meshes" / "one.glb", shape(0).mesh)
    with pytest.raises(ValueError, match="not 'text'"):
        evaluate_command(
            out=tmp_path / "out",
            protocol="objects_generation",
            data=tmp_path / "meshes",
            conditions=("text",),
            baselines_only=True,
        )
    with pytest.raises(FileNotFoundError, match="holds no mesh"):
        evaluate_command(out=tmp_path, protocol="objects_generation", data=tmp_path / "none", baselines_only=True)


def test_a_model_is_asked_by_what_it_listens_to_and_the_objects_can_tell(tmp_path):
    class Deaf(Oracle):
        @property
        def conditions(self):
            return ("none", "image")

    def load(weights, device):
        assert (weights, device) == ("here", "cpu")
        return ObjectModel(Deaf(), {"name": "oracle", "sha256": "0" * 64, "default_steps": 3}, 64)

    for index in range(2):
        write_mesh(tmp_path / "meshes" / f"{index}.glb", shape(index).mesh)
    options = {"data": tmp_path / "meshes", "protocol": "objects_generation", "training": 0, "progress": False}
    record = evaluate_command("here", tmp_path / "out", load_objects=load, **options)[0]
    assert list(record["methods"]) == ["held_back", "prior_decoded", "none@3", "image@3"]
    assert record["weights"]["sha256"] == "0" * 64
    with pytest.raises(ValueError, match="can be told none, image, not 'class'"):
        evaluate_command("here", tmp_path / "out", load_objects=load, conditions=("class",), **options)
    with pytest.raises(ValueError, match="load_objects"):
        evaluate_command("here", tmp_path / "out", **options)
