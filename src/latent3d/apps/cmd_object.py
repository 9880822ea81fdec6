"""``latent3d object``: objects from nothing, a word, a sentence or a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from latent3d.apps.options import option
from latent3d.memory import MemoryLevel, memory

MAX_COUNT = 64
LEAST_TEXTURE, MOST_TEXTURE = 512, 4096


@dataclass(frozen=True, kw_only=True)
class Object:
    """Make 3D objects: from nothing, a sentence, a class or a picture.

    Writes object.glb and object.obj (mesh), object.ply (Gaussian splats), turntable.mp4, viewer.html, sheet.png,
    views/, cameras.json and card.json into one folder; with --count into one folder each.
    """

    text: Annotated[str | None, option("TEXT", "none")] = None
    """What it should be, in words: "a red wooden chair"."""
    image: Annotated[Path | None, option("FILE", "none")] = None
    """Picture of one object. Its transparency says what the object is; without any, rembg or a white border does."""
    label: Annotated[str | None, option("NAME", "none")] = None
    """Class of the object, for example chair."""
    count: int = 1
    """How many, with seeds that follow each other."""
    seed: int = 0
    """Random seed; the same seed gives the same object on the same machine."""
    format: Annotated[str, option("LIST", "glb,ply,obj")] = "glb,ply,obj"
    """Which of glb, ply (splats) and obj to write, separated by commas."""
    texture: Annotated[int | None, option("SIZE", "colours of vertices")] = None
    """Side of a texture for the mesh, in texels: 512 to 4096, finer than colours of vertices."""
    steps: Annotated[int | None, option("N", "what the weights recommend")] = None
    """Steps of the diffusion sampler."""
    guidance: Annotated[float | None, option("SCALE", "what the weights recommend")] = None
    """How closely to follow text, image or class; 1 is without guidance."""
    guidance_interval: Annotated[tuple[float, float] | None, option("LOW HIGH", "all")] = None
    """Noise levels between which guidance acts; for these models from 0 (object) to 1 (noise)."""
    sampler: str = "euler"
    """euler (one call of the network per step), heun or midpoint (two)."""
    weights: Annotated[str | None, option("NAME|DIR", "ln3diff_shapes")] = None
    """Folder of weights, or the name of shipped ones."""
    device: Annotated[str | None, option("NAME", "the GPU if there is one")] = None
    """Where to compute: cpu, cuda or cuda:N."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format of the networks; auto is bf16 where the device has it in hardware."""
    memory: MemoryLevel = "fast"
    """fast, lean or leanest: less memory, more time, the same results. Where one does not fit, the next is taken."""
    compile: bool = False
    """Compile the denoiser by torch.compile: faster steps, after up to minutes for the first."""
    out: Annotated[Path | None, option("DIR", "out/ and what was asked for")] = None
    """Folder for the results."""
    overwrite: bool = False
    """Replace an earlier result in that folder."""

    def run(self) -> None:
        with memory(self.memory):
            self._run()

    def _run(self) -> None:
        if not 1 <= self.count <= MAX_COUNT:
            raise ValueError(f"{self.count} objects are not possible in one go; give 1 to {MAX_COUNT}")
        if self.texture is not None and not LEAST_TEXTURE <= self.texture <= MOST_TEXTURE:
            raise ValueError(
                f"a texture of {self.texture} texels a side is not possible; give {LEAST_TEXTURE} to {MOST_TEXTURE}"
            )
        if self.text is not None and not self.text.strip():
            raise ValueError("the text is empty; describe an object, or leave --text out")
        from latent3d.apps.object_asset import check_formats
        from latent3d.io.atomic import check_output_folder

        formats = tuple(name.strip().lower() for name in self.format.split(",") if name.strip())
        check_formats(formats)
        if self.texture is not None and not {"glb", "obj"} & set(formats):
            raise ValueError("a texture belongs to a mesh; add glb or obj to --format, or leave --texture out")
        folders = self._folders()
        for folder in folders:
            check_output_folder(folder, self.overwrite)
        # The picture is read before the weights: what is wrong with it shows at once.
        from latent3d.apps.object_pictures import read_object_picture

        picture = None if self.image is None else read_object_picture(self.image)
        from latent3d.apps.objects import LN3Diff, Prompt
        from latent3d.apps.progress import bar

        model = LN3Diff.from_pretrained(
            self.weights, device=self.device, precision=self.precision, compile=self.compile
        )
        image = None if picture is None else picture.image
        prompt = Prompt(label=self.label, text=self.text, picture=image)
        assets = model.sample(
            [self.seed + index for index in range(self.count)],
            [prompt] * self.count,
            steps=self.steps,
            guidance=self.guidance,
            sampler=self.sampler,
            interval=self.guidance_interval,
            notes=() if picture is None else (f"Picture {picture.name}.", *picture.notes),
            progress=bar,
        )
        for folder, asset in zip(folders, assets, strict=True):
            asset.save(folder, formats, overwrite=self.overwrite, progress=bar, texture=self.texture)
        print(f"wrote {', '.join(f'{folder}/' for folder in folders)}", flush=True)

    def _folders(self) -> list[Path]:
        if self.out is not None:
            base = self.out
        else:
            words = self.text or (self.image.stem if self.image is not None else None) or self.label or "object"
            base = Path("out") / ("_".join("".join(c if c.isalnum() else " " for c in words).split())[:60] or "object")
        return [base] if self.count == 1 else [base / f"{self.seed + index:04d}" for index in range(self.count)]
