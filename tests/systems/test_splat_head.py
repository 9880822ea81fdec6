"""From pixels to splats: the lift-render identity, rays, offsets and rotations, and both depth heads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.depth_range import DepthRange
from latent3d.geometry.rotations import axis_angle, quaternion_to_matrix
from latent3d.rendering.splats import render_gaussians
from latent3d.systems.reference_geometry import ray_slopes
from latent3d.systems.splat_head import DepthHeadConfig, SplatHeadConfig, lift_pixels, surface_frames
from latent3d.worlds.clips import sample_clip
from systems.common import batched, psnr, shaken, smooth_images, walk_cameras

SPAN = DepthRange(near=0.3, far=30.0, spacing="log")


@pytest.fixture(scope="module")
def clip():
    """Two views of a furnished room with true depth."""
    return sample_clip("rooms", "test", 3, num_views=2, height=64, width=64, supersample=1)


# ---- lifting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 8])
def test_splats_from_true_depth_and_colour_render_to_the_picture_and_the_depth(clip, size):
    """Spec 12.4, at full and at latent resolution, each view at its own pose."""
    factor = 64 // size
    images = F.avg_pool2d(clip.images, factor)
    depths = F.pixel_unshuffle(clip.depths, factor).median(1, keepdim=True).values
    for view in range(2):
        cameras = clip.cameras[view : view + 1]
        (splats,) = lift_pixels(
            cameras[None],
            depths[None, view : view + 1],
            opacity=torch.full((1, 1, 1, size, size), 0.97),
            color=images[None, view : view + 1],
            scale_px=0.25,
        )
        seen = render_gaussians(splats, cameras.resized(size, size), low_pass=0.1)
        assert psnr(seen.rgb, images[view : view + 1]) > 25
        assert seen.alpha.mean() > 0.95
        error = (seen.depth - depths[view : view + 1]).abs() / depths[view : view + 1]
        assert error.median() < 0.01
        assert error.mean() < 0.04


def test_means_lie_on_the_rays_at_their_depth_view_by_view_and_sample_by_sample():
    cameras = batched(walk_cameras(3, dtype=torch.float64), 2)
    depth = 1 + torch.rand(2, 3, 2, 4, 6, dtype=torch.float64)
    offset = torch.rand(2, 3, 2, 4, 6, dtype=torch.float64) - 0.5
    opacity = torch.rand(2, 3, 2, 4, 6, dtype=torch.float64)
    color = torch.rand(2, 3, 3, 4, 6, dtype=torch.float64)
    features = torch.rand(2, 3, 5, 4, 6, dtype=torch.float64)
    scenes = lift_pixels(cameras, depth, opacity=opacity, color=color, scale_px=0.5, offset=offset, features=features)
    x = torch.arange(6, dtype=torch.float64) + 0.5
    y = torch.arange(4, dtype=torch.float64) + 0.5
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"))
    for scene, splats in enumerate(scenes):
        assert len(splats) == 3 * 2 * 4 * 6
        means = splats.means.reshape(3, 2, 24, 3)
        for view in range(3):
            for sample in range(2):
                pixel, z = cameras[scene, view].resized(4, 6).project(means[view, sample])
                torch.testing.assert_close(z, depth[scene, view, sample].flatten())
                torch.testing.assert_close(pixel.T.reshape(2, 4, 6), grid + offset[scene, view])
        torch.testing.assert_close(splats.opacities, opacity[scene].flatten())
        for name, given in (("colors", color), ("features", features)):
            got = getattr(splats, name).reshape(3, 2, 4, 6, -1)
            torch.testing.assert_close(got[:, 0], given[scene].movedim(1, -1))
            torch.testing.assert_close(got[:, 1], got[:, 0])


def test_scales_are_grid_pixels_at_the_depth_of_the_splat():
    cameras = batched(walk_cameras(1, size=32, fov=90.0))  # focal length 16, on a 8 x 8 grid 4
    depth = torch.full((1, 1, 1, 8, 8), 2.0)
    common = {"opacity": torch.ones_like(depth), "color": torch.zeros(1, 1, 3, 8, 8)}
    (one,) = lift_pixels(cameras, depth, scale_px=0.6, **common)
    torch.testing.assert_close(one.scales, torch.full((64, 3), 0.6 * 2 / 4))
    each = torch.rand(1, 1, 3, 8, 8)
    (many,) = lift_pixels(cameras, depth, scale_px=each, **common)
    torch.testing.assert_close(many.scales, each[0, 0].flatten(1).T * 0.5)


def test_orientations_are_given_in_camera_axes():
    cameras = batched(walk_cameras(3, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    local = F.normalize(torch.randn(1, 3, 4, 2, 2, generator=generator, dtype=torch.float64), dim=2)
    depth = torch.ones(1, 3, 1, 2, 2, dtype=torch.float64)
    common = {"opacity": depth, "color": torch.zeros(1, 3, 3, 2, 2, dtype=torch.float64), "scale_px": 0.5}
    (turned,) = lift_pixels(cameras, depth, quaternion=local, **common)
    (plain,) = lift_pixels(cameras, depth, **common)
    to_world = cameras.c2w[0, :, None, :3, :3]
    own = quaternion_to_matrix(local[0].movedim(1, -1)).reshape(3, 4, 3, 3)
    torch.testing.assert_close(quaternion_to_matrix(turned.quaternions).reshape(3, 4, 3, 3), to_world @ own)
    torch.testing.assert_close(quaternion_to_matrix(plain.quaternions).reshape(3, 4, 3, 3), to_world.expand(3, 4, 3, 3))


def test_a_long_splat_turned_a_quarter_about_the_axis_of_view_stands_upright():
    cameras = batched(walk_cameras(2))[:, 1:]
    depth = torch.full((1, 1, 1, 1, 1), 2.0)
    quarter = axis_angle(torch.tensor([0.0, 0.0, 1.0]), torch.tensor(torch.pi / 2)).reshape(1, 1, 4, 1, 1)
    (splat,) = lift_pixels(
        cameras,
        depth,
        opacity=torch.full_like(depth, 0.9),
        color=torch.ones(1, 1, 3, 1, 1),
        scale_px=torch.tensor([0.2, 0.02, 0.02]).reshape(1, 1, 3, 1, 1),
        quaternion=quarter,
    )
    alpha = render_gaussians(splat, cameras[0]).alpha[0, 0]
    rows, columns = (alpha > 0.2).any(1).sum(), (alpha > 0.2).any(0).sum()
    assert rows > 3 * columns


# ---- the heads ------------------------------------------------------------------------------------------------------


def head_case(kind, samples=3, trained=True, seed=0):
    torch.manual_seed(seed)
    depth = DepthHeadConfig(kind=kind, buckets=6, samples=samples)
    head = SplatHeadConfig(depth=depth, features=5, width=8).build(7, SPAN)
    if trained:
        shaken(head, 0.2)
    cameras = batched(walk_cameras(3), 2)
    features = torch.randn(2, 3, 7, 4, 4)
    known = torch.zeros(2, 3, 1, 4, 4)
    return head, features, cameras, known


def depth_noise(kind, samples, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if kind == "gaussian":
        return torch.randn(2, 3, 1, 4, 4, generator=generator)
    return torch.rand(2, 3, samples, 4, 4, generator=generator)


@pytest.mark.parametrize(("kind", "samples"), [("gaussian", 1), ("categorical", 3)])
def test_shapes_ranges_and_opacity_factor_in_training(kind, samples):
    head, features, cameras, known = head_case(kind)
    scenes, depth = head(features, cameras, known, known, depth_noise(kind, samples))
    assert depth.relative.shape == depth.factor.shape == (2, 3, samples, 4, 4)
    assert depth.mean.shape == (2, 3, 1, 4, 4)
    for values in (depth.relative, depth.factor, depth.mean):
        assert values.min() >= 0
        assert values.max() <= 1
    _, certain = head(features, cameras, known, known)
    assert torch.equal(certain.factor, torch.ones(2, 3, 1, 4, 4))
    sure, _ = head(features, cameras, known, known)
    for scene in range(2):
        assert len(scenes[scene]) == 3 * samples * 16
        assert scenes[scene].features.shape[1] == 5
        ratio = scenes[scene].opacities.reshape(3, samples, 16) / sure[scene].opacities.reshape(3, 1, 16)
        torch.testing.assert_close(ratio, depth.factor[scene].flatten(2))
        z = cameras[scene].project(scenes[scene].means.reshape(3, -1, 3))[1].reshape(3, samples, 4, 4)
        torch.testing.assert_close(z, SPAN.depth(depth.relative[scene]), rtol=1e-4, atol=1e-4)


def test_the_gaussian_head_draws_around_its_mean_and_fades_what_lies_far_from_it():
    head, features, cameras, known = head_case("gaussian")
    _, centre = head(features, cameras, known, known, torch.zeros(2, 3, 1, 4, 4))
    assert torch.equal(centre.relative, centre.mean)
    assert torch.equal(centre.factor, torch.ones_like(centre.factor))
    _, one = head(features, cameras, known, known, torch.full((2, 3, 1, 4, 4), 1.0))
    spread = one.relative - one.mean
    low, high = head.config.depth.spread
    inside = one.relative < 1
    assert inside.float().mean() > 0.5
    assert spread[inside].min() > low * 0.9
    assert spread[inside].max() < high
    torch.testing.assert_close(one.factor[inside], torch.full_like(one.factor[inside], 0.60653), rtol=1e-3, atol=0)


def test_the_categorical_head_draws_buckets_by_their_probability():
    head, *_ = head_case("categorical")
    logits = torch.tensor([0.1, 0.4, 0.05, 0.25, 0.15, 0.05]).log()
    raw = torch.cat([logits, torch.zeros(6)]).reshape(1, 1, 12, 1, 1)
    zero = torch.zeros(1, 1, 1, 1, 1)
    noise = ((torch.arange(1000) + 0.5) / 1000).reshape(1, 1, 1000, 1, 1)
    drawn = head.depth_of(raw, zero, zero, noise)
    bucket = (drawn.relative.flatten() * 6).floor().long()
    assert torch.bincount(bucket, minlength=6).tolist() == [100, 400, 50, 250, 150, 50]
    torch.testing.assert_close(drawn.factor.flatten(), logits.exp()[bucket] / head.config.depth.samples)
    torch.testing.assert_close(drawn.relative.flatten(), (bucket + 0.5) / 6)
    likely = head.depth_of(raw, zero, zero, None)
    assert likely.relative.item() == pytest.approx(1.5 / 6)
    expected = (logits.exp() * (torch.arange(6) + 0.5) / 6).sum()
    assert drawn.mean.item() == pytest.approx(expected.item()) == pytest.approx(likely.mean.item())


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_without_noise_it_is_deterministic_and_gives_one_splat_per_pixel(kind):
    head, features, cameras, known = head_case(kind)
    first, depth = head(features, cameras, known, known)
    second, _ = head(features, cameras, known, known)
    assert len(first[0]) == 3 * 16
    assert depth.relative.shape[2] == 1
    for a, b in zip(first, second, strict=True):
        for name in ("means", "quaternions", "scales", "opacities", "colors", "features"):
            assert torch.equal(getattr(a, name), getattr(b, name))
    noisy, _ = head(features, cameras, known, known, depth_noise(kind, 3))
    assert not torch.equal(noisy[0].means[:16], first[0].means[:16])


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_known_depth_is_trusted_exactly_where_it_is_known(kind):
    head, features, cameras, known = head_case(kind)
    is_known = known.clone()
    is_known[:, 0] = 1
    known[:, 0] = 0.37
    with torch.no_grad():
        head.to_trust.weight.zero_()
        head.to_trust.bias.fill_(30.0)  # full trust
    _, depth = head(features, cameras, known, is_known)
    torch.testing.assert_close(depth.relative[:, 0], torch.full((2, 1, 4, 4), 0.37))
    torch.testing.assert_close(depth.mean[:, 0], torch.full((2, 1, 4, 4), 0.37))
    with torch.no_grad():
        head.to_trust.bias.fill_(-30.0)  # none
    _, free = head(features, cameras, known, is_known)
    torch.testing.assert_close(depth.relative[:, 1:], free.relative[:, 1:])
    assert (free.relative[:, 0] - 0.37).abs().mean() > 0.01


def test_untrained_heads_trust_known_depth_mostly():
    head, features, cameras, known = head_case("gaussian", trained=False)
    known[:, 0] = 0.9
    is_known = (known > 0).float()
    _, depth = head(features, cameras, known, is_known)
    _, free = head(features, cameras, known, torch.zeros_like(known))
    share = torch.sigmoid(torch.tensor(2.0))
    assert (depth.mean[:, 0] - 0.9).abs().max() < (1 - share) * 0.9 + 1e-5
    assert (free.mean - 0.5).abs().max() < 0.2  # half of the range without anything to go by


@pytest.mark.parametrize(("kind", "samples"), [("gaussian", 1), ("categorical", 3)])
def test_gradients_reach_every_parameter_through_a_render(kind, samples):
    head, features, cameras, known = head_case(kind, samples)
    known[:, 0] = 0.5
    scenes, _ = head(features, cameras, known, (known > 0).float(), depth_noise(kind, samples))
    target = F.avg_pool2d(smooth_images(3), 8)
    loss = sum(
        (render_gaussians(scene, cameras[i].resized(4, 4), low_pass=0.1).rgb - target).square().mean()
        + render_gaussians(scene, cameras[i].resized(4, 4), low_pass=0.1).features.square().mean()
        for i, scene in enumerate(scenes)
    )
    loss.backward()
    silent = [name for name, p in head.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []
    depth_gradient = head.to_depth.weight.grad[:, :, 0, 0].abs().amax(1)
    assert (depth_gradient > 0).float().mean() > 0.7  # more than the buckets that happened to be drawn


def test_untrained_splats_have_the_configured_size_and_opacity():
    head, features, cameras, known = head_case("gaussian", trained=False)
    (splats, _), depth = head(0 * features, cameras, known, known)
    focal = cameras.resized(4, 4).k[0, 0, 0, 0]
    size = splats.scales.reshape(3, 16, 3) / SPAN.depth(depth.relative[0]).reshape(3, 16, 1) * focal
    assert (size - 0.25).abs().max() < 0.1
    assert (splats.opacities - 0.88).abs().max() < 0.05
    turned = quaternion_to_matrix(splats.quaternions).reshape(3, 16, 3, 3)
    assert (turned - cameras.c2w[0, :, None, :3, :3]).abs().max() < 0.3


def test_surface_frames_tile_a_slanted_plane():
    """z = 2 + 0.5 x: normals stand on the plane, steps grow with the slant, and nothing bridges an edge."""
    size = 16
    camera = Cameras.from_fov(torch.eye(4)[None, None], 60.0, size, size)
    slopes = ray_slopes(camera)[:, :, :1]
    depth = 2.0 / (1 - 0.5 * slopes)
    quaternion, stretch = surface_frames(camera, depth)
    frame = quaternion_to_matrix(quaternion.movedim(2, -1))
    normal = torch.tensor([0.5, 0.0, -1.0]) / 1.25**0.5
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    torch.testing.assert_close((frame[..., :, 2] @ normal)[inner].abs(), torch.ones(1, 1, size - 2, size - 2))
    assert stretch[:, :, 0].mean() > 1.05
    step = depth.clone()
    step[..., size // 2 :] += 5.0
    _, broken = surface_frames(camera, step)
    assert broken[:, :, 0].max() < 2.5
