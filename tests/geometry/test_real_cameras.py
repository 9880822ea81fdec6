"""Geometry on real cameras and paths: garden, dining room, RealEstate10K, two long custom paths, the fox."""

import json

import cv2
import numpy as np
import pytest
import torch

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.epipolar import epipolar_samples, fundamental_matrix, symmetric_epipolar_distance
from latent3d.geometry.rays import camera_rays, pixel_grid, unproject
from latent3d.geometry.rotations import matrix_to_quaternion, quaternion_to_matrix
from latent3d.geometry.trajectories import interpolate_poses, walk


def _posed(path) -> Cameras:
    frames = json.loads(path.read_text())["frames"]
    c2w, k = (torch.tensor([frame[key] for frame in frames], dtype=torch.float64) for key in ("camera_to_world", "K"))
    return Cameras.from_c2w(c2w, k, frames[0]["height"], frames[0]["width"])


def _garden(shared_data) -> tuple[torch.Tensor, Cameras]:
    data = np.load(shared_data("garden_points_cameras/test_garden.npz"))
    w2c, k = (torch.from_numpy(data[key]).double() for key in ("viewmats", "Ks"))
    cameras = Cameras(w2c=w2c, k=k, height=int(data["height"]), width=int(data["width"]))
    return torch.from_numpy(data["means3d"]).double(), cameras


def _re10k(path) -> torch.Tensor:
    rows = [[float(value) for value in line.split()[7:]] for line in path.read_text().strip().splitlines()[1:]]
    w2c = torch.eye(4, dtype=torch.float64).repeat(len(rows), 1, 1)
    w2c[:, :3] = torch.tensor(rows, dtype=torch.float64).reshape(-1, 3, 4)
    return torch.linalg.inv(w2c)


def test_garden_points_are_hit_by_epipolar_samples_within_half_a_pixel(shared_data):
    """Spec 12.5 on real points: the samples of the query pixel that shows a point pass its place in the other views."""
    points, cameras = _garden(shared_data)
    height, width, near, far, count = 42, 64, 0.5, 10.0, 256
    query, others = cameras[0].resized(height, width), cameras[1:].resized(height, width)
    pixels, depths = query.project(points)
    # Points within a twentieth of a pixel of a pixel centre: the rest of the error is the spacing of samples.
    centred = ((pixels % 1 - 0.5).norm(dim=-1) < 0.05) & (depths > near) & (depths < far)
    centred &= ((pixels >= 0) & (pixels < torch.tensor([width, height]))).all(-1)
    assert centred.sum() > 100
    column, row = pixels[centred].long().unbind(-1)
    truth, other_depths = others.project(points[centred].expand(2, -1, 3))
    inside = (other_depths > near) & ((truth >= 0) & (truth <= torch.tensor([width, height]))).all(-1)
    assert inside.sum() > 100
    for spacing in ("disparity", "segment"):
        samples = epipolar_samples(cameras[0], cameras[1:], count, near, far, height, width, spacing)
        gaps = (samples.positions[:, row, column] - truth[:, :, None]).norm(dim=-1)
        gap, nearest = gaps.min(-1)
        assert gap[inside].max() < 0.5
        guessed = samples.depths[:, row, column].gather(-1, nearest[..., None]).squeeze(-1)
        relative = (guessed / depths[centred] - 1).abs()[inside]
        assert relative.median() < 0.02


def test_garden_matches_satisfy_the_fundamental_matrix(shared_data):
    points, cameras = _garden(shared_data)
    first, second = cameras[0].project(points), cameras[2].project(points)
    ahead = (first[1] > 0.2) & (second[1] > 0.2)
    fundamental = fundamental_matrix(cameras[0], cameras[2])
    distance = symmetric_epipolar_distance(fundamental, first[0][ahead], second[0][ahead])
    assert distance.max() < 1e-3  # the file holds the poses in single precision


def test_dining_room_depth_agrees_between_views(shared_data):
    """Kinect views unprojected into their neighbours find the neighbours' measured depth for most pixels."""
    folder = shared_data("posed_rgbd_dining_room")
    cameras = _posed(folder / "cameras.json")
    raw = [cv2.imread(str(folder / f"depth/{i}.pgm"), cv2.IMREAD_UNCHANGED).astype(np.float64) for i in range(1, 6)]
    depths = torch.from_numpy(np.stack(raw))[:, None] / 1000
    points = unproject(cameras, depths)
    shares = []
    for view in range(4):
        known = depths[view, 0] > 0
        pixels, z = cameras[view + 1].project(points[view][known])
        column, row = pixels.floor().long().unbind(-1)
        inside = (z > 0) & (column >= 0) & (column < 640) & (row >= 0) & (row < 480)
        measured = depths[view + 1, 0, row[inside], column[inside]]
        compared = measured > 0
        shares.append(((z[inside][compared] / measured[compared] - 1).abs() < 0.05).double().mean().item())
    assert min(shares) > 0.45
    assert float(np.mean(shares)) > 0.6


