"""The video prior: Stable Video Diffusion's U-Net with a noise level per frame and cameras (GGS 3.1 to 3.4).

Letters: B = batch, M = frames, C = latent channels, F = feature channels, h, w = latent size, H, W = image size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, cast

import torch
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.conditioning.cameras import CameraEncoder
from latent3d.denoisers.base import CachedRays, check_inputs, merge_condition
from latent3d.denoisers.spatio_temporal import Pose, residual, transformer
from latent3d.denoisers.video_unet_config import CameraEncoderConfig, VideoUNetConfig
from latent3d.memory import recomputed
from latent3d.nn.layers import zero_init
from latent3d.nn.lora import LORA_SUFFIXES, add_low_rank

__all__ = ["CameraEncoderConfig", "VideoUNet", "VideoUNetConfig"]

EXTRA_PREFIXES = ("camera_encoder.", "camera_merges.", "condition_in.")
ATTENTION_PROJECTIONS = (".to_q", ".to_k", ".to_v", ".to_out.0")


class VideoUNet(UNetSpatioTemporalConditionModel):
    """diffusers' spatio-temporal U-Net behind the `Denoiser` interface; keys of the base part are unchanged.

    Each frame reads [noisy, reference] and its own noise level. Camera features join at every temporal attention as
    x + s Linear(x + pose) with Linear starting at zero, so that a loaded prior starts as it was trained.

    Args:
        settings: sizes. (``config`` is taken by diffusers for its own dictionary.)
    """

    def __init__(self, settings: VideoUNetConfig) -> None:
        super().__init__(**settings.diffusers_arguments())
        self.settings = settings
        self.latent_channels = settings.latent_channels
        self.feature_channels = settings.channels[0]
        if settings.context_dim is None:
            _remove_cross_attention(self)
        if settings.lora_rank:
            add_low_rank(self, settings.lora_rank, ATTENTION_PROJECTIONS)
        self.condition_in = None
        if settings.condition_channels:
            self.condition_in = zero_init(nn.Conv2d(settings.condition_channels, settings.channels[0], 1))
        self.camera_encoder = None
        if settings.camera is not None:
            self.camera_encoder = CameraEncoder(
                settings.channels,
                channels=settings.camera.channels,
                blocks=settings.camera.blocks,
                kernel_size=settings.camera.kernel_size,
                heads=settings.camera.heads,
                unshuffle=settings.downscale,
            )
            self.camera_merges = nn.ModuleList(zero_init(nn.Linear(width, width)) for width in self._attention_widths())

    def forward(  # type: ignore[override]
        self,
        noisy: Float[Tensor, "B M C h w"],
        reference: Float[Tensor, "B M C h w"],
        c_noise: Float[Tensor, "B M"],
        plucker: Float[Tensor, "B M 6 H W"] | CachedRays | None,
        context: Float[Tensor, "B L D"] | None = None,
        *,
        condition: Float[Tensor, "B M E h w"] | None = None,
    ) -> Float[Tensor, "B M F h w"]:
        """Last decoder features before the output norm (B, M, F, h, w); arguments as in `Denoiser`.

        Raises:
            ValueError: for shapes that do not fit, or cameras, context or a condition given to a network
                built without them.
        """
        settings = self.settings
        check_inputs(noisy, reference, c_noise, plucker, self.latent_channels, settings.downscale)
        context = self._context(context, noisy)
        embedding = self._embedding(c_noise, noisy.dtype)
        poses = self._poses(plucker)
        run = partial(recomputed, always=settings.checkpointing)
        frames = noisy.shape[1]

        def level(block: Any, index: int, position: int, x: Tensor) -> Tensor:
            x = run(residual, block.resnets[index], x, embedding)
            if hasattr(block, "attentions"):
                x = run(transformer, block.attentions[index], x, frames, context, poses(position))
            return x

        down_blocks, mid_block, up_blocks = cast(
            tuple[Any, Any, Any], (self.down_blocks, self.mid_block, self.up_blocks)
        )
        x = self.conv_in(torch.cat([noisy, settings.reference_scale * reference], 2).flatten(0, 1))
        x = merge_condition(x, self.condition_in, condition)
        skips = [x]
        for position, block in enumerate(down_blocks):
            for index in range(len(block.resnets)):
                x = level(block, index, position, x)
                skips.append(x)
            if block.downsamplers is not None:
                x = block.downsamplers[0](x)
                skips.append(x)

        last = len(down_blocks) - 1
        x = run(residual, mid_block.resnets[0], x, embedding)
        x = run(transformer, mid_block.attentions[0], x, frames, context, poses(last))
        x = run(residual, mid_block.resnets[1], x, embedding)

        for step, block in enumerate(up_blocks):
            for index in range(len(block.resnets)):
                x = level(block, index, last - step, torch.cat([x, skips.pop()], 1))
            if block.upsamplers is not None:
                x = block.upsamplers[0](x, skips[-1].shape[-2:])
        return x.unflatten(0, noisy.shape[:2])

    def velocity(self, features: Float[Tensor, "B M F h w"]) -> Float[Tensor, "B M C h w"]:
        """v-prediction from features by the U-Net's own output layers."""
        return self.conv_out(self.conv_act(self.conv_norm_out(features.flatten(0, 1)))).unflatten(0, features.shape[:2])

    def precompute(self, plucker: Float[Tensor, "B M 6 H W"]) -> CachedRays:
        """Features of the camera encoder, to be given in place of the ray maps.

        Raises:
            ValueError: for a network without camera encoder.
        """
        if self.camera_encoder is None:
            raise ValueError("this U-Net was built without a camera encoder; set camera or pass plucker=None")
        return CachedRays(tuple(self.camera_encoder(plucker)))

    @staticmethod
    def is_added(name: str) -> bool:
        """Whether a parameter of this name (camera layers, condition, low-rank changes) is not part of the prior."""
        return name.startswith(EXTRA_PREFIXES) or name.endswith(LORA_SUFFIXES)

    def load_prior(self, state: Mapping[str, Tensor]) -> None:
        """Fill the base part from diffusers' weights; what this class adds keeps their start, which changes nothing.

        Args:
            state: the state dict of a diffusers spatio-temporal U-Net.

        Raises:
            ValueError: naming the missing, the unknown and the wrongly shaped keys, if there are any.
        """
        own = {key: value for key, value in self.state_dict().items() if not self.is_added(key)}
        problems = {
            "missing": sorted(own.keys() - state.keys()),
            "unknown": sorted(state.keys() - own.keys()),
            "wrongly shaped": [
                f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
                for key in sorted(own.keys() & state.keys())
                if state[key].shape != own[key].shape
            ],
        }
        found = [f"{len(keys)} {kind} ({', '.join(keys[:3])})" for kind, keys in problems.items() if keys]
        if found:
            raise ValueError(f"these weights do not fit this U-Net: {'; '.join(found)}; check its configuration")
        with torch.no_grad():
            for key, value in own.items():
                value.copy_(state[key])

    def _attention_widths(self) -> Iterator[int]:
        """Width of every spatio-temporal attention in the order of the forward pass."""
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            for model in getattr(block, "attentions", ()):
                yield model.in_channels

    def _embedding(self, c_noise: Tensor, dtype: torch.dtype) -> Float[Tensor, "B M e"]:
        """Noise embedding of every frame plus the fixed added ids."""
        sinusoids = self.time_proj(c_noise.flatten() * self.settings.noise_scale).to(dtype)
        ids = torch.tensor(self.settings.added_time_ids, device=c_noise.device)
        added = self.add_time_proj(ids).flatten().to(dtype)
        return (self.time_embedding(sinusoids) + self.add_embedding(added[None])).unflatten(0, c_noise.shape)

    def _context(self, context: Tensor | None, noisy: Tensor) -> Tensor | None:
        """The context, or SVD's unconditional one: a single zero token."""
        width = self.settings.context_dim
        if width is None:
            if context is not None:
                raise ValueError("this U-Net was built without a context; set context_dim or pass context=None")
            return None
        return noisy.new_zeros(noisy.shape[0], 1, width) if context is None else context

    def _poses(self, plucker: Tensor | CachedRays | None) -> Callable[[int], Pose | None]:
        """A function that hands out, in the order of the forward pass, the pose features for an attention."""
        if plucker is None:
            return lambda position: None
        known = plucker if isinstance(plucker, CachedRays) else self.precompute(plucker)
        assert self.settings.camera is not None
        strength = self.settings.camera.strength
        tokens = [rearrange(level, "B M c h w -> (B h w) M c") for level in known.features]
        merges = iter(self.camera_merges)
        return lambda position: Pose(tokens[position], cast(nn.Linear, next(merges)), strength)


def _remove_cross_attention(network: nn.Module) -> None:
    """Drop the layers that read a context from every transformer block."""
    for module in network.modules():
        if hasattr(module, "attn2"):
            module.register_module("attn2", None)
            module.register_module("norm2", None)
