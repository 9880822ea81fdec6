"""LN3Diff++ at the paper's sizes: presets for ShapeNet, FFHQ and Objaverse, and a tiny sibling of each for tests.

Sizes and weights are those of the paper (arXiv 2403.12019) and, where it is silent or differs, of the released scripts:
the Objaverse autoencoder is the one of 170 K objects. Neither gives batch and learning rate of the autoencoders, nor
weights for meshes; those are ours. What is better than a substitute comes from files on this machine, as settings:

- LPIPS: ``system.perceptual.kind=lpips_alex system.perceptual.trunk=FILE system.perceptual.heads=FILE``. Without, the
  perceptual term is ``random_conv`` (`systems.object_losses.Perceptual`), whose values are no LPIPS.
- DINOv2 as the encoder's start (ShapeNet, FFHQ): ``initial_weights.encoder=FOLDER``. Without, it starts at random.
- CLIP and DINOv2 as conditions: ``initial_weights.conditioner.picture=FOLDER``, ``...conditioner.text=FOLDER`` and
  ``...conditioner.appended=FOLDER``. They are frozen, so random ones tell the denoiser little.
- DINOv2 behind the discriminators (FFHQ): ``system.discriminator.backbone=dinov2 system.discriminator.folder=FOLDER``,
  and the same for ``system.novel_discriminator``. Without, random convolutions.

Guidance at sampling in the paper's figures: 1 for ShapeNet, 6.5 for FFHQ and for text, 4 for pictures.
"""

from __future__ import annotations

from typing import Any, Literal

from latent3d.autoencoders.multiview_encoder import MultiViewEncoderConfig
from latent3d.autoencoders.triplane_decoder import PlaneUpsamplerConfig, TriPlaneDecoderConfig
from latent3d.autoencoders.vit_encoder import ViTEncoderConfig
from latent3d.conditioning.conditioner import ConditionerConfig
from latent3d.conditioning.text import ByteTextEncoderConfig
from latent3d.conditioning.towers import CLIPPictureConfig, DINOv2Config
from latent3d.data.view_sampling import ViewSampling
from latent3d.denoisers.latent_unet import LatentUNetConfig
from latent3d.denoisers.plane_dit import PlaneDiTConfig
from latent3d.nn.discriminators import FeatureDiscriminatorConfig, PatchDiscriminatorConfig
from latent3d.nn.triplane_field import TriPlaneFieldConfig
from latent3d.rendering.volume import VolumeConfig
from latent3d.systems.ln3diff_records import LN3DiffConfig
from latent3d.systems.triplane_mesh import TriPlaneMeshConfig
from latent3d.training.config import DataConfig, StageConfig, TrainConfig

KL_RAMP = (5000, 30_000, 1e-9)
DISCRIMINATOR_BETAS = (0.0, 0.999)


def ln3diff_shapenet() -> TrainConfig:
    """One class of ShapeNet: one view, DINOv2 ViT-S/14 as encoder, a U-Net told CLIP's embedding of a picture.

    The decoder is this project's with the latent as its first tokens and attention within planes and across them in
    turn, in the sizes of the released one (12 x 768). The release starts it from DINOv2 ViT-B/14, with U-ViT skips,
    stochastic depth, and other convolutions up to planes of 256.
    """
    views = ViewSampling(mode="frames", views=1, novel=1)
    system = _first_generation(half_size=0.6, samples=64).replace(rendered=2)
    vae = _vae_stage(views).replace(
        loss_weights={"l2": 1.0, "perceptual": 2.0, "alpha": 1.0, "smoothness": 0.1, "kl": 1e-6},
        loss_ramps={"kl": KL_RAMP, "perceptual": (100, 100, 0.0)},
        lr_multipliers={"encoder.": 0.1},
    )
    return _run(system, (vae, _unet_stage(views)), size=128)


def ln3diff_ffhq() -> TrainConfig:
    """Faces, of which there is one view each: a discriminator compares renderings at the view that was given with the
    picture, and another one renderings at other faces' views with the model's own renderings at the given ones.

    Learning rates of the two are 2e-4 and 1e-4 where the encoder's is 1e-5. Decoder as in `ln3diff_shapenet`.
    """
    views = ViewSampling(mode="frames", views=1)
    system = _first_generation(half_size=0.5, samples=48).replace(
        rendered=2, discriminator=FeatureDiscriminatorConfig(), novel_discriminator=FeatureDiscriminatorConfig()
    )
    parts = ("discriminator.", "novel_discriminator.")
    vae = _vae_stage(views).replace(
        loss_weights={
            "l2": 1.0, "perceptual": 2.0, "smoothness": 0.1, "kl": 1e-6,
            "generator": 0.01, "discriminator": 1.0, "novel_generator": 0.025, "novel_discriminator": 1.0,
        },
        loss_ramps={"kl": KL_RAMP, "perceptual": (100, 100, 0.0)},
        lr_multipliers={"encoder.": 0.1, "discriminator.": 2.0, "novel_discriminator.": 1.0},
        betas_by_prefix=dict.fromkeys(parts, DISCRIMINATOR_BETAS),
    )  # fmt: skip
    return _run(system, (vae, _unet_stage(views)), size=128)


