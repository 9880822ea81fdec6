"""Objects in three lines::

model = LN3Diff.from_pretrained()
chair, = model.sample([0], [Prompt(text="a red wooden chair")])
chair.save("out/chair")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latent3d.apps.inference import prepared
from latent3d.apps.object_asset import ObjectAsset
from latent3d.apps.pipelines import MAX_SEED, find_weights, pick_device
from latent3d.apps.progress import Progress, quiet
from latent3d.conditioning.condition import NO_LABEL, Condition
from latent3d.evaluation.object_protocols import Prompt
from latent3d.hardware import Precision, in_bf16
from latent3d.io.cards import Stopwatch
from latent3d.memory import present_level, retried
from latent3d.representations.triplane import TriPlane
from latent3d.representations.views import Views
from latent3d.systems.ln3diff import FEWER_OBJECTS, LatentStep, LN3DiffConfig, LN3DiffSystem
from latent3d.systems.ln3diff_records import stacked_noise
from latent3d.weights import load_module, weights_hash

DEFAULT_WEIGHTS = "ln3diff_shapes"
DEFAULT_STEPS = 50
"""Of the sampler, where the weights' card does not recommend another number."""
DEFAULT_GUIDANCE = {"none": 1.0, "class": 2.0, "text": 3.0, "image": 3.0}
"""By what a sample is told, where the weights' card says nothing else."""
WHITE = 0.98
"""The object of a picture over white: all pixels that are darker in any colour."""
BATCH = 16
"""Objects that are sampled together."""

__all__ = ["LN3Diff", "Prompt"]


