"""A generated object and its folder of files.

V: cameras. H, W: image size in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.apps.progress import Progress, quiet
from latent3d.evaluation.sheets import row, sheet
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.object_cameras import turntable
from latent3d.io.atomic import output_folder
from latent3d.io.camera_files import write_cameras
from latent3d.io.cards import Stopwatch, make_card, write_card
from latent3d.io.images import depth_picture, save_image
from latent3d.io.mesh_files import write_mesh
from latent3d.io.splat_files import write_splats
from latent3d.io.video import write_video
from latent3d.io.viewer_html import write_viewer
from latent3d.memory import retried
from latent3d.rendering.base import LOW_PASS_PX
from latent3d.rendering.splat_views import render_views
from latent3d.rendering.surface import field_to_mesh, is_watertight
from latent3d.rendering.texture_baking import bake_texture
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.mesh import Mesh
from latent3d.representations.triplane import TriPlane
from latent3d.representations.views import Views
from latent3d.systems.ln3diff import LN3DiffSystem

FORMATS = ("glb", "ply", "obj")
"""Mesh as .glb and .obj; Gaussians as .ply."""
MESH_RESOLUTION = 96
"""Cells along each side of the box for meshes of the field."""
SURFACE_DENSITY = 10.0
"""Volume density, per scene unit, at which the field's surface is taken."""
FILM_SIDE, FILM_FRAMES, FILM_FPS = 256, 48, 24
SHEET_VIEWS = 6


