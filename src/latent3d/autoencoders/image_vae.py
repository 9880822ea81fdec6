"""Image autoencoder: pictures in [0, 1] to latents of about unit variance and back, on known networks.

One thin module over three classes of diffusers, so that foreign weights load unchanged: ``AutoencoderKL`` (Stable
Diffusion), ``AutoencoderKLTemporalDecoder`` (Stable Video Diffusion) and ``AutoencoderTiny`` (TAESD and relatives); the
last is built here without diffusers, see `tiny_network`.

Letters: C latent channels, f reduction factor, h = H / f, w = W / f, p patch size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from latent3d.autoencoders.blocks import LinearPatches
from latent3d.autoencoders.image_networks import build_network, silence_outputs
from latent3d.config import Config
from latent3d.memory import in_parts

PICTURES_AT_ONCE = {"lean": 4, "leanest": 1}
"""At these memory levels, see `latent3d.memory`."""
KINDS = ("AutoencoderKL", "AutoencoderTiny", "AutoencoderKLTemporalDecoder")


@dataclass(frozen=True, kw_only=True)
class ImageVAEConfig(Config):
    """Which network, how wide, and how latents are normalised. The defaults are the ``small`` preset.

    Attributes:
        kind: one of `KINDS`, a class of diffusers.
        latent_channels: C.
        patch_size: p; images are folded to (3 p^2, H/p, W/p) before the network and unfolded behind it, which moves
            the costly full-resolution layers to a coarser grid. 1 for all foreign weights.
        block_out_channels: widths of the encoder from fine to coarse; each entry but the first halves the size.
        decoder_channels: widths of the decoder from coarse to fine; None mirrors the encoder. ``AutoencoderTiny`` only
            (and there all widths of one side are equal, as its strided convolutions keep the width).
        encoder_layers, decoder_layers: residual blocks per level, in the order of the widths. The two KL kinds take
            one number for all encoder levels, and their decoders always have one block more (None).
        act: activation of the network's blocks.
        norm_groups: groups of the group norms (``AutoencoderKL``).
        mid_attention: self-attention at the coarsest level (``AutoencoderKL``).
        mid_pool: blocks of the coarsest level also see group-normed statistics, as in TAEF2 (``AutoencoderTiny``).
        quant_conv, post_quant_conv: 1x1 convolutions around the latent (``AutoencoderKL``).
        posterior_std: fixed standard deviation of the latent, in the network's own units, for kinds whose encoder
            predicts none (``AutoencoderTiny``).
        linear_path: a linear autoencoder over f x f patches beside the network (see `LinearPatches`), which then learns
            only the rest; off for all foreign weights.
        scaling_factor, shift_factor: initial normalisation, latents = (z - shift) * scale, as diffusers writes it;
            `ImageVAE.fit_normalization` replaces it by statistics per channel.
    """

    kind: str = "AutoencoderTiny"
    latent_channels: int = 8
    patch_size: int = 4
    block_out_channels: tuple[int, ...] = (64, 64)
    decoder_channels: tuple[int, ...] | None = None
    encoder_layers: tuple[int, ...] = (2, 2)
    decoder_layers: tuple[int, ...] | None = (3, 3)
    act: str = "relu"
    norm_groups: int = 8
    mid_attention: bool = False
    mid_pool: bool = False
    quant_conv: bool = True
    post_quant_conv: bool = True
    posterior_std: float = 0.05
    linear_path: bool = True
    scaling_factor: float = 1.0
    shift_factor: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of autoencoder '{self.kind}'; choose one of {', '.join(KINDS)}")
        if len(self.encoder_layers) != len(self.block_out_channels):
            raise ValueError("encoder_layers needs one number per entry of block_out_channels")
        if self.scaling_factor <= 0:
            raise ValueError(f"scaling_factor must be positive, found {self.scaling_factor}")
        if self.kind == "AutoencoderTiny":
            self._check_tiny()
        elif len(set(self.encoder_layers)) > 1 or self.decoder_layers is not None or self.decoder_channels is not None:
            raise ValueError(f"{self.kind} takes equal encoder_layers, and no decoder_layers or decoder_channels")

    def _check_tiny(self) -> None:
        for name in ("block_out_channels", "decoder_channels"):
            widths = getattr(self, name)
            if widths is not None and (len(set(widths)) > 1 or len(widths) != len(self.block_out_channels)):
                raise ValueError(f"AutoencoderTiny needs equal {name} on {len(self.block_out_channels)} levels")
        if self.decoder_layers is not None and len(self.decoder_layers) != len(self.block_out_channels):
            raise ValueError("decoder_layers needs one number per entry of block_out_channels")

    @property
    def factor(self) -> int:
        """f: pixels per latent cell along one axis."""
        return self.patch_size * 2 ** (len(self.block_out_channels) - 1)

    def build(self) -> ImageVAE:
        """The module, with random weights."""
        return ImageVAE(self)


def image_vae_small(latent_channels: int = 8) -> ImageVAEConfig:
    """Preset for training at 128x128 on a few CPU cores: factor 8, 1.25 M parameters.

    At equal CPU time it beat AutoencoderKL of 2.5 M parameters, wider decoders, and patches of 1 and 2.
    """
    return ImageVAEConfig(latent_channels=latent_channels)


def image_vae_small_tiny(latent_channels: int = 4) -> ImageVAEConfig:
    """The same kinds of layers at a size for tests: factor 8."""
    return ImageVAEConfig(
        latent_channels=latent_channels, block_out_channels=(8, 8), encoder_layers=(1, 1), decoder_layers=(1, 1)
    )


class ImageVAE(nn.Module):
    """Images (..., 3, H, W) in [0, 1] <-> latents (..., C, H/f, W/f) of about unit variance.

    The normalisation (``latent_mean``, ``latent_std``, one value per channel) is part of the weights. While the
    autoencoder trains it stays the identity; `fit_normalization` sets it once afterwards.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: ImageVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.network = build_network(config)
        if config.kind == "AutoencoderTiny":  # plain convolutions: about 1.2x faster on CPU in this layout
            self.network = self.network.to(memory_format=torch.channels_last)
        self.linear = LinearPatches(config.latent_channels, config.factor) if config.linear_path else None
        if self.linear is not None:
            silence_outputs(self.network, config)
        shape = (config.latent_channels, 1, 1)
        self.register_buffer("latent_mean", torch.full(shape, float(config.shift_factor)))
        self.register_buffer("latent_std", torch.full(shape, 1.0 / config.scaling_factor))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> ImageVAE:
        """Foreign weights from a folder in diffusers' layout, strictly; see `autoencoders.pretrained`."""
        from latent3d.autoencoders.pretrained import load_image_vae

        return load_image_vae(folder)

    @property
    def factor(self) -> int:
        """f: pixels per latent cell along one axis."""
        return self.config.factor

    @property
    def prefers_channels_last(self) -> bool:
        """Whether inference is faster in that layout (see `nn.inference`): AutoencoderKL 1.2 to 1.4 times on a CPU."""
        return self.config.kind == "AutoencoderKL"

    @property
    def latent_channels(self) -> int:
        """C."""
        return self.config.latent_channels

    def encode(
        self,
        images: Float[Tensor, "*batch 3 H W"],
        *,
        sample: bool = False,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch C h w"]:
        """Normalised latents: the posterior mean, or with ``sample`` a draw from the posterior.

        Raises:
            ValueError: when H or W is not a multiple of the factor.
        """
        mean, std = self.posterior(images)
        latents = mean + std * _noise_like(mean, generator) if sample else mean
        return self.normalize(latents)

    def decode(self, latents: Float[Tensor, "*batch C h w"], *, clamp: bool = True) -> Float[Tensor, "*batch 3 H W"]:
        """Images from normalised latents; in [0, 1] unless ``clamp`` is off.

        ``AutoencoderKLTemporalDecoder`` mixes frames along the last leading axis (a video); others do not.

        Raises:
            ValueError: for another number of latent channels.
        """
        if latents.shape[-3] != self.latent_channels:
            raise ValueError(f"this autoencoder has {self.latent_channels} latent channels, not {latents.shape[-3]}")
        images = self._decode_raw(self.denormalize(latents))
        return images.clamp(0, 1) if clamp else images

    def normalize(self, raw: Float[Tensor, "*batch C h w"]) -> Float[Tensor, "*batch C h w"]:
        """(z - mean) / std per channel."""
        return (raw - self.latent_mean.to(raw)) / self.latent_std.to(raw)

    def denormalize(self, latents: Float[Tensor, "*batch C h w"]) -> Float[Tensor, "*batch C h w"]:
        """Inverse of `normalize`."""
        return latents * self.latent_std.to(latents) + self.latent_mean.to(latents)

    def posterior(
        self, images: Float[Tensor, "*batch 3 H W"]
    ) -> tuple[Float[Tensor, "*batch C h w"], Float[Tensor, "*batch C h w"]]:
        """Mean and standard deviation of q(z | image) in the network's own units, before normalisation.

        Raises:
            ValueError: when H or W is not a multiple of the factor.
        """
        height, width = images.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"image size {width}x{height} is not a multiple of {self.factor}; resize or crop the images first"
            )
        batch = images.shape[:-3]
        flat = images.reshape(-1, 3, height, width).to(self.latent_mean.dtype)
        mean, std = in_parts(self._moments, flat, **PICTURES_AT_ONCE)
        mean, std = mean.to(images.dtype), std.to(images.dtype)
        if self.linear is not None:
            mean = mean + self.linear.encode(flat).to(images.dtype)
        return mean.reshape(*batch, *mean.shape[1:]), std.reshape(*batch, *std.shape[1:])

    def _moments(self, flat: Float[Tensor, "n 3 H W"]) -> tuple[Tensor, Tensor]:
        """What the network says of pictures: mean and standard deviation."""
        out = self.network.encode(self._layout(functional.pixel_unshuffle(flat * 2 - 1, self.config.patch_size)))
        if self.config.kind == "AutoencoderTiny":
            return out, torch.full_like(out, self.config.posterior_std)
        return out.latent_dist.mean, out.latent_dist.std

    def _decode_raw(self, raw: Tensor) -> Tensor:
        batch = raw.shape[:-3]
        flat = self._layout(raw.reshape(-1, *raw.shape[-3:]).to(self.latent_mean.dtype))
        if self.config.kind == "AutoencoderKLTemporalDecoder":  # all frames of a video see each other
            frames = batch[-1] if batch else 1
            videos = flat.unflatten(0, (-1, frames))
            out = in_parts(lambda some: self._video(some, frames), videos, lean=len(videos), leanest=1).flatten(0, 1)
        elif self.config.kind == "AutoencoderTiny":
            out = in_parts(self.network.decode, flat, **PICTURES_AT_ONCE)
        else:
            out = in_parts(lambda some: self.network.decode(some).sample, flat, **PICTURES_AT_ONCE)
        images = functional.pixel_shuffle(out, self.config.patch_size).to(raw.dtype) * 0.5
        images = images + (0.5 if self.linear is None else self.linear.decode(flat).to(raw.dtype))
        return images.reshape(*batch, *images.shape[1:])

    def _video(self, videos: Float[Tensor, "n m C h w"], frames: int) -> Tensor:
        return self.network.decode(videos.flatten(0, 1), num_frames=frames).sample.unflatten(0, (-1, frames))

    def _layout(self, tensor: Tensor) -> Tensor:
        if self.config.kind == "AutoencoderTiny":
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor.contiguous()

    def training_terms(
        self, images: Float[Tensor, "*batch 3 H W"], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Unweighted scalars of one training step on a sampled latent.

        ``l1``, ``mse``: reconstruction. ``edge``: see `edge_loss`; it favours sharp edges and stands in for a
        perceptual distance. ``kl``: mean over latent values of KL(q(z | image) || N(0, 1)), in nats.
        """
        mean, std = self.posterior(images)
        restored = self._decode_raw(mean + std * _noise_like(mean, generator))
        difference = restored - images
        return {
            "l1": difference.abs().mean(),
            "mse": difference.square().mean(),
            "edge": edge_loss(restored, images),
            "kl": kl_to_standard_normal(mean, std).mean(),
        }

    @torch.no_grad()
    def fit_normalization(self, images: Float[Tensor, "*batch 3 H W"]) -> None:
        """Set mean and standard deviation per channel from the latents of these images (a few hundred suffice)."""
        mean, _ = self.posterior(images)
        values = rearrange(mean.reshape(-1, *mean.shape[-3:]), "n c h w -> c (n h w)").double()
        self.latent_mean.copy_(values.mean(dim=1)[:, None, None])
        self.latent_std.copy_(values.std(dim=1).clamp(min=1e-6)[:, None, None])


def edge_loss(
    images: Float[Tensor, "*batch 3 H W"], targets: Float[Tensor, "*batch 3 H W"], levels: int = 3
) -> Float[Tensor, ""]:
    """Mean absolute difference of the finite differences along x and y, averaged over ``levels`` of a 2x pyramid."""
    residual = (images - targets).reshape(-1, *images.shape[-3:])  # linear, so one pyramid serves both
    terms = []
    for level in range(levels):
        if level:
            residual = functional.avg_pool2d(residual, 2)
        along_x, along_y = residual.diff(dim=-1), residual.diff(dim=-2)
        terms.append(along_x.abs().mean() + along_y.abs().mean())
    return torch.stack(terms).mean()


def kl_to_standard_normal(mean: Float[Tensor, "*n"], std: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """KL(N(mean, std^2) || N(0, 1)) = (mean^2 + std^2 - 1) / 2 - ln std, per value, in nats."""
    return 0.5 * (mean.square() + std.square() - 1) - std.clamp(min=1e-12).log()


def _noise_like(tensor: Tensor, generator: torch.Generator | None) -> Tensor:
    device = tensor.device if generator is None else generator.device
    return torch.randn(tensor.shape, generator=generator, device=device, dtype=tensor.dtype).to(tensor.device)
