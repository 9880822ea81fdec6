"""``latent3d data objects``, ``render`` and ``import-objects``: pictures of objects for training."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from latent3d.data.object_sources import ObjectSource


@dataclass(frozen=True, kw_only=True)
class Objects:
    """Render procedural objects (chairs, cars, mugs ...) to a bank, once, for many runs of training.

    An interrupted bank goes on where it stopped; a larger --count enlarges it.
    """

    out: Path
    """Folder of the bank."""
    count: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1000
    """How many objects."""
    split: Literal["train", "val", "test"] = "train"
    """Which part of the seeds."""
    first: int = 0
    """Number of the first object."""
    labels: str = ""
    """Kinds that take turns, for example chair,car; all kinds if not given."""
    views: int = 16
    """Views of each object, drawn anew for each."""
    size: int = 128
    """Side of a view in pixels."""
    workers: int = 2
    """Processes."""

    def run(self) -> None:
        check_numbers(self.count, self.views, self.workers, self.first, self.size)
        from latent3d.data.object_sources import ObjectCameras, ProceduralObjects

        labels = tuple(label.strip() for label in self.labels.split(",") if label.strip())
        source = ProceduralObjects(ObjectCameras(views=self.views, size=self.size), self.split, labels)
        write_bank(self.out, source, self.first, self.count, self.workers)


@dataclass(frozen=True, kw_only=True)
class RenderMeshes:
    """Render textured meshes (.glb, .gltf, .obj, .ply ...) from cameras all around.

    Each mesh is moved and scaled into the unit box and becomes a folder of pictures: rgba, depth, normal and
    cameras.json, which `latent3d data check` reads. With --bank all become one bank for training.
    """

    meshes: tyro.conf.Positional[tuple[Path, ...]]
    """Mesh files, or folders of them."""
    out: Path
    """Folder of the results."""
    views: int = 24
    """Views of each mesh."""
    size: int = 256
    """Side of a view in pixels."""
    layout: Literal["sphere", "hemisphere", "orbit", "spiral"] = "sphere"
    """Where cameras stand: drawn all around or above the horizon, on a ring, or on a spiral from horizon to pole."""
    radius: float = 1.8
    """Distance of the cameras; meshes are 0.9 long and the field of view is 40 degrees. 2.3 shows every mesh whole."""
    seed: int = 0
    """Number that decides where drawn cameras stand (pictures only)."""
    bank: bool = False
    """Write a bank for training instead of pictures."""
    workers: int = 2
    """Processes (bank only)."""
    overwrite: bool = False
    """Replace an earlier result (pictures only)."""

    def run(self) -> None:
        check_numbers(1, self.views, self.workers, self.seed, self.size)
        if not 1.0 <= self.radius <= 6.0:
            raise ValueError("give a --radius from 1 to 6")
        from latent3d.data.mesh_pictures import find_meshes, render_pictures, usable_meshes
        from latent3d.data.object_sources import MeshObjects, ObjectCameras
        from latent3d.io.atomic import check_output_folder

        files = find_meshes(self.meshes)
        cameras = ObjectCameras(views=self.views, size=self.size, layout=self.layout, radius=(self.radius, self.radius))
        if self.bank:
            usable = usable_meshes(files, _say)
            write_bank(self.out, MeshObjects(tuple(usable), cameras), 0, len(usable), self.workers)
            return
        check_output_folder(self.out, self.overwrite)
        from tqdm import tqdm

        with tqdm(total=len(files), unit="mesh", desc="rendering") as bar:
            done = render_pictures(
                files, self.out, cameras, seed=self.seed, overwrite=self.overwrite, on_mesh=bar.update, say=_say
            )
        print(f"{len(done)} meshes are in {self.out}; look at one with: latent3d data check {self.out / done[0]}")


@dataclass(frozen=True, kw_only=True)
class ImportObjects:
    """Store objects that others rendered or photographed as a bank for training.

    Reads ShapeNet, G-Objaverse and Blender renderings, any other posed folder whose pictures have alpha, masks or
    depth, and faces in EG3D's layout (dataset.json). A file caption.txt beside an object's pictures describes it.
    """

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of objects, folders of such, or one folder with dataset.json."""
    out: Path
    """Folder of the bank."""
    views: int = 16
    """Views of each object (faces have one)."""
    size: int = 128
    """Side of a view in pixels."""
    keep_pose: bool = False
    """Leave objects where they are instead of turning, moving and scaling them to the unit box."""
    workers: int = 2
    """Processes."""

    def run(self) -> None:
        check_numbers(1, self.views, self.workers, 0, self.size)
        if not self.folders:
            raise ValueError("give at least one folder of an object")
        from tqdm import tqdm

        from latent3d.data.captures.collect import Reading
        from latent3d.data.captures.reading import find_captures
        from latent3d.data.captures.renders import read_eg3d
        from latent3d.data.rendered_objects import Faces, RenderedObjects, usable_folders

        labels = self.folders[0] / "dataset.json"
        if labels.is_file():
            if len(self.folders) > 1:
                raise ValueError(f"'{self.folders[0]}' holds faces; import one such folder at a time")
            capture = read_eg3d(labels, Reading()).verified()
            for problem in (*capture.problems, *(f"{name}: its picture is missing" for name in capture.missing)):
                _say(f"left out: {problem}")
            write_bank(self.out, Faces(capture, self.size), 0, len(capture), self.workers)
            return
        folders = [found for place in self.folders for found in find_captures(place)]
        with tqdm(total=len(folders), unit="object", desc="reading", leave=False) as bar:
            usable = usable_folders(folders, self.views, _say, bar.update)
        source = RenderedObjects(tuple(usable), self.views, self.size, not self.keep_pose)
        write_bank(self.out, source, 0, len(usable), self.workers)


