"""Differentiable mesh rendering: known coverages, the hard renderer, and gradients against finite differences."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from latent3d.rendering.meshes import rasterize, render_mesh
from latent3d.rendering.soft_meshes import differentiable_fragments, interpolate, render_surface
from latent3d.representations.mesh import Mesh

from .meshes import around, ball, scattered, square


def turned(mesh: Mesh) -> Mesh:
    """The same mesh in no special position, so that no edge lies exactly on a pixel's centre."""
    axis = torch.tensor([[0.0, -1, 0.3], [1, 0, 0.77], [-0.3, -0.77, 0]], dtype=mesh.vertices.dtype)
    return replace(mesh, vertices=mesh.vertices @ torch.linalg.matrix_exp(axis).mT)


def triangle() -> Mesh:
    vertices = torch.tensor([[-0.31, -0.1, -0.27], [0.37, 0.05, -0.13], [0.03, 0.2, 0.41]], dtype=torch.float64)
    colors = torch.tensor([[0.9, 0.2, 0.1], [0.1, 0.8, 0.3], [0.2, 0.1, 0.7]], dtype=torch.float64)
    return Mesh(vertices=vertices, faces=torch.tensor([[0, 1, 2]]), colors=colors)


def test_coverage_of_a_rectangle_is_its_area_in_every_pixel():
    """A border at the position 10.3 in pixels covers three tenths of the pixel 10, whichever side it is on."""
    pixel = 0.8 / (8 / torch.tan(torch.tensor(torch.pi / 9)).item())  # scene units per pixel at distance 1.6, half
    for left, right, top, bottom in [(3.3, 10.3, 4.6, 12.1), (3.8, 9.7, 4.2, 11.5)]:
        x = (torch.tensor([left, right, right, left], dtype=torch.float64) - 8) * 2 * pixel
        z = -(torch.tensor([bottom, bottom, top, top], dtype=torch.float64) - 8) * 2 * pixel
        mesh = Mesh(vertices=torch.stack([x, 0 * x, z], -1), faces=torch.tensor([[0, 1, 2], [0, 2, 3]]))
        alpha = render_surface(mesh, around(1, 16)).alpha[0, 0]
        edges = torch.arange(16, dtype=torch.float64)
        across = ((edges + 1).clamp(max=right) - edges.clamp(min=left)).clamp_min(0)
        down = ((edges + 1).clamp(max=bottom) - edges.clamp(min=top)).clamp_min(0)
        rows, columns = slice(int(top) + 1, int(bottom)), slice(int(left) + 1, int(right))
        assert torch.allclose(alpha[rows], across.expand(len(alpha[rows]), -1), atol=1e-9)
        assert torch.allclose(alpha[:, columns], down[:, None].expand(-1, alpha[:, columns].shape[1]), atol=1e-9)


def test_outlines_are_nearly_those_of_many_samples():
    mesh, cameras = turned(ball(3)), around(3, 32)
    soft, many = render_surface(mesh, cameras), render_mesh(mesh, cameras, supersample=8, light=None)
    hard = (soft.depth > 0).double()
    assert (soft.alpha - many.alphas).abs().max() < 0.1
    assert (soft.alpha - many.alphas).abs().mean() < 0.15 * (hard - many.alphas).abs().mean()
    assert (soft.rgb + 1 - soft.alpha - many.images).abs().mean() < 0.01
    inside = (soft.depth > 0) & (many.depths > 0)
    assert torch.allclose(soft.depth[inside], many.depths[inside], atol=1e-9)
    assert torch.allclose(soft.normals * inside, many.normals * inside, atol=1e-9)


def test_faces_smaller_than_a_pixel_lose_no_outline():
    mesh, cameras = turned(ball(5)), around(2, 12)
    many = render_mesh(mesh, cameras, supersample=10)
    assert (render_surface(mesh, cameras).alpha - many.alphas).abs().max() < 0.12


def test_inner_outlines_blend_colours_and_keep_the_coverage():
    """A near red square before a far green wall, its border at three tenths of a pixel."""
    half = 0.8 * torch.tan(torch.tensor(torch.pi / 9)).item()
    near, wall = square(half=half * 4.3 / 4), square(y=0.8, half=3.0)
    vertices = torch.cat([near.vertices, wall.vertices]).double()
    red, green = torch.tensor([1.0, 0, 0]).expand(4, 3), torch.tensor([0.0, 1, 0]).expand(4, 3)
    mesh = Mesh(vertices, torch.cat([near.faces, wall.faces + 4]), colors=torch.cat([red, green]).double())
    seen = render_surface(mesh, around(1, 16))
    assert torch.allclose(seen.alpha, torch.ones_like(seen.alpha))
    assert torch.allclose(seen.rgb[0, :, 8, 12], torch.tensor([0.3, 0.7, 0]).double(), atol=1e-6)
    assert torch.allclose(seen.rgb[0, :, 8, 11], torch.tensor([1.0, 0, 0]).double(), atol=1e-6)