def ln3diff_objaverse(condition: Literal["text", "image"] = "image") -> TrainConfig:
    """Objaverse: six views with depth, 454 M parameters in the decoder, a diffusion transformer for text or pictures.

    Args:
        condition: ``text`` (CLIP's words, the noise on Stable Diffusion's DDPM schedule) or
            ``image`` (CLIP and DINOv2 of a picture, flow matching).

    Raises:
        ValueError: for another condition.
    """
    if condition not in ("text", "image"):
        raise ValueError(f"there is no condition '{condition}'; choose text or image")
    text = condition == "text"
    conditioner = ConditionerConfig.large_text() if text else ConditionerConfig.large_image()
    denoiser = PlaneDiTConfig.large_text() if text else PlaneDiTConfig.large_image()
    system = LN3DiffConfig(
        encoder=MultiViewEncoderConfig(),
        decoder=TriPlaneDecoderConfig(),
        denoiser=denoiser.replace(**conditioner.denoiser_fields()),
        conditioner=conditioner,
        objective="eps" if text else "flow",
        process="ddpm" if text else "lognormal",
        mesh=TriPlaneMeshConfig(),
        image_size=256,
        render_size=192,
        rendered=10,
        discriminator=PatchDiscriminatorConfig(),
    )
    views = ViewSampling(mode="frames", views=6, novel=4)
    vae = _vae_stage(views).replace(
        loss_weights={
            "l1": 1.0, "perceptual": 0.8, "alpha": 1.0, "depth": 0.1, "kl": 1e-6,
            "generator": 0.08, "discriminator": 1.0,
        },
        loss_ramps={"kl": KL_RAMP},
        betas_by_prefix={"discriminator.": DISCRIMINATOR_BETAS},
    )  # fmt: skip
    mesh = _vae_stage(views).replace(
        name="mesh", steps=100_000, batch_size=1,
        loss_weights={
            "l1": 1.0, "alpha": 1.0, "depth": 1.0, "normal": 0.1, "entropy": 0.01, "deviation": 0.1, "weights": 0.01,
        },
        autocast="off",
    )  # fmt: skip
    per_pass, passes = (20, 4) if text else (40, 7)
    diffusion = StageConfig(
        name="diffusion", steps=800_000, batch_size=per_pass, accumulate=passes, learning_rate=1e-4,
        warmup_steps=10_000, schedule="constant", betas=(0.9, 0.999), ema_decay=0.9999, autocast="bf16",
        sampling=views, loss_weights={"diffusion": 1.0},
    )  # fmt: skip
    return _run(system, (vae, mesh, diffusion), size=256)


def ln3diff_objaverse_text() -> TrainConfig:
    """`ln3diff_objaverse` for text."""
    return ln3diff_objaverse("text")


def ln3diff_objaverse_image() -> TrainConfig:
    """`ln3diff_objaverse` for pictures."""
    return ln3diff_objaverse("image")


def _first_generation(half_size: float, samples: int) -> LN3DiffConfig:
    """The system of ShapeNet and FFHQ: renderings of 128x128, the encoder sees them at 224x224."""
    conditioner = ConditionerConfig.large_shared()
    told = conditioner.denoiser_fields()
    return LN3DiffConfig(
        encoder=ViTEncoderConfig(),
        decoder=TriPlaneDecoderConfig(
            width=768, depth=12, heads=12, inject="input",
            upsampler=PlaneUpsamplerConfig(width=32, multipliers=(1, 1, 2, 2, 4)),
        ),
        denoiser=LatentUNetConfig.large().replace(context_dim=told["context_dim"], pooled_dim=told["pooled_dim"]),
        conditioner=conditioner,
        objective="v",
        process="lsgm",
        volume=VolumeConfig(coarse=samples, fine=samples),
        training_volume=VolumeConfig(coarse=samples, fine=samples),
        half_size=half_size,
        image_size=128,
    )  # fmt: skip


def _vae_stage(views: ViewSampling) -> StageConfig:
    """800 K steps of 32 objects; ``loss_weights`` are to be set."""
    return StageConfig(
        name="vae", steps=800_000, batch_size=4, accumulate=8, learning_rate=1e-4, warmup_steps=1000,
        schedule="constant", betas=(0.9, 0.999), ema_decay=0.9999, autocast="bf16", sampling=views,
        loss_weights={"kl": 1e-6},
    )  # fmt: skip


def _unet_stage(views: ViewSampling) -> StageConfig:
    """Table VI of the paper."""
    return StageConfig(
        name="diffusion", steps=500_000, batch_size=12, accumulate=8, learning_rate=2e-5, warmup_steps=1000,
        schedule="constant", betas=(0.9, 0.999), ema_decay=0.9999, autocast="bf16", sampling=views,
        loss_weights={"diffusion": 1.0},
    )  # fmt: skip


