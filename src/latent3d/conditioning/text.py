"""Words as a condition: a byte-level encoder that is trained with the model, and CLIP's text tower from local weights.

Letters: B = batch, L = tokens, E = width of tokens, P = width of the pooled vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from latent3d.config import Config
from latent3d.nn.attention import EncoderBlock
from latent3d.nn.layers import RMSNorm

BYTES = 256
START, PADDING = BYTES, BYTES + 1
"""Numbers of the token before the first byte, and of those after the last."""


@dataclass(frozen=True)
class Encoding:
    """What an encoder says about the texts or pictures of a batch.

    Attributes:
        tokens: one per word piece or picture patch, zero where there is none, (B, L, E).
        pooled: one vector for the whole, (B, P).
        keep: which tokens are there; None for all, (B, L).
    """

    tokens: Float[Tensor, "B L E"]
    pooled: Float[Tensor, "B P"]
    keep: Bool[Tensor, "B L"] | None = None


@dataclass(frozen=True, kw_only=True)
class ByteTextEncoderConfig(Config):
    """Sizes of a `ByteTextEncoder`.

    Attributes:
        length: tokens per text, a start token and up to ``length - 1`` bytes; what is longer is cut.
        dim, depth, heads: of the transformer.
        embedding: E = P, width of tokens and pooled vector.
    """

    length: int = 96
    dim: int = 192
    depth: int = 4
    heads: int = 6
    embedding: int = 256

    @classmethod
    def tiny(cls, embedding: int = 16) -> ByteTextEncoderConfig:
        """For tests."""
        return cls(length=12, dim=16, depth=1, heads=2, embedding=embedding)

    @property
    def token_dim(self) -> int:
        """E."""
        return self.embedding

    @property
    def pooled_dim(self) -> int:
        """P."""
        return self.embedding

    @property
    def token_count(self) -> int:
        """L."""
        return self.length

    def build(self) -> ByteTextEncoder:
        """The encoder with random weights."""
        return ByteTextEncoder(self)


class ByteTextEncoder(nn.Module):
    """Texts as UTF-8 bytes through a small transformer: no vocabulary, no download, any language (after ByT5).

    Every text has the same number of tokens, those after its end being zero, so that what a text means does not depend
    on its neighbours in the batch. The start token's output is the pooled vector.

    Args:
        config: sizes.
    """

    def __init__(self, config: ByteTextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.bytes = nn.Embedding(BYTES + 2, config.dim)
        self.positions = nn.Parameter(0.02 * torch.randn(config.length, config.dim))
        self.blocks = nn.ModuleList(EncoderBlock(config.dim, config.heads) for _ in range(config.depth))
        self.norm = RMSNorm(config.dim)
        self.out = nn.Linear(config.dim, config.embedding)

    def forward(self, texts: Sequence[str]) -> Encoding:
        """Texts to tokens (B, length, E), pooled (B, E) and the mask of tokens that are there."""
        numbers = byte_tokens(texts, self.config.length).to(self.positions.device)
        keep = numbers != PADDING
        x = self.bytes(numbers) + self.positions
        for block in self.blocks:
            x = block(x, keep)
        tokens = self.out(self.norm(x))
        return Encoding(tokens.masked_fill(~keep[..., None], 0), tokens[:, 0], keep)


def byte_tokens(texts: Sequence[str], length: int) -> Int[Tensor, "b {length}"]:
    """The start token, the bytes of each text (cut at ``length - 1``), and padding; on the CPU."""
    rows = [[START, *text.encode("utf-8", "replace")[: length - 1]] for text in texts]
    padded = [row + [PADDING] * (length - len(row)) for row in rows]
    return torch.tensor(padded, dtype=torch.long).reshape(len(rows), length)
