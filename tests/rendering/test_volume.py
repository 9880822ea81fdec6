"""Volume rendering: closed forms, and what must not matter (chunks, skipped rays, other objects, repetition)."""

import math

import pytest
import torch
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.rays import camera_rays, unproject
from latent3d.rendering import volume
from latent3d.rendering.ray_samples import box_distances, importance, part_edges, stratified
from latent3d.rendering.volume import RayRendering, VolumeConfig, render_rays, render_volume

from .scenes import ring_cameras

HALF = 0.45


def _cameras(views=2, size=12, objects=1) -> Cameras:
    ring = ring_cameras(views * objects, size, size + 3, distance=1.9)
    return Cameras(
        ring.w2c.unflatten(0, (objects, views)), ring.k.unflatten(0, (objects, views)), ring.height, ring.width
    )


def _constant(density: float, color=(0.2, 0.5, 0.9)):
    def field(points: Tensor) -> tuple[Tensor, Tensor]:
        assert (points.abs() <= HALF).all(), "asked outside the box"
        value = points.new_tensor(color).expand(*points.shape[:-1], len(color))
        return points.new_full(points.shape[:-1], density), value

    return field


def _ball(points: Tensor, radius=0.3, sharp=300.0) -> tuple[Tensor, Tensor]:
    """A dense ball with colours that change with the place; the second object's is smaller."""
    assert (points.abs() <= HALF).all(), "asked outside the box"
    radii = radius * torch.tensor([1.0, 0.6, 0.8], dtype=points.dtype)[: len(points), None]
    density = 200 * torch.sigmoid(sharp * (radii - points.norm(dim=-1)))
    return density, 0.5 + points


def _rays(cameras):
    return tuple(rays.flatten(1, 3) for rays in camera_rays(cameras))


@pytest.mark.parametrize("jitter", [False, True])
@pytest.mark.parametrize("fine", [0, 7])
@pytest.mark.parametrize("guided", [False, True])
def test_constant_density_has_the_closed_form(jitter, fine, guided):
    origins, directions = _rays(_cameras())
    near, far = box_distances(origins, directions, HALF)
    density, color, length = 1.7, torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64), far - near
    assert (length == 0).any() and (length > 0).any()  # noqa: PT018
    config = VolumeConfig(coarse=5, fine=fine)
    guide = torch.where(torch.arange(near.shape[1]) % 2 == 0, (near + far) / 2, 0) if guided else None
    out = render_rays(
        _constant(density), origins, directions, HALF, config, guide=guide,
        generator=torch.Generator().manual_seed(1) if jitter else None,
    )  # fmt: skip
    alpha = 1 - torch.exp(-density * length)
    torch.testing.assert_close(out.alpha, alpha)
    torch.testing.assert_close(out.rgb, alpha[..., None] * color + 1 - alpha[..., None])
    torch.testing.assert_close(out.weights.sum(-1), alpha)
    torch.testing.assert_close(out.widths.sum(-1), length)
    assert (out.samples.diff(dim=-1) >= 0).all()
    torch.testing.assert_close(out.distance_sum, out.distance * alpha)


def test_expected_distance_of_constant_density_has_the_closed_form():
    origins, directions = torch.tensor([[[0.0, -2.0, 0.0]]]).double(), torch.tensor([[[0.0, 1.0, 0.0]]]).double()
    density, length, near = 3.0, 2 * HALF, 2 - HALF
    out = render_rays(_constant(density), origins, directions, HALF, VolumeConfig(coarse=512, fine=0))
    tau = density * length
    mean = 1 / density - length * math.exp(-tau) / (1 - math.exp(-tau))
    assert abs(float(out.distance) - (near + mean)) < 1e-5


def test_distances_to_the_box_are_exact_and_misses_are_zero():
    origins = torch.tensor([[[0.0, 0, -2], [0, 0, 0], [0, 0, -2], [0, 0.45, -2], [0.1, 0.1, 2]]])
    directions = torch.tensor([[[0.0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0.6, 0.8], [0, 0, 1]]])
    near, far = box_distances(origins, directions, HALF)
    torch.testing.assert_close(near, torch.tensor([[1.55, 0, 0, 0, 0]]))
    torch.testing.assert_close(far, torch.tensor([[2.45, 0.45, 0, 0, 0]]))


