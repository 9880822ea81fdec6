"""A headless Chromium without network, driven over its debugging socket in real time."""

from __future__ import annotations

import base64
import io
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIDE = 400
"""Of the window, in pixels."""
SECONDS = 180
"""A window lives no longer than this."""
SETTLED = """(() => {
  let faded = false;
  window.__viserMutable?.scene?.traverse((node) => {
    if (node.material?.uniforms?.transitionInState?.value === 1) faded = true;
  });
  return faded;
})()"""
"""viser fades splats in; this is true afterwards."""


@pytest.fixture
def browser(tmp_path_factory) -> Iterator[Browser]:
    """An open window; skips the test where there is no Chromium."""
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


class Browser:
    """One window of ``side`` x ``side`` pixels.

    Attributes:
        side: see above.
    """

    def __init__(self, folder: Path, side: int = SIDE) -> None:
        from websockets.sync.client import connect

        browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
        if browser is None:
            pytest.skip("no Chromium on this machine: the page was not opened")
        self.side = side
        profile = folder / "profile"
        command = [
            "timeout", "--kill-after=5", str(SECONDS),
            browser, "--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
            f"--window-size={side},{side}", "--hide-scrollbars", "--proxy-server=127.0.0.1:9",
            "--proxy-bypass-list=<-loopback>", f"--user-data-dir={profile}", "--remote-debugging-port=0",
            "about:blank",
        ]  # fmt: skip
        self.end = time.monotonic() + SECONDS
        self.ids = itertools.count()
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            address = profile / "DevToolsActivePort"
            self.wait(lambda: address.is_file() and address.read_text().count("\n") == 1)
            port, path = address.read_text().split("\n")
            self.socket = connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None, open_timeout=SECONDS)
            target = next(page for page in self.call("Target.getTargets")["targetInfos"] if page["type"] == "page")
            self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
            size = {"width": side, "height": side, "deviceScaleFactor": 1, "mobile": False}
            self.call("Emulation.setDeviceMetricsOverride", **size)
        except BaseException:
            self.process.terminate()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(timeout=20)

    def wait(self, condition) -> None:
        while not condition():
            assert time.monotonic() < self.end, "the browser took too long"
            time.sleep(0.1)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        message = {"id": next(self.ids), "method": method, "params": parameters}
        if hasattr(self, "session"):
            message["sessionId"] = self.session
        self.socket.send(json.dumps(message))
        while True:
            reply = json.loads(self.socket.recv(timeout=self.end - time.monotonic()))
            if reply.get("id") == message["id"]:
                assert "error" not in reply, reply
                return reply["result"]

    def run(self, script: str) -> Any:
        """Value of a JavaScript expression."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def open(self, page: Path) -> None:
        """Load a page and wait until its splats stand there."""
        self.call("Page.navigate", url=page.as_uri())
        self.wait(lambda: self.run(SETTLED))

    def click(self, name: str) -> None:
        """Click on a checkbox with the mouse."""
        self.wait(lambda: self.run(f"document.querySelector('[name=\"{name}\"]') !== null"))
        script = f"(({{x, y}}) => [x + 5, y + 5])(document.querySelector('[name=\"{name}\"]').getBoundingClientRect())"
        x, y = self.run(script)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self) -> np.ndarray:
        """(H, W, 3) bytes, when the picture no longer changes."""
        shots: list[np.ndarray] = []
        while len(shots) < 2 or not np.array_equal(shots[-1], shots[-2]):
            assert time.monotonic() < self.end, "the picture does not come to rest"
            time.sleep(0.4)
            data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
            shots.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        return shots[-1]
