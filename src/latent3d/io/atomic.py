"""Files and folders that appear whole or not at all.

A file is written beside its final place and moved there with `os.replace`, which POSIX and Windows make atomic within
one file system; a folder is assembled in a hidden sibling and moved. Whatever interrupts the writing (Ctrl-C and a
full disk included), the temporary goes and what stood there before stays.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MARKER = "card.json"
"""The file by which `output_folder` knows a folder as one of ours, which it may replace."""


@contextmanager
def output_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path with the same suffix in the same folder; it becomes ``path`` if the block succeeds.

    The folder is made if it is missing.

    Raises:
        OSError: with ``path`` as its file name when the disk is full or the place cannot be written.
    """
    path = Path(path)
    with _named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(21, "is a folder, not a file", str(path))
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files; results are ordinary ones
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with output_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write bytes atomically."""
    with output_file(path) as temporary:
        temporary.write_bytes(data)


def check_output_folder(path: str | Path, overwrite: bool = False) -> None:
    """Find out before the long work whether `output_folder` will succeed.

    Raises:
        ValueError: if the place is taken by a file, by a folder that latent3d did not make, or by an earlier result
            that may not be overwritten.
        OSError: if nothing can be written there.
    """
    path = Path(path)
    with _named_errors(path):
        if path.exists() and not path.is_dir():
            raise ValueError(f"the output place '{path}' is a file; choose another folder with --out")
        if path.is_dir() and any(path.iterdir()):
            if not (path / MARKER).is_file():
                raise ValueError(
                    f"the folder '{path}' holds files that latent3d did not write; choose another folder with --out"
                )
            if not overwrite:
                raise ValueError(
                    f"the folder '{path}' already holds a result; add --overwrite or choose another folder with --out"
                )
        parent = _nearest_existing(path)
        try:
            with tempfile.TemporaryFile(dir=parent):
                pass
        except FileNotFoundError as error:
            # Virtual file systems (/proc) answer so although the folder exists.
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(parent)) from error
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(parent)) from error


@contextmanager
def output_folder(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty temporary sibling folder; it becomes ``path`` if the block succeeds.

    A folder of ours (it holds `MARKER`) that stands there is replaced when ``overwrite`` is set; any other non-empty
    folder is never touched.

    Raises:
        ValueError, OSError: as `check_output_folder`, and OSError when writing fails.
    """
    path = Path(path)
    check_output_folder(path, overwrite)
    with _named_errors(path):
        made = _make_parents(path.parent)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            _swap_in(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            for folder in reversed(made):
                if not any(folder.iterdir()):
                    folder.rmdir()
            raise


def _swap_in(new: Path, path: Path) -> None:
    """Put the finished folder in its place; an older one steps aside first and is deleted last."""
    if not path.exists():
        os.replace(new, path)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.parent))
    try:
        os.replace(path, aside / "old")
        try:
            os.replace(new, path)
        except BaseException:
            os.replace(aside / "old", path)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _make_parents(folder: Path) -> list[Path]:
    """Make missing parents and list those that were missing, outermost first."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()][::-1]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _nearest_existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path if path.is_dir() else path.parent


def _umask() -> int:
    # The umask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Errors from write() carry no file name; the user needs one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