def test_a_dense_ball_shows_its_surface_depth_alpha_and_normals():
    cameras = _cameras(views=3, size=24)
    out = render_volume(_ball, cameras, HALF, VolumeConfig(), normals=True)
    solid = out.alpha > 0.999
    assert solid.sum() > 100
    points = unproject(cameras, out.depth)
    distance = points.norm(dim=-1)[solid.squeeze(2)]
    torch.testing.assert_close(distance, torch.full_like(distance, 0.3), atol=0.01, rtol=0)
    expected = torch.nn.functional.normalize(points, dim=-1).movedim(-1, 2)
    cosine = (out.normals * expected).sum(2, keepdim=True)[solid]
    assert cosine.min() > 0.99
    torch.testing.assert_close(out.normals.norm(dim=2, keepdim=True)[solid], torch.ones_like(cosine))
    nothing = out.alpha == 0
    assert nothing.any()
    assert not out.depth[nothing].any()
    assert not out.normals.movedim(2, -1)[nothing.squeeze(2)].any()
    assert (out.rgb.movedim(2, -1)[nothing.squeeze(2)] == 1).all()
    torch.testing.assert_close(out.depth_sum, out.depth * out.alpha, atol=1e-5, rtol=0)


def test_depth_is_along_the_axis_and_not_along_the_ray():
    """A wall across the axis has one depth everywhere, also in the corners of the picture."""
    pose = torch.eye(4, dtype=torch.float64)
    pose[2, 3] = -1.5
    cameras = Cameras.from_fov(pose[None, None], 20.0, 9, 9)

    def wall(points):
        return 3000.0 * (points[..., 2] > 0.1).to(points), torch.zeros_like(points)

    depth = render_volume(wall, cameras, HALF, VolumeConfig(coarse=256, fine=256)).depth
    torch.testing.assert_close(depth, torch.full_like(depth, 1.6), atol=2e-3, rtol=0)


def _assert_same(found, expected, **tolerance):
    for name in ("rgb", "depth", "depth_sum", "alpha", "normals"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), **tolerance)


@pytest.mark.parametrize("chunk", [1, 7, 100, 10**6])
def test_chunks_do_not_matter(chunk):
    cameras = _cameras(size=6)
    config = VolumeConfig(coarse=16, fine=8)
    whole = render_volume(_ball, cameras, HALF, config.replace(chunk_rays=10**6), normals=True)
    _assert_same(render_volume(_ball, cameras, HALF, config.replace(chunk_rays=chunk), normals=True), whole)


def test_two_renderings_are_identical():
    cameras = _cameras()
    first, second = (render_volume(_ball, cameras, HALF, VolumeConfig(), normals=True) for _ in range(2))
    _assert_same(first, second, atol=0, rtol=0)


def test_objects_of_a_batch_are_the_objects_alone():
    cameras = _cameras(views=2, objects=3)
    config = VolumeConfig(coarse=16, fine=8)
    together = render_volume(_ball, cameras, HALF, config, normals=True)
    small = render_volume(lambda p: _ball(p, radius=0.3 * 0.6), cameras[1:2], HALF, config, normals=True)
    for name in ("rgb", "depth", "alpha", "normals"):
        torch.testing.assert_close(getattr(together, name)[1:2], getattr(small, name))


def test_skipping_rays_that_miss_changes_nothing():
    origins, directions = _rays(_cameras())
    config = VolumeConfig(coarse=16, fine=8)
    near, far = box_distances(origins, directions, HALF)
    along = volume._along(_ball, origins, directions, HALF)
    every = volume._march(along, near, far, HALF, config, None, None)
    culled = render_rays(_ball, origins, directions, HALF, config)
    for name in RayRendering.__dataclass_fields__:
        torch.testing.assert_close(getattr(culled, name), getattr(every, name), msg=name)


def test_cameras_that_see_nothing_show_the_background():
    cameras = _cameras()
    away = Cameras(cameras.w2c * torch.tensor([-1.0, 1, -1, 1], dtype=torch.float64)[:, None], cameras.k, 12, 15)
    out = render_volume(_ball, away, HALF, VolumeConfig(background=0.25), normals=True)
    assert (out.rgb == 0.25).all()
    for value in (out.alpha, out.depth, out.normals):
        assert not value.any()


