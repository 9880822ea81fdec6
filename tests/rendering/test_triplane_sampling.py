"""Features from tri-planes: known answers, and back ends that agree in values and gradients, also at the borders."""

import inspect

import pytest
import torch

from latent3d.rendering.triplane_sampling import TriPlaneRows, sample_triplane
from latent3d.representations.triplane import PLANE_AXES

HALF = 0.45
FAST = ("gather", "numba")


def _scene(channels=5, batch=2, count=40, dtype=torch.float64, height=6, width=7):
    planes = torch.randn(batch, 3, channels, height, width, dtype=dtype)
    points = (torch.rand(batch, count, 3, dtype=dtype) * 2 - 1) * HALF * 1.3
    # faces, pixel centres, corners, just outside, far away
    special = torch.tensor([[1, 1, 1], [-1, 0, 1], [0, 0, 0], [1.01, -1.2, 0.3], [50, 0, -1e6]], dtype=dtype) * HALF
    points[:, : len(special)] = special
    return planes, points


def _values_and_gradients(planes, points, **options):
    planes, points = planes.clone().requires_grad_(), points.clone().requires_grad_()
    out = sample_triplane(planes, points, HALF, **options)
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    (out * weights).sum().backward()
    return {"features": out, "d_planes": planes.grad, "d_points": points.grad}


@pytest.mark.parametrize("backend", ["grid_sample", *FAST])
def test_a_plane_that_grows_with_an_axis_gives_the_coordinate(backend):
    size = 8
    centres = (torch.arange(size) + 0.5) / size * 2 - 1
    for plane, (first, second) in enumerate(PLANE_AXES):
        planes = torch.zeros(1, 3, 2, size, size)
        planes[0, plane, 0] = centres  # along the columns
        planes[0, plane, 1] = centres[:, None]  # along the rows
        points = torch.tensor([[[0.1, -0.2, 0.3], [-0.35, 0.3, 0.0]]])
        out = sample_triplane(planes, points, HALF, reduce="sum", backend=backend)
        torch.testing.assert_close(out[..., 0], points[..., first] / HALF)
        torch.testing.assert_close(out[..., 1], points[..., second] / HALF)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("reduce", ["mean", "sum", "concat"])
@pytest.mark.parametrize("channels", [5, 16, 20])
def test_back_ends_agree_in_values_and_gradients(backend, reduce, channels):
    scene = _scene(channels)
    expected = _values_and_gradients(*scene, reduce=reduce, backend="grid_sample")
    found = _values_and_gradients(*scene, reduce=reduce, backend=backend)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("backend", FAST)
def test_single_precision_agrees(backend):
    scene = _scene(16, dtype=torch.float32)
    expected = _values_and_gradients(*scene, backend="grid_sample")
    found = _values_and_gradients(*scene, backend=backend)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", FAST)
def test_gradients_agree_with_finite_differences(backend):
    planes, points = _scene(3, batch=1, count=12)
    points = points[:, 5:]  # away from the kinks of the interpolation
    planes.requires_grad_(), points.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, b: sample_triplane(a, b, HALF, backend=backend), (planes, points), atol=1e-6
    )


def test_prepared_rows_give_the_same_and_carry_gradients():
    planes, points = _scene(16)
    planes.requires_grad_()
    rows = TriPlaneRows.of(planes)
    torch.testing.assert_close(rows.planes, planes)
    for backend in ("auto", "grid_sample", *FAST):
        out = sample_triplane(rows, points, HALF, backend=backend)
        torch.testing.assert_close(out, sample_triplane(planes, points, HALF, backend="grid_sample"))
    assert out.requires_grad


def test_concatenated_planes_stay_in_order_and_their_mean_is_the_mean():
    planes, points = _scene(16)
    apart = sample_triplane(planes, points, HALF, reduce="concat")
    torch.testing.assert_close(
        apart.unflatten(-1, (3, 16)).mean(-2), sample_triplane(planes, points, HALF, backend="grid_sample")
    )
    only = planes.clone()
    only[:, 1:] = 0
    torch.testing.assert_close(sample_triplane(only, points, HALF, reduce="concat")[..., :16], apart[..., :16])


def test_half_precision_planes_are_sampled_in_single_precision():
    planes, points = _scene(16, dtype=torch.float32)
    planes = planes.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = sample_triplane(planes, points, HALF)
    assert out.dtype == torch.float32
    out.sum().backward()
    assert planes.grad.dtype == torch.bfloat16


def test_results_do_not_depend_on_the_number_of_threads():
    scene = _scene(16, dtype=torch.float32)
    one = _values_and_gradients(*scene, backend="numba")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        three = _values_and_gradients(*scene, backend="numba")
    finally:
        torch.set_num_threads(before)
    for name, value in one.items():
        assert torch.equal(three[name], value), name


def test_no_points_give_no_features():
    planes, _ = _scene(16)
    for backend in ("grid_sample", *FAST):
        assert sample_triplane(planes, torch.zeros(2, 0, 3), HALF, backend=backend).shape == (2, 0, 16)


def test_unknown_words_and_sizes_are_refused():
    planes, points = _scene()
    unchecked = inspect.unwrap(sample_triplane)  # without the test run's checks of annotations
    with pytest.raises(ValueError, match="reduce must be one of"):
        unchecked(planes, points, HALF, reduce="max")
    with pytest.raises(ValueError, match="back end must be one of"):
        unchecked(planes, points, HALF, backend="cuda")
    with pytest.raises(ValueError, match="half_size"):
        sample_triplane(planes, points, 0.0)
