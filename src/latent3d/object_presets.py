"""Presets of LN3Diff++: functions that return a complete training configuration (see `presets`)."""

from __future__ import annotations

from typing import Literal

from latent3d.autoencoders.plane_encoder import PlaneEncoderConfig
from latent3d.autoencoders.triplane_decoder import PlaneUpsamplerConfig, TriPlaneDecoderConfig
from latent3d.conditioning.conditioner import ConditionerConfig
from latent3d.conditioning.picture import SmallViTConfig
from latent3d.conditioning.text import ByteTextEncoderConfig
from latent3d.data.view_sampling import ViewSampling
from latent3d.denoisers.latent_unet import LatentUNetConfig
from latent3d.denoisers.plane_dit import PlaneDiTConfig
from latent3d.nn.triplane_field import TriPlaneFieldConfig
from latent3d.rendering.volume import VolumeConfig
from latent3d.systems.ln3diff import LN3DiffConfig
from latent3d.systems.triplane_mesh import TriPlaneMeshConfig
from latent3d.systems.triplane_splats import TriPlaneSplatsConfig
from latent3d.training.config import DataConfig, StageConfig, TrainConfig
from latent3d.worlds.objects import OBJECT_LABELS


def ln3diff_shapes(denoiser: Literal["dit", "unet"] = "dit") -> TrainConfig:
    """The shipped model of objects: four views of 128x128 to a latent of 3 x 8 x 16 x 16, on procedural objects.

    Args:
        denoiser: ``dit`` with flow matching, or ``unet`` with v-prediction.

    Raises:
        ValueError: for another denoiser.
    """
    conditioner = ConditionerConfig(
        classes=len(OBJECT_LABELS),
        text=ByteTextEncoderConfig(dim=128, depth=3, heads=4, embedding=192),
        picture=SmallViTConfig(dim=128, depth=3, heads=4, embedding=192),
        # texts are the hardest to hear and a picture makes them needless: a fifth of the samples is told a text alone
        keep_label=0.3, keep_text=0.6, keep_picture=0.4,
    )  # fmt: skip
    told = conditioner.denoiser_fields()
    common = {name: told[name] for name in ("classes", "context_dim", "pooled_dim")}
    choices: dict[str, PlaneDiTConfig | LatentUNetConfig] = {
        "dit": PlaneDiTConfig.small(8).replace(**told),
        "unet": LatentUNetConfig.small(8).replace(**common),
    }
    if denoiser not in choices:
        raise ValueError(f"there is no denoiser '{denoiser}'; choose {' or '.join(choices)}")
    system = LN3DiffConfig(
        encoder=PlaneEncoderConfig(latent_channels=8),
        decoder=TriPlaneDecoderConfig(
            latent_channels=8, latent_size=16, width=256, depth=6, heads=4, norm_queries=True, direct=True,
            upsampler=PlaneUpsamplerConfig(width=20, multipliers=(1, 2, 4, 6), blocks=1, features=16),
        ),
        field=TriPlaneFieldConfig(features=16, hidden=48, color_scale=8.0, density_scale=20.0),
        denoiser=choices[denoiser],
        conditioner=conditioner,
        objective="flow" if denoiser == "dit" else "v",
        mesh=TriPlaneMeshConfig(resolution=64),
        splats=TriPlaneSplatsConfig(),
        training_volume=VolumeConfig(coarse=12, guided=12, fine=12),
        image_size=128,
        rendered=3,
        patch=40,
        guided=True,
        labels=OBJECT_LABELS,
    )  # fmt: skip
    return TrainConfig(
        system=system, stages=ln3diff_shapes_stages(denoiser), data=DataConfig(kind="objects", workers=2)
    )


HEARD = {
    "dit": {"denoiser.classes": 20.0, "denoiser.pooled": 10.0},
    "unet": {"denoiser.network.class_embedding": 20.0, "denoiser.network.time_embedding.cond_proj": 10.0},
}
"""Faster learning of the layers by which classes and pooled vectors enter a denoiser."""


