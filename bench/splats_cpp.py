"""The C++ rasteriser of the benchmarks: compiled on first use, called without autograd.

`splats_cpp.cpp` is built by the machine's own C++ compiler (``CXX``, else g++, c++ or clang++) for its own processor
into a private folder under the system's temporary folder, once per version of the source; nothing in the package needs
it. Letters: V views, N splats, C channels.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.rendering.base import LOW_PASS_PX, NEAR
from latent3d.representations.gaussians import Gaussians

SOURCE = Path(__file__).with_suffix(".cpp")
FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fopenmp", "-ffp-contract=fast", "-fno-math-errno"),
    *("-fno-trapping-math", "-fno-signed-zeros", "-Wno-psabi", "-shared", "-fPIC"),
)


class CompilerMissingError(RuntimeError):
    """No C++ compiler with OpenMP is at hand; the message says so in a sentence."""


@dataclass(frozen=True)
class Gradients:
    """Gradients of a scene: means (N, 3), quaternions (N, 4), scales (N, 3), opacities (N,), features (N, C)."""

    means: Tensor
    quaternions: Tensor
    scales: Tensor
    opacities: Tensor
    features: Tensor


class CppRendering:
    """Images (V, C, H, W), depth and alpha (V, 1, H, W) of a scene, and the way back from them."""

    def __init__(self, gaussians: Gaussians, cameras: Cameras, threads: int, low_pass: float, near: float) -> None:
        """Render; see `render`."""
        self._library = library()
        names = [field.name for field in fields(Gradients)]
        self._inputs = [_plain(getattr(gaussians, name)) for name in names]
        self._cameras = [_plain(cameras.w2c), _plain(cameras.k)]
        views, (splats, channels) = cameras.shape[0], self._inputs[-1].shape
        screen = (cameras.height, cameras.width)
        self.features = torch.empty(views, channels, *screen)
        self.depth, self.alpha = torch.empty(views, 1, *screen), torch.empty(views, 1, *screen)
        self._frame = self._library.splats_forward(
            threads, views, splats, channels, *screen, *map(_pointer, (*self._inputs, *self._cameras)),
            low_pass, near, *map(_pointer, (self.features, self.depth, self.alpha)),
        )  # fmt: skip

    def __del__(self) -> None:
        if getattr(self, "_frame", None) is not None:
            self._library.splats_free(self._frame)

    def backward(self, d_features: Tensor, d_depth: Tensor, d_alpha: Tensor) -> Gradients:
        """Gradients of a scalar from its gradients to `features`, `depth` and `alpha`."""
        incoming = [_plain(gradient) for gradient in (d_features, d_depth, d_alpha)]
        out = [torch.empty_like(value) for value in self._inputs]
        self._library.splats_backward(self._frame, *map(_pointer, (*incoming, *out)))
        return Gradients(*out)


def render(
    gaussians: Gaussians, cameras: Cameras, *, threads: int = 1, low_pass: float = LOW_PASS_PX, near: float = NEAR
) -> CppRendering:
    """What `latent3d.rendering.splats.render_gaussians` shows of the features, in float32, without its checks.

    Raises:
        CompilerMissingError: if there is no compiler that can build the library.
    """
    return CppRendering(gaussians, cameras, threads, low_pass, near)


def missing() -> str | None:
    """Why the library cannot be used, as a sentence, or None if it can."""
    try:
        library()
    except CompilerMissingError as error:
        return str(error)
    return None


@functools.cache
def library() -> ctypes.CDLL:
    """Load the compiled source, building it where this version has not been built yet."""
    loaded = ctypes.CDLL(str(_built()))
    pointer, integer, number = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
    loaded.splats_forward.argtypes = [integer] * 6 + [pointer] * 7 + [number] * 2 + [pointer] * 3
    loaded.splats_forward.restype = pointer
    loaded.splats_backward.argtypes = [pointer] * 9
    loaded.splats_backward.restype = None
    loaded.splats_free.argtypes = [pointer]
    loaded.splats_free.restype = None
    return loaded


def compiler() -> str | None:
    """The C++ compiler to use, or None."""
    names = (os.environ.get("CXX") or "g++", "c++", "clang++")
    return next((path for path in map(shutil.which, names) if path), None)


def _built() -> Path:
    """The shared library of this source, these flags and this compiler."""
    program = compiler()
    if program is None:
        raise CompilerMissingError("the C++ column is left out: no C++ compiler was found; install g++ or set CXX")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    digest = hashlib.sha256("\0".join((SOURCE.read_text(encoding="utf-8"), *FLAGS, program, version)).encode())
    target = _folder() / f"splats_{digest.hexdigest()[:16]}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            part = Path(folder) / target.name
            command = [program, *FLAGS, "-o", str(part), str(SOURCE)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                lines = done.stderr.strip().splitlines() or ["no message"]
                reason = next((line for line in lines if "error" in line), lines[-1])
                raise CompilerMissingError(f"the C++ column is left out: {program} failed ({reason}); try another CXX")
            part.replace(target)
    return target


def _folder() -> Path:
    """A folder that only this user can write to: what lies in it is loaded and run."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"latent3d-bench-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022 or folder.is_symlink()):
        raise CompilerMissingError(f"the C++ column is left out: {folder} is open to other users; remove it")
    return folder


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float32).contiguous()


def _pointer(tensor: Tensor) -> int:
    return tensor.data_ptr()
