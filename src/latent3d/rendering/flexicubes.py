"""Differentiable surfaces of fields on grids: FlexiCubes (Shen et al. 2023, "Flexible Isosurface Extraction for
Gradient-Based Mesh Optimization"), with the connectivity of manifold dual marching cubes.

Letters: K cells that the surface enters; P pairs of such a cell with one of its crossed edges; M vertices, one per
patch of surface in a cell; E crossed edges of the grid; Q quadrilaterals, one per crossed edge with four cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from latent3d.geometry.precision import full_precision
from latent3d.rendering.flexicubes_tables import derive_tables
from latent3d.representations.mesh import Mesh
from latent3d.representations.sdf_grid import CUBE_WEIGHTS, SdfGrid

WEIGHT_SCALE = 0.99
"""alpha and beta lie in 1 +- this, gamma in (1 +- this) / 2: always positive, so that vertices stay in their cells."""
QUADRANTS = torch.tensor([0, 1, 3, 2])
"""Place i of an edge in a cell (see flexicubes_tables) -> turn at which the cell comes, counter-clockwise about the
edge, among the four that share it."""


@dataclass(frozen=True)
class FlexiCubesSurface:
    """What `extract_surface` finds; differentiable with respect to values, deformation, weights and colours.

    Attributes:
        mesh: the surface; its first M vertices are those of the patches, in training followed by one per quadrilateral.
        deviation: mean absolute deviation of the distances between each patch's vertex and the points where its edges
            cross the surface, scene units, (M,).
        cells: x, y, z numbers of the cells that the surface enters, (K, 3).
        weights: what these cells' weights were before any activation, (K, 21), or None.
        edges: values of the field at the lower and upper end of each crossed edge of the grid, (E, 2).
    """

    mesh: Mesh
    deviation: Float[Tensor, " v"]
    cells: Int[Tensor, "k 3"]
    weights: Float[Tensor, "k 21"] | None
    edges: Float[Tensor, "e 2"]


@torch.no_grad()
def surface_cells(values: Float[Tensor, "m m m"]) -> tuple[Int[Tensor, "k 3"], Int[Tensor, " k"]]:
    """Numbers of the cells whose corners are not all on one side, in order, and their cases (see flexicubes_tables)."""
    inside = values < 0
    n = values.shape[0] - 1
    case = torch.zeros((n, n, n), dtype=torch.uint8, device=values.device)
    for corner in range(8):
        x, y, z = corner & 1, corner >> 1 & 1, corner >> 2
        case |= inside[x : x + n, y : y + n, z : z + n].to(torch.uint8) << corner
    cells = torch.nonzero((case > 0) & (case < 255))
    return cells, case[tuple(cells.T)].long()


def extract_surface(
    grid: SdfGrid, *, cell_weights: Float[Tensor, "k 21"] | None = None, training: bool = False
) -> FlexiCubesSurface:
    """Triangles of the zero set of a field, outward normals towards positive values.

    Every edge of the mesh is shared by exactly two triangles, whatever the signs, except along a rim where the surface
    leaves the grid (`SdfGrid.closed` prevents it). A field without a change of sign has an empty mesh. Only cells at
    the surface cost more than the comparison of signs.

    Args:
        cell_weights: weights of the cells of `surface_cells` only, (K, 21), in place of the dense ``grid.weights``.
        training: split quadrilaterals into four triangles about a weighted middle, which every corner's gradient
            reaches, instead of into two along one diagonal.

    Raises:
        ValueError: if weights are given twice or do not fit the cells.
    """
    return _extract(grid, cell_weights, training)


@full_precision
def _extract(grid: SdfGrid, cell_weights: Tensor | None, training: bool) -> FlexiCubesSurface:
    cells, case = surface_cells(grid.values)
    weights = _weights_of(grid, cells, cell_weights)
    tables = derive_tables()
    device = grid.values.device
    row = _joined_cells(cells, case, tables.pinched_face.to(device), grid.resolution)
    patches = tables.patch_of_edge.to(device)[row.long(), case]  # (K, 12)
    counts = tables.patch_count.to(device)[row.long(), case]
    first = counts.cumsum(0) - counts
    cell, edge = torch.nonzero(patches >= 0, as_tuple=True)  # (P,)
    vertex = first[cell] + patches[cell, edge]
    corners = _corner_bits(device)[tables.edge_corners.to(device)[edge]] + cells[cell, None]  # (P, 2, 3)

    place, deviation = _vertices(grid, tables.edge_corners.to(device)[edge], corners, vertex, cell, edge, weights)
    ends = grid.values[tuple(corners.unbind(-1))]  # (P, 2)
    ring, which = _rings(corners[:, 0], edge, vertex, grid.resolution + 1)
    complete = (ring >= 0).all(1)
    outwards = ends[which, 0] < 0
    quads = torch.where(outwards[:, None], ring, ring.flip(1))[complete]
    gamma = None if weights is None else _gamma(weights[:, 20]).repeat_interleave(counts)
    place, faces = _in_four(place, quads, gamma) if training else _in_two(place, quads, gamma)
    mesh = Mesh(place[:, :3], faces, colors=None if grid.colors is None else place[:, 3:])
    return FlexiCubesSurface(mesh, deviation, cells, weights, ends[which])


def _weights_of(grid: SdfGrid, cells: Tensor, cell_weights: Tensor | None) -> Tensor | None:
    if cell_weights is None:
        return None if grid.weights is None else grid.weights[tuple(cells.T)]
    if grid.weights is not None:
        raise ValueError("give the weights of cells either with the grid or as `cell_weights`, not both")
    if cell_weights.shape != (len(cells), CUBE_WEIGHTS):
        raise ValueError(f"the surface enters {len(cells)} cells, found weights of shape {tuple(cell_weights.shape)}")
    return cell_weights


def _corner_bits(device: torch.device) -> Tensor:
    """x, y, z of the corners of a cell, (8, 3)."""
    corner = torch.arange(8, device=device)
    return torch.stack([corner & 1, corner >> 1 & 1, corner >> 2], -1)


def _joined_cells(cells: Tensor, case: Tensor, pinched_face: Tensor, resolution: int) -> Tensor:
    """Whether a cell and its neighbour both have their pinched face between them (see flexicubes_tables), (K,)."""
    face = pinched_face[case]
    joined = torch.zeros_like(face, dtype=torch.bool)
    some = torch.nonzero(face >= 0)[:, 0]
    axis, side = face[some] // 2, face[some] % 2
    # Both cells name the same face when they name its axis and the layer of grid points that it lies in.
    layer = cells[some] + side[:, None] * F.one_hot(axis, 3)
    size = resolution + 1
    key = ((axis * size + layer[:, 0]) * size + layer[:, 1]) * size + layer[:, 2]
    _, inverse, count = torch.unique(key, return_inverse=True, return_counts=True)
    joined[some] = count[inverse] == 2
    return joined


def _vertices(
    grid: SdfGrid, ends: Tensor, corners: Tensor, vertex: Tensor, cell: Tensor, edge: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Positions (and colours, as further columns) of the patches' vertices, (M, 3 or 6), and their deviations, (M,).

    u_e = (s_i a_i x_j - s_j a_j x_i) / (s_i a_i - s_j a_j) and v = sum_e b_e u_e / sum_e b_e, each cell with its own a
    and b.
    """
    data = grid.positions(corners)
    if grid.colors is not None:
        data = torch.cat([data, grid.colors[tuple(corners.unbind(-1))]], -1)
    levels = grid.values[tuple(corners.unbind(-1))]
    beta = torch.ones_like(levels[:, 0])
    if weights is not None:
        alpha = 1 + WEIGHT_SCALE * torch.tanh(weights[:, :8])
        levels = levels * alpha[cell].gather(1, ends)
        beta = 1 + WEIGHT_SCALE * torch.tanh(weights[cell, 8 + edge])
    share = levels[:, 0] / (levels[:, 0] - levels[:, 1])
    crossing = torch.lerp(data[:, 0], data[:, 1], share[:, None])
    count = int(vertex.max()) + 1 if len(vertex) else 0
    total = beta.new_zeros(count).index_add(0, vertex, beta)
    place = crossing.new_zeros(count, crossing.shape[1]).index_add(0, vertex, crossing * beta[:, None]) / total[:, None]

    number = beta.new_zeros(count).index_add(0, vertex, torch.ones_like(beta))
    distance = torch.linalg.vector_norm(crossing[:, :3] - place[vertex, :3], dim=-1)
    mean = beta.new_zeros(count).index_add(0, vertex, distance) / number
    deviation = beta.new_zeros(count).index_add(0, vertex, (distance - mean[vertex]).abs()) / number
    return place, deviation


