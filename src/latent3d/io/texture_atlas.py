"""Several pictures in one: folding repeats, baking colours of faces into texels, packing.

Texture coordinates are (u to the right, v down), [0, 1] spanning the picture from edge to edge; texel centres lie at
(i + 0.5) / size. Letters: F faces, k texels along the side of a face's cell.
"""

from __future__ import annotations

import io
import math
import warnings

import numpy as np
from PIL import Image

MAX_SIDE = 4096
"""Larger textures are reduced; atlases are kept below this where they can be."""
MAX_PIXELS = 178_000_000
"""Larger pictures are refused before they are unpacked."""
MAX_REPEATS = 64
"""A texture repeated more often than this along one side of an atlas is refused."""
PADDING = 4
"""Texels around every picture of an atlas that continue its border, so that blending never meets a neighbour."""
CELL_MAX = 64
"""Most texels along the side of the cell that a face with texture and colours per corner is baked into."""


def decode_texture(data: bytes) -> np.ndarray:
    """sRGB in [0, 1], (T, U, 3) float32. Alpha is left out: a `Mesh` is opaque.

    Raises:
        ValueError: if the bytes are not a picture, are damaged or unpack to more than `MAX_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large or oddly tagged files; the checks here decide
            with Image.open(io.BytesIO(data)) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise ValueError(f"it has more than {MAX_PIXELS // 1_000_000} million pixels")
                factor = math.ceil(max(picture.size) / MAX_SIDE)
                deep = picture.mode.startswith("I")
                flat = picture if deep else picture.convert("RGBA").convert("RGB")
                flat = flat.reduce(factor) if factor > 1 else flat
                values = np.asarray(flat, np.float32) / (65535 if deep else 255)
    except Exception as error:  # decoders of many authors: damaged data surfaces as almost any type
        raise ValueError(f"it cannot be read as a picture ({error})") from error
    values = np.clip(values, 0, 1)
    return np.repeat(values[..., None], 3, -1) if deep else values


def encode_png(texture: np.ndarray) -> bytes:
    """8-bit PNG of sRGB values in [0, 1], (T, U, 3)."""
    stream = io.BytesIO()
    Image.fromarray(np.round(np.clip(texture, 0, 1) * 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def fold_repeats(uvs: np.ndarray, slack: float) -> tuple[np.ndarray, tuple[int, int]]:
    """Coordinates moved by whole repeats, face by face, to start in [0, 1), and how many repeats (u, v) they then span.

    Raises:
        ValueError: for a face that spans more than `MAX_REPEATS` repeats.
    """
    folded = uvs - np.floor(uvs.min(axis=1, keepdims=True) + slack)
    spans = np.maximum(1, np.ceil(folded.max(axis=(0, 1)) - slack)).astype(np.int64)
    if spans.max() > MAX_REPEATS:
        raise ValueError(
            f"a texture repeats {spans.max()} times on one face, beside other materials, which one picture cannot hold "
            f"(at most {MAX_REPEATS}); cut the face or join the materials"
        )
    return folded, (int(spans[0]), int(spans[1]))


def bake_faces(texture: np.ndarray | None, uvs: np.ndarray | None, colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A picture in which every face has its own cell: texture (if any) times colours per corner, all linear.

    Corner 0 of a face sits on the first texel of the core of its cell, corner 1 at the end of the first row, corner 2
    at the end of the first column; beyond the diagonal the values go on linearly, so that bilinear reading of a face
    without texture gives exactly the linear blend of its corners. One texel around the core repeats it.

    Args:
        texture: (T, U, 3) or None; it repeats.
        uvs: (F, 3, 2), where there is a texture.
        colors: (F, 3, 3).

    Returns:
        the picture (rows, columns, 3) and the coordinates of the corners in it (F, 3, 2).
    """
    faces, core = len(colors), 2
    across = math.ceil(math.sqrt(faces))
    if texture is not None and uvs is not None:
        texels = np.abs(uvs[:, 1:] - uvs[:, :1]) * np.array([texture.shape[1], texture.shape[0]])
        core = int(np.clip(math.ceil(texels.max()) + 1, 2, max(2, min(CELL_MAX, MAX_SIDE // across - 2))))
    cell = core + 2
    step = np.clip(np.arange(cell) - 1, 0, core - 1) / (core - 1)
    weights = np.stack([1 - step[:, None] - step, np.broadcast_to(step, (cell, cell)), step[:, None] + 0 * step], -1)
    values = np.einsum("ijc,fcd->fijd", weights, colors).clip(0, None)
    if texture is not None and uvs is not None:
        place = np.einsum("ijc,fcd->fijd", weights, uvs) * np.array([texture.shape[1], texture.shape[0]])
        column, row = np.floor(place).astype(np.int64).transpose(3, 0, 1, 2)
        values = values * texture[row % texture.shape[0], column % texture.shape[1]]
    cells = np.zeros((across * across, cell, cell, 3), np.float32)
    cells[:faces] = values
    picture = cells.reshape(across, across, cell, cell, 3).transpose(0, 2, 1, 3, 4).reshape(across * cell, -1, 3)
    number = np.arange(faces)
    corner = np.stack([number % across, number // across], -1)[:, None] * cell + 1.5
    offsets = np.array([[0, 0], [core - 1, 0], [0, core - 1]])
    return picture, (corner + offsets) / (across * cell)


def pack(tiles: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All pictures in one, in rows by falling height.

    Returns:
        the atlas (T, U, 3), and for each picture the scale and the shift (tiles, 2, 2) that take its own coordinates
        (u, v) to those of the atlas: uv * scale + shift.
    """
    shrink = 1
    while True:  # ever smaller, until they fit
        pictures = [tile[::shrink, ::shrink] if shrink == 1 else _reduced(tile, shrink) for tile in tiles]
        places, height, width = _rows([picture.shape[:2] for picture in pictures])
        if max(height, width) <= MAX_SIDE or all(max(picture.shape[:2]) <= 2 for picture in pictures):
            break
        shrink *= 2
    atlas = np.ones((height, width, 3), np.float32)
    move = np.empty((len(tiles), 2, 2))
    size = np.array([width, height])
    for number, (picture, (top, left)) in enumerate(zip(pictures, places, strict=True)):
        rows, columns = picture.shape[:2]
        framed = np.pad(picture, ((PADDING, PADDING), (PADDING, PADDING), (0, 0)), mode="edge")
        atlas[top : top + rows + 2 * PADDING, left : left + columns + 2 * PADDING] = framed
        move[number, 0] = np.array([columns, rows]) / size
        move[number, 1] = np.array([left + PADDING, top + PADDING]) / size
    return atlas, move


def _reduced(tile: np.ndarray, factor: int) -> np.ndarray:
    """Smaller by box averages; sides below the factor become one texel."""
    rows, columns = (max(1, side // factor) for side in tile.shape[:2])
    high, wide = tile.shape[0] // rows, tile.shape[1] // columns
    return tile[: rows * high, : columns * wide].reshape(rows, high, columns, wide, 3).mean((1, 3))


def _rows(sizes: list[tuple[int, ...]]) -> tuple[list[tuple[int, int]], int, int]:
    """Upper left corners of padded rectangles set in rows, and the height and width of it all."""
    padded = [(rows + 2 * PADDING, columns + 2 * PADDING) for rows, columns in sizes]
    area = sum(rows * columns for rows, columns in padded)
    width = max(max(columns for _, columns in padded), math.ceil(math.sqrt(area)))
    places, top, left, reach, used = [(0, 0)] * len(sizes), 0, 0, 0, 0
    for number in sorted(range(len(sizes)), key=lambda index: -padded[index][0]):
        rows, columns = padded[number]
        if left + columns > width:
            top, left, reach = top + reach, 0, 0
        places[number] = (top, left)
        left, reach = left + columns, max(reach, rows)
        used = max(used, left)
    return places, top + reach, used
