"""`ObjectViews` and `ObjectLatents`: batches of objects, each with a class and a caption."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent3d.representations.views import Views


@dataclass(frozen=True)
class ObjectLatents:
    """Objects as latents, for training a diffusion model on them.

    Attributes:
        mean, std: of the posterior, normalised, (B, 3, c, h, w).
        labels: class numbers, -1 where unknown, (B,).
        captions: one text per object, empty where there is none.
        images: one picture of each over white, (B, 3, H, W), with its alphas (B, 1, H, W).
    """

    mean: Float[Tensor, "b 3 c h w"]
    std: Float[Tensor, "b 3 c h w"]
    labels: Int[Tensor, " b"]
    captions: tuple[str, ...]
    images: Float[Tensor, "b 3 H W"]
    alphas: Float[Tensor, "b 1 H W"]

    @property
    def shape(self) -> torch.Size:
        """(B,)."""
        return self.mean.shape[:1]

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: slice) -> ObjectLatents:
        """Some of the objects; a slice."""
        mean, std, labels = self.mean[index], self.std[index], self.labels[index]
        return ObjectLatents(mean, std, labels, self.captions[index], self.images[index], self.alphas[index])

    def to(self, *args, **kwargs) -> ObjectLatents:
        """Move or cast latents and pictures; move the labels."""
        mean, std, images, alphas = (
            part.to(*args, **kwargs) for part in (self.mean, self.std, self.images, self.alphas)
        )
        return ObjectLatents(mean, std, self.labels.to(mean.device), self.captions, images, alphas)


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
