"""Feature maps, and distances of views after a warp, on the two planes of `plane_world`."""

import math
from dataclasses import replace

import pytest
import torch

from latent3d.evaluation.dense_features import DenseExtractor, build_dense_extractor, dense_random_conv
from latent3d.evaluation.features import random_conv, to_uint8
from latent3d.evaluation.protocols import ViewProtocol
from latent3d.evaluation.scoring import Prediction, SceneTask, warp_scores
from latent3d.evaluation.warp_distance import WarpMetric, warp_distances
from latent3d.geometry.cameras import Cameras
from latent3d.representations.views import Views

from .plane_world import plane_clip

PLAIN = DenseExtractor("plain", "0" * 64, "none", lambda images: images.float() / 127.5 - 1)


@pytest.fixture(scope="module")
def clip():
    return plane_clip(views=4)


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    from transformers import Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    Dinov2Model(Dinov2Config(image_size=28, patch_size=14, **small)).save_pretrained(folder)
    return folder


def _mean(extractor, images, views):
    return warp_distances(extractor(to_uint8(images)), views).mean


def test_feature_maps_lie_where_their_pixels_are():
    """Half a picture changes: the maps change there and, but for the reach of the filters, nowhere else."""
    extractor, images = dense_random_conv(), torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    other = images.clone()
    other[..., 24:] = 0.5
    maps, changed = extractor(to_uint8(images)), extractor(to_uint8(other))
    assert maps.shape == (2, 64, 64, 48)
    assert extractor.sha256 == random_conv().sha256
    difference = (maps - changed).abs().amax((0, 1, 2))
    assert difference[:4].max() == 0
    assert difference[24:].min() > 0.1


def test_maps_of_dino_keep_the_pictures_shape(dino):
    """A wide picture, whose right half changes: tokens in rows and columns, not in columns and rows."""
    extractor = build_dense_extractor("dino", dino)
    images = torch.rand(1, 3, 16, 40, generator=torch.Generator().manual_seed(0))
    maps = extractor(to_uint8(images))
    assert maps.shape == (1, 32, 16, 40)
    changed = images.clone()
    changed[..., 20:] = 1 - changed[..., 20:]
    difference = (extractor(to_uint8(changed)) - maps).norm(dim=1)[0]
    assert difference[:, 22:].mean() > 3 * difference[:, :18].mean()
    assert len(extractor.sha256) == 64
    assert "no crop" in extractor.resize_rule


def test_identical_views_have_distance_zero(clip):
    still = replace(clip, cameras=clip.cameras[[0] * 4], depths=clip.depths[[0] * 4])
    found = warp_distances(dense_random_conv()(to_uint8(clip.images[[0] * 4])), still)
    assert found.distance == pytest.approx(0, abs=1e-6)
    assert found.overlap == pytest.approx(1)


def test_a_known_cosine_on_a_known_mask():
    """Two cameras side by side before a wall: half of each picture is shared, with features at right angles."""
    w2c = torch.eye(4).repeat(2, 1, 1)
    w2c[1, 0, 3] = -1.0  # one unit to the right, half of the 2 units that a picture shows at depth 2
    k = torch.tensor([[16.0, 0, 8], [0, 16, 8], [0, 0, 1]]).expand(2, 3, 3)
    views = Views(torch.zeros(2, 3, 16, 16), Cameras(w2c, k, 16, 16), torch.full((2, 1, 16, 16), 2.0))
    maps = torch.zeros(2, 2, 16, 16)
    maps[0, 0] = maps[1, 1] = 1
    found = warp_distances(maps, views)
    assert found.overlap == pytest.approx(0.5)
    assert found.distance == pytest.approx(1)
    maps[1, 0] = 3**0.5  # 30 degrees apart
    assert warp_distances(maps, views).distance == pytest.approx(1 - math.cos(math.radians(30)), abs=1e-6)
    maps[:, 0] = torch.tensor([1.0, -1.0])[:, None, None]
    maps[:, 1] = 0
    assert warp_distances(maps, views).distance == pytest.approx(2)


def test_the_distance_has_no_direction(clip):
    pair = clip[[0, 2]]
    maps = dense_random_conv()(to_uint8(pair.images))
    one, other = warp_distances(maps, pair), warp_distances(maps.flip(0), pair[[1, 0]])
    assert one.distance == pytest.approx(other.distance, abs=1e-6)
    assert one.overlap == pytest.approx(other.overlap)


@pytest.mark.parametrize("name", ["random_conv", "plain", "dino"])
def test_true_views_are_near_unrelated_ones_are_not_and_noise_lies_between(clip, dino, name):
    extractor = {"random_conv": dense_random_conv(), "plain": PLAIN}.get(name) or build_dense_extractor("dino", dino)
    other = plane_clip(views=4, seed=5).images
    mixed = torch.stack([clip.images[0], other[1], clip.images[2], other[3]])
    noise = torch.randn(clip.images.shape, generator=torch.Generator().manual_seed(0))
    values = [_mean(extractor, clip.images + strength * noise, clip) for strength in (0, 0.03, 0.1, 0.3)]
    assert values == sorted(values)
    unrelated = _mean(extractor, mixed, clip)
    # A random transformer is nearly blind: its maps of all pictures are alike. What is asked of it is the order.
    assert values[0] < {"random_conv": 0.03, "plain": 0.06, "dino": unrelated / 2}[name]
    assert unrelated > {"random_conv": 0.8, "plain": 0.6, "dino": 0}[name]
    assert values[1] < unrelated


