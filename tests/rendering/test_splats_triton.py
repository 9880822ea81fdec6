"""The Triton back end against the float64 oracle: on a GPU where there is one, else interpreted in a child process.

Triton decides when it is imported whether it compiles or interprets; a child of its own leaves the other tests alone.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.rendering.base import ALPHA_MAX, ALPHA_MIN, TritonOptions
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians

from .scenes import (
    clear_of_thresholds,
    cloud,
    front_camera,
    relative_errors,
    ring_cameras,
    splats_on_axis,
    values_and_gradients,
)

triton = pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IEEE = TritonOptions(precision="ieee")
MIDDLE = (0, 0, 4, 4)
BOUNDS = {torch.float64: 1e-9, torch.float32: 1e-5}


def _values(gaussians: Gaussians, cameras: Cameras, **options) -> dict[str, Tensor]:
    """Values and gradients by the Triton back end, back on the CPU."""
    torch.set_num_threads(1)
    found = values_and_gradients(gaussians.to(DEVICE), cameras.to(DEVICE), "triton", **{"triton": IEEE} | options)
    return {name: value.cpu() for name, value in found.items()}


def _pixel(gaussians: Gaussians, cameras: Cameras) -> dict[str, Tensor]:
    """What the middle pixel of `front_camera` shows, and the gradient of its feature for the opacities."""
    opacities = gaussians.opacities.to(DEVICE).requires_grad_()
    gaussians = replace(gaussians.to(DEVICE), opacities=opacities)
    out = render_gaussians(gaussians, cameras.to(DEVICE), backend="triton", triton=IEEE)
    (gradient,) = torch.autograd.grad(out.features[MIDDLE], opacities)
    return {"alpha": out.alpha.detach().cpu(), "feature": out.features[MIDDLE].item(), "gradient": gradient.cpu()}


@pytest.fixture(scope="module")
def run() -> Iterator[Callable]:
    """Calls a function of this module where the back end runs."""
    if DEVICE == "cuda":
        yield lambda call, *arguments, **options: call(*arguments, **options)
        return
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")
            pool.submit(int).result()  # starts the child, with this environment
        yield lambda *arguments, **options: pool.submit(*arguments, **options).result()


def _scene(name: str) -> tuple[Gaussians, Cameras, dict]:
    cameras = ring_cameras(1, 11, 19)  # not divisible by 8
    match name:
        case "random":
            cameras = ring_cameras(2, 19, 14)
            return cloud(150, cameras), cameras, {}
        case "saturated":
            return cloud(100, cameras, sigma=5.0, opacity_bias=5.0), cameras, {}
        case "sub-pixel":
            return cloud(200, cameras, sigma=0.1), cameras, {"low_pass": 0.1}
        case "empty tiles":
            return cloud(40, cameras, spread=0.1, sigma=0.7), cameras, {}
        case "one splat":
            return cloud(1, cameras), cameras, {}
        case "one channel":
            return cloud(60, cameras, colors=False, channels=1), cameras, {}
        case "40 channels":
            return cloud(60, cameras, colors=False, channels=40), cameras, {}
        case "130 channels":
            return cloud(60, cameras, channels=127), cameras, {}
        case "400 channels":  # two groups
            return cloud(30, cameras, channels=400), cameras, {}
        case "harmonics, anti-aliased":  # channels of each view
            return cloud(60, cameras, channels=9, harmonics=3, sigma=0.4), cameras, {"antialiased": True}
        case "small image":
            small = ring_cameras(5, 3, 5)
            return cloud(50, small, spread=0.5), small, {"low_pass": 0.1}
        case "near plane":
            near = ring_cameras(2, 17, 16, distance=0.9)  # splats behind the cameras, at the plane, beside the image
            return cloud(150, near, sigma=1.0), near, {"near": 0.4}
        case "ties":
            cameras = replace(cameras, w2c=cameras.w2c.clone())
            cameras.w2c[:, :3, :3] = torch.eye(3, dtype=torch.float64)
            gaussians = cloud(120, cameras)
            means = gaussians.means.clone()
            means[:, 2] = 0.25
            return replace(gaussians, means=means), cameras, {}
    raise AssertionError(name)


SCENES = (
    "random", "saturated", "sub-pixel", "empty tiles", "one splat", "one channel", "40 channels", "130 channels",
    "400 channels", "harmonics, anti-aliased", "small image", "near plane", "ties",
)  # fmt: skip


def _errors(run: Callable, gaussians: Gaussians, cameras: Cameras, dtype: torch.dtype, **options) -> dict[str, float]:
    """Of values and gradients, against the oracle."""
    rounded, views = gaussians.to(dtype), cameras.to(dtype)
    truth_options = {name: value for name, value in options.items() if name != "triton"}
    truth = values_and_gradients(rounded.to(torch.float64), views.to(torch.float64), "reference", **truth_options)
    found = run(_values, rounded, views, **options)
    assert all(tensor.dtype == dtype for tensor in found.values())
    return relative_errors(found, truth)


@pytest.mark.parametrize("name", SCENES)
def test_values_and_gradients_agree_with_the_oracle(run, name):
    gaussians, cameras, options = _scene(name)
    gaussians = clear_of_thresholds(gaussians, cameras, **options)
    for dtype in BOUNDS if name in ("random", "saturated", "sub-pixel", "ties") else (torch.float64,):
        errors = _errors(run, gaussians, cameras, dtype, **options)
        assert max(errors.values()) <= BOUNDS[dtype], (dtype, errors)


@pytest.mark.parametrize("dtype", BOUNDS)
def test_gradients_reach_the_cameras(run, dtype):
    cameras = ring_cameras(2, 10, 17)
    gaussians = clear_of_thresholds(cloud(60, cameras), cameras)
    errors = _errors(run, gaussians, cameras, dtype, camera_gradients=True)
    assert {"d_w2c", "d_k"} <= errors.keys()
    assert max(errors.values()) <= BOUNDS[dtype], errors


def test_all_views_in_one_call_are_the_views_one_by_one(run):
    cameras = ring_cameras(3, 8, 9)
    gaussians = cloud(40, cameras, channels=12)
    together = run(_values, gaussians, cameras)
    for view in range(3):
        alone = run(_values, gaussians, cameras[view : view + 1])
        for name in ("rgb", "features", "depth", "alpha"):
            torch.testing.assert_close(together[name][view], alone[name][0], rtol=1e-12, atol=1e-12)


def test_zero_splats_and_no_channels(run):
    cameras = ring_cameras(2, 9, 9)
    gaussians = cloud(5, cameras)
    none = run(_values, gaussians[torch.zeros(0, dtype=torch.long)], cameras)
    assert none["d_means"].shape == (0, 3)
    for name in ("rgb", "features", "depth", "alpha"):
        assert not none[name].any()
    bare = replace(gaussians, colors=None, features=None)
    errors = _errors(run, clear_of_thresholds(bare, cameras), cameras, torch.float64)
    assert max(errors.values()) <= BOUNDS[torch.float64], errors


@pytest.mark.parametrize("dtype", BOUNDS)
def test_thresholds(run, dtype):
    camera = front_camera(dtype=dtype)
    clamped = run(_pixel, splats_on_axis([2.0], [1.0], scale=1e-3, dtype=dtype), camera)
    assert clamped["alpha"][MIDDLE].item() == pytest.approx(ALPHA_MAX, abs=1e-6)
    assert clamped["gradient"].item() == 0
    assert not run(_pixel, splats_on_axis([2.0], [ALPHA_MIN * 0.9999], dtype=dtype), camera)["alpha"].any()
    faint = run(_pixel, splats_on_axis([2.0], [ALPHA_MIN * 1.0001], dtype=dtype), camera)
    assert (faint["alpha"] > 0).sum().item() == 1
    # transmittance 0.01, 2e-4; the third splat would leave 4e-5 and ends the pixel, also for the faint fourth
    stacked = splats_on_axis([1.0, 2.0, 3.0, 4.0], [0.99, 0.98, 0.8, 0.1], scale=1e-3, dtype=dtype)
    ended = run(_pixel, stacked, camera)
    assert ended["feature"] == pytest.approx(0.99 + 0.01 * 0.98 * 10, rel=1e-5)
    assert ended["gradient"][1].item() == pytest.approx(0.01 * 10, rel=1e-4)
    assert not ended["gradient"][2:].any()


def test_a_pixel_that_ended_stays_ended_in_later_blocks(run):
    """A hundred faint splats behind the one that ends the middle pixel: further than one block of splats reaches."""
    depths = [1.0, 2.0, 3.0] + [4.0 + 0.01 * i for i in range(100)]
    opacities = [0.99, 0.98, 0.8] + [0.1] * 100
    splats = splats_on_axis(depths, opacities, scale=1e-3)
    splats = replace(splats, features=torch.ones(103, 1, dtype=torch.float64))
    ended = run(_pixel, splats, front_camera())
    assert ended["alpha"][MIDDLE].item() == pytest.approx(1 - 2e-4, rel=1e-9)
    assert not ended["gradient"][2:].any()


def test_a_splat_that_no_number_can_hold_is_dropped(run):
    splats = splats_on_axis([2.0, 2.0], [0.5, 0.5], scale=1e-3, dtype=torch.float32)
    scales = splats.scales.clone()
    scales[0] = 1e30
    camera = front_camera(dtype=torch.float32)
    both, alone = (run(_values, scene, camera) for scene in (replace(splats, scales=scales), splats[1:]))
    assert torch.equal(both["alpha"], alone["alpha"])
    for name, value in both.items():
        assert torch.isfinite(value).all(), name


@pytest.mark.parametrize("precision", ["tf32", "tf32x3", "bf16"])
def test_precision_of_the_products_can_be_chosen(run, precision):
    """Only channels and what follows from them are rounded: alpha and depth stay float32."""
    cameras = ring_cameras(1, 16, 16)
    gaussians = clear_of_thresholds(cloud(100, cameras, channels=20), cameras)
    errors = _errors(run, gaussians, cameras, torch.float32, triton=TritonOptions(precision=precision))
    bound = {"tf32": 2e-3, "tf32x3": 1e-5, "bf16": 2e-2}[precision]
    assert max(errors.values()) <= bound, errors
    assert max(errors["alpha"], errors["depth"]) <= 1e-5
    if precision == "bf16":
        assert errors["features"] > 1e-4


def test_room_for_entries_makes_counting_needless(run):
    cameras = ring_cameras(2, 8, 16)
    gaussians = cloud(60, cameras)
    counted = run(_values, gaussians, cameras)
    for name, value in run(_values, gaussians, cameras, triton=TritonOptions(entries=2000)).items():
        torch.testing.assert_close(value, counted[name], rtol=1e-12, atol=1e-12)
    tight = run(_values, gaussians, cameras, triton=TritonOptions(entries=20))
    for name in ("rgb", "features", "depth", "alpha"):
        assert tight[name].isnan().all(), name


def test_options_that_mean_nothing_are_refused():
    with pytest.raises((ValueError, TypeError), match="tf32"):
        TritonOptions(precision="fp16")
    with pytest.raises(ValueError, match="must be positive"):
        TritonOptions(entries=0)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_a_call_and_its_gradient_fit_in_a_cuda_graph():
    cameras = ring_cameras(2, 40, 40).to(torch.float32)
    gaussians, other = (cloud(300, cameras, channels=20, seed=seed).to(torch.float32) for seed in (0, 1))
    cameras, gaussians = cameras.to(DEVICE), gaussians.to(DEVICE)
    leaf = gaussians.features.clone().requires_grad_()
    options = TritonOptions(precision="ieee", entries=20000)

    def step() -> tuple[Tensor, Tensor]:
        out = render_gaussians(replace(gaussians, features=leaf), cameras, backend="triton", triton=options)
        (gradient,) = torch.autograd.grad(out.features.square().sum(), leaf)
        return out.features.detach(), gradient

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        gaussians.means.copy_(other.means)
    graph.replay()
    for found, truth in zip(captured, step(), strict=True):
        torch.testing.assert_close(found, truth, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(triton.knobs.runtime.interpret, reason="the interpreter takes tensors of the CPU")
def test_tensors_of_the_cpu_are_refused():
    with pytest.raises(ValueError, match="renders on a GPU, the splats are on 'cpu'"):
        render_gaussians(splats_on_axis([2.0], [0.5]), front_camera(), backend="triton")


def _compile_for_hopper(kernel, pointers: str, scalars: int, constants: dict) -> dict[str, str | bytes]:
    """Assembly of a kernel for an H100 or H200, which needs no GPU; pointers: f(loat) or i(nt) 32, l(ong) 64."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from latent3d.rendering.splats_triton import WARPS

    types = [{"f": "*fp32", "i": "*i32", "l": "*i64"}[letter] for letter in pointers] + ["i32"] * scalars
    names = [name for name in kernel.arg_names if name not in constants]
    signature = dict(zip(names, types, strict=True)) | dict.fromkeys(constants, "constexpr")
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name not in {"height", "width"}}
    source = ASTSource(kernel, signature, constants, aligned)
    options = {"num_warps": WARPS, "num_stages": 2, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm


@pytest.mark.skipif(triton.knobs.runtime.interpret, reason="the interpreter does not compile")
def test_kernels_compile_for_hopper_and_use_its_matrix_units(tmp_path, monkeypatch):
    from latent3d.rendering import splats_triton_kernels as blending
    from latent3d.rendering import splats_triton_order as order
    from latent3d.rendering import splats_triton_projection as projection

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    few, many = {"FIRST": 16, "SECOND": 0}, {"FIRST": 256, "SECOND": 64}
    for widths in (few, many):
        constants = {"BLOCK": 32, "PRECISION": "tf32", **widths}
        assembly = _compile_for_hopper(blending.blend_kernel, "ffiilffffi", 9, constants)["ptx"]
        assert "wgmma.mma_async" in assembly
        assert "tf32" in assembly
    constants = {"BLOCK": 32, "PRECISION": "tf32", "WIDTH": 64}
    backward = _compile_for_hopper(blending.blend_backward_kernel, "ffiifffifffff", 8, constants)["ptx"]
    assert "wgmma.mma_async" in backward
    assert "add.f32" in backward
    constants = {"LOW_PASS": 0.3, "FLOOR": 0.005}
    assert _compile_for_hopper(projection.project_kernel, "ffffffffi", 3, constants | {"NEAR": 0.01})["cubin"]
    assert _compile_for_hopper(projection.project_backward_kernel, "ffffffifffff", 4, constants)["cubin"]
    assert _compile_for_hopper(order.count_kernel, "ill", 2, {})["cubin"]
    assert _compile_for_hopper(order.fill_kernel, "illii", 6, {})["cubin"]


@pytest.mark.parametrize("count", [0, 1, 3, 16, 17, 40, 64, 130, 200, 320, 384, 385, 1000])
def test_blocks_of_channels_hold_all_channels_and_little_else(count):
    from latent3d.rendering.splats_triton import channel_blocks

    first, second, groups = channel_blocks(count)
    assert first.bit_count() == 1
    assert second.bit_count() <= 1
    assert (first + second) * groups >= count
    assert first + second <= 512
    assert count < 16 or (first + second) * groups <= 1.5 * count + 16 * groups
