"""Views of one object as a folder of pictures, which any tool opens and `latent3d data check` reads.

Layout::

    cameras.json      the project's camera file; each frame also names its ``depth`` and ``normal`` picture
    rgba/000.png      8-bit sRGB with straight alpha
    depth/000.png     16-bit grey: z-depth in units of DEPTH_UNIT scene units, 0 where nothing is seen
    normal/000.png    8-bit RGB: unit normal n in world axes as 127.5 (n + 1), black where nothing is seen
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from latent3d.io.camera_files import write_cameras
from latent3d.representations.views import Views

DEPTH_UNIT = 1e-4
PICTURES, DEPTHS, NORMALS = "rgba", "depth", "normal"


def write_object_pictures(folder: str | Path, views: Views) -> None:
    """Write views (V,) with alphas, depths and normals into an empty or new folder.

    Raises:
        ValueError: if one of them is missing, or an object is farther away than 16-bit depths reach.
    """
    folder = Path(folder)
    if views.alphas is None or views.depths is None or views.normals is None:
        raise ValueError("pictures of an object need alphas, depths and normals")
    farthest = float(views.depths.max())
    if farthest > 65535 * DEPTH_UNIT:
        raise ValueError(f"a depth of {farthest:.4g} is more than the {65535 * DEPTH_UNIT:.4g} that can be written")
    names = [f"{view:03d}.png" for view in range(len(views))]
    for kind in (PICTURES, DEPTHS, NORMALS):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    alphas = views.alphas.movedim(1, -1).cpu().numpy()
    images = views.images.movedim(1, -1).cpu().numpy()
    normals = views.normals.movedim(1, -1).cpu().numpy()
    depths = views.depths[:, 0].cpu().numpy()
    own = 1 - (1 - images) / np.maximum(alphas, 1e-6)  # the object's own colour, before it was laid over white
    rgba = np.concatenate([np.where(alphas > 0, own, 0), alphas], -1)
    seen = (normals != 0).any(-1, keepdims=True)
    for view, name in enumerate(names):
        Image.fromarray(_bytes(rgba[view] * 255)).save(folder / PICTURES / name)
        Image.fromarray(np.rint(depths[view] / DEPTH_UNIT).astype(np.uint16)).save(folder / DEPTHS / name)
        Image.fromarray(_bytes(np.where(seen[view], 127.5 * (normals[view] + 1), 0))).save(folder / NORMALS / name)
    write_cameras(
        folder / "cameras.json",
        views.cameras,
        [f"{PICTURES}/{name}" for name in names],
        entries=[
            {"depth": f"{DEPTHS}/{name}", "depth_metres_per_unit": DEPTH_UNIT, "normal": f"{NORMALS}/{name}"}
            for name in names
        ],
    )


def read_normals(path: str | Path) -> np.ndarray:
    """Unit normals (H, W, 3) in world axes of a picture in ``normal/``; zero where it is black.

    Raises:
        FileNotFoundError, ValueError: if it is not there or no colour picture.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no picture of normals '{path}'")
    try:
        with Image.open(path) as picture:
            stored = np.asarray(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the picture of normals '{path}' is damaged") from error
    if stored.dtype != np.uint8 or stored.ndim != 3 or stored.shape[-1] != 3:
        raise ValueError(f"the picture of normals '{path}' must have 8 bits in each of three channels")
    normals = stored.astype(np.float32) / 127.5 - 1
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.where(stored.any(-1, keepdims=True), normals / np.maximum(length, 1e-6), 0).astype(np.float32)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, 255).astype(np.uint8)