@pytest.mark.parametrize("mesh", [triangle(), turned(ball(1)), turned(ball(2))], ids=["triangle", "ball", "finer"])
@pytest.mark.parametrize("output", ["alpha", "rgb", "attributes", "depth", "normals"])
def test_gradients_are_those_of_finite_differences(mesh, output):
    cameras = around(2, 16)
    g = torch.Generator().manual_seed(7)
    weights = torch.randn(2, 5, 16, 16, generator=g, dtype=torch.float64)
    values = torch.randn(len(mesh.vertices), 5, generator=g, dtype=torch.float64)

    def loss(vertices, colors, attributes, w2c):
        moved = replace(mesh, vertices=vertices, colors=colors)
        out = getattr(render_surface(moved, replace(cameras, w2c=w2c), attributes), output)
        return (out * weights[:, : out.shape[1]]).sum()

    inputs = [mesh.vertices, mesh.colors, values, cameras.w2c]
    leaves = [value.clone().requires_grad_() for value in inputs]
    gradients = torch.autograd.grad(loss(*leaves), leaves, allow_unused=True)
    step = 1e-7  # below the distance to the next kink, where an edge comes to cross another centre
    for number, (value, gradient) in enumerate(zip(inputs, gradients, strict=True)):
        direction = torch.randn(value.shape, generator=g, dtype=torch.float64)
        ends = [loss(*(v + s * step * direction if i == number else v for i, v in enumerate(inputs))) for s in (1, -1)]
        expected = float(ends[0] - ends[1]) / (2 * step)
        found = 0.0 if gradient is None else float((gradient * direction).sum())
        assert found == pytest.approx(expected, rel=1e-4, abs=2e-5), number
    if output in ("alpha", "depth", "normals", "rgb"):
        assert gradients[0].abs().max() > 0.01


def test_coverage_grows_as_the_area_of_the_outline():
    """The derivative of the covered area by the radius is that of the disc: the silhouette has all its gradient."""
    mesh, cameras = turned(ball(4)), around(1, 48)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    area = render_surface(replace(mesh, vertices=mesh.vertices * scale), cameras).alpha.sum()
    slope = torch.autograd.grad(area, scale)[0]

    def disc(s: torch.Tensor) -> torch.Tensor:
        radius, distance = 0.4 * s, 1.6
        return torch.pi * (cameras.k[0, 0, 0] * radius) ** 2 / (distance**2 - radius**2)

    one = torch.ones((), dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(disc(one), one)[0]
    assert float(area.detach()) == pytest.approx(float(disc(one.detach())), rel=0.01)
    assert float(slope) == pytest.approx(float(expected), rel=0.02)


def test_a_moved_ball_finds_back_by_its_mask():
    mesh, cameras = turned(ball(1, dtype=torch.float32)), around(2, 16, dtype=torch.float32)
    target = render_surface(mesh, cameras).alpha
    offset = torch.tensor([0.12, -0.05, 0.08], requires_grad=True)
    optimizer = torch.optim.Adam([offset], lr=0.03)
    for _ in range(25):
        alpha = render_surface(replace(mesh, vertices=mesh.vertices + offset), cameras).alpha
        optimizer.zero_grad()
        (alpha - target).square().sum().backward()
        optimizer.step()
    assert offset.abs().max() < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_barycentrics_computed_again_are_those_of_the_rasteriser(dtype):
    mesh, cameras = scattered(dtype=dtype), around(2, 16, dtype=dtype)
    found = rasterize(mesh, cameras)
    projected = (mesh.vertices @ cameras.w2c[:, :3, :3].mT + cameras.w2c[:, None, :3, 3]) @ cameras.k.mT
    again = differentiable_fragments(found, mesh.faces, projected)
    tolerance = {torch.float32: 1e-3, torch.float64: 1e-9}[dtype]
    assert torch.allclose(again.barycentric, found.barycentric, atol=tolerance)
    assert torch.allclose(again.depth, found.depth, atol=tolerance)


def test_attributes_of_corners_and_of_vertices():
    mesh, cameras = ball(1), around(2, 12)
    seen = rasterize(mesh, cameras)
    by_vertex = interpolate(mesh.vertices, seen, mesh.faces)
    by_corner = interpolate(mesh.vertices[mesh.faces], seen)
    assert torch.equal(by_vertex, by_corner)
    y, x = 5, 6
    expected = (seen.barycentric[1, y, x, :, None] * mesh.corners()[seen.faces[1, y, x]]).sum(0)
    assert torch.allclose(by_vertex[1, :, y, x], expected)
    assert not by_vertex.movedim(1, -1)[seen.faces < 0].any()


def test_an_empty_mesh_shows_nothing():
    mesh = Mesh(vertices=torch.zeros(0, 3), faces=torch.zeros(0, 3, dtype=torch.long), colors=torch.zeros(0, 3))
    seen = render_surface(mesh, around(2, 8, dtype=torch.float32))
    assert not torch.cat([seen.rgb, seen.depth, seen.normals, seen.alpha], 1).any()


def test_attributes_of_another_number_are_refused():
    with pytest.raises(ValueError, match="attributes are given for 2"):
        render_surface(ball(0), around(1, 8), torch.zeros(2, 1, dtype=torch.float64))
