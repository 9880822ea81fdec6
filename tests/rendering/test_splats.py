"""The call itself: what it refuses and leaves out, which back end it takes, and what it promises besides values."""

import multiprocessing
import os
import warnings
from dataclasses import replace

import pytest
import torch

from latent3d.rendering import splats, splats_numba
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians

from .scenes import BACKENDS, cloud, front_camera, ring_cameras, splats_on_axis, values_and_gradients

ALL = (*BACKENDS, "reference")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("backend", ALL)
def test_zero_splats_show_the_background(backend):
    cameras = ring_cameras(2, 9, 20)
    gaussians = cloud(5, cameras)[torch.zeros(0, dtype=torch.long)]
    background = torch.tensor([[0.1, 0.2, 0.3], [0.7, 0.8, 0.9]], dtype=torch.float64)
    out = render_gaussians(gaussians, cameras, backend=backend, background=background)
    assert torch.equal(out.rgb, background[:, :, None, None].expand(2, 3, 9, 20))
    assert out.features.shape == (2, 2, 9, 20)
    for value in (out.features, out.alpha, out.depth):
        assert not value.any()
    values = values_and_gradients(gaussians, cameras, backend)
    assert values["d_means"].shape == (0, 3)


@pytest.mark.parametrize("backend", ALL)
def test_channels_that_are_not_there_are_none(backend):
    cameras = ring_cameras(1, 9, 9)
    bare = replace(cloud(20, cameras), colors=None, features=None)
    full = render_gaussians(cloud(20, cameras), cameras, backend=backend)
    out = render_gaussians(bare, cameras, backend=backend)
    assert out.rgb is None
    assert out.features is None
    torch.testing.assert_close(out.depth, full.depth)
    torch.testing.assert_close(out.alpha, full.alpha)


