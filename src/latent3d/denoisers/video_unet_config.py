"""Configuration of the video U-Net, apart from the network so that reading it does not import diffusers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latent3d.config import Config

if TYPE_CHECKING:
    from latent3d.denoisers.video_unet import VideoUNet

CROSS_DOWN, PLAIN_DOWN = "CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"
CROSS_UP, PLAIN_UP = "CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"

SVD_LATENT_SCALE = 0.18215
"""Factor that gives the latents of Stable Diffusion's autoencoders about unit variance."""


@dataclass(frozen=True, kw_only=True)
class CameraEncoderConfig(Config):
    """Sizes of the camera encoder inside a `VideoUNet`.

    Attributes:
        channels: inner width per level; None for the U-Net's own widths.
        blocks: residual blocks per level.
        kernel_size: of the residual blocks.
        heads: heads of the attention over frames.
        strength: factor s of the merges x + s Linear(x + pose).
    """

    channels: tuple[int, ...] | None = None
    blocks: int = 2
    kernel_size: int = 1
    heads: int = 8
    strength: float = 1.0


@dataclass(frozen=True, kw_only=True)
class VideoUNetConfig(Config):
    """Sizes of a `VideoUNet`.

    Attributes:
        latent_channels: C; the network reads 2 C channels (noisy and reference latents) and its own output has C.
        channels: width of each level, multiples of 32, finest first.
        attention: which levels have spatial and temporal attention.
        layers: residual blocks per level on the way down (one more on the way up).
        heads: attention heads of each level.
        context_dim: width of the context tokens (CLIP); None builds no cross-attention at all, which without a context
            would only add a constant.
        added_time_dim: width of the sinusoids of each added id.
        added_time_ids: frames per second minus one, motion bucket and noise augmentation, as SVD was trained with.
        noise_scale: factor on c_noise before its sinusoids; 1 for SVD's weights.
        camera: the encoder of Plücker maps; None for a network that ignores poses.
        condition_channels: E, maps known before denoising; 0 for none.
        downscale: image pixels per latent pixel side.
        checkpointing: recompute activations in the backward pass to save memory.
        reference_scale: factor on the reference latents where they enter. SVD's weights were trained with conditioning
            latents as its autoencoder gives them, while the noisy latents are scaled to unit variance by 0.18215; all
            latents here have unit variance, so the prior needs 1 / 0.18215. 1 for training from scratch.
        lora_rank: rank of the learned low-rank changes of all attention projections, which begin at zero; 0 for none.
    """

    latent_channels: int = 4
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    attention: tuple[bool, ...] = (True, True, True, False)
    layers: int = 2
    heads: tuple[int, ...] = (5, 10, 20, 20)
    context_dim: int | None = 1024
    added_time_dim: int = 256
    added_time_ids: tuple[float, ...] = (6.0, 127.0, 0.02)
    noise_scale: float = 1.0
    camera: CameraEncoderConfig | None = CameraEncoderConfig()
    condition_channels: int = 0
    downscale: int = 8
    checkpointing: bool = False
    reference_scale: float = 1.0
    lora_rank: int = 0

    @classmethod
    def svd(cls) -> VideoUNetConfig:
        """Stable Video Diffusion's U-Net with CameraCtrl's encoder; its published weights fit unchanged."""
        return cls(checkpointing=True, reference_scale=1 / SVD_LATENT_SCALE)

    @classmethod
    def small(cls, latent_channels: int = 8) -> VideoUNetConfig:
        """About 15 M parameters, made for 8 frames of 16x16 latents on two CPU cores."""
        return cls(
            latent_channels=latent_channels,
            channels=(64, 128, 160),
            attention=(True, True, True),
            layers=1,
            heads=(1, 2, 2),
            context_dim=None,
            added_time_dim=32,
            noise_scale=10.0,
            camera=CameraEncoderConfig(channels=(32, 64, 64), blocks=1, heads=2),
        )

    @classmethod
    def tiny(cls, latent_channels: int = 4) -> VideoUNetConfig:
        """For tests."""
        return cls(
            latent_channels=latent_channels,
            channels=(64, 64),
            attention=(True, False),
            layers=1,
            heads=(2, 2),
            context_dim=16,
            added_time_dim=8,
            camera=CameraEncoderConfig(blocks=1, heads=2),
        )

    @classmethod
    def from_diffusers(cls, config: dict[str, Any], **changes: Any) -> VideoUNetConfig:
        """From the ``config.json`` of a diffusers spatio-temporal U-Net.

        Args:
            config: the parsed dictionary.
            changes: fields that diffusers' configuration does not know (``camera``, ``checkpointing``, ...).

        Raises:
            ValueError: for an architecture that this class does not cover.
        """
        channels = tuple(config["block_out_channels"])
        down, up = list(config["down_block_types"]), list(config["up_block_types"])
        attention = tuple(kind == CROSS_DOWN for kind in down)
        mirrored = [CROSS_UP if has else PLAIN_UP for has in reversed(attention)]
        regular = set(down) <= {CROSS_DOWN, PLAIN_DOWN} and up == mirrored
        scalars = all(isinstance(config[key], int) for key in ("layers_per_block", "cross_attention_dim"))
        deep = config.get("transformer_layers_per_block", 1) != 1
        if not regular or not scalars or deep or config["in_channels"] != 2 * config["out_channels"]:
            raise ValueError("only mirrored spatio-temporal U-Nets with 2 C inputs and C outputs are supported")
        heads = config["num_attention_heads"]
        return cls(
            latent_channels=config["out_channels"],
            channels=channels,
            attention=attention,
            layers=config["layers_per_block"],
            heads=(heads,) * len(channels) if isinstance(heads, int) else tuple(heads),
            context_dim=config["cross_attention_dim"],
            added_time_dim=config["addition_time_embed_dim"],
            **changes,
        )

    def diffusers_arguments(self) -> dict[str, Any]:
        """Arguments of diffusers' class for the base part."""
        return {
            "in_channels": 2 * self.latent_channels,
            "out_channels": self.latent_channels,
            "down_block_types": tuple(CROSS_DOWN if has else PLAIN_DOWN for has in self.attention),
            "up_block_types": tuple(CROSS_UP if has else PLAIN_UP for has in reversed(self.attention)),
            "block_out_channels": self.channels,
            "addition_time_embed_dim": self.added_time_dim,
            "projection_class_embeddings_input_dim": self.added_time_dim * len(self.added_time_ids),
            "layers_per_block": self.layers,
            "cross_attention_dim": 32 if self.context_dim is None else self.context_dim,
            "num_attention_heads": self.heads,
        }

    def build(self) -> VideoUNet:
        """The network with random weights."""
        from latent3d.denoisers.video_unet import VideoUNet

        return VideoUNet(self)