def test_training_draws_follow_the_generator():
    origins, directions = _rays(_cameras())
    config = VolumeConfig(coarse=8, fine=8, density_noise=1.0)

    def render(seed):
        return render_rays(_ball, origins, directions, HALF, config, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(render(1).rgb, render(1).rgb)
    assert not torch.equal(render(1).samples, render(2).samples)
    calm = render_rays(
        _ball, origins, directions, HALF, config.replace(density_noise=0.0), generator=torch.Generator().manual_seed(1)
    )
    assert torch.equal(calm.samples, render(1).samples)
    assert not torch.equal(calm.weights, render(1).weights)


def test_guided_samples_are_in_the_documented_band():
    origins, directions = _rays(_cameras())
    near, far = box_distances(origins, directions, HALF)
    hit = far > near
    guide = torch.where(hit, near + 0.3 * (far - near), 0)
    guide[:, ::3] = 0
    config = VolumeConfig(coarse=4, guided=6, guide_width=0.05)
    out = render_rays(_ball, origins, directions, HALF, config, guide=guide, generator=torch.Generator().manual_seed(0))
    assert out.samples.shape[-1] == 10
    band = ((out.samples - guide[..., None]).abs() <= 0.05 * HALF + 1e-9).sum(-1)
    guided = hit & (guide > 0)
    assert guided.any()
    assert (band[guided] >= 6).all()
    plain = hit & (guide == 0)
    inside = (out.samples >= near[..., None]) & (out.samples <= far[..., None])
    assert inside[hit].all()
    third = (out.samples < (near + (far - near) / 2)[..., None]).sum(-1)[plain]
    assert (third == 5).all()  # both sets spread evenly: half of each


def test_importance_samples_gather_where_the_weight_is():
    near, far = torch.zeros(1, 1), torch.ones(1, 1)
    samples = stratified(near, far, 10)
    weights = torch.zeros(1, 1, 10)
    weights[..., 6] = 1.0
    found = importance(part_edges(samples, near, far), weights, 40)
    assert (found.diff(dim=-1) >= 0).all()
    assert ((found > 0.5) & (found < 0.8)).float().mean() > 0.9  # the part and its neighbours
    nothing = importance(part_edges(samples, near, far), torch.zeros(1, 1, 10), 10)
    torch.testing.assert_close(nothing, samples)


def test_gradients_reach_density_and_colours_through_both_passes():
    origins, directions = _rays(_cameras(size=4))
    parameters = torch.tensor([0.3, 0.5, 2.0], dtype=torch.float64, requires_grad=True)

    def render(values):
        def field(points):
            density = 20 * torch.sigmoid(30 * (values[0] - points.norm(dim=-1)))
            return density, values[1:].expand(*points.shape[:-1], 2)

        # importance samples move with the parameters but carry no gradient: the check is without them
        out = render_rays(field, origins, directions, HALF, VolumeConfig(coarse=9, fine=0))
        return out.rgb, out.distance_sum, out.alpha

    assert torch.autograd.gradcheck(render, (parameters,))
    rgb = render_rays(
        lambda p: (p.new_ones(p.shape[:-1]) * parameters[0], parameters[1:].expand(*p.shape[:-1], 2)),
        origins, directions, HALF, VolumeConfig(coarse=3, fine=4),
    ).rgb  # fmt: skip
    gradient = torch.autograd.grad(rgb.sum(), parameters)[0]
    near, far = box_distances(origins, directions, HALF)
    remaining = torch.exp(-parameters[0].detach() * (far - near))
    torch.testing.assert_close(gradient[1], (1 - remaining).sum())
    torch.testing.assert_close(gradient[0], ((far - near) * remaining * (0.5 + 2.0 - 2)).sum())


def test_half_precision_fields_are_composited_in_single_precision():
    origins, directions = (rays.float() for rays in _rays(_cameras()))
    out = render_rays(
        lambda p: tuple(value.bfloat16() for value in _ball(p)), origins, directions, HALF, VolumeConfig()
    )
    assert {getattr(out, name).dtype for name in RayRendering.__dataclass_fields__} == {torch.float32}


def test_wrong_settings_are_refused():
    cameras = _cameras()
    with pytest.raises(ValueError, match="objects, views"):
        render_volume(_ball, cameras[0], HALF, VolumeConfig())
    with pytest.raises(ValueError, match="half_size"):
        render_volume(_ball, cameras, -1.0, VolumeConfig())
    with pytest.raises(ValueError, match="coarse sample"):
        VolumeConfig(coarse=0)
    with pytest.raises(ValueError, match="guide_width"):
        VolumeConfig(guide_width=0.0)
