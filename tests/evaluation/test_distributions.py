import pytest
import torch

from latent3d.evaluation.distributions import (
    clip_features,
    embedding_similarity,
    frechet_distance,
    frechet_distance_of_moments,
    kernel_distance,
    moments,
    precision_recall,
)

X = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def _normal(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_frechet_distance_of_known_moments_is_8():
    eye = torch.eye(4)
    assert frechet_distance_of_moments(torch.zeros(4), eye, torch.ones(4), 4 * eye) == pytest.approx(8, abs=1e-12)


def test_frechet_distance_of_identical_sets_is_0_even_when_singular():
    samples = _normal(20, 32, 0)
    assert frechet_distance(samples, samples) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(samples, samples + 0.5) == pytest.approx(32 * 0.25, abs=1e-5)


def test_frechet_distance_equals_the_eigenvalues_of_the_product():
    x, y = _normal(200, 6, 1), _normal(150, 6, 2) @ _normal(6, 6, 3) + 0.3
    (mx, sx), (my, sy) = moments(x), moments(y)
    roots = torch.linalg.eigvals(sx @ sy).real.sqrt().sum()
    expected = (mx - my).square().sum() + sx.trace() + sy.trace() - 2 * roots
    assert frechet_distance(x, y) == pytest.approx(float(expected), rel=1e-9)
    assert frechet_distance(y, x) == pytest.approx(float(expected), rel=1e-9)


def test_moments_are_unbiased():
    x = _normal(50, 3, 4)
    torch.testing.assert_close(moments(x)[1], torch.cov(x.T))
    with pytest.raises(ValueError, match="two samples"):
        moments(x[:1])


def test_kernel_distance_known_answers():
    assert kernel_distance(X, X + 1).mean == pytest.approx(13.1944, abs=5e-5)
    assert kernel_distance(X, X).mean == pytest.approx(-1.0556, abs=5e-5)


def test_kernel_distance_over_subsets():
    x, y = _normal(60, 4, 5), _normal(60, 4, 6)
    full = kernel_distance(x, y)
    whole = kernel_distance(x, y, subsets=3, subset_size=60)
    assert whole.mean == pytest.approx(full.mean, rel=1e-9)
    assert whole.std == pytest.approx(0, abs=1e-9)
    assert kernel_distance(x, y, subsets=5, subset_size=20, seed=1).std > 0
    with pytest.raises(ValueError, match="subset size"):
        kernel_distance(x, y, subsets=2, subset_size=61)


def test_precision_and_recall_of_the_toy():
    real = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    fake = torch.tensor([[0.1, 0.0], [0.2, 0.0], [5.0, 5.0]])
    scores = precision_recall(real, fake, neighbours=1)
    assert scores.precision == pytest.approx(2 / 3)
    assert scores.recall == 1.0
    with pytest.raises(ValueError, match="neighbours"):
        precision_recall(real, fake)


def test_clip_features_know_standing_from_moving():
    still = torch.ones(3, 4, 2)
    moving = still + torch.tensor([0.0, 1.0, 0.0, 1.0])[:, None] - 0.5
    torch.testing.assert_close(clip_features(still), torch.tensor([1.0, 1, 0, 0]).expand(3, 4))
    torch.testing.assert_close(clip_features(moving), torch.tensor([1.0, 1, 1, 1]).expand(3, 4))
    assert frechet_distance(clip_features(still), clip_features(moving)) == pytest.approx(2)
    with pytest.raises(ValueError, match="one frame"):
        clip_features(still[:, :1])


def test_embedding_similarity_known_answers():
    x = torch.tensor([[1.0, 0], [0, 3]])
    assert embedding_similarity(x, 5 * x) == pytest.approx(100)
    assert embedding_similarity(x, x.flip(0)) == pytest.approx(0)
    assert embedding_similarity(x, torch.tensor([[1.0, 0], [0, -1]])) == pytest.approx(0)
