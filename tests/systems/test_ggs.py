"""The figure as a whole: no way around the splats, what sampling keeps, orders, frames of the world, variants."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from latent3d.geometry.cameras import Cameras, invert_rigid
from latent3d.geometry.rotations import quaternion_to_matrix
from latent3d.geometry.view_order import path_order
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.views import Views
from latent3d.systems.carried_pixels import pool_known
from latent3d.systems.ggs import GGSConfig
from systems.common import (
    SIZE,
    psnr,
    ramp_image,
    rigid,
    scene_views,
    shaken,
    smooth_images,
    tiny_config,
    tiny_system,
    walk_cameras,
)

GAUSSIAN_FIELDS = ("means", "quaternions", "scales", "opacities", "colors")


@pytest.fixture(scope="module")
def system():
    return shaken(tiny_system()).eval()


@pytest.fixture(scope="module")
def twisted_world():
    """Five cameras in a world whose origin and axes are nobody's camera."""
    return walk_cameras(5).relative_to(invert_rigid(rigid()))


def references_of(cameras: Cameras) -> Views:
    return Views(smooth_images(len(cameras)), cameras)


def recorded_sample(system, cameras, references, targets, **options):
    """A sample and the state of its last step; ``references`` and ``targets`` are indices."""
    states = []
    out = system.sample(
        references_of(cameras[torch.tensor(references)]),
        cameras[torch.tensor(targets, dtype=torch.long)],
        on_step=lambda step: states.append(step.state),
        **options,
    )
    return out, states


# ---- the figure -----------------------------------------------------------------------------------------------------


def forward_case(system, hook=None):
    """v of all views of one scene, and the noisy latents it came from."""
    views = scene_views(3, 1)
    is_reference = torch.tensor([True, False, False])
    context = system.context_of(views.images, views.cameras, is_reference)
    noisy = torch.randn(context.latents.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    handle = None if hook is None else system.head.register_forward_hook(hook)
    try:
        state = system(noisy, torch.tensor([0.8]), context)
    finally:
        if handle is not None:
            handle.remove()
    return noisy, state


def blank(module, inputs, output):
    """Splats with nothing to say: features and colours zero, everything else constant."""
    splats, depth = output
    splats = [
        dataclasses.replace(s.detach(), features=torch.zeros_like(s.features), colors=torch.zeros_like(s.colors))
        for s in splats
    ]
    return splats, depth


@pytest.mark.parametrize("target", [1, 2])
def test_views_learn_of_each_other_through_the_splats_alone(system, target):
    """Spec 12.6: with blank splats, no target's v depends on another view's latents; with real ones it does."""
    noisy, state = forward_case(system, blank)
    (gradient,) = torch.autograd.grad(state.velocity[0, target].square().sum(), noisy)
    reach = gradient[0].abs().amax((1, 2, 3))
    assert reach[target] > 0
    assert reach[3 - target] == 0
    noisy, state = forward_case(system)
    (gradient,) = torch.autograd.grad(state.velocity[0, target].square().sum(), noisy)
    assert gradient[0, 3 - target].abs().max() > 0


def test_references_enter_clean_and_come_out_unchanged(system):
    noisy, state = forward_case(system)
    views = scene_views(3, 1)
    context = system.context_of(views.images, views.cameras, torch.tensor([True, False, False]))
    assert torch.equal(state.z0[:, 0], context.latents[:, 0])
    (gradient,) = torch.autograd.grad(state.z0.square().sum(), noisy)
    assert not gradient[0, 0].any()  # what stands in for the noise of a reference is never read


def test_the_latent_channels_and_all_renders_have_their_shapes(system):
    _, state = forward_case(system)
    h = w = SIZE // 8
    assert state.z0.shape == state.velocity.shape == state.rendered_latents.shape == (1, 3, 4, h, w)
    assert state.rgb.shape == (1, 3, 3, h, w)
    assert state.alpha.shape == state.depth_map.shape == (1, 3, 1, h, w)
    assert len(state.splats[0]) == 3 * h * w


def test_scenes_of_a_batch_are_independent(system):
    views = scene_views(3, 2)
    role = torch.tensor([True, False, False])
    noisy = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.5, 4.0])
    with torch.no_grad():
        both = system(noisy, sigma, system.context_of(views.images, views.cameras, role))
        for scene in range(2):
            one = views[scene : scene + 1]
            alone = system(
                noisy[scene : scene + 1], sigma[scene : scene + 1], system.context_of(one.images, one.cameras, role)
            )
            torch.testing.assert_close(alone.z0[0], both.z0[scene], rtol=0, atol=1e-4)
            torch.testing.assert_close(alone.depth_map[0], both.depth_map[scene], rtol=1e-3, atol=1e-3)


