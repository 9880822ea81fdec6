"""All scores of one method on one scene, from its pictures (and depths) at the target cameras."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latent3d.data.captures.reference_scale import matched_depth
from latent3d.evaluation.consistency import TSEDConfig, tsed
from latent3d.evaluation.features import to_uint8
from latent3d.evaluation.geometry_metrics import depth_scores
from latent3d.evaluation.image_metrics import psnr, sharpness, ssim
from latent3d.evaluation.perceptual import PerceptualDistance
from latent3d.evaluation.protocols import ViewProtocol
from latent3d.evaluation.visibility import seen_mask
from latent3d.evaluation.warp_distance import WarpMetric, warp_distances
from latent3d.geometry.cameras import Cameras
from latent3d.representations.views import Views

METRICS = (
    "psnr",
    "psnr_seen",
    "psnr_unseen",
    "ssim",
    "lpips",
    "sharpness_seen",
    "abs_rel",
    "abs_rel_median_aligned",
    "delta1",
    "tsed",
    "tsed_matches",
    "warp_distance",
    "warp_overlap",
    "warp_distance_own",
    "warp_overlap_own",
    "seconds",
)
"""Per-scene numbers, in the order of the record; a number that a scene cannot have is NaN."""


TRUTH, NEAREST, TRUE_WARP = "truth", "nearest_reference", "warp_true_depth"
"""Names of the methods that need no model."""
ROUND_TRIP = "autoencoder"
"""The true pictures through the model's image autoencoder: what decoded latents can reach at best."""


@dataclass(frozen=True)
class Prediction:
    """What a method makes of a scene.

    Attributes:
        images: at the target cameras, (M, 3, H, W).
        depths: z-depth in scene units at the target cameras, (M, 1, H, W), or None.
        seconds: wall-clock time the method took.
    """

    images: Float[Tensor, "m 3 h w"]
    depths: Float[Tensor, "m 1 h w"] | None = None
    seconds: float = math.nan


@dataclass(frozen=True)
class SceneTask:
    """One scene under a protocol.

    Attributes:
        references, targets: with depths for synthetic scenes.
        seen: target pixels visible in some reference, (M, 1, H, W), or None where depth is unknown.
        protocol: how they were split.
        factor: what translations (and depths) were multiplied by.
    """

    references: Views
    targets: Views
    seen: Bool[Tensor, "m 1 h w"] | None
    protocol: ViewProtocol
    factor: float = 1.0

    @classmethod
    def from_clip(
        cls, clip: Views, protocol: ViewProtocol, tolerance: float, median_depth: float | None = None
    ) -> SceneTask:
        """Split a clip; seen masks follow from true depth with a relative ``tolerance``.

        With ``median_depth`` the scene is scaled so that the points that match between its references lie at this
        median depth; a scene whose references do not match (a single one never does) keeps its units.
        """
        references, targets = protocol.split(clip)
        depth = None if median_depth is None else matched_depth(references)
        factor = 1.0 if median_depth is None or depth is None else median_depth / depth
        references, targets = _scaled(references, factor), _scaled(targets, factor)
        seen = None if clip.depths is None else seen_mask(references, targets, tolerance)
        return cls(references, targets, seen, protocol, factor)

    def model_input(self) -> Views:
        """The references as a model may see them: pictures and cameras, no true depth."""
        return Views(self.references.images, self.references.cameras)


def score_prediction(
    prediction: Prediction,
    task: SceneTask,
    config: TSEDConfig,
    perceptual: PerceptualDistance | None = None,
    warp: WarpMetric | None = None,
) -> dict[str, Any]:
    """All `METRICS` of one method on one scene, and the TSED curve under ``tsed_curve``.

    PSNR and SSIM are per image, then averaged over the targets; images without enough (un)seen pixels are left out of
    the masked means. LPIPS is there where ``perceptual`` is given, distances after a warp (`warp_scores`) where
    ``warp`` is. TSED is measured along the whole path with the references' own pictures in their places.
    """
    images, truth = prediction.images.clamp(0, 1), task.targets.images
    scores: dict[str, Any] = dict.fromkeys(METRICS, math.nan)
    scores |= {
        "psnr": float(psnr(images, truth).mean()),
        "ssim": float(ssim(images, truth).mean()),
        "seconds": prediction.seconds,
    }
    if perceptual is not None:
        scores["lpips"] = float(perceptual(images, truth).mean())
    if task.seen is not None:
        scores |= {
            "psnr_seen": float(psnr(images, truth, task.seen).nanmean()),
            "psnr_unseen": float(psnr(images, truth, ~task.seen).nanmean()),
            "sharpness_seen": float(sharpness(images, truth, task.seen)),
        }
    if prediction.depths is not None and task.targets.depths is not None:
        plain = depth_scores(prediction.depths, task.targets.depths)
        aligned = depth_scores(prediction.depths, task.targets.depths, alignment="median")
        scores |= {"abs_rel": plain.abs_rel, "delta1": plain.delta1, "abs_rel_median_aligned": aligned.abs_rel}
    if warp is not None:
        scores |= warp_scores(prediction, task, warp)
    path = path_images(task, images)
    summary = tsed(path, path_cameras(task), config).summary(config)
    return scores | {"tsed": summary["tsed"], "tsed_matches": summary["matches"], "tsed_curve": summary["curve"]}


def _scaled(views: Views, factor: float) -> Views:
    if factor == 1:
        return views
    depths = None if views.depths is None else views.depths * factor
    return replace(views, cameras=views.cameras.scaled(factor), depths=depths)


def warp_scores(prediction: Prediction, task: SceneTask, metric: WarpMetric) -> dict[str, float]:
    """Distances and overlaps of neighbouring views after a warp, by two kinds of depth that are never mixed.

    ``warp_distance``: along the whole path, references' own pictures included, by true depth: do the pictures show the
    true scene's surfaces? ``warp_distance_own``: among the targets, by the depth that the method itself renders there:
    do its pictures fit its own scene? A number whose depth is unknown is missing.
    """
    order = task.protocol.in_path_order
    scores: dict[str, float] = {}
    parts = [metric.extractor(to_uint8(part)) for part in (task.references.images, prediction.images)]
    if task.references.depths is not None and task.targets.depths is not None:
        depths = order(task.references.depths, task.targets.depths)
        views = Views(path_images(task, prediction.images), path_cameras(task), depths)
        found = warp_distances(order(*parts), views, tolerance=metric.tolerance)
        scores |= {"warp_distance": found.mean, "warp_overlap": found.mean_overlap}
    if prediction.depths is not None:
        along = torch.tensor(task.protocol.targets).argsort()
        views = Views(prediction.images, task.targets.cameras, prediction.depths)[along]
        found = warp_distances(parts[1][along], views, tolerance=metric.tolerance)
        scores |= {"warp_distance_own": found.mean, "warp_overlap_own": found.mean_overlap}
    return scores


def path_images(task: SceneTask, images: Float[Tensor, "m 3 h w"]) -> Float[Tensor, "v 3 h w"]:
    """A method's pictures of the targets in path order, with the references' own pictures in their places."""
    return task.protocol.in_path_order(task.references.images, images)


def path_cameras(task: SceneTask) -> Cameras:
    """All cameras of a scene in path order."""
    one, two = task.references.cameras, task.targets.cameras
    order = task.protocol.in_path_order
    return Cameras(order(one.w2c, two.w2c), order(one.k, two.k), one.height, one.width)
