"""Meshes of fields: what is found, what is asked, and what helpers say about meshes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from latent3d import optional
from latent3d.rendering.surface import field_to_mesh, is_watertight, large_components, simplified, with_faces
from latent3d.representations.mesh import Mesh

HALF = 0.45


class Counted:
    """A density (0.3 - distance to the origin) that remembers how it was asked."""

    def __init__(self):
        self.points, self.largest = 0, 0

    def __call__(self, points):
        self.points += len(points)
        self.largest = max(self.largest, len(points))
        return 0.3 - points.norm(dim=-1)


def as_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices.double().numpy(), mesh.faces.numpy(), process=False)


def union(*parts):
    return lambda points: torch.stack([part(points) for part in parts]).amax(0)


def ball(centre, radius):
    return lambda points: radius - (points - torch.tensor(centre)).norm(dim=-1)


def cube(centre, side):
    return lambda points: side / 2 - (points - torch.tensor(centre)).abs().amax(-1)


def test_a_ball_with_few_questions():
    field = Counted()
    mesh = field_to_mesh(field, HALF, resolution=64, threshold=0.0, chunk=5000, colors=lambda p: p + 0.5)
    assert is_watertight(mesh)
    assert as_trimesh(mesh).volume == pytest.approx(4 / 3 * np.pi * 0.3**3, rel=0.01)
    assert (mesh.vertices.norm(dim=-1) - 0.3).abs().max() < 0.1 * 0.9 / 64
    torch.testing.assert_close(mesh.colors, mesh.vertices + 0.5)
    assert field.largest <= 5000
    assert field.points < 65**3 / 2


def test_sparse_and_dense_questions_give_the_same_mesh():
    field = union(ball((0.1, 0.05, 0.0), 0.21), cube((-0.2, -0.2, 0.1), 0.3))
    sparse, dense = (field_to_mesh(field, HALF, resolution=32, threshold=0.02, coarse=step) for step in (4, 1))
    torch.testing.assert_close(sparse.vertices, dense.vertices)
    assert len(sparse) == len(dense)


def test_threshold_sets_the_level():
    for threshold in (-0.1, 0.0, 0.1):
        mesh = field_to_mesh(ball((0.0, 0.0, 0.0), 0.3), HALF, resolution=32, threshold=threshold)
        assert (mesh.vertices.norm(dim=-1) - (0.3 - threshold)).abs().max() < 0.2 * 0.9 / 32


@settings(max_examples=15)
@given(st.tuples(*[st.floats(-0.3, 0.3)] * 3))
def test_separate_pieces_larger_than_a_coarse_cell_are_found(centre):
    coarse_cell = 0.9 / 48 * 4
    mesh = field_to_mesh(cube(centre, 1.02 * coarse_cell), HALF, resolution=48, threshold=0.0)
    assert is_watertight(mesh)
    assert as_trimesh(mesh).volume == pytest.approx(coarse_cell**3, rel=0.3)


def test_what_hangs_together_is_found_however_thin():
    """A rod thinner than half a coarse cell, winding away from a ball through cells without a coarse point inside."""

    def helix(points):
        turn = torch.atan2(points[:, 1], points[:, 0])
        rise = (points[:, 2] - 0.05 * turn / torch.pi + 0.05).remainder(0.1) - 0.05
        within = 0.35 - points[:, 2].abs()
        return torch.minimum(0.02 - torch.hypot(points[:, :2].norm(dim=-1) - 0.3, rise), within)

    field = union(helix, ball((0.3, 0.0, 0.0), 0.08))
    sparse, dense = (field_to_mesh(field, HALF, resolution=96, threshold=0.0, coarse=step) for step in (8, 1))
    torch.testing.assert_close(sparse.vertices, dense.vertices)
    assert is_watertight(sparse)


def test_inside_at_the_border_is_cut_off_flat_and_closed():
    mesh = field_to_mesh(lambda p: 0.1 - p[:, :2].norm(dim=-1), HALF, resolution=32, threshold=0.0)
    assert is_watertight(mesh)
    assert mesh.bounds()[1][2] == pytest.approx(HALF, abs=0.9 / 32)
    assert as_trimesh(mesh).euler_number == 2


@pytest.mark.parametrize(
    ("field", "options", "message"),
    [
        (
            ball((0.0, 0.0, 0.0), 0.3),
            {"threshold": 1.0},
            "nowhere exceeds the threshold 1: the largest value met is 0.3",
        ),
        (lambda p: p[:, 0] / 0, {"threshold": 0.0}, "not finite"),
        (ball((0.0, 0.0, 0.0), 0.3), {"threshold": 0.0, "resolution": 30}, "no multiple"),
    ],
)
def test_bad_input_is_refused(field, options, message):
    with pytest.raises(ValueError, match=message):
        field_to_mesh(field, HALF, **{"resolution": 32, **options})


def test_watertight_agrees_with_trimesh():
    closed = field_to_mesh(ball((0.0, 0.0, 0.0), 0.3), HALF, resolution=16, threshold=0.0)
    turned = closed.faces.clone()
    turned[5] = turned[5].flip(0)
    doubled = torch.cat([closed.faces, closed.faces[:1]])
    for faces, answer in (
        (closed.faces, True),
        (closed.faces[1:], False),
        (turned, False),
        (doubled, False),
        (closed.faces[:0], False),
    ):
        mesh = replace(closed, faces=faces)
        assert is_watertight(mesh) is answer
        if len(faces):
            solid = as_trimesh(mesh)
            assert (solid.is_watertight and solid.is_winding_consistent) is answer


def test_small_components_are_left_out():
    field = union(ball((0.2, 0.0, 0.0), 0.2), ball((-0.25, 0.0, 0.0), 0.12), ball((0.0, 0.3, 0.3), 0.05))
    mesh = field_to_mesh(field, HALF, resolution=48, threshold=0.0, colors=lambda p: p + 0.5)
    for share, pieces in ((0.0, 3), (0.1, 2), (0.5, 1), (1.0, 1)):
        kept = large_components(mesh, share)
        assert as_trimesh(kept).body_count == pieces
        assert is_watertight(kept)
        torch.testing.assert_close(kept.colors, kept.vertices + 0.5)
    assert kept.bounds()[0][0] == pytest.approx(0.0, abs=0.02)
    assert len(field_to_mesh(field, HALF, resolution=48, threshold=0.0, min_share=0.5)) == len(kept)


def test_selected_faces_keep_their_corners():
    mesh = field_to_mesh(ball((0.0, 0.0, 0.0), 0.3), HALF, resolution=16, threshold=0.0)
    mesh = replace(mesh, uvs=torch.rand(len(mesh), 3, 2), normals=torch.rand(len(mesh), 3, 3))
    keep = torch.rand(len(mesh)) < 0.3
    part = with_faces(mesh, keep)
    assert torch.equal(part.corners(), mesh.corners()[keep])
    assert torch.equal(part.uvs, mesh.uvs[keep])
    assert torch.equal(part.normals, mesh.normals[keep])
    assert len(part.vertices) == len(part.faces.unique())


def test_simplified_meshes_have_fewer_faces_and_the_same_shape():
    pytest.importorskip("fast_simplification")
    mesh = field_to_mesh(ball((0.0, 0.0, 0.0), 0.3), HALF, resolution=48, threshold=0.0, colors=lambda p: p + 0.5)
    fewer = simplified(mesh, 1000)
    assert 900 <= len(fewer) <= 1000
    assert is_watertight(fewer)
    assert as_trimesh(fewer).volume == pytest.approx(as_trimesh(mesh).volume, rel=0.02)
    assert (fewer.colors - fewer.vertices - 0.5).abs().max() < 0.02
    assert simplified(mesh, len(mesh)) is mesh
    asked = field_to_mesh(
        ball((0.0, 0.0, 0.0), 0.3), HALF, resolution=48, threshold=0.0, faces=1000, colors=lambda p: p + 0.5
    )
    torch.testing.assert_close(asked.colors, asked.vertices + 0.5)
    with pytest.raises(ValueError, match="before its texture"):
        simplified(replace(mesh, uvs=torch.zeros(len(mesh), 3, 2)), 1000)
    with pytest.raises(ValueError, match="at least 4"):
        simplified(mesh, 3)


def test_simplifying_says_what_to_install(monkeypatch):
    mesh = field_to_mesh(ball((0.0, 0.0, 0.0), 0.3), HALF, resolution=16, threshold=0.0)
    monkeypatch.setitem(__import__("sys").modules, "fast_simplification", None)
    with pytest.raises(optional.MissingPackageError, match=r"fewer faces needs .* 'latent3d\[mesh\]'"):
        simplified(mesh, 100)


def test_what_lies_on_the_border_of_the_box_alone_has_no_surface():
    def corner(points):
        return torch.where(points.amin(-1) > HALF - 1e-4, 1.0, -1.0)

    with pytest.raises(ValueError, match="nowhere exceeds the threshold 0"):
        field_to_mesh(corner, HALF, resolution=8, threshold=0.0, min_share=0.01)
