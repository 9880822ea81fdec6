"""Tri-plane fields in compiled loops against what their parts compute one after the other."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from latent3d.nn.triplane_field import TriPlaneFieldConfig
from latent3d.rendering.occupancy import EMPTY_DENSITY, OPAQUE, Occupancy
from latent3d.rendering.ray_samples import RayRendering, box_distances
from latent3d.rendering.triplane_radiance import TriPlaneRadiance, grid_raw
from latent3d.rendering.triplane_sampling import TriPlaneRows, sample_triplane
from latent3d.rendering.volume import VolumeConfig, render_rays, render_volume

from .scenes import ring_cameras

pytest.importorskip("numba")
HALF = 0.45
CONFIGS = (
    TriPlaneFieldConfig(features=16, hidden=48, color_scale=8.0, density_scale=20.0),
    TriPlaneFieldConfig(features=5, hidden=7, layers=2, activation="silu", channels=2, extra={"a": 3}),
    TriPlaneFieldConfig(features=20, hidden=33, layers=3, activation="relu", channels=5),
)


def _field(config=CONFIGS[0], objects=2, size=24, sharp=60.0):
    """Balls of features: the first channel's mean over the planes is the squared distance to the middle."""
    place = (torch.arange(size) + 0.5) / size * 2 - 1
    planes = 0.5 * torch.randn(objects, 3, config.features, size, size)
    planes[:, :, 0] = 1.5 * (place[:, None] ** 2 + place**2)
    network = config.build()
    with torch.no_grad():
        if config.activation == "softplus" and config.layers == 1:
            for unit, sign in ((0, -1.0), (1, 1.0)):  # the difference of two softplus units is linear
                network.layers[0].weight[unit] = 0
                network.layers[0].weight[unit, 0], network.layers[0].bias[unit] = sign * sharp, -sign * 0.4 * sharp
                network.layers[1].weight[0, unit] = -sign
            network.layers[1].weight[1:, :2] = 0
    return TriPlaneRadiance(TriPlaneRows.of(planes), HALF, network)


def _plain(field):
    return dataclasses.replace(field, fused=False)


def _cameras(objects=2, views=2, size=20):
    ring = ring_cameras(objects * views, size, size + 3, distance=1.9).to(torch.float32)
    return type(ring)(
        ring.w2c.unflatten(0, (objects, views)), ring.k.unflatten(0, (objects, views)), ring.height, ring.width
    )


def _rays(count=200, objects=2):
    origins = 1.9 * F.normalize(torch.randn(objects, count, 3), dim=-1)
    return origins, F.normalize(0.25 * torch.randn(objects, count, 3) - origins, dim=-1)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("count", [1, 77])
def test_values_and_gradients_are_those_of_the_parts(config, count):
    planes = torch.randn(2, 3, config.features, 9, 13, requires_grad=True)
    field = TriPlaneRadiance(TriPlaneRows.of(planes), HALF, config.build())
    points = (torch.rand(2, count, 3) * 2.2 - 1.1) * HALF
    leaves = [planes, *(parameter for layer in field.network.layers for parameter in (layer.weight, layer.bias))]
    upstream = torch.randn(2, count), torch.randn(2, count, config.channels)

    def values_and_gradients(field):
        values = field(points)
        return values, torch.autograd.grad(values, leaves, upstream)

    (found, gradients), (expected, expected_gradients) = map(values_and_gradients, (field, _plain(field)))
    assert found[0].grad_fn.name() != expected[0].grad_fn.name()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, other, atol=2e-5 * float(other.abs().max()), rtol=0)


def test_large_and_small_raw_values_have_their_limits():
    """A network that passes a feature on: softplus and sigmoid are right far from zero, too."""
    network = TriPlaneFieldConfig(features=1, hidden=1, activation="relu", channels=1).build()
    with torch.no_grad():
        for layer in network.layers:
            layer.weight.fill_(1.0)
            layer.bias.zero_()
        network.layers[1].bias.fill_(-60.0)
    planes = torch.linspace(0, 150, 30).expand(1, 3, 1, 30, 30)
    field = TriPlaneRadiance(TriPlaneRows.of(planes), HALF, network)
    points = (torch.rand(1, 500, 3) * 2 - 1) * HALF
    with torch.no_grad():
        found, expected = field(points), _plain(field)(points)
    assert expected[0].min() < 1e-9
    assert expected[0].max() > 80
    torch.testing.assert_close(found, expected, atol=0, rtol=3e-5)


