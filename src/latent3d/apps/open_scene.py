"""Splat scenes from disk, with the cameras they were made for where these are known."""

from __future__ import annotations

from pathlib import Path

import torch

from latent3d.apps.inputs import DEFAULT_FOV
from latent3d.geometry.cameras import Cameras
from latent3d.io.camera_files import read_cameras
from latent3d.io.splat_files import read_splats
from latent3d.representations.gaussians import Gaussians

DEFAULT_SIZE = 512
"""Side in pixels of the stand-in camera."""


def open_scene(path: str | Path) -> tuple[Gaussians, Cameras]:
    """A scene folder or a .ply file: its splats and its cameras (M,), references first.

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
    gaussians, _ = read_splats(splats)
    if len(gaussians) == 0:
        raise ValueError(f"the scene '{splats}' holds no splats; make it again")
    beside = splats.parent / "cameras.json"
    if beside.is_file():
        return gaussians, read_cameras(beside).cameras
    return gaussians, Cameras.from_fov(torch.eye(4)[None], DEFAULT_FOV, DEFAULT_SIZE, DEFAULT_SIZE)
