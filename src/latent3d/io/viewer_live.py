"""The scene in the browser while the program runs: a live server, whose splats may change."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jaxtyping import Int
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.io.viewer_scene import KINDS, SplatScene
from latent3d.representations.gaussians import Gaussians

if TYPE_CHECKING:
    import viser


class LiveViewer:
    """A server that shows splats and takes new ones at any time, from any thread; it needs no browser to run.

    Where the splats have an origin, the page has a switch for each kind and one that shows the kinds as colours.

    Attributes:
        host, port: where it serves.
        scene: the splats shown.
        switches: viser's checkbox for each node that a kind of splats has in ``scene``.
        tint: viser's checkbox for the colours of the kinds.
        note: viser's line of text beside the scene.
    """

    def __init__(self, start: Cameras, host: str = "127.0.0.1", port: int = 8080) -> None:
        """Start the server; `close` ends it.

        Args:
            start: one camera (batch shape () or (1,)): where the viewer stands at first; its up becomes the page's.

        Raises:
            OSError: if the port is taken.
        """
        self.host, self.port = host, port
        self._start = start
        self._lock = threading.Lock()
        self._shown: tuple[Gaussians, Tensor | None] | None = None
        self._server: viser.ViserServer | None = open_server(host, port)
        self.scene = SplatScene(self._server)
        gui = self._server.gui
        gui.configure_theme(dark_mode=True, control_width="small", show_logo=False, show_share_button=False)
        self.note = gui.add_markdown("waiting for the first splats")
        self.switches = {
            kind.node: gui.add_checkbox(origin.name.lower(), True, hint=kind.hint, visible=False)
            for origin, kind in KINDS.items()
        }
        self.tint = gui.add_checkbox("show origin in colour", False, visible=False)
        for switch in self.switches.values():
            switch.on_update(lambda _: self._switch())
        self.tint.on_update(lambda _: self._redraw())

    @property
    def address(self) -> str:
        """Where a browser on this machine finds the page."""
        return f"http://{'localhost' if self.host in ('127.0.0.1', '0.0.0.0') else self.host}:{self.port}"

    def update(self, gaussians: Gaussians, origin: Int[Tensor, " n"] | None = None, note: str = "") -> None:
        """Show these splats in place of the last ones.

        Args:
            gaussians: with ``colors``.
            origin: `Origin` of each splat, where known.
            note: one line to show beside the scene, for example which step this is.

        Raises:
            ValueError: if there is no colour or an origin is not one; the last splats stay.
            RuntimeError: if the viewer is closed.
        """
        with self._lock:
            if self._server is None:
                raise RuntimeError("this viewer is closed; open another")
            with self._server.atomic():
                self._show(gaussians, origin)
                if self._shown is None:
                    self.scene.stand_at(self._start, gaussians)
                self._shown = gaussians, origin
                for name, switch in self.switches.items():
                    switch.visible = name in self.scene.handles
                self.tint.visible = origin is not None
                self.note.content, self.note.visible = note, bool(note)

    def close(self) -> None:
        """End the server; a second call does nothing."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            with silent():
                server.stop()

    def __enter__(self) -> LiveViewer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _show(self, gaussians: Gaussians, origin: Tensor | None) -> None:
        hidden = frozenset(name for name, switch in self.switches.items() if not switch.value)
        self.scene.show(gaussians, origin, hidden=hidden, tint=self.tint.value)

    def _switch(self) -> None:
        with self._lock:
            for name, handle in self.scene.handles.items():
                handle.visible = name not in self.switches or self.switches[name].value

    def _redraw(self) -> None:
        with self._lock:
            if self._shown is not None:
                self._show(*self._shown)


def serve(
    gaussians: Gaussians,
    start: Cameras,
    host: str = "127.0.0.1",
    port: int = 8080,
    origin: Int[Tensor, " n"] | None = None,
) -> LiveViewer:
    """A `LiveViewer` that shows a scene (``close()`` ends it).

    Raises:
        ValueError: if there is no colour or an origin is not one.
        OSError: if the port is taken.
    """
    viewer = LiveViewer(start, host, port)
    try:
        viewer.update(gaussians, origin)
    except ValueError:
        viewer.close()
        raise
    return viewer


def open_server(host: str, port: int) -> viser.ViserServer:
    """A running viser server.

    Raises:
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
    with silent():
        return viser.ViserServer(host=host, port=port, label="latent3d", verbose=False)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """viser prints a banner whatever its settings."""
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):
        yield
