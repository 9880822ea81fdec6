"""Surfaces of fields on grids: where they lie, that they are closed and manifold for any signs, and their gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from latent3d.rendering import flexicubes_tables as tables
from latent3d.rendering.flexicubes import extract_surface, flexicubes_regularizers, surface_cells
from latent3d.representations.mesh import Mesh
from latent3d.representations.sdf_grid import SdfGrid, bounded_deformation, grid_points

HALF = 0.45


def sphere(points, radius=0.3):
    return points.norm(dim=-1) - radius


def torus(points, large=0.27, small=0.11):
    return torch.hypot(torch.hypot(points[:, 0], points[:, 1]) - large, points[:, 2]) - small


def box(points, half=(0.3, 0.2, 0.25)):
    beyond = points.abs() - torch.tensor(half, dtype=points.dtype)
    return beyond.clamp_min(0).norm(dim=-1) + beyond.amax(-1).clamp_max(0)


def as_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices.detach().double().numpy(), mesh.faces.numpy(), process=False)


def assert_manifold(mesh: Mesh) -> None:
    """Every directed edge once and its reverse once; the triangles around every vertex form one ring."""
    faces = mesh.faces.numpy()
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert (faces != np.roll(faces, 1, 1)).all()
    assert len(np.unique(directed, axis=0)) == len(directed)
    assert {tuple(pair) for pair in directed} == {tuple(pair) for pair in directed[:, ::-1]}
    following: dict[int, dict[int, int]] = {}
    for a, b, c in faces.tolist():
        for one, two, three in ((a, b, c), (b, c, a), (c, a, b)):
            following.setdefault(one, {})[two] = three
    for ring in following.values():
        start = here = next(iter(ring))
        for _ in range(len(ring)):
            here = ring[here]
            if here == start:
                break
        seen, here = 1, ring[start]
        while here != start:
            seen, here = seen + 1, ring[here]
        assert seen == len(ring)


def noise_grid(seed: int, n: int = 7, smooth: bool = False, rich: bool = True) -> SdfGrid:
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(n + 1, n + 1, n + 1, generator=draw, dtype=torch.float64)
    if smooth:
        values = F.avg_pool3d(F.pad(values, (1,) * 6)[None, None], 3, 1)[0, 0]
    grid = SdfGrid(values, HALF).closed()
    if not rich:
        return grid
    deformation = torch.randn(n + 1, n + 1, n + 1, 3, generator=draw, dtype=torch.float64)
    weights = torch.randn(n, n, n, 21, generator=draw, dtype=torch.float64)
    return replace(grid, deformation=bounded_deformation(deformation, grid.spacing), weights=weights)


def test_tables_of_known_cases():
    found = tables.derive_tables()
    assert found.patch_count[0, 0] == found.patch_count[0, 255] == 0
    for corner in range(8):
        patches = found.patch_of_edge[0, 1 << corner]
        assert sorted(torch.nonzero(patches >= 0)[:, 0].tolist()) == [
            edge for edge in range(12) if corner in tables.edge_ends(edge)
        ]
    assert found.patch_count[0, 0b10010110] == 4  # opposite corners inside: a patch around each of the four
    assert found.patch_count[0, 0b10000001] == 2
    assert found.patch_count[0, 0b00001111] == 1


def test_tables_have_a_closed_loop_per_patch_and_split_it_where_it_meets_itself():
    found = tables.derive_tables()
    assert (found.pinched_face >= 0).sum() == 36  # 24 turns of one pattern of five corners, 12 of one of six
    assert torch.equal(found.patch_count[1] - found.patch_count[0], (found.pinched_face >= 0).long())
    for row in range(2):
        for case in range(256):
            crossed = [(case >> a & 1) != (case >> b & 1) for a, b in found.edge_corners.tolist()]
            assert (found.patch_of_edge[row, case] >= 0).tolist() == crossed
            face = int(found.pinched_face[case]) if row else -1
            patches, links = tables.trace_patches(case, face)
            for edge in range(12):
                assert sum(edge in pair for pairs in links.values() for pair in pairs) == (2 if crossed[edge] else 0)
            if face >= 0:
                assert len({patches[edge] for pair in links[face] for edge in pair}) == 2


@pytest.mark.parametrize(
    ("field", "euler", "volume"),
    [
        (sphere, 2, 4 / 3 * np.pi * 0.3**3),
        (torus, 0, 2 * np.pi**2 * 0.27 * 0.11**2),
        (box, 2, 0.6 * 0.4 * 0.5),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_known_shapes(field, euler, volume, training):
    grid = SdfGrid.from_function(field, HALF, 32)
    mesh = extract_surface(grid, training=training).mesh
    solid = as_trimesh(mesh)
    assert_manifold(mesh)
    assert solid.is_watertight
    assert solid.euler_number == euler
    assert abs(solid.volume / volume - 1) < 0.03  # positive: the normals point outwards
    assert field(mesh.vertices).abs().max() < (0.5 if field is box else 0.15) * grid.spacing


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.booleans(), st.booleans())
def test_any_signs_give_a_manifold(seed, smooth, training):
    grid = noise_grid(seed, smooth=smooth)
    surface = extract_surface(grid, training=training)
    assert_manifold(surface.mesh)
    assert as_trimesh(surface.mesh).is_watertight
    assert surface.mesh.vertices.isfinite().all()


def test_noise_needs_the_second_row_of_the_tables():
    """Without the remedy for faces on which a patch meets itself, some edge has four triangles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "latent3d.rendering.flexicubes._joined_cells", lambda cells, case, *_: torch.zeros_like(case).bool()
        )
        mesh = extract_surface(noise_grid(0, 10)).mesh
    assert not as_trimesh(mesh).is_watertight
    assert_manifold(extract_surface(noise_grid(0, 10)).mesh)


