"""`ObjectViews`: a batch of objects, each with posed pictures, a class and a caption."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from latent3d.representations.views import Views


@dataclass(frozen=True)
class ObjectViews:
    """Objects in the box [-half_size, half_size]^3 around the origin, +z up, their front towards -y.

    Attributes:
        views: (B, V) pictures over white, with alphas; depths 0 outside the object.
        labels: class numbers, -1 where unknown, (B,).
        captions: one text per object, empty where there is none.
        inputs: how many of the V views, the first ones, the model is given; the others are only for supervision.
    """

    views: Views
    labels: Int[Tensor, " b"]
    captions: tuple[str, ...]
    inputs: int

    @property
    def shape(self) -> torch.Size:
        """(B, V), as of `Views`."""
        return self.views.shape

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: slice) -> ObjectViews:
        """Some of the objects; a slice."""
        return ObjectViews(self.views[index], self.labels[index], self.captions[index], self.inputs)

    def to(self, *args, **kwargs) -> ObjectViews:
        """Move or cast the pictures; move the labels."""
        views = self.views.to(*args, **kwargs)
        return ObjectViews(views, self.labels.to(views.images.device), self.captions, self.inputs)

    @property
    def given(self) -> Views:
        """The views that the model sees, (B, inputs)."""
        return self.views[:, : self.inputs]
