"""Presets: functions that return a complete training configuration. Every preset has a ``_tiny`` sibling for tests."""

from __future__ import annotations

from collections.abc import Callable

from latent3d.autoencoders.image_vae import ImageVAEConfig, image_vae_small, image_vae_small_tiny
from latent3d.conditioning.image import ImageEncoderConfig
from latent3d.data.view_sampling import ViewSampling
from latent3d.denoisers.multiview_transformer import MultiViewTransformerConfig
from latent3d.denoisers.video_unet_config import SVD_LATENT_SCALE, VideoUNetConfig
from latent3d.geometry.depth_range import DepthRange
from latent3d.object_presets import ln3diff_shapes, ln3diff_shapes_tiny
from latent3d.object_presets_paper import (
    ln3diff_ffhq,
    ln3diff_ffhq_tiny,
    ln3diff_objaverse_image,
    ln3diff_objaverse_image_tiny,
    ln3diff_objaverse_text,
    ln3diff_objaverse_text_tiny,
    ln3diff_shapenet,
    ln3diff_shapenet_tiny,
)
from latent3d.rendering.base import LOW_PASS_PX
from latent3d.systems.epipolar_transformer import EpipolarTransformerConfig
from latent3d.systems.ggs import GGSConfig
from latent3d.systems.reference_geometry import ReferenceGeometryConfig
from latent3d.systems.splat_decoder import SplatDecoderConfig
from latent3d.systems.splat_head import SplatHeadConfig
from latent3d.systems.velocity_head import VelocityHeadConfig
from latent3d.training.config import DataConfig, StageConfig, TrainConfig

ROOM_DEPTHS = DepthRange(near=0.3, far=60.0, spacing="log")
CONDITION_CHANNELS = 5 * 4 * 4
"""Carried colour, alpha and depth at stride 2, folded to stride 8."""
GEOMETRY_ENDS = tuple(f"geometry.{layer}." for layer in ("stem.0", "to_logits", "to_fine_logits", "refine"))
"""First and last layers of the reference geometry, which Muon leaves to AdamW."""


def ggs_rooms(denoiser: str = "transformer") -> TrainConfig:
    """The shipped model: 8 views of 128x128, trained on procedural worlds, 12 M parameters in the denoiser.

    Args:
        denoiser: ``transformer`` (compact multi-view transformer) or ``unet`` (SVD-type video U-Net).

    Raises:
        ValueError: for another denoiser.
    """
    choices: dict[str, MultiViewTransformerConfig | VideoUNetConfig] = {
        "transformer": MultiViewTransformerConfig.small(16).replace(depth=5, condition_channels=CONDITION_CHANNELS),
        "unet": VideoUNetConfig.small(16).replace(condition_channels=CONDITION_CHANNELS),
    }
    if denoiser not in choices:
        raise ValueError(f"there is no denoiser '{denoiser}'; choose {' or '.join(choices)}")
    system = GGSConfig(
        vae=image_vae_small(16),
        geometry=ReferenceGeometryConfig(depth_range=ROOM_DEPTHS, mixers=4),
        denoiser=choices[denoiser],
        epipolar=EpipolarTransformerConfig(
            depth_range=ROOM_DEPTHS, width=96, heads=2, layers=2, samples=16, max_sources=2
        ),
        head=SplatHeadConfig(features=16, width=96),
        velocity=VelocityHeadConfig(width=96),
        decoder=SplatDecoderConfig(),
        depth_range=ROOM_DEPTHS,
        unit_jitter=2.0,
        existing_share=0.25,
    )
    return TrainConfig(system=system, stages=ggs_stages(), data=DataConfig(family="mixed", workers=2))


