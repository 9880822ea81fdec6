"""Speed and picture statistics of the procedural worlds, as a Markdown table.

    python bench/worlds.py [--scenes 16] [--views 8] [--size 128]

Speed is processor time per scene on one core. The spectrum's slope is that of log amplitude over log frequency, mean
over directions, between 4 and 48 cycles per picture; photographs have about -1.2. Mean and deviation are of grey levels
in [0, 1], saturation is (max - min) / max of the channels.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from latent3d.worlds import sample_clip

FAMILIES = ("rooms", "open", "objects", "other")


def spectrum_slope(grey: torch.Tensor, low: int = 4, high: int = 48) -> float:
    """Slope of log amplitude over log frequency of pictures (n, s, s)."""
    size = grey.shape[-1]
    window = torch.hann_window(size, periodic=False)
    centred = (grey - grey.mean((-2, -1), keepdim=True)) * window[:, None] * window
    amplitude = torch.fft.fft2(centred).abs().mean(0)
    frequency = torch.fft.fftfreq(size) * size
    radius = (frequency[:, None] ** 2 + frequency**2).sqrt().round().long()
    rings = [float(amplitude[radius == r].mean()) for r in range(low, high)]
    return float(np.polyfit(np.log(np.arange(low, high)), np.log(rings), 1)[0])


def measure(family: str, scenes: int, views: int, size: int) -> str:
    """A line of the table."""
    split = "test" if family == "other" else "val"
    sample_clip(family, split, 10_000, num_views=1, height=size, width=size)  # compiles
    start, pictures = time.process_time(), []
    for index in range(scenes):
        pictures.append(sample_clip(family, split, 10_000 + index, num_views=views, height=size, width=size).images)
    seconds = (time.process_time() - start) / scenes
    images = torch.cat(pictures)
    grey = images.mean(1)
    saturation = (images.amax(1) - images.amin(1)) / images.amax(1).clamp_min(1e-3)
    figures = (
        f"{spectrum_slope(grey):.2f} | {grey.mean():.2f} | {grey.std((-2, -1)).mean():.2f} | {saturation.mean():.2f}"
    )
    return f"| {family} | {seconds:.2f} | {figures} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=16, help="scenes per family")
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--size", type=int, default=128, help="side of a picture in pixels")
    options = parser.parse_args()
    print("| worlds | CPU s/scene | slope of the amplitude spectrum | mean | deviation | saturation |")
    print("|---|---|---|---|---|---|")
    for family in FAMILIES:
        print(measure(family, options.scenes, options.views, options.size), flush=True)


if __name__ == "__main__":
    main()
