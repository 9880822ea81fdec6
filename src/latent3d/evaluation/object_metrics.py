"""Scores of objects: pictures and depth of a reconstruction, sets of shapes, likeness to a picture, novelty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent3d.evaluation.distributions import embedding_similarity
from latent3d.evaluation.features import FeatureExtractor, extract, to_uint8
from latent3d.evaluation.geometry_metrics import depth_scores
from latent3d.evaluation.image_metrics import psnr, ssim
from latent3d.evaluation.perceptual import PerceptualDistance
from latent3d.evaluation.point_clouds import (
    CLOUD_POINTS,
    coverage,
    minimum_matching_distance,
    normalized,
    one_nearest_neighbour_accuracy,
    pairwise_chamfer,
    sample_surface,
    seen_from_outside,
)
from latent3d.representations.mesh import Mesh
from latent3d.representations.views import Views

COVERED = 0.5
"""A pixel belongs to the object from this alpha on."""
RECONSTRUCTION_COLUMNS = {
    "psnr": ("PSNR", 2),
    "psnr_foreground": ("object", 2),
    "ssim": ("SSIM", 3),
    "lpips": ("LPIPS", 3),
    "mask_iou": ("mask IoU", 3),
    "depth_error": ("depth error %", 2),
    "abs_rel": ("AbsRel", 4),
    "seconds": ("s/object", 2),
}
"""Numbers of one reconstructed object, in the order of the record: heading and digits."""
PER_MILLE = 1000
SHAPE_DISTANCES = {"cov": ("COV %", ".1f"), "mmd": ("MMD ‰", ".2f"), "1nna": ("1-NNA %", ".1f")}
"""Numbers of a set of shapes: heading and format."""

Cloud = Float[Tensor, "_ 3"]


def reconstruction_scores(
    prediction: Views, truth: Views, side: float, perceptual: PerceptualDistance | None = None
) -> dict[str, Any]:
    """Scores of renderings against the truth at the same cameras, as means over the V views; NaN where there is none.

    PSNR per image over white, then averaged, and the same over the pixels of the true object; SSIM; intersection over
    union of the masks. Depth is judged where both show the object, without any alignment: the mean distance in percent
    of ``side``, and AbsRel.

    Args:
        prediction, truth: (V,) with alphas; depths where they are known.
        side: of the box that holds the objects, in scene units.
        perceptual: gives LPIPS.

    Raises:
        ValueError: if the views have no alphas.
    """
    if prediction.alphas is None or truth.alphas is None:
        raise ValueError("objects are judged by pictures with alpha; render them with alphas")
    inside, covered = truth.alphas >= COVERED, prediction.alphas >= COVERED
    union = (inside | covered).sum((1, 2, 3))
    overlap = (inside & covered).sum((1, 2, 3)) / union.clamp_min(1)
    out: dict[str, Any] = dict.fromkeys(RECONSTRUCTION_COLUMNS, math.nan)
    out |= {
        "psnr": float(psnr(prediction.images, truth.images).mean()),
        "psnr_foreground": float(psnr(prediction.images, truth.images, inside).nanmean()),
        "ssim": float(ssim(prediction.images.clamp(0, 1), truth.images).mean()),
        "mask_iou": float(torch.where(union > 0, overlap, torch.ones_like(overlap)).mean()),
    }
    if perceptual is not None:
        out["lpips"] = float(perceptual(prediction.images, truth.images).mean())
    if prediction.depths is not None and truth.depths is not None:
        both = inside & covered & (prediction.depths > 0) & (truth.depths > 0)
        if bool(both.any()):
            gap = (prediction.depths - truth.depths).abs()[both]
            out["depth_error"] = 100 * float(gap.double().mean()) / side
            out["abs_rel"] = depth_scores(prediction.depths, truth.depths, both).abs_rel
    return out


def picture_similarity(extractor: FeatureExtractor, images: Tensor, reference: Tensor) -> float:
    """Mean over renderings (V, 3, H, W) of 100 cos to the embedding of one picture (3, H, W), both over white.

    CLIP-I where the embeddings are CLIP's; average it over objects.
    """
    embeddings = extract(extractor, to_uint8(images))
    return embedding_similarity(embeddings, extract(extractor, to_uint8(reference[None])).expand_as(embeddings))


def cloud_of(mesh: Mesh, points: int = CLOUD_POINTS, *, outer: bool = True) -> Cloud:
    """Points on a mesh's (outer) surface, centred and scaled to [-1, 1], (points, 3); (0, 3) for a mesh without area.

    All clouds are drawn with one seed: equal meshes have equal clouds.
    """
    if len(mesh) == 0 or not bool(mesh.face_normals().any()):
        return torch.zeros(0, 3)
    return normalized(sample_surface(mesh, points, outside=seen_from_outside(mesh) if outer else None))


def shape_distances(references: Sequence[Cloud], generated: Sequence[Cloud]) -> dict[str, float | int]:
    """COV and 1-NNA in percent, MMD in per mille; samples without a surface do not count and are counted.

    1-NNA is there where both sets hold as many shapes, since otherwise the larger one decides it.

    Raises:
        ValueError: without references.
    """
    if not references:
        raise ValueError("coverage needs references; give at least one held-back shape")
    whole = [cloud for cloud in generated if len(cloud)]
    out: dict[str, float | int] = {"without_surface": len(generated) - len(whole)}
    if not whole:
        return out | {"cov": 0.0}
    between = pairwise_chamfer(references, whole)
    out |= {"cov": 100 * coverage(between), "mmd": PER_MILLE * minimum_matching_distance(between)}
    if len(references) == len(whole) > 1:
        own = pairwise_chamfer(references, references), pairwise_chamfer(whole, whole)
        out["1nna"] = 100 * one_nearest_neighbour_accuracy(between, *own)
    return out


def nearest_shapes(
    clouds: Sequence[Cloud], training: Sequence[Cloud], skip: Sequence[int] | None = None
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Distance (per mille) and number of the nearest training shape of each cloud; infinite and -1 without a surface.

    Args:
        skip: per cloud the number of a training shape that does not count: itself, where it is one.
    """
    distances, numbers = torch.full((len(clouds),), math.inf, dtype=torch.float64), torch.full((len(clouds),), -1)
    for i, cloud in enumerate(clouds):
        if len(cloud):
            row = pairwise_chamfer([cloud], training)[0]
            if skip is not None:
                row[skip[i]] = math.inf
            distances[i], numbers[i] = PER_MILLE * row.min(), row.argmin()
    return distances, numbers
