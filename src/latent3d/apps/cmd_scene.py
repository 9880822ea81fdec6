"""``latent3d scene``: the main job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from latent3d.apps.options import option


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Make a 3D scene from one picture, or from several with known cameras.

    Writes scene.ply, flythrough.mp4, viewer.html, views/, depth/, cameras.json and card.json into one folder.
    """

    images: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="IMAGE [IMAGE ...]", help_behavior_hint="(required)"),
    ]
    """The picture; several need --cameras."""
    cameras: Annotated[Path | None, option("FILE", "none")] = None
    """Camera file (docs/formats.md): which camera took which picture, and which views to generate."""
    trajectory: Annotated[str | None, option("NAME", "orbit")] = None
    """Camera path for a single picture: orbit, dolly, spiral, spline or walk."""
    strength: float = 1.0
    """How far the path moves; 1 is modest enough for one picture."""
    views: Annotated[int | None, option("N", "8 on a path, all cameras of a file")] = None
    """Views in all, references included; 32 at most."""
    steps: int | None = None
    """Steps of the diffusion sampler. Default: what the weights' card recommends."""
    seed: int = 0
    """Random seed; the same seed gives the same scene on the same machine."""
    fov: Annotated[float | None, option("DEGREES", "from EXIF, else 60")] = None
    """Horizontal field of view of the picture in degrees."""
    weights: Annotated[str | None, option("NAME|DIR", "ggs_rooms")] = None
    """Folder of weights, or the name of shipped ones."""
    device: Annotated[str | None, option("NAME", "the GPU if there is one")] = None
    """Where to compute: cpu, cuda or cuda:N."""
    out: Annotated[Path | None, option("DIR", "out/ and the picture's name")] = None
    """Folder for the results."""
    overwrite: bool = False
    """Replace an earlier result in that folder."""

    def run(self) -> None:
        if not self.images:
            raise ValueError("give an image: latent3d scene photo.jpg")
        from latent3d.io.atomic import check_output_folder

        out = self.out or Path("out") / self.images[0].stem
        check_output_folder(out, self.overwrite)
        from latent3d.apps.pipelines import GGS, read_inputs
        from latent3d.apps.progress import bar

        # The inputs are read before the weights: what is wrong with them shows at once.
        inputs = read_inputs(
            self.images,
            cameras=self.cameras,
            trajectory=self.trajectory,
            strength=self.strength,
            num_views=self.views,
            fov_degrees=self.fov,
            seed=self.seed,
        )
        model = GGS.from_pretrained(self.weights, device=self.device)
        scene = model.sample(inputs, steps=self.steps, seed=self.seed, progress=bar)
        scene.save(out, overwrite=self.overwrite, progress=bar)
        print(f"wrote {out}/ (open {out / 'viewer.html'} in a browser)")