@pytest.mark.parametrize("config", CONFIGS)
def test_what_is_no_number_is_seen_in_values_and_leaves_other_points_alone(config):
    planes = torch.randn(1, 3, config.features, 9, 13)
    planes[:, 0, :, 4, 6] = math.nan
    field = TriPlaneRadiance(TriPlaneRows.of(planes), HALF, config.build())
    points = torch.tensor([[[0.0, 0.0, 0.0], [0.3, 0.3, 0.3], [math.nan, 0.1, 0.1], [math.inf, 0.1, 0.1]]])
    with torch.no_grad():
        density, colors = field(points)
        expected, _ = _plain(field)(points[:, 1:2])
    assert density[0, 0].isnan()
    assert colors[0, 0].isnan().all()
    torch.testing.assert_close(density[:, 1:2], expected)
    assert density[0, 3].isfinite()


def test_objects_and_threads_do_not_matter():
    field, threads = _field(objects=3), torch.get_num_threads()
    points, leaf = (torch.rand(3, 100, 3) * 2 - 1) * HALF, field.network.layers[0].weight

    def of(field, points):
        density, colors = field(points)
        return density, colors, torch.autograd.grad(density.sum() + colors.sum(), leaf)[0]

    try:
        torch.set_num_threads(1)
        alone = of(field, points)
        torch.set_num_threads(2)
        for found, expected in zip(of(field, points), alone, strict=True):
            assert torch.equal(found, expected)
    finally:
        torch.set_num_threads(threads)
    second = TriPlaneRadiance(TriPlaneRows(field.rows.table[1:2]), HALF, field.network)
    assert torch.equal(second(points[1:2])[0], alone[0][1:2])


@torch.no_grad()
def test_autocast_changes_nothing():
    """The loops are as fast as less precision, and know one only."""
    field, (origins, directions), config = _field(), _rays(20), VolumeConfig(coarse=8, fine=8)

    def answers():
        occupancy = Occupancy.of(field, 2, HALF, resolution=16)
        seen = render_rays(field, origins, directions, HALF, config, occupancy=occupancy)
        return seen.rgb, occupancy.cells, *field(origins * 0.2)

    expected = answers()
    with torch.autocast("cpu", torch.bfloat16):
        found = answers()
    assert all(map(torch.equal, found, expected))


def test_nothing_is_asked_of_no_points():
    field, (origins, directions) = _field(), _rays(4)
    density, colors = field(origins[:, :0])
    assert (density.shape, colors.shape) == ((2, 0), (2, 0, 3))
    with torch.no_grad():
        assert render_rays(field, origins[:, :0], directions[:, :0], HALF, VolumeConfig()).rgb.shape == (2, 0, 3)


def test_points_that_need_a_gradient_get_one():
    field = _field()
    points = ((torch.rand(2, 30, 3) * 2 - 1) * HALF).requires_grad_()
    gradients = [torch.autograd.grad(one(points)[0].sum(), points)[0] for one in (field, _plain(field))]
    assert gradients[0].abs().sum() > 0
    assert torch.equal(*gradients)


@torch.no_grad()
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("fine", [0, 20])
@pytest.mark.parametrize("sparse", [False, True])
def test_rays_are_those_of_the_parts(config, fine, sparse):
    field, (origins, directions) = _field(config), _rays()
    volume = VolumeConfig(coarse=24, fine=fine, background=0.7)
    occupancy = Occupancy.of(_plain(field), 2, HALF, resolution=20) if sparse else None
    found, expected = (
        render_rays(one, origins, directions, HALF, volume, occupancy=occupancy) for one in (field, _plain(field))
    )
    near, far = box_distances(origins, directions, HALF)
    assert (far == near).any()
    seen = expected.alpha > 1e-2
    assert seen.any()
    for name in RayRendering.__dataclass_fields__:
        ours, theirs = getattr(found, name), getattr(expected, name)
        if name in ("distance", "samples", "widths"):  # a division by alpha; what rays that miss have depends on others
            ours, theirs = ours[seen], theirs[seen]
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


@torch.no_grad()
def test_culled_pictures_are_complete_pictures_within_the_bound():
    """Empty cells lose at most the diagonal times `EMPTY_DENSITY`, opaque rays exp(-`OPAQUE`)."""
    field, cameras, config = _field(), _cameras(), VolumeConfig(coarse=48, fine=16)
    complete = render_volume(field, cameras, HALF, config)
    occupancy = Occupancy.of(field, 2, HALF, resolution=32)
    assert 0.05 < occupancy.cells.float().mean() < 0.7
    sparse = render_volume(field, cameras, HALF, config, occupancy=occupancy)
    bound = 2 * math.sqrt(3) * HALF * EMPTY_DENSITY + math.exp(-OPAQUE)
    assert complete.alpha.max() > 0.99
    assert (sparse.alpha - complete.alpha).abs().max() < bound
    assert (sparse.rgb - complete.rgb).abs().max() < bound
    again = render_volume(field, cameras, HALF, config, occupancy=occupancy)
    assert torch.equal(again.rgb, sparse.rgb)
    assert torch.equal(again.depth, sparse.depth)
    shown = render_volume(field, cameras, HALF, config.replace(chunk_rays=7), occupancy=occupancy, normals=True)
    assert torch.equal(shown.rgb, sparse.rgb)
    assert shown.normals is not None


