"""The main job in three lines::

model = GGS.from_pretrained()
scene = model.sample("photo.jpg", seed=0)
scene.save("out/photo")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latent3d.apps.growing import UnfinishedScene, growth_conditions
from latent3d.apps.inference import prepared
from latent3d.apps.inputs import SceneInputs, read_inputs
from latent3d.apps.progress import Progress, quiet
from latent3d.apps.scene import Scene
from latent3d.data.captures.reference_scale import TYPICAL_DEPTH, matched_depth
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.trajectories import path_depth
from latent3d.geometry.view_order import path_order
from latent3d.hardware import Precision, in_bf16
from latent3d.io.cards import Stopwatch
from latent3d.memory import present_level
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.views import Views
from latent3d.systems.carried_pixels import plain
from latent3d.systems.ggs import GGSConfig, GGSSystem, SamplingStep
from latent3d.systems.ggs_guidance import Guidance, check_guidance
from latent3d.systems.growth import grow, plan_growth, seed_scene
from latent3d.weights import find_shipped, load_module, weights_hash

DEFAULT_WEIGHTS = "ggs_rooms"
MAX_SEED = 2**63 - 1
DEFAULT_STEPS = 30
"""Of the sampler, as in the paper, where the weights' card does not recommend another number."""
KNOWN_DEPTHS = (1.0, 4.0)
"""Typical depths, in the model's metres, that need no change of unit."""
FOCUS_DEPTH = 3.0
"""Typical depth of a room in scene units (metres)."""


@dataclass(frozen=True)
class _Job:
    """Inputs as the model takes them, and what was found out on the way.

    Attributes:
        references, targets: in the model's unit of length, `unit` times the inputs' translations.
        depth: typical, in the inputs' unit.
    """

    inputs: SceneInputs
    references: Views
    targets: Cameras
    notes: tuple[tuple[str, ...], ...]
    unit: float
    depth: float
    device: torch.device
    bf16: bool
    watch: Stopwatch

    def in_inputs_unit(self, state: SamplingStep, gaussians: Gaussians) -> SamplingStep:
        """A step of the sampler with these splats in the inputs' unit."""
        return replace(state, gaussians=gaussians.transformed(torch.eye(4, device=self.device), 1 / self.unit))


