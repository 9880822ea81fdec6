import pytest
import torch
from data.tiny_family import sample_wall

from latent3d.data.shards import render_bank
from latent3d.evaluation.consistency import TSEDConfig, tsed
from latent3d.evaluation.protocols import PROTOCOLS, BankScenes, CaptureScenes, WorldScenes, get_protocol
from latent3d.evaluation.scoring import Prediction, SceneTask, score_prediction
from latent3d.representations.views import Views

from .plane_world import plane_clip


@pytest.mark.parametrize(("name", "references"), [("ggs_one_ref", 1), ("ggs_two_ref", 2)])
def test_split_and_path_order_are_inverse(name, references):
    clip, protocol = plane_clip(size=16), PROTOCOLS[name]
    shown, asked = protocol.split(clip)
    assert (len(shown), len(asked)) == (references, 8 - references)
    torch.testing.assert_close(protocol.in_path_order(shown.images, asked.images), clip.images)


def test_wrong_names_and_clips_are_refused():
    with pytest.raises(ValueError, match="unknown protocol"):
        get_protocol("ggs_three_ref")
    with pytest.raises(ValueError, match="8 views"):
        get_protocol("ggs_one_ref").split(plane_clip(views=3, size=16))


def test_the_truth_has_perfect_scores_and_depth_stays_hidden_from_models():
    task = SceneTask.from_clip(plane_clip(), get_protocol("ggs_two_ref"), 0.03)
    assert task.model_input().depths is None
    scores = score_prediction(Prediction(task.targets.images, task.targets.depths, 0.5), task, TSEDConfig())
    assert scores["psnr"] == float("inf")
    assert scores["ssim"] == pytest.approx(1, abs=1e-5)
    assert scores["sharpness_seen"] == pytest.approx(1)
    assert scores["abs_rel"] == 0
    assert scores["delta1"] == 1
    assert scores["tsed"] == 1
    assert scores["seconds"] == 0.5
    worse = score_prediction(Prediction(task.targets.images * 0.9, task.targets.depths * 1.1), task, TSEDConfig())
    assert 15 < worse["psnr"] < 40
    assert worse["sharpness_seen"] == pytest.approx(0.81, abs=1e-3)
    assert worse["abs_rel"] == pytest.approx(0.1, abs=1e-5)
    assert worse["abs_rel_median_aligned"] == pytest.approx(0, abs=1e-5)


def test_world_scenes_are_a_fixed_list():
    source = WorldScenes("rooms", 3, size=(32, 32))
    assert len(source) == 3
    clip = source.scene(1)
    assert clip.images.shape == (8, 3, 32, 32)
    assert clip.depths is not None
    torch.testing.assert_close(clip.images, WorldScenes("rooms", 64, size=(32, 32)).scene(1).images)
    assert source.describe()["indices"] == "0..2"


def test_a_real_capture_is_consistent_with_its_cameras(shared_data):
    source = CaptureScenes(shared_data("posed_fox"), views=4, size=(160, 96))
    assert len(source) > 5
    clip = source.scene(2)
    assert clip.images.shape == (4, 3, 160, 96)
    assert clip.depths is None
    torch.testing.assert_close(clip.cameras.c2w[0], torch.eye(4), atol=1e-5, rtol=0)
    pairs = tsed(clip.images, clip.cameras)
    assert (pairs.matches >= 10).all()
    assert (pairs.median_sed < 1).all()


def test_captures_that_cannot_serve_are_refused(tmp_path, shared_data):
    with pytest.raises(ValueError, match="no capture that can be recognised"):
        CaptureScenes(tmp_path)
    with pytest.raises(ValueError, match="fewer than"):
        CaptureScenes(shared_data("posed_rgbd_dining_room"), views=8)


def test_protocols_stretch_to_other_numbers_of_views():
    assert get_protocol("ggs_two_ref", 3).references == (0, 2)
    assert get_protocol("ggs_two_ref", 3).targets == (1,)
    assert get_protocol("ggs_one_ref", 5).targets == (1, 2, 3, 4)
    for views in (2, 1):
        with pytest.raises(ValueError, match="views per scene"):
            get_protocol("ggs_two_ref", views)
    with pytest.raises(ValueError, match="views per scene"):
        get_protocol("ggs_two_ref_outside", 5)


def test_extrapolation_asks_outside_the_references_only():
    clip, protocol = plane_clip(size=16), get_protocol("ggs_two_ref_outside")
    shown, asked = protocol.split(clip)
    torch.testing.assert_close(asked.images, clip.images[[0, 1, 6, 7]])
    assert not protocol.interpolates
    assert get_protocol("ggs_two_ref").interpolates
    assert not get_protocol("ggs_one_ref").interpolates
    torch.testing.assert_close(
        protocol.in_path_order(shown.images, asked.images), clip.images[[0, 1, 2, 5, 6, 7]], rtol=0, atol=0
    )


def test_scaling_by_the_references_brings_depth_to_the_median_asked_for():
    clip, protocol = plane_clip(size=128), get_protocol("ggs_two_ref")
    task = SceneTask.from_clip(clip, protocol, 0.03, median_depth=2.0)
    assert task.references.depths.median() == pytest.approx(2.0, rel=0.15)
    torch.testing.assert_close(task.targets.cameras.centers, clip.cameras.centers[1:-1] * task.factor)
    # Only the references count: other targets, the same factor.
    other = Views(clip.images.clone(), clip.cameras, clip.depths)
    other.images[1:-1] = 0
    assert SceneTask.from_clip(other, protocol, 0.03, median_depth=2.0).factor == task.factor
    # One reference has nothing to match.
    assert SceneTask.from_clip(clip, get_protocol("ggs_one_ref"), 0.03, median_depth=2.0).factor == 1


def test_a_bank_is_a_source_in_its_own_order(tmp_path):
    render_bank(tmp_path / "bank", count=3, num_views=4, extra_views=1, size=16, sampler=sample_wall, shard_clips=2)
    source = BankScenes(tmp_path / "bank", 2, views=3)
    assert (len(source), source.size) == (2, (16, 16))
    clip = source.scene(1)
    assert clip.images.shape == (3, 3, 16, 16)
    torch.testing.assert_close(clip.cameras.centers[:, 0], torch.tensor([0.0, 0.2, 0.3]), atol=1e-6, rtol=0)
    assert 2 <= clip.depths.min() <= 3
    torch.testing.assert_close(clip.images, BankScenes(tmp_path / "bank", 3, views=3).scene(1).images)
    assert source.describe()["clips"] == 3
    with pytest.raises(ValueError, match="have 4 views, not 8"):
        BankScenes(tmp_path / "bank", 2)
