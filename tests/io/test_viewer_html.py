"""The page opens offline in a real browser and shows the splats where the camera sees them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.rotations import quaternion_to_matrix
from latent3d.io.viewer_html import write_viewer
from latent3d.io.viewer_scene import tinted
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians

SIDE = 400


def colored_plane(scale: float = 1.0) -> tuple[Gaussians, Cameras]:
    """A square at depth 3: red upper left, green upper right, blue below, seen by a turned and moved camera."""
    n = 40
    ys, xs = torch.meshgrid(torch.linspace(-1, 1, n), torch.linspace(-1, 1, n), indexing="ij")
    colors = torch.zeros(n, n, 3)
    colors[: n // 2, : n // 2, 0] = colors[: n // 2, n // 2 :, 1] = colors[n // 2 :, :, 2] = 1
    count = n * n
    plane = Gaussians(
        means=torch.stack([xs, ys, torch.full_like(xs, 3.0)], -1).reshape(-1, 3),
        quaternions=torch.tensor([[1.0, 0, 0, 0]]).expand(count, 4),
        scales=torch.tensor([[0.03, 0.03, 0.003]]).expand(count, 3),
        opacities=torch.full((count,), 0.99),
        colors=colors.reshape(-1, 3),
    )
    pose = torch.eye(4)
    turn = torch.nn.functional.normalize(torch.tensor([0.9, 0.3, -0.2, 0.25]), dim=0)
    pose[:3, :3] = quaternion_to_matrix(turn)
    pose[:3, 3] = torch.tensor([2.0, -1.0, 0.5])
    moved = plane.transformed(pose)
    scaled = Gaussians(moved.means * scale, moved.quaternions, moved.scales * scale, moved.opacities, moved.colors)
    pose[:3, 3] *= scale
    return scaled, Cameras.from_fov(pose, 60.0, SIDE, SIDE)


@pytest.mark.parametrize("scale", [1.0, 0.02])
def test_page_shows_the_scene_offline_from_the_given_camera(browser, tmp_path, scale):
    plane, camera = colored_plane(scale)
    write_viewer(tmp_path / "viewer.html", plane, camera, title="a plane")
    assert [path.name for path in tmp_path.iterdir()] == ["viewer.html"]
    browser.open(tmp_path / "viewer.html")
    shot = browser.screenshot()
    points = torch.tensor([[-0.4, -0.2, 3.0], [0.5, -0.5, 3.0], [-0.5, 0.5, 3.0], [0.5, 0.5, 3.0], [0.0, 0.9, 3.0]])
    world = points * scale @ camera.c2w[:3, :3].T + camera.c2w[:3, 3]
    pixels = camera.project(world)[0].round().int().tolist()
    for (x, y), expected in zip(pixels, [0, 1, 2, 2, 2], strict=True):
        patch = shot[y - 3 : y + 4, x - 3 : x + 4].reshape(-1, 3).mean(0)
        assert patch[expected] > 150, (x, y, patch)
        assert np.delete(patch, expected).max() < 90, (x, y, patch)
    # Outside the plane there is background: the plane's edge lies at 1 / (3 tan 30 degrees) of the half width.
    edge = round(SIDE / 2 * (1 + 1 / (3 * 3**-0.5)))
    outside = shot[300:340, edge + 25 : edge + 40].reshape(-1, 3).astype(int)
    assert np.ptp(outside, axis=1).max() < 30


def test_splats_are_sorted_whatever_their_nodes(browser, tmp_path):
    """Splats of all kinds in one another look like one set, and as our rasteriser draws them."""
    plane, camera = colored_plane()
    # At depths of their own: which of two splats of the same depth is in front is not defined.
    depths = torch.rand(len(plane), generator=torch.Generator().manual_seed(0))
    cloud = replace(plane, means=plane.means + depths[:, None] * camera.c2w[:3, 2], scales=plane.scales * 2)
    shots = []
    for name, origin in (("one.html", None), ("three.html", torch.arange(len(plane)) % 3)):
        write_viewer(tmp_path / name, cloud, camera, origin=origin)
        browser.open(tmp_path / name)
        shots.append(browser.screenshot().astype(int))
    middle = slice(150, 230), slice(70, 330)  # away from the panel and from viser's notes
    assert np.abs(shots[0] - shots[1])[middle].max() <= 1
    ours = render_gaussians(cloud, camera[None]).rgb
    ours = (255 * ours.squeeze().permute(1, 2, 0).clamp(0, 1)).int().numpy()
    # The page's background is a dark grey and fades in at the rim.
    assert np.abs(shots[0] - ours)[middle].mean() < 6


def test_page_needs_no_network(tmp_path):
    plane, camera = colored_plane()
    write_viewer(tmp_path / "viewer.html", plane, camera)
    text = (tmp_path / "viewer.html").read_text()
    assert 'src="http' not in text
    assert 'href="http' not in text


def test_scene_without_color_is_refused(tmp_path):
    plane, camera = colored_plane()
    bare = Gaussians(plane.means, plane.quaternions, plane.scales, plane.opacities)
    with pytest.raises(ValueError, match="carry no colour"):
        write_viewer(tmp_path / "viewer.html", bare, camera)
    assert list(tmp_path.iterdir()) == []


def test_switches_of_the_origins(browser, tmp_path):
    """One kind per colour of the plane; a switch hides its kind alone, and the colours show the kinds."""
    plane, camera = colored_plane()
    assert plane.colors is not None
    origin = plane.colors.argmax(-1)
    write_viewer(tmp_path / "viewer.html", plane, camera, title="<a & b>", origin=origin)
    page = (tmp_path / "viewer.html").read_text()
    assert "<title>&lt;a &amp; b&gt;</title>" in page
    points = torch.tensor([[-0.5, -0.5, 3.0], [0.5, -0.5, 3.0], [0.5, 0.5, 3.0]])
    world = points @ camera.c2w[:3, :3].T + camera.c2w[:3, 3]
    pixels = camera.project(world)[0].round().int().tolist()

    def patches() -> np.ndarray:
        """(3, 3): colours at the middles of the seen, interpolated and invented part."""
        shot = browser.screenshot()
        return np.stack([shot[y - 3 : y + 4, x - 3 : x + 4].reshape(-1, 3).mean(0) for x, y in pixels])

    browser.open(tmp_path / "viewer.html")
    everything = patches()
    browser.click("interpolated")
    hidden = patches()
    browser.click("interpolated")
    browser.click("show origin in colour")
    colored = patches()
    browser.click("invented")
    both = patches()
    browser.click("invented")
    browser.click("show origin in colour")
    again = patches()
    assert np.abs(everything - 255 * np.eye(3)).max() < 25
    assert np.abs(hidden - everything)[[0, 2]].max() < 4
    assert np.abs(hidden[1] - hidden[1].mean()).max() < 10  # grey: the background
    assert hidden[1].mean() < 60
    expected = 255 * tinted(torch.eye(3), torch.arange(3)).numpy()
    assert np.abs(colored - expected).max() < 20
    assert np.abs(both - colored)[:2].max() < 4
    assert np.abs(both[2] - hidden[1]).max() < 4
    assert np.abs(again - everything).max() < 4


def test_page_of_splats_without_origin_has_no_switches(tmp_path):
    plane, camera = colored_plane()
    write_viewer(tmp_path / "viewer.html", plane, camera)
    assert 'id="origins"' not in (tmp_path / "viewer.html").read_text()
    with pytest.raises(ValueError, match="origins from 3 to 3"):
        write_viewer(tmp_path / "other.html", plane, camera, origin=torch.full((len(plane),), 3))
    assert not (tmp_path / "other.html").exists()
