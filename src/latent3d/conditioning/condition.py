"""`Condition`: what a denoiser of objects may be told, and how it is told nothing.

One rule throughout: zero tokens, a zero vector and the label -1 mean "nothing is known". A condition that is dropped in
training, one that a model was never given and one that the user leaves out are therefore the same thing, and one model
serves unconditional, class, text and picture sampling.

Letters: B = batch, L, E = number and width of tokens, M, F = of appended tokens, P = width of the pooled vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

NO_LABEL = -1
"""The class of an object whose class is unknown."""


@dataclass(frozen=True)
class Condition:
    """What is known of the objects of a batch; each part may be absent.

    Attributes:
        tokens: words or picture patches for cross-attention, (B, L, E).
        appended: picture patches that stand beside the latent's tokens in self-attention, (B, M, F).
        pooled: one vector per object, (B, P).
        labels: class numbers, -1 where unknown, (B,).
    """

    tokens: Float[Tensor, "B L E"] | None = None
    appended: Float[Tensor, "B M F"] | None = None
    pooled: Float[Tensor, "B P"] | None = None
    labels: Int[Tensor, " B"] | None = None

    @property
    def batch(self) -> int | None:
        """B, or None where nothing at all is known."""
        return next((len(part) for part in self._parts() if part is not None), None)

    def drop(self, mask: Bool[Tensor, " B"]) -> Condition:
        """The same, with nothing known where ``mask`` holds: one mask for every part.

        Guidance needs the model without any condition; masks drawn per part would nearly never show it that case.
        """

        def without(part: Tensor) -> Tensor:
            return part.masked_fill(mask.to(part.device).reshape(-1, *[1] * (part.ndim - 1)), self._empty(part))

        return self._map(without)

    def null(self) -> Condition:
        """The condition of the same shapes that says nothing: the unconditional side of guidance."""
        return self._map(lambda part: torch.full_like(part, self._empty(part)))

    def repeat(self, count: int) -> Condition:
        """Each object ``count`` times in a row, (B count, ...)."""
        return self._map(lambda part: part.repeat_interleave(count, 0))

    def to(self, device: torch.device | str) -> Condition:
        """On another device."""
        return self._map(lambda part: part.to(device))

    def __getitem__(self, index: slice) -> Condition:
        """Some of the objects; a slice."""
        return self._map(lambda part: part[index])

    @staticmethod
    def cat(parts: Sequence[Condition]) -> Condition:
        """Batches one after the other.

        Raises:
            ValueError: if one of them has a part that another lacks.
        """
        columns = list(zip(*(part._parts() for part in parts), strict=True))
        if any(len({value is None for value in column}) > 1 for column in columns):
            raise ValueError("conditions of one batch must all have the same parts; use null() for what is not known")
        return Condition(*(None if column[0] is None else torch.cat(column) for column in columns))

    def _empty(self, part: Tensor) -> int:
        return NO_LABEL if part is self.labels else 0

    def _parts(self) -> tuple[Tensor | None, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))

    def _map(self, function: Callable[[Tensor], Tensor]) -> Condition:
        return Condition(*(None if part is None else function(part) for part in self._parts()))


def drop_mask(
    batch: int, probability: float = 0.15, generator: torch.Generator | None = None
) -> Bool[Tensor, " batch"]:
    """Which objects of a training batch lose their whole condition (15 %, LN3Diff++ table VI)."""
    device = "cpu" if generator is None else generator.device
    return torch.rand(batch, generator=generator, device=device) < probability