def test_points_of_the_grid_are_where_it_says():
    points = grid_points(HALF, 4, dtype=torch.float64)
    index = torch.tensor([[0, 2, 4], [1, 0, 3]])
    expected = torch.tensor([[-0.45, 0.0, 0.45], [-0.225, -0.45, 0.225]], dtype=torch.float64)
    offsets = torch.randn(5, 5, 5, 3, dtype=torch.float64)
    grid = SdfGrid(points[..., 0], HALF)
    for found in (points[tuple(index.T)], grid.positions(index)):
        torch.testing.assert_close(found, expected)
    moved = replace(grid, deformation=offsets).positions(index)
    torch.testing.assert_close(moved, expected + offsets[tuple(index.T)])
    assert bounded_deformation(100 * offsets, grid.spacing).abs().max() <= grid.spacing / 2
    assert (grid.closed().values[[0, -1]] > 0).all()
    assert torch.equal(grid.closed().values[1:-1, 1:-1, 1:-1], grid.values[1:-1, 1:-1, 1:-1])


def test_vertices_stay_in_their_cells_and_weights_move_them():
    grid = replace(noise_grid(3, rich=False), weights=5 * torch.randn(7, 7, 7, 21, dtype=torch.float64))
    plain = extract_surface(replace(grid, weights=None))
    surface = extract_surface(grid)
    counts = tables.derive_tables().patch_count
    assert len(surface.deviation) >= int(counts[0, surface_cells(grid.values)[1]].sum())
    low = (surface.mesh.vertices + HALF) / grid.spacing
    cells = {tuple(cell) for cell in surface.cells.tolist()}
    assert all(tuple(cell) in cells for cell in low.floor().long().tolist())
    assert not torch.allclose(surface.mesh.vertices, plain.mesh.vertices)
    only = extract_surface(replace(grid, weights=None), cell_weights=grid.weights[tuple(surface.cells.T)])
    assert torch.equal(only.mesh.vertices, surface.mesh.vertices)


def test_linear_fields_are_met_exactly():
    """A plane's vertices lie on it and take the colour of their place, however the grid is deformed."""
    normal = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64)
    grid = noise_grid(1)
    grid = replace(grid, deformation=0.3 * grid.deformation)  # beyond that, cells are skew enough to fold triangles
    points = grid_points(HALF, 7, dtype=torch.float64) + grid.deformation
    weights = 0.3 * grid.weights
    weights[..., :8] = 0
    grid = replace(grid, values=points @ normal - 0.01, weights=weights, colors=points + 0.5)
    mesh = extract_surface(grid, training=True).mesh
    assert len(mesh) > 100
    torch.testing.assert_close(mesh.vertices @ normal, torch.full_like(mesh.vertices[:, 0], 0.01))
    torch.testing.assert_close(mesh.colors, mesh.vertices + 0.5)
    assert (mesh.face_normals() @ normal > 0).all()


def test_deviation_of_a_known_cell():
    """Corner 0 of one cell inside, crossings at 1/2, 1/2 and 1/4 of the edges."""
    values = torch.ones(2, 2, 2, dtype=torch.float64)
    values[0, 0, 0], values[0, 0, 1] = -1, 3
    surface = extract_surface(SdfGrid(values, 0.5))
    points = np.diag([0.5, 0.5, 0.25])
    distance = np.linalg.norm(points - points.mean(0), axis=1)
    assert len(surface.mesh) == 0  # no edge has four cells
    np.testing.assert_allclose(surface.deviation.numpy(), [np.abs(distance - distance.mean()).mean()])


