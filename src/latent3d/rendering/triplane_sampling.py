"""Features of points from tri-planes: bilinear on each plane, zero outside, joined over the planes.

Several back ends compute the same values and gradients: ``grid_sample`` (torch's own; the reference, any device),
``gather`` (torch: one weighted sum of rows of a table) and ``numba`` (CPU: compiled loops with a gradient by hand). The
latter two read channels-last tables, `TriPlaneRows`, which are worth preparing once where planes are sampled often.

Letters: b objects, n points, c channels, h/w rows and columns, p planes, k corners of a pixel cell.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from latent3d.geometry.precision import full_precision
from latent3d.representations.triplane import PLANE_AXES

Reduce = Literal["mean", "sum", "concat"]
Backend = Literal["auto", "grid_sample", "gather", "numba"]
REDUCTIONS: tuple[Reduce, ...] = ("mean", "sum", "concat")
BACKENDS: tuple[Backend, ...] = ("auto", "grid_sample", "gather", "numba")


@dataclass(frozen=True)
class TriPlaneRows:
    """The pixels of B objects' planes, the channels of each side by side.

    Attributes:
        table: (B, 3, H, W, C), contiguous, float32 or float64.
    """

    table: Float[Tensor, "b 3 h w c"]

    @classmethod
    def of(cls, planes: Float[Tensor, "b 3 c h w"]) -> TriPlaneRows:
        """From planes; differentiable."""
        return cls(rearrange(_wide(planes), "b p c h w -> b p h w c").contiguous())

    @property
    def planes(self) -> Float[Tensor, "b 3 c h w"]:
        """The planes as others know them; a view."""
        return rearrange(self.table, "b p h w c -> b p c h w")


@full_precision
def sample_triplane(
    planes: Float[Tensor, "b 3 c h w"] | TriPlaneRows,
    points: Float[Tensor, "b n 3"],
    half_size: float,
    *,
    reduce: Reduce = "mean",
    backend: Backend = "auto",
) -> Float[Tensor, "b n channels"]:
    """Features of world points, differentiable in planes and points.

    Each plane is read bilinearly where the point falls on it (`PLANE_AXES`); the planes' outer borders are the faces of
    the box (align_corners=False), and what lies beyond counts as zero. Autocast is switched off inside.

    Args:
        planes: of B objects, (B, 3, C, H, W), or their prepared form.
        points: in world axes and scene units, (B, N, 3).
        half_size: half the side of the box in scene units.
        reduce: ``"mean"`` (LN3Diff) or ``"sum"`` (EG3D up to a factor) over the planes, or ``"concat"``.
        backend: ``"auto"`` takes numba on the CPU when it can be imported, else ``gather`` for rows on the CPU, else
            ``grid_sample``.

    Returns:
        (B, N, C), or (B, N, 3C) for ``"concat"`` with plane p in channels p C to (p + 1) C; at least float32.

    Raises:
        ValueError: for an unknown ``reduce`` or ``backend``, a size that is not positive, or numba off the CPU.
    """
    if reduce not in REDUCTIONS:
        raise ValueError(f"reduce must be one of {', '.join(REDUCTIONS)}, found {reduce!r}")
    if not half_size > 0:
        raise ValueError(f"half_size must be positive, found {half_size}")
    source = planes.table if isinstance(planes, TriPlaneRows) else planes
    chosen = _choose(backend, source.device, isinstance(planes, TriPlaneRows))
    if chosen == "grid_sample":
        dense = planes.planes if isinstance(planes, TriPlaneRows) else _wide(planes)
        return _sample_grid(dense, points.to(dense.dtype) / half_size, reduce)
    rows = planes if isinstance(planes, TriPlaneRows) else TriPlaneRows.of(planes)
    normalized = points.to(rows.table.dtype) / half_size
    if chosen == "gather":
        return _sample_gather(rows.table, normalized, reduce)
    return importlib.import_module("latent3d.rendering.triplane_numba").sample(rows.table, normalized, reduce)


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _choose(backend: str, device: torch.device, prepared: bool) -> str:
    if backend not in BACKENDS:
        raise ValueError(f"the tri-plane back end must be one of {', '.join(BACKENDS)}, found {backend!r}")
    if backend == "numba" and device.type != "cpu":
        raise ValueError(f"the numba back end samples on the CPU only, and the planes are on {device}")
    if backend != "auto":
        return backend
    if device.type != "cpu":
        return "grid_sample"
    return "numba" if have_numba() else "gather" if prepared else "grid_sample"


@functools.cache
def have_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


def _sample_grid(planes: Tensor, normalized: Tensor, reduce: Reduce) -> Tensor:
    positions = torch.stack([normalized[..., list(axes)] for axes in PLANE_AXES], 1)
    sampled = F.grid_sample(
        rearrange(planes, "b p c h w -> (b p) c h w"),
        rearrange(positions, "b p n xy -> (b p) 1 n xy"),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    features = rearrange(sampled, "(b p) c 1 n -> b n p c", p=len(PLANE_AXES))
    if reduce == "concat":
        return features.flatten(-2)
    return features.mean(-2) if reduce == "mean" else features.sum(-2)


def _sample_gather(table: Tensor, normalized: Tensor, reduce: Reduce) -> Tensor:
    """One weighted sum over 12 rows of the table for each point; over 4 rows for each plane of it for ``concat``."""
    batch = len(normalized)
    indices, weights = _corners(normalized, table.shape[2], table.shape[3])
    indices = indices + torch.arange(batch, device=table.device)[:, None, None, None] * table[0, ..., 0].numel()
    if reduce == "mean":
        weights = weights / len(PLANE_AXES)
    layout = "b n p k -> (b n p) k" if reduce == "concat" else "b n p k -> (b n) (p k)"
    summed = F.embedding_bag(
        rearrange(indices, layout),
        rearrange(table, "b p h w c -> (b p h w) c"),
        per_sample_weights=rearrange(weights, layout),
        mode="sum",
    )
    if reduce == "concat":
        return rearrange(summed, "(b n p) c -> b n (p c)", b=batch, p=len(PLANE_AXES))
    return rearrange(summed, "(b n) c -> b n c", b=batch)


def _corners(normalized: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Places in an object's table of the 4 pixels around each point on each plane, and their bilinear weights.

    Both (B, N, 3, 4). A pixel outside the plane has weight 0 (and the place of one inside).
    """
    places, weights = [], []
    for plane, (first, second) in enumerate(PLANE_AXES):
        # beyond one pixel outside everything is zero: the clamp only keeps far points within the integers
        u = ((normalized[..., first] + 1) * width / 2 - 0.5).clamp(-2, width + 1)
        v = ((normalized[..., second] + 1) * height / 2 - 0.5).clamp(-2, height + 1)
        u0, v0 = u.detach().floor(), v.detach().floor()
        right, down = u - u0, v - v0
        for column, across in ((u0, 1 - right), (u0 + 1, right)):
            for row, along in ((v0, 1 - down), (v0 + 1, down)):
                inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
                line = plane * height + row.clamp(0, height - 1).long()
                places.append(line * width + column.clamp(0, width - 1).long())
                weights.append(across * along * inside)
    layout = "(p k) b n -> b n p k"
    count = len(PLANE_AXES)
    return rearrange(torch.stack(places), layout, p=count), rearrange(torch.stack(weights), layout, p=count)
