"""``latent3d scene``: the main job."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from latent3d.apps.options import option
from latent3d.memory import MemoryLevel, memory

if TYPE_CHECKING:
    from latent3d.geometry.cameras import Cameras
    from latent3d.io.viewer_live import LiveViewer


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Make a 3D scene from one picture, or from several with known cameras; with --grow from any number.

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
    """Views in all, references included; 32 at most without --grow."""
    grow: bool = False
    """Any number of pictures and views, made eight at a time from the nearest three pictures and what is there already.
    Goes on after an interruption. Without further cameras in the file, five are laid out between neighbours."""
    refine: Annotated[int, option("N", "0")] = 0
    """Steps of photometric refinement on the pictures; 30 to 100 are usual."""
    live: bool = False
    """Show the scene in the browser while it is made, from the first step on; Ctrl-C ends."""
    port: int = 8080
    """Port of --live."""
    steps: int | None = None
    """Steps of the diffusion sampler. Default: what the weights' card recommends."""
    seed: int = 0
    """Random seed; the same seed gives the same scene on the same machine."""
    guidance: float = 1.0
    """Classifier-free guidance, for weights that were trained for it; 1 is none. The shipped ones know 1 alone."""
    fov: Annotated[float | None, option("DEGREES", "from EXIF, else 60")] = None
    """Horizontal field of view of the picture in degrees."""
    weights: Annotated[str | None, option("NAME|DIR", "ggs_rooms")] = None
    """Folder of weights, or the name of shipped ones."""
    device: Annotated[str | None, option("NAME", "the GPU if there is one")] = None
    """Where to compute: cpu, cuda or cuda:N."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format of the networks; auto is bf16 where the device has it in hardware."""
    memory: MemoryLevel = "fast"
    """fast, lean or leanest: less memory, more time, the same results. Where one does not fit, the next is taken."""
    compile: bool = False
    """Compile the denoiser by torch.compile: faster steps, after up to minutes for the first."""
    out: Annotated[Path | None, option("DIR", "out/ and the picture's name")] = None
    """Folder for the results."""
    overwrite: bool = False
    """Replace an earlier result in that folder."""

    def run(self) -> None:
        with memory(self.memory):
            self._run()

    def _run(self) -> None:
        if not self.images:
            raise ValueError("give an image: latent3d scene photo.jpg")
        if self.refine < 0:
            raise ValueError(f"{self.refine} steps of refinement are not possible; give 0 or more")
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
            grow=self.grow,
        )
        model = GGS.from_pretrained(self.weights, device=self.device, precision=self.precision, compile=self.compile)
        with ExitStack() as stack:
            live = stack.enter_context(self._viewer(inputs.cameras[0])) if self.live else None
            shared: dict[str, Any] = {
                "steps": self.steps,
                "seed": self.seed,
                "guidance": self.guidance,
                "progress": bar,
            }
            if live is not None:
                shared["on_step"] = lambda at: live.update(at.gaussians, note=f"step {at.step} of {at.steps}")
            try:
                scene = model.grow(inputs, out, **shared) if self.grow else model.sample(inputs, **shared)
            except KeyboardInterrupt:
                if self.grow:
                    print("\nthe same command goes on from the last finished chunk", flush=True)
                raise
            if self.refine:
                scene = scene.refined(self.refine, seed=self.seed, progress=bar)
            scene.save(out, overwrite=self.overwrite, progress=bar)
            print(f"wrote {out}/ (open {out / 'viewer.html'} in a browser)", flush=True)
            if live is not None:
                live.update(scene.output.gaussians, scene.output.origin)
                print("Ctrl-C ends the viewer", flush=True)
                with suppress(KeyboardInterrupt):
                    while True:
                        time.sleep(0.5)

    def _viewer(self, start: Cameras) -> LiveViewer:
        from latent3d.io.viewer_live import LiveViewer

        viewer = LiveViewer(start, port=self.port)
        print(f"the scene appears at {viewer.address}", flush=True)
        return viewer
