"""``latent3d render``: a film of a splat scene along a path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from latent3d.apps.options import option


@dataclass(frozen=True, kw_only=True)
class Render:
    """Render a camera path through a scene of splats."""

    scene: tyro.conf.Positional[Path]
    """Folder that `latent3d scene` wrote, or a .ply file of splats."""
    trajectory: Annotated[str | None, option("NAME", "orbit")] = None
    """Camera path from the scene's first camera: orbit, dolly, spiral, spline or walk."""
    cameras: Annotated[Path | None, option("FILE", "none")] = None
    """Camera file to fly through instead of a path."""
    only: tyro.conf.UseAppendAction[tuple[Literal["seen", "interpolated", "invented"], ...]] = ()
    """Render only splats of this origin; repeat it for two of the three."""
    strength: float = 1.0
    """How far the path moves."""
    frames: int = 96
    """Frames of the film (with --cameras: 12 from each camera to the next)."""
    side: int = 256
    """Shorter side of the film in pixels."""
    fps: int = 24
    """Frames per second."""
    seed: int = 0
    """Random seed of the path 'walk'."""
    out: Annotated[Path | None, option("FILE", "the path's name and .mp4, beside the scene")] = None
    """The film. Its name ends in .mp4."""
    overwrite: bool = False
    """Replace an earlier film."""

    def run(self) -> None:
        if not (1 <= self.frames <= 10_000 and 16 <= self.side <= 4096 and 1 <= self.fps <= 240):
            raise ValueError("give 1 to 10000 --frames, a --side of 16 to 4096 pixels and 1 to 240 --fps")
        if self.cameras is not None and self.trajectory is not None:
            raise ValueError("give either --cameras or --trajectory, not both")
        folder = self.scene if self.scene.is_dir() else self.scene.parent
        name = self.cameras.stem if self.cameras else self.trajectory or "orbit"
        out = self.out or folder / f"{'_'.join([name, *self.only])}.mp4"
        if out.suffix != ".mp4":
            raise ValueError(f"'{out}' is not the name of a film; choose one that ends in .mp4")
        if out.exists() and not self.overwrite:
            raise ValueError(f"'{out}' exists already; add --overwrite or choose another --out")

        from latent3d.apps.open_scene import open_scene
        from latent3d.apps.progress import bar
        from latent3d.apps.scene import film_frames, film_path
        from latent3d.geometry.cameras import Cameras
        from latent3d.geometry.trajectories import path_depth, trajectory
        from latent3d.io.camera_files import read_cameras
        from latent3d.io.video import write_video
        from latent3d.representations.origin import Origin

        scene = open_scene(self.scene)
        shown = scene.only([Origin[kind.upper()] for kind in self.only]) if self.only else scene
        first = scene.cameras[0]
        if self.cameras is not None:
            path = film_path(read_cameras(self.cameras).cameras)
        else:
            _, depths = first.project(scene.gaussians.means)
            ahead = depths[depths > 0]
            depth = path_depth(ahead) if len(ahead) else 1.0
            moves = trajectory(name, self.frames, depth=depth, strength=self.strength, seed=self.seed)
            c2w = first.c2w @ moves.to(first.w2c)
            path = Cameras.from_c2w(c2w, first.k.expand(len(c2w), 3, 3).contiguous(), first.height, first.width)
        step = bar("rendering", len(path))

        def counted():
            for frame in film_frames(shown.gaussians, path, side=self.side):
                step()
                yield frame

        write_video(out, counted(), fps=self.fps)
        print(f"wrote {out}")
