"""From exceptions to one clear sentence and an exit code."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Callable

from latent3d.apps.progress import close_bars
from latent3d.memory import NotEnoughMemoryError
from latent3d.optional import MissingPackageError

EXIT_ERROR = 2
"""Something the user gave cannot be used."""
EXIT_INTERRUPTED = 130
"""Ctrl-C: 128 + SIGINT, as shells expect."""

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space or choose another place with --out",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another place with --out",
    errno.EACCES: "permission denied; choose a place you may write to, or change its permissions",
    errno.EPERM: "not permitted; choose a place you may write to, or change its permissions",
    errno.EROFS: "the disk is read-only; choose another place with --out",
    errno.ENOENT: "no such file or folder; check the name",
    errno.ENOTDIR: "a part of the path is a file, not a folder; check the name",
    errno.EISDIR: "this is a folder, not a file; check the name",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EADDRINUSE: "the address is in use; choose another with --port",
}


def sentence(error: BaseException) -> str:
    """What to tell the user, in one line."""
    if isinstance(error, OSError) and error.errno is not None:
        text = _REMEDIES.get(error.errno) or (error.strerror or type(error).__name__)
        if error.errno == errno.EADDRINUSE and error.strerror:
            text = error.strerror
        return f"'{error.filename}': {text}" if error.filename else text
    if isinstance(error, MemoryError) and not isinstance(error, NotEnoughMemoryError):
        return "the memory is not enough; use fewer --views or a smaller image"
    return " ".join(str(error).split()) or type(error).__name__


def run_safely(command: Callable[[], None], debug: bool = False) -> int:
    """Run a command and return the exit code; errors of user origin become one sentence on stderr.

    Errors of ours (anything but ValueError, OSError, MemoryError and a missing optional package) keep their trace,
    since they are to be reported. ``debug`` shows the trace of all.
    """
    try:
        command()
    except KeyboardInterrupt:
        _show("latent3d: interrupted; nothing half-written was left behind", debug)
        return EXIT_INTERRUPTED
    except (ValueError, OSError, MemoryError, MissingPackageError) as error:
        _show(f"latent3d: error: {sentence(error)}", debug)
        return EXIT_ERROR
    return 0


def _show(message: str, debug: bool) -> None:
    close_bars()
    if debug:
        traceback.print_exc()
    print(message, file=sys.stderr)
