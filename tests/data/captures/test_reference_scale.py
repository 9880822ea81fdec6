"""The unit of a place from its reference pictures: two planes of known depth."""

import pytest
import torch

from latent3d.data.captures.reference_scale import matched_depth
from latent3d.geometry.cameras import Cameras
from latent3d.representations.views import Views

from . import places


@pytest.fixture(scope="module")
def pair() -> tuple[Views, list[float]]:
    """Two views of the planes and the 5 % and 95 % quantiles of their true depths."""
    c2w = places.poses(8)[[2, 4]]
    shots = [places.photograph(pose) for pose in c2w]
    images = torch.stack([torch.from_numpy(picture).permute(2, 0, 1) / 255 for picture, _ in shots])
    k = torch.from_numpy(places.k_matrix()).expand(2, 3, 3).contiguous()
    cameras = Cameras.from_c2w(torch.from_numpy(c2w), k, places.HEIGHT, places.WIDTH).to(torch.float32)
    depth = torch.from_numpy(shots[0][1]).float()
    return Views(images, cameras), depth.quantile(torch.tensor([0.05, 0.95])).tolist()


def test_matches_lie_at_the_depth_of_the_place(pair):
    views, (near, far) = pair
    assert near < matched_depth(views) < far
    assert far < 1.5 * near


@pytest.mark.parametrize("factor", [0.01, 30.0])
def test_depth_follows_the_unit_of_the_cameras(pair, factor):
    views, _ = pair
    other = Views(views.images, views.cameras.scaled(factor))
    assert matched_depth(other) == pytest.approx(factor * matched_depth(views), rel=1e-3)


def test_what_says_nothing_gives_none(pair):
    views, _ = pair
    assert matched_depth(views[[0]]) is None
    flat = Views(torch.full_like(views.images, 0.5), views.cameras)
    assert matched_depth(flat) is None
    same_place = Views(views.images, views.cameras[[0, 0]])
    assert matched_depth(same_place) is None
    # Pictures of another place agree with the cameras nowhere in particular.
    noise = torch.rand(2, 3, places.HEIGHT, places.WIDTH, generator=torch.Generator().manual_seed(0))
    assert matched_depth(Views(noise, views.cameras)) is None
