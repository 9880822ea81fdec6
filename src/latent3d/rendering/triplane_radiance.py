"""Tri-planes and a network as one field: called like any other, and known to compiled loops.

Renderers take any function of points for a field. One that is a `TriPlaneRadiance` can be computed without keeping
features or hidden layers of all points: on the CPU, in float32 and with numba, values, gradients, occupancy grids and
whole rays come from fused loops. Everywhere else, and as the twin of those, it is what its two parts compute one after
the other.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from latent3d.geometry.precision import full_precision
from latent3d.rendering.ray_samples import RayRendering
from latent3d.rendering.triplane_sampling import TriPlaneRows, have_numba, sample_triplane
from latent3d.representations.triplane import PLANE_AXES

Plain: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]


@runtime_checkable
class FieldValues(Protocol):
    """What a network says of points: densities (...) and colours (..., C)."""

    @property
    def density(self) -> Tensor: ...
    @property
    def colors(self) -> Tensor: ...


@runtime_checkable
class FieldFormulas(Protocol):
    """Settings of a network, see `nn.triplane_field.TriPlaneFieldConfig`."""

    @property
    def channels(self) -> int: ...
    @property
    def activation(self) -> str: ...
    @property
    def density_scale(self) -> float: ...
    @property
    def color_scale(self) -> float: ...


@runtime_checkable
class FieldNetwork(Protocol):
    """A network of points like `nn.triplane_field.TriPlaneField`: linear layers with one activation between them, the
    outputs beginning with a raw density and raw colours."""

    @property
    def density_shift(self) -> float: ...
    @property
    def color_margin(self) -> float: ...
    @property
    def config(self) -> FieldFormulas: ...
    @property
    def layers(self) -> nn.ModuleList: ...
    def __call__(self, features: Tensor) -> FieldValues: ...


@dataclass(frozen=True)
class TriPlaneRadiance:
    """Density and colour of B objects, a `volume.Field`: the mean of the planes' features through one network.

    Attributes:
        rows: of the objects' planes.
        half_size: half the side of the box in scene units.
        network: the same for all objects.
        fused: use compiled loops where they apply; without, the plain computation.
        asked: how the plain computation is asked, called with it and the points, where it is not for all at once.
    """

    rows: TriPlaneRows
    half_size: float
    network: FieldNetwork
    fused: bool = True
    asked: Callable[[Plain, Tensor], tuple[Tensor, Tensor]] | None = None

    def __call__(self, points: Float[Tensor, "b n 3"]) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n c"]]:
        """Densities (B, N), per scene unit, and colours (B, N, C) of world points; differentiable.

        Where compiled loops apply, a network under autocast still computes in float32: this is as fast as less
        precision and more exact. They give no gradient to points: points that need one take the plain way.
        """
        if self.compiled(points) and not _needs_gradient([points]):
            table, formulas = self.rows.table, _formulas(self.network)
            return _loops("values").evaluate(table, points, self.half_size, formulas, _parameters(self.network))
        return self.plain(points) if self.asked is None else self.asked(self.plain, points)

    def plain(self, points: Float[Tensor, "b n 3"]) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n c"]]:
        """The same, one part after the other."""
        values = self.network(sample_triplane(self.rows, points, self.half_size))
        return values.density, values.colors

    def compiled(self, *places: Tensor) -> bool:
        """Whether compiled loops apply to this field at these points, or along rays with these origins."""
        return self.fused and loops_apply(self.rows, self.network, *places)

    def constant(self, *places: Tensor) -> bool:
        """Whether neither the field nor these need a gradient."""
        return not _needs_gradient([self.rows.table, *_parameters(self.network), *places])

    def march(
        self,
        origins: Float[Tensor, "b r 3"],
        directions: Float[Tensor, "b r 3"],
        near: Float[Tensor, "b r"],
        far: Float[Tensor, "b r"],
        *,
        coarse: int,
        fine: int,
        background: float,
        cells: Bool[Tensor, "b g g g"] | None,
        limit: float,
        block: int,
    ) -> RayRendering:
        """`volume.render_rays` without jitter, compiled and without gradients; only where `compiled`.

        Args:
            origins, directions, near, far: rays and the part of each inside the box.
            coarse, fine, background: see `volume.VolumeConfig`.
            cells: of an `Occupancy`, outside of which the field is not asked; None for everywhere.
            limit: optical depth at which a ray ends, looked at every ``block`` samples.
        """
        if cells is None:
            cells = torch.ones(len(near), 1, 1, 1, dtype=torch.bool)
        network = _loops("network").pack(_parameters(self.network), _formulas(self.network))
        return _loops("march").march(
            self.rows.table, self.half_size, network, (origins, directions, near, far), cells, limit, block,
            (coarse, fine), background,
        )  # fmt: skip

    def grid_density(self, places: Float[Tensor, " g"]) -> Float[Tensor, "b g g g"]:
        """Densities at all points of a grid that has the same ``places`` along each axis, indexed by x, y, z, without
        gradients; only where `compiled`."""
        raw = grid_raw(self.rows, self.half_size, self.network, places)
        return F.softplus(raw - self.network.density_shift) * self.network.config.density_scale


def loops_apply(rows: TriPlaneRows, network: FieldNetwork, *places: Tensor) -> bool:
    """Whether compiled loops serve these planes and this network at these places: on the CPU, in float32."""
    tensors = [rows.table, *_parameters(network), *places]
    plain = all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
    # loops count an object's pixels in float32, and its numbers in 32 bits
    small = rows.table[0, ..., 0].numel() < 2**24 and rows.table[0].numel() < 2**31
    return plain and small and have_numba()


@full_precision
@torch.no_grad()
def grid_raw(
    rows: TriPlaneRows,
    half_size: float,
    network: FieldNetwork,
    places: Float[Tensor, " g"],
    *,
    reduce: Literal["mean", "concat"] = "mean",
) -> Float[Tensor, "b g g g"]:
    """The network's first raw output at all points of a grid that has the same ``places`` along each axis, indexed by
    x, y, z, without gradients; only where `loops_apply`.

    The first layer is linear: it is applied to the features of each plane's G x G points, and the G^3 points add up
    what the planes say. ``reduce`` says how the network reads the planes, see `sample_triplane`.
    """
    pairs, zero = torch.cartesian_prod(places, places), places.new_zeros(len(places) ** 2, 3)
    points = torch.stack([zero.index_copy(1, torch.tensor(axes), pairs) for axes in PLANE_AXES])
    batch, planes = len(rows.table), len(PLANE_AXES)
    features = sample_triplane(rows, points.flatten(0, 1).expand(batch, -1, -1), half_size, reduce="concat")
    own = rearrange(features, "b (p n) (q c) -> b p n q c", p=planes, q=planes).diagonal(dim1=1, dim2=3)
    weight = _parameters(network)[0]
    parts = [weight / planes] * planes if reduce == "mean" else weight.chunk(planes, 1)
    shares = torch.stack([F.linear(own[..., plane], part) for plane, part in enumerate(parts)], 1)
    shares = rearrange(shares, "b p (i j) u -> b p i j u", i=len(places))
    return _loops("values").grid_raw(shares, _loops("network").pack(_parameters(network), _formulas(network)))


def _parameters(network: FieldNetwork) -> list[Tensor]:
    """Weight and bias of every layer, in turn."""
    return [tensor for layer in network.layers for tensor in layer.parameters()]


def _formulas(network: FieldNetwork) -> Any:
    """How outputs become values, for compiled loops."""
    config = network.config
    return _loops("network").formulas(
        config.activation, config.channels, config.density_scale, network.density_shift, config.color_scale,
        network.color_margin,
    )  # fmt: skip


def _needs_gradient(tensors: Iterable[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


@functools.cache
def _loops(part: str) -> Any:
    return importlib.import_module(f"latent3d.rendering.triplane_{part}_numba")
