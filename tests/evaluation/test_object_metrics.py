import math
from dataclasses import replace

import pytest
import torch

from latent3d.evaluation.features import CallableExtractor
from latent3d.evaluation.object_metrics import (
    cloud_of,
    nearest_shapes,
    picture_similarity,
    reconstruction_scores,
    shape_distances,
)
from latent3d.evaluation.object_protocols import MeshAsset
from latent3d.geometry.object_cameras import orbit
from latent3d.representations.mesh import Mesh

from .mesh_world import box, shape


def _views(size=32):
    return MeshAsset(shape(0).mesh).render(orbit(3, size=size))


def test_the_truth_scores_perfectly():
    truth = _views()
    scores = reconstruction_scores(truth, truth, 0.9)
    assert scores["psnr"] == math.inf
    assert scores["ssim"] == pytest.approx(1)
    assert scores["mask_iou"] == 1
    assert scores["depth_error"] == scores["abs_rel"] == 0
    assert math.isnan(scores["lpips"])


def test_known_errors_have_known_scores():
    truth = _views()
    inside = truth.alphas >= 0.5
    images = torch.where(inside, truth.images - 0.1, truth.images)
    shifted = replace(truth, images=images, depths=torch.where(truth.depths > 0, truth.depths + 0.09, truth.depths))
    scores = reconstruction_scores(shifted, truth, 0.9)
    assert scores["psnr_foreground"] == pytest.approx(20, abs=1e-3)
    share = inside.float().mean((1, 2, 3))
    assert scores["psnr"] == pytest.approx(float((20 - 10 * share.log10()).mean()), abs=1e-3)
    assert scores["depth_error"] == pytest.approx(10, abs=1e-4)
    # Half of every object's pixels, chosen by the picture's columns: intersection over union is their share.
    half = truth.alphas * (torch.arange(32) < 16)
    overlap = ((half >= 0.5).sum((1, 2, 3)) / inside.sum((1, 2, 3))).mean()
    assert reconstruction_scores(replace(truth, alphas=half), truth, 0.9)["mask_iou"] == pytest.approx(float(overlap))


def test_an_empty_answer_has_no_depth():
    truth = _views()
    scores = reconstruction_scores(replace(truth, alphas=torch.zeros_like(truth.alphas)), truth, 0.9)
    assert scores["mask_iou"] == 0
    assert math.isnan(scores["depth_error"])
    with pytest.raises(ValueError, match="alpha"):
        reconstruction_scores(replace(truth, alphas=None), truth, 0.9)


def test_picture_similarity_is_the_mean_cosine():
    mean = CallableExtractor("mean", "0" * 64, "none", lambda images: images.float().mean((2, 3)))
    reference = torch.zeros(3, 4, 4)
    reference[0] = 1
    images = torch.stack([reference, reference.roll(1, 0)])
    assert picture_similarity(mean, images, reference) == pytest.approx(50)


def test_clouds_of_shapes_that_have_none_are_empty():
    assert cloud_of(Mesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.long))).shape == (0, 3)
    assert cloud_of(Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]))).shape == (0, 3)
    cloud = cloud_of(box(), 64)
    torch.testing.assert_close(cloud, cloud_of(box(), 64))
    assert float(cloud.abs().max()) == pytest.approx(1)


def test_known_answers_of_sets_of_shapes():
    clouds = [cloud_of(shape(index).mesh, 128, outer=False) for index in range(4)]
    assert shape_distances(clouds, clouds) == {"cov": 100, "mmd": 0, "1nna": 0, "without_surface": 0}
    repeated = shape_distances(clouds, [clouds[0]] * 4)
    assert repeated["cov"] == 25
    assert repeated["mmd"] > 0
    # What has no surface is counted and covers nothing; sets of two sizes have no 1-NNA.
    some = shape_distances(clouds, [*clouds[:2], torch.zeros(0, 3)])
    assert (some["cov"], some["without_surface"], "1nna" in some) == (50, 1, False)
    assert shape_distances(clouds, [torch.zeros(0, 3)]) == {"without_surface": 1, "cov": 0}
    with pytest.raises(ValueError, match="held-back"):
        shape_distances([], clouds)


def test_the_nearest_training_shape_is_found_and_is_not_itself():
    clouds = [cloud_of(shape(index).mesh, 128, outer=False) for index in range(4)]
    distances, numbers = nearest_shapes([clouds[2], torch.zeros(0, 3)], clouds)
    assert numbers.tolist() == [2, -1]
    assert distances.tolist() == [0, math.inf]
    other, number = nearest_shapes([clouds[2]], clouds, skip=[2])
    assert number.item() != 2
    assert other.item() > 0