def test_context_reads_references_only_and_starts_at_the_first_of_them(system):
    views = scene_views(4, 1)
    role = torch.tensor([False, True, False, True])
    other = views.images.clone()
    other[:, ~role] = torch.rand_like(other[:, ~role])
    a, b = (system.context_of(images, views.cameras, role) for images in (views.images, other))
    for field in ("latents", "images", "known", "known_share", "carried", "crossed", "relative"):
        assert torch.equal(getattr(a, field), getattr(b, field))
    torch.testing.assert_close(a.cameras.w2c[0, 1], torch.eye(4), rtol=0, atol=1e-5)
    assert not a.latents[:, ~role].any()
    assert a.known_share[:, role].min() == 1
    assert a.known_share[:, ~role].max() <= 1
    assert torch.equal(a.known[:, role], patch_median(a.relative))
    assert a.latents[:, role].abs().amax((0, 2, 3, 4)).min() > 0
    assert torch.equal(a.carried[:, role, :3], views.images[:, role])
    assert a.carried[:, role, 3].min() == 1


def patch_median(relative):
    patches = F.pixel_unshuffle(relative.flatten(0, 1), 8)
    return patches.median(1, keepdim=True).values.unflatten(0, relative.shape[:2])


def test_known_depth_is_the_median_of_what_is_covered():
    relative = torch.full((1, 2, 1, 8, 16), 0.3)
    relative[..., 4:] = 0.6
    relative[..., :2] = 0.9
    alpha = torch.ones_like(relative)
    alpha[..., :2] = 0.0  # the 0.9 does not count: of six columns four are 0.6
    alpha[..., 8:] = 0.0  # nothing at all in the second patch
    known, share = pool_known(relative, alpha, 8)
    torch.testing.assert_close(known[0, :, 0, 0], torch.tensor([[0.6, 0.0], [0.6, 0.0]]))
    torch.testing.assert_close(share[0, :, 0, 0], torch.tensor([[0.75, 0.0], [0.75, 0.0]]))


def test_carried_pixels_show_the_reference_from_its_own_place(system):
    """A target at the reference's pose sees the reference's picture and depth; one that looks away sees nothing."""
    cameras = walk_cameras(1)
    back = cameras.relative_to(torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0])))
    cameras = Cameras.cat([cameras, cameras, back])[None]
    images = ramp_image().expand(1, 3, 3, SIZE, SIZE)
    context = system.context_of(images, cameras, torch.tensor([True, False, False]))
    color, alpha, relative = context.carried[0].split([3, 1, 1], 1)
    middle = slice(3, -3)
    assert alpha[1, :, middle, middle].min() > 0.8
    assert psnr(color[1, :, middle, middle], images[0, 0, :, middle, middle]) > 25
    assert (relative[1] - context.relative[0, 0])[:, middle, middle].abs().median() < 0.02
    assert not alpha[2].any()
    assert system.condition_of(context).shape == (1, 3, system.config.denoiser.condition_channels, 4, 4)
    assert not system.condition_of(context)[0, 2].any()


def test_references_see_each_other_and_never_themselves(system):
    """Of two references at one place each sees the other's picture; alone or back to back it sees nothing."""
    cameras = walk_cameras(1)
    back = cameras.relative_to(torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0])))
    pictures = torch.stack([ramp_image()[0], 1 - ramp_image()[0]])[None]
    both = torch.tensor([True, True])
    context = system.context_of(pictures, Cameras.cat([cameras, cameras])[None], both)
    color, alpha, _ = context.crossed[0].split([3, 1, 1], 1)
    middle = slice(3, -3)
    assert alpha[..., middle, middle].min() > 0.8
    for one in (0, 1):
        assert psnr(color[one, :, middle, middle], pictures[0, 1 - one, :, middle, middle]) > 25
    assert not system.context_of(pictures, Cameras.cat([cameras, back])[None], both).crossed[:, :, 3].any()
    alone = system.context_of(pictures, Cameras.cat([cameras, cameras])[None], torch.tensor([True, False]))
    assert not alone.crossed.any()


# ---- sampling -------------------------------------------------------------------------------------------------------


def test_sampling_keeps_references_and_orders_views_as_given(system, twisted_world):
    """References and targets are given out of path order on purpose."""
    references, targets = [3, 0], [4, 1, 2]
    out, states = recorded_sample(system, twisted_world, references, targets, steps=2)
    given = references_of(twisted_world[torch.tensor(references)])
    assert out.is_reference.tolist() == [True, True, False, False, False]
    assert torch.equal(out.images[:2], given.images)
    with torch.no_grad():
        torch.testing.assert_close(out.latents[:2], system.vae.encode(given.images), rtol=1e-4, atol=1e-5)
    assert torch.equal(out.cameras.w2c, twisted_world.w2c[torch.tensor(references + targets)])
    order = path_order(out.cameras)
    assert order.tolist() != list(range(5))
    assert len(states) == 2
    for state in states:
        assert torch.equal(state.z0[0, order.argsort()][:2], out.latents[:2])
    torch.testing.assert_close(states[-1].z0[0], out.latents[order], rtol=0, atol=1e-6)
    with torch.no_grad():
        decoded = system.vae.decode(out.latents[2:])
    torch.testing.assert_close(out.images[2:], decoded, rtol=1e-4, atol=1e-5)


