"""Distances between two sets of images, as pure functions of two feature matrices (N, d), always in float64.

Names: with the 2015-12-05 Inception network's pool3 features a Fréchet distance is called FID; with any other extractor
it is FD_<extractor>, and a kernel distance is KD_<extractor> (see `features.score_name`). Both are biased or noisy at
small N: compare only scores of equal N, extractor and resize rule.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class KernelDistance(NamedTuple):
    """Mean and standard deviation over subsets (0 when all samples were used at once)."""

    mean: float
    std: float


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]."""

    precision: float
    recall: float


def moments(features: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Mean and unbiased covariance (division by N - 1).

    Raises:
        ValueError: with fewer than two samples.
    """
    if len(features) < 2:
        raise ValueError("a covariance needs at least two samples; evaluate more images")
    features = features.double()
    mean = features.mean(0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


def frechet_distance(real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"]) -> float:
    """Fréchet distance between Gaussians fitted to two feature sets (Heusel et al. 2017)."""
    return frechet_distance_of_moments(*moments(real), *moments(fake))


def frechet_distance_of_moments(mean_x: Tensor, cov_x: Tensor, mean_y: Tensor, cov_y: Tensor) -> float:
    """|m_x - m_y|^2 + Tr S_x + Tr S_y - 2 Tr (S_x S_y)^(1/2), means (d,) and covariances (d, d).

    The trace of the root is the sum of the roots of the eigenvalues of S_x S_y, which are those of the symmetric
    S_x^(1/2) S_y S_x^(1/2): real and non-negative also when a covariance is singular (fewer samples than dimensions).
    """
    values, vectors = torch.linalg.eigh(cov_x.double())
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    trace = torch.linalg.eigvalsh(root @ cov_y.double() @ root).clamp_min(0).sqrt().sum()
    shift = (mean_x.double() - mean_y.double()).square().sum()
    return max(0.0, float(shift + cov_x.double().trace() + cov_y.double().trace() - 2 * trace))


def kernel_distance(
    real: Float[Tensor, "n d"],
    fake: Float[Tensor, "m d"],
    *,
    subsets: int = 0,
    subset_size: int = 1000,
    seed: int = 0,
) -> KernelDistance:
    """Unbiased squared maximum mean discrepancy with k(x, y) = (x.y / d + 1)^3 (Binkowski et al. 2018).

    The cross term is the full mean. No factor is applied (tables often print x100 or x1000). May be negative.

    Args:
        subsets: number of random subsets without replacement to average over; 0 uses all samples once.
        subset_size: samples per subset; both sets must hold as many.
        seed: of the subsets.

    Raises:
        ValueError: if a set is smaller than a subset, or has fewer than two samples.
    """
    real, fake = real.double(), fake.double()
    if min(len(real), len(fake)) < max(2, subset_size if subsets else 2):
        raise ValueError(f"kernel distance: {len(real)} and {len(fake)} samples are fewer than the subset size")
    if not subsets:
        return KernelDistance(_squared_mmd(real, fake), 0.0)
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(subsets):
        pick = [torch.randperm(len(part), generator=generator)[:subset_size] for part in (real, fake)]
        values.append(_squared_mmd(real[pick[0]], fake[pick[1]]))
    mean = math.fsum(values) / subsets
    return KernelDistance(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / subsets))


def clip_features(features: Float[Tensor, "n f d"]) -> Float[Tensor, "n e"]:
    """One vector per clip from the features of its F frames: their mean, and the mean size of their changes, (N, 2d).

    A stand-in for a video network: the Frechet distance on it sees what frames look like and how much they change from
    one to the next. Its score is called FVD_<extractor> (`score_name`), never FVD.

    Raises:
        ValueError: for clips of one frame.
    """
    if features.shape[1] < 2:
        raise ValueError("a clip of one frame has no motion; give clips of at least two")
    return torch.cat([features.mean(1), features.diff(dim=1).abs().mean(1)], 1)


def embedding_similarity(images: Float[Tensor, "n d"], references: Float[Tensor, "n d"]) -> float:
    """Mean over pairs of 100 cos(image, reference) of two sets of embeddings: CLIP-I where they are CLIP's."""
    return float(100 * torch.nn.functional.cosine_similarity(images.double(), references.double(), dim=1).mean())


def precision_recall(real: Float[Tensor, "n d"], fake: Float[Tensor, "m d"], *, neighbours: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al. 2019).

    Precision is the share of fakes inside any real sample's ball, recall the share of reals inside any fake's ball; a
    ball reaches to the sample's k-th neighbour in its own set, itself not counted. One outlier inflates its set's ball.

    Raises:
        ValueError: if a set has no k-th neighbour.
    """
    real, fake = real.double(), fake.double()
    if min(len(real), len(fake)) <= neighbours:
        raise ValueError(f"precision and recall with {neighbours} neighbours need at least {neighbours + 1} samples")
    across = torch.cdist(real, fake)
    precision = (across <= _radius(real, neighbours)[:, None]).any(0).double().mean()
    recall = (across <= _radius(fake, neighbours)[None, :]).any(1).double().mean()
    return PrecisionRecall(float(precision), float(recall))


def _radius(samples: Tensor, neighbours: int) -> Tensor:
    # Column 0 of the sorted distances is the sample itself.
    return torch.cdist(samples, samples).sort(1).values[:, neighbours]


def _squared_mmd(x: Tensor, y: Tensor) -> float:
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    n, m = len(x), len(y)
    within_x, within_y = kernel(x, x), kernel(y, y)
    mean_x = (within_x.sum() - within_x.trace()) / (n * (n - 1))
    mean_y = (within_y.sum() - within_y.trace()) / (m * (m - 1))
    return float(mean_x + mean_y - 2 * kernel(x, y).mean())
