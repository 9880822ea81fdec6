"""Small parts: harmonics, the kernels' exponential and radix order, threads."""

import itertools
import math
import os
import sys
import warnings
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numba.core import caching

from latent3d.rendering import splats_numba, splats_numba_lanes, threads
from latent3d.rendering.harmonics import harmonic_basis, view_dependent_colors
from latent3d.rendering.splats_numba_lanes import STAMP, exponential, jit
from latent3d.rendering.splats_numba_order import order_share
from latent3d.rendering.threads import run_shares


def test_harmonics_are_orthonormal_on_the_sphere():
    nodes, weights = np.polynomial.legendre.leggauss(8)
    angles = 2 * np.pi * np.arange(16) / 16
    z, phi = np.meshgrid(nodes, angles, indexing="ij")
    area = np.broadcast_to(weights[:, None] * 2 * np.pi / 16, z.shape)
    ring = np.sqrt(1 - z**2)
    directions = torch.tensor(np.stack([ring * np.cos(phi), ring * np.sin(phi), z], -1))
    basis = harmonic_basis(directions, 15)
    gram = torch.einsum("abi,abj,ab->ij", basis, basis, torch.tensor(area))
    torch.testing.assert_close(gram, torch.eye(15, dtype=torch.float64), atol=1e-12, rtol=0)
    assert (basis * torch.tensor(area)[..., None]).sum((0, 1)).abs().max() < 1e-12


def test_harmonics_have_the_order_and_signs_of_3dgs():
    """Degree 1 is c (-y, z, -x); the axis +z sees only the zonal ones, in the middle of each degree."""
    c = math.sqrt(3 / (4 * math.pi))
    x, y, z = 2 / 7, 3 / 7, 6 / 7
    first = harmonic_basis(torch.tensor([x, y, z], dtype=torch.float64), 3)
    torch.testing.assert_close(first, c * torch.tensor([-y, z, -x], dtype=torch.float64))
    pole = harmonic_basis(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), 15)
    assert pole.nonzero().squeeze(1).tolist() == [1, 5, 11]
    assert (pole[[1, 5, 11]] > 0).all()
    # degree 2 and 3 in the plane z = 0: xy, x^2 - y^2 and the two sectoral functions, with their signs
    flat = harmonic_basis(torch.tensor([0.6, 0.8, 0.0], dtype=torch.float64), 15)
    assert [bool(flat[i] > 0) for i in (3, 7, 8, 14)] == [True, False, False, True]
    with pytest.raises(ValueError, match="harmonics need"):
        harmonic_basis(torch.zeros(3), 4)


def test_colours_follow_the_direction_and_stay_positive():
    colors = torch.tensor([[0.5, 0.5, 0.01]])
    harmonics = torch.zeros(1, 3, 3)
    harmonics[0, 1] = torch.tensor([0.1, -0.1, -1.0])  # along z
    seen = view_dependent_colors(
        colors, harmonics, torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([[0.0, 0, 0], [0, 0, 4]])
    )
    c = math.sqrt(3 / (4 * math.pi))
    expected = torch.tensor([[[0.5 + 0.1 * c, 0.5 - 0.1 * c, 0.0]], [[0.5 - 0.1 * c, 0.5 + 0.1 * c, 0.01 + c]]])
    torch.testing.assert_close(seen, expected)


@numba.njit
def _exponentials(values, out):
    for i in range(values.size):
        out[i] = exponential(values[i])


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 1.2e-7), (np.float64, 4e-16)])
def test_exponential_of_the_kernels(dtype, bound):
    values = np.linspace(-80, 5, 50_001).astype(dtype)
    out = np.empty_like(values)
    _exponentials(values, out)
    assert np.abs(out / np.exp(values.astype(np.longdouble)) - 1).max() < bound
    far = np.array([-1e4, -1e30], dtype)
    _exponentials(far, far)
    assert (far < 1e-37).all()


def test_compiled_loops_are_kept_on_disk_under_the_digest_of_all_kernel_sources():
    assert order_share._cache._cache_file._source_stamp == STAMP
    order_share.compile("void(i8, i8, i4[:, ::1], i4[:, :, ::1], i8, i8, i4[:, :, ::1], i8[:, ::1], i8[:, ::1])")
    kept, overloads = order_share._cache._cache_file._load_index(), order_share.overloads
    assert len(kept) >= len(overloads) > 0


def _double(x):
    return 2 * x


@pytest.fixture
def _no_folder_beside_the_source(monkeypatch, tmp_path):
    """Neither NUMBA_CACHE_DIR nor the source's folder can be written; the user's cache folder is ``tmp_path``."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "file" / "folder"))
    _close(monkeypatch, "InTree")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    splats_numba_lanes._say_not_kept.cache_clear()
    yield
    splats_numba_lanes._say_not_kept.cache_clear()


def _close(monkeypatch, kind: str) -> None:
    """Make the folders of one kind of numba's locators read-only."""

    def refuse(locator) -> None:
        raise PermissionError("read-only")

    kinds = [each for each in caching.CompileResultCacheImpl._locator_classes if kind in each.__name__]
    assert kinds
    for each in kinds:
        monkeypatch.setattr(each, "ensure_cache_path", refuse)


