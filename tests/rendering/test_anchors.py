"""Anchors lie on the surface, everywhere on it, and are the same every time."""

from __future__ import annotations

import pytest
import torch

from latent3d.rendering.anchors import surface_anchors

HALF = 0.45


def ball(radius, centre=(0.0, 0.0, 0.0), density=1e4):
    middle = torch.tensor(centre)

    def field(points):
        return density * ((points - middle).norm(dim=-1) < radius).float(), points.abs()

    return field


def both(*fields):
    """One object per field."""

    def field(points):
        found = [one(points[i : i + 1]) for i, one in enumerate(fields)]
        return torch.cat([d for d, _ in found]), torch.cat([c for _, c in found])

    return field


def test_anchors_of_balls_lie_just_under_their_surface_all_around():
    """Two balls: one with more surface cells than points, one with fewer."""
    radii = (0.35, 0.08)
    anchors = surface_anchors(both(ball(radii[0]), ball(radii[1])), 2, 600, HALF, coarse=16, refine=2)
    cell = 0.9 / 32
    for points, radius in zip(anchors.points, radii, strict=True):
        distance = points.norm(dim=-1)
        assert (distance < radius + cell).all()  # a cell's middle is inside, its other points may stick out
        assert (distance > radius - 2 * cell).all()
        assert len(points.unique(dim=0)) == 600
        octants = (points > 0).long() @ torch.tensor([4, 2, 1])
        counts = torch.bincount(octants, minlength=8)
        assert counts.min() > 0.7 * 75
        assert counts.max() < 1.3 * 75
    # a sphere of area 4 pi r^2 with 600 points: the spacing is about what is left for each
    assert float(anchors.spacing[0]) == pytest.approx((4 * torch.pi * 0.35**2 / 600) ** 0.5, rel=0.3)
    assert anchors.spacing[1] < anchors.spacing[0]
    # where there are enough cells, every point is the middle of one
    middles = (anchors.points[0] + HALF) / cell - 0.5
    torch.testing.assert_close(middles, middles.round(), atol=1e-3, rtol=0)


def test_finding_is_exact_about_the_fine_cells():
    """Against asking everywhere at the fine resolution."""
    field = ball(0.2, (0.1, -0.05, 0.02), density=200.0)
    coarse = surface_anchors(field, 1, 3000, HALF, coarse=8, refine=4)
    side = 32
    steps = torch.arange(side)
    centres = (torch.cartesian_prod(steps, steps, steps) + 0.5) * (0.9 / side) - HALF
    inside = (field(centres[None])[0][0] > 0).reshape(side, side, side)
    border = torch.nn.functional.pad(inside, [1] * 6)
    core = slice(1, -1)
    exposed = ~(
        border[:-2, core, core] & border[2:, core, core] & border[core, :-2, core] & border[core, 2:, core]
        & border[core, core, :-2] & border[core, core, 2:]
    )  # fmt: skip
    expected = torch.nonzero(inside & exposed)
    found = ((coarse.points[0] + HALF) / (0.9 / side)).floor().long().unique(dim=0)
    assert torch.equal(found, expected)


def test_chunks_and_calls_do_not_matter():
    field = both(ball(0.3), ball(0.2, (0.1, 0.1, 0.1)))
    first = surface_anchors(field, 2, 100, HALF, coarse=8, refine=2)
    again = surface_anchors(field, 2, 100, HALF, coarse=8, refine=2, chunk=37)
    assert torch.equal(first.points, again.points)
    corner = ball(0.12, (-0.4, -0.4, -0.4))  # with cells at the corner of the box, and fewer than the other
    pair = surface_anchors(both(ball(0.3), corner), 2, 100, HALF, coarse=8, refine=2)
    alone = surface_anchors(corner, 1, 100, HALF, coarse=8, refine=2)
    assert torch.equal(alone.points[0], pair.points[1])
    assert torch.equal(first.points[0], pair.points[0])


def test_soft_and_empty_fields_have_anchors_too():
    def fog(points):
        return torch.exp(-20 * points.norm(dim=-1)), points

    found = surface_anchors(both(fog, ball(0.0), ball(2.0)), 3, 200, HALF, coarse=8, refine=2)
    assert found.points.isfinite().all()
    assert found.points.abs().max() <= HALF
    assert found.points[0].norm(dim=-1).max() < 0.2  # where the fog is densest
    assert ((HALF - found.points[2].abs().amax(-1)) <= 0.9 / 16).all()  # a full box: its faces
    with pytest.raises(ValueError, match="must be positive"):
        surface_anchors(fog, 1, 0, HALF)
