"""Reading pictures: every kind that people have, and every kind that must be refused with one sentence."""

from __future__ import annotations

import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from latent3d.geometry.cameras import Cameras
from latent3d.io.images import MAX_SIDE, MIN_SIDE, depth_picture, fit_cameras, fit_to, load_image, save_image


def ramp(height: int = 20, width: int = 32) -> np.ndarray:
    """(H, W, 3) bytes: red grows to the right, green downwards, blue constant."""
    ys, xs = np.mgrid[:height, :width]
    return np.stack([xs * 7, ys * 11, np.full_like(xs, 99)], -1).astype(np.uint8)


def as_array(photo) -> np.ndarray:
    return (photo.image * 255).round().byte().permute(1, 2, 0).numpy()


def exif_with(**tags) -> Image.Exif:
    numbers = {"f35": 0xA405, "focal": 0x920A, "density": 0xA20E, "unit": 0xA210, "width": 0xA002}
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({numbers[name]: value for name, value in tags.items() if name in numbers})
    if "orientation" in tags:
        exif[0x0112] = tags["orientation"]
    return exif


def test_plain_picture_is_unchanged(tmp_path):
    Image.fromarray(ramp()).save(tmp_path / "a.png")
    photo = load_image(tmp_path / "a.png")
    assert photo.image.shape == (3, 20, 32)
    assert photo.image.dtype == torch.float32
    assert np.array_equal(as_array(photo), ramp())
    assert photo.notes == ()
    assert photo.fov_x_degrees is None


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a.transpose(1, 0, 2)[::-1, ::-1]),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_exif_orientation(tmp_path, orientation, undo):
    Image.fromarray(ramp()).save(tmp_path / "a.png", exif=exif_with(orientation=orientation))
    photo = load_image(tmp_path / "a.png")
    assert np.array_equal(as_array(photo), undo(ramp()))
    assert any("upright" in note for note in photo.notes) == (orientation != 1)


def test_alpha_is_composited_over_the_stated_color(tmp_path):
    data = np.dstack([ramp(), np.zeros((20, 32), np.uint8)])
    data[:, :16, 3] = 255
    data[:, 16:24, 3] = 51
    Image.fromarray(data).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png", background=(0.0, 1.0, 0.5)).image.permute(1, 2, 0).numpy()
    assert np.allclose(image[:, :16] * 255, ramp()[:, :16])
    expected = ramp()[:, 16:24] / 255 * 0.2 + np.array([0.0, 1.0, 0.5]) * 0.8
    assert np.allclose(image[:, 16:24], expected, atol=1e-6)
    assert np.allclose(image[:, 24:], [0.0, 1.0, 0.5])
    assert "Composited its transparency over white." in load_image(tmp_path / "a.png").notes


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P"])
def test_few_channels(tmp_path, mode):
    source = Image.fromarray(ramp()).convert(mode)
    source.save(tmp_path / "a.png")
    photo = load_image(tmp_path / "a.png")
    assert np.array_equal(as_array(photo), np.asarray(source.convert("RGB")))
    assert any("Converted from" in note for note in photo.notes)


def test_palette_with_transparent_entry(tmp_path):
    source = Image.fromarray(np.repeat(np.arange(2, dtype=np.uint8), 16)[None].repeat(20, 0), mode="P")
    source.putpalette([10, 20, 30, 200, 100, 50])
    source.save(tmp_path / "a.png", transparency=1)
    array = as_array(load_image(tmp_path / "a.png"))
    assert np.all(array[:, :16] == [10, 20, 30])
    assert np.all(array[:, 16:] == 255)


def test_sixteen_bit_grey(tmp_path):
    values = np.linspace(0, 65535, 640).astype(np.uint16).reshape(20, 32)
    Image.fromarray(values).save(tmp_path / "a.png")
    photo = load_image(tmp_path / "a.png")
    assert np.abs(photo.image[0].numpy() - values / 65535).max() <= 0.5 / 255 + 1e-6
    assert any("16-bit" in note for note in photo.notes)


def test_sixteen_bit_color(tmp_path):
    cv2 = pytest.importorskip("cv2")
    deep = ramp().astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "a.png"), deep[..., ::-1])
    photo = load_image(tmp_path / "a.png")
    assert np.abs(as_array(photo).astype(int) - ramp()).max() <= 1
    assert any("16 bits" in note for note in photo.notes)


@pytest.mark.parametrize("scale", [1.0, 250.0])
def test_floating_point_grey(tmp_path, scale):
    values = np.linspace(0, 1, 640, dtype=np.float32).reshape(20, 32)
    Image.fromarray(values * scale).save(tmp_path / "a.tif")
    assert np.abs(load_image(tmp_path / "a.tif").image[1].numpy() - values).max() <= 0.5 / 255 + 1e-6


