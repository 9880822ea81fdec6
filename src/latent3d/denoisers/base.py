"""What every denoiser promises, whatever is inside.

Letters: B = batch, M = views or frames, C = latent channels, F = feature channels, h, w = latent size, H, W = image
size (8 h, 8 w), L, D = length and width of a context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class CachedRays:
    """What a denoiser makes of the frames' ray maps: the same at every noise level, computed once per sample.

    Attributes:
        features: maps or tokens of all frames, (B, M, ...) each.
    """

    features: tuple[Tensor, ...]

    def __getitem__(self, index: slice) -> CachedRays:
        """Some of the scenes; a slice."""
        return CachedRays(tuple(part[index] for part in self.features))


@runtime_checkable
class Denoiser(Protocol):
    """A network that reads the noisy frames of one scene together and gives features per latent pixel.

    Attributes:
        feature_channels: F, width of the returned features.
        latent_channels: C.
    """

    feature_channels: int
    latent_channels: int

    def __call__(
        self,
        noisy: Float[Tensor, "B M C h w"],
        reference: Float[Tensor, "B M C h w"],
        c_noise: Float[Tensor, "B M"],
        plucker: Float[Tensor, "B M 6 H W"] | CachedRays | None,
        context: Float[Tensor, "B L D"] | None = None,
        *,
        condition: Float[Tensor, "B M E h w"] | None = None,
    ) -> Float[Tensor, "B M F h w"]:
        """Features of all frames.

        Args:
            noisy: frames scaled by c_in(sigma); reference frames hold their clean latents.
            reference: clean latents of reference frames, unscaled; exactly zero for target frames.
            c_noise: 0.25 ln sigma of each frame.
            plucker: ray maps concat(o x d, d) at image resolution, as they are or as `precompute` made them; None for
                the image-to-video prior without poses.
            context: extra tokens (an image or text embedding), or None.
            condition: maps known before denoising, such as existing splats rendered at the views (GGS 3.4), for a
                network built with that many ``condition_channels``; None counts as zeros.
        """
        ...

    def velocity(self, features: Float[Tensor, "B M F h w"]) -> Float[Tensor, "B M C h w"]:
        """v-prediction of the network's own output layer: for the prior stage and the twin without 3D."""
        ...

    def precompute(self, plucker: Float[Tensor, "B M 6 H W"]) -> CachedRays:
        """What does not depend on noise, to be given in place of the ray maps in every step of a sampler."""
        ...


def reference_mask(reference: Float[Tensor, "B M C h w"]) -> Float[Tensor, "B M 1 1 1"]:
    """1 for reference frames, 0 for targets: a frame's role is whether its reference latent is present (GGS 3.1)."""
    return (reference != 0).any(dim=(-3, -2, -1), keepdim=True).to(reference.dtype)


def merge_condition(x: Tensor, layer: nn.Module | None, condition: Tensor | None) -> Tensor:
    """Add the condition (B, M, E, h, w) to the first feature maps (B M, c, h, w) by a layer that started at zero.

    Raises:
        ValueError: if a condition is given to a network built without one, or has other channels than it was built for.
    """
    if condition is None:
        return x
    if not isinstance(layer, nn.Conv2d):
        raise ValueError("this network was built without a condition; set condition_channels or pass condition=None")
    if condition.shape[2] != layer.in_channels:
        raise ValueError(f"the condition must have {layer.in_channels} channels, got {condition.shape[2]}")
    return x + layer(condition.flatten(0, 1).to(x.dtype))


def check_inputs(
    noisy: Tensor,
    reference: Tensor,
    c_noise: Tensor,
    plucker: Tensor | CachedRays | None,
    latent_channels: int,
    downscale: int,
) -> None:
    """Say what does not fit before a convolution fails in the depths.

    Raises:
        ValueError: for shapes that disagree with each other or with the network.
    """
    if noisy.ndim != 5 or noisy.shape[2] != latent_channels:
        raise ValueError(
            f"noisy latents must have shape (batch, views, {latent_channels}, h, w), got {tuple(noisy.shape)}"
        )
    batch, views, _, height, width = noisy.shape
    if reference.shape != noisy.shape:
        raise ValueError(
            f"reference latents {tuple(reference.shape)} must have the shape of the noisy ones {tuple(noisy.shape)}"
        )
    if c_noise.shape != (batch, views):
        raise ValueError(f"give one noise level per frame, shape {(batch, views)}, got {tuple(c_noise.shape)}")
    expected = (batch, views, 6, downscale * height, downscale * width)
    if isinstance(plucker, Tensor) and plucker.shape != expected:
        raise ValueError(f"Plücker maps must have shape {expected}, got {tuple(plucker.shape)}")
