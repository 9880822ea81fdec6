"""LN3Diff++ as the protocols of objects ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from latent3d.conditioning.condition import Condition
from latent3d.evaluation.object_protocols import ObjectAsset, Prompt
from latent3d.evaluation.runner import load_system
from latent3d.geometry.cameras import Cameras
from latent3d.hardware import has_bf16
from latent3d.representations.mesh import Mesh
from latent3d.representations.triplane import TriPlane
from latent3d.representations.views import Views
from latent3d.systems.decoded_object import DecodedObject
from latent3d.systems.ln3diff import LN3DiffSystem
from latent3d.systems.ln3diff_records import LN3DiffConfig, stacked_noise

SHIPPED_OBJECTS = "ln3diff_shapes"
"""Shipped weights whose objects are evaluated when none are named."""
GUIDANCE = {"none": 1.0, "class": 1.0, "text": 6.5, "image": 4.0}
"""Of the released models: ShapeNet, text, pictures."""
TOLD = {"label": "class", "text": "text", "picture": "image"}
"""Kinds of a conditioner by the protocols' names."""


@dataclass(frozen=True)
class DecodedAsset:
    """An object of the model as an `ObjectAsset`."""

    decoded: DecodedObject

    def render(self, cameras: Cameras) -> Views:
        """By the field; on the CPU."""
        return self.decoded.views(cameras).to("cpu")

    def mesh(self, resolution: int) -> Mesh:
        """The decoder's surface on the CPU; without faces for an empty object.

        Raises:
            ValueError: for a resolution that is no multiple of 4.
        """
        if resolution < 4 or resolution % 4:
            raise ValueError(f"a surface is taken from a multiple of 4 cells a side, not {resolution}")
        try:
            mesh = self.decoded.mesh(resolution)
        except ValueError:  # the field is empty, or has no finite density: a sample without a surface, which counts
            return Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long))
        return Mesh(mesh.vertices.cpu(), mesh.faces.cpu())


@dataclass(frozen=True)
class LN3DiffObjects:
    """An LN3Diff++ system as an `ObjectSystem`.

    Attributes:
        system: in evaluation mode, on its device.
        bf16: run the denoiser in bfloat16.
    """

    system: LN3DiffSystem
    bf16: bool = False

    @property
    def conditions(self) -> tuple[str, ...]:
        """What it listens to, ``none`` included; nothing for an autoencoder alone."""
        if self.system.conditioner is None:
            return ()
        return ("none", *(TOLD[kind] for kind in self.system.conditioner.config.kinds))

    @torch.no_grad()
    def reconstruct(self, views: Views) -> ObjectAsset:
        """Encode (the mean) and decode."""
        latents = self.system.encode(views[None].to(self.system.latent_mean.device))
        return self._assets(self.system.decode(latents))[0]

    @torch.no_grad()
    def sample(
        self, seeds: Sequence[int], prompts: Sequence[Prompt], *, steps: int, guidance: float | None
    ) -> list[ObjectAsset]:
        """See `LN3DiffSystem.sample`; without guidance that of `GUIDANCE` for the kind of the prompts."""
        kind = kind_of(prompts[0])
        scale = GUIDANCE[kind] if guidance is None else guidance
        condition = None if kind == "none" else self._condition(prompts)
        drawn = self.system.sample(list(seeds), condition, steps=steps, guidance=scale, bf16=self.bf16)
        return self._assets(self.system.decode(drawn.latents))

    @torch.no_grad()
    def prior(self, seeds: Sequence[int]) -> list[ObjectAsset]:
        """Latents from N(0, 1), to which the divergence of the autoencoder's loss draws them, decoded."""
        raw = stacked_noise(self.system.config.latent_shape, list(seeds)).to(self.system.latent_mean.device)
        return self._assets(self.system.planes_of(raw))

    def _assets(self, planes: TriPlane) -> list[ObjectAsset]:
        return [DecodedAsset(DecodedObject(self.system, planes[i])) for i in range(len(planes.planes))]

    def _condition(self, prompts: Sequence[Prompt]) -> Condition:
        """What the conditioner makes of prompts of one kind.

        Raises:
            ValueError: for prompts of several kinds, or a class that the model does not know.
        """
        device, names = self.system.latent_mean.device, self.system.config.labels
        labels = [prompt.label for prompt in prompts if prompt.label is not None]
        texts = [prompt.text for prompt in prompts if prompt.text is not None]
        pictures = [prompt.picture for prompt in prompts if prompt.picture is not None]
        if sorted([len(labels), len(texts), len(pictures)]) != [0, 0, len(prompts)]:
            raise ValueError("prompts that are sampled together must tell the same one kind of thing")
        if unknown := [label for label in labels if label not in names]:
            known = ", ".join(names) or "none"
            raise ValueError(f"the model knows no class '{unknown[0]}'; its classes: {known}")
        assert self.system.conditioner is not None
        if labels:
            return self.system.conditioner(labels=torch.tensor([names.index(label) for label in labels]).to(device))
        if texts:
            return self.system.conditioner(captions=texts)
        return self.system.conditioner(pictures=torch.stack(pictures).to(device))


def kind_of(prompt: Prompt) -> str:
    """Which of `latent3d.evaluation.object_protocols.CONDITIONS` a prompt is."""
    told = {"class": prompt.label, "text": prompt.text, "image": prompt.picture}
    return next((kind for kind, value in told.items() if value is not None), "none")


def load_objects(weights: str | Path | None, device: str) -> tuple[LN3DiffObjects, dict[str, Any], int]:
    """A system of objects from a weights folder or a shipped name, what identifies it, and its pictures' side.

    Raises:
        FileNotFoundError, ValueError: if there are no such weights or they do not fit.
    """
    system, about = load_system(weights or SHIPPED_OBJECTS, LN3DiffConfig, device)
    return LN3DiffObjects(system, has_bf16(torch.device(device).type)), about, system.config.image_size
