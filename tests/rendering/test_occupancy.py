"""Rendering by occupancy: the grid holds all that is there, and the pictures are those of the complete renderer."""

import pytest
import torch

from latent3d.nn.triplane_field import TriPlaneFieldConfig
from latent3d.rendering.occupancy import EMPTY_DENSITY, Occupancy
from latent3d.rendering.triplane_sampling import TriPlaneRows, sample_triplane
from latent3d.rendering.volume import VolumeConfig, render_rays, render_volume

from .scenes import ring_cameras

HALF = 0.45
RADII = (0.3, 0.1, 0.4)


def _balls(points):
    """One ball per object, dense inside and quickly thinner outside; counts and checks what it is asked."""
    assert (points.abs() <= HALF).all(), "asked outside the box"
    _balls.asked += points.shape[0] * points.shape[1]
    radii = torch.tensor(RADII, dtype=points.dtype)[: len(points), None]
    return 100 * torch.sigmoid(400 * (radii - points.norm(dim=-1))), 0.5 + points


_balls.asked = 0


def _cameras(objects, views=2, size=20):
    ring = ring_cameras(objects * views, size, size, distance=1.9)
    return type(ring)(
        ring.w2c.unflatten(0, (objects, views)), ring.k.unflatten(0, (objects, views)), ring.height, ring.width
    )


def _asked(function):
    _balls.asked = 0
    return function(), _balls.asked


@pytest.mark.parametrize("objects", [1, 3])
@pytest.mark.parametrize("fine", [0, 24])
def test_pictures_are_those_of_the_complete_renderer_and_cost_less(objects, fine):
    cameras, config = _cameras(objects), VolumeConfig(coarse=32, fine=fine, chunk_rays=300)
    occupancy = Occupancy.of(_balls, objects, HALF, resolution=32)
    complete, asked_all = _asked(lambda: render_volume(_balls, cameras, HALF, config, normals=True))
    sparse, asked_few = _asked(lambda: render_volume(_balls, cameras, HALF, config, normals=True, occupancy=occupancy))
    for name in ("rgb", "depth_sum", "alpha"):
        torch.testing.assert_close(getattr(sparse, name), getattr(complete, name), atol=3e-4, rtol=0, msg=name)
    solid = (complete.alpha > 0.1).expand_as(complete.normals)
    torch.testing.assert_close(sparse.normals[solid], complete.normals[solid], atol=2e-2, rtol=0)
    assert asked_few < 0.7 * asked_all


def _triplane_field(channels=16, size=32):
    """A ball of features: the first channel's mean over the planes is the squared distance to the middle."""
    place = (torch.arange(size) + 0.5) / size * 2 - 1
    planes = 0.3 * torch.rand(1, 3, channels, size, size)
    planes[:, :, 0] = 1.5 * (place[:, None] ** 2 + place**2)
    network = TriPlaneFieldConfig(features=channels).build()
    first, last = network.layers
    with torch.no_grad():
        for unit, sign in ((0, -1.0), (1, 1.0)):  # the difference of two softplus units is linear
            first.weight[unit] = 0
            first.weight[unit, 0], first.bias[unit] = sign * 100, -sign * 40
            last.weight[0, unit] = -sign
        last.weight[1:, :2] = 0
    rows = TriPlaneRows.of(planes)

    def field(points):
        values = network(sample_triplane(rows, points, HALF))
        return values.density, values.colors

    return field


@torch.no_grad()
def test_a_triplane_by_occupancy_agrees_and_in_half_precision_within_a_hundredth():
    field, cameras, config = _triplane_field(), _cameras(1).to(torch.float32), VolumeConfig(coarse=32, fine=32)
    occupancy = Occupancy.of(field, 1, HALF, resolution=32)
    complete = render_volume(field, cameras, HALF, config)
    assert 0.05 < complete.alpha.mean() < 0.6
    sparse = render_volume(field, cameras, HALF, config, occupancy=occupancy)
    with torch.autocast("cpu", torch.bfloat16):
        half = render_volume(field, cameras, HALF, config, occupancy=occupancy)
    for name in ("rgb", "alpha", "depth_sum"):
        value = getattr(complete, name)
        torch.testing.assert_close(getattr(sparse, name), value, atol=1e-4, rtol=0, msg=name)
        torch.testing.assert_close(getattr(half, name), value, atol=1e-2, rtol=0)
    assert not torch.equal(half.rgb, sparse.rgb)
    with torch.inference_mode():
        assert torch.equal(render_volume(field, cameras, HALF, config, occupancy=occupancy).rgb, sparse.rgb)


def test_nothing_is_asked_behind_what_is_opaque():
    """A solid block: of every ray only the first few blocks of samples are asked for."""

    def solid(points):
        solid.asked += points.shape[1]
        return points.new_full(points.shape[:-1], 1000.0), points.new_zeros(points.shape)

    origins = torch.tensor([[0.0, -2.0, 0.0], [0.1, -2.0, 0.1]])[None]
    directions = torch.tensor([[0.0, 1.0, 0.0]]).expand(1, 2, 3)
    occupancy = Occupancy(torch.ones(1, 8, 8, 8, dtype=torch.bool), HALF)
    solid.asked = 0
    out = render_rays(solid, origins, directions, HALF, VolumeConfig(coarse=64, fine=0), occupancy=occupancy)
    assert solid.asked == 2 * 16
    torch.testing.assert_close(out.alpha, torch.ones(1, 2))


def test_every_dense_point_is_in_an_occupied_cell():
    occupancy = Occupancy.of(_balls, 3, HALF, resolution=32)
    points = (torch.rand(3, 20000, 3) * 2 - 1) * HALF
    dense = _balls(points)[0] >= EMPTY_DENSITY
    assert dense.any(1).all()
    assert occupancy.at(points[:, None])[:, 0][dense].all()
    share = occupancy.cells.flatten(1).float().mean(1)
    assert share[1] < 0.05 < share[0] < share[2] < 0.7


def test_cells_are_indexed_by_x_y_z_and_faces_belong_to_the_outer_cells():
    cells = torch.zeros(1, 4, 4, 4, dtype=torch.bool)
    cells[0, 3, 0, 1] = True
    points = torch.tensor([[[0.45, -0.45, -0.1], [-0.45, 0.45, -0.1], [0.3, -0.3, -0.01], [0.3, -0.3, 0.01]]])
    assert Occupancy(cells, HALF).at(points[None]).tolist() == [[[True, False, True, False]]]


def test_an_empty_field_shows_the_background():
    cameras = _cameras(2)
    empty = Occupancy(torch.zeros(2, 8, 8, 8, dtype=torch.bool), HALF)
    out, asked = _asked(lambda: render_volume(_balls, cameras, HALF, VolumeConfig(), occupancy=empty))
    assert asked == 0
    assert (out.rgb == 1).all()
    assert not out.alpha.any()


def test_rays_through_a_grid_are_for_inference():
    origins, directions = torch.zeros(1, 1, 3), torch.tensor([[[0.0, 0.0, 1.0]]])
    occupancy = Occupancy(torch.ones(1, 4, 4, 4, dtype=torch.bool), HALF)
    with pytest.raises(ValueError, match="inference"):
        render_rays(
            _balls, origins, directions, HALF, VolumeConfig(), occupancy=occupancy, guide=torch.ones(1, 1)
        )  # fmt: skip
