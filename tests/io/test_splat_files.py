"""The 3DGS .ply: there and back, the public layout by others' readers, damaged files."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latent3d.io.splat_files import SH_C0, read_splats, write_splats
from latent3d.representations.gaussians import Gaussians


def some_splats(n: int = 7, harmonics: int | None = None, dtype: torch.dtype = torch.float32) -> Gaussians:
    generator = torch.Generator().manual_seed(n)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=dtype)

    return Gaussians(
        means=rand(n, 3) * 10 - 5,
        quaternions=torch.nn.functional.normalize(rand(n, 4) - 0.5, dim=-1),
        scales=rand(n, 3) * 0.1 + 1e-3,
        opacities=rand(n) * 0.98 + 0.01,
        colors=rand(n, 3),
        harmonics=None if harmonics is None else rand(n, harmonics, 3) - 0.5,
    )


@pytest.mark.parametrize("harmonics", [None, 3, 8, 15])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(tmp_path, harmonics, dtype):
    scene = some_splats(harmonics=harmonics, dtype=dtype)
    source = torch.arange(7.0)
    write_splats(tmp_path / "s.ply", scene, extra={"source_view": source})
    back, extra = read_splats(tmp_path / "s.ply")
    for name in ("means", "quaternions", "scales", "opacities", "colors"):
        assert torch.allclose(getattr(back, name), getattr(scene, name).float(), rtol=1e-5, atol=1e-6), name
    if harmonics is None:
        assert back.harmonics is None
    else:
        assert torch.equal(back.harmonics, scene.harmonics.float())
    assert list(extra) == ["source_view"]
    assert torch.equal(extra["source_view"], source)


def test_extreme_values_stay_finite(tmp_path):
    scene = Gaussians(
        means=torch.zeros(2, 3),
        quaternions=torch.tensor([[2.0, 0, 0, 0], [0, 0, 0, -3.0]]),
        scales=torch.tensor([[0.0, 1.0, 1e3], [1e-20, 1.0, 1.0]]),
        opacities=torch.tensor([0.0, 1.0]),
        colors=torch.tensor([[0.0, 0.5, 1.0], [1.0, 1.0, 1.0]]),
    )
    write_splats(tmp_path / "s.ply", scene)
    back, _ = read_splats(tmp_path / "s.ply")
    assert torch.allclose(back.opacities, scene.opacities, atol=1e-6)
    assert torch.allclose(back.scales, scene.scales, atol=1e-9, rtol=1e-5)
    assert torch.allclose(back.quaternions, torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, -1.0]]))


def test_known_record(tmp_path):
    """One splat by hand: bytes at the places where viewers look for them."""
    scene = Gaussians(
        means=torch.tensor([[1.0, 2.0, 3.0]]),
        quaternions=torch.tensor([[0.5, 0.5, -0.5, 0.5]]),
        scales=torch.tensor([[1.0, math.e, math.e**2]]),
        opacities=torch.tensor([0.5]),
        colors=torch.tensor([[0.5, 0.5 + SH_C0, 0.5 - SH_C0]]),
    )
    write_splats(tmp_path / "s.ply", scene)
    head, body = (tmp_path / "s.ply").read_bytes().split(b"end_header\n")
    assert head.startswith(b"ply\nformat binary_little_endian 1.0\n")
    expected = [1, 2, 3, 0, 0, 0, 0, 1, -1, 0, 0, 1, 2, 0.5, 0.5, -0.5, 0.5]
    assert np.allclose(np.frombuffer(body, "<f4"), expected, atol=1e-6)
    names = [line.split()[-1].decode() for line in head.splitlines() if line.startswith(b"property")]
    expected = "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    assert " ".join(names) == expected


def test_others_readers_agree(tmp_path):
    """plyfile where it is installed, and trimesh, read the same numbers; f_rest goes channel by channel."""
    scene = some_splats(5, harmonics=3)
    write_splats(tmp_path / "s.ply", scene, extra={"source_view": torch.ones(5)})
    trimesh = pytest.importorskip("trimesh")
    cloud = trimesh.load(tmp_path / "s.ply")
    assert np.allclose(cloud.vertices, scene.means, atol=1e-6)
    plyfile = pytest.importorskip("plyfile", reason="plyfile is not installed: the second reader is left out")
    vertex = plyfile.PlyData.read(tmp_path / "s.ply")["vertex"]
    assert np.allclose(vertex["f_dc_1"] * SH_C0 + 0.5, scene.colors[:, 1], atol=1e-6)
    assert np.allclose(1 / (1 + np.exp(-vertex["opacity"])), scene.opacities, atol=1e-6)
    assert np.allclose(np.exp(vertex["scale_2"]), scene.scales[:, 2], rtol=1e-5)
    assert np.allclose(vertex["rot_0"], scene.quaternions[:, 0], atol=1e-6)
    for channel in range(3):
        for k in range(3):
            assert np.allclose(vertex[f"f_rest_{channel * 3 + k}"], scene.harmonics[:, k, channel])
    assert np.allclose(vertex["source_view"], 1)


def test_others_files_are_read(tmp_path):
    """Other property orders, double precision, further elements and CRLF headers are all legal .ply."""
    fields = ["opacity", "rot_3", "rot_2", "rot_1", "rot_0", "scale_0", "scale_1", "scale_2", "f_dc_2", "f_dc_1"]
    fields += ["f_dc_0", "z", "y", "x"]
    table = np.zeros(2, dtype=[(name, "<f8") for name in fields] + [("tag", "u1")])
    table["rot_0"], table["x"], table["tag"] = 2.0, [4, 5], [1, 2]
    lines = ["ply", "format binary_little_endian 1.0", "comment made elsewhere", "element vertex 2"]
    lines += [f"property double {name}" for name in fields] + ["property uchar tag", "element camera 1"]
    lines += ["property float fov", "end_header", ""]
    (tmp_path / "s.ply").write_bytes("\r\n".join(lines).encode() + table.tobytes() + bytes(4))
    scene, extra = read_splats(tmp_path / "s.ply")
    assert torch.equal(scene.means[:, 0], torch.tensor([4.0, 5.0]))
    assert torch.equal(scene.quaternions, torch.tensor([[1.0, 0, 0, 0]]).expand(2, 4))
    assert torch.allclose(scene.opacities, torch.tensor(0.5))
    assert torch.allclose(scene.colors, torch.tensor(0.5))
    assert torch.equal(extra["tag"], torch.tensor([1.0, 2.0]))


def good_bytes(tmp_path) -> bytes:
    write_splats(tmp_path / "good.ply", some_splats())
    return (tmp_path / "good.ply").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b"", "not a .ply"),
        (lambda b: b"solid cube\n" + b, "not a .ply"),
        (lambda b: b[:-5], "promises 7 splats and holds 6"),
        (lambda b: b.replace(b"vertex 7", b"vertex 999999999999999"), "promises 999999999999999"),
        (lambda b: b.replace(b"vertex 7", b"vertex -7"), "does not start with a list of splats"),
        (lambda b: b.replace(b"vertex 7", b"chunk 7"), "does not start with a list of splats"),
        (lambda b: b.replace(b"binary_little_endian", b"ascii"), "binary little-endian"),
        (lambda b: b[:60], "does not end"),
        (lambda b: b.replace(b"property float opacity", b"property float opaqueness"), "no 'opacity'"),
        (lambda b: b.replace(b"property float opacity", b"property list uchar int opacity"), "cannot have"),
        (lambda b: b.replace(b"property float nx", b"property float x"), "one twice"),
        (lambda b: b.replace(b"property float nx", b"property float f_rest_0"), "1 f_rest"),
        (lambda b: b[:-4] + b"\x00\x00\xc0\x7f", "not finite"),
        (lambda b: b[:-16] + bytes(16), "length zero"),
    ],
)
def test_damaged_files_give_one_sentence(tmp_path, change, words):
    path = tmp_path / "bad.ply"
    path.write_bytes(change(good_bytes(tmp_path)))
    with pytest.raises(ValueError, match=words) as caught:
        read_splats(path)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no splat file"):
        read_splats(tmp_path / "none.ply")


@given(st.data())
def test_any_damage_is_a_sentence_or_a_valid_scene(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("ply")
    content = bytearray(good_bytes(folder))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    (folder / "bad.ply").write_bytes(bytes(content))
    try:
        scene, _ = read_splats(folder / "bad.ply")
    except ValueError as error:
        assert "bad.ply" in str(error)  # noqa: PT017
    else:
        assert torch.isfinite(scene.means).all()
        assert torch.isfinite(scene.scales).all()


def test_writer_refuses_what_viewers_cannot_show(tmp_path):
    scene = some_splats()
    with pytest.raises(ValueError, match="carry no colour"):
        write_splats(tmp_path / "s.ply", Gaussians(scene.means, scene.quaternions, scene.scales, scene.opacities))
    broken = scene[:]
    broken.means[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite in 'x'"):
        write_splats(tmp_path / "s.ply", broken)
    for name in ("x", "two words", "ä"):
        with pytest.raises(ValueError, match="cannot name"):
            write_splats(tmp_path / "s.ply", some_splats(), extra={name: torch.zeros(7)})
    with pytest.raises(ValueError, match="expected \\(7,\\)"):
        write_splats(tmp_path / "s.ply", some_splats(), extra={"tag": torch.zeros(6)})
    assert list(tmp_path.iterdir()) == []


def test_empty_scene(tmp_path):
    write_splats(tmp_path / "s.ply", some_splats()[:0])
    scene, _ = read_splats(tmp_path / "s.ply")
    assert len(scene) == 0
