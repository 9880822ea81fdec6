"""The encoder that puts pixels onto planes: points land where the object is."""

import math

import pytest
import torch

from latent3d.autoencoders.plane_encoder import PlaneEncoderConfig
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.object_cameras import orbit, sphere
from latent3d.representations.views import Views

TINY = PlaneEncoderConfig(
    latent_channels=2, stride=1, plane_size=8, octaves=2, point_width=4, width=8, multipliers=(1, 2), heads=2,
    head_channels=4,
)  # fmt: skip


def ball(cameras: Cameras, radius: float = 0.3) -> Views:
    """A ball at the origin whose colour tells its position."""
    from latent3d.geometry.rays import camera_rays

    origins, directions = camera_rays(cameras)
    middle = -(origins * directions).sum(-1)
    squared = radius**2 - (origins + middle[..., None] * directions).square().sum(-1)
    hit = squared > 0
    distance = middle - squared.clamp_min(0).sqrt()
    points = origins + distance[..., None] * directions
    depth = torch.where(hit, distance * (directions * cameras.w2c[..., None, None, 2, :3]).sum(-1), 0)
    images = torch.where(hit[..., None], points / (2 * radius) + 0.5, 1).movedim(-1, -3)
    return Views(images, cameras, depth.unsqueeze(-3), alphas=hit.float().unsqueeze(-3))


def batched(views: Views) -> Views:
    return views._map(lambda tensor: tensor[None])


def test_points_lie_on_the_surface_and_carry_its_colour():
    views = batched(ball(orbit(3, size=32)))
    points, colors, known = TINY.build().points_of(views)
    seen = known[0] > 0
    assert 0.05 < float(known.mean()) < 0.9
    torch.testing.assert_close(points[0, seen].norm(dim=-1), torch.full((int(seen.sum()),), 0.3), atol=1e-4, rtol=0)
    torch.testing.assert_close(colors[0, seen], points[0, seen] / 0.6 + 0.5, atol=1e-4, rtol=0)


def test_points_fall_onto_the_cells_that_they_project_to():
    encoder = TINY.build()
    points = torch.tensor([[[0.4, -0.1, 0.05], [0.4, -0.1, 0.05], [0.1, 0.1, 0.1]]])
    features = torch.tensor([[[1.0] * 4, [3.0] * 4, [7.0] * 4]])
    planes = encoder._on_planes(features, points, torch.tensor([[1.0, 1.0, 0.0]]))
    cell = [math.floor((c / 0.45 + 1) * 4) for c in (0.4, -0.1, 0.05)]
    for plane, (column, row) in enumerate(((0, 1), (1, 2), (2, 0))):
        there = planes[0, plane, :, cell[row], cell[column]]
        assert there[:4].tolist() == pytest.approx([2.0] * 4)
        assert float(there[4]) == pytest.approx(math.log(3))
        assert float(planes[0, plane].abs().sum()) == pytest.approx(float(there.abs().sum()))


def test_number_and_order_of_views_are_free():
    encoder = TINY.build()
    views = batched(ball(sphere(4, seed=0, size=16)))
    mean = encoder(views).mean
    assert mean.shape == (1, 3, 2, 4, 4)
    torch.testing.assert_close(encoder(views[:, torch.tensor([3, 1, 0, 2])]).mean, mean, atol=1e-4, rtol=1e-4)
    assert encoder(views[:, :1]).mean.shape == mean.shape


def test_gradients_reach_every_parameter():
    encoder = TINY.build()
    for name, parameter in encoder.named_parameters():
        if "leave" in name or "conv2" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    posterior = encoder(batched(ball(orbit(2, size=16))))
    (posterior.mean.square().sum() + posterior.log_variance.square().sum()).backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in encoder.parameters())


def test_views_without_depth_are_refused():
    views = batched(ball(orbit(1, size=16)))
    with pytest.raises(ValueError, match="reads depth maps"):
        TINY.build()(Views(views.images, views.cameras))