def test_splats_live_in_the_world_of_the_given_cameras(system, twisted_world):
    """Rendered at the given cameras they show what the model saw inside, view by view in the order of the output."""
    out, _ = recorded_sample(system, twisted_world, [2], [4, 0], steps=1)
    h, w = out.depths.shape[-2:]
    seen = render_gaussians(out.latent_gaussians, out.cameras.resized(h, w), low_pass=system.config.low_pass_px)
    torch.testing.assert_close(seen.depth, out.depths, rtol=1e-3, atol=1e-3)
    assert len(out.gaussians) == (4 + 2) * SIZE**2  # two by two per reference pixel
    assert len(out.latent_gaussians) == 3 * h * w


def test_an_untrained_decoder_returns_the_reference_at_its_own_camera(twisted_world):
    nothing = twisted_world[:0]
    out = tiny_system().sample(Views(ramp_image(), twisted_world[3:4]), nothing, steps=1)
    seen = render_gaussians(out.gaussians, out.cameras)
    assert psnr(seen.rgb[0], out.images[0]) > 25
    assert seen.alpha[..., 2:-2, 2:-2].min() > 0.9


def test_moving_all_cameras_moves_the_scene_with_them(system, twisted_world):
    move = rigid(seed=8)
    moved_world = twisted_world.relative_to(invert_rigid(move))
    here, _ = recorded_sample(system, twisted_world, [0], [1, 2], steps=2)
    there, _ = recorded_sample(system, moved_world, [0], [1, 2], steps=2)
    torch.testing.assert_close(there.images, here.images, rtol=0, atol=2e-3)
    for name in ("gaussians", "latent_gaussians"):
        a, b = getattr(here, name), getattr(there, name)
        expected = a.means @ move[:3, :3].T + move[:3, 3]
        distance = (a.means - out_center(here)).norm(dim=-1, keepdim=True)
        assert ((b.means - expected).abs() / distance).max() < 1e-2
        turned = move[:3, :3] @ quaternion_to_matrix(a.quaternions)
        torch.testing.assert_close(quaternion_to_matrix(b.quaternions), turned, rtol=0, atol=1e-2)
        torch.testing.assert_close(b.opacities, a.opacities, rtol=0, atol=1e-2)


def out_center(out):
    return out.cameras.centers[0]


