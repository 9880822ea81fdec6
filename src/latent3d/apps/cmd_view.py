"""``latent3d view``: the live viewer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True, kw_only=True)
class View:
    """Serve a scene to the browser until Ctrl-C."""

    scene: tyro.conf.Positional[Path]
    """Folder that `latent3d scene` wrote, or a .ply file of splats."""
    host: str = "127.0.0.1"
    """Address to serve at; 0.0.0.0 lets other machines of the network in."""
    port: int = 8080
    """Port to serve at."""

    def run(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ValueError(f"port {self.port} does not exist; give 1 to 65535")
        from latent3d.apps.open_scene import open_scene
        from latent3d.io.viewer_live import serve

        scene = open_scene(self.scene)
        with serve(scene.gaussians, scene.cameras[0], self.host, self.port, scene.origin) as viewer:
            try:
                print(f"{len(scene.gaussians)} splats at {viewer.address} (Ctrl-C ends)", flush=True)
                while True:
                    time.sleep(0.5)
            except KeyboardInterrupt:
                print("closed")  # the ordinary end of this command
