"""The scene as a web page: one file that opens offline, and the live viewer; both are viser's.

N: splats.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from latent3d.geometry.cameras import Cameras
from latent3d.io.atomic import write_text
from latent3d.representations.gaussians import Gaussians

if TYPE_CHECKING:
    import viser

HALF_PRECISION_STD = 0.25
"""The viewer stores covariances in half precision; the scene is stored with this median standard deviation."""


def write_viewer(path: str | Path, gaussians: Gaussians, start: Cameras, title: str = "latent3d") -> None:
    """Write a page that shows the scene, atomically.

    Args:
        gaussians: with ``colors``.
        start: one camera (batch shape () or (1,)): where the viewer stands at first; its up becomes the page's.

    Raises:
        ValueError: if there is no colour.
    """
    with _server() as server:
        add_scene(server, gaussians, start)
        page = server.scene.as_html(dark_mode=True)
    write_text(path, page.replace("<title>Viser</title>", f"<title>{title}</title>", 1))


def serve(gaussians: Gaussians, start: Cameras, host: str = "127.0.0.1", port: int = 8080) -> viser.ViserServer:
    """Start the live viewer and return its running server (``server.stop()`` ends it).

    Raises:
        ValueError: if there is no colour.
        OSError: if the port is taken.
    """
    import viser

    with socket.socket() as probe:
        # viser would silently take another port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(error.errno, f"port {port} is taken or not allowed; choose another with --port") from error
    with _silent():
        server = viser.ViserServer(host=host, port=port, label="latent3d", verbose=False)
    add_scene(server, gaussians, start)
    return server


def add_scene(server: viser.ViserServer, gaussians: Gaussians, start: Cameras) -> None:
    """Put splats into a viser scene and stand at a camera."""
    colors = gaussians.colors
    if colors is None:
        raise ValueError("these splats carry no colour and cannot be shown; use the decoded scene")
    from latent3d.geometry.rotations import quaternion_to_matrix

    splats = gaussians.detach().to("cpu", torch.float32)
    rotation = quaternion_to_matrix(torch.nn.functional.normalize(splats.quaternions, dim=-1))
    half = rotation * splats.scales[:, None, :]
    covariances = half @ half.mT
    zoom = HALF_PRECISION_STD / max(float(splats.scales.median()), 1e-9) if len(splats) else 1.0
    # Half precision ends at 65504; no splat may overflow.
    largest = float(covariances.abs().max()) if len(splats) else 1.0
    zoom = min(zoom, math.sqrt(6e4 / max(largest, 1e-12)))
    server.scene.add_gaussian_splats(
        "/scene",
        centers=(splats.means * zoom).numpy(),
        covariances=(covariances * zoom**2).numpy(),
        rgbs=colors.detach().cpu().float().clamp(0, 1).numpy(),
        opacities=splats.opacities[:, None].numpy(),
        scale=1 / zoom,
    )
    pose = start.c2w.reshape(-1, 4, 4)[0].detach().double().cpu().numpy()
    k = start.k.reshape(-1, 3, 3)[0].detach().double().cpu()
    down, forward, center = pose[:3, 1], pose[:3, 2], pose[:3, 3]
    server.scene.set_up_direction(tuple(-down))
    server.initial_camera.position = center
    # The point of orbit lies at the middle of what the camera sees.
    server.initial_camera.look_at = center + forward * _typical_depth(splats, center, forward)
    server.initial_camera.up = -down
    server.initial_camera.fov = 2 * math.atan(start.height / (2 * float(k[1, 1])))


def _typical_depth(splats: Gaussians, center: np.ndarray, forward: np.ndarray) -> float:
    depth = (splats.means.double().numpy() - center) @ forward
    ahead = depth[depth > 0]
    return float(np.median(ahead)) if ahead.size else 1.0


@contextlib.contextmanager
def _server() -> Iterator[viser.ViserServer]:
    """A server that nobody connects to: viser serialises a scene only from one."""
    import viser

    with _silent():
        server = viser.ViserServer(host="127.0.0.1", port=_free_port(), verbose=False)
    try:
        yield server
    finally:
        with _silent():
            server.stop()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """viser prints a banner whatever its settings."""
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):
        yield


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
