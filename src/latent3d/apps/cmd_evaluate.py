"""``latent3d evaluate``: the tables of docs/results.md."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from latent3d.apps.options import option

if TYPE_CHECKING:
    from latent3d.evaluation.object_command import ObjectModel


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure a model beside its baselines; writes JSON and Markdown, and goes on where it stopped.

    On procedural worlds or objects, or with --data on photos or meshes of your own (latent3d compare shows what changed
    between two results).
    """

    weights: Annotated[tyro.conf.Positional[str | None], option("NAME|DIR", "ggs_rooms")] = None
    """Folder of weights or of a training run (its averaged weights so far), or the name of shipped weights."""
    out: Path = Path("out/evaluation")
    """Folder for the tables."""
    data: Annotated[tuple[Path, ...], option("DIR", "worlds")] = ()
    """Folders of captures (see latent3d data check) or banks in place of worlds; of meshes or banks for objects."""
    protocol: Annotated[tuple[str, ...], option("NAME", "those of the weights")] = ()
    """ggs_one_ref, ggs_two_ref, ggs_two_ref_outside; for objects objects_reconstruction, objects_generation."""
    index: Annotated[Path | None, option("FILE", "none")] = None
    """Published cases (pixelSplat, latentSplat, MVSplat360) in place of a protocol; --data holds their scenes."""
    views: int = 8
    """Views per scene, references and targets."""
    stride: int = 1
    """Photos of a capture that far apart."""
    scale: Annotated[Literal["auto"] | float, option("auto|FACTOR", "auto")] = "auto"
    """Factor of a capture's translations, to metres; auto: by the points that match between the references."""
    family: Annotated[tuple[str, ...], option("NAME", "mixed other, or all classes")] = ()
    """Kinds of worlds (other is never trained on) or classes of objects."""
    split: Literal["test", "val"] = "test"
    """Which part of the seeds."""
    scenes: int = 64
    """Scenes per family, at most so many per capture or bank; objects, and samples of each kind."""
    steps: Annotated[tuple[int, ...], option("INT", "1 30; objects: the weights' own")] = ()
    """Numbers of sampler steps to compare."""
    inputs: int = 4
    """Views of an object that are given for its reconstruction."""
    conditions: Annotated[tuple[str, ...], option("KIND", "all that the model knows")] = ()
    """What samples of objects are told: none, class, text, image."""
    guidance: Annotated[float | None, option("SCALE", "by the kind of condition")] = None
    """Guidance of samples of objects."""
    training: int = 256
    """Training shapes among which the nearest one of each sample is looked for; 0: none."""
    seed: int = 0
    """Random seed; scene i samples with seed + i."""
    extractor: str = "random_conv"
    """Network whose features the Frechet distance compares."""
    extractor_weights: Annotated[Path | None, option("FILE", "none")] = None
    """Its weights, where it needs some."""
    video_extractor: Annotated[str | None, option("NAME", "none")] = None
    """Network of the Frechet distance of clips: random3d, or with a file i3d (cropped) or i3d_stretch."""
    video_weights: Annotated[Path | None, option("FILE", "none")] = None
    """Its weights: i3d_torchscript.pt."""
    warp_extractor: Annotated[str | None, option("NAME", "none")] = None
    """Features of neighbouring views that are compared after a warp by depth: random_conv, or dino."""
    warp_weights: Annotated[Path | None, option("DIR", "none")] = None
    """Their weights, where they need some."""
    lpips: Annotated[tuple[Path, Path] | None, option("TRUNK HEADS", "none")] = None
    """LPIPS from local files: torchvision's AlexNet or VGG16, and its linear heads."""
    clip: Annotated[Path | None, option("DIR", "none")] = None
    """Folder of a CLIP model, for the likeness of objects to their picture (CLIP-I)."""
    baselines_only: bool = False
    """Score what needs no model."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""

    def run(self) -> None:
        if min(self.scenes, self.stride, self.inputs, *self.steps) < 1 or self.views < 2 or self.training < 0:
            raise ValueError("give at least one of --scenes, --steps, --inputs and --stride, and 2 or more --views")
        if self.scale != "auto" and self.scale <= 0:
            raise ValueError(f"the --scale is auto or a positive number, not {self.scale}")
        from latent3d.evaluation.command import evaluate_command

        with _weights_folder(self.weights) as weights:
            evaluate_command(
                weights,
                self.out,
                data=self.data,
                index=self.index,
                protocol=self.protocol,
                views=self.views,
                stride=self.stride,
                scale=None if self.scale == "auto" else self.scale,
                family=self.family,
                scenes=self.scenes,
                steps=self.steps,
                seed=self.seed,
                split=self.split,
                extractor=self.extractor,
                extractor_weights=self.extractor_weights,
                video_extractor=self.video_extractor,
                video_weights=self.video_weights,
                warp_extractor=self.warp_extractor,
                warp_weights=self.warp_weights,
                lpips_files=self.lpips,
                clip=self.clip,
                inputs=self.inputs,
                conditions=self.conditions,
                guidance=self.guidance,
                training=self.training,
                load_objects=_object_model,
                baselines_only=self.baselines_only,
                device=self.device,
            )
        print(f"the tables are in {self.out / 'results.md'}")


def _object_model(weights: str | Path | None, device: str) -> ObjectModel:
    from latent3d.apps.objects import LN3Diff
    from latent3d.evaluation.object_command import ObjectModel

    model = LN3Diff.from_pretrained(weights, device)
    return ObjectModel(model, model.weights, model.system.config.image_size)


@contextmanager
def _weights_folder(weights: str | None) -> Iterator[str | Path | None]:
    """Weights as a folder or shipped name; those of a training run are exported for as long as they are needed."""
    run = Path(weights) if weights is not None else None
    if run is None or not (run / "checkpoints").is_dir():
        yield weights
        return
    from latent3d.training.export import export_weights

    with tempfile.TemporaryDirectory() as scratch:
        yield export_weights(run, Path(scratch) / run.resolve().name)
