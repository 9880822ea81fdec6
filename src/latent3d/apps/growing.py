"""Scenes that grow, on disk: what is done so far is kept beside the output folder until the scene is finished."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.io.images import save_image
from latent3d.rendering.splat_views import render_views
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.views import Views
from latent3d.systems.ggs import GGSOutput
from latent3d.systems.growth import Chunk, GrownScene
from latent3d.weights import load_tensors, read_json, replace_folder, save_tensors

SHARD_BYTES = 1 << 30
FORMAT = 1


class UnfinishedScene:
    """The folder ``<out>.part``: the scene after its last finished chunk, a picture of it, and what it is made from."""

    def __init__(self, out: str | Path, conditions: dict[str, Any]) -> None:
        """Name the folder; nothing is written yet.

        Args:
            out: where the finished scene will be.
            conditions: everything that the scene depends on, as JSON; only the same may go on.
        """
        out = Path(out)
        self.folder = out.with_name(out.name + ".part")
        self.conditions = {"format": FORMAT} | json.loads(json.dumps(conditions))

    def load(self, device: torch.device) -> GrownScene | None:
        """What an earlier run has reached; None if there was none.

        Raises:
            ValueError: if it is of another scene or damaged.
        """
        if not self.folder.exists():
            return None
        remedy = "finish it with its own command, delete that folder, or choose another one with --out"
        if not (self.folder / "growth.json").is_file():
            raise ValueError(f"the folder '{self.folder}' is not an unfinished scene of latent3d; {remedy}")
        about = read_json(self.folder / "growth.json")
        if about.get("conditions") != self.conditions:
            raise ValueError(
                f"the folder '{self.folder}' holds an unfinished scene of other inputs or settings; {remedy}"
            )
        tensors = load_tensors(self.folder, "scene")
        surfaces = tensors.pop("surfaces").to(device)
        return GrownScene(_unpacked(tensors, about, device), surfaces, int(about["done"]))

    def store(self, scene: GrownScene, chunk: Chunk) -> None:
        """Keep a scene, and a picture of the views of its last chunk."""
        output = scene.output
        about = {
            "conditions": self.conditions,
            "done": scene.done,
            "size": [output.cameras.height, output.cameras.width],
            "low_pass_px": output.low_pass_px,
        }
        views = torch.tensor(chunk.references + chunk.targets)
        seen = render_views(output.gaussians, output.cameras[views], low_pass=output.low_pass_px)
        assert seen.rgb is not None
        rows = torch.cat(list(torch.cat([output.images[views.to(output.images.device)], seen.rgb], 2)), 2)

        def fill(place: Path) -> None:
            tensors = _packed(output) | {"surfaces": scene.surfaces.cpu().contiguous()}
            save_tensors(place, "scene", tensors, SHARD_BYTES)
            save_image(place / "preview.png", rows)
            (place / "growth.json").write_text(json.dumps(about, indent=1))

        replace_folder(self.folder, fill)

    def remove(self) -> None:
        """Forget what was kept: the scene is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)


def growth_conditions(references: Views, targets: Cameras, **rest: Any) -> dict[str, Any]:
    """A fingerprint of the inputs, and the settings."""
    digest = hashlib.sha256()
    cameras = [references.cameras, targets]
    for tensor in (references.images, *(part for each in cameras for part in (each.w2c, each.k))):
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return {"inputs_sha256": digest.hexdigest(), "references": len(references), "targets": len(targets)} | rest


def _packed(output: GGSOutput) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for field in fields(output):
        value = getattr(output, field.name)
        if isinstance(value, Tensor):
            tensors[field.name] = value
        elif isinstance(value, Gaussians | Cameras):
            parts = {part.name: getattr(value, part.name) for part in fields(value)}
            tensors |= {f"{field.name}.{name}": part for name, part in parts.items() if isinstance(part, Tensor)}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _unpacked(tensors: dict[str, Tensor], about: dict[str, Any], device: torch.device) -> GGSOutput:
    def parts(name: str) -> dict[str, Tensor]:
        return {key.partition(".")[2]: value.to(device) for key, value in tensors.items() if key.startswith(f"{name}.")}

    height, width = about["size"]
    whole = {name: tensor.to(device) for name, tensor in tensors.items() if "." not in name}
    return GGSOutput(
        gaussians=Gaussians(**parts("gaussians")),
        latent_gaussians=Gaussians(**parts("latent_gaussians")),
        cameras=Cameras(**parts("cameras"), height=height, width=width),
        low_pass_px=about["low_pass_px"],
        **whole,
    )