def ggs_stages() -> tuple[StageConfig, ...]:
    """The stages of `ggs_rooms` in order, with the budgets of a full run; what shipped weights had is in their card."""
    frames = ViewSampling(mode="frames", views=1, mirror=0.5)
    pairs = ViewSampling(mode="frames", views=3, mirror=0.5, recolor=0.4, zoom=1.2)
    video = ViewSampling(mode="path", views=8, reverse=0.5, mirror=0.5)
    novel = ViewSampling(mode="path", views=8, novel=2, reverse=0.5, mirror=0.5, recolor=0.4)
    return (
        StageConfig(
            name="vae", steps=3000, batch_size=16, learning_rate=1e-3, autocast="bf16", sampling=frames,
            loss_weights={"l1": 1.0, "edge": 0.5, "kl": 1e-4},
        ),
        StageConfig(
            name="geometry", steps=10000, batch_size=32, learning_rate=8e-4, autocast="bf16", sampling=pairs,
            optimizer="muon", adamw_prefixes=GEOMETRY_ENDS,
            loss_weights={"relative": 0.8, "depth": 0.35, "coarse": 0.4, "edges": 0.5, "spread": 0.02},
        ),
        StageConfig(
            name="prior", steps=1500, batch_size=8, learning_rate=5e-4, autocast="bf16", sampling=video,
            loss_weights={"diffusion": 1.0},
        ),
        StageConfig(
            name="scene", steps=2500, batch_size=16, learning_rate=4e-4, autocast="bf16", sampling=novel,
            loss_weights={
                "diffusion": 1.0, "low_res": 1.0, "novel_low_res": 1.0, "latent": 0.1,
                "point": 0.1, "depth": 2.0, "rendered_depth": 0.5, "opacity": 0.1,
            },
        ),
        StageConfig(
            name="decoder", steps=1500, batch_size=4, learning_rate=5e-4, autocast="bf16", sampling=novel,
            lr_multipliers={"geometry.": 0.2},
            loss_weights={"l1": 1.0, "edge": 0.5, "empty": 0.1, "depth": 0.2, "reference_depth": 0.5},
        ),
    )  # fmt: skip


def ggs_rooms_tiny(denoiser: str = "transformer") -> TrainConfig:
    """The same parts at a size for tests: 4 views of 32x32, a few steps per stage."""
    choices: dict[str, MultiViewTransformerConfig | VideoUNetConfig] = {
        "transformer": MultiViewTransformerConfig.tiny(4).replace(condition_channels=CONDITION_CHANNELS),
        "unet": VideoUNetConfig.tiny(4).replace(condition_channels=CONDITION_CHANNELS),
    }
    if denoiser not in choices:
        raise ValueError(f"there is no denoiser '{denoiser}'; choose {' or '.join(choices)}")
    vae: ImageVAEConfig = image_vae_small_tiny(4)
    system = GGSConfig(
        vae=vae,
        geometry=ReferenceGeometryConfig(
            depth_range=ROOM_DEPTHS, hypotheses=8, widths=(8, 8, 16, 16), match_channels=8, heads=2
        ),
        denoiser=choices[denoiser],
        epipolar=EpipolarTransformerConfig(
            depth_range=ROOM_DEPTHS, width=16, heads=2, layers=1, samples=4, max_sources=2, octaves=2
        ),
        head=SplatHeadConfig(features=4, width=16),
        velocity=VelocityHeadConfig(width=16, blocks=1),
        decoder=SplatDecoderConfig(widths=(8, 8, 16)),
        depth_range=ROOM_DEPTHS,
        height=32,
        width=32,
        views=4,
        novel=1,
        render_views=2,
    )
    small = ViewSampling(mode="path", views=4, novel=1)
    stages = tuple(
        stage.replace(
            steps=3, batch_size=2, warmup_steps=1, log_every=1, sheet_every=3, save_every=2, autocast="off",
            sampling=small if stage.sampling.novel else stage.sampling.replace(views=min(stage.sampling.views, 4)),
        )
        for stage in ggs_stages()
    )  # fmt: skip
    data = DataConfig(family="rooms", size=32, path_views=4, extra_views=1)
    return TrainConfig(system=system, stages=stages, data=data)


def svd_autoencoder(channels: tuple[int, ...] = (128, 256, 512, 512), layers: int = 2) -> ImageVAEConfig:
    """Stable Video Diffusion's autoencoder: Stable Diffusion's encoder and a decoder that mixes frames; factor 8."""
    return ImageVAEConfig(
        kind="AutoencoderKLTemporalDecoder",
        latent_channels=4,
        patch_size=1,
        linear_path=False,
        block_out_channels=channels,
        encoder_layers=(layers,) * len(channels),
        decoder_layers=None,
        act="silu",
        norm_groups=32,
        mid_attention=True,
        scaling_factor=SVD_LATENT_SCALE,
    )


