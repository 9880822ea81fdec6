"""Floating point operations of a `PlaneDiT`, one function per part: two for every multiplication and addition."""

from __future__ import annotations

from dataclasses import dataclass

from latent3d.denoisers.plane_dit import PlaneDiTConfig


@dataclass(frozen=True)
class PlaneFlops:
    """Operations of one call.

    Attributes:
        linear: of matrix products and convolutions at every time.
        attention: of queries with keys and of weights with values.
        condition: of `PlaneDiT.precompute`, once per sample.
    """

    linear: int
    attention: int
    condition: int

    @property
    def call(self) -> int:
        """With a cached condition."""
        return self.linear + self.attention


def flops(config: PlaneDiTConfig, batch: int = 1, *, side: int = 32, context: int = 1) -> PlaneFlops:
    """Operations of one call of a `PlaneDiT`; norms, activations and other elementwise work are not counted.

    Args:
        config: sizes.
        batch: objects.
        side: rows and columns of a latent plane.
        context: tokens that are read by cross-attention.
    """
    dim, depth, patch = config.dim, config.depth, config.patch
    tokens = 3 * (side // patch) ** 2
    hidden = round(dim * config.mlp_ratio)
    crossed = 0 if config.context_dim is None else len(range(0, depth, config.cross_every))
    beside = 0 if config.appended_dim is None else config.appended_tokens

    blocks = depth * tokens * (4 * dim**2 + 2 * dim * hidden) + crossed * tokens * 2 * dim**2
    ends = 2 * tokens * dim * config.latent_channels * patch**2
    frequencies = min(256, dim)
    vector = frequencies * dim + dim**2
    vector += 6 * dim**2 if config.modulation == "single" else (6 * depth + 2) * dim**2
    attention = 2 * dim * tokens * (depth * (tokens + beside) + crossed * context)
    return PlaneFlops(
        linear=2 * batch * (blocks + ends + vector),
        attention=2 * batch * attention,
        condition=2 * batch * _condition(config, crossed, context, beside),
    )


def _condition(config: PlaneDiTConfig, crossed: int, context: int, beside: int) -> int:
    """Multiplications of keys, values and the layers before them."""
    dim = config.dim
    total = 0
    if config.context_dim is not None:
        width = config.context_dim
        if config.context_layer == "mlp":
            total += context * (width * dim + dim**2)
            width = dim
        total += crossed * context * 2 * width * dim
    if config.appended_dim is not None:
        total += beside * (config.appended_dim * dim + dim**2 + config.depth * 2 * dim**2)
    if config.pooled_dim is not None:
        total += config.pooled_dim * dim
    return total
