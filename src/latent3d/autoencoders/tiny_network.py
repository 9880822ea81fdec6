"""The plain convolutional autoencoder of Stable Diffusion's TAESD, with the values and keys of diffusers' class.

`TinyNetwork` computes bit for bit what ``diffusers.AutoencoderTiny`` does and starts from the same random weights, but
needs nothing of diffusers, whose import alone takes longer than all that the shipped model does with this network.

Letters: c channels of the pictures, C latent channels, h = H / 2^(levels - 1), w likewise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "silu": nn.SiLU, "swish": nn.SiLU, "gelu": nn.GELU, "mish": nn.Mish,
}  # fmt: skip


class TinyBlock(nn.Module):
    """Three convolutions with a residual path, and a ReLU over the sum; widths stay."""

    def __init__(self, channels: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(channels), act(), _conv(channels), act(), _conv(channels))
        self.skip = nn.Identity()
        self.fuse = nn.ReLU()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return self.fuse(self.conv(x) + self.skip(x))


class TinyEncoder(nn.Module):
    """Pictures to latents: blocks on every level, a strided convolution between levels."""

    def __init__(self, pictures: int, latents: int, widths: Sequence[int], blocks: Sequence[int], act: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for level, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            layers.append(
                nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False)
                if level
                else nn.Conv2d(pictures, width, 3, padding=1)
            )
            layers += [TinyBlock(width, _activation(act)) for _ in range(count)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], latents, 3, padding=1))

    def forward(self, x: Float[Tensor, "n c H W"]) -> Float[Tensor, "n C h w"]:
        return self.layers((x + 1) / 2)


class TinyDecoder(nn.Module):
    """Latents, softly kept within 3, to pictures: blocks on every level, nearest upsampling between levels."""

    def __init__(self, latents: int, pictures: int, widths: Sequence[int], blocks: Sequence[int], act: str) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(latents, widths[0], 3, padding=1), _activation(act)()]
        for level, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            layers += [TinyBlock(width, _activation(act)) for _ in range(count)]
            if level < len(widths) - 1:
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1, bias=False)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], pictures, 3, padding=1))

    def forward(self, z: Float[Tensor, "n C h w"]) -> Float[Tensor, "n c H W"]:
        return self.layers(torch.tanh(z / 3) * 3) * 2 - 1


class TinyNetwork(nn.Module):
    """Encoder and decoder of pictures in [-1, 1].

    Args:
        pictures, latents: channels c and C.
        encoder_widths, decoder_widths: channels by level, the encoder's from fine to coarse, the decoder's from coarse
            to fine; all widths of one side are equal.
        encoder_blocks, decoder_blocks: residual blocks by level, in the same order.
        act: key of `ACTIVATIONS`, of the blocks.

    Raises:
        ValueError: for an unknown activation.
    """

    def __init__(
        self,
        pictures: int,
        latents: int,
        *,
        encoder_widths: Sequence[int],
        decoder_widths: Sequence[int],
        encoder_blocks: Sequence[int],
        decoder_blocks: Sequence[int],
        act: str = "relu",
    ) -> None:
        super().__init__()
        self.encoder = TinyEncoder(pictures, latents, encoder_widths, encoder_blocks, act)
        self.decoder = TinyDecoder(latents, pictures, decoder_widths, decoder_blocks, act)

    def encode(self, pictures: Float[Tensor, "n c H W"]) -> Float[Tensor, "n C h w"]:
        """Latents."""
        return self.encoder(pictures)

    def decode(self, latents: Float[Tensor, "n C h w"]) -> Float[Tensor, "n c H W"]:
        """Pictures."""
        return self.decoder(latents)


def _activation(name: str) -> type[nn.Module]:
    if name not in ACTIVATIONS:
        raise ValueError(f"there is no activation '{name}' in this autoencoder; choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _conv(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1)