def test_cmyk(tmp_path):
    white = Image.new("CMYK", (32, 20), (0, 0, 0, 0))
    white.paste((0, 255, 255, 0), (0, 0, 16, 20))
    white.save(tmp_path / "a.tif")
    array = as_array(load_image(tmp_path / "a.tif"))
    assert np.all(array[:, :16] == [255, 0, 0])
    assert np.all(array[:, 16:] == 255)


def test_srgb_profile_changes_nothing_and_another_is_converted(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(ramp()).save(tmp_path / "srgb.png", icc_profile=srgb)
    photo = load_image(tmp_path / "srgb.png")
    assert np.array_equal(as_array(photo), ramp())
    assert photo.notes == ()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(ramp()).save(tmp_path / "odd.png", icc_profile=lab)  # a profile that cannot belong to RGB data
    photo = load_image(tmp_path / "odd.png")
    assert np.array_equal(as_array(photo), ramp())
    assert any("could not be applied" in note for note in photo.notes)


def test_wide_gamut_profile_is_applied(tmp_path):
    profile = linear_profile()
    Image.fromarray(np.full((20, 32, 3), 55, np.uint8)).save(tmp_path / "a.png", icc_profile=profile)
    photo = load_image(tmp_path / "a.png")
    # Linear 55/255 = 0.2157 is 0.5019 in sRGB's transfer curve (IEC 61966-2-1).
    linear = 55 / 255
    expected = 1.055 * linear ** (1 / 2.4) - 0.055
    assert photo.image.mean().item() == pytest.approx(expected, abs=0.01)
    assert any("linear test" in note for note in photo.notes)


def linear_profile() -> bytes:
    """A minimal ICC v2 profile: sRGB's primaries (D50) with a linear curve."""

    def xyz(x: float, y: float, z: float) -> bytes:
        return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in (x, y, z)))

    curve = b"curv" + bytes(4) + struct.pack(">I", 0) + bytes(4)
    name = b"linear test\0"
    text = b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(78 + 4 + 4 + 1)
    text += bytes(-len(text) % 4)
    parts = {
        b"desc": text, b"cprt": b"text" + bytes(4) + b"none\0\0\0\0", b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.4361, 0.2225, 0.0139), b"gXYZ": xyz(0.3851, 0.7169, 0.0971),
        b"bXYZ": xyz(0.1431, 0.0606, 0.7141),
        b"rTRC": curve, b"gTRC": curve, b"bTRC": curve,
    }  # fmt: skip
    table, data, start = b"", b"", 128 + 4 + 12 * len(parts)
    for tag, value in parts.items():
        table += tag + struct.pack(">II", start + len(data), len(value))
        data += value
    body = struct.pack(">I", len(parts)) + table + data
    head = struct.pack(">I4sI4s4s4s", 128 + len(body), b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249)))
    return head + bytes(128 - len(head)) + body


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (32, 20), color) for color in ("red", "green", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    photo = load_image(tmp_path / "a.gif")
    assert np.all(as_array(photo) == [255, 0, 0])
    assert photo.notes[0] == "Took the first of 3 frames."


def test_large_pictures_are_reduced(tmp_path):
    Image.new("RGB", (MAX_SIDE + 8, 40), (10, 20, 30)).save(tmp_path / "a.png")
    photo = load_image(tmp_path / "a.png")
    assert photo.image.shape == (3, 20, MAX_SIDE // 2 + 4)
    assert any("Reduced 2 times" in note for note in photo.notes)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        # The diagonal of a 3:2 picture with a 43.27 mm equivalent lens is seen under 2 atan(1/2).
        ({"f35": 50}, 2 * math.atan(36 / 100)),
        ({"f35": 50, "orientation": 6}, 2 * math.atan(24 / 100)),
        ({"focal": 10.0, "density": 60 * 25.4 / 10, "unit": 2}, 2 * math.atan(30 / (10 * 6))),
        ({"focal": 10.0, "density": 60.0, "unit": 3}, 2 * math.atan(30 / (10 * 6))),
        # The sensor had 120 columns and the picture was scaled to 60.
        ({"focal": 10.0, "density": 60.0, "unit": 3, "width": 120}, 2 * math.atan(30 / (10 * 3))),
    ],
)
def test_field_of_view_from_exif(tmp_path, tags, expected):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=exif_with(**tags))
    photo = load_image(tmp_path / "a.jpg")
    assert photo.fov_x_degrees == pytest.approx(math.degrees(expected), rel=1e-3)
    assert any("Field of view" in note for note in photo.notes)


