"""How a surface passes through one cell of a grid: derived for all sign patterns, not listed.

Numbers. Corner c of a cell lies at bits (x, y, z) = (c & 1, c >> 1 & 1, c >> 2). Edge 4 a + i runs along axis a; its
place along the axes b = a + 1 and c = a + 2 (modulo 3) is (i & 1, i >> 1). Face 2 a + s is the lower (s = 0) or upper
side along axis a. A case is the byte whose bit c says that corner c is inside.

Dual marching cubes (Nielson 2004) gives a cell one vertex for each patch of the marching-cubes surface in it. On a face
that the surface enters, its crossed edges are joined in pairs; the closed loops of pairs are the borders of the
patches. A face with four crossed edges is ambiguous: here its two inside corners are kept apart. If both pairs of such
a face then belong to the same patch in each of the two cells that share it, the same two vertices are joined twice and
four faces meet there; the remedy (as in Wenger's Manifold Dual Marching Cubes, 2013) is to join the pairs of that face
the other way in both cells, which splits each of the two loops. `SurfaceTables` therefore has two rows per case.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SurfaceTables:
    """What `derive_tables` finds; indices are as in the head of this file.

    Attributes:
        edge_corners: lower and upper corner of each edge, (12, 2).
        patch_of_edge: which patch crosses each edge, -1 where none does, (2, 256, 12). Row 0 keeps the inside corners
            apart on all faces, row 1 joins them on the face named by ``pinched_face`` and equals row 0 without one.
        patch_count: (2, 256).
        pinched_face: face on which one patch meets itself, -1 without one, (256,).
    """

    edge_corners: Tensor
    patch_of_edge: Tensor
    patch_count: Tensor
    pinched_face: Tensor


def corner_number(bits: dict[int, int]) -> int:
    """Corner at ``bits``, one per axis."""
    return sum(bit << axis for axis, bit in bits.items())


def edge_ends(edge: int) -> tuple[int, int]:
    """Lower and upper corner of an edge."""
    axis, place = divmod(edge, 4)
    across = {(axis + 1) % 3: place & 1, (axis + 2) % 3: place >> 1}
    return corner_number({axis: 0, **across}), corner_number({axis: 1, **across})


EDGE_OF_ENDS = {frozenset(edge_ends(edge)): edge for edge in range(12)}


def face_corners(face: int) -> list[int]:
    """The four corners of a face in order around it."""
    axis, side = divmod(face, 2)
    b, c = (axis + 1) % 3, (axis + 2) % 3
    return [corner_number({axis: side, b: u, c: v}) for u, v in ((0, 0), (1, 0), (1, 1), (0, 1))]


def face_links(case: int, face: int, joined: bool) -> list[tuple[int, int]]:
    """Pairs of crossed edges of a face: none, one, or two if ambiguous, around the corners that are inside (or, where
    those are ``joined``, outside)."""
    corners = face_corners(face)
    around = [EDGE_OF_ENDS[frozenset((corners[k - 1], corners[k]))] for k in range(4)]
    inside = [bool(case >> corner & 1) for corner in corners]
    crossed = [edge for k, edge in enumerate(around) if inside[k - 1] != inside[k]]
    if len(crossed) < 4:
        return [(crossed[0], crossed[1])] if crossed else []
    return [(around[k], around[(k + 1) % 4]) for k in range(4) if inside[k] != joined]


def trace_patches(case: int, joined_face: int = -1) -> tuple[list[int], dict[int, list[tuple[int, int]]]]:
    """Patch number of each of the 12 edges (-1: not crossed), and the pairs of crossed edges of each face."""
    links = {face: face_links(case, face, face == joined_face) for face in range(6)}
    neighbours: dict[int, list[int]] = {}
    for first, second in (pair for pairs in links.values() for pair in pairs):
        neighbours.setdefault(first, []).append(second)
        neighbours.setdefault(second, []).append(first)
    patches, count = [-1] * 12, 0
    for start in sorted(neighbours):
        if patches[start] >= 0:
            continue
        front = [start]
        while front:
            edge = front.pop()
            if patches[edge] < 0:
                patches[edge] = count
                front += neighbours[edge]
        count += 1
    return patches, links


def pinched_faces(case: int) -> list[int]:
    """Ambiguous faces whose two pairs belong to one patch."""
    patches, links = trace_patches(case)
    return [face for face, pairs in links.items() if len(pairs) == 2 and patches[pairs[0][0]] == patches[pairs[1][0]]]


@functools.cache
def derive_tables() -> SurfaceTables:
    """Patches of all 256 cases, in a few hundredths of a second, once."""
    pinched = [pinched_faces(case) for case in range(256)]
    assert max(map(len, pinched)) == 1  # so that two rows are enough: no cell has two faces that may need the remedy
    face = [faces[0] if faces else -1 for faces in pinched]
    rows = torch.tensor(
        [[trace_patches(case, which)[0] for case, which in enumerate(row)] for row in ([-1] * 256, face)]
    )
    return SurfaceTables(
        edge_corners=torch.tensor([edge_ends(edge) for edge in range(12)]),
        patch_of_edge=rows,
        patch_count=rows.amax(-1) + 1,
        pinched_face=torch.tensor(face),
    )
