"""The one door to packages that latent3d can do without."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType


@dataclass(frozen=True)
class OptionalPackage:
    """A package that makes something faster or adds something.

    Attributes:
        module: name to import.
        purpose: what it adds, in a few words.
        install: command that adds it.
    """

    module: str
    purpose: str
    install: str


OPTIONAL = {
    package.module: package
    for package in (
        OptionalPackage("tensorboard", "training curves in a browser", "pip install 'latent3d[train]'"),
        OptionalPackage("pycolmap", "finding the cameras of photos without poses", "pip install 'latent3d[poses]'"),
        OptionalPackage(
            "xatlas", "unwrapping meshes into charts (not into single triangles)", "pip install 'latent3d[mesh]'"
        ),
        OptionalPackage("rembg", "cutting objects out of photos", "pip install 'rembg[cpu]'"),
        OptionalPackage("fast_simplification", "meshes with fewer faces", "pip install 'latent3d[mesh]'"),
    )
}


class MissingPackageError(ImportError):
    """An optional package that the user asked for is not installed; the message holds the command that adds it."""


def is_installed(module: str) -> bool:
    """Whether a package can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def version(module: str) -> str | None:
    """Installed version, or None."""
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        return None


def require(module: str) -> ModuleType:
    """Import an optional package.

    Raises:
        MissingPackageError: with the command that adds it.
    """
    package = OPTIONAL[module]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise MissingPackageError(
            f"{package.purpose} needs the package '{module}'; add it with: {package.install}"
        ) from error
