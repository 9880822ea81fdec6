"""Parts that the image autoencoder adds to the networks of diffusers: a linear path over patches, and TAEF2's block."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class LinearPatches(nn.Module):
    """Linear autoencoder of f x f patches: one 1x1 convolution each way around a pixel (un)shuffle.

    It starts as the C most energetic functions of a cosine basis (DCT-II in space, Hadamard-like opponent axes in
    colour), each scaled to about unit variance; for natural and rendered pictures that is nearly their PCA, and alone
    it reaches about 27, 30 and 33 dB on rendered rooms with 4, 8 and 16 channels at f = 8. Training moves it freely.
    """

    def __init__(self, latent_channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        basis, std = cosine_patch_basis(factor, latent_channels)
        self.analysis = nn.Conv2d(basis.shape[1], latent_channels, 1)
        self.synthesis = nn.Conv2d(latent_channels, basis.shape[1], 1)
        whitened, bases = basis / std[:, None], (basis * std[:, None]).T
        grey = torch.full((basis.shape[1],), 0.5)  # pictures are centred at 0.5
        self.analysis.load_state_dict({"weight": whitened[:, :, None, None], "bias": -whitened @ grey})
        self.synthesis.load_state_dict({"weight": bases[:, :, None, None], "bias": grey})

    def encode(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n C h w"]:
        """Coefficients of each patch; never in half precision, as this path alone carries the picture's colours."""
        with torch.autocast(images.device.type, enabled=False):
            return self.analysis(functional.pixel_unshuffle(images, self.factor))

    def decode(self, latents: Float[Tensor, "n C h w"]) -> Float[Tensor, "n 3 H W"]:
        """Patches from coefficients."""
        with torch.autocast(latents.device.type, enabled=False):
            return functional.pixel_shuffle(self.synthesis(latents), self.factor)


def cosine_patch_basis(factor: int, count: int) -> tuple[Float[Tensor, "count d"], Float[Tensor, " count"]]:
    """The ``count`` orthonormal functions of colour f x f patches with the largest expected variance, d = 3 f^2.

    Returns:
        The functions, laid out as ``pixel_unshuffle`` lays out patches (colour, row, column), and the expected
        standard deviation of their coefficients. The expectation is a coarse fit to pictures in [0, 1]: variance
        (5, 0.55, 0.45) f^2 / 64 for the means of the three colour axes, times 0.03 / (u + v)^2 at frequency (u, v).
    """
    if not 1 <= count <= 3 * factor**2:
        raise ValueError(f"a {factor}x{factor} colour patch has {3 * factor**2} functions; {count} were asked for")
    k = torch.arange(factor, dtype=torch.float64)
    waves = torch.cos(torch.pi * k[:, None] * (k + 0.5) / factor)
    waves = waves / waves.norm(dim=1, keepdim=True)
    axes = torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    axes = axes / axes.norm(dim=1, keepdim=True)
    basis = torch.einsum("ac,ui,vj->auvcij", axes, waves, waves).reshape(3 * factor**2, 3 * factor**2)
    frequency = k[:, None] + k
    falloff = torch.where(frequency == 0, 1.0, 0.03 / frequency.clamp(min=1) ** 2)
    variance = torch.tensor([5, 0.55, 0.45], dtype=torch.float64)[:, None, None] * falloff * factor**2 / 64
    order = variance.flatten().argsort(descending=True, stable=True)[:count]
    return basis[order].float(), variance.flatten()[order].sqrt().float()


class PooledBlock(nn.Module):
    """Residual block of `AutoencoderTiny` with a branch of image-wide statistics in front, as TAEF2 has it.

    x' = x + P2 relu(GN(P1 x)) with 1x1 convolutions c -> 4 c -> c and 4 groups, then the block. The parts keep the
    names of the published weights.
    """

    def __init__(self, block: Any, channels: int) -> None:
        super().__init__()
        self.conv, self.skip, self.fuse = block.conv, block.skip, block.fuse
        self.pool = nn.Sequential(
            nn.Conv2d(channels, 4 * channels, 1, bias=False),
            nn.GroupNorm(4, 4 * channels),
            nn.ReLU(),
            nn.Conv2d(4 * channels, channels, 1, bias=False),
        )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        x = x + self.pool(x)
        return self.fuse(self.conv(x) + self.skip(x))