def test_fox_matches_obey_the_epipolar_constraint_and_wrong_axes_do_not(shared_data):
    """SIFT matches of two real photos, undistorted: the median error is below 2 px only with OpenCV axes."""
    folder = shared_data("posed_fox")
    frames = json.loads((folder / "cameras.json").read_text())["frames"]
    first, second = frames[0], frames[2]
    cameras = _posed(folder / "cameras.json")
    matched = []
    for frame in (first, second):
        grey = cv2.imread(str(folder / frame["file"]), cv2.IMREAD_GRAYSCALE)
        small = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        keypoints, descriptors = cv2.SIFT_create(1500).detectAndCompute(small, None)
        # OpenCV's keypoints put the first pixel's centre at 0.
        positions = 2 * (np.array([point.pt for point in keypoints]) + 0.5)
        k, distortion = np.array(frame["K"], dtype=float), np.array(frame["dist"], dtype=float)
        matched.append((cv2.undistortPoints(positions[:, None], k, distortion, P=k)[:, 0], descriptors))
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(matched[0][1], matched[1][1], k=2)
    good = [best for best, second_best in pairs if best.distance < 0.7 * second_best.distance]
    assert len(good) > 50
    x1 = torch.from_numpy(matched[0][0][[match.queryIdx for match in good]])
    x2 = torch.from_numpy(matched[1][0][[match.trainIdx for match in good]])
    right = symmetric_epipolar_distance(fundamental_matrix(cameras[0], cameras[2]), x1, x2).median()
    blender = Cameras.from_c2w(
        cameras.c2w @ torch.diag(torch.tensor([1.0, -1, -1, 1]).double()), cameras.k, cameras.height, cameras.width
    )
    wrong = symmetric_epipolar_distance(fundamental_matrix(blender[0], blender[2]), x1, x2).median()
    assert right < 2.0
    assert wrong > 5 * right


@pytest.mark.parametrize("example", ["example_0", "example_1"])
def test_long_paths_survive_every_representation(shared_data, example):
    data = np.load(shared_data(f"camera_paths_custom/{example}/trajectory.npz"))
    w2c = next(torch.from_numpy(data[key]).double() for key in data if data[key].shape[-2:] == (4, 4))
    k = next(torch.from_numpy(data[key]).double() for key in data if data[key].shape[-2:] == (3, 3))
    cameras = Cameras(w2c=w2c, k=k.expand(len(w2c), 3, 3), height=720, width=1280)
    assert len(cameras) == 500
    rotation = w2c[:, :3, :3]
    back = quaternion_to_matrix(matrix_to_quaternion(rotation))
    torch.testing.assert_close(back, rotation, atol=1e-5, rtol=0)
    small = cameras.resized(9, 16)
    origins, directions = camera_rays(small)
    pixels, _ = small.project((origins + directions).flatten(1, 2))
    expected = pixel_grid(9, 16, dtype=torch.float64).flatten(0, 1).expand(500, -1, -1)
    torch.testing.assert_close(pixels, expected, atol=1e-3, rtol=0)
    # Every tenth pose is enough for a spline to find the others again.
    keys = cameras.c2w[::10]
    path = interpolate_poses(keys, 10 * (len(keys) - 1) + 1)
    truth = cameras.c2w[: len(path)]
    length = truth[:, :3, 3].diff(dim=0).norm(dim=-1).sum()
    assert (path[:, :3, 3] - truth[:, :3, 3]).norm(dim=-1).max() < 0.01 * length


def _bend(c2w: torch.Tensor) -> float:
    """Mean change of velocity between steps over the mean step: 0 for an even glide, about 1.4 for a jumpy one."""
    steps = c2w[:, :3, 3].diff(dim=0)
    return (steps.diff(dim=0).norm(dim=-1).mean() / steps.norm(dim=-1).mean()).item()


def test_walk_glides_like_realestate10k_clips(shared_data):
    real = [_bend(_re10k(path)) for path in sorted(shared_data("re10k_trajectories").glob("*.txt"))]
    drawn = [_bend(walk(16, seed=seed).double()) for seed in range(20)]
    assert len(real) == 6
    assert 0.25 * min(real) < np.median(drawn) < max(real)
    assert max(drawn) < 2 * max(real)
