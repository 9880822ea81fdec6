"""A generated scene and its folder of files.

M: views in the order of the model's output, references first. H, W: image size in pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latent3d.apps.growing import UnfinishedScene
from latent3d.apps.progress import Progress, quiet
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.trajectories import interpolate_poses
from latent3d.io.atomic import output_folder, write_bytes
from latent3d.io.camera_files import write_cameras
from latent3d.io.cards import Stopwatch, make_card, write_card
from latent3d.io.images import depth_picture, save_image
from latent3d.io.splat_files import write_splats
from latent3d.io.video import write_video
from latent3d.io.viewer_html import write_viewer
from latent3d.rendering.base import Rendering
from latent3d.rendering.refinement import gentle_refinement, refine
from latent3d.rendering.smoothing import smoothed
from latent3d.rendering.splat_views import render_views
from latent3d.representations.origin import ORIGIN_ATTRIBUTE, Origin
from latent3d.representations.views import Views
from latent3d.systems.ggs import GGSOutput

FILM_SIDE = 256
"""Shorter side of the film in pixels; splats have no resolution of their own."""
FILM_FPS = 24
REFINE_ITERATIONS = 60
"""Steps of `Scene.refined`; many more learn the references by heart (the paper's refined variant takes 5,000, on many
views)."""
FRAMES_PER_VIEW = 12
"""Film frames from one view to the next, where there are few views."""
KEPT_BYTES = 2**28
"""Pictures of the way there are kept for the way back up to this size."""
FILM_FRAMES = 240
"""A film of many views has about this many frames."""


@dataclass(frozen=True)
class Scene:
    """What `GGS.sample` returns.

    Attributes:
        output: everything the model made: splats, decoded images, depths, cameras (M,), references first.
        order: positions of the M views along the camera path, first to last.
        card: seed, weights, inputs and what was done to them.
        watch: seconds by stage.
        unfinished: what was kept while the scene grew; `save` removes it.
    """

    output: GGSOutput
    order: tuple[int, ...]
    card: dict[str, Any]
    watch: Stopwatch
    unfinished: UnfinishedScene | None = None

    def refined(self, iterations: int = REFINE_ITERATIONS, *, seed: int = 0, progress: Progress = quiet) -> Scene:
        """The scene with its splats optimised on the references (GGS's refined variant, see `gentle_refinement`).

        Generated views do not take part: their 2D decodings blur, and what the splats show of them teaches nothing.

        Raises:
            ValueError: for a negative number of iterations.
        """
        output = self.output
        step = progress("refining", iterations)
        shown = output.is_reference.nonzero()[:, 0]
        views = Views(output.images[shown], output.cameras[shown.cpu()])
        config = gentle_refinement(iterations, output.low_pass_px).replace(seed=seed)
        with self.watch("refining"):
            result = refine(output.gaussians, views, config, on_step=lambda *_: step())
        output = replace(
            output,
            gaussians=result.gaussians,
            origin=output.origin[result.parent],
            source=output.source[result.parent],
        )
        return replace(self, output=output, card=self.card | {"refinement": {"iterations": iterations}})

    def render(self, cameras: Cameras) -> Rendering:
        """The splats as seen by cameras (V,)."""
        return render_views(self.output.gaussians, cameras, low_pass=self.output.low_pass_px)

    def save(self, folder: str | Path, overwrite: bool = False, progress: Progress = quiet) -> Path:
        """Write the folder: it appears whole or not at all.

        ``scene.ply`` (3DGS layout), ``flythrough.mp4``, ``viewer.html`` (one file, opens offline), ``views/`` (the
        generated views, and the splats seen from the same cameras), ``depth/`` (pictures, and raw values as .npz),
        ``cameras.json`` and ``card.json``.

        Raises:
            ValueError: if the place is taken (see `output_folder`).
            OSError: if it cannot be written or the disk is full.
        """
        folder = Path(folder)
        output = self.output
        shown = smoothed(output.gaussians, output.cameras, output.low_pass_px)
        step = progress("writing", 6)
        with output_folder(folder, overwrite) as place:
            with self.watch("splats"):
                write_splats(place / "scene.ply", shown, extra={ORIGIN_ATTRIBUTE: output.origin.float()})
            step()
            with self.watch("views"):
                self._save_views(place)
            step()
            with self.watch("film"):
                frames = film_frames(shown, film_path(output.cameras[list(self.order)]))
                encoder = write_video(place / "flythrough.mp4", frames, fps=FILM_FPS)
            step()
            with self.watch("page"):
                write_viewer(place / "viewer.html", shown, output.cameras[0], origin=output.origin)
            step()
            names = [f"views/view_{index:02d}.png" for index in range(len(output.cameras))]
            write_cameras(place / "cameras.json", output.cameras, names, output.is_reference.tolist())
            step()
            seconds = {stage: round(value, 2) for stage, value in self.watch.seconds.items()}
            counts = {kind.name.lower(): int((output.origin == int(kind)).sum()) for kind in Origin}
            about = {
                "splats": len(output.gaussians),
                "origin": counts,
                "film": f"{encoder}, {FILM_FPS} frames per second",
            }
            write_card(place / "card.json", make_card(**self.card, outputs=about, seconds=seconds))
            step()
        if self.unfinished is not None:
            self.unfinished.remove()
        return folder

    def _save_views(self, place: Path) -> None:
        output = self.output
        seen = self.render(output.cameras)
        assert seen.rgb is not None
        depth = torch.where(seen.alpha > 0.5, seen.depth, torch.zeros_like(seen.depth))
        known = depth[depth > 0]
        near, far = (float(known.quantile(q)) for q in (0.02, 0.98)) if known.numel() else (1.0, 2.0)
        for index in range(len(output.cameras)):
            save_image(place / f"views/view_{index:02d}.png", output.images[index])
            save_image(place / f"views/splats_{index:02d}.png", seen.rgb[index])
            save_image(place / f"depth/depth_{index:02d}.png", depth_picture(depth[index], near, far))
        raw = {"depth": depth, "alpha": seen.alpha, "depth_latent": output.depths}
        buffer = io.BytesIO()
        arrays = {name: value.detach().cpu().float().numpy().astype(np.float32) for name, value in raw.items()}
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_bytes(place / "depth/depth.npz", buffer.getvalue())


def film_path(cameras: Cameras, frames_per_view: int | None = None) -> Cameras:
    """Smooth path through key cameras (M,) and back to the first: on along a closed path, else the way it came."""
    centers = cameras.centers
    steps = (centers[1:] - centers[:-1]).norm(dim=-1)
    closed = len(cameras) > 2 and float((centers[-1] - centers[0]).norm()) <= 1.5 * float(steps.max())
    index = list(range(len(cameras)))
    index += [0] if closed else index[-2::-1]
    keys = cameras[index]
    gaps = len(index) - 1
    count = gaps * (frames_per_view or max(1, min(FRAMES_PER_VIEW, FILM_FRAMES // max(gaps, 1))))
    c2w = interpolate_poses(keys.c2w.double(), count + 1)[:-1].to(cameras.w2c)
    place = torch.linspace(0, len(index) - 1, count + 1, dtype=keys.k.dtype, device=keys.k.device)[:-1]
    low = place.floor().long().clamp_max(len(index) - 2)
    k = torch.lerp(keys.k[low], keys.k[low + 1], (place - low)[:, None, None])
    return Cameras.from_c2w(c2w, k, cameras.height, cameras.width)


def film_frames(gaussians: Any, cameras: Cameras, side: int = FILM_SIDE, chunk: int = 8) -> Iterator[Tensor]:
    """Pictures (3, H, W) of the splats along a path, a few rendered at a time; the shorter side is ``side`` pixels.

    The way back of a path that returns the way it came shows the pictures of the way there, kept as bytes.
    """
    scale = side / min(cameras.height, cameras.width)
    large = cameras.resized(round(cameras.height * scale), round(cameras.width * scale))
    there = turning_point(cameras)
    if 3 * there * large.height * large.width > KEPT_BYTES:
        there = len(cameras)
    kept: list[Tensor] = []
    for start in range(0, there, chunk):
        rendering = render_views(gaussians, large[start : min(start + chunk, there)])
        assert rendering.rgb is not None
        if there < len(cameras):
            kept += (rendering.rgb.clamp(0, 1) * 255).round().to(torch.uint8)
        yield from rendering.rgb
    for index in range(there, len(cameras)):
        yield kept[len(cameras) - index].float() / 255


def turning_point(cameras: Cameras) -> int:
    """How many cameras of a path differ: those up to the farthest one if it returns the way it came, else all."""
    poses, k = cameras.w2c[1:], cameras.k[1:]
    scale = 1e-5 * (1 + float(poses[:, :3, 3].abs().max())) if len(poses) else 0.0
    back = len(poses) > 1 and all(torch.allclose(v, v.flip(0), rtol=1e-5, atol=scale) for v in (poses, k))
    return len(cameras) // 2 + 1 if back else len(cameras)
