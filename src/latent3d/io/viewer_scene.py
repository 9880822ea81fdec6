"""Splats as nodes of a viser scene: one node per origin, so that a person can switch each on and off.

N: splats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.rotations import quaternion_to_matrix
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.origin import Origin

if TYPE_CHECKING:
    import viser

HALF_PRECISION_STD = 0.25
"""The viewer stores covariances in half precision; the scene is stored with about this median standard deviation."""
LUMA = (0.299, 0.587, 0.114)
"""Brightness of red, green and blue (ITU-R BT.601)."""
TINT_FLOOR = 0.25
"""Brightness that a black splat keeps when it is tinted: its origin must stay visible."""


@dataclass(frozen=True)
class Kind:
    """How a viewer presents the splats of one origin: node of the scene, explanation and colour in [0, 1]."""

    node: str
    hint: str
    tint: tuple[float, float, float]


KINDS = {
    Origin.SEEN: Kind("/scene/seen", "pixels of the pictures you gave", (0.92, 0.92, 0.92)),
    Origin.INTERPOLATED: Kind("/scene/interpolated", "generated where your pictures look", (0.25, 0.60, 1.00)),
    Origin.INVENTED: Kind("/scene/invented", "made up where no picture looks", (1.00, 0.50, 0.10)),
}
ALL_NODE = "/scene/splats"
"""Node of splats whose origin is not known."""


def tinted(colors: Float[Tensor, "n 3"], origin: Int[Tensor, " n"]) -> Float[Tensor, "n 3"]:
    """Each splat in the colour of its origin, as bright as it was; the page does the same in `viewer_panel.html`."""
    tints = colors.new_tensor([KINDS[kind].tint for kind in Origin])[origin.long()]
    luma = colors.clamp(0, 1) @ colors.new_tensor(LUMA)
    return tints * (TINT_FLOOR + (1 - TINT_FLOOR) * luma)[:, None]


class SplatScene:
    """The splats that a viser server shows.

    Attributes:
        handles: viser's handles of the nodes shown, by name of the node.
    """

    def __init__(self, server: viser.ViserServer) -> None:
        self.server = server
        self.handles: dict[str, viser.GaussianSplatHandle] = {}

    def show(
        self,
        gaussians: Gaussians,
        origin: Int[Tensor, " n"] | None = None,
        hidden: frozenset[str] = frozenset(),
        tint: bool = False,
    ) -> None:
        """Put these splats in place of those shown, in one step.

        The viewer sorts the splats of all nodes together, so nodes change no picture.

        Args:
            gaussians: with ``colors``.
            origin: `Origin` of each splat; every kind that occurs gets a node of its own.
            hidden: names of nodes to add switched off.
            tint: show the origins as colours (no effect without ``origin``).

        Raises:
            ValueError: if there is no colour or an origin is not one.
        """
        splats, nodes = _checked(gaussians, origin)
        assert splats.colors is not None
        colors = tinted(splats.colors, origin.cpu()) if tint and origin is not None else splats.colors.clamp(0, 1)
        half = quaternion_to_matrix(torch.nn.functional.normalize(splats.quaternions, dim=-1)) * splats.scales[:, None]
        covariances = half @ half.mT
        zoom = _zoom(splats.scales, covariances)
        centers = (splats.means * zoom).numpy()
        second = (covariances * zoom**2).numpy()
        with self.server.atomic():
            for name, index in nodes.items():
                # A node added under a taken name replaces the old one without a gap.
                self.handles[name] = self.server.scene.add_gaussian_splats(
                    name,
                    centers=centers[index],
                    covariances=second[index],
                    rgbs=colors.numpy()[index],
                    opacities=splats.opacities[:, None].numpy()[index],
                    scale=1 / zoom,
                    visible=name not in hidden,
                )
            for name in self.handles.keys() - nodes.keys():
                self.handles.pop(name).remove()

    def stand_at(self, start: Cameras, gaussians: Gaussians) -> None:
        """Start at a camera (batch shape () or (1,)): its up becomes the scene's, and one orbits what it sees."""
        pose = start.c2w.reshape(-1, 4, 4)[0].detach().double().cpu().numpy()
        k = start.k.reshape(-1, 3, 3)[0].detach().double().cpu()
        down, forward, center = pose[:3, 1], pose[:3, 2], pose[:3, 3]
        camera = self.server.initial_camera
        with self.server.atomic():
            self.server.scene.set_up_direction(tuple(-down))
            camera.position = center
            camera.look_at = center + forward * _typical_depth(gaussians, center, forward)
            camera.up = -down
            camera.fov = 2 * math.atan(start.height / (2 * float(k[1, 1])))


def _checked(gaussians: Gaussians, origin: Tensor | None) -> tuple[Gaussians, dict[str, np.ndarray]]:
    """The splats in float32 on the CPU, and which of them go to which node."""
    if gaussians.colors is None:
        raise ValueError("these splats carry no colour and cannot be shown; use the decoded scene")
    splats = gaussians.detach().to("cpu", torch.float32)
    if len(splats) == 0:
        return splats, {}
    if origin is None:
        return splats, {ALL_NODE: np.arange(len(splats))}
    if origin.shape != (len(splats),):
        raise ValueError(f"origins of shape {tuple(origin.shape)}; expected one for each of {len(splats)} splats")
    numbers = origin.detach().cpu().numpy()
    if not np.isin(numbers, [int(kind) for kind in Origin]).all():
        raise ValueError(f"origins from {numbers.min()} to {numbers.max()}; expected {list(map(int, Origin))}")
    nodes = {kind.node: np.flatnonzero(numbers == number) for number, kind in KINDS.items()}
    return splats, {name: index for name, index in nodes.items() if index.size}


def _zoom(scales: Tensor, covariances: Tensor) -> float:
    """Factor that brings covariances into the range of half precision.

    A power of two, which rounds nothing and stays the same from one state of a growing scene to the next.
    """
    if len(scales) == 0:
        return 1.0
    zoom = HALF_PRECISION_STD / max(float(scales.median()), 1e-9)
    # Half precision ends at 65504; no splat may overflow.
    zoom = min(zoom, math.sqrt(6e4 / max(float(covariances.abs().max()), 1e-12)))
    return 2.0 ** math.floor(math.log2(zoom))


def _typical_depth(gaussians: Gaussians, center: np.ndarray, forward: np.ndarray) -> float:
    depth = (gaussians.means.detach().double().cpu().numpy() - center) @ forward
    ahead = depth[depth > 0]
    return float(np.median(ahead)) if ahead.size else 1.0
