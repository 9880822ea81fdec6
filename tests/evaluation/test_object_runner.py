"""Both protocols on boxes with an oracle: a model that knows the true shapes, so that its scores are known."""

import json

import pytest
from PIL import Image

from latent3d.evaluation.comparison import compare
from latent3d.evaluation.features import CallableExtractor
from latent3d.evaluation.object_cases import MeshFolder, ShapeCases
from latent3d.evaluation.object_generation import evaluate_generation
from latent3d.evaluation.object_protocols import GenerationProtocol, MeshAsset, ReconstructionProtocol
from latent3d.evaluation.object_runner import evaluate_reconstruction
from latent3d.evaluation.records import read_record

from .mesh_world import Boxes, Oracle

WEIGHTS = {"name": "oracle", "sha256": "0" * 64}
VIEWS = ReconstructionProtocol(inputs=2, novel=4, size=32, input_size=48)
SETS = GenerationProtocol(views=3, size=32, points=128, outer=False)


def _reconstruct(out, system, source=None, **options):
    source = ShapeCases(Boxes()) if source is None else source
    return evaluate_reconstruction(system, source, out, protocol=VIEWS, weights=WEIGHTS, progress=False, **options)


def _generate(out, system, references=None, **options):
    options = {"protocol": SETS, "weights": WEIGHTS, "steps": (2,), "progress": False, "sheet_objects": 2} | options
    return evaluate_generation(system, references or Boxes(), out, **options)


def _mean(record, method, key):
    return record["methods"][method]["scores"][key]["mean"]


@pytest.fixture(scope="module")
def reconstructed(tmp_path_factory):
    out = tmp_path_factory.mktemp("reconstructed")
    return out, _reconstruct(out, Oracle())


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    out, system = tmp_path_factory.mktemp("generated"), Oracle()
    return out, _generate(out, system, training=Boxes(6, start=2)), system


def test_the_true_shapes_are_reconstructed_perfectly(reconstructed):
    _, record = reconstructed
    assert _mean(record, "reconstruction", "psnr") is None  # infinite
    assert _mean(record, "reconstruction", "ssim") == pytest.approx(1)
    assert _mean(record, "reconstruction", "mask_iou") == 1
    assert _mean(record, "reconstruction", "depth_error") == 0
    assert record["methods"]["reconstruction"]["distances"]["FD_random_conv"] == pytest.approx(0, abs=1e-5)
    assert _mean(record, "nearest_input", "psnr") > 5
    assert _mean(record, "nearest_input", "abs_rel") is None
    assert _mean(record, "white", "mask_iou") == 0
    # Each class has a row of its own.
    assert record["methods"]["reconstruction, slab"]["scores"]["ssim"]["scenes"] == 2
    assert [name for name in record["methods"] if "," in name] == ["reconstruction, slab", "reconstruction, pole"]


def test_the_record_is_written_read_and_compared(reconstructed, tmp_path):
    out, record = reconstructed
    assert read_record(out / "objects_reconstruction_boxes.json") == record
    text = (out / "objects_reconstruction_boxes.md").read_text()
    assert "| method | PSNR | object | SSIM | mask IoU |" in text
    assert "2 views with depth are given" in text
    assert "FID" not in text + json.dumps(record)
    with Image.open(out / "objects_reconstruction_boxes.png") as picture:
        assert picture.size[0] == 10 * 36 - 4
    alone = evaluate_reconstruction(None, ShapeCases(Boxes()), tmp_path, protocol=VIEWS, progress=False)
    assert list(alone["methods"])[:2] == ["nearest_input", "white"]
    table = compare(record, alone)
    assert "| white | +0.00" in table
    assert "paired over the 4 objects" in table
    with pytest.raises(ValueError, match="other views"):
        compare(record, alone | {"protocol": record["protocol"] | {"inputs": 3}})


def test_an_interrupted_reconstruction_continues(reconstructed, tmp_path):
    class Interrupted(Oracle):
        def reconstruct(self, views):
            if self.reconstructed == 2:
                raise KeyboardInterrupt
            return super().reconstruct(views)

    with pytest.raises(KeyboardInterrupt):
        _reconstruct(tmp_path, Interrupted())
    again = Oracle()
    record = _reconstruct(tmp_path, again, sheet_objects=2)
    assert again.reconstructed == 2
    for key in ("ssim", "mask_iou"):
        assert _mean(record, "nearest_input", key) == _mean(reconstructed[1], "nearest_input", key)