@pytest.mark.parametrize("tags", [{"f35": 0}, {"f35": 60000}, {"focal": 0.0, "density": 1.0}, {"focal": 5.0}])
def test_unusable_exif_gives_no_field_of_view(tmp_path, tags):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=exif_with(**tags))
    assert load_image(tmp_path / "a.jpg").fov_x_degrees is None


def bomb(side: int) -> bytes:
    """A PNG that claims side x side pixels and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg() -> bytes:
    out = io.BytesIO()
    Image.fromarray(ramp(64, 64)).save(out, "JPEG", quality=95)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an image"),
        (b"hello, this is text", "not an image"),
        (bomb(30_000), "million pixels"),
        (bomb(13_350), "million pixels"),
        (bomb(100), "damaged or cut short"),
        (jpeg()[:400], "damaged or cut short"),
        (jpeg()[: len(jpeg()) // 2], "damaged or cut short"),
    ],
)
def test_bad_files_give_one_sentence(tmp_path, content, words):
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        load_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_folder_and_tiny(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no image"):
        load_image(tmp_path / "none.png")
    with pytest.raises(ValueError, match="is a folder"):
        load_image(tmp_path)
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    with pytest.raises(ValueError, match=f"1 x 1 pixels; give one with at least {MIN_SIDE}"):
        load_image(tmp_path / "one.png")


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (33, 97), (500, 300)])
def test_fit_keeps_rays_and_pixels_together(height, width):
    """A linear ramp of ray slopes stays the slope of the ray of each pixel after cut and resize."""
    camera = Cameras.from_fov(torch.eye(4, dtype=torch.float64), 70.0, height, width)
    focal = camera.k[0, 0]
    xs = (torch.arange(width) + 0.5 - width / 2) / focal
    ys = (torch.arange(height) + 0.5 - height / 2) / focal
    slopes = torch.stack([xs.expand(height, width), ys[:, None].expand(height, width)])
    image = torch.cat([slopes / 4 + 0.5, torch.zeros(1, height, width)])
    fitted, after, notes = fit_to(image, camera, 32, 32)
    assert fitted.shape == (3, 32, 32)
    assert (after.height, after.width) == (32, 32)
    grid = torch.arange(32) + 0.5
    expected_x = (grid - after.k[0, 2]) / after.k[0, 0]
    expected_y = (grid - after.k[1, 2]) / after.k[1, 1]
    inner = slice(3, -3)  # filters bend a ramp at its ends
    assert torch.allclose(((fitted[0] - 0.5) * 4)[inner, inner], expected_x.expand(32, 32)[inner, inner], atol=2e-3)
    assert torch.allclose(
        ((fitted[1] - 0.5) * 4)[inner, inner], expected_y[:, None].expand(32, 32)[inner, inner], atol=2e-3
    )
    assert notes[0].startswith("Cut from")
    assert torch.equal(fit_cameras(camera, 32, 32).k, after.k)


def test_fit_to_its_own_size_is_the_identity():
    image, camera = torch.rand(3, 32, 32), Cameras.from_fov(torch.eye(4), 60.0, 32, 32)
    fitted, after, notes = fit_to(image, camera, 32, 32)
    assert torch.equal(fitted, image)
    assert torch.equal(after.k, camera.k)
    assert notes == ()


def test_fit_refuses_a_foreign_camera():
    with pytest.raises(ValueError, match="60 x 40 pixels but the image has 32 x 32"):
        fit_to(torch.rand(3, 32, 32), Cameras.from_fov(torch.eye(4), 60.0, 40, 60), 32, 32)


def test_real_photos_load(shared_data):
    folder: Path = shared_data("scene_photos_depth_anything")
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".png"))[:4]:
        photo = load_image(path)
        assert photo.image.min() >= 0
        assert photo.image.max() <= 1
        assert photo.image.std() > 0.02


def test_save_image_round_trip(tmp_path):
    image = torch.rand(3, 20, 24).mul(255).round() / 255
    save_image(tmp_path / "deep/a.png", image)
    assert torch.allclose(load_image(tmp_path / "deep/a.png").image, image)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.png"]


def test_depth_picture_is_lighter_when_nearer_and_black_where_unknown():
    depth = torch.tensor([[[0.0, 1.0, 2.0, 4.0, 8.0]]])
    picture = depth_picture(depth, near=1.0, far=8.0)
    light = picture.mean(0)[0]
    assert picture.shape == (3, 1, 5)
    assert light[0] == 0
    assert torch.all(light[1:-1] > light[2:])
