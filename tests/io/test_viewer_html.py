"""The page opens offline in a real browser and shows the splats where the camera sees them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.rotations import quaternion_to_matrix
from latent3d.io.viewer_html import serve, write_viewer
from latent3d.representations.gaussians import Gaussians

SIDE = 400
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


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


def screenshot(page: Path, folder: Path) -> np.ndarray:
    """(H, W, 3) bytes as headless Chromium draws the page with every connection refused; skips without a browser."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine: the page was not opened")
    command = [
        browser, "--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
        "--virtual-time-budget=15000", f"--window-size={SIDE},{SIDE}", "--hide-scrollbars",
        "--proxy-server=127.0.0.1:9", "--proxy-bypass-list=<-loopback>", f"--user-data-dir={folder / 'profile'}",
        f"--screenshot={folder / 'shot.png'}", page.as_uri(),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=180)
    return np.asarray(Image.open(folder / "shot.png").convert("RGB"))


@pytest.mark.parametrize("scale", [1.0, 0.02])
def test_page_shows_the_scene_offline_from_the_given_camera(tmp_path, scale):
    plane, camera = colored_plane(scale)
    write_viewer(tmp_path / "viewer.html", plane, camera, title="a plane")
    assert [path.name for path in tmp_path.iterdir()] == ["viewer.html"]
    shot = screenshot(tmp_path / "viewer.html", tmp_path)
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


def test_live_viewer_serves_and_says_when_its_port_is_taken():
    import socket
    import urllib.request

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    plane, camera = colored_plane()
    server = serve(plane, camera, port=port)
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}", timeout=20) as reply:
            assert b"<html" in reply.read()
        with pytest.raises(OSError, match=f"port {port} is taken"):
            serve(plane, camera, port=port)
    finally:
        server.stop()