class LN3Diff:
    """LN3Diff++, ready to use: a system with its weights, on a device."""

    def __init__(
        self, system: LN3DiffSystem, weights: dict[str, Any] | None = None, precision: Precision = "auto"
    ) -> None:
        """Wrap a system; ``weights`` says in cards where its weights come from; ``precision`` as `from_pretrained`."""
        self.system = system.eval()
        self.bf16 = in_bf16(precision, system.latent_mean.device.type)
        self.weights = weights or {"name": "not saved"}

    @classmethod
    def from_pretrained(
        cls,
        path_or_name: str | Path | None = None,
        device: str | None = None,
        *,
        precision: Precision = "auto",
        compile: bool = False,
    ) -> LN3Diff:
        """Load weights.

        Args:
            path_or_name: a weights folder, or the name of shipped weights; default ``ln3diff_shapes``.
            device: for example ``cpu`` or ``cuda``; default the GPU if there is one.
            precision: of the networks: ``bf16``, ``fp32``, or ``auto`` for bf16 where the device has it in hardware.
            compile: run the denoiser through ``torch.compile``, which costs up to minutes once per shape and machine.

        Raises:
            FileNotFoundError, ValueError: no such weights, or damaged ones: one sentence with the file and the remedy;
                nothing to compile with.
        """
        place = pick_device(device)
        folder = find_weights(path_or_name or DEFAULT_WEIGHTS)
        system, card = load_module(folder, LN3DiffConfig)
        about = {
            "name": folder.name,
            "sha256": weights_hash(folder),
            "licence": card.get("licence", "not stated in the weights' card"),
            "default_steps": card.get("default_steps", DEFAULT_STEPS),
            "default_guidance": DEFAULT_GUIDANCE | card.get("default_guidance", {}),
            "trained_on": card.get("data", "not stated in the weights' card"),
        }
        return cls(prepared(system.to(place), compile), about, precision)

    @property
    def conditions(self) -> tuple[str, ...]:
        """What it can be asked by: ``none``, ``class``, ``text``, ``image``; nothing for an autoencoder alone."""
        if self.system.conditioner is None:
            return ()
        names = {"label": "class", "text": "text", "picture": "image"}
        return ("none", *(names[kind] for kind in self.system.conditioner.config.kinds))

    @torch.no_grad()
    def reconstruct(self, views: Views) -> ObjectAsset:
        """Encode posed pictures (V,) over white, with depths where the encoder reads them, and decode.

        Raises:
            ValueError: for pictures of another size, or without depth for an encoder that reads it.
        """
        watch, device = Stopwatch(), self._device
        given = views.to(device)
        with watch("encoding"):
            latents = self.system.encode(given._map(lambda tensor: tensor[None]))
        card = {"job": "reconstruction", "method": "LN3Diff++", "weights": self.weights, "views": len(views)}
        return self._assets(latents, [card], watch)[0]

    def sample(
        self,
        seeds: Sequence[int] = (0,),
        prompts: Sequence[Prompt] | None = None,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str = "euler",
        interval: tuple[float, float] | None = None,
        notes: Sequence[str] = (),
        progress: Progress = quiet,
        on_step: Callable[[LatentStep], None] | None = None,
    ) -> list[ObjectAsset]:
        """Draw objects.

        Args:
            seeds: one per object; the same seed gives the same object on the same machine.
            prompts: one per object, all of the same kinds; None for none.
            steps, guidance: default what the weights' card recommends for the kind.
            sampler: euler, heun or midpoint.
            interval: noise levels (low, high] within which guidance acts; all when None.
            notes: about the inputs, for the cards.
            progress, on_step: see `latent3d.apps.progress` and `LN3DiffSystem.sample`.

        Raises:
            ValueError: for what the model cannot be asked, with what it can.
        """
        prompts = list(prompts) if prompts is not None else [Prompt()] * len(seeds)
        if len(prompts) != len(seeds):
            raise ValueError(f"give as many prompts as seeds, found {len(prompts)} and {len(seeds)}")
        steps = int(self.weights.get("default_steps", DEFAULT_STEPS)) if steps is None else steps
        if not 1 <= steps <= 1000:
            raise ValueError(f"{steps} steps are not possible; give 1 to 1000")
        if bad := [seed for seed in seeds if not 0 <= seed <= MAX_SEED]:
            raise ValueError(f"the seed {bad[0]} is not usable; give a whole number from 0 to {MAX_SEED}")
        kind = self._kind(prompts)
        if guidance is None:
            guidance = float(self.weights.get("default_guidance", DEFAULT_GUIDANCE)[kind])
        starts = range(0, len(seeds), BATCH)
        step, assets = progress("sampling", steps * len(starts)), []
        for start in starts:
            chosen = slice(start, start + BATCH)
            watch = Stopwatch()

            def after_step(state: LatentStep) -> None:
                step()
                if on_step is not None:
                    on_step(state)

            with watch("sampling"):
                drawn = self.system.sample(
                    seeds[chosen], self._condition(prompts[chosen]), steps=steps, guidance=guidance, sampler=sampler,
                    interval=interval, bf16=self.bf16, on_step=after_step,
                )  # fmt: skip
            cards = [
                {
                    "job": "object", "method": "LN3Diff++", "seed": seed, "steps": steps, "guidance": guidance,
                    "guidance_interval": interval, "sampler": sampler, "calls": drawn.calls,
                    "device": str(self._device), "precision": "bf16" if self.bf16 else "fp32",
                    "memory": present_level(), "weights": self.weights,
                    "prompt": {"kind": kind, "label": prompt.label, "text": prompt.text, "notes": list(notes)},
                }
                for seed, prompt in zip(seeds[chosen], prompts[chosen], strict=True)
            ]  # fmt: skip
            assets += self._assets(drawn.latents, cards, watch)
        return assets

    def prior(self, seeds: Sequence[int]) -> list[ObjectAsset]:
        """Latents drawn from N(0, 1) per entry and decoded, without diffusion."""
        latents = stacked_noise(self.system.config.latent_shape, list(seeds)).to(self._device)
        card = {"job": "prior without diffusion", "method": "LN3Diff++", "weights": self.weights}
        return self._assets(latents, [card | {"seed": seed} for seed in seeds], Stopwatch())

    @property
    def _device(self) -> torch.device:
        return self.system.latent_mean.device

    @torch.no_grad()
    def _assets(self, latents: Tensor, cards: list[dict[str, Any]], watch: Stopwatch) -> list[ObjectAsset]:
        with watch("decoding"), torch.autocast(self._device.type, torch.bfloat16, enabled=self.bf16):
            decoded = [
                retried(partial(self.system.decode, part), FEWER_OBJECTS).planes for part in latents.split(BATCH)
            ]
            planes = torch.cat(decoded)
        half = self.system.config.half_size
        return [
            ObjectAsset(self.system, TriPlane(one, half), card, watch) for one, card in zip(planes, cards, strict=True)
        ]

    def _kind(self, prompts: Sequence[Prompt]) -> str:
        """What the samples are told, the strongest of it: image, text, class or none."""
        given = {
            "image": [prompt.picture is not None for prompt in prompts],
            "text": [bool(prompt.text) for prompt in prompts],
            "class": [prompt.label is not None for prompt in prompts],
        }
        for kind, flags in given.items():
            if any(flags) and not all(flags):
                raise ValueError(f"only some of the prompts have a condition of kind {kind}; sample them apart")
            if any(flags) and kind not in self.conditions:
                raise ValueError(
                    f"this model cannot be asked by {kind}; it knows {', '.join(self.conditions) or 'nothing'}"
                )
        return next((kind for kind, flags in given.items() if any(flags)), "none")

    @torch.no_grad()
    def _condition(self, prompts: Sequence[Prompt]) -> Condition | None:
        conditioner = self.system.conditioner
        if conditioner is None or self._kind(prompts) == "none":
            return None
        labels = captions = pictures = alphas = None
        if prompts[0].label is not None:
            labels = torch.tensor([self._label(prompt.label) for prompt in prompts], device=self._device)
        if prompts[0].text:
            captions = [prompt.text or "" for prompt in prompts]
        if prompts[0].picture is not None:
            sizes = {tuple(prompt.picture.shape[-2:]) for prompt in prompts if prompt.picture is not None}
            if len(sizes) > 1:
                return Condition.cat([self._condition([prompt]) or Condition() for prompt in prompts])
            pictures = torch.stack([prompt.picture for prompt in prompts if prompt.picture is not None]).to(
                self._device
            )
            alphas = (pictures < WHITE).any(1, keepdim=True).float()
        return conditioner(labels, captions, pictures, alphas)

    def _label(self, name: str | None) -> int:
        names = self.system.config.labels
        if name is None:
            return NO_LABEL
        if name not in names:
            raise ValueError(f"this model knows no '{name}'; choose one of {', '.join(names) or 'none'}")
        return names.index(name)