@pytest.mark.skipif(sys.platform != "linux", reason="the user's cache folder is named by XDG_CACHE_HOME on Linux")
@pytest.mark.usefixtures("_no_folder_beside_the_source")
def test_without_a_writable_folder_beside_the_source_the_user_s_is_taken(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        double = jit()(_double)
    assert tmp_path in Path(double._cache.cache_path).parents
    assert double(21) == 42
    assert list(Path(double._cache.cache_path).glob("*.nbc"))


@pytest.mark.usefixtures("_no_folder_beside_the_source")
def test_without_any_writable_folder_the_loops_still_compile_and_one_warning_says_so(monkeypatch):
    _close(monkeypatch, "UserWide")
    with pytest.warns(UserWarning, match="set NUMBA_CACHE_DIR") as caught:
        doubles = [jit()(_double), jit()(_double)]
    assert len(caught) == 1
    assert [double(21) for double in doubles] == [42, 42]


@pytest.mark.parametrize("bands", [1, 2])
@pytest.mark.parametrize(("dtype", "bits"), [(np.float32, np.int32), (np.float64, np.int64)])
def test_splats_are_ordered_stably_by_depth(dtype, bits, bands):
    generator = np.random.default_rng(0)
    depths = generator.choice(generator.gamma(1.0, 3.0, 40).astype(dtype) + dtype(0.01), (3, 500))
    depths[0] *= generator.random(500).astype(dtype) * 1000 + dtype(0.1)
    rects = np.zeros((3, 500, 4), np.int32)
    rects[..., 2:] = generator.integers(0, 3, (3, 500, 2))
    order, counts = np.zeros((3, bands, 500), np.int32), np.zeros((3, 4), np.int64)
    visible = np.zeros((3, bands), np.int64)
    for share in range(2):
        order_share(share, 2, depths.view(bits), rects, 2, 2, order, counts, visible)
    for view, band in itertools.product(range(3), range(bands)):
        first, past = 2 * band // bands, 2 * (band + 1) // bands
        touches = (rects[view, :, 2] > 0) & (np.minimum(rects[view, :, 3], past) > first)
        kept = np.flatnonzero(touches)
        expected = kept[np.argsort(depths[view, kept], kind="stable")]
        assert np.array_equal(order[view, band, : visible[view, band]], expected)
        assert counts[view].sum() == rects[view, :, 2:].prod(-1).sum()


def test_shares_run_once_each_and_errors_come_back():
    seen: list[int] = []
    run_shares(lambda share, shares, extra: seen.append(share * extra), 5, 10)
    assert sorted(seen) == [0, 10, 20, 30, 40]

    def fail(share: int, shares: int) -> None:
        if share == 1:
            raise KeyError("share 1")

    for _ in range(2):  # the pool survives
        with pytest.raises(KeyError, match="share 1"):
            run_shares(fail, 3)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not place threads")
def test_threads_stay_off_the_callers_core():
    """All of a pool's threads, also after the caller moved; with one core there is nothing to choose."""
    cores = os.sched_getaffinity(0)
    try:
        for core in sorted(cores):
            os.sched_setaffinity(0, {core})  # of this thread alone: the caller lives here now
            masks = dict.fromkeys(range(1, 3), frozenset())

            def note(share: int, shares: int, masks=masks) -> None:
                if share:
                    masks[share] = frozenset(os.sched_getaffinity(0))

            run_shares(note, 3)
            assert masks == dict.fromkeys(range(1, 3), frozenset({core}))
            os.sched_setaffinity(0, cores)
            where = _core_of(lambda note=note: run_shares(note, 3))
            if where is not None and len(cores) > 1:
                assert masks == dict.fromkeys(range(1, 3), frozenset(cores - {where}))
    finally:
        os.sched_setaffinity(0, cores)


def _core_of(call) -> int | None:
    """The core on which a call ran, or None if the caller was moved meanwhile."""
    before = threads._current_core()
    call()
    return before if threads._current_core() == before else None


@settings(deadline=None)
@given(
    costs=arrays(np.int64, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=st.integers(0, 1000)),
    first=st.integers(0, 3),
    shares=st.integers(1, 5),
)
def test_every_tile_has_one_owner_and_costs_are_even(costs, first, shares):
    views, count = costs.shape
    tiles, bounds = splats_numba._tiles_by_share(costs, first, shares)
    assert sorted(tiles) == list(range(first * count, (first + views) * count))
    assert bounds[[0, -1]].tolist() == [0, len(tiles)]
    assert (np.diff(bounds) >= 0).all()
    paid = costs + splats_numba.TILE_COST
    for view in range(views):
        for share in range(shares):
            mine = tiles[bounds[share] : bounds[share + 1]] - (first + view) * count
            mine = mine[(mine >= 0) & (mine < count)]
            assert (np.diff(mine) == 1).all()  # neighbours
            assert abs(paid[view, mine].sum() - paid[view].sum() / shares) <= paid[view].max()


@pytest.mark.parametrize("rows", [1, 4096, 65536, 100_000])
def test_buffers_do_not_lie_a_power_of_two_apart(rows):
    more = splats_numba._rows_apart(rows, 28)
    assert rows <= more <= rows + 110
    assert 1024 <= more * 28 % 4096 <= 3072
