"""What goes in and out of LN3Diff++: its configuration, and an object as the model holds it.

Letters: b = objects, c = latent channels per plane, f = feature channels per plane, h/w = latent rows and columns.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from latent3d.autoencoders.multiview_encoder import MultiViewEncoderConfig
from latent3d.autoencoders.plane_encoder import PlaneEncoderConfig
from latent3d.autoencoders.triplane_decoder import TriPlaneDecoderConfig
from latent3d.autoencoders.vit_encoder import ViTEncoderConfig
from latent3d.conditioning.conditioner import ConditionerConfig
from latent3d.config import Config
from latent3d.denoisers.latent_unet import LatentUNetConfig
from latent3d.denoisers.plane_dit import PlaneDiTConfig
from latent3d.nn.discriminators import FeatureDiscriminatorConfig, PatchDiscriminatorConfig
from latent3d.nn.triplane_field import TriPlaneFieldConfig
from latent3d.rendering.volume import VolumeConfig
from latent3d.systems.object_losses import PerceptualConfig
from latent3d.systems.triplane_mesh import TriPlaneMeshConfig
from latent3d.systems.triplane_splats import TriPlaneSplatsConfig

if TYPE_CHECKING:
    from latent3d.systems.ln3diff import LN3DiffSystem


@dataclass(frozen=True, kw_only=True)
class LN3DiffConfig(Config):
    """An LN3Diff++ system.

    Attributes:
        encoder, decoder, field: of the autoencoder: views -> tri-plane latent -> feature planes -> density and colour.
        denoiser, conditioner: of the latent diffusion, and what it may be told; None for an autoencoder alone.
        objective: what the network gives. ``flow``: the velocity of the straight path; ``v`` or ``eps``: that of the
            variance preserving path, or its noise.
        process: of the noise in ``v`` and ``eps``. ``lognormal``: ln(sigma) normal in training, cosine levels in
            sampling. ``lsgm``: `diffusion.continuous.LinearVP` with times drawn by importance in training and spread
            evenly in sampling. ``ddpm``: the thousand levels of Stable Diffusion's schedule, drawn evenly in training,
            and as many of them as there are steps in sampling.
        noise_mean, noise_std: of ln(sigma) while training with ``lognormal``; of logit(t) while training ``flow``.
        mesh, splats: further decoders of the same feature planes; None for none.
        volume, training_volume: samples per ray at test and in training.
        half_size: half the side of the box that holds the object, in scene units.
        image_size: height and width of the pictures that the encoder sees. render_size: those that renderings of the
            field are judged at in training; None for the same.
        rendered: views per object that a training step renders, novel ones first. patch: side of the rendered crops,
            the whole picture where it is not smaller. foreground_share: of the crops that are put onto the object.
        guided: whether training rays know the true distance, where there is depth, and put samples near it.
        background_weight: of pixels without object in ``l2``.
        perceptual: of the term of that name.
        discriminator: of rendered crops against pictures; novel_discriminator: of own renderings at novel views against
            own renderings at the given views, for data with one view per object. With it, pictures are compared at
            given views only.
        labels: names of the classes.
    """

    uncounted: ClassVar[tuple[str, ...]] = ("mesh", "splats")
    """Stages whose cost depends on values, see `training.plan`."""

    encoder: MultiViewEncoderConfig | PlaneEncoderConfig | ViTEncoderConfig = dataclasses.field(
        default_factory=MultiViewEncoderConfig
    )
    decoder: TriPlaneDecoderConfig = dataclasses.field(default_factory=TriPlaneDecoderConfig)
    field: TriPlaneFieldConfig = dataclasses.field(default_factory=TriPlaneFieldConfig)
    denoiser: PlaneDiTConfig | LatentUNetConfig | None = None
    conditioner: ConditionerConfig | None = None
    objective: Literal["flow", "v", "eps"] = "flow"
    process: Literal["lognormal", "lsgm", "ddpm"] = "lognormal"
    noise_mean: float = 0.0
    noise_std: float = 1.0
    mesh: TriPlaneMeshConfig | None = None
    splats: TriPlaneSplatsConfig | None = None
    volume: VolumeConfig = dataclasses.field(default_factory=VolumeConfig)
    training_volume: VolumeConfig = dataclasses.field(default_factory=VolumeConfig)
    half_size: float = 0.45
    image_size: int = 256
    render_size: int | None = None
    rendered: int = 5
    patch: int = 80
    foreground_share: float = 0.875
    guided: bool = False
    background_weight: float = 1.0
    perceptual: PerceptualConfig | None = dataclasses.field(default_factory=PerceptualConfig)
    discriminator: PatchDiscriminatorConfig | FeatureDiscriminatorConfig | None = None
    novel_discriminator: FeatureDiscriminatorConfig | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        side, cells = self.decoder.latent_size, self.encoder.latent_size(self.image_size)
        if side != cells or self.decoder.latent_channels != self.encoder.latent_channels:
            raise ValueError(
                f"the encoder makes latents of {self.encoder.latent_channels} x {cells} x {cells} per plane from "
                f"pictures of {self.image_size} pixels, the decoder reads {self.decoder.latent_channels} x {side} x "
                f"{side}; make latent_channels and latent_size agree"
            )
        if self.decoder.upsampler.features != self.field.features:
            raise ValueError(
                f"the decoder gives {self.decoder.upsampler.features} features per plane and the field reads "
                f"{self.field.features}; make them agree"
            )
        if self.process != "lognormal" and self.objective == "flow":
            raise ValueError(
                f"the process '{self.process}' preserves the variance; set objective to v or eps, or process to "
                "lognormal"
            )
        if self.objective == "eps" and isinstance(self.denoiser, LatentUNetConfig) and self.denoiser.mixed:
            raise ValueError("a mixed prediction is one of v; set objective to v, or denoiser.mixed to false")
        if (self.denoiser is None) != (self.conditioner is None):
            raise ValueError("denoiser and conditioner belong together: give both or neither")

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(3, c, h, w)."""
        size = self.decoder.latent_size
        return (3, self.decoder.latent_channels, size, size)

    def build(self) -> LN3DiffSystem:
        """The system, with random weights."""
        from latent3d.systems.ln3diff import LN3DiffSystem

        return LN3DiffSystem(self)

    def network_pass(self, system: LN3DiffSystem, stage: str, objects: int, views: int) -> Tensor:
        """See `ln3diff_cost`."""
        from latent3d.systems.ln3diff_cost import network_pass

        return network_pass(system, stage, objects, views)

    def sampling_pass(self, system: LN3DiffSystem, views: int) -> None:
        """See `ln3diff_cost`."""
        from latent3d.systems.ln3diff_cost import sampling_pass

        sampling_pass(system, views)


@dataclass(frozen=True)
class LatentStep:
    """Where sampling stands, for progress and previews.

    Attributes:
        step, steps: just done, counted from 1, of how many.
        latents: the present estimate of the clean latents, (b, 3, c, h, w).
        calls: network calls so far, a guided step counting two.
    """

    step: int
    steps: int
    latents: Float[Tensor, "b 3 c h w"]
    calls: int


@dataclass(frozen=True)
class SampledLatents:
    """What `LN3DiffSystem.sample` returns.

    Attributes:
        latents: normalised, (b, 3, c, h, w). calls: network calls that they took.
    """

    latents: Float[Tensor, "b 3 c h w"]
    calls: int


def stacked_noise(shape: tuple[int, ...], seeds: list[int]) -> Tensor:
    """Normal noise (len(seeds), *shape), each from its own seed: no object depends on the others of its batch."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