@pytest.mark.parametrize("field", ["means", "quaternions", "scales", "opacities", "colors", "features", "harmonics"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused_by_name(field, value):
    cameras = ring_cameras(1, 8, 8)
    gaussians = cloud(6, cameras, harmonics=3)
    broken = getattr(gaussians, field).clone()
    broken.view(-1)[4] = value
    with pytest.raises(ValueError, match=field):
        render_gaussians(replace(gaussians, **{field: broken}), cameras)


def test_broken_cameras_are_refused_by_name():
    cameras = ring_cameras(2, 8, 8)
    gaussians = cloud(6, cameras)
    for name in ("w2c", "k"):
        broken = getattr(cameras, name).clone()
        broken[1, 0, 0] = float("nan")
        with pytest.raises(ValueError, match=name):
            render_gaussians(gaussians, replace(cameras, **{name: broken}))
    with pytest.raises(ValueError, match="batch shape"):
        render_gaussians(gaussians, cameras[0])
    with pytest.raises(ValueError, match="batch shape"):
        render_gaussians(gaussians, cameras[:0])


def test_large_finite_values_are_not_mistaken_for_infinite_ones():
    gaussians = splats_on_axis([2.0, 3.0], [0.5, 0.5], dtype=torch.float32)
    features = torch.full((2, 1), 3e38)
    out = render_gaussians(replace(gaussians, features=features), front_camera(dtype=torch.float32))
    assert torch.isfinite(out.alpha).all()


def test_wrong_arguments_are_refused():
    cameras = ring_cameras(1, 8, 8)
    gaussians = cloud(6, cameras)
    with pytest.raises(ValueError, match="choose one of"):
        splats._choose("cuda", torch.device("cpu"))
    with pytest.raises(ValueError, match="on the CPU"):
        splats._choose("numba", torch.device("cuda"))
    with pytest.raises(ValueError, match="must be positive"):
        render_gaussians(gaussians, cameras, low_pass=0.0)
    with pytest.raises(ValueError, match="must be positive"):
        render_gaussians(gaussians, cameras, near=-1.0)
    with pytest.raises(ValueError, match="give `colors` too"):
        render_gaussians(replace(gaussians, colors=None, harmonics=torch.zeros(6, 3, 3)), cameras)


def test_auto_is_numba_here_triton_on_gpus_and_torch_elsewhere(monkeypatch):
    assert splats._choose("auto", torch.device("cpu")) == "numba"
    assert splats._choose("auto", torch.device("mps")) == "torch"
    monkeypatch.setattr(splats, "_triton_error", lambda device: None)
    assert splats._choose("auto", torch.device("cuda")) == "triton"
    splats._say_slow.cache_clear()
    monkeypatch.setattr(splats, "_triton_error", lambda device: f"no driver for {device}")
    with pytest.warns(RuntimeWarning, match=r"triton is not usable \(no driver for cuda\)"):
        assert splats._choose("auto", torch.device("cuda")) == "torch"
    with pytest.raises(ValueError, match="no driver for cuda"):
        splats._choose("triton", torch.device("cuda"))
    monkeypatch.setattr(splats, "_numba_error", lambda: "No module named 'numba'")
    splats._say_slow.cache_clear()
    with pytest.warns(RuntimeWarning, match="slower 'torch' back end"):
        assert splats._choose("auto", torch.device("cpu")) == "torch"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert splats._choose("auto", torch.device("cpu")) == "torch"
    with pytest.raises(ValueError, match="install numba"):
        splats._choose("numba", torch.device("cpu"))
    splats._say_slow.cache_clear()


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_inputs_and_autocast_render_in_float32(backend):
    cameras = ring_cameras(2, 20, 20).to(torch.float32)
    gaussians = cloud(80, cameras, channels=10).to(torch.float32)
    truth = values_and_gradients(gaussians, cameras, backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = values_and_gradients(gaussians, cameras, backend)
    for name, value in truth.items():
        assert torch.equal(found[name], value), name
    features = gaussians.features.to(torch.bfloat16)
    out = render_gaussians(replace(gaussians, features=features), cameras, backend=backend)
    assert out.features.dtype == torch.float32
    rounded = render_gaussians(replace(gaussians, features=features.float()), cameras, backend=backend)
    assert torch.equal(out.features, rounded.features)


@pytest.mark.parametrize("channels", [3, 20])
@pytest.mark.usefixtures("two_threads")
def test_two_runs_are_bitwise_equal(channels):
    cameras = ring_cameras(3, 50, 40).to(torch.float32)
    gaussians = cloud(500, cameras, channels=channels).to(torch.float32)
    first = values_and_gradients(gaussians, cameras, "numba")
    for _ in range(3):
        again = values_and_gradients(gaussians, cameras, "numba")
        for name, value in first.items():
            assert torch.equal(value, again[name]), name


@pytest.mark.usefixtures("two_threads")
def test_buffers_keep_to_the_memory_cap(monkeypatch):
    cameras = ring_cameras(3, 40, 40)
    gaussians = cloud(200, cameras, channels=20)
    wide = values_and_gradients(gaussians, cameras, "numba")
    assert splats_numba.backward_shares((1, 200, 32), 8) == 2
    monkeypatch.setattr(splats_numba, "BUFFER_BYTES", 200 * 32 * 8 + 8)
    monkeypatch.setattr(splats_numba, "GROUP_BYTES", 1)
    assert splats_numba.backward_shares((1, 200, 32), 8) == 1
    narrow = values_and_gradients(gaussians, cameras, "numba")
    for name, value in wide.items():
        torch.testing.assert_close(narrow[name], value, rtol=1e-10, atol=1e-10)


def test_default_cap_is_256_mib(monkeypatch):
    monkeypatch.setattr(splats_numba, "thread_count", lambda: 16)
    assert splats_numba.backward_shares((1, 65536, 128), 4) == 7  # 32 MiB and 1.75 MiB each
    assert splats_numba.backward_shares((1, 10**6, 3), 4) == 6  # mostly those of the splats
    assert splats_numba.backward_shares((1, 2**24, 128), 4) == 1


def test_outputs_may_be_changed_in_place_before_the_gradient():
    cameras = ring_cameras(1, 16, 16)
    gaussians = cloud(30, cameras)
    truth = values_and_gradients(gaussians, cameras, "numba")
    means = gaussians.means.clone().requires_grad_()
    out = render_gaussians(replace(gaussians, means=means), cameras)
    g = torch.Generator().manual_seed(1)
    parts = [out.rgb, out.features, out.depth, out.alpha]
    weights = [torch.randn(part.shape, generator=g, dtype=torch.float64) for part in parts]
    loss = sum((part * weight).sum() for part, weight in zip(parts, weights, strict=True))
    with torch.no_grad():
        out.depth.zero_()
        out.alpha.zero_()
    loss.backward()
    torch.testing.assert_close(means.grad, truth["d_means"])


def _render_in_worker(queue) -> None:
    torch.set_num_threads(1)
    out = render_gaussians(splats_on_axis([2.0], [0.5]), front_camera(), backend="numba")
    queue.put(out.alpha[0, 0, 4, 4].item())


def test_a_spawned_worker_renders():
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    worker = context.Process(target=_render_in_worker, args=(queue,))
    worker.start()
    worker.join(120)
    assert worker.exitcode == 0
    assert queue.get() == pytest.approx(0.5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("two_threads")
def test_a_forked_child_is_warned_and_still_renders():
    """The parent has rendered on two threads; the child starts its own threads and says what may hang."""
    cameras = ring_cameras(2, 40, 40)
    gaussians: Gaussians = cloud(50, cameras)
    expected = render_gaussians(gaussians, cameras, backend="numba").alpha
    child = os.fork()
    if child == 0:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = render_gaussians(gaussians, cameras, backend="numba").alpha
        warned = any("'spawn'" in str(item.message) for item in caught)
        os._exit(0 if warned and torch.equal(found, expected) else 3)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        render_gaussians(gaussians, cameras, backend="numba")
