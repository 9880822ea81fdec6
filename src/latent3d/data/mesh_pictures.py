"""Mesh files to folders of posed pictures, one folder per mesh (`latent3d data render`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from latent3d.data.object_sources import HALF_SIZE, ObjectCameras
from latent3d.io.atomic import output_folder
from latent3d.io.cards import make_card, write_card
from latent3d.io.mesh_files import READABLE, read_mesh
from latent3d.io.object_pictures import write_object_pictures
from latent3d.rendering.meshes import render_mesh
from latent3d.representations.mesh import Mesh

Say = Callable[[str], object]


def find_meshes(places: Sequence[str | Path]) -> list[Path]:
    """Mesh files as they are given; of folders all in them and below, by name.

    Raises:
        FileNotFoundError: if a place is not there.
        ValueError: if there is none, or a file is of another kind.
    """
    found: list[Path] = []
    for place in map(Path, places):
        if not place.exists():
            raise FileNotFoundError(f"there is no mesh file '{place}'; check the name")
        inside = sorted(path for path in place.rglob("*") if path.suffix.lower() in READABLE and path.is_file())
        if place.is_dir() and not inside:
            raise ValueError(f"the folder '{place}' holds no mesh file; meshes end in {', '.join(READABLE)}")
        if place.is_file() and place.suffix.lower() not in READABLE:
            raise ValueError(f"'{place}' is no mesh file that can be read; give one of {', '.join(READABLE)}")
        found += inside if place.is_dir() else [place]
    if not found:
        raise ValueError("give at least one mesh file")
    return found


def usable_meshes(files: Sequence[Path], say: Say) -> list[Path]:
    """Those that can be read and have an extent; ``say`` hears a sentence about each other one.

    Raises:
        ValueError: if none can; the sentence about the first.
    """
    usable = [path for path in files if _fitted(path, say if len(files) > 1 else _raise) is not None]
    return _some(usable)


def render_pictures(
    files: Sequence[Path],
    out: str | Path,
    cameras: ObjectCameras,
    *,
    seed: int = 0,
    overwrite: bool = False,
    on_mesh: Callable[[], object] | None = None,
    say: Say,
) -> list[str]:
    """Render meshes, each to a folder named after its file, as `latent3d.io.object_pictures` describes.

    A mesh that cannot be used, or of which a view shows nothing, is left out and ``say`` hears why. ``out`` appears
    whole or not at all.

    Returns:
        names of the folders.

    Raises:
        ValueError: if no mesh can be used, or as `latent3d.io.atomic.output_folder`.
    """
    names: list[str] = []
    with output_folder(out, overwrite) as temporary:
        for number, path in enumerate(files):
            mesh = _fitted(path, say if len(files) > 1 else _raise)
            if mesh is not None:
                views = render_mesh(mesh, cameras.draw(seed, number))
                name = _free_name(path.stem, names)
                write_object_pictures(temporary / name, views)
                names.append(name)
            if on_mesh:
                on_mesh()
        _some(names)
        settings = {"cameras": cameras.to_dict(), "seed": seed, "half_size": HALF_SIZE}
        write_card(temporary / "card.json", make_card(kind="pictures of meshes", meshes=names, **settings))
    return names


def _fitted(path: Path, say: Say) -> Mesh | None:
    try:
        return read_mesh(path).fitted(HALF_SIZE)
    except (ValueError, FileNotFoundError) as error:
        say(f"left out: {error}")
        return None


def _raise(sentence: str) -> None:
    raise ValueError(sentence.removeprefix("left out: "))


def _some(items: list) -> list:
    if not items:
        raise ValueError("none of the meshes can be used; see the sentences above")
    return items


def _free_name(stem: str, taken: Sequence[str]) -> str:
    """The file's own name, with a number where two files share it."""
    number, name = 1, stem
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    return name