def test_same_seed_same_bits_and_another_seed_another_scene(system, twisted_world):
    first, again, other = (
        recorded_sample(system, twisted_world, [0], [1, 2], steps=2, seed=seed)[0] for seed in (5, 5, 6)
    )
    for name in GAUSSIAN_FIELDS:
        assert torch.equal(getattr(first.gaussians, name), getattr(again.gaussians, name))
    for name in ("images", "depths", "latents"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert (getattr(first, name)[1:] - getattr(other, name)[1:]).abs().max() > 1e-4
    assert torch.equal(first.images[0], other.images[0])
    assert torch.equal(first.latents[0], other.latents[0])


@pytest.mark.parametrize("references", [[0], [0, 3], [1, 2, 3]])
def test_any_number_of_references(system, twisted_world, references):
    targets = [view for view in range(4) if view not in references]
    out, states = recorded_sample(system, twisted_world, references, targets, steps=1)
    assert out.images.shape == (4, 3, SIZE, SIZE)
    assert out.is_reference.sum() == len(references)
    assert torch.isfinite(out.gaussians.means).all()
    assert torch.isfinite(out.images).all()
    assert len(states) == 1


def test_references_alone_give_their_scene(system, twisted_world):
    out, _ = recorded_sample(system, twisted_world, [0, 2], [], steps=3)
    assert out.is_reference.all()
    assert len(out.gaussians) == 2 * 4 * SIZE**2
    assert torch.equal(out.images, smooth_images(2))
    other, _ = recorded_sample(system, twisted_world, [0, 2], [], steps=1, seed=9)
    assert torch.equal(out.gaussians.means, other.gaussians.means)  # nothing is drawn


def test_pictures_of_another_size_and_no_reference_are_refused(system):
    cameras = walk_cameras(2)
    with pytest.raises(ValueError, match="at least one reference of 32x32 pixels, got 1 of 64x32"):
        system.sample(Views(torch.rand(1, 3, 32, 64), cameras[:1].resized(32, 64)), cameras[1:])
    with pytest.raises(ValueError, match="at least one reference of 32x32 pixels, got 0"):
        system.sample(Views(torch.rand(0, 3, 32, 32), cameras[:0]), cameras)


def test_path_order_known_answers():
    row = walk_cameras(5)
    assert path_order(row).tolist() == [0, 1, 2, 3, 4]
    assert path_order(row[torch.tensor([0, 4, 2, 1, 3])]).tolist() == [0, 3, 2, 4, 1]
    assert path_order(row[torch.tensor([4, 0, 1, 2, 3])]).tolist() == [0, 4, 3, 2, 1]
    assert path_order(row[:1]).tolist() == [0]


def test_path_order_without_a_move_goes_by_the_turn():
    turns = torch.tensor([0.0, 0.9, 0.3, 0.6])
    w2c = torch.eye(4).repeat(4, 1, 1)
    w2c[:, 0, 0] = w2c[:, 2, 2] = turns.cos()
    w2c[:, 0, 2], w2c[:, 2, 0] = turns.sin(), -turns.sin()
    cameras = Cameras(w2c, torch.eye(3).repeat(4, 1, 1), 8, 8)
    assert path_order(cameras).tolist() == [0, 2, 3, 1]


# ---- variants -------------------------------------------------------------------------------------------------------


def test_without_reference_geometry_it_is_the_papers_model(twisted_world):
    system = shaken(paper_system())
    assert system.geometry is None
    assert "geometry" not in system.stages()
    out, states = recorded_sample(system, twisted_world, [1], [0, 2], steps=2)
    assert torch.isfinite(out.gaussians.means).all()
    views = scene_views(3, 1)
    context = system.context_of(views.images, views.cameras, torch.tensor([True, False, False]))
    assert context.carried is None
    assert context.relative is None
    assert system.condition_of(context) is None
    assert not context.known_share.any()
    # the head's trust in known depth is off: its depth does not depend on `known`
    noisy = torch.zeros_like(context.latents)
    with torch.no_grad():
        state = system(noisy, torch.ones(1), context)
    assert torch.equal(state.depth.relative, state.depth.mean)
    assert states[-1].alpha.min() >= 0


def paper_system():
    config = tiny_config()
    return tiny_system(geometry=None, denoiser=config.denoiser.replace(condition_channels=0))


def test_the_video_unet_samples_too(twisted_world):
    system = shaken(tiny_system("unet"), 0.02)
    out, _ = recorded_sample(system, twisted_world, [1], [0, 2], steps=2)
    assert out.images.shape == (3, 3, SIZE, SIZE)
    assert torch.isfinite(out.images).all()
    assert torch.isfinite(out.gaussians.means).all()


def test_configurations_travel_as_dictionaries():
    for config in (tiny_config(), tiny_config("unet"), tiny_config(geometry=None)):
        assert GGSConfig.from_dict(config.to_dict()) == config


def test_what_is_half_covered_has_no_known_depth():
    relative = torch.full((1, 2, 1, 8, 8), 0.5)
    alpha = torch.full((1, 2, 1, 8, 8), 0.4)
    alpha[:, 1, ..., :4] = 1.0
    known, share = pool_known(relative, alpha, 8)
    assert share.flatten().tolist() == [0.0, 0.5]
    assert known.flatten().tolist() == [0.0, 0.5]


def test_bf16_changes_little_and_leaves_geometry_in_float32(system, twisted_world):
    """Far from the origin, rounding a position to bfloat16 would move splats by centimetres."""
    far = twisted_world.relative_to(
        invert_rigid(torch.eye(4).index_put((torch.tensor(0), torch.tensor(3)), torch.tensor(100.0)))
    )
    exact, _ = recorded_sample(system, far, [0], [1, 2], steps=2)
    rough, _ = recorded_sample(system, far, [0], [1, 2], steps=2, bf16=True)
    assert rough.gaussians.means.dtype == rough.images.dtype == torch.float32
    torch.testing.assert_close(rough.images[0], exact.images[0])
    ray = exact.gaussians.means - far.centers[0]
    other = rough.gaussians.means - far.centers[0]
    first = slice(0, SIZE * SIZE)  # splats of the reference stay on their pixels' rays
    turn = torch.cosine_similarity(ray[first], other[first], dim=-1)
    assert turn.min() > 0.999


def test_reference_depth_is_that_of_the_scene_and_of_its_mirror_image(system):
    views = scene_views(2, scenes=1)
    depth = system.reference_depth(views)
    torch.testing.assert_close(system.reference_depth(views.mirrored()), depth.flip(-1), atol=1e-5, rtol=1e-4)
    once = system.geometry(views.images, views.cameras).relative
    assert (once - depth).abs().max() > 1e-4
    learning = tiny_system()
    learning.load_state_dict(system.state_dict())
    torch.testing.assert_close(learning.train().reference_depth(views), once)
    assert tiny_system(geometry=None).reference_depth(views) is None