@dataclass(frozen=True, kw_only=True)
class Latents:
    """Encode a bank of objects once, for many runs of latent diffusion.

    Then: latent3d train PRESET --stage diffusion --bank BANK_OF_LATENTS --set data.kind=latents.
    """

    bank: tyro.conf.Positional[tuple[Path, ...]]
    """Banks of objects."""
    out: Path
    """Folder of the latents."""
    weights: str = "ln3diff_shapes"
    """Whose encoder: a folder of weights, or the name of shipped ones."""
    inputs: int = 4
    """Views that the encoder is given of each object."""
    pictures: int = 4
    """Views kept of each object, for picture conditions."""

    def run(self) -> None:
        if not self.bank:
            raise ValueError("give at least one bank of objects")
        from tqdm import tqdm

        from latent3d.apps.objects import LN3Diff
        from latent3d.data.latent_bank import write_latent_bank
        from latent3d.data.object_bank import ObjectBank

        bank = ObjectBank(self.bank)
        model = LN3Diff.from_pretrained(self.weights)
        about = {"weights": model.weights["sha256"], "banks": [path.name for path in self.bank]}
        with tqdm(total=len(bank), unit="object", desc="encoding") as bar:
            write_latent_bank(
                self.out, bank, model.system.posterior, about, inputs=self.inputs, pictures=self.pictures,
                on_objects=bar.update,
            )  # fmt: skip
        print(f"the latents are in {self.out}; train on them with --set data.kind=latents")


def _say(sentence: str) -> None:
    """A sentence on stderr that does not break a progress bar."""
    from tqdm import tqdm

    tqdm.write(sentence, file=sys.stderr)


def write_bank(out: Path, source: ObjectSource, first: int, count: int, workers: int) -> None:
    """A bank of objects, with a progress bar."""
    from tqdm import tqdm

    from latent3d.data.object_bank import render_object_bank

    with tqdm(total=count, unit="object", desc="rendering") as bar:
        render_object_bank(out, source, first, count, workers, on_objects=bar.update)
    print(f"the bank is in {out}; train on it with: latent3d train PRESET --bank {out}")


def check_numbers(count: int, views: int, workers: int, first: int, size: int) -> None:
    """Raises ValueError for numbers that make no bank."""
    if min(count, views, workers) < 1 or first < 0:
        raise ValueError("give at least one object, view and worker, and a --first of 0 or more")
    if not 16 <= size <= 1024:
        raise ValueError("give a --size from 16 to 1024 pixels")
