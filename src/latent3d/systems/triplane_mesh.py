"""A mesh from a tri-plane: a signed field on a grid, whose surface FlexiCubes extracts (LN3Diff++ section 3.5).

Letters: b = objects, v = views, f = feature channels per plane, n = cells along each side, m = n + 1 grid points,
k = points or cells near the surface.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.config import Config
from latent3d.geometry.cameras import Cameras
from latent3d.memory import at_once
from latent3d.nn.triplane_field import DENSITY_SHIFT, FieldValues, TriPlaneField, TriPlaneFieldConfig
from latent3d.rendering.flexicubes import (
    FlexiCubesSurface,
    extract_surface,
    flexicubes_regularizers,
    surface_cells,
)
from latent3d.rendering.soft_meshes import SurfaceRendering, render_surface
from latent3d.rendering.triplane_radiance import grid_raw, loops_apply
from latent3d.rendering.triplane_sampling import TriPlaneRows, sample_triplane
from latent3d.representations.sdf_grid import CUBE_WEIGHTS, SdfGrid, bounded_deformation
from latent3d.representations.triplane import TriPlane
from latent3d.representations.views import Views

CHUNK = 1 << 17
"""Grid points that are asked at once."""
CHUNK_LEAN, CHUNK_LEANEST = 1 << 15, 1 << 13
"""The same at leaner levels of memory, points near the surface included."""


@dataclass(frozen=True, kw_only=True)
class TriPlaneMeshConfig(Config):
    """Attributes:
    resolution: n, cells along each side of the box; the paper's is 128.
    density: of the volume decoder, per scene unit, where this decoder's surface starts out.
    deform: whether grid points may move, by up to ``reach`` of a cell.
    weigh: whether cells have FlexiCubes' own weights.
    """

    resolution: int = 128
    density: float = 10.0
    deform: bool = True
    reach: float = 0.25
    weigh: bool = True

    def build(self, field: TriPlaneFieldConfig) -> TriPlaneMesh:
        """The decoder with a network shaped like the volume decoder's."""
        return TriPlaneMesh(self, field)


