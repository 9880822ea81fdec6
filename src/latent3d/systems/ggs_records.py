"""The records of GGS: its configuration, what stays the same during sampling, one denoising step, the result.

Letters: b = scenes, m = views (references and targets), j = novel training views, c = latent channels, f = features,
h/w = latent rows and columns, H/W = image rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latent3d.autoencoders.image_vae import ImageVAEConfig
from latent3d.conditioning.image import ImageEncoderConfig
from latent3d.config import Config
from latent3d.denoisers.base import CachedRays
from latent3d.denoisers.multiview_transformer import MultiViewTransformerConfig
from latent3d.denoisers.video_unet_config import VideoUNetConfig
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.depth_range import DepthRange
from latent3d.rendering.base import LOW_PASS_PX
from latent3d.representations.gaussians import Gaussians
from latent3d.systems.epipolar_transformer import EpipolarLines, EpipolarTransformerConfig
from latent3d.systems.reference_geometry import ReferenceGeometryConfig
from latent3d.systems.splat_decoder import SplatDecoderConfig
from latent3d.systems.splat_head import DepthSample, SplatHeadConfig
from latent3d.systems.velocity_head import VelocityHeadConfig

if TYPE_CHECKING:
    from latent3d.systems.ggs import GGSSystem


@dataclass(frozen=True, kw_only=True)
class GGSConfig(Config):
    """Parts and constants of a `GGSSystem`.

    Attributes:
        vae, geometry, denoiser, epipolar, head, velocity, decoder: configurations of the parts.
        depth_range: of the splats and of the reference geometry; the epipolar samples have their own.
        height, width: image size in pixels the model was trained at.
        views: M, frames per sequence in training; any number works at test.
        novel: J, further training views that only render.
        reference_weights: chance of K = 1, 2, ... references in training.
        low_pass_px: low-pass of renders at latent resolution (0.3 costs 4 dB there).
        noise_mean, noise_std: of ln sigma in training (CameraCtrl on SVD).
        sigma_min, sigma_max, rho: of Karras' sampling schedule; references count as noise level sigma_min.
        condition_stride: image pixels per reference splat that conditions the denoiser.
        render_views: views rendered per scene and step when the 3D decoder trains.
        refined: share of decoder training batches whose targets are the model's own estimates instead of the truth.
        unit_jitter: largest factor by which training of the geometry on several views changes their unit of length, up
            or down; 1 for none.
        existing_share: share of training batches that see some of the J views as a scene which is there already; more
            than 0 trains the splat-conditional variant, for scenes that grow.
        reference_dropout: share of training batches without references, whose views are all to be generated; more than
            0 trains a model for classifier-free guidance.
        image_encoder: embeds the first reference as the denoiser's context, frozen; None gives no context, which is
            what training from scratch uses.
        adapt: what is trained of a denoiser that holds a pre-trained prior: ``all`` of it, or only what was ``added``
            (camera layers, condition, low-rank changes where its ``lora_rank`` is not 0).
    """

    uncounted: ClassVar[tuple[str, ...]] = ("geometry",)
    """Stages whose cost depends on values, see `training.plan`."""

    vae: ImageVAEConfig
    denoiser: VideoUNetConfig | MultiViewTransformerConfig
    geometry: ReferenceGeometryConfig | None = None
    epipolar: EpipolarTransformerConfig = EpipolarTransformerConfig()
    head: SplatHeadConfig = SplatHeadConfig()
    velocity: VelocityHeadConfig = VelocityHeadConfig()
    decoder: SplatDecoderConfig = SplatDecoderConfig()
    depth_range: DepthRange = DepthRange()
    height: int = 128
    width: int = 128
    views: int = 8
    novel: int = 2
    reference_weights: tuple[float, ...] = (0.45, 0.4, 0.15)
    low_pass_px: float = 0.1
    noise_mean: float = 0.7
    noise_std: float = 1.6
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    condition_stride: int = 2
    render_views: int = 3
    refined: float = 0.5
    unit_jitter: float = 1.0
    existing_share: float = 0.0
    reference_dropout: float = 0.0
    image_encoder: ImageEncoderConfig | None = None
    adapt: Literal["all", "added"] = "all"

    def __post_init__(self) -> None:
        prior = self.denoiser if isinstance(self.denoiser, VideoUNetConfig) else None
        if self.adapt != "all" and prior is None:
            raise ValueError("only a video U-Net holds a prior to which parts are added; set adapt to 'all'")
        if self.image_encoder and (prior is None or prior.context_dim != self.image_encoder.embedding):
            raise ValueError(
                f"the image encoder gives {self.image_encoder.embedding} values, and the denoiser reads "
                f"{prior.context_dim if prior else 'no context'}; make them equal or leave the image encoder out"
            )
        if not 0 <= self.reference_dropout < 1:
            raise ValueError(f"reference_dropout is a share from 0 to below 1, not {self.reference_dropout}")
        if self.unit_jitter < 1:
            raise ValueError(f"unit_jitter is a factor of at least 1, not {self.unit_jitter}")
        if self.existing_share and not (self.novel and self.denoiser.condition_channels):
            raise ValueError(
                "a model that is conditioned on splats needs further views and input channels for them; set novel and "
                "the denoiser's condition_channels, or existing_share to 0"
            )
        if self.geometry is not None and self.geometry.depth_range != self.depth_range:
            raise ValueError(
                f"the reference geometry's depth_range {self.geometry.depth_range.to_dict()} must be the system's "
                f"{self.depth_range.to_dict()}: both speak of the same depth coordinate"
            )

    def build(self) -> GGSSystem:
        """The system with random weights."""
        from latent3d.systems.ggs import GGSSystem

        return GGSSystem(self)

    def network_pass(self, system: GGSSystem, stage: str, scenes: int, views: int) -> Tensor:
        """See `ggs_cost`; the number of views is the system's own."""
        from latent3d.systems.ggs_cost import network_pass

        return network_pass(system, stage, scenes)

    def sampling_pass(self, system: GGSSystem, views: int) -> None:
        """See `ggs_cost`."""
        from latent3d.systems.ggs_cost import sampling_pass

        sampling_pass(system, views)


