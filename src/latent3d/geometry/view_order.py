"""Which views are neighbours, and in which order a camera path passes them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.trajectories import interpolate_poses


def view_distances(cameras: Cameras) -> Float[Tensor, "m m"]:
    """How far apart views are: the move of the centre against the extent of all centres, plus the turn of the optical
    axis (0 for none, 2 for opposite), float64."""
    centers = cameras.centers.double().cpu()
    axes = cameras.w2c[:, 2, :3].double().cpu()
    moves = torch.cdist(centers, centers)
    return moves / moves.max().clamp_min(1e-9) + (1 - axes @ axes.T)


def path_order(cameras: Cameras) -> Tensor:
    """Order (m,) of views along the camera path: from the first view, always to the nearest one not yet visited."""
    cost = view_distances(cameras)
    order, left = [0], set(range(1, len(cameras)))
    while left:
        nearest = min(left, key=lambda view: (float(cost[order[-1], view]), view))
        order.append(nearest)
        left.remove(nearest)
    return torch.tensor(order)


def cameras_between(references: Cameras, per_gap: int = 6) -> Cameras:
    """``per_gap`` cameras on a smooth path from each reference (K,) to the next along the path, ((K - 1) per_gap,)."""
    keys = references[path_order(references)]
    spaces = per_gap + 1
    c2w = interpolate_poses(keys.c2w.double(), (len(keys) - 1) * spaces + 1).to(keys.w2c)
    places = torch.tensor([i for i in range(len(c2w)) if i % spaces], dtype=torch.long)
    low = places // spaces
    k = torch.lerp(keys.k[low], keys.k[low + 1], ((places % spaces) / spaces).to(keys.k)[:, None, None])
    return Cameras.from_c2w(c2w[places], k, keys.height, keys.width)
