"""The film: what a path that returns the way it came shows on the way back, and how much of it is rendered."""

from __future__ import annotations

import pytest
import torch

from latent3d.apps import scene
from latent3d.apps.scene import film_frames, film_path, turning_point
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.trajectories import trajectory
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians


def keys(name: str, views: int = 4) -> Cameras:
    return Cameras.from_fov(trajectory(name, views, depth=2.0), 60.0, 16, 24)


def splats() -> Gaussians:
    g = torch.Generator().manual_seed(0)
    return Gaussians(
        means=torch.randn(50, 3, generator=g) * 0.5 + torch.tensor([0.0, 0.0, 2.0]),
        quaternions=torch.randn(50, 4, generator=g),
        scales=torch.full((50, 3), 0.1),
        opacities=torch.rand(50, generator=g),
        colors=torch.rand(50, 3, generator=g),
    )


@pytest.mark.parametrize("name", ["dolly", "walk"])
def test_an_open_path_returns_the_way_it_came(name):
    film = film_path(keys(name), frames_per_view=3)
    assert turning_point(film) == len(film) // 2 + 1 == 10


def test_a_closed_path_and_a_single_view_are_all_new():
    film = film_path(keys("orbit", 8), frames_per_view=3)
    assert turning_point(film) == len(film)
    assert turning_point(film[:1]) == 1


@pytest.mark.parametrize("name", ["dolly", "orbit"])
def test_the_film_shows_every_camera_of_its_path(name, monkeypatch):
    film = film_path(keys(name), frames_per_view=3)
    rendered: list[int] = []

    def counted(gaussians, cameras):
        rendered.append(len(cameras))
        return render_gaussians(gaussians, cameras)

    monkeypatch.setattr(scene, "render_views", counted)
    shown = torch.stack(list(film_frames(splats(), film, side=16, chunk=4)))
    assert sum(rendered) == turning_point(film)
    expected = render_gaussians(splats(), film).rgb
    assert len(shown) == len(film)
    assert (shown - expected).abs().max() <= 0.5 / 255 + 1e-4
    monkeypatch.setattr(scene, "KEPT_BYTES", 0)
    assert torch.equal(torch.stack(list(film_frames(splats(), film, side=16, chunk=4))), expected)
