"""Two references and what lies between them, without depth and without a model: blend, homography warp and flow warp.

All three place a target at t in [0, 1] between the references, by the distances of its camera to theirs, and know
nothing else of it but (the homography, where matching fails) its rotation. They are what an interpolated view is worth
before any 3D is understood; OpenCV's SIFT, RANSAC and DIS flow do the work, with fixed seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from latent3d.evaluation.baselines import fill_holes
from latent3d.evaluation.consistency import match_features, sift_features
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.rays import invert_intrinsics, pixel_grid
from latent3d.representations.views import Views

SIFT_SIDE, SIFT_CONTRAST, RATIO = 256, 0.02, 0.8
"""Matching as for TSED."""
LEAST_INLIERS = 12
"""A homography with fewer inliers is taken for a failure."""
RANSAC_PX = 3.0
"""Inliers lie this near, in pixels at a shorter side of 256."""
MAX_STRETCH = 4.0
"""A homography that stretches some direction at the picture's centre by more than this is taken for a failure."""
FLOW_SIDE = 256
"""Pictures are enlarged to this shorter side before the flow is estimated: DIS works on patches of 8 pixels."""


def path_positions(references: Cameras, targets: Cameras) -> Float[Tensor, " m"]:
    """Where each target lies between two references: d0 / (d0 + d1) from its centre's distances to theirs, (M,).

    Where all centres coincide (a turning camera), the angles of rotation take the place of the distances.

    Raises:
        ValueError: unless there are two references.
    """
    _check(references)
    distance = torch.cdist(targets.centers.double(), references.centers.double())
    baseline = (references.centers[0] - references.centers[1]).norm()
    if float(baseline) < 1e-6 * max(1.0, float(references.centers.abs().max())):
        relative = torch.einsum("mij,kij->mk", targets.w2c[:, :3, :3].double(), references.w2c[:, :3, :3].double())
        distance = torch.arccos(((relative - 1) / 2).clamp(-1, 1))
    total = distance.sum(1)
    position = torch.where(total > 1e-9, distance[:, 0] / total.clamp_min(1e-9), torch.full_like(total, 0.5))
    return position.to(targets.w2c.dtype)


def blend_references(references: Views, targets: Cameras) -> Float[Tensor, "m 3 h w"]:
    """Linear blend of the two references by path position: (1 - t) I0 + t I1.

    Raises:
        ValueError: unless there are two references.
    """
    t = path_positions(references.cameras, targets)[:, None, None, None]
    return (1 - t) * references.images[0] + t * references.images[1]


def homography_warp(references: Views, targets: Cameras) -> Float[Tensor, "m 3 h w"]:
    """Both references carried to each target by homographies, blended by path position.

    H maps pixels of the first reference to the second (SIFT matches, RANSAC). What turning the camera does to the
    picture is known from the poses, K R K^-1, the homography at infinity; the rest of H, which is parallax, goes
    the share t of its way in straight lines (fitted by a homography from the picture's corners). Where matching fails
    (too few inliers, a fold), turning is all that is done: right for a turning camera and for what is far away.

    Raises:
        ValueError: unless there are two references.
    """
    _check(references.cameras)
    turn = infinite_homography(references.cameras[0], references.cameras[1]).numpy()
    between = match_homography(references)
    if between is None:
        between = turn
    parallax = np.linalg.solve(turn, between)
    grid = pixel_grid(targets.height, targets.width, dtype=torch.float64)
    out = []
    for i, t in enumerate(path_positions(references.cameras, targets).tolist()):
        moved = _partway(parallax, t, targets.height, targets.width)
        first = np.linalg.inv(infinite_homography(references.cameras[0], targets[i]).numpy() @ moved)
        maps = torch.stack([_apply(torch.from_numpy(carrier), grid) for carrier in (first, between @ first)])
        out.append(_sample_and_blend(references.images, maps, t))
    return torch.stack(out)


def match_homography(references: Views) -> np.ndarray | None:
    """Homography (3, 3) from pixels of the first view to the second's by SIFT and RANSAC, or None if it fails."""
    import cv2

    found = [sift_features(image, SIFT_SIDE, SIFT_CONTRAST) for image in references.images[:2]]
    first, second = match_features(found[0], found[1], RATIO)
    if len(first) < LEAST_INLIERS:
        return None
    side = min(references.cameras.height, references.cameras.width)
    cv2.setRNGSeed(0)
    matrix, inliers = cv2.findHomography(first.numpy(), second.numpy(), cv2.RANSAC, RANSAC_PX * side / SIFT_SIDE)
    if matrix is None or int(inliers.sum()) < LEAST_INLIERS:
        return None
    middle = np.array([references.cameras.width / 2, references.cameras.height / 2])
    largest, smallest = _stretch(matrix, middle)
    return matrix / matrix[2, 2] if 1 / MAX_STRETCH < smallest <= largest < MAX_STRETCH else None


def infinite_homography(first: Cameras, second: Cameras) -> Float[Tensor, "3 3"]:
    """K2 R K1^-1 from pixels of one camera to pixels of another, float64: exact for what is infinitely far away."""
    rotation = (second.w2c[:3, :3] @ first.w2c[:3, :3].mT).double()
    return second.k.double() @ rotation @ invert_intrinsics(first.k.double())


