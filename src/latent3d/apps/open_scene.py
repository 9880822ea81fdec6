"""Splat scenes from disk, with the cameras they were made for where these are known."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from latent3d.apps.inputs import DEFAULT_FOV
from latent3d.geometry.cameras import Cameras
from latent3d.io.camera_files import read_cameras
from latent3d.io.splat_files import read_splats
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.origin import ORIGIN_ATTRIBUTE, Origin

DEFAULT_SIZE = 512
"""Side in pixels of the stand-in camera."""


@dataclass(frozen=True)
class OpenScene:
    """A scene from disk.

    Attributes:
        gaussians: N splats.
        cameras: the cameras it was made for (M,), references first.
        origin: `Origin` of each splat, (N,), where the file has it.
    """

    gaussians: Gaussians
    cameras: Cameras
    origin: Int[Tensor, " n"] | None = None

    def only(self, kinds: Collection[Origin]) -> OpenScene:
        """The splats of some origins.

        Raises:
            ValueError: if the scene does not know its origins or has no such splat.
        """
        names = " or ".join(kind.name.lower() for kind in kinds)
        if self.origin is None:
            raise ValueError(f"this scene does not say which splats are {names}; make it again, or leave out --only")
        chosen = torch.isin(self.origin, torch.tensor([int(kind) for kind in kinds]))
        if not bool(chosen.any()):
            raise ValueError(f"no splat of this scene is {names}; choose another origin")
        return OpenScene(self.gaussians[chosen], self.cameras, self.origin[chosen])


def open_scene(path: str | Path) -> OpenScene:
    """A scene folder or a .ply file.

    A file without ``cameras.json`` beside it is seen from the origin along +z, with the default field of view.

    Raises:
        FileNotFoundError, ValueError: if there is no scene or it is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no scene '{path}'; give a folder that latent3d scene wrote, or a .ply file")
    splats = path / "scene.ply" if path.is_dir() else path
    if not splats.is_file():
        raise FileNotFoundError(f"the folder '{path}' holds no scene.ply; give one that latent3d scene wrote")
    gaussians, extra = read_splats(splats)
    if len(gaussians) == 0:
        raise ValueError(f"the scene '{splats}' holds no splats; make it again")
    origin = extra.get(ORIGIN_ATTRIBUTE)
    if origin is not None and not bool(torch.isin(origin, torch.tensor([float(kind) for kind in Origin])).all()):
        numbers = ", ".join(f"{int(kind)} ({kind.name.lower()})" for kind in Origin)
        raise ValueError(f"the scene '{splats}' holds an '{ORIGIN_ATTRIBUTE}' other than {numbers}; make it again")
    beside = splats.parent / "cameras.json"
    if beside.is_file():
        cameras = read_cameras(beside).cameras
    else:
        cameras = Cameras.from_fov(torch.eye(4)[None], DEFAULT_FOV, DEFAULT_SIZE, DEFAULT_SIZE)
    return OpenScene(gaussians, cameras, None if origin is None else origin.long())
