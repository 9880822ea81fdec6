"""A picture as a condition: its preparation, and a small vision transformer that is trained with the model.

Letters: B = batch, H, W = image size, S = side of the prepared picture, L = patches, E = width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.conditioning.text import Encoding
from latent3d.config import Config
from latent3d.nn.attention import EncoderBlock
from latent3d.nn.layers import RMSNorm

FOREGROUND = 0.85
"""Share of the prepared picture's side that the longer side of the object takes."""
VISIBLE = 0.5
"""Alpha from which a pixel counts as the object when its box is taken."""


def over_white(rgb: Float[Tensor, "*b 3 H W"], alpha: Float[Tensor, "*b 1 H W"]) -> Float[Tensor, "*b 3 H W"]:
    """Straight (not premultiplied) colours over white, as `Views` holds them."""
    return torch.lerp(torch.ones_like(rgb), rgb, alpha)


def prepare_picture(
    rgb: Float[Tensor, "B 3 H W"],
    alpha: Float[Tensor, "B 1 H W"] | None,
    size: int,
    foreground: float = FOREGROUND,
) -> Float[Tensor, "B 3 {size} {size}"]:
    """Pictures of objects in the frame that the encoders know: the same in Python, the command line and evaluation.

    The box of the pixels with alpha of at least one half is cut out, and set in the middle of a white square whose side
    is the box's longer side divided by ``foreground``; what the picture shows between box and border is kept, so that a
    soft edge is not cut off. Then the square is resized, bicubic with antialiasing.

    Args:
        rgb: sRGB in [0, 1], over white (see `over_white`).
        alpha: coverage in [0, 1]; None where the whole picture is the object, which then gets no margin.
        size: side of the result in pixels.
        foreground: share of the side, in (0, 1].

    Raises:
        ValueError: for a picture without any visible pixel, or a share outside (0, 1].
    """
    if not 0 < foreground <= 1:
        raise ValueError(f"the object's share of the picture must lie in (0, 1], found {foreground}")
    height, width = rgb.shape[-2:]
    prepared = []
    for index, picture in enumerate(rgb.float()):
        top, bottom, left, right = 0, height, 0, width
        share = 1.0
        if alpha is not None:
            top, bottom, left, right = _box(alpha[index, 0], index)
            share = foreground
        longer = max(bottom - top, right - left)
        side = math.ceil(longer / share)
        side += (side - longer) % 2  # as much on the left as on the right
        y, x = top - (side - (bottom - top)) // 2, left - (side - (right - left)) // 2
        padding = (max(0, -x), max(0, x + side - width), max(0, -y), max(0, y + side - height))
        square = F.pad(picture, padding, value=1.0)[:, max(y, 0) : max(y, 0) + side, max(x, 0) : max(x, 0) + side]
        prepared.append(F.interpolate(square[None], (size, size), mode="bicubic", antialias=True, align_corners=False))
    return torch.cat(prepared).clamp(0, 1)


def _box(alpha: Float[Tensor, "H W"], index: int) -> tuple[int, int, int, int]:
    """Top, bottom, left, right (exclusive) of the visible pixels."""
    rows, columns = ((alpha >= VISIBLE).any(dim).nonzero() for dim in (1, 0))
    if not len(rows):
        raise ValueError(
            f"picture {index} of the batch shows nothing: no pixel has an alpha of {VISIBLE} or more; "
            "give a picture of an object"
        )
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


@dataclass(frozen=True, kw_only=True)
class SmallViTConfig(Config):
    """Sizes of a `SmallViT`.

    Attributes:
        image_size, patch: pixels per side.
        dim, depth, heads: of the transformer.
        embedding: E, width of tokens and pooled vector.
    """

    image_size: int = 64
    patch: int = 8
    dim: int = 192
    depth: int = 4
    heads: int = 6
    embedding: int = 256

    @classmethod
    def tiny(cls, embedding: int = 16) -> SmallViTConfig:
        """For tests."""
        return cls(image_size=16, patch=8, dim=16, depth=1, heads=2, embedding=embedding)

    @property
    def token_dim(self) -> int:
        """E."""
        return self.embedding

    @property
    def pooled_dim(self) -> int:
        """P = E."""
        return self.embedding

    @property
    def token_count(self) -> int:
        """L."""
        return (self.image_size // self.patch) ** 2

    def build(self) -> SmallViT:
        """The encoder with random weights.

        Raises:
            ValueError: if the image size is no multiple of the patch.
        """
        return SmallViT(self)


class SmallViT(nn.Module):
    """Prepared pictures to patch tokens and their mean (Dosovitskiy et al. 2021), small enough to train along.

    Args:
        config: sizes.
    """

    def __init__(self, config: SmallViTConfig) -> None:
        super().__init__()
        if config.image_size % config.patch:
            raise ValueError(f"the image size {config.image_size} must be a multiple of the patch {config.patch}")
        self.config = config
        self.patches = nn.Conv2d(3, config.dim, config.patch, stride=config.patch)
        self.positions = nn.Parameter(0.02 * torch.randn(config.token_count, config.dim))
        self.blocks = nn.ModuleList(EncoderBlock(config.dim, config.heads) for _ in range(config.depth))
        self.norm = RMSNorm(config.dim)
        self.out = nn.Linear(config.dim, config.embedding)
        self.out_pooled = nn.Linear(config.dim, config.embedding)

    def forward(self, pictures: Float[Tensor, "B 3 S S"]) -> Encoding:
        """Pictures in [0, 1] of the configured size (see `prepare_picture`) to tokens and pooled vector."""
        x = self.patches(2 * pictures.to(self.patches.weight.dtype) - 1)
        x = rearrange(x, "B d y x -> B (y x) d") + self.positions
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return Encoding(self.out(x), self.out_pooled(x.mean(1)))
