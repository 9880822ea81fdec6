"""A tiny model with random weights in the folder layout of Stable Video Diffusion, written by diffusers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from latent3d.denoisers.video_unet_config import VideoUNetConfig

UNET = VideoUNetConfig.tiny(4).replace(layers=2, context_dim=8)


def write_prior(folder: Path) -> dict[str, Any]:
    """``unet/``, ``vae/`` and ``image_encoder/``; returns the modules that were written."""
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(3)
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32, 32, 32), down_block_types=("DownEncoderBlock2D",) * 4, scaling_factor=0.2
    )
    clip = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14,
        projection_dim=8, hidden_act="gelu",
    )  # fmt: skip
    parts = {
        "unet": UNetSpatioTemporalConditionModel(**UNET.diffusers_arguments()),
        "vae": vae,
        "image_encoder": CLIPVisionModelWithProjection(clip),
    }
    for name, part in parts.items():
        part.eval().save_pretrained(folder / name)
    return parts
