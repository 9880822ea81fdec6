"""Results on disk, one scene or object at a time: numbers, features and a row of pictures.

An interrupted evaluation continues where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latent3d.evaluation.records import plain
from latent3d.evaluation.scoring import NEAREST, TRUTH, Prediction, SceneTask
from latent3d.evaluation.sheets import depth_picture, row, sheet
from latent3d.io.atomic import output_file, write_text
from latent3d.io.images import save_image


class ResultCache:
    """A folder named by a hash of the conditions under which an item's numbers were made."""

    def __init__(self, folder: str | Path, conditions: dict[str, Any]) -> None:
        """``conditions``: JSON-able; whatever changes a number must change them."""
        key = hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = Path(folder) / key

    def has(self, index: int, with_picture: bool = False) -> bool:
        """Whether an item is complete, if need be with its row of pictures."""
        wanted = [".npz", ".json"] + [".png"] * with_picture
        return all(self._path(index, suffix).is_file() for suffix in wanted)

    def write(
        self, index: int, entry: dict[str, Any], arrays: dict[str, Tensor], pictures: list[Tensor] | None = None
    ) -> None:
        """Write one item: arrays, a row of pictures (3, h, w) if there is one, and the JSON last, as the mark of
        completion."""
        plain_arrays: dict[str, Any] = {name: value.cpu().numpy() for name, value in arrays.items()}
        with output_file(self._path(index, ".npz")) as temporary:
            np.savez(temporary, **plain_arrays)
        if pictures:
            save_image(self._path(index, ".png"), row(pictures))
        write_text(self._path(index, ".json"), json.dumps(plain(entry), allow_nan=False))

    def entries(self, count: int) -> list[dict[str, Any]]:
        """What `write` wrote as JSON for items 0 .. count - 1."""
        return [json.loads(self._path(index, ".json").read_text(encoding="utf-8")) for index in range(count)]

    def arrays(self, index: int) -> dict[str, Tensor]:
        """The arrays of one item."""
        with np.load(self._path(index, ".npz")) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}

    def features(self, count: int) -> dict[str, Tensor]:
        """Arrays of items 0 .. count - 1 by name, joined, (N, d)."""
        parts: dict[str, list[Tensor]] = {}
        for index in range(count):
            for name, value in self.arrays(index).items():
                parts.setdefault(name, []).append(value)
        return {name: torch.cat(values) for name, values in parts.items()}

    def write_sheet(self, indices: list[int], path: Path) -> None:
        """Stack the rows of some items into one picture; column titles are the first one's ``titles``."""
        from PIL import Image

        rows = []
        for index in indices:
            with Image.open(self._path(index, ".png")) as picture:
                pixels = np.array(picture.convert("RGB"))
            rows.append(torch.from_numpy(pixels).permute(2, 0, 1) / 255)
        titles = json.loads(self._path(indices[0], ".json").read_text(encoding="utf-8"))["titles"]
        save_image(path, sheet(rows, titles))

    def _path(self, index: int, suffix: str) -> Path:
        return self.folder / f"{index:05d}{suffix}"


class SceneCache(ResultCache):
    """Results of scenes: an entry holds scores, titles, size, factor and perhaps seen_share."""

    def store(
        self,
        index: int,
        task: SceneTask,
        predictions: dict[str, Prediction],
        scores: dict[str, dict[str, Any]],
        features: dict[str, Tensor],
        with_picture: bool,
    ) -> None:
        """Write one scene with the features of all its images."""
        titles, pictures = sheet_row(task, predictions) if with_picture else ([], [])
        entry: dict[str, Any] = {"scores": scores, "titles": titles, "size": list(task.targets.images.shape[-2:])}
        entry["factor"] = task.factor
        if task.seen is not None:
            entry["seen_share"] = float(task.seen.float().mean())
        self.write(index, entry, features, pictures)


def sheet_row(task: SceneTask, predictions: dict[str, Prediction]) -> tuple[list[str], list[Tensor]]:
    """Titles and pictures of one scene, everything at one target, two thirds along the targets."""
    at = (2 * len(task.targets)) // 3
    columns = [(f"reference {i + 1}", image) for i, image in enumerate(task.references.images)]
    columns.append((TRUTH, task.targets.images[at]))
    columns += [(name, item.images[at]) for name, item in predictions.items() if name not in (TRUTH, NEAREST)]
    true_depth = None if task.targets.depths is None else task.targets.depths[at]
    if true_depth is not None:
        columns.append(("true depth", depth_picture(true_depth)))
    for name, item in predictions.items():
        if name.startswith("splats") and item.depths is not None:
            columns.append((f"depth, {name}", depth_picture(item.depths[at], true_depth)))
    return [title for title, _ in columns], [picture for _, picture in columns]