def test_the_reference_set_itself_is_a_perfect_sample(generated):
    _, record, system = generated
    for kind in ("none", "class", "text", "image"):
        distances = record["methods"][f"{kind}@2"]["distances"]
        assert distances["FD_random_conv"] == pytest.approx(0, abs=1e-5)
        assert (distances["cov"], distances["mmd"], distances["1nna"]) == (100, 0, 0)
    told = dict(system.asked[4:8])
    assert [told[i].label for i in range(4)] == ["slab", "pole", "slab", "pole"]
    assert system.asked[8][1].text == "slab number 0"
    assert system.asked[12][1].picture.shape == (3, 32, 32)


def test_one_repeated_shape_covers_one_reference(generated):
    _, record, _ = generated
    prior = record["methods"]["prior_decoded"]["distances"]
    assert prior["cov"] == 25
    assert prior["mmd"] > 0
    assert prior["FD_random_conv"] > record["methods"]["training_subset"]["distances"]["FD_random_conv"] > 0.001


def test_novelty_names_the_nearest_training_shape(generated):
    _, record, _ = generated
    # Training holds boxes 2 to 7: samples 2 and 3 are copies, 0 and 1 are not.
    novelty = record["methods"]["none@2"]["per_scene"]["novelty"]
    assert record["methods"]["none@2"]["nearest_training"][2:] == [0, 1]
    assert novelty[2:] == [0, 0]
    assert min(novelty[:2]) > 0
    assert record["methods"]["held_back"]["per_scene"]["novelty"] == novelty
    assert min(record["methods"]["training_subset"]["per_scene"]["novelty"]) > 0


def test_tables_and_sheets_of_samples(generated):
    out, record, _ = generated
    assert read_record(out / "objects_generation_boxes.json") == record
    text = (out / "objects_generation_boxes.md").read_text()
    assert "| method | to training ‰ | s/object | FD_random_conv | KD_random_conv | COV % | MMD ‰ | 1-NNA % |" in text
    assert "128 points of the whole surface" in text
    for name, columns in (("none@2", 8), ("image@2", 9), ("training_subset", 8)):
        with Image.open(out / f"objects_generation_boxes_{name}.png") as picture:
            assert picture.size == (columns * 36 - 4, 16 + 2 * 36 - 4)
    assert "100.0 to 100.0" in compare(record, record)


def test_another_model_finds_the_real_shapes_in_the_cache(generated, tmp_path):
    class Broken(Boxes):
        def shape(self, index):
            if index > 0:
                raise AssertionError("this shape is in the cache")
            return super().shape(index)

    _generate(tmp_path, None, samples=2)
    record = _generate(tmp_path, None, Broken(), samples=2, yardsticks={"again": Oracle().prior}, sheet_objects=0)
    assert list(record["methods"]) == ["held_back", "again"]


def test_clip_i_is_there_for_pictures_alone(tmp_path):
    mean = CallableExtractor("clip", "1" * 64, "none", lambda images: images.float().mean((2, 3)))
    protocol = SETS.replace(conditions=("none", "image"))
    record = _generate(tmp_path, Oracle(), Boxes(2), protocol=protocol, embedding=mean)
    assert _mean(record, "none@2", "clip_i") is None
    assert 95 < _mean(record, "image@2", "clip_i") <= 100
    assert "CLIP-I over white with clip" in record["caption"]


def test_samples_without_surface_are_told(tmp_path):
    class Empty(MeshAsset):
        def mesh(self, resolution):
            raise ValueError("nothing lies inside")

    class Nothing(Oracle):
        def prior(self, seeds):
            return [Empty(self.shapes[0].mesh) for _ in seeds]

    protocol = SETS.replace(conditions=("none",))
    record = _generate(tmp_path, Nothing(), Boxes(2), protocol=protocol, training=Boxes(2, start=5))
    assert record["methods"]["prior_decoded"]["distances"]["without_surface"] == 2
    assert "Without a surface: prior_decoded 2" in record["caption"]
    assert record["methods"]["prior_decoded"]["scores"]["novelty"]["mean"] is None


def test_senseless_runs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing to evaluate"):
        _reconstruct(tmp_path, None, ShapeCases(Boxes(0)))
    with pytest.raises(ValueError, match="sha256"):
        evaluate_reconstruction(Oracle(), ShapeCases(Boxes()), tmp_path, progress=False)
    with pytest.raises(ValueError, match="fewer than 4 samples"):
        _generate(tmp_path, Oracle(), training=Boxes(3))
    with pytest.raises(ValueError, match="'shape'"):
        GenerationProtocol(conditions=("shape",))
    with pytest.raises(FileNotFoundError, match="holds no mesh"):
        MeshFolder(tmp_path)
