"""The live viewer takes new splats at any time and has a switch for each kind of them."""

from __future__ import annotations

import socket
import threading
import urllib.request

import numpy as np
import pytest
import torch

from latent3d.geometry.cameras import Cameras
from latent3d.io.viewer_live import LiveViewer, serve
from latent3d.io.viewer_scene import ALL_NODE, KINDS, tinted
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.origin import Origin

SEEN, INTERPOLATED, INVENTED = (KINDS[kind].node for kind in Origin)


def splats(n: int, scale: float = 0.1) -> Gaussians:
    generator = torch.Generator().manual_seed(n)
    return Gaussians(
        means=torch.rand(n, 3, generator=generator) + torch.tensor([0.0, 0.0, 2.0]),
        quaternions=torch.tensor([[1.0, 0, 0, 0]]).expand(n, 4),
        scales=torch.full((n, 3), scale),
        opacities=torch.full((n,), 0.5),
        colors=torch.rand(n, 3, generator=generator),
    )


def shown(viewer: LiveViewer, node: str) -> tuple[np.ndarray, np.ndarray]:
    """Centres (N, 3) in the scene's units and colours (N, 3) in [0, 1] as the browser gets them."""
    handle = viewer.scene.handles[node]
    centers = np.ascontiguousarray(handle.buffer[:, :3]).view(np.float32) * handle.scale
    colors = np.ascontiguousarray(handle.buffer[:, 7:]).view(np.uint8)[:, :3] / 255
    return centers, colors


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def camera() -> Cameras:
    return Cameras.from_fov(torch.eye(4), 60.0, 64, 64)


@pytest.fixture
def viewer(camera):
    with LiveViewer(camera, port=free_port()) as viewer:
        yield viewer


def test_it_serves_and_says_when_its_port_is_taken(viewer, camera):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    assert viewer.address == f"http://localhost:{viewer.port}"
    with opener.open(f"http://127.0.0.1:{viewer.port}", timeout=20) as reply:
        assert b"<html" in reply.read()
    with pytest.raises(OSError, match=f"port {viewer.port} is taken"):
        serve(splats(3), camera, port=viewer.port)


def test_an_update_replaces_the_splats(viewer):
    for count, scale in ((5, 0.1), (9, 0.1), (4, 1e-4)):
        scene = splats(count, scale)
        viewer.update(scene, note=f"step {count}")
        assert list(viewer.scene.handles) == [ALL_NODE]
        centers, colors = shown(viewer, ALL_NODE)
        assert np.allclose(centers, scene.means, rtol=1e-6)
        assert np.abs(colors - scene.colors.numpy()).max() <= 1 / 255
        assert (viewer.note.content, viewer.note.visible) == (f"step {count}", True)
    assert not any(switch.visible for switch in viewer.switches.values())
    viewer.update(scene)
    assert not viewer.note.visible


def test_each_kind_that_occurs_has_a_node_and_a_switch(viewer):
    scene, origin = splats(6), torch.tensor([2, 0, 0, 2, 2, 0])
    viewer.update(scene)
    viewer.update(scene, origin)
    assert set(viewer.scene.handles) == {SEEN, INVENTED}
    for node, number in ((SEEN, 0), (INVENTED, 2)):
        assert np.allclose(shown(viewer, node)[0], scene.means[origin == number], rtol=1e-6)
    assert [viewer.switches[node].visible for node in (SEEN, INTERPOLATED, INVENTED)] == [True, False, True]
    # All nodes share one scale: their splats are sorted together.
    assert len({handle.scale for handle in viewer.scene.handles.values()}) == 1
    viewer.update(scene)
    assert list(viewer.scene.handles) == [ALL_NODE]


def test_what_is_switched_off_stays_off(viewer):
    scene, origin = splats(6), torch.tensor([0, 1, 2, 0, 1, 2])
    viewer.update(scene, origin)
    viewer.switches[INVENTED].value = False
    assert {node: handle.visible for node, handle in viewer.scene.handles.items()} == {
        SEEN: True, INTERPOLATED: True, INVENTED: False,
    }  # fmt: skip
    viewer.update(splats(9), torch.arange(9) % 3)
    assert not viewer.scene.handles[INVENTED].visible
    viewer.switches[INVENTED].value = True
    assert viewer.scene.handles[INVENTED].visible


def test_colour_of_the_origin(viewer):
    scene, origin = splats(6), torch.tensor([0, 1, 2, 0, 1, 2])
    viewer.update(scene, origin)
    viewer.tint.value = True
    expected = tinted(scene.colors, origin)
    for node, number in ((SEEN, 0), (INTERPOLATED, 1), (INVENTED, 2)):
        assert np.abs(shown(viewer, node)[1] - expected[origin == number].numpy()).max() <= 1 / 255
    viewer.tint.value = False
    assert np.abs(shown(viewer, SEEN)[1] - scene.colors[origin == 0].numpy()).max() <= 1 / 255


def test_tint_keeps_hue_and_order_of_brightness():
    grey = torch.tensor([[0.0] * 3, [0.5] * 3, [1.0] * 3]).repeat(3, 1)
    colors = tinted(grey, torch.arange(3).repeat_interleave(3)).reshape(3, 3, 3)
    assert bool((colors.diff(dim=1) > 0).all())
    assert bool((colors[:, 0] > 0).all())
    for number, kind in KINDS.items():
        assert torch.allclose(colors[number, 2], torch.tensor(kind.tint))


def test_bad_input_leaves_the_last_splats(viewer):
    scene = splats(6)
    viewer.update(scene)
    bare = Gaussians(scene.means, scene.quaternions, scene.scales, scene.opacities)
    for bad, origin, words in (
        (bare, None, "carry no colour"),
        (scene, torch.zeros(5, dtype=torch.long), "one for each of 6"),
        (scene, torch.tensor([0, 1, 2, 3, 0, 0]), "origins from 0 to 3"),
        (scene, torch.tensor([0, 1, 2, -1, 0, 0]), "origins from -1 to 2"),
    ):
        with pytest.raises(ValueError, match=words):
            viewer.update(bad, origin)
    assert np.allclose(shown(viewer, ALL_NODE)[0], scene.means, rtol=1e-6)


def test_updates_from_several_threads(viewer):
    failures = []

    def work(count: int) -> None:
        try:
            for _ in range(5):
                viewer.update(splats(count), torch.arange(count) % 3)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(count,)) for count in (3, 6, 9)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        viewer.tint.value = not viewer.tint.value
    for thread in threads:
        thread.join()
    assert failures == []
    assert {len(handle.buffer) for handle in viewer.scene.handles.values()} in ({1}, {2}, {3})


def test_no_splats_at_all(viewer):
    viewer.update(splats(0))
    assert viewer.scene.handles == {}
    viewer.update(splats(3))
    viewer.update(splats(0), torch.zeros(0, dtype=torch.long))
    assert viewer.scene.handles == {}


def test_a_closed_viewer_says_so(camera):
    viewer = serve(splats(3), camera, port=free_port())
    viewer.close()
    viewer.close()
    with pytest.raises(RuntimeError, match="closed"):
        viewer.update(splats(3))
