import pytest
import torch

from latent3d.evaluation.consistency import TSEDConfig, tsed
from latent3d.evaluation.protocols import PROTOCOLS, CaptureScenes, WorldScenes, get_protocol
from latent3d.evaluation.scoring import Prediction, SceneTask, score_prediction

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
