"""Small true places for tests: a textured plane with relief that a ring of cameras photographs exactly."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from latent3d.geometry.rotations import look_at, matrix_to_quaternion

HEIGHT, WIDTH, FOCAL = 120, 160, 150.0
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


def k_matrix() -> np.ndarray:
    return np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1.0]])


def poses(count: int = 6) -> np.ndarray:
    """Camera to world (N, 4, 4), OpenCV axes, on an arc that looks at the origin."""
    angles = np.linspace(-0.5, 0.5, count)
    eyes = np.stack([3 * np.sin(angles), -0.4 + 0.5 * angles**2, -3 * np.cos(angles)], 1)
    return look_at(torch.from_numpy(eyes), torch.zeros(count, 3, dtype=torch.float64)).numpy()


def photograph(c2w: np.ndarray, height: int = HEIGHT, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray]:
    """Picture (H, W, 3) uint8 and z-depth (H, W) of two textured planes, z = 0.5 and, for x < 0, z = 0."""
    k = k_matrix() * np.array([[width / WIDTH], [height / HEIGHT], [1.0]])
    texture = np.random.default_rng(3).integers(0, 256, (40, 40, 3))
    y, x = np.mgrid[:height, :width] + 0.5
    rays = np.stack([(x - k[0, 2]) / k[0, 0], (y - k[1, 2]) / k[1, 1], np.ones_like(x)], -1) @ c2w[:3, :3].T
    picture, depth = np.zeros((height, width, 3)), np.zeros((height, width))
    for z in (0.5, 0.0):
        distance = (z - c2w[2, 3]) / rays[..., 2]
        point = c2w[:3, 3] + distance[..., None] * rays
        shown = (distance > 0) & ((z == 0.5) | (point[..., 0] < 0))
        u, v = (8 * point[..., i] + 20 + 3 * z for i in (0, 1))
        low_u, low_v = np.floor(u).astype(int), np.floor(v).astype(int)
        a, b = (u - low_u)[..., None], (v - low_v)[..., None]
        color = sum(
            weight * texture[(low_v + j) % 40, (low_u + i) % 40]
            for i, j, weight in ((0, 0, (1 - a) * (1 - b)), (1, 0, a * (1 - b)), (0, 1, (1 - a) * b), (1, 1, a * b))
        )
        picture[shown], depth[shown] = color[shown], distance[shown]
    return picture.round().astype(np.uint8), depth


def write_pictures(folder: Path, c2w: np.ndarray, names: list[str] | None = None) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = names or [f"{i:03d}.png" for i in range(len(c2w))]
    for name, pose in zip(names, c2w, strict=True):
        Image.fromarray(photograph(pose)[0]).save(folder / name)
    return names


def write_transforms(folder: Path, c2w: np.ndarray | None = None, **extra) -> dict:
    """A nerfstudio folder; returns the content of its transforms.json."""
    c2w = poses() if c2w is None else c2w
    names = write_pictures(folder / "images", c2w)
    content = {"w": WIDTH, "h": HEIGHT, "fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2, **extra}
    content["frames"] = [
        {"file_path": f"images/{name}", "transform_matrix": (pose @ FLIP).tolist()}
        for name, pose in zip(names, c2w, strict=True)
    ]
    (folder / "transforms.json").write_text(json.dumps(content))
    return content


def colmap_rows(c2w: np.ndarray) -> list[tuple[list[float], list[float]]]:
    """Quaternion (w, x, y, z) and translation of each world-to-camera matrix."""
    w2c = np.linalg.inv(c2w)
    quaternions = matrix_to_quaternion(torch.from_numpy(w2c[:, :3, :3].copy())).numpy()
    return [(q.tolist(), m[:3, 3].tolist()) for q, m in zip(quaternions, w2c, strict=True)]


def write_colmap(folder: Path, binary: bool, model: int = 1, params=None, c2w: np.ndarray | None = None) -> Path:
    """A COLMAP capture with pictures in ``images``; returns the folder of its model."""
    from latent3d.data.captures.colmap import MODELS

    c2w = poses() if c2w is None else c2w
    params = [FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2] if params is None else params
    names = write_pictures(folder / "images", c2w)
    place = folder / "sparse" / "0"
    place.mkdir(parents=True)
    points = [(0.0, 0.0, 0.5), (-0.5, 0.25, 0.0)]
    if binary:
        camera = struct.pack("<QiiQQ", 1, 7, model, WIDTH, HEIGHT) + struct.pack(f"<{len(params)}d", *params)
        (place / "cameras.bin").write_bytes(camera)
        data = struct.pack("<Q", len(names))
        for index, (name, (q, t)) in enumerate(zip(names, colmap_rows(c2w), strict=True)):
            data += struct.pack("<i7di", index, *q, *t, 7) + name.encode() + b"\0"
            data += struct.pack("<Q", 2) + struct.pack("<ddqddq", 1, 2, -1, 3, 4, 5)
        (place / "images.bin").write_bytes(data)
        cloud = struct.pack("<Q", len(points))
        for index, point in enumerate(points):
            cloud += struct.pack("<Q3d3BdQ", index, *point, 1, 2, 3, 0.5, 2) + struct.pack("<4i", 0, 0, 1, 0)
        (place / "points3D.bin").write_bytes(cloud)
        return place
    words = " ".join(map(repr, params))
    (place / "cameras.txt").write_text(f"# a comment\n7 {MODELS[model][0]} {WIDTH} {HEIGHT} {words}\n")
    lines = ["# a comment"]
    for index, (name, (q, t)) in enumerate(zip(names, colmap_rows(c2w), strict=True)):
        lines += [f"{index} {' '.join(map(repr, [*q, *t]))} 7 {name}", "" if index % 2 else "1.0 2.0 -1"]
    (place / "images.txt").write_text("\n".join(lines) + "\n")
    (place / "points3D.txt").write_text(
        "".join(f"{i} {x} {y} {z} 1 2 3 0.5 0 0\n" for i, (x, y, z) in enumerate(points))
    )
    return place
