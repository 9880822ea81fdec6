import pytest
import torch

from latent3d.evaluation.point_clouds import (
    chamfer,
    coverage,
    farthest_points,
    minimum_matching_distance,
    normalized,
    one_nearest_neighbour_accuracy,
    pairwise_chamfer,
    sample_surface,
    seen_from_outside,
)
from latent3d.representations.mesh import Mesh

from .mesh_world import box


def _cloud(n, seed):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def test_the_box_faces_outwards():
    centres = box().corners().mean(1)
    assert bool(((centres * box().face_normals()).sum(1) > 0).all())


def test_points_are_even_over_the_area_and_follow_from_the_seed():
    mesh = Mesh(
        torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 5], [3, 0, 5], [0, 1, 5]]),
        torch.tensor([[0, 1, 2], [3, 4, 5], [0, 0, 1]]),
    )
    points = sample_surface(mesh, 40_000, seed=3)
    torch.testing.assert_close(points, sample_surface(mesh, 40_000, seed=3))
    high = points[:, 2] > 2.5
    assert high.float().mean() == pytest.approx(0.75, abs=0.01)
    torch.testing.assert_close(points[~high].mean(0), torch.tensor([1 / 3, 1 / 3, 0]), atol=0.01, rtol=0)
    # An even density: the second moment of x over the unit triangle is 1/6.
    assert points[~high][:, 0].square().mean() == pytest.approx(1 / 6, abs=0.005)
    with pytest.raises(ValueError, match="no area"):
        sample_surface(Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]])), 8)


def test_the_outer_surface_leaves_out_what_lies_inside():
    inner, outer = box(0.2, 0.2, 0.2), box()
    both = Mesh(torch.cat([inner.vertices, outer.vertices]), torch.cat([inner.faces, outer.faces + 8]))
    assert (sample_surface(both, 500).abs().amax(1) < 0.3).any()
    outside = seen_from_outside(both)
    points = sample_surface(both, 2000, outside=outside)
    assert len(points) == 2000
    torch.testing.assert_close(points.abs().amax(1), torch.full((2000,), 0.4))
    # Nothing of a box is hidden: whoever looks from all around sees all but what a pixel loses at the edges.
    assert outside(sample_surface(outer, 2000)).float().mean() > 0.99


def test_chamfer_known_answers():
    a, b = torch.zeros(1, 3), torch.tensor([[1.0, 0, 0], [0, 2, 0]])
    # From a to b the nearest is at 1; from b to a the squares are 1 and 4.
    assert chamfer(a, b) == pytest.approx(1 + 2.5)
    assert chamfer(b, a) == pytest.approx(1 + 2.5)
    assert chamfer(b, b) == 0


def test_trees_find_what_all_pairs_find():
    one, two = [_cloud(40, i) for i in range(2)], [_cloud(30, i + 5) for i in range(3)]
    squares = [[torch.cdist(x.double(), y.double()).square() for y in two] for x in one]
    expected = torch.tensor(
        [[float(s.min(1).values.mean() + s.min(0).values.mean()) for s in line] for line in squares]
    )
    calls = []
    found = pairwise_chamfer(one, two, lambda done, total: calls.append((done, total)))
    torch.testing.assert_close(found, expected.double())
    assert calls == [(1, 2), (2, 2)]


def test_coverage_and_mmd_of_the_published_matrix():
    matrix = torch.tensor([[5.9e-4, 5.9e-4, 2.88554], [2.87902, 2.88283, 0.00212], [3.07271, 3.07011, 2.60097]])
    assert minimum_matching_distance(matrix) == pytest.approx(0.8679, abs=5e-5)
    assert coverage(matrix) == pytest.approx(2 / 3)


def test_equal_sets_and_one_repeated_shape():
    shapes = [_cloud(20, i) for i in range(5)]
    same = pairwise_chamfer(shapes, shapes)
    assert coverage(same) == 1
    assert minimum_matching_distance(same) == 0
    assert one_nearest_neighbour_accuracy(same, same, same) == 0
    repeated = pairwise_chamfer(shapes, shapes[:1] * 4)
    assert coverage(repeated) == pytest.approx(1 / 5)


def test_1nna_of_far_and_of_mixed_sets():
    def points(values):
        return [torch.tensor([[float(value), 0, 0]]) for value in values]

    def accuracy(one, two):
        sets = [points(one), points(two)]
        return one_nearest_neighbour_accuracy(
            pairwise_chamfer(*sets), pairwise_chamfer(sets[0], sets[0]), pairwise_chamfer(sets[1], sets[1])
        )

    assert accuracy([0, 1, 2], [100, 101, 102]) == 1
    assert accuracy([0, 10, 20], [1, 11, 21]) == 0
    # One of the second set lies among the first: it is mistaken, and so is its nearest neighbour there.
    assert accuracy([0, 5, 6], [1, 100, 101]) == pytest.approx(4 / 6)
    with pytest.raises(ValueError, match="two shapes"):
        one_nearest_neighbour_accuracy(torch.zeros(1, 3), torch.zeros(1, 1), torch.zeros(3, 3))


def test_clouds_are_centred_and_scaled_by_the_longest_side():
    points = normalized(torch.tensor([[1.0, 2, 3], [5, 4, 3], [2, 3, 3]]))
    torch.testing.assert_close(points, torch.tensor([[-1.0, -0.5, 0], [1, 0.5, 0], [-0.5, 0, 0]]))
    with pytest.raises(ValueError, match="coincide"):
        normalized(torch.ones(4, 3))


def test_farthest_points_spread():
    line = torch.tensor([[x, 0.0, 0.0] for x in (0, 1, 2, 9, 10)])
    torch.testing.assert_close(farthest_points(line, 3)[:, 0], torch.tensor([0.0, 10, 2]))
    points = sample_surface(box(), 1024)
    few = farthest_points(points, 64)
    random = points[torch.randperm(1024)[:64]]
    assert torch.pdist(few).min() > 5 * torch.pdist(random).min()
    with pytest.raises(ValueError, match="among 5"):
        farthest_points(line, 6)