class TriPlaneMesh(nn.Module):
    """Feature planes to surfaces. Its network reads the three planes' features side by side, not their mean."""

    def __init__(self, config: TriPlaneMeshConfig, field: TriPlaneFieldConfig) -> None:
        super().__init__()
        self.config = config
        wanted = {"deformation": (config.deform, 3), "weights": (config.weigh, CUBE_WEIGHTS)}
        extra = {name: width for name, (there, width) in wanted.items() if there}
        self.network = field.replace(features=3 * field.features, extra=extra, channels=3).build()
        scale = self.network.config.density_scale
        self.level = math.log(math.expm1(config.density / scale)) + DENSITY_SHIFT

    @torch.no_grad()
    def start_from(self, field: TriPlaneField) -> None:
        """Begin with the surface of the volume decoder: the mean over planes is a sum over thirds, and what was dense
        is inside (the recipe of InstantMesh, Xu et al. 2024). Offsets and weights begin at zero."""
        for number, (own, other) in enumerate(zip(self.network.layers, field.layers, strict=True)):
            weight, bias = other.get_parameter("weight").data, other.get_parameter("bias").data
            if number == 0:
                weight = weight.repeat(1, 3) / 3
            last = number == len(field.layers) - 1
            rows = 1 + 3 if last else len(weight)  # of the last layer: the raw value and the colours
            for name, source in (("weight", weight), ("bias", bias)):
                own.get_parameter(name)[:rows] = source[:rows]
                own.get_parameter(name)[rows:] = 0

    def surfaces(self, planes: TriPlane, *, training: bool = False) -> list[FlexiCubesSurface]:
        """The surface of each object of a batch (b,), with vertex colours."""
        return [self._decode(planes[i : i + 1], training)[1] for i in range(len(planes.planes))]

    @torch.no_grad()
    def colors(self, planes: TriPlane, points: Float[Tensor, "k 3"]) -> Float[Tensor, "k 3"]:
        """Colours of one object (1,) at points on its surface, sRGB in [0, 1]."""
        half = planes.half_size
        return self._at(TriPlaneRows.of(planes.planes), points.clamp(-half, half), half).colors.clamp(0, 1)

    def training_terms(self, planes: TriPlane, views: Views) -> dict[str, Tensor]:
        """Renderings of the surfaces against views (b, v) with alphas, depths and normals; and the regularisers.

        ``l1`` of colours over white, ``alpha``, ``depth`` and ``normal`` (mean absolute errors, the latter two where
        both are covered), and `flexicubes_regularizers`. Objects without any surface count with their alpha alone.
        """
        assert views.alphas is not None
        assert views.depths is not None
        assert views.normals is not None
        rows: list[dict[str, Tensor]] = []
        for i in range(len(planes.planes)):
            grid, surface = self._decode(planes[i : i + 1], training=True)
            if not len(surface.mesh):
                continue
            seen = render_surface(surface.mesh, views.cameras[i])
            both = ((seen.alpha > 0.5) & (views.alphas[i] > 0.5) & (views.depths[i] > 0)).float()
            count = both.sum().clamp_min(1)
            assert seen.rgb is not None
            rows.append(
                {
                    "l1": (over_white(seen) - views.images[i]).abs().mean(),
                    "alpha": (seen.alpha - views.alphas[i]).abs().mean(),
                    "depth": ((seen.depth - views.depths[i]).abs() * both).sum() / count,
                    "normal": ((seen.normals - views.normals[i]).abs() * both).sum() / (3 * count),
                    **flexicubes_regularizers(grid, surface),
                }
            )
        if not rows:
            raise ValueError("no object of the batch has a surface; train the autoencoder first, or lower mesh.density")
        return {name: torch.stack([row[name] for row in rows]).mean() for name in rows[0]}

    @torch.no_grad()
    def pictures(self, planes: TriPlane, cameras: Cameras) -> Float[Tensor, "b 3 h w"]:
        """The first view of each object, cameras (b, v), over white."""
        surfaces = self.surfaces(planes)
        return torch.cat([over_white(render_surface(s.mesh, cameras[i, :1])) for i, s in enumerate(surfaces)])

    def _decode(self, planes: TriPlane, training: bool) -> tuple[SdfGrid, FlexiCubesSurface]:
        """Grid and surface of one object. The whole grid is asked without gradient; what the surface depends on, the
        corners of the cells that it enters, once more with one."""
        n, rows = self.config.resolution, TriPlaneRows.of(planes.planes)
        half = planes.half_size
        regular = SdfGrid(planes.planes.new_zeros(n + 1, n + 1, n + 1), half)
        with torch.no_grad():
            grid = replace(regular, values=self.level - self._raw(rows, regular)).closed()
            cells, _ = surface_cells(grid.values)
            near = torch.zeros_like(grid.values, dtype=torch.bool)
            for corner in range(8):
                offset = cells.new_tensor([corner & 1, corner >> 1 & 1, corner >> 2])
                near[tuple((cells + offset).T)] = True
            corners = near.nonzero()
        if not len(cells):
            return grid, extract_surface(grid)
        values = self._values(rows, regular, corners)
        place = tuple(corners.T)
        border = ((corners == 0) | (corners == n)).any(1)
        before, signed = grid.values[place], self.level - values.raw
        # asked twice, a value next to zero may round to the other side, and the cells are already chosen
        signed = torch.where(border | ((before < 0) != (signed < 0)), before, signed)
        grid = replace(grid, values=grid.values.index_put(place, signed))
        if self.config.deform:
            moved = bounded_deformation(values.extra["deformation"], grid.spacing, self.config.reach)
            still = grid.values.new_zeros(*grid.values.shape, 3)
            grid = replace(grid, deformation=still.index_put(place, moved))
        weights = None
        if self.config.weigh:
            weights = self._values(rows, regular, cells + 0.5).extra["weights"]
        surface = extract_surface(grid, cell_weights=weights, training=training)
        colors = self._at(rows, surface.mesh.vertices.clamp(-half, half), half).colors.clamp(0, 1)
        return grid, replace(surface, mesh=replace(surface.mesh, colors=colors))

    def _raw(self, rows: TriPlaneRows, grid: SdfGrid) -> Float[Tensor, "m m m"]:
        """The first output at all points of the grid."""
        axis = torch.arange(grid.resolution + 1, device=rows.table.device)
        places = axis.to(grid.values.dtype) * grid.spacing - grid.half_size
        if loops_apply(rows, self.network, places):
            return grid_raw(rows, grid.half_size, self.network, places, reduce="concat")[0]
        size = at_once(CHUNK, CHUNK_LEAN, CHUNK_LEANEST)
        parts = [self._values(rows, grid, part).raw for part in torch.cartesian_prod(axis, axis, axis).split(size)]
        return torch.cat(parts).reshape(grid.values.shape)

    def _values(self, rows: TriPlaneRows, grid: SdfGrid, index: Tensor) -> FieldValues:
        """What the network says at grid numbers (k, 3), which may lie between points."""
        return self._at(rows, index.to(grid.values.dtype) * grid.spacing - grid.half_size, grid.half_size)

    def _at(self, rows: TriPlaneRows, points: Float[Tensor, "k 3"], half_size: float) -> FieldValues:
        """What the network says at points; without gradient, at leaner levels of memory, of a few at a time."""
        size = len(points) if torch.is_grad_enabled() else at_once(len(points), CHUNK_LEAN, CHUNK_LEANEST)
        parts = [
            self.network(sample_triplane(rows, part[None], half_size, reduce="concat"))
            for part in points.split(max(size, 1))
        ]

        def joined(of: Callable[[FieldValues], Tensor]) -> Tensor:
            return torch.cat([of(part)[0] for part in parts])

        extra = {name: joined(lambda part: part.extra[name]) for name in parts[0].extra}  # noqa: B023 (called at once)
        return FieldValues(
            joined(lambda part: part.raw), joined(lambda part: part.density), joined(lambda part: part.colors), extra
        )


def over_white(seen: SurfaceRendering) -> Float[Tensor, "v 3 h w"]:
    """Colours of a rendering over a white background."""
    assert seen.rgb is not None
    return seen.rgb + (1 - seen.alpha)
