"""LN3Diff++: objects by latent diffusion on tri-planes.

Y. Lan, F. Hong, S. Zhou et al., "LN3Diff++", arXiv 2403.12019. Read beside figure 2:

    views ──encoder──> q(z) ──sample──> z ──decoder──> tri-plane ──┬── field ──> volume rendering   (NeRF)
      (+ rays, depth)                   │                          ├── mesh ───> FlexiCubes surface
                                        │                          └── splats ─> Gaussians
    noise ──> denoiser( x_t, t, condition ) ──sampler──> z
                             class, text, picture ──conditioner

Stage ``vae`` trains the first line with the field, ``mesh`` and ``splats`` fine-tune one further decoder each,
``conditioner`` teaches encoders of text and picture that are trained here what goes with what, and ``diffusion`` trains
the last line on latents of the frozen encoder.

Letters: b = objects, v = views, c = latent channels per plane, f = feature channels per plane, h/w = latent rows and
columns, H/W = image rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.autoencoders.multiview_encoder import TriPlanePosterior
from latent3d.conditioning.condition import Condition
from latent3d.conditioning.conditioner import Conditioner
from latent3d.diffusion.continuous import LinearVP
from latent3d.diffusion.guidance import GuidedDenoiser
from latent3d.diffusion.parameterization import time_from_sigma, vp_from_ve, z0_from_noise, z0_from_v
from latent3d.diffusion.samplers import (
    sample_euler,
    sample_flow_euler,
    sample_flow_heun,
    sample_flow_midpoint,
    sample_heun,
)
from latent3d.diffusion.schedules import cosine_sigmas, ddpm_sigmas, flow_times
from latent3d.geometry.cameras import Cameras
from latent3d.memory import in_parts, retried
from latent3d.rendering.occupancy import Occupancy
from latent3d.rendering.triplane_radiance import TriPlaneRadiance
from latent3d.rendering.triplane_sampling import TriPlaneRows
from latent3d.rendering.volume import Field, VolumeConfig, VolumeRendering, render_volume
from latent3d.representations.objects import ObjectLatents, ObjectViews
from latent3d.representations.triplane import TriPlane
from latent3d.representations.views import Views
from latent3d.systems.ln3diff_records import LatentStep, LN3DiffConfig, SampledLatents, stacked_noise

STAGES = ("vae", "mesh", "splats", "conditioner", "diffusion")
VELOCITY_SAMPLERS = {"euler": sample_flow_euler, "heun": sample_flow_heun, "midpoint": sample_flow_midpoint}
PRESERVING_SAMPLERS = {"euler": sample_euler, "heun": sample_heun}
SIGMA_MAX = 80.0
"""Noise level at which sampling begins where the process has none."""
POINTS_AT_ONCE = (1 << 18, 1 << 15)
"""Points of all objects together that the field is asked for at once at the memory levels `lean` and `leanest`."""
FEWER_OBJECTS = "make fewer objects at once, or smaller pictures"

__all__ = ["LN3DiffConfig", "LN3DiffSystem", "LatentStep", "SampledLatents"]


class LN3DiffSystem(nn.Module):
    """LN3Diff++. `sample` and `encode` give latents, `decode` a tri-plane; `training_terms` serves all stages."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: LN3DiffConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build()
        self.decoder = config.decoder.build()
        self.field = config.field.build()
        self.mesh = None if config.mesh is None else config.mesh.build(config.field)
        self.splats = None if config.splats is None else config.splats.build(config.field.features)
        self.denoiser = None if config.denoiser is None else config.denoiser.build()
        self.conditioner = None if config.conditioner is None else config.conditioner.build()
        self.perceptual = None if config.perceptual is None else config.perceptual.build()
        self.discriminator = None if config.discriminator is None else config.discriminator.build()
        self.novel_discriminator = None if config.novel_discriminator is None else config.novel_discriminator.build()
        shape = (3, config.encoder.latent_channels, 1, 1)
        self.register_buffer("latent_mean", torch.zeros(shape))
        self.register_buffer("latent_std", torch.ones(shape))

    # ---- autoencoder ------------------------------------------------------------------------------------------------

    def encode(
        self, views: Views, *, sample: bool = False, generator: torch.Generator | None = None
    ) -> Float[Tensor, "b 3 c h w"]:
        """Normalised latents of objects seen in views (b, v): the mean, or with ``sample`` a draw."""
        posterior = self.seen(views)
        return self.normalize(posterior.sample(generator) if sample else posterior.mean)

    def seen(self, views: Views) -> TriPlanePosterior:
        """What the encoder says of views (b, v); at lean memory levels of a few objects at a time."""

        def some(views: Views) -> tuple[Tensor, Tensor]:
            found = self.encoder(views)
            return found.mean, found.log_variance

        return TriPlanePosterior(*in_parts(some, views, lean=None if torch.is_grad_enabled() else 4, leanest=1))

    @torch.no_grad()
    def posterior(self, views: Views) -> tuple[Float[Tensor, "b 3 c h w"], Float[Tensor, "b 3 c h w"]]:
        """Mean and standard deviation of the normalised latents of objects seen in views (b, v); without gradient."""
        found = self.seen(views)
        return self.normalize(found.mean), (0.5 * found.log_variance).exp() / self.latent_std

    def normalize(self, raw: Float[Tensor, "b 3 c h w"]) -> Float[Tensor, "b 3 c h w"]:
        """Latents of about zero mean and unit variance per plane and channel, as the diffusion model wants them."""
        return (raw - self.latent_mean) / self.latent_std

    def decode(self, latents: Float[Tensor, "b 3 c h w"]) -> TriPlane:
        """Feature planes of normalised latents, (b,)."""
        return self.planes_of(latents * self.latent_std + self.latent_mean)

    def planes_of(self, raw: Float[Tensor, "b 3 c h w"]) -> TriPlane:
        """Feature planes of latents as the encoder gives them."""
        planes = in_parts(self.decoder, raw, lean=None if torch.is_grad_enabled() else 4, leanest=1)
        return TriPlane(planes, self.config.half_size)

    def field_of(self, planes: TriPlane) -> TriPlaneRadiance:
        """Density and colour of b objects as a function of points (b, n, 3)."""
        return TriPlaneRadiance(TriPlaneRows.of(planes.planes), planes.half_size, self.field, asked=asked_in_parts)

    def render(self, planes: TriPlane, cameras: Cameras, config: VolumeConfig | None = None) -> VolumeRendering:
        """Objects (b,) as their cameras (b, v) see them; without gradient, empty space is skipped."""
        field, half = self.field_of(planes), planes.half_size

        def rendered() -> VolumeRendering:
            occupancy = None
            if not torch.is_grad_enabled():
                occupancy = Occupancy.of(field, len(planes.planes), half, device=planes.planes.device)
            return render_volume(field, cameras, half, config or self.config.volume, occupancy=occupancy)

        return rendered() if torch.is_grad_enabled() else retried(rendered, FEWER_OBJECTS)

    # ---- latent diffusion -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        seeds: Sequence[int],
        condition: Condition | None = None,
        *,
        steps: int = 50,
        guidance: float = 1.0,
        sampler: str = "euler",
        interval: tuple[float, float] | None = None,
        batched: bool = True,
        bf16: bool = False,
        on_step: Callable[[LatentStep], None] | None = None,
    ) -> SampledLatents:
        """Draw objects.

        Args:
            seeds: one per object; the same seed gives the same object whatever the others are.
            condition: of as many objects, from the conditioner; None for none.
            steps: of the sampler. Euler makes one network call per step, Heun and midpoint two.
            guidance: 1 is conditional only; more costs a second call per call, which is counted.
            sampler: euler, heun or midpoint (flow only).
            interval: noise levels (low, high] within which guidance acts; always when None. They are times in [0, 1]
                for ``flow``, sigmas else.
            batched: with guidance, make the two calls as one of a doubled batch: for one object about a tenth faster on
                a CPU, for many the same, and half the launches on a GPU; its activations take twice the memory.
            bf16: run the network in bfloat16.
            on_step: called after every step.

        Raises:
            ValueError: for an autoencoder without denoiser, or an unknown sampler.
        """
        if self.denoiser is None or self.conditioner is None:
            raise ValueError("these weights hold an autoencoder only; sampling needs a trained denoiser")
        flow = self.config.objective == "flow"
        walks: dict[str, Any] = VELOCITY_SAMPLERS if flow else PRESERVING_SAMPLERS
        if sampler not in walks:
            raise ValueError(f"there is no sampler '{sampler}' for {self.config.objective}; choose {', '.join(walks)}")
        device = self.latent_mean.device
        noise = stacked_noise(self.config.latent_shape, list(seeds)).to(device)
        network = _Counted(self.denoiser, self.config.objective, bf16)
        unconditional = partial(network, cached=self.denoiser.precompute(Condition()))
        walk: Callable[[Tensor, Tensor], Tensor] = unconditional
        if condition is not None:
            condition, both = condition.to(device), None
            if batched and guidance != 1:
                told = condition if condition.batch == len(noise) else condition.repeat(len(noise))
                pair = Condition.cat([told, told.null()])
                both = partial(network.both, cached=self.denoiser.precompute(pair))
            conditional = partial(network, cached=self.denoiser.precompute(condition))
            walk = GuidedDenoiser(conditional, unconditional, guidance, interval, both)
        levels = self._levels(steps)
        latents = noise if flow else float(levels[0]) * noise
        for state in walks[sampler](walk, latents, levels):
            latents = state.latents
            if on_step is not None:
                on_step(LatentStep(state.step + 1, steps, state.z0, network.calls))
        return SampledLatents(latents, network.calls)

    def _levels(self, steps: int) -> Tensor:
        """Times of the flow, or noise levels sigma, from noise to data."""
        if self.config.objective == "flow":
            return flow_times(steps)
        if self.config.process == "ddpm":
            return ddpm_sigmas(steps)
        lsgm = self.config.process == "lsgm"
        return LinearVP().sigmas(steps) if lsgm else cosine_sigmas(steps, sigma_max=SIGMA_MAX)

    # ---- training ---------------------------------------------------------------------------------------------------

    def stages(self) -> tuple[str, ...]:
        """Stages in training order: ``mesh`` and ``splats`` only with such a decoder, ``conditioner`` with encoders of
        text and picture that are trained here, ``diffusion`` with a denoiser."""
        return tuple(stage for stage in STAGES if stage == "vae" or self._trained_in(stage))

    def trainable(self, stage: str) -> Iterable[tuple[str, nn.Parameter]]:
        """Parameters a stage trains; all others are frozen, and CLIP and DINOv2 always.

        Raises:
            ValueError: for a stage that this configuration does not have.
        """
        if stage not in self.stages():
            raise ValueError(f"there is no stage '{stage}'; choose one of {', '.join(self.stages())}")
        for name in self._trained_in(stage):
            part = getattr(self, name)
            named = part.trained_parameters() if isinstance(part, Conditioner) else part.named_parameters()
            for inner, parameter in named:
                yield f"{name}.{inner}", parameter

    def _trained_in(self, stage: str) -> list[str]:
        """Names of the parts that a stage trains, those that this system has."""
        parts = {
            "vae": ("encoder", "decoder", "field", "discriminator", "novel_discriminator"),
            "mesh": ("mesh",),
            "splats": ("splats",),
            "conditioner": ("conditioner",) if self._pairs else (),
            # once taught, encoders stay as they are: the denoiser's error would soon undo what sets texts apart
            "diffusion": ("denoiser",) if self._pairs else ("denoiser", "conditioner"),
        }[stage]
        return [name for name in parts if getattr(self, name) is not None]

    @property
    def _pairs(self) -> bool:
        return self.config.conditioner is not None and self.config.conditioner.paired

    def training_terms(
        self, batch: ObjectViews | ObjectLatents, stage: str, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Named loss terms of a batch of objects, see `ln3diff_training`; latents serve the last two stages only."""
        from latent3d.systems.ln3diff_training import LATENT_TERMS, PICTURE_TERMS

        if stage in LATENT_TERMS:
            return LATENT_TERMS[stage](self, batch, generator)
        if isinstance(batch, ObjectLatents):
            raise ValueError(f"stage '{stage}' needs pictures, and data.kind is latents; set it to objects")
        return PICTURE_TERMS[stage](self, batch, generator)

    @torch.no_grad()
    def finish_stage(self, stage: str, batch: ObjectViews | ObjectLatents) -> None:
        """After ``vae``: latents get zero mean and unit variance per plane and channel on this batch, and the decoder
        to meshes starts out from the field."""
        if stage != "vae" or isinstance(batch, ObjectLatents):
            return
        posterior = self.seen(batch.given)
        variance = posterior.log_variance.exp() + posterior.mean.square()
        self.latent_mean.copy_(posterior.mean.mean((0, 3, 4))[..., None, None])
        second = variance.mean((0, 3, 4))[..., None, None]
        self.latent_std.copy_((second - self.latent_mean.square()).clamp_min(1e-8).sqrt())
        if self.mesh is not None:
            self.mesh.start_from(self.field)

    @torch.no_grad()
    def sample_sheet(
        self, batch: ObjectViews | ObjectLatents, stage: str, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Rows of pictures for the training log: truth, and what the stage has learnt so far."""
        from latent3d.systems.ln3diff_training import sheet_of

        return sheet_of(self, batch, stage, generator)


def asked_in_parts(field: Field, points: Float[Tensor, "b n 3"]) -> tuple[Tensor, Tensor]:
    """What a field says of points; from the memory level `lean` on, of a few points of all objects at a time."""
    lean, leanest = (max(1, count // len(points)) for count in POINTS_AT_ONCE)
    return in_parts(field, points, lean=lean, leanest=leanest, dim=1)


class _Counted:
    """The denoiser as samplers call it, counting calls: velocity of the straight path, or clean latents of VE noise."""

    def __init__(self, network: nn.Module, objective: str, bf16: bool) -> None:
        self.network, self.objective, self.bf16, self.calls = network, objective, bf16, 0

    def __call__(self, latents: Tensor, level: Tensor, cached: Any) -> Tensor:
        self.calls += 1
        flow = self.objective == "flow"
        inputs, time = (latents, level) if flow else (vp_from_ve(latents, level), time_from_sigma(level))

        def some(inputs: Tensor, cached: Any) -> Tensor:
            with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.bf16):
                return self.network(inputs, time, cached).float()

        answer = retried(lambda: in_parts(some, inputs, cached, lean=4, leanest=1), FEWER_OBJECTS)
        if flow:
            return answer
        return (z0_from_noise if self.objective == "eps" else z0_from_v)(latents, answer, level)

    def both(self, latents: Tensor, level: Tensor, cached: Any) -> tuple[Tensor, Tensor]:
        """Two calls as one: for the first and for the second half of the objects of a condition."""
        self.calls += 1
        first, second = self(torch.cat([latents, latents]), level, cached).chunk(2)
        return first, second
