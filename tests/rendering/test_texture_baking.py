"""Baked textures show the colours of the surface, wherever it is looked up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from latent3d import optional
from latent3d.rendering import texture_baking
from latent3d.rendering.surface import field_to_mesh
from latent3d.rendering.texture_baking import bake_texture, texel_places, unwrap_charts, unwrap_triangles
from latent3d.representations.mesh import Mesh

HALF = 0.45


@pytest.fixture(autouse=True)
def _xatlas(request):
    if "charts" in request.node.name:
        pytest.importorskip("xatlas")


def bean(resolution: int = 16) -> Mesh:
    def field(points):
        one, other = torch.tensor([0.1, 0.0, 0.1]), torch.tensor([-0.12, 0.05, -0.1])
        return torch.maximum(0.25 - (points - one).norm(dim=-1), 0.22 - (points - other).norm(dim=-1))

    return field_to_mesh(field, HALF, resolution=resolution, threshold=0.0)


def on_surface(mesh: Mesh, count: int, seed: int = 0):
    """Faces and barycentric weights of points spread over all faces, borders and corners included."""
    draw = np.random.default_rng(seed)
    share = draw.dirichlet((0.5, 0.5, 0.5), count)
    share[: count // 10, 0], share[: count // 20] = 0, (0, 0, 1)
    share /= share.sum(1, keepdims=True)
    return torch.from_numpy(draw.integers(0, len(mesh), count)), torch.from_numpy(share).float()


def looked_up(mesh: Mesh, face, share):
    uv = (mesh.uvs[face] * share[..., None]).sum(1)
    return F.grid_sample(mesh.texture[None], 2 * uv[None, None] - 1, align_corners=False)[0, :, 0].T


def texel_side(mesh: Mesh) -> float:
    """Largest length on the surface that a texel can stand for, in scene units: by the stretch of the faces' maps."""
    a, b, c = mesh.corners().double().unbind(1)
    p, q, r = (mesh.uvs.double() * mesh.texture.shape[-1]).unbind(1)
    plane = torch.stack([q - p, r - p], -1)
    return float(torch.linalg.matrix_norm(torch.stack([b - a, c - a], -1) @ torch.linalg.inv(plane), 2).max())


@pytest.mark.parametrize("unwrap", ["triangles", "charts"])
def test_the_texture_shows_the_colours_of_the_surface(unwrap):
    mesh = bean()
    baked = bake_texture(mesh, lambda points, normals: points + 0.5, size=384, unwrap=unwrap, chunk=10_000)
    assert baked.texture.shape == (3, 384, 384)
    assert torch.equal(baked.corners(), mesh.corners())
    face, share = on_surface(baked, 5000)
    points = (baked.corners()[face] * share[..., None]).sum(1)
    miss = (looked_up(baked, face, share) - points - 0.5).norm(dim=-1)
    side = texel_side(baked)
    assert side < 0.02
    assert miss.max() < 1.5 * side
    assert miss.median() < 0.05 * side


@pytest.mark.parametrize("unwrap", ["triangles", "charts"])
def test_no_face_bleeds_into_another(unwrap):
    """Each face of a box has its own colour: found exactly, also at the borders of the faces."""
    mesh = field_to_mesh(lambda p: 0.3 - p.abs().amax(-1), HALF, resolution=8, threshold=0.0)
    normals = mesh.face_normals()

    def color(points, given):
        return (given + 1) / 2

    baked = bake_texture(mesh, color, size=256, unwrap=unwrap)
    face, share = on_surface(baked, 3000)
    if unwrap == "charts":  # charts join faces; only points off the borders have one colour
        share = 0.4 * share + 0.2
    torch.testing.assert_close(looked_up(baked, face, share), (normals[face] + 1) / 2, atol=1e-5, rtol=0)


def test_normals_of_corners_are_given_where_the_mesh_has_them():
    mesh = bean(8)
    smooth = F.normalize(mesh.corners(), dim=-1)
    seen = []

    def color(points, normals):
        seen.append((F.normalize(points, dim=-1) * normals).sum(-1))
        return points + 0.5

    bake_texture(replace(mesh, normals=smooth), color, size=128, unwrap="triangles")
    assert torch.cat(seen).min() > 0.97
    seen.clear()
    bake_texture(mesh, color, size=128, unwrap="triangles")
    assert torch.cat(seen).min() < 0.9


def test_triangles_lie_apart_in_the_texture_and_use_it():
    mesh = bean(12)
    corners = unwrap_triangles(mesh, 256).double().numpy() * 256
    assert corners.min() >= 1
    assert corners.max() <= 255
    face, _ = texel_places(corners, 256)
    assert set(face.tolist()) >= set(range(len(mesh)))
    assert (face >= 0).mean() > 0.7
    legs = np.linalg.norm(corners - np.roll(corners, 1, 1), axis=-1)
    sides = np.linalg.norm(mesh.corners().numpy() - np.roll(mesh.corners().numpy(), 1, 1), axis=-1)
    assert (sides.argmax(1) == legs.argmax(1)).all()


def test_texels_find_the_nearest_point_of_a_known_triangle(monkeypatch):
    corners = np.array([[[2.0, 2.0], [6.0, 2.0], [2.0, 6.0]], [[12.0, 12.0], [12.0, 12.0], [12.0, 12.0]]])
    face, weights = texel_places(corners, 16)
    face, weights = face.reshape(16, 16), weights.reshape(16, 16, 3)
    np.testing.assert_allclose(weights[2, 3], (0.5, 0.375, 0.125))
    np.testing.assert_allclose(weights[1, 3], (0.625, 0.375, 0), atol=1e-12)  # above: straight down onto the side
    np.testing.assert_allclose(weights[1, 1], (1, 0, 0), atol=1e-12)
    np.testing.assert_allclose(weights[4, 4], (0, 0.5, 0.5), atol=1e-12)
    assert face[0, 0] == face[7, 8] == -1
    assert (face[11:13, 11:13] == 1).all()  # a face without extent still has a colour
    monkeypatch.setattr(texture_baking, "CANDIDATES", 1)
    again = texel_places(corners, 16)
    np.testing.assert_array_equal(again[0], face.reshape(-1))
    np.testing.assert_array_equal(again[1], weights.reshape(-1, 3))


def test_charts_are_fewer_than_faces():
    mesh = bean()
    uvs = unwrap_charts(mesh, 256)
    pairs = torch.cat([mesh.faces.reshape(-1, 1), (uvs * 4096).round().long().reshape(-1, 2)], 1)
    assert len(pairs.unique(dim=0)) < 2 * len(mesh.vertices)  # most vertices lie at one place of the texture


def test_bad_input_is_refused(monkeypatch):
    mesh = bean(8)
    with pytest.raises(ValueError, match="room for 72 separate faces"):
        bake_texture(mesh, lambda points, normals: points, size=32, unwrap="triangles")
    with pytest.raises(ValueError, match="no faces"):
        bake_texture(replace(mesh, faces=mesh.faces[:0]), lambda points, normals: points)
    monkeypatch.setitem(__import__("sys").modules, "xatlas", None)
    with pytest.raises(optional.MissingPackageError, match=r"triangles.*pip install"):
        bake_texture(mesh, lambda points, normals: points)