def _run(system: LN3DiffConfig, stages: tuple[StageConfig, ...], size: int) -> TrainConfig:
    data = DataConfig(kind="objects", size=size, workers=4)
    return TrainConfig(system=system, stages=stages, data=data, max_shard_bytes=2_000_000_000)


def ln3diff_shapenet_tiny() -> TrainConfig:
    """The same kinds of parts at a size for tests."""
    return _tiny(ln3diff_shapenet())


def ln3diff_ffhq_tiny() -> TrainConfig:
    """The same kinds of parts at a size for tests; one view of each object."""
    return _tiny(ln3diff_ffhq())


def ln3diff_objaverse_text_tiny() -> TrainConfig:
    """The same kinds of parts at a size for tests; a text encoder that needs no files reads the captions."""
    return _tiny(ln3diff_objaverse_text())


def ln3diff_objaverse_image_tiny() -> TrainConfig:
    """The same kinds of parts at a size for tests, with random towers."""
    return _tiny(ln3diff_objaverse_image())


def _tiny(large: TrainConfig) -> TrainConfig:
    """Pictures of 32x32, latents of 3 x 4 x 8 x 8, a few steps per stage."""
    assert isinstance(large.system, LN3DiffConfig)
    conditioner = _tiny_conditioner(large.system)
    encoder: Any = ViTEncoderConfig.tiny()
    if isinstance(large.system.encoder, MultiViewEncoderConfig):
        encoder = large.system.encoder.replace(width=8, multipliers=(1, 2, 2), heads=2, head_channels=4)
    judge: dict[str, Any] = {"discriminator": PatchDiscriminatorConfig(width=8, layers=1)}
    if large.system.novel_discriminator is not None:
        judge = dict.fromkeys(
            ("discriminator", "novel_discriminator"), FeatureDiscriminatorConfig(widths=(4, 8), head_width=4)
        )
    system = large.system.replace(
        encoder=encoder,
        decoder=large.system.decoder.replace(
            latent_size=8, width=16, depth=2, heads=2,
            upsampler=PlaneUpsamplerConfig(width=4, multipliers=(1, 2), blocks=1, features=4),
        ),
        field=TriPlaneFieldConfig(features=4, hidden=8),
        denoiser=_tiny_denoiser(large.system, conditioner),
        conditioner=conditioner,
        # an untrained field is denser than this everywhere: the surface is the box
        mesh=None if large.system.mesh is None else TriPlaneMeshConfig(resolution=12, density=0.05),
        volume=VolumeConfig(coarse=8, fine=4),
        training_volume=VolumeConfig(coarse=6, fine=4),
        image_size=32,
        render_size=None if large.system.render_size is None else 24,
        patch=16,
        rendered=2,
        **({} if large.system.discriminator is None else judge),
    )  # fmt: skip
    stages = tuple(
        stage.replace(
            steps=2, batch_size=2, accumulate=1, warmup_steps=1, log_every=1, sheet_every=2, save_every=1,
            autocast="off", loss_ramps={},
            sampling=ViewSampling(mode="frames", views=1, novel=min(stage.sampling.novel, 1)),
        )
        for stage in large.stages
    )  # fmt: skip
    data = DataConfig(kind="objects", size=32, workers=0)
    return large.replace(system=system, stages=stages, data=data)


def _tiny_conditioner(large: LN3DiffConfig) -> ConditionerConfig:
    """Small towers. CLIP's text tower needs the files of its tokenizer: bytes are read in its place, or, where text
    shares the picture's place, nothing."""
    assert large.conditioner is not None
    text, picture, appended = large.conditioner.text, large.conditioner.picture, large.conditioner.appended
    if text is not None:
        text = None if large.conditioner.shared else ByteTextEncoderConfig.tiny()
    if isinstance(picture, CLIPPictureConfig):
        picture = picture.replace(width=16, hidden=32, layers=1, heads=2, image_size=28, embedding=16)
    if appended is not None:
        appended = DINOv2Config(width=24, layers=1, heads=2, registers=2, trained_size=28, image_size=28)
    return large.conditioner.replace(text=text, picture=picture, appended=appended)


def _tiny_denoiser(large: LN3DiffConfig, conditioner: ConditionerConfig) -> PlaneDiTConfig | LatentUNetConfig:
    told = conditioner.denoiser_fields()
    if isinstance(large.denoiser, LatentUNetConfig):
        tiny = LatentUNetConfig.tiny(4)
        return tiny.replace(context_dim=told["context_dim"], pooled_dim=told["pooled_dim"], classes=0)
    assert large.denoiser is not None
    kinds = {name: getattr(large.denoiser, name) for name in ("modulation", "context_layer", "checkpointing")}
    return PlaneDiTConfig.tiny(4).replace(**kinds, **told)
