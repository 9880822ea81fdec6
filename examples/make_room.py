"""Draws examples/room.jpg: one picture of a procedural test world, with the field of view in its EXIF data."""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image

from latent3d.io.images import DIAGONAL_35MM
from latent3d.worlds import sample_clip

HEIGHT, WIDTH = 480, 640


def main() -> None:
    clip = sample_clip("rooms", "test", 113, num_views=1, height=HEIGHT, width=WIDTH)
    focal = float(clip.cameras.k[0, 0, 0])
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = round(focal * DIAGONAL_35MM / math.hypot(HEIGHT, WIDTH))
    pixels = (clip.images[0] * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(Path(__file__).parent / "room.jpg", quality=92, exif=exif)


if __name__ == "__main__":
    main()
