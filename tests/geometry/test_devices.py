"""Device and dtype come from the inputs: shown without a GPU on the "meta" device.

Its tensors have a shape, a dtype and a device but no values, and refuse to meet tensors of another device, so that one
tensor made on the wrong device fails.
"""

import pytest
import torch

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.epipolar import epipolar_samples, epipolar_segments, fundamental_matrix
from latent3d.geometry.rays import camera_rays, pixel_grid, plucker_map, unproject
from latent3d.geometry.rotations import matrix_to_quaternion, quaternion_to_matrix, slerp
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.views import Views


def _outputs(device, dtype):
    """One of everything that geometry and the records compute."""

    def full(*shape):
        return torch.ones(*shape, device=device, dtype=dtype)

    pose = torch.eye(4, device=device, dtype=dtype)
    cameras = Cameras.from_fov(pose.repeat(2, 3, 1, 1), 60.0, 8, 10)
    yield from (cameras.k, cameras.c2w, cameras.centers, *cameras.project(full(2, 3, 7, 3)))
    for changed in (cameras.resized(4, 5), cameras.cropped(1, 1, 2, 2), cameras.relative_to(pose), cameras.scaled(2.0)):
        yield from (changed.k, changed.w2c)
    yield from camera_rays(cameras)
    yield from (
        plucker_map(cameras),
        unproject(cameras, full(2, 3, 1, 8, 10)),
        pixel_grid(2, 3, dtype=dtype, device=device),
    )
    for spacing in ("disparity", "segment"):
        samples = epipolar_samples(cameras[:, 0], cameras, 4, 1.0, 9.0, 4, 5, spacing)
        yield from (samples.positions, samples.depths, samples.sampling_grid())
    segments = epipolar_segments(full(2, 3, 6, 2), cameras, cameras, full(2, 3), 9 * full(2, 3))
    yield from (segments.start, segments.end_depth, fundamental_matrix(cameras, cameras))
    quaternions = matrix_to_quaternion(cameras.w2c[..., :3, :3])
    yield from (quaternion_to_matrix(quaternions), slerp(quaternions, quaternions, full(2, 3)))
    splats = Gaussians(means=full(5, 3), quaternions=full(5, 4), scales=full(5, 3), opacities=full(5))
    moved = Gaussians.cat([splats, splats]).transformed(pose, 2.0)
    yield from (moved.means, moved.quaternions, moved.scales)
    views = Views(images=full(2, 3, 3, 8, 10), cameras=cameras)
    yield from (Views.stack([views, views])[0].images, views[0].cameras.w2c)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_device_and_dtype_come_from_the_inputs(device, dtype):
    outputs = list(_outputs(device, dtype))
    assert len(outputs) > 30
    assert {output.device.type for output in outputs} == {device}
    assert {output.dtype for output in outputs} == {dtype}


def test_a_planted_tensor_on_the_wrong_device_fails():
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(3, device="meta") + torch.ones(3)