class GGS:
    """Generative Gaussian Splatting, ready to use: a system with its weights, on a device."""

    def __init__(self, system: GGSSystem, weights: dict[str, Any] | None = None, precision: Precision = "auto") -> None:
        """Wrap a system; ``weights`` says in cards where its weights come from; ``precision`` as `from_pretrained`."""
        self.system = system.eval()
        self.bf16 = in_bf16(precision, next(system.parameters()).device.type)
        self.weights = weights or {"name": "not saved"}

    @classmethod
    def from_pretrained(
        cls,
        path_or_name: str | Path | None = None,
        device: str | None = None,
        *,
        precision: Precision = "auto",
        compile: bool = False,
    ) -> GGS:
        """Load weights.

        Args:
            path_or_name: a weights folder, or the name of shipped weights; default ``ggs_rooms``.
            device: for example ``cpu`` or ``cuda``; default the GPU if there is one.
            precision: of the networks: ``bf16``, ``fp32``, or ``auto`` for bf16 where the device has it in hardware.
            compile: run the denoiser through ``torch.compile``, which costs up to minutes once per shape and machine.

        Raises:
            FileNotFoundError, ValueError: no such weights, or damaged ones: one sentence with the file and the remedy;
                nothing to compile with.
        """
        place = pick_device(device)
        folder = find_weights(path_or_name)
        system, card = load_module(folder, GGSConfig)
        about = {
            "name": folder.name,
            "sha256": weights_hash(folder),
            "licence": card.get("licence", card.get("license", "not stated in the weights' card")),
            "default_steps": card.get("default_steps", DEFAULT_STEPS),
            "trained_on": card.get("data", card.get("training", {}).get("data", "not stated in the weights' card")),
        }
        return cls(prepared(system.to(place), compile), about, precision)

    def sample(
        self,
        images: SceneInputs | str | Path | Tensor | Sequence[str | Path | Tensor],
        *,
        steps: int | None = None,
        seed: int = 0,
        guidance: Guidance = 1.0,
        progress: Progress = quiet,
        on_step: Callable[[SamplingStep], None] | None = None,
        **options: Any,
    ) -> Scene:
        """Generate a scene.

        Args:
            images: one picture (file, or tensor (3, H, W) in [0, 1]) or several with ``cameras=FILE``; or inputs that
                `read_inputs` made.
            steps: steps of the sampler; default what the weights' card recommends, else 30.
            seed: the same seed gives the same scene on the same machine.
            guidance: classifier-free guidance, for models that were trained for it (``system.reference_dropout``): a
                scale, or those of the first and the last generated view. The shipped weights know 1 alone.
            progress: see `latent3d.apps.progress`.
            on_step: called after every step of the sampler with the splats so far.
            options: further arguments of `read_inputs`: cameras, trajectory, strength, num_views, fov_degrees.

        Raises:
            FileNotFoundError, ValueError: for inputs that cannot be used.
        """
        steps = self._check_steps(steps, seed)
        scales = check_guidance(self.system.config, guidance)
        job = self._prepare(images, seed, options)
        step = progress("sampling", steps)

        def after_step(state: SamplingStep) -> None:
            step()
            if on_step is not None:
                on_step(job.in_inputs_unit(state, state.gaussians))

        with job.watch("sampling"):
            output = self.system.sample(
                job.references, job.targets, steps=steps, seed=seed, bf16=job.bf16, guidance=scales, on_step=after_step
            )
        return Scene(output.scaled(1 / job.unit), job.inputs.order, self._card(job, seed, steps, scales), job.watch)

    def grow(
        self,
        images: SceneInputs | str | Path | Tensor | Sequence[str | Path | Tensor],
        out: str | Path | None = None,
        *,
        steps: int | None = None,
        seed: int = 0,
        guidance: Guidance = 1.0,
        progress: Progress = quiet,
        on_step: Callable[[SamplingStep], None] | None = None,
        **options: Any,
    ) -> Scene:
        """Generate a scene of any number of references and views, a few at a time (see `latent3d.systems.growth`).

        Args:
            images, steps, seed, guidance, progress, on_step, options: as in `sample`. Where a camera file has no
                cameras beside those of the pictures, five views are laid out between neighbouring pictures.
            out: where the scene will be saved: what is done so far is then kept in ``<out>.part``, with a picture of
                it, and the same call goes on from there; `Scene.save` removes it.

        Raises:
            FileNotFoundError, ValueError: for inputs that cannot be used, or an unfinished scene of other inputs.
        """
        steps = self._check_steps(steps, seed)
        scales = check_guidance(self.system.config, guidance)
        job = self._prepare(images, seed, {"grow": True} | options)
        scene = seed_scene(self.system, job.references, job.targets)
        chunks = plan_growth(scene.output.cameras, len(job.references), self.system.config.views)
        kept = None
        if out is not None:
            weights = self.weights.get("sha256", "not saved")
            kept = UnfinishedScene(
                out,
                growth_conditions(
                    job.references, job.targets, steps=steps, seed=seed, weights=weights, guidance=scales
                ),
            )
            scene = kept.load(job.device) or scene
        left = len(chunks) - scene.done
        step = (progress if left else quiet)("growing", left * steps)
        shown = scene

        def after_step(state: SamplingStep) -> None:
            step()
            if on_step is not None:
                parts = [plain(shown.output.gaussians), plain(state.gaussians)]
                on_step(job.in_inputs_unit(state, Gaussians.cat(parts)))

        with job.watch("sampling"):
            settings: dict[str, Any] = {"steps": steps, "seed": seed, "bf16": job.bf16, "guidance": scales}
            for shown in grow(self.system, scene, chunks, **settings, on_step=after_step):
                if kept is not None:
                    kept.store(shown, chunks[shown.done - 1])
        card = self._card(job, seed, steps, scales) | {"job": "grown scene", "chunks": len(chunks)}
        return Scene(shown.output.scaled(1 / job.unit), job.inputs.order, card, job.watch, kept)

    def _check_steps(self, steps: int | None, seed: int) -> int:
        if steps is None:
            steps = int(self.weights.get("default_steps", DEFAULT_STEPS))
        if not 1 <= steps <= 1000:
            raise ValueError(f"{steps} steps are not possible; give 1 to 1000")
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"the seed {seed} is not usable; give a whole number from 0 to {MAX_SEED}")
        return steps

    def _prepare(self, images: Any, seed: int, options: dict[str, Any]) -> _Job:
        watch = Stopwatch()
        with watch("inputs"):
            inputs = images if isinstance(images, SceneInputs) else read_inputs(images, seed=seed, **options)
            height, width = self.system.config.height, self.system.config.width
            references, notes = inputs.fitted(height, width)
            device = next(self.system.parameters()).device
            references = references.to(device)
        with watch("geometry"), torch.no_grad():
            unit = model_unit(references)
            references = replace(references, cameras=references.cameras.scaled(unit))
            depth = typical_depth(self.system, references) / unit
            targets = inputs.targets_for(height, width, depth).to(device).scaled(unit)
        return _Job(inputs, references, targets, notes, unit, depth, device, self.bf16, watch)

    def _card(self, job: _Job, seed: int, steps: int, guidance: tuple[float, float]) -> dict[str, Any]:
        references, targets = job.references, job.targets
        height, width = references.images.shape[-2:]
        return {
            "job": "scene",
            "method": "GGS",
            "seed": seed,
            "steps": steps,
            "guidance": list(guidance),
            "device": str(job.device),
            "precision": "bf16" if job.bf16 else "fp32",
            "memory": present_level(),
            "weights": self.weights,
            "inputs": [
                {"file": name, "notes": list(said)} for name, said in zip(job.inputs.names, job.notes, strict=True)
            ],
            "cameras": [
                *job.inputs.camera_notes,
                f"Typical depth of the scene: {job.depth:.2f} units.",
                f"Translations were multiplied by {job.unit:.3g} for the model and divided again.",
            ],
            "views": {"references": len(references), "generated": len(targets), "height": height, "width": width},
        }