def ggs_re10k() -> TrainConfig:
    """The paper's size: 8 frames of 576x320 on Stable Video Diffusion, 2.3 G parameters of which 65 M are new.

    Where the paper is silent, sizes are pixelSplat's (epipolar transformer, splats) and CameraCtrl's (cameras, noise,
    learning rate). Depth is in metres: clips are expected at about metric scale. One step is 8 scenes, on any number of
    GPUs that divides 8. What fits on smaller ones: `adapt`, `lora_rank` and `checkpointing` of the system,
    `frozen_dtype` of the stages.
    """
    depths = DepthRange(near=0.3, far=60.0, spacing="disparity")
    system = GGSConfig(
        vae=svd_autoencoder(),
        image_encoder=ImageEncoderConfig(),
        denoiser=VideoUNetConfig.svd(),
        epipolar=EpipolarTransformerConfig(depth_range=depths, width=128, heads=4, layers=2, samples=32, octaves=10),
        head=SplatHeadConfig(features=32, width=128),
        velocity=VelocityHeadConfig(width=128, blocks=3),
        decoder=SplatDecoderConfig(widths=(64, 128, 256), reference_detail=1, low_pass_px=LOW_PASS_PX),
        depth_range=depths,
        height=320,
        width=576,
        views=8,
        novel=4,
        reference_weights=(0.5, 0.5),
        reference_dropout=0.1,
        sigma_max=700.0,
    )
    return TrainConfig(
        system=system,
        stages=ggs_re10k_stages(),
        data=DataConfig(size=320, width=576, workers=4),
        max_shard_bytes=2_000_000_000,
        prior="stabilityai/stable-video-diffusion-img2vid",
    )


def ggs_re10k_stages() -> tuple[StageConfig, ...]:
    """The stages of `ggs_re10k`: the pose-conditioned model without 3D, the splats inside it, the 3D decoder."""
    views = ViewSampling(mode="path", views=8, reverse=0.5)
    novel = ViewSampling(mode="path", views=8, novel=4, reverse=0.5)
    common = StageConfig(
        name="twin", steps=30_000, batch_size=1, accumulate=8, learning_rate=3e-5, warmup_steps=1000,
        schedule="constant", betas=(0.9, 0.999), ema_decay=0.9999, autocast="bf16", sampling=views,
        loss_weights={"diffusion": 1.0},
    )  # fmt: skip
    scene = common.replace(
        name="scene", steps=150_000, learning_rate=1e-4, warmup_steps=2000, sampling=novel,
        lr_multipliers={"denoiser.": 0.3},
        loss_weights={"diffusion": 1.0, "low_res": 1.0, "novel_low_res": 1.0, "point": 0.1, "latent": 0.01},
    )  # fmt: skip
    decoder = scene.replace(
        name="decoder", steps=50_000, learning_rate=1.5e-4, lr_multipliers={},
        loss_weights={"l1": 1.0, "edge": 0.5, "depth": 0.1},
    )  # fmt: skip
    return common, scene, decoder


def ggs_re10k_tiny() -> TrainConfig:
    """The same parts at a size for tests: 4 views of 48x32, a few steps per stage, random weights."""
    large = ggs_re10k()
    assert isinstance(large.system, GGSConfig)
    system = large.system.replace(
        vae=svd_autoencoder((32, 32, 32, 32), layers=1),
        image_encoder=ImageEncoderConfig.tiny(16),
        denoiser=VideoUNetConfig.tiny(4).replace(reference_scale=1 / SVD_LATENT_SCALE),
        epipolar=large.system.epipolar.replace(width=16, heads=2, layers=1, samples=4, octaves=2),
        head=SplatHeadConfig(features=4, width=16),
        velocity=VelocityHeadConfig(width=16, blocks=1),
        decoder=SplatDecoderConfig(widths=(8, 8, 16), reference_detail=1, low_pass_px=LOW_PASS_PX),
        height=32,
        width=48,
        views=4,
        novel=1,
    )
    stages = tuple(
        stage.replace(
            steps=2, accumulate=2, warmup_steps=1, log_every=1, sheet_every=0, save_every=1, autocast="off",
            sampling=stage.sampling.replace(views=4, novel=min(stage.sampling.novel, 1)),
        )
        for stage in large.stages
    )  # fmt: skip
    data = DataConfig(family="rooms", size=32, width=48, path_views=4, extra_views=1)
    return large.replace(system=system, stages=stages, data=data, prior=None)


PRESETS: dict[str, Callable[[], TrainConfig]] = {
    preset.__name__: preset
    for preset in (
        ggs_rooms,
        ggs_rooms_tiny,
        ggs_re10k,
        ggs_re10k_tiny,
        ln3diff_shapes,
        ln3diff_shapes_tiny,
        ln3diff_shapenet,
        ln3diff_shapenet_tiny,
        ln3diff_ffhq,
        ln3diff_ffhq_tiny,
        ln3diff_objaverse_text,
        ln3diff_objaverse_text_tiny,
        ln3diff_objaverse_image,
        ln3diff_objaverse_image_tiny,
    )
}
"""Presets by name, as ``latent3d train PRESET`` finds them."""