def test_wrong_cameras_and_frozen_pictures_are_seen(clip):
    maps = dense_random_conv()(to_uint8(clip.images))
    true = warp_distances(maps, clip).mean
    assert warp_distances(maps[:1].expand_as(maps), clip).mean > 3 * true
    assert warp_distances(maps, replace(clip, cameras=clip.cameras[[0, 3, 1, 2]], depths=clip.depths)).mean > 3 * true


def test_what_only_one_view_sees_does_not_count(clip):
    """Depth that the other view contradicts, or that is unknown, leaves the overlap; the distance is of the rest."""
    maps = dense_random_conv()(to_uint8(clip.images))
    holes = clip.depths.clone()
    holes[:, :, :32] = 0
    found, whole = warp_distances(maps, replace(clip, depths=holes)), warp_distances(maps, clip)
    assert found.mean_overlap == pytest.approx(whole.mean_overlap / 2, abs=0.02)
    assert found.mean == pytest.approx(whole.mean, abs=0.01)
    contradicting = clip.depths * torch.tensor([1.0, 1.5, 1.0, 1.5])[:, None, None, None]
    apart = warp_distances(maps, replace(clip, depths=contradicting))
    assert apart.mean_overlap < 0.05
    nothing = warp_distances(maps, replace(clip, depths=torch.zeros_like(clip.depths)))
    assert math.isnan(nothing.mean)
    assert nothing.mean_overlap == 0


def test_the_two_kinds_of_depth_are_told_apart(clip):
    """Pictures and depth of a world of another scale fit each other as well as the truth, not the true depth."""
    protocol = ViewProtocol(name="test", views=4, references=(0,))
    task, metric = SceneTask.from_clip(clip, protocol, 0.03), WarpMetric(dense_random_conv())
    truth = warp_scores(Prediction(task.targets.images, task.targets.depths), task, metric)
    assert set(truth) == {"warp_distance", "warp_overlap", "warp_distance_own", "warp_overlap_own"}
    assert truth["warp_distance"] == pytest.approx(warp_distances(metric.extractor(to_uint8(clip.images)), clip).mean)
    elsewhere = plane_clip(views=4, seed=1)
    moved = elsewhere[[1, 2, 3]]
    other = warp_scores(Prediction(moved.images, moved.depths), task, metric)
    assert other["warp_distance_own"] < 0.03
    assert other["warp_distance"] > other["warp_distance_own"] + 0.2  # the reference's own picture is of another world
    without = warp_scores(Prediction(task.targets.images), task, metric)
    assert set(without) == {"warp_distance", "warp_overlap"}
    photos = SceneTask.from_clip(replace(clip, depths=None), protocol, 0.03)
    rendered = warp_scores(Prediction(task.targets.images, task.targets.depths), photos, metric)
    assert set(rendered) == {"warp_distance_own", "warp_overlap_own"}
    assert rendered["warp_distance_own"] == truth["warp_distance_own"]


def test_targets_are_compared_in_path_order(clip):
    task = SceneTask.from_clip(clip, ViewProtocol(name="test", views=4, references=(1,), asked=(3, 0, 2)), 0.03)
    answer = Prediction(task.targets.images, task.targets.depths)
    found = warp_scores(answer, task, WarpMetric(dense_random_conv()))
    expected = warp_distances(dense_random_conv()(to_uint8(clip.images)), clip)
    assert found["warp_distance"] == pytest.approx(expected.mean)
    apart = warp_distances(dense_random_conv()(to_uint8(clip.images[[0, 2, 3]])), clip[[0, 2, 3]])
    assert found["warp_distance_own"] == pytest.approx(apart.mean)


def test_the_name_tells_the_extractor_and_is_never_the_papers():
    metric = WarpMetric(dense_random_conv())
    assert metric.name == "WD_random_conv"
    assert metric.to_dict()["extractor"]["sha256"] == random_conv().sha256
    assert "met3r" not in str(metric.to_dict()).lower()


def test_senseless_input_is_refused(clip, tmp_path):
    with pytest.raises(ValueError, match="3 feature maps do not belong to 4 views"):
        warp_distances(torch.zeros(3, 2, 8, 8), clip)
    with pytest.raises(ValueError, match="`depths` are set"):
        warp_distances(torch.zeros(4, 2, 8, 8), replace(clip, depths=None))
    with pytest.raises(ValueError, match="at least 16 x 16 pixels, not 20 x 8"):
        dense_random_conv()(torch.zeros(1, 3, 8, 20, dtype=torch.uint8))
    with pytest.raises(ValueError, match="unknown extractor of feature maps 'clip'; choose random_conv or dino"):
        build_dense_extractor("clip")
    with pytest.raises(ValueError, match="local folder"):
        build_dense_extractor("dino")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        build_dense_extractor("dino", tmp_path / "nowhere")
