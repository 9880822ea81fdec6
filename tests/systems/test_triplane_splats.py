"""Splats of tri-planes: shapes, bounds, gradients, and that they learn."""

from __future__ import annotations

import pytest
import torch

from latent3d.geometry.cameras import Cameras
from latent3d.rendering.volume import VolumeConfig, render_volume
from latent3d.representations.triplane import TriPlane
from latent3d.representations.views import Views
from latent3d.systems.triplane_splats import TriPlaneSplatsConfig

HALF = 0.45


def field(points):
    """A ball, red towards +x and green towards +z, and for the second object a smaller one."""
    radius = torch.tensor([0.3, 0.15])[: len(points), None]
    density = 400.0 * torch.sigmoid(100 * (radius - points.norm(dim=-1)))
    red, green = torch.sigmoid(8 * points[..., 0]), torch.sigmoid(8 * points[..., 2])
    return density, torch.stack([red, green, torch.full_like(red, 0.3)], -1)


def planes(channels=4):
    return TriPlane(torch.randn(2, 3, channels, 8, 8, generator=torch.Generator().manual_seed(0)), HALF)


def cameras(size=24):
    """(2, 2): from the front (-y) and from the left (-x), two units away."""
    front = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, -2], [0, -1, 0, 0], [0, 0, 0, 1]])
    left = torch.tensor([[0.0, 0, 1, -2], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    return Cameras.from_fov(torch.stack([front, left]).expand(2, 2, 4, 4), 30.0, size, size)


def truth():
    seen = render_volume(field, cameras(), HALF, VolumeConfig(coarse=48, fine=0))
    depths = torch.where(seen.alpha > 0.5, seen.depth, torch.zeros_like(seen.depth))
    return Views(seen.rgb, cameras(), depths=depths, alphas=seen.alpha)


def decoder(channels=4):
    torch.manual_seed(0)
    return TriPlaneSplatsConfig.tiny().build(channels)


def test_splats_stay_near_the_surface_and_within_their_bounds():
    """Whatever the network says."""
    model = decoder()
    with torch.no_grad():
        model.out.weight.mul_(1000)
        scenes = model(planes(), field)
    assert [len(scene) for scene in scenes] == [256, 256]
    anchors = model.anchors(planes(), field)
    for scene, points, spacing, radius in zip(scenes, anchors.points, anchors.spacing, (0.3, 0.15), strict=True):
        assert ((points.norm(dim=-1) - radius).abs() < 2 * 0.9 / 16).all()
        assert ((scene.means - points).abs() <= 1.5 * spacing + 1e-6).all()
        assert (scene.scales >= 0.05 * spacing * 0.999).all()
        assert (scene.scales <= 3.0 * spacing * 1.001).all()
        assert scene.opacities.shape == (256,)
        assert ((scene.colors >= 0) & (scene.colors <= 1)).all()


def test_the_start_looks_like_the_field():
    model, views = decoder(), truth()
    with torch.no_grad():
        terms = model.training_terms(planes(), field, views)
        images = model.pictures(planes(), field, views.cameras)
    assert images.shape == views.images.shape
    empty = (views.images - 1).abs().mean()
    assert terms["l1"] < 0.5 * empty
    assert terms["alpha"] < 0.1
    assert terms["depth"] < 0.2  # of half the box
    assert set(model.training_terms(planes(), field, Views(views.images, views.cameras, alphas=views.alphas))) == {
        "l1",
        "structure",
        "alpha",
    }
    with pytest.raises(ValueError, match="pictures with alpha"):
        model.training_terms(planes(), field, Views(views.images, views.cameras))


def test_gradients_reach_network_and_planes():
    model = decoder()
    features = planes().planes.requires_grad_()
    terms = model.training_terms(TriPlane(features, HALF), field, truth())
    sum(terms.values()).backward()
    assert features.grad.isfinite().all()
    assert (features.grad.abs().flatten(2).sum(2) > 0).all()  # of both objects, on all three planes
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_decoding_is_deterministic_and_objects_are_apart():
    model = decoder()
    with torch.no_grad():
        both, again = model(planes(), field), model(planes(), field)
        alone = model(planes()[:1], field)
    assert all(
        torch.equal(a.means, b.means) and torch.equal(a.colors, b.colors) for a, b in zip(both, again, strict=True)
    )
    torch.testing.assert_close(alone[0].means, both[0].means)
    torch.testing.assert_close(alone[0].scales, both[0].scales)


def test_a_few_steps_lower_the_loss():
    """Wrong colours in the field are mended by the network, which tells places apart by the planes."""

    def grey(points):
        density, colors = field(points)
        return density, torch.full_like(colors, 0.5)

    model, views = decoder(), truth()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    history = []
    for _ in range(25):
        optimizer.zero_grad()
        terms = model.training_terms(planes(), grey, views)
        loss = terms["l1"] + 0.2 * terms["structure"] + terms["alpha"] + 0.1 * terms["depth"]
        loss.backward()
        optimizer.step()
        history.append({name: float(value.detach()) for name, value in terms.items()})
    assert history[-1]["l1"] < 0.6 * history[0]["l1"]
    assert history[-1]["alpha"] < history[0]["alpha"]


def test_wrong_settings_are_refused():
    config = TriPlaneSplatsConfig.tiny()
    assert TriPlaneSplatsConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="in this order"):
        config.replace(scale=(0.6, 0.1, 2.0))
    with pytest.raises(ValueError, match="must be positive"):
        config.replace(count=0)
