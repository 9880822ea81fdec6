"""Depth scores, with the alignment always named: without one, only a metric depth can score well."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

ALIGNMENTS = ("none", "median", "scale_shift", "scale_shift_disparity")
MIN_DEPTH = 1e-6
"""Aligned depth is clipped to this from below, in scene units."""


class DepthScores(NamedTuple):
    """Scores over the valid pixels of one depth map (or of all maps given together)."""

    abs_rel: float
    sq_rel: float
    rmse: float
    rmse_log: float
    log10: float
    delta1: float
    delta2: float
    delta3: float
    pixels: int


def fit_scale_shift(
    prediction: Float[Tensor, "*batch"], target: Float[Tensor, "*batch"], mask: Bool[Tensor, "*batch"] | None = None
) -> tuple[float, float]:
    """Closed-form least squares (s, t) of s * prediction + t ~ target over the mask, in float64.

    Raises:
        ValueError: if the fit is not determined (fewer than two different predictions under the mask).
    """
    keep = torch.ones_like(prediction, dtype=torch.bool) if mask is None else mask
    p, d = prediction[keep].double(), target[keep].double()
    a00, a01, a11 = p.square().sum(), p.sum(), float(p.numel())
    b0, b1 = (p * d).sum(), d.sum()
    det = a00 * a11 - a01.square()
    if p.numel() < 2 or det <= 0:
        raise ValueError("scale and shift are not determined: the predicted depth is constant under the mask")
    return float((a11 * b0 - a01 * b1) / det), float((a00 * b1 - a01 * b0) / det)


def align_depth(
    prediction: Float[Tensor, "*batch"],
    target: Float[Tensor, "*batch"],
    mask: Bool[Tensor, "*batch"],
    alignment: str,
) -> Float[Tensor, "*batch"]:
    """Predicted depth brought to the target's scale over ``mask``; clipped to `MIN_DEPTH` from below.

    ``median`` multiplies by the ratio of medians; ``scale_shift`` fits in depth; ``scale_shift_disparity`` fits inverse
    depths (MiDaS) and inverts the result.

    Raises:
        ValueError: for an unknown alignment or an undetermined fit.
    """
    if alignment == "none":
        return prediction.clamp_min(MIN_DEPTH)
    if alignment == "median":
        ratio = target[mask].median() / prediction[mask].median().clamp_min(MIN_DEPTH)
        return (prediction * ratio).clamp_min(MIN_DEPTH)
    if alignment == "scale_shift":
        scale, shift = fit_scale_shift(prediction, target, mask)
        return (scale * prediction + shift).clamp_min(MIN_DEPTH)
    if alignment == "scale_shift_disparity":
        disparity = 1 / prediction.clamp_min(MIN_DEPTH)
        scale, shift = fit_scale_shift(disparity, 1 / target.clamp_min(MIN_DEPTH), mask)
        return 1 / (scale * disparity + shift).clamp_min(MIN_DEPTH)
    raise ValueError(f"unknown depth alignment '{alignment}'; choose one of {', '.join(ALIGNMENTS)}")


def non_flatness(depths: Float[Tensor, "n h w"], near: float, far: float, *, bins: int = 64) -> float:
    """Non-flatness score (3DGP, Skorokhodov et al. 2023): mean over maps of exp(entropy of the depth histogram).

    From 1 (all pixels at one depth) to ``bins`` (evenly spread); depends on the range and on noise, so that scores of
    different ranges do not compare.

    Args:
        depths: N depth maps in scene units, clamped to [near, far].
        near, far: the range of the histogram.
        bins: cells of the histogram.

    Raises:
        ValueError: unless near < far.
    """
    if not near < far:
        raise ValueError(f"the non-flatness score needs near < far, found {near} and {far}")
    scores = []
    for depth in depths.double():
        share = torch.histc(depth.clamp(near, far), bins, near, far) / depth.numel()
        scores.append(float(torch.exp(-(share * (share + 1e-12).log()).sum())))
    return sum(scores) / len(scores)


def depth_scores(
    prediction: Float[Tensor, "*batch"],
    target: Float[Tensor, "*batch"],
    mask: Bool[Tensor, "*batch"] | None = None,
    *,
    alignment: str = "none",
    cap: float | None = None,
) -> DepthScores:
    """Scores of a predicted depth map over the pixels with ``target > 0`` (and under the mask).

    AbsRel = mean |p - d| / d, SqRel = mean (p - d)^2 / d, RMSE, RMSE of log, mean |log10 p - log10 d|, and the shares
    of pixels with max(p / d, d / p) < 1.25^k for k = 1, 2, 3 (Eigen et al. 2014). A predicted 0 counts as wrong.

    Args:
        prediction, target: z-depth in scene units, equal shapes.
        mask: pixels that count.
        alignment: what is fitted before scoring; "none" asks for the true scale.
        cap: targets beyond this depth do not count (80 m for KITTI, 10 m for NYU).

    Raises:
        ValueError: if no pixel is valid or the alignment is undetermined.
    """
    valid = (target > 0) & torch.isfinite(target)
    if mask is not None:
        valid = valid & mask
    if cap is not None:
        valid = valid & (target <= cap)
    if not bool(valid.any()):
        raise ValueError("no pixel has a true depth to compare with; give depths above 0 or another mask")
    p, d = align_depth(prediction, target, valid, alignment)[valid].double(), target[valid].double()
    gap, ratio, log_gap = p - d, torch.maximum(p / d, d / p), p.log() - d.log()
    return DepthScores(
        abs_rel=float((gap.abs() / d).mean()),
        sq_rel=float((gap.square() / d).mean()),
        rmse=float(gap.square().mean().sqrt()),
        rmse_log=float(log_gap.square().mean().sqrt()),
        log10=float(log_gap.abs().mean()) / 2.302585092994046,
        delta1=float((ratio < 1.25).double().mean()),
        delta2=float((ratio < 1.25**2).double().mean()),
        delta3=float((ratio < 1.25**3).double().mean()),
        pixels=int(valid.sum()),
    )
