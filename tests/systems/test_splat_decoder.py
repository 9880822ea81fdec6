"""D_3D before training carries pixels: colours and depths of references, and little where they are seen already."""

from __future__ import annotations

import dataclasses

import torch

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.depth_range import DepthRange
from latent3d.rendering.splats import render_gaussians
from latent3d.systems.splat_decoder import PixelEvidence, SplatDecoderConfig, sharpened, shown_elsewhere
from systems.common import batched, psnr, shaken, smooth_images, walk_cameras

SPAN = DepthRange(near=0.3, far=30.0, spacing="log")
SIZE = 32


def decoder(features=6, channels=4, trained=False, detail=1):
    torch.manual_seed(0)
    network = SplatDecoderConfig(widths=(8, 8, 16), reference_detail=detail).build(features, channels, SPAN)
    return shaken(network, 0.1) if trained else network


def evidence_case(alpha=0.8):
    """Two scenes of three views, the first a reference; targets are covered by carried splats in their left half."""
    generator = torch.Generator().manual_seed(0)
    image = smooth_images(6).unflatten(0, (2, 3))
    relative = 0.4 + 0.2 * torch.rand(2, 3, 1, SIZE, SIZE, generator=generator)
    role = torch.zeros(2, 3, 1, SIZE, SIZE)
    role[:, 0] = 1
    carried_alpha = role.clone()
    carried_alpha[:, 1:, ..., : SIZE // 2] = alpha
    carried_relative = torch.full_like(relative, 0.2)
    carried_relative[:, 0] = relative[:, 0]
    covered = carried_alpha * (1 - role)
    evidence = PixelEvidence(image, relative, role, image, carried_alpha, carried_relative, covered)
    features = torch.randn(2, 3, 6, 4, 4, generator=generator)
    latents = torch.randn(2, 3, 4, 4, 4, generator=generator)
    return features, latents, evidence, batched(walk_cameras(3), 2)


def per_view(splats, name):
    value = getattr(splats, name)
    return value.reshape(3, SIZE, SIZE, *value.shape[1:])


def test_untrained_reference_pixels_keep_their_colour_and_depth():
    features, latents, evidence, cameras = evidence_case()
    scenes = decoder()(features, latents, evidence, cameras)
    for scene, splats in enumerate(scenes):
        assert len(splats) == 3 * SIZE * SIZE
        expected = sharpened(evidence.image, SplatDecoderConfig().sharpen)[scene, 0].clamp(0, 1).movedim(0, -1)
        torch.testing.assert_close(per_view(splats, "colors")[0], expected)
        assert (expected - evidence.image[scene, 0].movedim(0, -1)).abs().max() < 0.1
        pixel, z = cameras[scene, 0].project(per_view(splats, "means")[0].flatten(0, 1))
        torch.testing.assert_close(z.reshape(SIZE, SIZE), SPAN.depth(evidence.relative[scene, 0, 0]))
        centres = torch.arange(SIZE) + 0.5
        torch.testing.assert_close(pixel[:, 0].reshape(SIZE, SIZE), centres.expand(SIZE, SIZE), rtol=0, atol=1e-3)
        assert per_view(splats, "opacities")[0].min() > 0.9


def test_untrained_targets_are_nearly_transparent_where_they_are_covered_and_opaque_elsewhere():
    features, latents, evidence, cameras = evidence_case(alpha=1.0)
    splats = decoder()(features, latents, evidence, cameras)[0]
    opacity = per_view(splats, "opacities")[1:]
    assert opacity[..., : SIZE // 2].max() < 0.05
    assert opacity[..., SIZE // 2 :].min() > 0.9
    for view in (1, 2):
        _, z = cameras[0, view].project(per_view(splats, "means")[view].flatten(0, 1))
        z, half = z.reshape(SIZE, SIZE), SIZE // 2
        covered = SPAN.depth(evidence.carried_relative[0, view, 0])
        own = SPAN.depth(evidence.relative[0, view, 0])
        torch.testing.assert_close(z[:, :half], covered[:, :half], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(z[:, half:], own[:, half:], rtol=1e-4, atol=1e-4)


def test_half_covered_pixels_start_between():
    features, latents, evidence, cameras = evidence_case(alpha=0.5)
    splats = decoder()(features, latents, evidence, cameras)[0]
    full, taken = SplatDecoderConfig().opacity_logits
    expected = torch.sigmoid(torch.tensor(full - 0.5 * taken))
    opacity = per_view(splats, "opacities")[1:, :, : SIZE // 2]
    torch.testing.assert_close(opacity, expected.expand_as(opacity))


def test_an_untrained_reference_renders_to_itself():
    features, latents, evidence, cameras = evidence_case()
    alone = decoder()(features, latents, evidence, cameras)[0][: SIZE * SIZE]
    seen = render_gaussians(alone, cameras[0, :1])
    assert psnr(seen.rgb[0], evidence.image[0, 0]) > 25


def test_finer_reference_splats_show_the_same_picture_and_keep_depth_steps():
    features, latents, evidence, cameras = evidence_case()
    relative = torch.full_like(evidence.relative, 0.5)
    relative[..., : SIZE // 2] = 0.3  # a step of depth: no splat may float between
    evidence = dataclasses.replace(evidence, relative=relative)
    for detail in (1, 2):
        splats = decoder(detail=detail)(features, latents, evidence, cameras)[0]
        first = dataclasses.replace(
            splats,
            **{
                field.name: getattr(splats, field.name)[: (detail * SIZE) ** 2]
                for field in dataclasses.fields(splats)
                if getattr(splats, field.name) is not None
            },
        )
        assert len(splats) == (detail * SIZE) ** 2 + 2 * SIZE**2
        _, z = cameras[0, 0].project(first.means)
        near, far = SPAN.depth(torch.tensor([0.3, 0.5]))
        assert torch.minimum((z - near).abs(), (z - far).abs()).max() < 1e-3
        seen = render_gaussians(first, cameras[0, :1], low_pass=0.075).rgb[0]
        assert psnr(seen, evidence.image[0, 0]) > 30


def test_a_reference_hides_what_another_reference_shows_better():
    features, latents, evidence, cameras = evidence_case()
    covered = evidence.covered.clone()
    covered[:, 0, :, :8] = 1
    hidden = dataclasses.replace(evidence, covered=covered)
    opacity = per_view(decoder()(features, latents, hidden, cameras)[0], "opacities")[0]
    assert opacity[:8].max() < 0.05
    assert opacity[8:].min() > 0.9


def facing_a_wall(*distances: float, size: int = 16) -> tuple[Cameras, torch.Tensor]:
    """Cameras (1, k) on one axis at these distances from a wall, and the depth each sees."""
    c2w = torch.eye(4).repeat(1, len(distances), 1, 1)
    c2w[0, :, 2, 3] = -torch.tensor(distances)
    depths = torch.tensor(distances)[None, :, None, None, None].expand(1, -1, 1, size, size)
    return Cameras.from_fov(c2w, 60.0, size, size), depths.contiguous()


def test_a_surface_belongs_to_the_view_that_shows_it_finest_and_at_a_draw_to_the_first():
    assert not shown_elsewhere(*facing_a_wall(2.0)).any()
    same = shown_elsewhere(*facing_a_wall(2.0, 2.0))[0, :, 0]
    assert not same[0].any()
    assert same[1].all()
    near = shown_elsewhere(*facing_a_wall(2.0, 1.0))[0, :, 0]
    assert near[0, 5:11, 5:11].all()  # the nearer view sees the middle of what the farther one sees
    assert not near[0, 0].any()
    assert not near[1].any()


def test_another_depth_is_another_surface():
    cameras, depths = facing_a_wall(2.0, 2.0)
    depths[:, 1, :, :8] = 1.0  # something stands before the wall in the second view
    owned = shown_elsewhere(cameras, depths)[0, :, 0]
    assert not owned[1, :8].any()
    assert owned[1, 8:].all()
    assert not owned[0].any()


def test_sharpening_leaves_flat_parts_and_slopes_alone_and_raises_edges():
    ramp = torch.linspace(0, 1, 9).expand(1, 1, 3, 9, 9)
    inner = (..., slice(1, -1))
    torch.testing.assert_close(sharpened(ramp, 0.5)[inner], ramp[inner])
    step = (torch.arange(8) >= 4).float().expand(1, 1, 3, 8, 8)
    row = sharpened(step, 0.5)[0, 0, 0, 3]
    torch.testing.assert_close(row, torch.tensor([0, 0, 0, -0.125, 1.125, 1, 1, 1]))
    assert torch.equal(sharpened(step, 0.0), step)


def test_a_trained_decoder_stays_within_its_bounds():
    features, latents, evidence, cameras = evidence_case()
    network = decoder(trained=True)
    with torch.no_grad():
        network.head.bias.mul_(200)  # saturate
    splats = network(features, latents, evidence, cameras)[0]
    low, _, high = network.config.scale_px
    focal = cameras.k[0, 0, 0, 0]
    for view in range(3):
        pixel, z = cameras[0, view].project(per_view(splats, "means")[view].flatten(0, 1))
        start = evidence.relative[0, view] + evidence.carried_alpha[0, view] * (1 - evidence.is_reference[0, view]) * (
            evidence.carried_relative[0, view] - evidence.relative[0, view]
        )
        assert (SPAN.relative(z).reshape(SIZE, SIZE) - start[0]).abs().max() <= network.config.depth_step + 1e-3
        centres = torch.arange(SIZE) + 0.5
        assert (pixel[:, 0].reshape(SIZE, SIZE) - centres).abs().max() <= 0.5 + 1e-3
        size = per_view(splats, "scales")[view].flatten(0, 1) * focal / z[:, None]
        assert size.min() >= 0.3 * low - 1e-4  # 0.3 along the normal
        assert size.max() <= 4.0 * high + 1e-4  # the longest step counts
    assert splats.colors.min() >= 0
    assert splats.colors.max() <= 1
    assert splats.opacities.min() >= 0
    assert splats.opacities.max() <= 1
    torch.testing.assert_close(splats.quaternions.norm(dim=-1), torch.ones(len(splats)))


def test_what_is_not_covered_has_no_say():
    """Colours and depths carried with alpha zero are noise: they change nothing."""
    features, latents, evidence, cameras = evidence_case(alpha=0.0)
    network = decoder(trained=True)
    other = PixelEvidence(
        evidence.image,
        evidence.relative,
        evidence.is_reference,
        evidence.carried * evidence.carried_alpha + (1 - evidence.carried_alpha) * torch.rand_like(evidence.carried),
        evidence.carried_alpha,
        evidence.carried_relative * evidence.carried_alpha + (1 - evidence.carried_alpha) * 0.9,
        evidence.covered,
    )
    a = network(features, latents, evidence, cameras)[0]
    b = network(features, latents, other, cameras)[0]
    for name in ("means", "colors", "opacities", "scales"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name))


def test_gradients_reach_every_parameter_and_the_evidence():
    features, latents, evidence, cameras = evidence_case()
    network = decoder(trained=True)
    features.requires_grad_()
    evidence.relative.requires_grad_()
    scenes = network(features, latents, evidence, cameras)
    loss = sum(render_gaussians(scene, cameras[i]).rgb.square().mean() for i, scene in enumerate(scenes))
    loss.backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []
    assert features.grad.abs().max() > 0
    assert evidence.relative.grad.abs().max() > 0


def test_exactly_one_view_keeps_a_surface_that_all_show():
    """Three cameras before a wall at nearly equal resolution: no cycle of owners, no hole."""
    c2w = torch.eye(4).expand(1, 3, 4, 4).clone()
    c2w[0, :, 2, 3] = torch.tensor([0.0, 0.04, 0.08])
    cameras = Cameras.from_fov(c2w, 60.0, SIZE, SIZE)
    depths = (2.0 - c2w[..., 2, 3])[..., None, None, None].expand(1, 3, 1, SIZE, SIZE).contiguous()
    owned = shown_elsewhere(cameras, depths)
    middle = owned[0, :, 0, SIZE // 2, SIZE // 2]
    assert middle.sum() == 2