@dataclass(frozen=True)
class ObjectAsset:
    """What `LN3Diff.sample` and `LN3Diff.reconstruct` return: an object as feature planes, and its decoders.

    Attributes:
        system: whose decoders turn the planes into a field, a mesh and Gaussians.
        planes: of this object, without batch axis.
        card: seed, weights, inputs and what was done to them.
        watch: seconds by stage.
    """

    system: LN3DiffSystem
    planes: TriPlane
    card: dict[str, Any] = field(default_factory=dict)
    watch: Stopwatch = field(default_factory=Stopwatch)

    @torch.no_grad()
    def render(self, cameras: Cameras) -> Views:
        """The field as cameras (V,) see it: pictures over white with alphas and depths, (V,)."""
        seen = self.system.render(self._batch(), cameras[None])
        depth = torch.where(seen.alpha > 0.5, seen.depth, 0)
        return Views(seen.rgb[0, :, :3].clamp(0, 1), cameras, depth[0], alphas=seen.alpha[0])

    @torch.no_grad()
    def mesh(self, resolution: int | None = None) -> Mesh:
        """The surface with vertex colours; no faces for an empty object.

        With a ``resolution``, where the field's density passes `SURFACE_DENSITY`, on so many cells along each side of
        the box; without one, by the FlexiCubes decoder at its own resolution where the weights have one.

        Raises:
            NotEnoughMemoryError: if it does not fit at the leanest level either.
        """
        return retried(partial(self._mesh, resolution), "leave glb and obj out of the formats")

    def _mesh(self, resolution: int | None) -> Mesh:
        if self.system.mesh is not None and resolution is None:
            return self.system.mesh.surfaces(self._batch())[0].mesh
        look = self.system.field_of(self._batch())

        def density(points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
            return look(points[None])[0][0]

        def color(points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
            return look(points[None])[1][0, :, :3].clamp(0, 1)

        return field_to_mesh(
            density, self.planes.half_size, resolution=resolution or MESH_RESOLUTION, threshold=SURFACE_DENSITY,
            colors=color, min_share=0.01,
        )  # fmt: skip

    @torch.no_grad()
    def textured(self, size: int = 1024) -> Mesh:
        """`mesh` with a texture of size x size in place of colours of vertices: finer than its triangles.

        Raises:
            ValueError: for an empty object, or a texture without room for so many triangles.
            NotEnoughMemoryError: if it does not fit at the leanest level either.
        """
        decoder, batch = self.system.mesh, self._batch()

        def color(points: Tensor, normals: Tensor) -> Tensor:
            if decoder is not None:
                return decoder.colors(batch, points)
            return self.system.field_of(batch)(points[None])[1][0, :, :3].clamp(0, 1)

        mesh = self.mesh()
        return retried(lambda: bake_texture(mesh, color, size=size, unwrap="triangles"), "make the texture smaller")

    @torch.no_grad()
    def gaussians(self) -> Gaussians:
        """The object as splats, wide enough to hold together when they are seen larger than in training.

        The decoder learns in pictures of the model's size, where a low-pass widens every splat on the screen; seen
        larger, its own splats would show gaps. So that low-pass becomes part of them (the 3D filter of Mip-Splatting,
        Yu et al. 2024, for one distance).

        Raises:
            ValueError: for weights without a decoder to Gaussians.
            NotEnoughMemoryError: if they do not fit at the leanest level either.
        """
        if self.system.splats is None:
            raise ValueError("these weights have no decoder to Gaussians; leave ply out of the formats")
        splats, batch = self.system.splats, self._batch()
        made = retried(lambda: splats(batch, self.system.field_of(batch))[0], "leave ply out of the formats")
        camera = turntable(self.system.config.image_size)[:1]
        pixel = float(camera.centers.norm() / camera.k[0, 0, 0])
        return replace(made, scales=(made.scales.square() + LOW_PASS_PX * pixel**2).sqrt())

    def save(
        self,
        folder: str | Path,
        formats: Collection[str] = FORMATS,
        overwrite: bool = False,
        progress: Progress = quiet,
        texture: int | None = None,
    ) -> Path:
        """Write the folder: it appears whole or not at all.

        ``object.glb``, ``object.obj`` (mesh), ``object.ply`` (3DGS layout), ``turntable.mp4``, ``sheet.png`` (views
        with depths), ``views/``, ``viewer.html`` (one file, opens offline), ``cameras.json`` and ``card.json``. The
        mesh has colours of vertices, or with ``texture`` a texture of so many texels along each side.

        Raises:
            ValueError: for an unknown format, an empty object, or if the place is taken (see `output_folder`).
            OSError: if it cannot be written or the disk is full.
        """
        check_formats(formats)
        folder = Path(folder)
        about: dict[str, Any] = {}
        jobs: list[Callable[[Path], None]] = [
            lambda place: self._save_mesh(place, formats, about, texture),
            lambda place: self._save_splats(place, formats, about),
            self._save_views,
            lambda place: self._save_film(place, about),
        ]
        step = progress("writing", len(jobs))
        with output_folder(folder, overwrite) as place:
            for job in jobs:
                job(place)
                step()
            seconds = {stage: round(value, 2) for stage, value in self.watch.seconds.items()}
            write_card(place / "card.json", make_card(**self.card, outputs=about, seconds=seconds))
        return folder

    def _batch(self) -> TriPlane:
        return TriPlane(self.planes.planes[None], self.planes.half_size)

    def _save_mesh(self, place: Path, formats: Collection[str], about: dict[str, Any], texture: int | None) -> None:
        if not {"glb", "obj"} & set(formats):
            return
        with self.watch("mesh"):
            mesh = self.mesh() if texture is None else self.textured(texture)
            about["mesh"] = {
                "vertices": len(mesh.vertices),
                "faces": len(mesh),
                "watertight": is_watertight(mesh),
                "decoder": "FlexiCubes" if self.system.mesh is not None else f"density {SURFACE_DENSITY:g}",
                "texture": texture,
            }
            for name in ("glb", "obj"):
                if name in formats:
                    write_mesh(place / f"object.{name}", mesh)

    def _save_splats(self, place: Path, formats: Collection[str], about: dict[str, Any]) -> None:
        if "ply" not in formats:
            return
        with self.watch("splats"):
            splats = self.gaussians()
            about["splats"] = len(splats)
            write_splats(place / "object.ply", splats)
        with self.watch("page"):
            write_viewer(place / "viewer.html", splats, turntable(512)[0], title=self.card.get("title", "latent3d"))

    def _save_views(self, place: Path) -> None:
        with self.watch("views"):
            cameras = turntable(self.system.config.image_size, SHEET_VIEWS)
            seen = self.render(cameras)
            assert seen.depths is not None
            known = seen.depths[seen.depths > 0]
            near, far = (float(known.min()), float(known.max())) if known.numel() else (1.0, 2.0)
            depths = [depth_picture(depth, near, far) for depth in seen.depths]
            names = [f"views/view_{index:02d}.png" for index in range(len(cameras))]
            for name, image in zip(names, seen.images, strict=True):
                save_image(place / name, image)
            titles = [f"{360 * index // len(cameras)} degrees" for index in range(len(cameras))]
            save_image(place / "sheet.png", sheet([row(list(seen.images)), row(depths)], titles))
            write_cameras(place / "cameras.json", cameras, names, [False] * len(cameras))

    def _save_film(self, place: Path, about: dict[str, Any]) -> None:
        with self.watch("film"):
            frames = self._film_frames(turntable(FILM_SIDE, FILM_FRAMES))
            about["film"] = (
                f"{write_video(place / 'turntable.mp4', frames, fps=FILM_FPS)}, {FILM_FPS} frames per second"
            )

    def _film_frames(self, cameras: Cameras, chunk: int = 8) -> Iterator[Tensor]:
        """Pictures (3, H, W) along a path: of the Gaussians where there are some, which are fast, else of the field."""
        if self.system.splats is None:
            for start in range(0, len(cameras), chunk):
                yield from self.render(cameras[start : start + chunk]).images
            return
        splats = self.gaussians()
        for start in range(0, len(cameras), chunk):
            seen = render_views(splats, cameras[start : start + chunk], background=splats.means.new_ones(3))
            assert seen.rgb is not None
            yield from seen.rgb.clamp(0, 1)


def check_formats(formats: Collection[str]) -> None:
    """Raises:
    ValueError: for a format that is not one of `FORMATS`, or none.
    """
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"there is no format '{name}'; choose among {', '.join(FORMATS)}")
    if not formats:
        raise ValueError(f"no format was given; choose among {', '.join(FORMATS)}")
