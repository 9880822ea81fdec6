"""One block of `PlaneDiT`.

Letters: B = batch, n = tokens of the latent, d = token width, L, e = number and width of context tokens, M = appended
tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from latent3d.nn.attention import AdaLN, CrossAttention, FeedForward, KeysValues, SelfAttention, modulate
from latent3d.nn.layers import zero_init

if TYPE_CHECKING:
    from latent3d.denoisers.plane_dit import PlaneDiTConfig


class PlaneBlock(nn.Module):
    """Self-attention, cross-attention (without norm or gate) and feed-forward on the tokens of all planes.

    Args:
        config: sizes.
        cross: whether the block reads the context.
    """

    def __init__(self, config: PlaneDiTConfig, cross: bool) -> None:
        super().__init__()
        dim = config.dim
        self.attention = SelfAttention(dim, config.heads)
        self.cross = None
        if cross and config.context_dim is not None:
            width = dim if config.context_layer == "mlp" else config.context_dim
            self.cross = CrossAttention(dim, width, config.heads, kv_bias=False)
            zero_init(self.cross.out)
        self.mlp = FeedForward(dim, round(dim * config.mlp_ratio))
        self.modulation = AdaLN(dim, dim) if config.modulation == "block" else None
        self.table = nn.Parameter(torch.zeros(6, dim)) if config.modulation == "single" else None

    def forward(
        self,
        x: Float[Tensor, "B n d"],
        modulation: Float[Tensor, "B e"],
        context: KeysValues | None,
        appended: KeysValues | None,
    ) -> Float[Tensor, "B n d"]:
        """Tokens to tokens.

        Args:
            x: tokens of the latent.
            modulation: the network's shared modulation (B, 6 d), or the embedding (B, d) where each block has its own.
            context, appended: keys and values of this block.
        """
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (
            part.to(x.dtype)[:, None] for part in self._branches(modulation)
        )
        dtype = self.attention.out.weight.dtype
        mixed = self.attention(modulate(rms(x), shift_a, scale_a).to(dtype), appended)
        x = torch.addcmul(x, gate_a, mixed.to(x.dtype))
        if self.cross is not None and context is not None:
            x = x + self.cross(x.to(dtype), context)
        return torch.addcmul(x, gate_m, self.mlp(modulate(rms(x), shift_m, scale_m).to(dtype)).to(x.dtype))

    def keys_values(
        self, tokens: Float[Tensor, "B L e"] | None, appended: Float[Tensor, "B M d"] | None
    ) -> tuple[KeysValues | None, KeysValues | None]:
        """What this block reads of context tokens and of appended tokens; None for what it does not read."""
        return (
            None if self.cross is None or tokens is None else self.cross.keys_values(tokens),
            None if appended is None else self.attention.keys_values(appended),
        )

    def _branches(self, modulation: Tensor) -> tuple[Tensor, ...]:
        if self.modulation is not None:
            return self.modulation(modulation)
        assert self.table is not None
        return (modulation.unflatten(-1, self.table.shape) + self.table).unbind(1)


def rms(x: Tensor) -> Tensor:
    """RMS norm whose gain is the modulation's scale."""
    return F.rms_norm(x, (x.shape[-1],), eps=1e-6)