@dataclass(frozen=True)
class SceneContext:
    """What stays the same during sampling, computed once.

    Attributes:
        cameras: (b, m), in the frame of the first reference, or of the first view where there is none.
        is_reference: (m,).
        latents: clean latents on references, zero on targets, (b, m, c, h, w).
        images: pictures on references, zero on targets, (b, m, 3, H, W).
        plucker: (b, m, 6, H, W), or what the denoiser made of them where it is called more than once.
        lines: of the epipolar transformer.
        known: depth coordinate known beforehand at latent resolution, of references and of what their splats cover in
            other views; zero elsewhere, (b, m, 1, h, w).
        known_share: how much of a latent pixel that covers, in [0, 1], (b, m, 1, h, w).
        carried: reference splats seen from every view: colour 3, alpha 1, depth coordinate 1, (b, m, 5, H, W); the
            picture itself on references. None without reference geometry.
        crossed: the same on references alone, of the other references' splats, (b, k, 5, H, W).
        relative: depth coordinate of references at image resolution, (b, k, 1, H, W). None without reference geometry.
        tokens: embedding of the first reference, or zeros, (b, 1, D). None without image encoder.
    """

    cameras: Cameras
    is_reference: Bool[Tensor, " m"]
    latents: Tensor
    images: Tensor
    plucker: Tensor | CachedRays
    lines: EpipolarLines
    known: Tensor
    known_share: Tensor
    carried: Tensor | None
    crossed: Tensor | None
    relative: Tensor | None
    tokens: Tensor | None = None

    @property
    def role(self) -> Float[Tensor, "b m 1 1 1"]:
        """1 on references, 0 on targets."""
        b, m = self.cameras.shape
        return self.is_reference.to(self.latents.dtype)[None, :, None, None, None].expand(b, m, 1, 1, 1)


@dataclass(frozen=True)
class Denoised:
    """One call of the denoiser.

    Attributes:
        z0: estimate of the clean latents (the given ones on references), (b, m, c, h, w).
        velocity: v on all views, (b, m, c, h, w).
        rendered_latents: what the splats alone render, (b, m + j, c, h, w).
        features: of T_epi, (b, m, f, h, w).
        splats: feature splats of every scene.
        depth: behind the splats.
        rgb, alpha, depth_map: low-resolution renders, (b, m + j, ., h, w).
    """

    z0: Tensor
    velocity: Tensor
    rendered_latents: Tensor
    features: Tensor
    splats: list[Gaussians]
    depth: DepthSample
    rgb: Tensor
    alpha: Tensor
    depth_map: Tensor


@dataclass(frozen=True)
class SamplingStart:
    """What a sampler starts from.

    Attributes:
        cameras: (M,), references first, as given.
        order: of the views along the camera path, (M,).
        context: of the one scene, in path order.
        noisy: latents at the first noise level, clean on references, (1, M, c, h, w).
        sigmas: noise levels, (steps + 1,).
        anchor: pose of the first reference on the path, in whose frame the model works, (4, 4).
    """

    cameras: Cameras
    order: Int[Tensor, " m"]
    context: SceneContext
    noisy: Float[Tensor, "1 m c h w"]
    sigmas: Float[Tensor, " s"]
    anchor: Float[Tensor, "4 4"]


@dataclass(frozen=True)
class SamplingStep:
    """The state after one step of the sampler.

    Attributes:
        step, steps: its number, from 1, and their count.
        gaussians: coloured splats of latent resolution, in the world of the given cameras: a coarse scene from the
            first step on.
        state: everything the model made in this step, in the frame of the first reference.
    """

    step: int
    steps: int
    gaussians: Gaussians
    state: Denoised


@dataclass(frozen=True)
class GGSOutput:
    """A generated scene; views are the references in the given order, then the targets in the given order.

    Attributes:
        gaussians: full-resolution coloured splats in the world of the given cameras.
        latent_gaussians: feature splats of the last denoising step, same world.
        images: references as given, targets decoded from latents in 2D, (M, 3, H, W).
        depths: z-depth rendered from the latent splats, (M, 1, h, w).
        latents: (M, c, h, w).
        cameras: (M,). is_reference: (M,).
        origin: `Origin` of each of the ``gaussians``.
        source: number of the view that each of the ``gaussians`` comes from.
        low_pass_px: low-pass at which ``gaussians`` are to be rendered by cameras of this image size.
    """

    gaussians: Gaussians
    latent_gaussians: Gaussians
    images: Float[Tensor, "m 3 H W"]
    depths: Float[Tensor, "m 1 h w"]
    latents: Float[Tensor, "m c h w"]
    cameras: Cameras
    is_reference: Bool[Tensor, " m"]
    origin: Int[Tensor, " n"]
    source: Int[Tensor, " n"]
    low_pass_px: float = LOW_PASS_PX

    def scaled(self, factor: float) -> GGSOutput:
        """The same scene in a world whose unit is ``factor`` times smaller: lengths multiply, pictures stay."""
        still = torch.eye(4, device=self.images.device)
        return replace(
            self,
            gaussians=self.gaussians.transformed(still, factor),
            latent_gaussians=self.latent_gaussians.transformed(still, factor),
            depths=self.depths * factor,
            cameras=self.cameras.scaled(factor),
        )
