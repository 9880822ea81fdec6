"""Mesh rendering: known pictures, the slow twin, and what must hold whatever the mesh."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from latent3d.geometry.rays import camera_rays
from latent3d.rendering.meshes import LightConfig, rasterize, render_mesh
from latent3d.rendering.meshes_reference import rasterize_reference
from latent3d.representations.mesh import Mesh

from .meshes import around, ball, scattered, square


@pytest.mark.parametrize("mesh", [ball(), scattered()], ids=["ball", "scattered"])
@pytest.mark.parametrize("supersample", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_slow_twin_agrees(mesh, supersample, dtype):
    mesh, cameras = replace(mesh, vertices=mesh.vertices.to(dtype), colors=None), around(2, 12, dtype=dtype)
    fast = rasterize(mesh, cameras, supersample=supersample)
    slow = rasterize_reference(mesh, cameras, supersample=supersample)
    assert fast.faces.shape == (2, 12 * supersample, 12 * supersample)
    assert fast.barycentric.dtype == dtype
    assert 0.1 < (fast.faces >= 0).float().mean() < 1
    assert torch.equal(fast.faces, slow.faces)
    assert torch.allclose(fast.barycentric, slow.barycentric, atol=1e-5)
    assert torch.allclose(fast.depth, slow.depth, atol=1e-5)


def test_barycentrics_put_the_point_on_the_ray_of_its_pixel():
    mesh, cameras = scattered(), around(3)
    seen = rasterize(mesh, cameras)
    hit = seen.faces >= 0
    points = (seen.barycentric[..., None] * mesh.corners()[seen.faces.clamp_min(0)]).sum(-2)
    for view in range(3):
        pixel, depth = cameras[view].project(points[view][hit[view]])
        y, x = torch.nonzero(hit[view], as_tuple=True)
        assert torch.allclose(pixel, torch.stack([x, y], -1).double() + 0.5, atol=1e-9)
        assert torch.allclose(depth, seen.depth[view][hit[view]], atol=1e-9)
    assert torch.allclose(seen.barycentric.sum(-1), hit.double())
    assert (seen.barycentric >= 0).all()


def test_a_ball_has_the_depth_silhouette_and_normals_of_a_sphere():
    radius, cameras = 0.4, around(3, 32)
    views = render_mesh(ball(5, radius, smooth=True), cameras, supersample=3)
    origins, directions = camera_rays(cameras)
    along = -(origins * directions).sum(-1)
    inside = along**2 - (origins**2).sum(-1) + radius**2
    forward = cameras.c2w[:, :3, 2][:, None, None]
    true = (along - inside.clamp_min(0).sqrt()) * (directions * forward).sum(-1)
    deep = inside > 0.02
    assert deep.any()
    assert torch.allclose(views.depths[:, 0][deep], true[deep], atol=1e-3)
    assert (views.alphas[:, 0][deep] == 1).all()
    assert (views.alphas[:, 0][inside < -0.05] == 0).all()
    points = origins + directions * (along - inside.clamp_min(0).sqrt())[..., None]
    normals = views.normals.movedim(1, -1)
    assert (normals - points / radius)[deep].abs().max() < 0.03
    assert torch.allclose(normals.norm(dim=-1), (views.alphas[:, 0] > 0).double())


def test_no_pixel_is_lost_between_neighbouring_faces():
    """Corners of the grid lie exactly on rays; rounding must not open the seams."""
    steps = torch.linspace(-2, 2, 17, dtype=torch.float64)
    x, z = torch.meshgrid(steps, steps, indexing="ij")
    vertices = torch.stack([x, torch.zeros_like(x), z], -1).reshape(-1, 3)
    first = (torch.arange(16)[:, None] * 17 + torch.arange(16)).reshape(-1)
    faces = torch.cat(
        [torch.stack([first, first + 17, first + 18], -1), torch.stack([first, first + 18, first + 1], -1)]
    )
    for turn in torch.linspace(0, 0.15, 7, dtype=torch.float64):
        rotation = torch.linalg.matrix_exp(turn * torch.tensor([[0.0, -1, 2], [1, 0, 1], [-2, -1, 0]]).double())
        mesh = Mesh(vertices=vertices @ rotation.mT, faces=faces)
        assert (rasterize(mesh, around(1, 32)).faces >= 0).all()


def test_a_face_that_reaches_behind_the_camera_is_cut_and_not_dropped():
    """A floor under the camera fills the lower half of the picture, up to the horizon, from the near distance on."""
    floor = Mesh(
        vertices=torch.tensor([[-50.0, -50, -0.5], [50, -50, -0.5], [0, 90, -0.5]]), faces=torch.tensor([[0, 1, 2]])
    )
    cameras = around(1, 16, dtype=torch.float32)
    seen = rasterize(floor, cameras)
    assert (seen.faces[0, 9:] == 0).all()
    assert (seen.faces[0, :8] == -1).all()
    focal = float(cameras.k[0, 1, 1])
    rows = torch.arange(9, 16) + 0.5 - 8
    assert torch.allclose(seen.depth[0, 9:, 8], 0.5 * focal / rows, rtol=1e-5)
    cut = rasterize(floor, cameras, near=3.0)
    assert torch.equal(cut.faces[0] == 0, (seen.faces[0] == 0) & (seen.depth[0] >= 3.0))


def test_the_texture_is_upright_and_unmirrored_from_the_front():
    views = render_mesh(square(), around(1, 32, dtype=torch.float32), light=None)
    picture = views.images[0]
    corner = {"red": (12, 12), "green": (12, 19), "blue": (19, 12), "white": (19, 19)}
    colors = {"red": [1.0, 0, 0], "green": [0.0, 1, 0], "blue": [0.0, 0, 1], "white": [1.0, 1, 1]}
    near_corner = {"red": (8, 8), "green": (8, 23), "blue": (23, 8), "white": (23, 23)}
    for name, (row, column) in near_corner.items():
        assert torch.allclose(picture[:, row, column], torch.tensor(colors[name]), atol=1e-5), name
    for name, (row, column) in corner.items():
        nearest = min(colors, key=lambda c: float((picture[:, row, column] - torch.tensor(colors[c])).norm()))
        assert nearest == name
    assert (picture[:, 0] == 1).all()
    assert torch.allclose(views.depths[0, 0, 8:24, 8:24], torch.tensor(1.6))
    assert torch.allclose(views.normals[0, :, 16, 16], torch.tensor([0.0, -1, 0]), atol=1e-6)


def test_both_sides_are_seen_and_normals_face_the_camera():
    views = render_mesh(square(), around(2, 16, dtype=torch.float32))
    front, back = views.normals[:, :, 8, 8]
    assert views.alphas[1, 0, 8, 8] == 1
    assert torch.allclose(back, -front, atol=1e-6)


def test_textures_repeat_where_coordinates_leave_the_unit_square_only():
    mesh, cameras = square(), around(1, 64, dtype=torch.float32)
    once = render_mesh(mesh, cameras, light=None).images[0]
    twice = render_mesh(replace(mesh, uvs=mesh.uvs * 2), cameras, light=None).images[0]
    inner = slice(16, 48)
    window = twice[:, inner, inner]
    assert torch.allclose(window[:, :16, :16], window[:, 16:, 16:], atol=1e-4)
    corners = once[:, [17, 17, 46, 46], [17, 46, 17, 46]]
    assert ((corners == 0) | (corners == 1)).all()  # held at the border: nothing of the opposite side


def test_a_fine_texture_far_away_is_averaged():
    board = (torch.arange(256)[:, None] + torch.arange(256)) % 2
    mesh = replace(square(), texture=board.float().expand(3, 256, 256).contiguous())
    picture = render_mesh(mesh, around(1, 16, dtype=torch.float32), light=None).images[0, :, 6:10, 6:10]
    assert (picture - 0.5).abs().max() < 0.02


def test_alpha_is_coverage_and_images_are_over_white():
    mesh, cameras = ball(3), around(2, 16)
    views = render_mesh(mesh, cameras, supersample=4, light=None)
    fine = rasterize(mesh, cameras, supersample=4)
    blocks = (fine.faces >= 0).double().reshape(2, 16, 4, 16, 4).mean((2, 4))
    assert torch.allclose(views.alphas[:, 0], blocks)
    colors = (fine.barycentric[..., None] * mesh.colors[mesh.faces[fine.faces.clamp_min(0)]]).sum(-2)
    over_white = torch.where((fine.faces >= 0)[..., None], colors, 1.0)
    assert torch.allclose(views.images, over_white.reshape(2, 16, 4, 16, 4, 3).mean((2, 4)).movedim(-1, 1), atol=1e-6)


def test_depth_at_an_edge_is_of_one_surface():
    near, far = square(y=-0.3, half=0.11), square(y=0.4, half=0.6)
    both = Mesh(vertices=torch.cat([near.vertices, far.vertices]), faces=torch.cat([near.faces, far.faces + 4]))
    depth = render_mesh(both, around(1, 33, dtype=torch.float32), supersample=2).depths
    distance = torch.stack([depth, (depth - 1.3).abs(), (depth - 2.0).abs()]).amin(0)
    assert distance.max() < 1e-5


def test_light_darkens_and_none_leaves_colours_alone():
    cameras, grey = around(1, 16, dtype=torch.float32), replace(square(), texture=torch.full((3, 1, 1), 0.5))
    plain = render_mesh(grey, cameras, light=None).images[0, :, 8, 8]
    lit = render_mesh(grey, cameras, light=LightConfig(ambient=0.2, sky=0.4, head=0.1)).images[0, :, 8, 8]
    assert torch.allclose(plain, torch.tensor(0.5))
    assert torch.allclose(lit, torch.tensor(0.5 * (0.2 + 0.2 + 0.1) ** (1 / 2.2)), atol=1e-4)


def test_an_empty_mesh_is_a_white_picture():
    mesh = Mesh(vertices=torch.zeros(0, 3), faces=torch.zeros(0, 3, dtype=torch.long))
    views = render_mesh(mesh, around(1, 8, dtype=torch.float32))
    assert (views.images == 1).all()
    assert not views.alphas.any()


def test_threads_change_nothing():
    mesh, cameras = ball(2), around(3, 16)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = render_mesh(mesh, cameras)
        torch.set_num_threads(3)
        three = render_mesh(mesh, cameras)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one.images, three.images)
    assert torch.equal(one.depths, three.depths)


def test_wrong_input_is_refused():
    mesh, cameras = ball(0), around(1, 8)
    nan = mesh.vertices.clone()
    nan[0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        rasterize(replace(mesh, vertices=nan), cameras)
    with pytest.raises(ValueError, match="outside 0 to"):
        rasterize(replace(mesh, faces=mesh.faces + 1), cameras)
    with pytest.raises(ValueError, match="batch shape"):
        render_mesh(mesh, cameras[0])
    with pytest.raises(ValueError, match="supersample"):
        render_mesh(mesh, cameras, supersample=0)
