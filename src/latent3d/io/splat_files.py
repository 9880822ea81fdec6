"""Splat scenes in the .ply layout of 3D Gaussian Splatting (Kerbl et al. 2023), which viewers expect.

The file holds raw parameters: logits of opacity, logarithms of scale, quaternions (w, x, y, z), and colour as
coefficients of real spherical harmonics, f_dc = (colour - 0.5) / C0, with f_rest ordered channel by channel.
`Gaussians` holds activated values; this pair of functions is the only place that converts.

N: splats. K: harmonics per channel, (degree + 1)^2.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.io.atomic import output_file
from latent3d.representations.gaussians import Gaussians

SH_C0 = 0.28209479177387814
"""Value of the constant spherical harmonic, 1 / (2 sqrt(pi))."""
OPACITY_MARGIN = 1e-7
"""Opacities are kept this far from 0 and 1, where the logit is infinite."""
SCALE_MIN = 1e-12
"""Scales below this, in scene units, are written as this; the logarithm of 0 is infinite."""
MAX_HEADER = 65536
"""A .ply header longer than this many bytes is not one of a splat file."""

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "<i2", "int16": "<i2", "ushort": "<u2",
    "uint16": "<u2", "int": "<i4", "int32": "<i4", "uint": "<u4", "uint32": "<u4", "float": "<f4", "float32": "<f4",
    "double": "<f8", "float64": "<f8",
}  # fmt: skip
_REQUIRED = (
    "x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2",
    "rot_0", "rot_1", "rot_2", "rot_3",
)  # fmt: skip
_REST_COUNTS = (0, 9, 24, 45)


def write_splats(path: str | Path, gaussians: Gaussians, extra: dict[str, Float[Tensor, " n"]] | None = None) -> None:
    """Write a coloured scene, atomically.

    Args:
        gaussians: with ``colors``; ``features`` are not written.
        extra: further float attributes by name, (N,) each, for example which view a splat comes from.

    Raises:
        ValueError: if there is no colour, a value is not finite or a name is taken.
    """
    if gaussians.colors is None:
        raise ValueError("these splats carry no colour and cannot be written for viewers; use the decoded scene")
    n = len(gaussians)
    columns: dict[str, np.ndarray] = {}

    def put(names: list[str], values: Tensor) -> None:
        array = values.detach().to("cpu", torch.float32).reshape(n, len(names)).numpy()
        columns.update({name: array[:, i] for i, name in enumerate(names)})

    put(["x", "y", "z"], gaussians.means)
    put(["nx", "ny", "nz"], torch.zeros_like(gaussians.means))
    put([f"f_dc_{c}" for c in range(3)], (gaussians.colors - 0.5) / SH_C0)
    if gaussians.harmonics is not None:
        rest = gaussians.harmonics.transpose(1, 2).reshape(n, -1)
        if rest.shape[1] not in _REST_COUNTS:
            raise ValueError(
                f"{gaussians.harmonics.shape[1]} harmonics per channel; expected 3, 8 or 15 (degree 1 to 3)"
            )
        put([f"f_rest_{i}" for i in range(rest.shape[1])], rest)
    put(["opacity"], torch.logit(gaussians.opacities.double().clamp(OPACITY_MARGIN, 1 - OPACITY_MARGIN)))
    put([f"scale_{axis}" for axis in range(3)], gaussians.scales.double().clamp_min(SCALE_MIN).log())
    put([f"rot_{axis}" for axis in range(4)], torch.nn.functional.normalize(gaussians.quaternions, dim=-1))
    for name, values in (extra or {}).items():
        if name in columns or not name.isidentifier() or not name.isascii():
            raise ValueError(f"'{name}' cannot name an extra attribute of a splat file; choose another")
        if values.shape != (n,):
            raise ValueError(f"the extra attribute '{name}' has shape {tuple(values.shape)}; expected ({n},)")
        put([name], values)

    bad = [name for name, column in columns.items() if not np.isfinite(column).all()]
    if bad:
        raise ValueError(f"the splats hold values that are not finite in '{bad[0]}'; the scene was not written")
    table = np.empty(n, dtype=[(name, "<f4") for name in columns])
    for name, column in columns.items():
        table[name] = column
    header = ["ply", "format binary_little_endian 1.0", "comment written by latent3d", f"element vertex {n}"]
    header += [f"property float {name}" for name in columns] + ["end_header", ""]
    with output_file(path) as temporary, temporary.open("wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(table.tobytes())


def read_splats(path: str | Path) -> tuple[Gaussians, dict[str, Tensor]]:
    """Read a 3DGS .ply file: the scene (float32, activated values) and any further per-splat attributes, (N,) each.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a 3DGS file, is cut short or holds values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no splat file '{path}'; check the name")
    with path.open("rb") as file:
        count, dtype = _read_header(file, path)
        # The size on disk is checked first: a header may claim any count.
        left = path.stat().st_size - file.tell()
        if left < count * dtype.itemsize:
            raise ValueError(
                f"the splat file '{path}' is cut short: it promises {count} splats and holds {left // dtype.itemsize}; "
                "copy or make it again"
            )
        table = np.frombuffer(file.read(count * dtype.itemsize), dtype=dtype)
    missing = [name for name in _REQUIRED if name not in (dtype.names or ())]
    if missing:
        raise ValueError(f"'{path}' is not a Gaussian splat file (no '{missing[0]}'); give a .ply in the 3DGS layout")
    return _decode(table, path)