def _rings(lower: Tensor, edge: Tensor, vertex: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """For each crossed edge of the grid: the vertices of the cells around it, counter-clockwise about its direction, -1
    where the grid ends, (E, 4); and one of the P pairs that name it, (E,)."""
    axis, place = edge // 4, edge % 4
    key = ((axis * size + lower[:, 0]) * size + lower[:, 1]) * size + lower[:, 2]
    edges, inverse = torch.unique(key, return_inverse=True)
    ring = torch.full((len(edges), 4), -1, dtype=torch.long, device=edge.device)
    ring[inverse, QUADRANTS.to(edge.device)[place]] = vertex
    which = torch.zeros(len(edges), dtype=torch.long, device=edge.device)
    which[inverse] = torch.arange(len(edge), device=edge.device)
    return ring, which


def _gamma(raw: Tensor) -> Tensor:
    return (1 + WEIGHT_SCALE * torch.tanh(raw)) / 2


def _in_two(place: Tensor, quads: Tensor, gamma: Tensor | None) -> tuple[Tensor, Tensor]:
    """Split along the diagonal of larger gamma product, along the shorter one where there are no weights."""
    corners = place[quads, :3].detach()
    if gamma is None:
        first = (corners[:, 0] - corners[:, 2]).norm(dim=-1) <= (corners[:, 1] - corners[:, 3]).norm(dim=-1)
    else:
        first = gamma[quads[:, 0]] * gamma[quads[:, 2]] >= gamma[quads[:, 1]] * gamma[quads[:, 3]]
    one = quads[:, [0, 1, 2, 0, 2, 3]]
    other = quads[:, [0, 1, 3, 3, 1, 2]]
    return place, rearrange(torch.where(first[:, None], one, other), "q (two three) -> (q two) three", two=2)


def _in_four(place: Tensor, quads: Tensor, gamma: Tensor | None) -> tuple[Tensor, Tensor]:
    """Split about a middle: that of the two diagonals' middles, weighted by the diagonals' gamma products."""
    a, b, c, d = place[quads].unbind(1)
    share = torch.full_like(a[:, :1], 0.5)
    if gamma is not None:
        one, other = (gamma[quads[:, k]] * gamma[quads[:, k + 2]] for k in (0, 1))
        share = (one / (one + other))[:, None]
    middle = torch.lerp(b + d, a + c, share) / 2
    centre = len(place) + torch.arange(len(quads), device=quads.device)
    faces = torch.stack([quads, quads.roll(-1, 1), centre[:, None].expand(-1, 4)], -1)
    return torch.cat([place, middle]), rearrange(faces, "q four three -> (q four) three")


def flexicubes_regularizers(grid: SdfGrid, surface: FlexiCubesSurface) -> dict[str, Tensor]:
    """Named terms of the loss, unweighted; all are zero for an empty surface.

    - ``entropy``: mean over crossed edges of the cross-entropies between each end's sigmoid and the other end's sign,
      which takes away floaters and inner shells (Munkberg et al. 2022, nvdiffrec). It sees the field in units of its
      mean step along these edges, held fixed in the gradient, so that it means the same at any resolution and scale.
    - ``deviation``: mean of `FlexiCubesSurface.deviation` in units of ``grid.spacing``: well-shaped triangles.
    - ``weights``: mean absolute value of the alpha and beta weights before activation, which keeps them near neutral.
    """
    entropy = surface.edges.new_zeros(())
    if len(surface.edges):
        levels = surface.edges / (surface.edges[:, 0] - surface.edges[:, 1]).abs().mean().detach()
        entropy = 2 * F.binary_cross_entropy_with_logits(levels, (levels.flip(1) >= 0).to(levels.dtype))
    deviation = surface.deviation.sum() / (max(1, len(surface.deviation)) * grid.spacing)
    flat = surface.deviation.new_zeros(())
    weights = flat if surface.weights is None or not len(surface.weights) else surface.weights[:, :20].abs().mean()
    return {"entropy": entropy, "deviation": deviation, "weights": weights}
