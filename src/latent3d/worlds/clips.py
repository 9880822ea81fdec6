"""`sample_clip`: posed views with exact depth and normals of procedural worlds, by family, split and index.

Splits are disjoint by construction: a clip's random stream is ``SeedSequence((salt, family, split, index))`` of numpy.
The streams of the scene, the path, the times and the camera effects are separate children, so that the scene of a clip
does not depend on how many views or pixels are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from latent3d.geometry.cameras import Cameras
from latent3d.representations.views import Views
from latent3d.worlds.camera_effects import photograph
from latent3d.worlds.otherworld import other_stage
from latent3d.worlds.outdoors import open_stage
from latent3d.worlds.palette import Rng, uniform
from latent3d.worlds.paths import DENSE_TIMES, Path, Stage, draw_path
from latent3d.worlds.pedestals import objects_stage
from latent3d.worlds.rooms import rooms_stage
from latent3d.worlds.tracer import Pictures, Tracer

FAMILIES: dict[str, Callable[[Rng], Stage]] = {
    "rooms": rooms_stage,
    "open": open_stage,
    "objects": objects_stage,
    "other": other_stage,
}
FAMILY_NUMBERS = {"rooms": 1, "open": 2, "objects": 3, "mixed": 4, "other": 5}
MIXED_WEIGHTS = {"rooms": 0.6, "open": 0.2, "objects": 0.2}
SPLITS = {"train": 1, "val": 2, "test": 3}
TEST_SEEDS = tuple(range(64))
"""Indices of the published test clips of every family: ``sample_clip(family, "test", index)`` for these."""

SALT = 20240611
PROBE = 20
PATH_TRIES = 60
SCENE_TRIES = 40


@dataclass(frozen=True)
class Shot:
    """Everything about a clip but its pixels: scene, path, lens, exposure, random streams for times and effects."""

    family: str
    tracer: Tracer
    path: Path
    fov: float
    exposure: float
    time_seed: np.random.SeedSequence
    effect_seed: np.random.SeedSequence


def check_names(family: str, split: str) -> None:
    """ValueError for unknown names, and for training on the test family."""
    if family not in FAMILY_NUMBERS:
        raise ValueError(f"unknown family '{family}'; choose one of {', '.join(FAMILY_NUMBERS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split '{split}'; choose one of {', '.join(SPLITS)}")
    if family == "other" and split != "test":
        raise ValueError(
            "family 'other' measures generalisation and has only the split 'test'; train on 'mixed' instead"
        )


def sample_clip(
    family: str,
    split: str,
    index: int,
    *,
    num_views: int = 8,
    height: int = 128,
    width: int = 128,
    extra_views: int = 0,
    supersample: int = 2,
    effects: bool = True,
    threads: int = 1,
) -> Views:
    """Film one procedural scene.

    Args:
        family: "rooms", "open", "objects", "mixed" (a weighted draw of these) or "other" (test only).
        split: "train", "val" or "test"; disjoint for equal indices by construction.
        index: any non-negative number; the same arguments give the same bits on the same machine.
        num_views: views equally spaced in path time, first to last.
        extra_views: further views at random times strictly between those, appended in path order.
        supersample: 1 or 2, see `Tracer.render`.
        effects: sensor noise, slight blur, vignetting of a drawn camera; False gives the clean renderings.
        threads: views traced at once.

    Returns:
        `Views` of shape (num_views + extra_views,): float32 sRGB images, z-depth in metres, unit normals that face the
        camera; world axes are the first camera's (identity pose). The sky is a dome of 14 m (rooms), 12 m (objects),
        18 m (other) or 48 m (open) radius; its depth is the dome's, hence consistent between views and at most 50 m.

    Raises:
        ValueError: for unknown names or sizes below one.
    """
    check_names(family, split)
    if num_views < 1 or extra_views < 0 or height < 1 or width < 1 or index < 0:
        raise ValueError("num_views, height and width must be at least 1, extra_views and index at least 0")
    shot = plan_shot(family, split, index)
    times = clip_times(num_views, extra_views, np.random.default_rng(shot.time_seed))
    poses = np.stack([shot.path.pose(float(t)) for t in times])
    k = lens(shot.fov, height, width)
    pictures = shot.tracer.render(
        poses, k, height, width, exposure=shot.exposure, supersample=supersample, threads=threads
    )
    images = (
        photograph(pictures.colours, shot.effect_seed, num_views)
        if effects
        else photograph(pictures.colours, None, num_views)
    )
    return as_views(images, pictures, poses, k)


def as_views(images: np.ndarray, pictures: Pictures, poses: np.ndarray, k: np.ndarray) -> Views:
    """Tensors relative to the first camera."""
    count, height, width = pictures.depths.shape
    first = poses[0]
    relative = np.linalg.inv(first) @ poses
    relative[0] = np.eye(4)
    c2w = torch.from_numpy(relative.astype(np.float32))
    intrinsics = torch.from_numpy(k.astype(np.float32)).expand(count, 3, 3).contiguous()
    normals = pictures.normals @ first[:3, :3].astype(np.float32)
    return Views(
        images=torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))),
        cameras=Cameras.from_c2w(c2w, intrinsics, height, width),
        depths=torch.from_numpy(pictures.depths[:, None].copy()),
        normals=torch.from_numpy(np.ascontiguousarray(normals.transpose(0, 3, 1, 2))),
    )


def lens(fov: float, height: int, width: int) -> np.ndarray:
    """Intrinsics (3, 3) in pixels with square pixels; ``fov`` in radians spans the longer side."""
    focal = 0.5 * max(height, width) / math.tan(fov / 2)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])


def clip_times(num_views: int, extra_views: int, rng: Rng) -> np.ndarray:
    """Times in [0, 1]: ``num_views`` equally spaced, then sorted extra ones well inside the gaps between them."""
    main = np.linspace(0.0, 1.0, num_views) if num_views > 1 else np.zeros(1)
    if not extra_views:
        return main
    gaps = max(num_views - 1, 1)
    rounds = [rng.permutation(gaps) for _ in range(-(-extra_views // gaps))]
    chosen = np.concatenate(rounds)[:extra_views]
    inside = 0.15 + 0.7 * rng.random(extra_views)
    return np.concatenate([main, np.sort((chosen + inside) / gaps)])


def plan_shot(family: str, split: str, index: int) -> Shot:
    """Draw scene, path, lens and exposure of a clip (deterministic)."""
    check_names(family, split)
    root = np.random.SeedSequence((SALT, FAMILY_NUMBERS[family], SPLITS[split], index))
    scene_seed, time_seed, effect_seed = root.spawn(3)
    rng = np.random.default_rng(scene_seed)
    name = family
    if family == "mixed":
        name = list(MIXED_WEIGHTS)[int(np.searchsorted(np.cumsum(list(MIXED_WEIGHTS.values())), rng.random()))]
    best: tuple[float, Shot] | None = None
    for _ in range(SCENE_TRIES):
        stage = FAMILIES[name](rng)
        tracer: Tracer | None = None
        looks = 0
        for _ in range(PATH_TRIES):
            path = draw_path(rng, stage)
            if path is None:
                continue
            tracer = tracer or Tracer(stage.scene)
            fov = math.radians(uniform(rng, 45.0, 90.0))
            score, exposure = rehearse(tracer, path, fov, rng)
            shot = Shot(name, tracer, path, fov, exposure, time_seed, effect_seed)
            if score >= 1.0:
                return shot
            if best is None or score > best[0]:
                best = score, shot
            looks += 1
            if looks >= 4:
                break
    if best is None:
        raise ValueError(f"no camera path found for clip {index} of '{family}'; use another index")
    return best[1]


def rehearse(tracer: Tracer, path: Path, fov: float, rng: Rng) -> tuple[float, float]:
    """Film three tiny views: (score, exposure). A score of 1 says: nothing too near, enough to see, views overlap."""
    poses = np.stack([path.pose(float(DENSE_TIMES[i])) for i in (0, len(DENSE_TIMES) // 2, -1)])
    k = lens(fov, PROBE, PROBE)
    # exposure small enough to stay on the linear part of the tone curve, then undone
    small = 1e-3
    pictures = tracer.render(poses, k, PROBE, PROBE, exposure=small, supersample=1)
    light = pictures.colours.mean(-1) / small
    key = math.exp(rng.normal() * 0.35) * 0.18
    exposure = key / max(float(np.exp(np.log(light + 1e-3).mean())), 1e-3)
    depth = pictures.depths
    near = min(1.0, float(np.quantile(depth, 0.01)) / 0.45) * min(1.0, float(np.median(depth[0])) / 1.1)
    contrast = float(np.log(light + 1e-2).std(axis=(1, 2)).min())
    seen = overlap(pictures.depths[0], pictures.depths[-1], poses[0], poses[-1], k)
    relief = float(np.log(depth).std(axis=(1, 2)).min())
    score = near * min(1.0, contrast / 0.25) * min(1.0, seen / 0.4) * min(1.0, relief / 0.12)
    return score, exposure


def overlap(depth_a: np.ndarray, depth_b: np.ndarray, pose_a: np.ndarray, pose_b: np.ndarray, k: np.ndarray) -> float:
    """Share of the pixels of view b whose surface view a sees (tolerance 15 % for coarse pictures)."""
    size = depth_a.shape[0]
    grid = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), -1).reshape(-1, 2)
    rays = np.concatenate([(grid - k[:2, 2]) / k[0, 0], np.ones((size * size, 1))], 1)
    points = (rays * depth_b.reshape(-1, 1)) @ pose_b[:3, :3].T + pose_b[:3, 3]
    local = (points - pose_a[:3, 3]) @ pose_a[:3, :3]
    z = np.maximum(local[:, 2], 1e-6)
    pixel = np.floor(local[:, :2] / z[:, None] * k[0, 0] + k[:2, 2]).astype(int)
    inside = (local[:, 2] > 0.1) & (pixel >= 0).all(1) & (pixel < size).all(1)
    pixel = np.clip(pixel, 0, size - 1)
    return float((inside & (z < depth_a[pixel[:, 1], pixel[:, 0]] * 1.15)).mean())
