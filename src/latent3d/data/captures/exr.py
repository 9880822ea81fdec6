"""Reader of OpenEXR pictures as renderers write depth and normals: one part, scan lines, no or ZIP compression.

After the header (attributes: name, type, size, value) comes a table of chunk offsets, then chunks: first line (int32),
bytes (int32), data. A ZIP chunk holds 16 lines (ZIPS: 1); its bytes were split in two halves (even and odd) and stored
as differences, which are undone in the opposite order. Within a line, channels follow one another by name.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

_TYPES: dict[int, np.dtype[Any]] = {0: np.dtype("<u4"), 1: np.dtype("<f2"), 2: np.dtype("<f4")}
_LINES = {0: 1, 2: 1, 3: 16}
"""Lines per chunk: no compression, ZIPS, ZIP."""
MAX_SIDE = 16_384


def read_exr(path: str | Path) -> dict[str, np.ndarray]:
    """All channels (H, W) in their own type, by name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or of a kind that is not read here.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no picture '{path}'; check the name")
    try:
        return _parse(path.read_bytes())
    except _KindError as error:
        raise ValueError(f"'{path}': {error}") from error
    except (struct.error, zlib.error, IndexError, KeyError, ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"'{path}' is damaged or cut short; save it again") from error


class _KindError(Exception):
    """A sentence about an EXR file of another kind."""


def _parse(data: bytes) -> dict[str, np.ndarray]:
    if data[:4] != b"\x76\x2f\x31\x01":
        raise _KindError("this is not an OpenEXR file")
    if struct.unpack_from("<I", data, 4)[0] & 0x1A00:
        raise _KindError("tiled, deep and multi-part OpenEXR files are not read; save it as plain scan lines")
    header, at = _header(data, 8)
    compression = header["compression"][0]
    if compression not in _LINES:
        raise _KindError("only OpenEXR files without compression or with ZIP are read; save it with one of these")
    left, top, right, bottom = struct.unpack("<4i", header["dataWindow"])
    width, height = right - left + 1, bottom - top + 1
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise _KindError(f"a picture of {width} x {height} pixels is not read")
    channels = _channels(header["channels"])
    line = sum(dtype.itemsize for _, dtype in channels) * width
    images = {name: np.zeros((height, width), dtype) for name, dtype in channels}
    for chunk in range(-(-height // _LINES[compression])):
        offset = struct.unpack_from("<Q", data, at + 8 * chunk)[0]
        first, size = struct.unpack_from("<2i", data, offset)
        first -= top
        lines = min(_LINES[compression], height - first)
        block = data[offset + 8 : offset + 8 + size]
        if first < 0 or lines < 1 or len(block) != size:
            raise ValueError("chunk outside the picture")
        if compression and size < lines * line:  # a chunk that would not shrink is stored as it is
            block = _inflate(block, lines * line)
        place = 0
        for row in range(first, first + lines):
            for name, dtype in channels:
                images[name][row] = np.frombuffer(block, dtype, width, place)
                place += dtype.itemsize * width
    return images


def _header(data: bytes, at: int) -> tuple[dict[str, bytes], int]:
    """Attributes by name, and where the table of offsets begins."""
    attributes = {}
    while data[at]:
        end = data.index(0, at)
        kind = data.index(0, end + 1)
        size = struct.unpack_from("<i", data, kind + 1)[0]
        if size < 0:
            raise ValueError("negative size")
        attributes[data[at:end].decode()] = data[kind + 5 : kind + 5 + size]
        at = kind + 5 + size
    return attributes, at + 1


def _channels(block: bytes) -> list[tuple[str, np.dtype[Any]]]:
    found: list[tuple[str, np.dtype[Any]]] = []
    at = 0
    while block[at]:
        end = block.index(0, at)
        kind, _, x_step, y_step = struct.unpack_from("<iiii", block, end + 1)
        if (x_step, y_step) != (1, 1):
            raise _KindError("OpenEXR files with subsampled channels are not read")
        found.append((block[at:end].decode(), _TYPES[kind]))
        at = end + 17
    return found


def _inflate(block: bytes, size: int) -> bytes:
    """Undo deflate, differences (d[i] = b[i] - b[i-1] + 128) and the split into even and odd bytes."""
    coded = np.frombuffer(zlib.decompressobj().decompress(block, size), np.uint8).astype(np.int64)
    if len(coded) != size:
        raise ValueError("chunk of another length")
    coded[1:] -= 128
    plain = (np.cumsum(coded) & 255).astype(np.uint8)
    merged = np.empty_like(plain)
    half = (size + 1) // 2
    merged[0::2], merged[1::2] = plain[:half], plain[half:]
    return merged.tobytes()