def ln3diff_shapes_stages(denoiser: Literal["dit", "unet"] = "dit") -> tuple[StageConfig, ...]:
    """The stages of `ln3diff_shapes` in order, with the budgets of a full run."""
    views = ViewSampling(mode="frames", views=4, novel=2)
    vae = StageConfig(
        name="vae", steps=6000, batch_size=8, learning_rate=6e-4, autocast="bf16", sampling=views,
        loss_weights={"l1": 1.0, "l2": 1.0, "perceptual": 0.3, "alpha": 0.5, "depth": 0.1, "kl": 1e-6},
        loss_ramps={"kl": (500, 3000, 1e-9)},
    )  # fmt: skip
    mesh = StageConfig(
        name="mesh", steps=500, batch_size=4, learning_rate=1e-3, sampling=views,
        loss_weights={
            "l1": 1.0, "alpha": 1.0, "depth": 1.0, "normal": 0.1, "entropy": 0.01, "deviation": 0.1, "weights": 0.01,
        },
    )  # fmt: skip
    splats = StageConfig(
        name="splats", steps=1000, batch_size=4, learning_rate=1e-3, sampling=views,
        loss_weights={"l1": 1.0, "structure": 0.2, "alpha": 0.5, "depth": 0.1},
    )  # fmt: skip
    conditioner = StageConfig(
        name="conditioner", steps=2000, batch_size=64, learning_rate=1e-3, autocast="bf16", sampling=views,
        loss_weights={"contrast": 1.0},
    )  # fmt: skip
    # a class is one row of a table and a vector enters by a layer of zeros: at the common rate, both stay far smaller
    # than the time that they are added to for the whole of a short training
    diffusion = StageConfig(
        name="diffusion", steps=20_000, batch_size=32, learning_rate=5e-4, autocast="bf16", sampling=views,
        loss_weights={"diffusion": 1.0}, lr_multipliers=HEARD[denoiser],
    )  # fmt: skip
    return vae, mesh, splats, conditioner, diffusion


def ln3diff_shapes_tiny(denoiser: Literal["dit", "unet"] = "dit") -> TrainConfig:
    """The same parts at a size for tests: two views of 32x32, a few steps per stage.

    Raises:
        ValueError: for another denoiser.
    """
    large = ln3diff_shapes(denoiser)
    assert isinstance(large.system, LN3DiffConfig)
    conditioner = ConditionerConfig.tiny(len(OBJECT_LABELS)).replace(appended=None)
    told = conditioner.denoiser_fields()
    common = {name: told[name] for name in ("classes", "context_dim", "pooled_dim")}
    tiny: PlaneDiTConfig | LatentUNetConfig = PlaneDiTConfig.tiny(4).replace(**told)
    if denoiser == "unet":
        tiny = LatentUNetConfig.tiny(4).replace(**common, mixed=False)
    system = large.system.replace(
        encoder=PlaneEncoderConfig(
            latent_channels=4, stride=1, plane_size=16, point_width=8, width=8, multipliers=(1, 2), heads=2,
            head_channels=8,
        ),
        decoder=TriPlaneDecoderConfig(
            latent_channels=4, latent_size=8, width=16, depth=2, heads=2, direct=True,
            upsampler=PlaneUpsamplerConfig(width=4, multipliers=(1, 2), blocks=1, features=4),
        ),
        field=TriPlaneFieldConfig(features=4, hidden=8, density_scale=20.0),
        denoiser=tiny,
        conditioner=conditioner,
        mesh=TriPlaneMeshConfig(resolution=12, density=1.0),
        splats=TriPlaneSplatsConfig.tiny(),
        volume=VolumeConfig(coarse=8, fine=4),
        training_volume=VolumeConfig(coarse=6, guided=4, fine=4),
        image_size=32,
        patch=16,
        rendered=2,
    )  # fmt: skip
    views = ViewSampling(mode="frames", views=2, novel=1)
    stages = tuple(
        stage.replace(
            steps=3, batch_size=2, warmup_steps=1, log_every=1, sheet_every=3, save_every=2, autocast="off",
            loss_ramps={}, sampling=views,
        )
        for stage in large.stages
    )  # fmt: skip
    return large.replace(
        system=system, stages=stages, data=DataConfig(kind="objects", size=32, path_views=3, workers=0)
    )