def test_gradients_against_finite_differences():
    grid = noise_grid(5, 4)

    def outputs(values, deformation, weights, colors):
        surface = extract_surface(replace(grid, values=values, deformation=deformation, weights=weights, colors=colors))
        dense = extract_surface(
            replace(grid, values=values, deformation=deformation, weights=weights, colors=colors), training=True
        )
        here = replace(grid, values=values)
        terms = flexicubes_regularizers(here, surface)
        return dense.mesh.vertices, dense.mesh.colors, surface.deviation, terms["deviation"], terms["weights"]

    draw = torch.Generator().manual_seed(0)
    values = torch.where(grid.values < 0, grid.values - 0.1, grid.values + 0.1)  # so that no step changes a sign
    colors = torch.rand(5, 5, 5, 3, generator=draw, dtype=torch.float64)
    inputs = [values, grid.deformation, grid.weights, colors]
    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(outputs, inputs, fast_mode=True)


def test_deviation_and_weights_fall_along_their_gradients():
    grid = noise_grid(2)
    weights = grid.weights.clone().requires_grad_()
    here = replace(grid, weights=weights)
    terms = flexicubes_regularizers(here, extract_surface(here))
    assert set(terms) == {"entropy", "deviation", "weights"}
    for name in ("deviation", "weights"):
        (slope,) = torch.autograd.grad(terms[name], weights, retain_graph=True)
        after = replace(grid, weights=weights.detach() - 1e-3 * slope / slope.abs().max())
        assert flexicubes_regularizers(after, extract_surface(after))[name] < terms[name]


def test_entropy_draws_both_ends_of_crossed_edges_towards_zero():
    """So that the weaker one changes its sign; two cells apart from the surface, nothing is drawn."""
    grid = SdfGrid.from_function(sphere, HALF, 16, dtype=torch.float64)
    values = grid.values.clone().requires_grad_()
    here = replace(grid, values=values)
    (slope,) = torch.autograd.grad(flexicubes_regularizers(here, extract_surface(here))["entropy"], values)
    assert (slope * values >= 0).all()
    assert (slope != 0).sum() > 500
    assert (slope[values.abs() > 1.01 * grid.spacing] == 0).all()


def test_a_field_without_a_surface_has_an_empty_mesh_and_no_terms():
    empty = SdfGrid(torch.ones(4, 4, 4), HALF)
    surface = extract_surface(empty, training=True)
    assert len(surface.mesh) == 0
    terms = flexicubes_regularizers(empty, surface)
    assert set(terms) == {"entropy", "deviation", "weights"}
    assert all(term == 0 for term in terms.values())


def test_entropy_does_not_depend_on_the_scale_of_the_field():
    grid = noise_grid(4)
    scaled = replace(grid, values=grid.values * 50)
    one, other = (flexicubes_regularizers(g, extract_surface(g))["entropy"] for g in (grid, scaled))
    torch.testing.assert_close(one, other)


def test_adam_pulls_a_sphere_onto_a_box():
    """Gradients of a loss on the vertices alone move the surface by several cells, through changes of connectivity."""
    start = SdfGrid.from_function(lambda p: sphere(p, 0.22), HALF, 16)
    values = start.values.clone().requires_grad_()
    deformation = torch.zeros(17, 17, 17, 3, requires_grad=True)
    weights = torch.zeros(16, 16, 16, 21, requires_grad=True)
    optimizer = torch.optim.Adam([values, deformation, weights], lr=0.02)

    def distance():
        grid = SdfGrid(values, HALF, bounded_deformation(deformation, start.spacing), weights)
        surface = extract_surface(grid, training=True)
        terms = flexicubes_regularizers(grid, surface)
        return box(surface.mesh.vertices), 1e-4 * (terms["deviation"] + terms["weights"]), surface

    before = distance()[0].abs().mean()
    for _ in range(60):
        optimizer.zero_grad()
        miss, penalty, _ = distance()
        (miss.square().mean() + penalty * start.spacing).backward()
        optimizer.step()
    miss, _, surface = distance()
    assert before > 0.8 * start.spacing
    assert miss.abs().mean() < 0.1 * start.spacing
    assert_manifold(surface.mesh)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="as many weights"):
        SdfGrid(torch.ones(4, 4, 4), HALF, weights=torch.zeros(4, 4, 4, 21))
    with pytest.raises(ValueError, match="two points"):
        SdfGrid(torch.ones(1, 1, 1), HALF)
    grid = SdfGrid.from_function(sphere, HALF, 6)
    with pytest.raises(ValueError, match="found weights of shape"):
        extract_surface(grid, cell_weights=torch.zeros(3, 21))
    with pytest.raises(ValueError, match="not both"):
        extract_surface(replace(grid, weights=torch.zeros(6, 6, 6, 21)), cell_weights=torch.zeros(3, 21))


def test_autocast_changes_nothing():
    grid = noise_grid(6)
    plain = extract_surface(grid).mesh.vertices
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(extract_surface(grid).mesh.vertices, plain)