def _read_header(file, path: Path) -> tuple[int, np.dtype]:
    """Number of vertices and their record type; leaves the file at the first record."""
    if file.read(4) not in (b"ply\n", b"ply\r"):
        raise ValueError(f"'{path}' is not a .ply file; give a splat scene in the 3DGS layout")
    file.seek(0)
    head = file.read(MAX_HEADER)
    end = head.find(b"end_header")
    newline = head.find(b"\n", end)
    if end < 0 or newline < 0:
        raise ValueError(f"the header of '{path}' does not end; the file is damaged: copy or make it again")
    file.seek(newline + 1)
    lines = [line.split() for line in head[:end].decode("ascii", errors="replace").splitlines()[1:]]
    lines = [words for words in lines if words and words[0] not in ("comment", "obj_info")]
    if not lines or lines[0][:2] != ["format", "binary_little_endian"]:
        raise ValueError(f"'{path}' is not in binary little-endian .ply format; convert it first")
    if len(lines) < 2 or lines[1][:2] != ["element", "vertex"] or len(lines[1]) != 3 or not lines[1][2].isdecimal():
        raise ValueError(f"'{path}' does not start with a list of splats; give a .ply in the uncompressed 3DGS layout")
    fields: list[tuple[str, str]] = []
    for words in lines[2:]:
        if words[0] == "element":
            break
        if words[0] != "property" or len(words) != 3 or words[1] not in _TYPES:
            raise ValueError(
                f"the header of '{path}' has a line that a splat file cannot have: '{' '.join(words)[:60]}'"
            )
        fields.append((words[2], _TYPES[words[1]]))
    names = [name for name, _ in fields]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"the header of '{path}' names no property or one twice; the file is damaged")
    return int(lines[1][2]), np.dtype(fields)


def _decode(table: np.ndarray, path: Path) -> tuple[Gaussians, dict[str, Tensor]]:
    def take(names: list[str]) -> Tensor:
        values = np.stack([table[name].astype(np.float32) for name in names], axis=-1)
        if not np.isfinite(values).all():
            raise ValueError(f"the splat file '{path}' holds values that are not finite in '{names[0]}'; make it again")
        return torch.from_numpy(values)

    names = list(table.dtype.names or ())
    rest = sorted((name for name in names if name.startswith("f_rest_")), key=lambda name: (len(name), name))
    if len(rest) not in _REST_COUNTS or rest != [f"f_rest_{i}" for i in range(len(rest))]:
        raise ValueError(f"'{path}' has {len(rest)} f_rest values per splat; expected 0, 9, 24 or 45")
    harmonics = take(rest).reshape(len(table), 3, -1).transpose(1, 2).contiguous() if rest else None
    quaternions = take([f"rot_{axis}" for axis in range(4)])
    if bool((quaternions.norm(dim=-1) < 1e-6).any()):
        raise ValueError(f"the splat file '{path}' holds a rotation of length zero; make it again")
    scales = take([f"scale_{axis}" for axis in range(3)]).exp()
    if not bool(torch.isfinite(scales).all()):
        raise ValueError(f"the splat file '{path}' holds scales too large to use; scales are stored as logarithms")
    gaussians = Gaussians(
        means=take(["x", "y", "z"]),
        quaternions=torch.nn.functional.normalize(quaternions, dim=-1),
        scales=scales,
        opacities=torch.sigmoid(take(["opacity"])[:, 0].double()).float(),
        colors=take([f"f_dc_{c}" for c in range(3)]) * SH_C0 + 0.5,
        harmonics=harmonics,
    )
    known = {*_REQUIRED, *rest, "nx", "ny", "nz"}
    extra = {name: take([name])[:, 0] for name in names if name not in known}
    return gaussians, extra