def model_unit(references: Views) -> float:
    """Factor on translations that brings cameras of any unit to lengths that the model knows.

    1 where points matched between the references lie at a depth that rooms have in metres, or where none match (as with
    one reference); else what brings their median depth to `TYPICAL_DEPTH`.
    """
    if len(references) < 2:
        return 1.0
    depth = matched_depth(references[path_order(references.cameras)])
    low, high = KNOWN_DEPTHS
    return 1.0 if depth is None or low <= depth <= high else TYPICAL_DEPTH / depth


def typical_depth(system: GGSSystem, references: Views) -> float:
    """Depth of the first reference in scene units by which camera paths are scaled (see `path_depth`).

    A model without reference geometry gets `FOCUS_DEPTH`.
    """
    cameras = references.cameras.relative_to(references.cameras.c2w[:1].expand(len(references), 4, 4))
    relative = system.reference_depth(Views(references.images[None], cameras[None]))
    if relative is None:
        return FOCUS_DEPTH
    return path_depth(system.config.depth_range.depth(relative[0, 0]).flatten())


def find_weights(path_or_name: str | Path | None) -> Path:
    """Weights folder from a path, a shipped name or nothing.

    Raises:
        FileNotFoundError: with what was searched.
    """
    if path_or_name is None:
        return find_shipped(DEFAULT_WEIGHTS)
    folder = Path(path_or_name)
    if folder.exists() or len(folder.parts) > 1:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no weights folder '{folder}'; give a folder written by latent3d")
        return folder
    return find_shipped(str(path_or_name))


def pick_device(name: str | None) -> torch.device:
    """Device by name, or the best there is.

    Raises:
        ValueError: for a device that is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the device '{name}' cannot be used here; choose cpu, or drop --device") from error
    return device
