"""Presets: functions that return a complete training configuration. Every preset has a ``_tiny`` sibling for tests."""

from __future__ import annotations

from collections.abc import Callable

from latent3d.autoencoders.image_vae import ImageVAEConfig, image_vae_small, image_vae_small_tiny
from latent3d.data.view_sampling import ViewSampling
from latent3d.denoisers.multiview_transformer import MultiViewTransformerConfig
from latent3d.denoisers.video_unet_config import VideoUNetConfig
from latent3d.geometry.depth_range import DepthRange
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
        geometry=ReferenceGeometryConfig(depth_range=ROOM_DEPTHS),
        denoiser=choices[denoiser],
        epipolar=EpipolarTransformerConfig(
            depth_range=ROOM_DEPTHS, width=96, heads=2, layers=2, samples=16, max_sources=2
        ),
        head=SplatHeadConfig(features=16, width=96),
        velocity=VelocityHeadConfig(width=96),
        decoder=SplatDecoderConfig(),
        depth_range=ROOM_DEPTHS,
    )
    return TrainConfig(system=system, stages=ggs_stages(), data=DataConfig(family="mixed", workers=2))


def ggs_stages() -> tuple[StageConfig, ...]:
    """The stages of `ggs_rooms` in order, with the budgets of a full run; what shipped weights had is in their card."""
    frames = ViewSampling(mode="frames", views=1, mirror=0.5)
    pairs = ViewSampling(mode="frames", views=3, mirror=0.5, recolor=0.6, zoom=1.4)
    video = ViewSampling(mode="path", views=8, reverse=0.5, mirror=0.5)
    novel = ViewSampling(mode="path", views=8, novel=2, reverse=0.5, mirror=0.5, recolor=0.4)
    return (
        StageConfig(
            name="vae", steps=3000, batch_size=16, learning_rate=1e-3, autocast="bf16", sampling=frames,
            loss_weights={"l1": 1.0, "edge": 0.5, "kl": 1e-4},
        ),
        StageConfig(
            name="geometry", steps=2500, batch_size=24, learning_rate=6e-4, autocast="bf16", sampling=pairs,
            loss_weights={"depth": 1.0, "coarse": 0.5, "edges": 0.5, "spread": 0.02},
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


PRESETS: dict[str, Callable[[], TrainConfig]] = {"ggs_rooms": ggs_rooms, "ggs_rooms_tiny": ggs_rooms_tiny}
"""Presets by name, as ``latent3d train PRESET`` finds them."""
