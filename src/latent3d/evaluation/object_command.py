"""``latent3d evaluate`` for models of objects: both protocols on procedural objects, meshes or banks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latent3d.evaluation.features import FeatureExtractor
from latent3d.evaluation.object_cases import BankCases, CaseSource, MeshFolder, ProceduralObjects, ShapeCases
from latent3d.evaluation.object_generation import evaluate_generation
from latent3d.evaluation.object_protocols import (
    CONDITIONS,
    GenerationProtocol,
    ObjectSystem,
    ReconstructionProtocol,
    ShapeSource,
    told_by,
)
from latent3d.evaluation.object_runner import evaluate_reconstruction
from latent3d.evaluation.perceptual import PerceptualDistance

OBJECT_PROTOCOLS = ("objects_reconstruction", "objects_generation")
OBJECT_STEPS = 50
LARGEST = 128
"""Side in pixels at which objects are judged, as in the paper; models of smaller pictures at their own."""
TRAINING_SHAPES = 256
"""Among so many training shapes the nearest one is looked for."""


@dataclass(frozen=True)
class ObjectModel:
    """A model of objects and what the records say of it.

    Attributes:
        system: what is asked.
        about: name and ``sha256`` of the weights, ``default_steps`` if they recommend a number, and the like.
        image_size: side of the pictures that it is given, in pixels.
    """

    system: ObjectSystem
    about: dict[str, Any]
    image_size: int


def evaluate_objects(
    model: ObjectModel | None,
    out: str | Path,
    *,
    protocol: Sequence[str] = OBJECT_PROTOCOLS,
    data: Sequence[Path] = (),
    family: Sequence[str] = (),
    objects: int = 64,
    inputs: int = 4,
    conditions: Sequence[str] | None = None,
    steps: Sequence[int] = (),
    guidance: float | None = None,
    training: int = TRAINING_SHAPES,
    seed: int = 0,
    split: str = "test",
    extractor: FeatureExtractor | None = None,
    embedding: FeatureExtractor | None = None,
    perceptual: PerceptualDistance | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Every protocol on every source of objects.

    Args:
        model: None: score what needs no model.
        protocol: of `OBJECT_PROTOCOLS`.
        data: folders of meshes, mesh files, or banks of objects (these for reconstruction alone) in place of procedural
            objects.
        family: classes of procedural objects; all by default.
        objects: at most so many per source; there are as many samples of each kind of condition.
        inputs: views that are given for a reconstruction.
        conditions: None: all that the model listens to and the objects can tell.
        steps: numbers of denoising steps; default what the weights recommend.
        guidance, seed: of sampling, see `evaluate_generation`.
        training: procedural training shapes among which the nearest is looked for, at least as many as
            samples; 0 for none.
        extractor, embedding, perceptual: of distances, CLIP-I and LPIPS.

    Returns:
        The records.

    Raises:
        FileNotFoundError, ValueError: for weights, names or folders that cannot be used.
    """
    if unknown := [name for name in protocol if name not in OBJECT_PROTOCOLS]:
        raise ValueError(f"unknown protocol '{unknown[0]}' for objects; choose among {', '.join(OBJECT_PROTOCOLS)}")
    system, about, size = (None, None, LARGEST) if model is None else (model.system, model.about, model.image_size)
    steps = steps or ((about or {}).get("default_steps", OBJECT_STEPS),)
    cases, shapes = _sources(data, family, objects, split)
    records = []
    if "objects_reconstruction" in protocol:
        how = ReconstructionProtocol(inputs=inputs, input_size=size, size=min(size, LARGEST))
        records += [
            evaluate_reconstruction(
                system, source, out, protocol=how, extractor=extractor, perceptual=perceptual, weights=about,
                progress=progress,
            )
            for source in cases
        ]  # fmt: skip
    if "objects_generation" in protocol:
        if not shapes:
            raise ValueError("generation is judged by shapes; give meshes with --data, or none for procedural objects")
        for source in shapes:
            kinds = _kinds(system, source, conditions)
            records.append(
                evaluate_generation(
                    system, source, out, training=_training(max(training, len(source)) if training else 0, family),
                    protocol=GenerationProtocol(conditions=kinds, size=min(size, LARGEST)), steps=steps,
                    guidance=guidance, seed=seed,
                    extractor=extractor, embedding=embedding, weights=about, progress=progress,
                )
            )  # fmt: skip
    return records


def _sources(
    data: Sequence[Path], family: Sequence[str], objects: int, split: str
) -> tuple[list[CaseSource], list[ShapeSource]]:
    """All sources as cases for reconstruction, and those whose shapes are known."""
    shapes: list[ShapeSource] = [] if data else [ProceduralObjects(objects, split, tuple(family))]
    banks: list[CaseSource] = []
    for folder in data:
        if (folder / "bank.json").is_file():
            banks.append(BankCases(folder, objects))
        else:
            shapes.append(MeshFolder(folder, objects))
    return [*(ShapeCases(source) for source in shapes), *banks], shapes


def _kinds(system: ObjectSystem | None, source: ShapeSource, conditions: Sequence[str] | None) -> tuple[str, ...]:
    """Kinds of conditions to sample by: those asked for, else all that are possible.

    Raises:
        ValueError: if one cannot be, or the weights hold an autoencoder alone.
    """
    heard, told = CONDITIONS if system is None else system.conditions, told_by(source.shape(0))
    if not heard:
        raise ValueError("these weights hold an autoencoder only; evaluate --protocol objects_reconstruction")
    if conditions is None:
        return tuple(kind for kind in CONDITIONS if kind in heard and kind in told)
    for kind in conditions:
        if kind not in heard or kind not in told:
            who, known = ("the model can be told", heard) if kind not in heard else ("the objects can tell", told)
            raise ValueError(f"{who} {', '.join(known)}, not '{kind}'; change --conditions")
    return tuple(conditions)


def _training(count: int, family: Sequence[str]) -> ShapeSource | None:
    return ProceduralObjects(count, "train", tuple(family)) if count else None
