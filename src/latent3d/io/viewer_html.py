"""The scene as a web page: one file that opens offline. The page is viser's; a panel of switches is added to it.

N: splats.
"""

from __future__ import annotations

import html
import json
import socket
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.io.atomic import write_text
from latent3d.io.viewer_live import open_server, silent
from latent3d.io.viewer_scene import KINDS, LUMA, TINT_FLOOR, SplatScene
from latent3d.representations.gaussians import Gaussians

WORKERS_FROM_FILES = """<script>
  // In a page opened from a file Chromium refuses workers that are modules at blob: addresses, without an exception,
  // and the splats would stay unsorted. Where an exception says so, viser takes a data: address, which works.
  if (location.protocol === "file:") window.Worker = class extends Worker {
    constructor(address, options) {
      if (String(address).startsWith("blob:") && options?.type === "module") throw new Error("not from a file");
      super(address, options);
    }
  };
</script>"""
PANEL = Path(__file__).with_name("viewer_panel.html")
"""Switches for the origins of the splats."""


def write_viewer(
    path: str | Path,
    gaussians: Gaussians,
    start: Cameras,
    title: str = "latent3d",
    origin: Int[Tensor, " n"] | None = None,
) -> None:
    """Write a page that shows the scene, atomically.

    Args:
        gaussians: with ``colors``.
        start: one camera (batch shape () or (1,)): where the viewer stands at first; its up becomes the page's.
        origin: `Origin` of each splat; the page then has a switch for each kind that occurs, and one that shows the
            kinds as colours.

    Raises:
        ValueError: if there is no colour or an origin is not one.
    """
    # viser serialises a scene only from a server, to which nobody connects here.
    server = open_server("127.0.0.1", _free_port())
    try:
        scene = SplatScene(server)
        scene.show(gaussians, origin)
        scene.stand_at(start, gaussians)
        page = server.scene.as_html(dark_mode=True)
    finally:
        with silent():
            server.stop()
    page = page.replace("<title>Viser</title>", f"<title>{html.escape(title)}</title>", 1)
    page = page.replace("<head>", "<head>" + WORKERS_FROM_FILES, 1)
    if origin is not None:
        end = page.rindex("</body>")
        page = page[:end] + _panel(origin) + page[end:]
    write_text(path, page)


def _panel(origin: Tensor) -> str:
    counts = torch.bincount(origin.detach().cpu().long(), minlength=len(KINDS)).tolist()
    kinds = [
        {"name": kind.name.lower(), "node": shown.node, "hint": shown.hint, "tint": shown.tint, "count": counts[kind]}
        for kind, shown in KINDS.items()
        if counts[kind]
    ]
    about = json.dumps({"kinds": kinds, "luma": LUMA, "floor": TINT_FLOOR})
    return PANEL.read_text(encoding="utf-8").replace("ABOUT_ORIGINS", about)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