@torch.no_grad()
def test_rays_end_where_little_is_left():
    """A dense block: what lies behind the limit is not asked for, and would have added less than exp(-limit)."""
    field = _constant_field(30.0)
    (origins, directions), config = _rays(), VolumeConfig(coarse=64, fine=0)
    complete = render_rays(field, origins, directions, HALF, config)
    everywhere = Occupancy(torch.ones(2, 1, 1, 1, dtype=torch.bool), HALF)
    ended = render_rays(field, origins, directions, HALF, config, occupancy=everywhere)
    assert (complete.weights[..., 32:].sum() > 0) & (ended.weights != complete.weights).any()
    bound = math.exp(-OPAQUE)
    assert 0 < (complete.alpha - ended.alpha).max() < bound
    assert (complete.rgb - ended.rgb).abs().max() < bound


def _constant_field(density):
    """A density that is the same everywhere, of two objects, and one colour."""
    network = TriPlaneFieldConfig(features=4, hidden=4).build()
    with torch.no_grad():
        network.layers[1].weight.zero_()
        network.layers[1].bias.copy_(torch.tensor([math.log(math.expm1(density)) + 1, 0.0, 1.0, -1.0]))
    return TriPlaneRadiance(TriPlaneRows.of(torch.randn(2, 3, 4, 8, 8)), HALF, network)


@torch.no_grad()
@pytest.mark.parametrize("fine", [0, 7])
def test_constant_density_has_the_closed_form(fine):
    field, (origins, directions), density = _constant_field(1.7), _rays(), 1.7
    near, far = box_distances(origins, directions, HALF)
    out = render_rays(field, origins, directions, HALF, VolumeConfig(coarse=5, fine=fine))
    alpha = 1 - torch.exp(-density * (far - near))
    color = 1.002 * torch.sigmoid(torch.tensor([0.0, 1.0, -1.0])) - 0.001
    torch.testing.assert_close(out.alpha, alpha, atol=2e-6, rtol=0)
    torch.testing.assert_close(out.rgb, alpha[..., None] * color + 1 - alpha[..., None], atol=5e-6, rtol=0)
    torch.testing.assert_close(out.widths.sum(-1), far - near)


def test_rays_that_need_gradients_take_the_differentiable_way():
    field, (origins, directions) = _field(), _rays(20)
    out = render_rays(field, origins, directions, HALF, VolumeConfig(coarse=8, fine=8))
    weight = field.network.layers[0].weight
    assert torch.autograd.grad(out.rgb.square().sum(), weight)[0].abs().sum() > 0


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("resolution", [16, 21])
def test_a_grid_of_densities_is_that_of_its_points(config, resolution):
    field = _field(config)
    places = ((torch.arange(resolution) + 0.5) * (2 / resolution) - 1) * HALF
    with torch.no_grad():
        expected, _ = _plain(field)(torch.cartesian_prod(places, places, places).expand(2, -1, -1))
    found = field.grid_density(places)
    torch.testing.assert_close(found.flatten(1), expected, atol=1e-5, rtol=1e-5)
    cells, others = (Occupancy.of(one, 2, HALF, resolution=resolution).cells for one in (field, _plain(field)))
    assert torch.equal(cells, others)


def test_a_grid_of_a_network_that_reads_planes_side_by_side():
    rows = TriPlaneRows.of(torch.randn(2, 3, 5, 12, 9))
    network = TriPlaneFieldConfig(features=15, hidden=20, layers=2, extra={"a": 3}).build()
    places = torch.linspace(-HALF, HALF, 18)
    points = torch.cartesian_prod(places, places, places).expand(2, -1, -1)
    with torch.no_grad():
        expected = network(sample_triplane(rows, points, HALF, reduce="concat")).raw
    found = grid_raw(rows, HALF, network, places, reduce="concat")
    torch.testing.assert_close(found.flatten(1), expected, atol=1e-5, rtol=1e-5)


def test_the_plain_way_is_asked_as_told():
    field = _field()
    calls = []

    def halves(function, points):
        calls.append(points.shape[1])
        parts = [function(part) for part in points.chunk(2, 1)]
        return tuple(torch.cat(part, 1) for part in zip(*parts, strict=True))

    points = (torch.rand(2, 30, 3) * 2 - 1) * HALF
    told = dataclasses.replace(_plain(field), asked=halves)
    torch.testing.assert_close(told(points), _plain(field)(points))
    assert calls == [30]
    double = TriPlaneRadiance(TriPlaneRows(field.rows.table.double()), HALF, field.network.double())
    assert not double.compiled(points)
    assert double(points.double())[0].dtype == torch.float64
