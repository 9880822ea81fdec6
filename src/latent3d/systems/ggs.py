"""GGS: posed images -> a scene of Gaussian splats, by a video diffusion model with the scene inside its denoiser.

K. Schwarz, N. Mueller, P. Kontschieder, "Generative Gaussian Splatting", arXiv 2503.13272. Read beside figure 2:

    images ──VAE──> z_ref   noise ──> z_t ──┐
    cameras ──Plücker──────────────────────┼──> denoiser ──> T_epi ──┬──> heads ──> feature splats g
    references ──geometry──> splats ──render──> condition ──┘         │               │ render at all views
                                                                      │               v
                                          D_3D <── clean latents z0 <─┼── f_v <── features, alpha, z_t
                                           │                          │
                                           └──> full-resolution splats G

The branch "references -> geometry -> condition" is ours (the paper's splat-conditional variant, applied to the
references' own geometry); with ``geometry=None`` the model is the paper's.

Letters: b = scenes, m = views (references and targets), j = novel training views, c = latent channels, f = features,
h/w = latent rows and columns, H/W = image rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from latent3d.denoisers.base import CachedRays
from latent3d.diffusion.parameterization import c_in, c_noise, c_out, c_skip
from latent3d.diffusion.samplers import sample_euler
from latent3d.diffusion.schedules import karras_sigmas
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.precision import full_precision
from latent3d.geometry.rays import plucker_map
from latent3d.geometry.view_order import path_order
from latent3d.memory import in_parts, recomputed, retried
from latent3d.rendering.base import stack
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.views import Views
from latent3d.systems.carried_pixels import carry_pixels, pixel_evidence, plain, pool_known, reference_depth
from latent3d.systems.epipolar_transformer import epipolar_lines
from latent3d.systems.ggs_guidance import Guidance, anchor_of, guided
from latent3d.systems.ggs_records import Denoised, GGSConfig, GGSOutput, SamplingStart, SamplingStep, SceneContext
from latent3d.systems.origins import origin_of

FEWER_VIEWS = "use fewer views"
STAGES = ("vae", "geometry", "prior", "twin", "scene", "decoder")

__all__ = ["Denoised", "GGSConfig", "GGSOutput", "GGSSystem", "SamplingStep", "SceneContext"]


class GGSSystem(nn.Module):
    """Generative Gaussian Splatting. `sample` is the main job; `training_terms` serves all stages of training."""

    def __init__(self, config: GGSConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.vae.latent_channels
        self.vae = config.vae.build()
        self.geometry = config.geometry.build() if config.geometry is not None else None
        self.image_encoder = config.image_encoder.build() if config.image_encoder is not None else None
        self.denoiser = config.denoiser.build()
        self.epipolar = config.epipolar.build(self.denoiser.feature_channels)
        width = config.epipolar.width
        self.head = config.head.build(width, config.depth_range)
        self.velocity = config.velocity.build(channels, config.head.features)
        self.decoder = config.decoder.build(width, channels, config.depth_range)

    # ---- the figure -------------------------------------------------------------------------------------------------

    def forward(
        self,
        noisy: Float[Tensor, "b m c h w"],
        sigma: Float[Tensor, " b"],
        context: SceneContext,
        novel: Cameras | None = None,
        depth_noise: Tensor | None = None,
    ) -> Denoised:
        """Denoise all target views at once through one set of splats per scene.

        Args:
            noisy: z_0 + sigma * noise on targets; reference frames are replaced by their clean latents.
            sigma: noise level of the targets of each scene.
            context: of the scene, see `context_of`.
            novel: further cameras (b, j) to render.
            depth_noise: see `SplatHead.forward`; None at test.
        """
        b, m, _, h, w = noisy.shape
        role, levels = context.role, self.noise_levels(sigma, context)
        noisy = noisy + role * (context.latents - noisy)
        level = levels[..., None, None, None]
        features = self.denoise(
            c_in(level) * noisy, context.latents, c_noise(levels), context.plucker, context.tokens,
            self.condition_of(context),
        )  # fmt: skip
        features = self.epipolar(features, context.lines).float()
        splats, depth = self.head(features, context.cameras, context.known, context.known_share, depth_noise)

        cameras = context.cameras if novel is None else Cameras.cat([context.cameras, novel], 1)
        render = partial(render_gaussians, low_pass=self.config.low_pass_px)
        renders = [
            recomputed(render, scene, cameras[i].resized(h, w), level="leanest") for i, scene in enumerate(splats)
        ]
        rgb, seen, alpha, depth_map = (stack(renders, name) for name in ("rgb", "features", "alpha", "depth"))
        velocity, rendered = self.velocity(
            seen[:, :m].flatten(0, 1), alpha[:, :m].flatten(0, 1), noisy.flatten(0, 1), levels.flatten(),
            role.expand(b, m, 1, 1, 1).flatten(),
        )  # fmt: skip
        velocity, rendered = velocity.unflatten(0, (b, m)), rendered.unflatten(0, (b, m))
        if novel is not None:
            further = self.velocity.to_latent(seen[:, m:].flatten(0, 1)).float()
            rendered = torch.cat([rendered, further.unflatten(0, (b, -1))], 1)
        z0 = c_skip(level) * noisy + c_out(level) * velocity
        z0 = z0 + role * (context.latents - z0)
        return Denoised(z0, velocity, rendered, features, splats, depth, rgb, alpha, depth_map)

    def denoise(self, *inputs: Tensor | CachedRays | None) -> Float[Tensor, "b m f h w"]:
        """Features of the denoiser from its inputs in their order, at the leanest memory level scene by scene."""
        return in_parts(lambda *some: self.denoiser(*some[:5], condition=some[5]), *inputs, lean=None, leanest=1)

    def decode_3d(self, features: Tensor, latents: Tensor, context: SceneContext, depth_map: Tensor) -> list[Gaussians]:
        """D_3D: full-resolution splats of every scene from features at noise level zero and clean latents of all views.

        ``depth_map`` (b, m, 1, h, w) is the depth rendered by the latent splats.
        """
        with torch.no_grad():
            decoded = self.vae.decode(latents).float()
        evidence = pixel_evidence(context, decoded, depth_map, self.config.depth_range)
        return self.decoder(features, latents, evidence, context.cameras)

    # ---- context ----------------------------------------------------------------------------------------------------

    def context_of(
        self,
        images: Tensor,
        cameras: Cameras,
        is_reference: Bool[Tensor, " m"],
        existing: Sequence[Gaussians] | None = None,
    ) -> SceneContext:
        """Everything the denoiser needs to know about the references, and about splats that exist already.

        Without any reference it is what is known of cameras alone, for guidance: zeros.

        Args:
            images: (b, m, 3, H, W) in [0, 1]; only reference frames are read.
            cameras: (b, m); made relative to the first reference here, or to the first view where there is none.
            is_reference: (m,).
            existing: coloured splats of each scene in the world of ``cameras`` (the splat-conditional variant).

        Raises:
            ValueError: for ``existing`` splats that the denoiser has no input channels for.
        """
        b, m, _, height, width = images.shape
        index, first = is_reference.nonzero()[:, 0], anchor_of(is_reference)
        if existing is not None:
            if not self.config.denoiser.condition_channels:
                raise ValueError("this model cannot see existing splats; build its denoiser with condition_channels")
            existing = [plain(scene).transformed(cameras.w2c[i, first]) for i, scene in enumerate(existing)]
        cameras = cameras.relative_to(cameras.c2w[:, first : first + 1].expand(b, m, 4, 4))
        references = images[:, index]
        h, w = height // self.vae.factor, width // self.vae.factor
        latents = images.new_zeros(b, m, self.config.vae.latent_channels, h, w)
        pictures = torch.zeros_like(images).index_copy(1, index, references)
        known = known_share = latents.new_zeros(b, m, 1, h, w)
        carried = crossed = relative = None
        if len(index):
            with torch.no_grad():
                latents = latents.index_copy(1, index, self.vae.encode(references).float())
            relative = self.reference_depth(Views(references, cameras[:, index]))
        elif self.geometry is not None:
            carried = images.new_zeros(b, m, 5, height, width)
        if relative is not None or existing is not None:
            carried, crossed = carry_pixels(
                references, None if relative is None else relative.detach(), cameras, is_reference,
                depth_range=self.config.depth_range, stride=self.config.condition_stride,
                low_pass=self.config.low_pass_px, existing=existing,
            )  # fmt: skip
            known, known_share = pool_known(carried[:, :, 4:], carried[:, :, 3:4], height // h)
        lines = epipolar_lines(cameras, is_reference, self.config.epipolar, h, w)
        return SceneContext(
            cameras, is_reference, latents, pictures, plucker_map(cameras), lines, known, known_share, carried, crossed,
            relative, self.embed(references),
        )  # fmt: skip

    def reference_depth(self, references: Views) -> Float[Tensor, "b k 1 H W"] | None:
        """Depth coordinate of the references' pixels; None without reference geometry. See `carried_pixels`."""
        return None if self.geometry is None else reference_depth(self.geometry, references, agreed=not self.training)

    def embed(self, references: Float[Tensor, "b k 3 H W"]) -> Float[Tensor, "b 1 D"] | None:
        """Context tokens of each scene's first reference, zeros without any; None without image encoder."""
        if self.image_encoder is None:
            return None
        if references.shape[1]:
            return self.image_encoder(references[:, 0])
        return references.new_zeros(len(references), 1, self.image_encoder.config.embedding)

    def condition_of(self, context: SceneContext) -> Tensor | None:
        """The carried pixels folded to latent resolution, (b, m, condition_channels, h, w)."""
        if context.carried is None:
            return None
        b, m = context.carried.shape[:2]
        color, alpha, relative = context.carried.split([3, 1, 1], 2)
        maps = torch.cat([(color * 2 - 1) * alpha, alpha, relative * alpha], 2).flatten(0, 1)
        maps = F.avg_pool2d(maps, self.config.condition_stride)
        return F.pixel_unshuffle(maps, maps.shape[-2] // context.latents.shape[-2]).unflatten(0, (b, m))

    def noise_levels(self, sigma: Float[Tensor, " b"], context: SceneContext) -> Float[Tensor, "b m"]:
        """sigma on targets, sigma_min on references."""
        return torch.where(context.is_reference, self.config.sigma_min, sigma[:, None])

    # ---- sampling ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        references: Views,
        targets: Cameras,
        *,
        steps: int = 30,
        seed: int = 0,
        bf16: bool = False,
        existing: Gaussians | None = None,
        guidance: Guidance = 1.0,
        on_step: Callable[[SamplingStep], None] | None = None,
    ) -> GGSOutput:
        """Generate a scene from posed references.

        Args:
            references: (K,) views, K >= 1, images of the model's size.
            targets: (L,) cameras of the views to generate, L >= 0.
            steps: Euler steps; one step gives the mean of what the model expects instead of a sample.
            seed: of the initial noise.
            bf16: run the networks in bfloat16 (autocast); geometry and splats stay in float32.
            existing: splats that the scene has already, in the cameras' world; they condition the new views and are
                not part of the result (see `latent3d.systems.growth`).
            guidance: away from what the cameras alone suggest, see `ggs_guidance`; 1 asks for the references only.
            on_step: called after every step with the splats so far.

        Raises:
            ValueError: if there is no reference, or images are not of the model's size, or the model cannot be
                conditioned on ``existing`` splats or guided.
        """
        config, size = self.config, (self.config.height, self.config.width)
        with torch.autocast(references.images.device.type, torch.bfloat16, enabled=bf16):
            start = retried(lambda: self.begin(references, targets, steps, seed, existing), FEWER_VIEWS)
            context, order, is_reference = start.context, start.order, start.context.is_reference
            anchor, back, z = start.anchor, start.order.argsort(), start.noisy

            def denoise(latents: Tensor, levels: Tensor) -> tuple[Tensor, Denoised]:
                sigma = levels.amax(-1).clamp_min(config.sigma_min)
                state = retried(lambda: self(latents, sigma, context), FEWER_VIEWS)
                return state.z0, state

            def clean(latents: Tensor, sigma: Tensor, alone: SceneContext) -> Tensor:
                return retried(lambda: self(latents, sigma, alone), FEWER_VIEWS).z0

            led = guided(self, start, guidance, denoise, clean)
            for step in sample_euler(led, z, start.sigmas, frozen=is_reference[None]):
                z = step.latents
                if on_step is not None:
                    splats = step.aux.splats[0].transformed(anchor)
                    full_precision(on_step)(SamplingStep(step.step + 1, steps, splats, step.aux))
            final = denoise(z, z.new_zeros(1, len(order)))[1]
            full = retried(lambda: self.decode_3d(final.features, z, context, final.depth_map)[0], FEWER_VIEWS)
            decoded = retried(lambda: self.vae.decode(z[0]).float(), FEWER_VIEWS)
            pictures = torch.where(is_reference[:, None, None, None], context.images[0], decoded)
            surface = F.interpolate(final.depth_map[0, is_reference], size=size, mode="bilinear")
            if context.relative is not None:
                surface = config.depth_range.depth(context.relative[0])
            source = self.decoder.source_views(is_reference, *size)
            origin = origin_of(full, is_reference[source], context.cameras[0, is_reference], surface)
        return GGSOutput(
            gaussians=full.transformed(anchor),
            origin=origin,
            source=order.to(source.device)[source],
            latent_gaussians=final.splats[0].transformed(anchor),
            images=pictures[back],
            depths=final.depth_map[0][back],
            latents=z[0][back],
            cameras=start.cameras,
            is_reference=is_reference[back],
            low_pass_px=config.decoder.low_pass_px,
        )

    def begin(
        self, references: Views, targets: Cameras, steps: int, seed: int, existing: Gaussians | None = None
    ) -> SamplingStart:
        """What a sampler starts from: views in path order, their context, noise, and noise levels.

        Raises:
            ValueError: as `sample`.
        """
        k, config, size = len(references), self.config, (self.config.height, self.config.width)
        if k < 1 or tuple(references.images.shape[-2:]) != size:
            raise ValueError(
                f"GGS needs at least one reference of {size[1]}x{size[0]} pixels, got {k} of "
                f"{references.images.shape[-1]}x{references.images.shape[-2]}"
            )
        cameras = Cameras.cat([references.cameras, targets]) if len(targets) else references.cameras
        order, m, device = path_order(cameras), len(cameras), references.images.device
        images = references.images.new_zeros(m, 3, *size)
        images[:k] = references.images
        is_reference = (order < k).to(device)
        known = None if existing is None else [existing]
        context = self.context_of(images[order][None], cameras[order][None], is_reference, known)
        context = replace(context, plucker=self.denoiser.precompute(context.plucker))  # type: ignore[arg-type]
        noise = torch.randn(m, *context.latents.shape[2:], generator=torch.Generator().manual_seed(seed))
        sigmas = karras_sigmas(steps, sigma_min=config.sigma_min, sigma_max=config.sigma_max, rho=config.rho)
        noisy = context.latents + (1 - context.role) * float(sigmas[0]) * noise[order][None].to(device)
        anchor = cameras.c2w[order[is_reference.cpu().nonzero()[0, 0]]]
        return SamplingStart(cameras, order, context, noisy, sigmas, anchor)

    @torch.no_grad()
    def round_trip(self, images: Float[Tensor, "m 3 H W"]) -> Float[Tensor, "m 3 H W"]:
        """Pictures in [0, 1] encoded and decoded again: what decoded latents can reach at best."""
        return self.vae.decode(self.vae.encode(images)).float().clamp(0, 1)

    # ---- training ---------------------------------------------------------------------------------------------------

    def stages(self) -> tuple[str, ...]:
        """In the paper's order, after the parts that see single images."""
        return tuple(stage for stage in STAGES if stage != "geometry" or self.geometry is not None)

    def trainable(self, stage: str) -> Iterable[tuple[str, nn.Parameter]]:
        """Parameters that a stage trains."""
        from latent3d.systems import ggs_training

        return ggs_training.trainable(self, stage)

    def training_terms(self, batch: Views, stage: str, generator: torch.Generator) -> dict[str, Tensor]:
        """Named loss terms of one batch (b, views) for a stage; ``twin`` is the model without 3D (spec 3.10)."""
        from latent3d.systems import ggs_training

        return ggs_training.TERMS[stage](self, batch, generator)

    def finish_stage(self, stage: str, batch: Views) -> None:
        """Called once with a validation batch when a stage has ended."""
        from latent3d.systems import ggs_training

        ggs_training.finish_stage(self, stage, batch)

    def sample_sheet(self, batch: Views, stage: str, generator: torch.Generator) -> dict[str, Tensor]:
        """Rows of pictures that show what a stage has learnt."""
        from latent3d.systems import ggs_training

        return ggs_training.sheet(self, batch, stage, generator)