def flow_warp(references: Views, targets: Cameras) -> Float[Tensor, "m 3 h w"]:
    """Symmetric warp by optical flow (DIS, Kroeger et al. 2016), blended by path position.

    F01 and F10 are the flows between the references. A target at t reads the first reference at x - t F01 and the
    second at x - (1 - t) F10, each with the flow carried to the target's pixels (Super SloMo's linear motion, Jiang et
    al. 2018, without its networks).

    Raises:
        ValueError: unless there are two references.
    """
    _check(references.cameras)
    forward, backward = (optical_flow(references.images[a], references.images[b]) for a, b in ((0, 1), (1, 0)))
    height, width = references.images.shape[-2:]
    grid = pixel_grid(height, width, dtype=torch.float64)
    out = []
    for t in path_positions(references.cameras, targets).tolist():
        maps = torch.stack([grid - t * _carried(forward, t), grid - (1 - t) * _carried(backward, 1 - t)])
        out.append(_sample_and_blend(references.images, maps, t))
    return torch.stack(out)


def optical_flow(first: Float[Tensor, "3 h w"], second: Float[Tensor, "3 h w"]) -> Float[Tensor, "h w 2"]:
    """Dense flow (x, y) in pixels from the first to the second picture, float64: first(x) ~ second(x + flow(x))."""
    import cv2

    height, width = first.shape[-2:]
    factor = max(1, -(-FLOW_SIDE // min(height, width)))
    grey = [_grey(image, (width * factor, height * factor)) for image in (first, second)]
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = torch.from_numpy(dis.calc(grey[0], grey[1], None)).double()  # type: ignore[call-overload]
    flow = torch.nn.functional.avg_pool2d(rearrange(flow, "h w c -> 1 c h w"), factor) / factor
    return rearrange(flow, "1 c h w -> h w c")


METHODS: dict[str, Callable[[Views, Cameras], Tensor]] = {
    "blend": blend_references,
    "homography_warp": homography_warp,
    "flow_warp": flow_warp,
}
"""By the name in the tables."""


def _check(references: Cameras) -> None:
    if len(references) != 2:
        raise ValueError(f"interpolation without depth takes two references, not {len(references)}")


def _grey(image: Tensor, size: tuple[int, int]) -> np.ndarray:
    import cv2

    picture = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return cv2.resize(
        cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_CUBIC
    )


def _partway(matrix: np.ndarray, t: float, height: int, width: int) -> np.ndarray:
    """The homography that takes the picture's corners the share t of the way that ``matrix`` takes them."""
    import cv2

    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
    ends = cv2.perspectiveTransform(corners[None], matrix)[0]
    return cv2.getPerspectiveTransform(corners.astype(np.float32), ((1 - t) * corners + t * ends).astype(np.float32))


def _stretch(matrix: np.ndarray, point: np.ndarray) -> Any:
    """Singular values of the homography's derivative at a point, largest first; zeros where it folds there."""
    x = matrix @ np.array([*point, 1.0])
    derivative = (matrix[:2, :2] - np.outer(x[:2] / x[2], matrix[2, :2])) / x[2]
    return np.linalg.svd(derivative, compute_uv=False) if np.linalg.det(derivative) > 0 else np.zeros(2)


def _apply(matrix: Tensor, pixels: Tensor) -> Tensor:
    """Pixels (h, w, 2) under a homography; those that come to lie behind the camera go far outside."""
    x = pixels @ matrix[:, :2].mT + matrix[:, 2]
    z = x[..., 2:]
    return torch.where(z > 1e-9, x[..., :2] / z.clamp_min(1e-9), torch.full_like(x[..., :2], -1e6))


def _carried(flow: Tensor, t: float) -> Tensor:
    """The flow (h, w, 2) that stands at each pixel once every pixel has gone the share t of its way.

    Fixed-point iteration of v(x) = flow(x - t v(x)), which needs no splatting and leaves no hole.
    """
    height, width = flow.shape[:2]
    grid = pixel_grid(height, width, dtype=flow.dtype)
    field = rearrange(flow, "h w c -> 1 c h w")
    carried = flow
    for _ in range(8):
        carried = rearrange(_sample(field, (grid - t * carried)[None], "bilinear"), "1 c h w -> h w c")
    return carried


def _sample(images: Tensor, positions: Tensor, mode: str) -> Tensor:
    """Pictures (n, c, h, w) at positions (n, h, w, 2) in pixels; outside, the nearest border pixel."""
    size = positions.new_tensor([images.shape[-1], images.shape[-2]])
    grid = (positions * 2 / size - 1).clamp(-10, 10).to(images.dtype)
    return torch.nn.functional.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)


def _sample_and_blend(images: Tensor, positions: Tensor, t: float) -> Tensor:
    """Two pictures sampled at positions (2, h, w, 2) and blended; a pixel that only one shows is that one's."""
    size = positions.new_tensor([images.shape[-1], images.shape[-2]])
    inside = ((positions >= 0) & (positions <= size)).all(-1)[:, None]
    colours = _sample(images, positions, "bicubic")
    weight = inside * images.new_tensor([1 - t, t])[:, None, None, None]
    total = weight.sum(0, keepdim=True)
    mixed = (weight * colours).sum(0, keepdim=True) / total.clamp_min(1e-9)
    # At the very ends of the path one weight is zero; what only the other reference shows is better than a hole.
    other = (inside * colours).sum(0, keepdim=True) / inside.sum(0, keepdim=True).clamp_min(1)
    mixed = torch.where(total > 0, mixed, other)
    return fill_holes(mixed, inside.any(0, keepdim=True))[0].clamp(0, 1)
