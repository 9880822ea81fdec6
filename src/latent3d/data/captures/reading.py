"""`read_capture`: any capture, recognised by its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from latent3d.data.captures import arkit, colmap, own, photos, realestate, renders, rgbd, transforms
from latent3d.data.captures.capture import Capture
from latent3d.data.captures.collect import Axes, Reading

Finder = Callable[[Path], Path | None]
Reader = Callable[[Path, Reading], Capture]


def _if(test: Callable[[Path], object]) -> Finder:
    return lambda folder: folder if test(folder) else None


def _file(name: str) -> Finder:
    return lambda folder: folder / name if (folder / name).is_file() else None


def _clip(folder: Path) -> Path | None:
    files = realestate.files_of(folder)
    if len(files) > 1:
        names = ", ".join(path.name for path in files[:4])
        raise ValueError(f"'{folder}' holds {len(files)} RealEstate10K clips ({names} ...); give one of these files")
    return files[0] if files else None


LAYOUTS: dict[str, tuple[Finder, Reader]] = {
    "cameras.json": (_file("cameras.json"), own.read_own),
    "scannetpp": (_if(transforms.is_scannetpp), transforms.read_scannetpp),
    "transforms": (transforms.file_of, transforms.read_transforms),
    "blender": (_if(transforms.is_blender), transforms.read_blender),
    "colmap": (_if(colmap.model_of), colmap.read_colmap),
    "realestate10k": (_clip, realestate.read_realestate_clip),
    "arkit": (_if(arkit.is_scanner_app), arkit.read_scanner_app),
    "arkitscenes": (_if(arkit.is_arkitscenes), arkit.read_arkitscenes),
    "shapenet": (_if(renders.is_shapenet), renders.read_shapenet),
    "scannet": (_if(rgbd.is_scannet), rgbd.read_scannet),
    "7scenes": (_if(rgbd.is_seven_scenes), rgbd.read_seven_scenes),
    "tum": (_if(rgbd.is_tum), rgbd.read_tum),
    "gobjaverse": (_if(renders.gobjaverse_of), renders.read_gobjaverse),
    "arrays": (renders.arrays_of, renders.read_arrays),
    "photos": (_if(photos.photos_of), photos.read_photos),
}
"""Name, how a folder of that layout is recognised (what to read, or None), and its reader; in order of preference."""


def recognise(folder: Path) -> dict[str, Path]:
    """The layouts that a folder can be read as, with the place that each reader gets, the preferred one first."""
    found = {name: place for name, (find, _) in LAYOUTS.items() if (place := find(folder)) is not None}
    if len(found) > 1:
        found.pop("photos", None)  # the pictures of a posed capture
    if "shapenet" in found:
        found.pop("scannet", None)  # folders of the same names
    return found


def read_capture(
    path: str | Path, *, layout: str | None = None, axes: Axes | None = None, inverse: bool = False
) -> Capture:
    """Read a posed capture.

    Args:
        path: its folder, or one of its camera files (``cameras.json``, ``transforms.json``, a RealEstate10K text file,
            an ``.npz`` of cameras). A folder that holds nothing but one folder of a capture is read as that.
        layout: one of `LAYOUTS`; None recognises it by its files.
        axes: camera axes of the file's poses where they differ from what the layout says.
        inverse: take the file's matrices the other way round (camera to world for world to camera).

    Raises:
        FileNotFoundError: if nothing is there.
        ValueError: if it is no capture, a file of it is damaged, or no frame is usable; one sentence with the remedy.
        MissingPackageError: for photos without poses, if pycolmap is not installed.
    """
    path, reading = Path(path), Reading(axes, inverse)
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"there is no layout '{layout}'; choose one of {', '.join(LAYOUTS)}")
    if not path.exists():
        raise FileNotFoundError(f"there is no capture '{path}'; check the name")
    if path.is_file():
        return _reader_of_file(path, layout)(path, reading)
    found = recognise(path)
    inner = [place for place in sorted(path.iterdir()) if place.is_dir()]
    if not found and len(inner) == 1:
        return read_capture(inner[0], layout=layout, axes=axes, inverse=inverse)
    if layout is not None:
        place = found.get(layout) or LAYOUTS[layout][0](path)
        if place is None:
            also = f"; it looks like {', '.join(found)}" if found else ""
            raise ValueError(f"'{path}' is not a capture of the layout {layout}{also}")
        return LAYOUTS[layout][1](place, reading)
    if not found:
        raise ValueError(f"'{path}' holds no capture that can be recognised; known layouts are {', '.join(LAYOUTS)}")
    name, *others = found
    capture = LAYOUTS[name][1](found[name], reading)
    if others:
        note = f"The folder can also be read as {' or '.join(others)} (--layout)."
        capture = replace(capture, notes=(*capture.notes, note))
    return capture


def _reader_of_file(path: Path, layout: str | None) -> Reader:
    if layout is not None:
        return LAYOUTS[layout][1]
    if path.suffix == ".npz":
        return renders.read_arrays
    if path.suffix == ".json":
        return transforms.read_transforms if path.name.startswith("transforms") else own.read_own
    if realestate.is_realestate(path):
        return realestate.read_realestate_clip
    raise ValueError(f"'{path}' is not a camera file that is read here; give the folder of the capture")


def find_captures(folder: str | Path) -> list[Path]:
    """The captures of a folder: itself, its RealEstate10K clips, or the folders in it that are captures.

    Raises:
        FileNotFoundError, ValueError: if there is none.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"there is no capture '{folder}'; check the name")
    if folder.is_file():
        return [folder]
    clips = realestate.files_of(folder)
    if len(clips) > 1:
        return clips
    if recognise(folder):
        return [folder]
    found = [place for inner in sorted(folder.iterdir()) if inner.is_dir() for place in _inner(inner)]
    if not found:
        raise ValueError(f"'{folder}' holds no capture that can be recognised; give the folder of one")
    return found


def _inner(folder: Path) -> list[Path]:
    clips = realestate.files_of(folder)
    return clips if len(clips) > 1 else [folder] if recognise(folder) else []
