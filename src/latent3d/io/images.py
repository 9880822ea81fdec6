"""Pictures from files, whatever a person may have: turned upright, in sRGB, without alpha, with a record of it all.

H, W: height and width in pixels.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.io.atomic import output_file

MAX_PIXELS = 178_000_000
"""Larger pictures are refused before they are unpacked (a small file can unpack to any size)."""
MAX_SIDE = 4096
"""Larger pictures are reduced on reading; no model here sees more detail than this."""
MIN_SIDE = 16
"""Smaller pictures hold nothing to build a scene from."""
DIAGONAL_35MM = math.hypot(36.0, 24.0)
"""Diagonal of a 35 mm film frame in mm, to which equivalent focal lengths refer (CIPA DCG-001)."""
MIN_FOV, MAX_FOV = 5.0, 150.0
"""Horizontal fields of view outside this range, in degrees, are taken for errors."""


@dataclass(frozen=True)
class Photo:
    """A picture ready for use.

    Attributes:
        image: sRGB in [0, 1], (3, H, W), float32.
        notes: what was done to it, one sentence each, in order.
        fov_x_degrees: horizontal field of view of ``image`` according to its EXIF data, or None.
        path: where it came from.
        alpha: coverage in [0, 1], (1, H, W); None where the picture has none or is opaque everywhere.
    """

    image: Float[Tensor, "3 h w"]
    notes: tuple[str, ...]
    fov_x_degrees: float | None
    path: Path
    alpha: Float[Tensor, "1 h w"] | None = None


def load_image(
    path: str | Path, background: tuple[float, float, float] = (1.0, 1.0, 1.0), *, upright: bool = True
) -> Photo:
    """Read any picture that Pillow knows.

    EXIF rotation is applied, a colour profile converted to sRGB, alpha composited over ``background`` (sRGB in [0, 1]),
    grey, palette, CMYK and 16-bit pictures converted, the first frame of an animation taken. ``upright`` False leaves
    the pixels as stored, for cameras that were solved on them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a picture, is damaged, too small or too large.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no image '{path}'; check the name")
    if path.is_dir():
        raise ValueError(f"'{path}' is a folder; give an image file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large or oddly tagged files; the checks below decide
            with Image.open(path) as picture:
                _check_size(picture, path)
                return _prepare(picture, background, path, upright)
    except Image.DecompressionBombError as error:
        raise ValueError(_too_large(path)) from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"'{path}' is not an image that can be read; give a JPEG, PNG, WebP or TIFF file") from error
    except PermissionError:
        raise
    except _SentenceError as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # decoders of many authors: damaged data surfaces as almost any type
        raise ValueError(f"the image '{path}' is damaged or cut short ({error}); save or download it again") from error


class _SentenceError(ValueError):
    """One of this file's own sentences, not to be rewrapped as damage."""


def _too_large(path: Path) -> str:
    return f"the image '{path}' has more than {MAX_PIXELS // 1_000_000} million pixels; shrink it first"


def _check_size(picture: Image.Image, path: Path) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise _SentenceError(_too_large(path))
    if min(width, height) < MIN_SIDE:
        raise _SentenceError(
            f"the image '{path}' is {width} x {height} pixels; give one with at least {MIN_SIDE} on each side"
        )


def _prepare(picture: Image.Image, background: tuple[float, float, float], path: Path, upright: bool) -> Photo:
    notes: list[str] = []
    tiles = getattr(picture, "tile", None)  # before anything loads the picture, which empties the list
    rawmode = tiles[0][3] if tiles else ""
    frames = getattr(picture, "n_frames", 1)
    if frames > 1:
        picture.seek(0)
        notes.append(f"Took the first of {frames} frames.")
    exif = picture.getexif()
    stored = picture.size
    if ";16" in str(rawmode) and picture.mode in ("RGB", "RGBA"):
        notes.append("Reduced 16 bits per channel to 8.")
    picture.load()
    orientation = exif.get(0x0112, 1) if upright else 1
    color, alpha = _to_rgb(picture, notes)
    if orientation in range(2, 9):
        # The tag travels in the EXIF block of the original, so the parts are turned by the method Pillow names for it.
        color, alpha = _upright(color, orientation), None if alpha is None else _upright(alpha, orientation)
        notes.append("Turned upright as its EXIF data ask.")
    factor = math.ceil(max(color.size) / MAX_SIDE)
    if factor > 1:
        color, alpha = color.reduce(factor), None if alpha is None else alpha.reduce(factor)
        notes.append(f"Reduced {factor} times from {stored[0]} x {stored[1]} pixels.")
    image = torch.from_numpy(np.asarray(color, dtype=np.float32) / 255).permute(2, 0, 1)
    transparency = None
    if alpha is not None:
        cover = torch.from_numpy(np.asarray(alpha, dtype=np.float32) / 255)
        if bool((cover < 1).any()):
            transparency = cover[None]
            image = image * cover + image.new_tensor(background)[:, None, None] * (1 - cover)
            name = "white" if tuple(background) == (1.0, 1.0, 1.0) else f"the colour {tuple(background)}"
            notes.append(f"Composited its transparency over {name}.")
    fov = _exif_fov(exif, stored, turned=orientation in (5, 6, 7, 8), notes=notes)
    return Photo(image=image.contiguous(), notes=tuple(notes), fov_x_degrees=fov, path=path, alpha=transparency)


def _to_rgb(picture: Image.Image, notes: list[str]) -> tuple[Image.Image, Image.Image | None]:
    """8-bit sRGB picture and its alpha (8-bit grey) if it has one."""
    mode = picture.mode
    if mode.startswith("I") or mode == "F":
        return _from_deep_grey(picture, notes), None
    alpha = None
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        profile = picture.info.get("icc_profile")
        straight = picture.convert("RGBA")
        alpha, picture = straight.getchannel("A"), straight.convert("RGB")
        picture.info["icc_profile"] = profile if mode in ("RGBA", "P") else None
    converted = _to_srgb(picture, notes) if picture.info.get("icc_profile") else None
    names = {"1": "black and white", "L": "grey", "LA": "grey", "P": "palette", "CMYK": "CMYK"}
    if mode in names:
        notes.append(f"Converted from {names[mode]} to RGB.")
    elif mode not in ("RGB", "RGBA"):
        notes.append(f"Converted from {mode} to RGB.")
    return converted if converted is not None else picture.convert("RGB"), alpha


def _to_srgb(picture: Image.Image, notes: list[str]) -> Image.Image | None:
    """Apply the embedded profile; None when it already is sRGB, cannot be read or does not fit."""
    import io

    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(picture.info["icc_profile"]))
        name = ImageCms.getProfileDescription(profile).strip()
        if "srgb" in name.lower():
            return None
        if picture.mode == "P":
            picture = picture.convert("RGB")
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(picture, profile, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        notes.append("Its colour profile could not be applied; its colours were taken as sRGB.")
        return None
    notes.append(f"Converted from the colour profile '{name}' to sRGB.")
    return converted


def _from_deep_grey(picture: Image.Image, notes: list[str]) -> Image.Image:
    """Grey with more than 8 bits: 16-bit full range, otherwise stretched to its own range."""
    values = np.asarray(picture, dtype=np.float64)
    if not np.isfinite(values).all():
        raise _SentenceError("the image holds values that are not numbers; export it again as 8- or 16-bit")
    low, high = float(values.min()), float(values.max())
    if picture.mode == "F" and low >= 0 and high <= 1:
        unit, how = values, "floating point"
    elif picture.mode != "F" and low >= 0 and high <= 65535:
        unit, how = values / 65535, "16-bit"
    else:
        unit, how = (values - low) / max(high - low, 1e-12), f"its range {low:g} to {high:g}"
    notes.append(f"Converted from {how} grey to RGB.")
    return Image.fromarray(np.round(unit * 255).astype(np.uint8)).convert("RGB")


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    tagged = picture.copy()
    tagged.getexif()[0x0112] = orientation
    return ImageOps.exif_transpose(tagged)


def _exif_fov(exif: Image.Exif, stored: tuple[int, int], turned: bool, notes: list[str]) -> float | None:
    """Horizontal field of view in degrees of the upright picture, from the focal length in EXIF, or None.

    focal in pixels = f35 * diagonal in pixels / 43.27 mm, or focal length * pixels per mm on the sensor.
    """
    width, height = stored
    try:
        tags = exif.get_ifd(0x8769)
        focal = None
        f35 = float(tags.get(0xA405, 0) or 0)
        if f35 > 0:
            focal, source = f35 * math.hypot(width, height) / DIAGONAL_35MM, f"{f35:g} mm (35 mm equivalent)"
        else:
            millimetres, density = float(tags.get(0x920A, 0) or 0), float(tags.get(0xA20E, 0) or 0)
            unit = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}.get(int(tags.get(0xA210, 2) or 2))
            full_width = int(tags.get(0xA002, width) or width)
            if millimetres > 0 and density > 0 and unit:
                focal = millimetres * density / unit * width / full_width
                source = f"{millimetres:g} mm and the sensor's {density / unit:.0f} pixels per mm"
    except (ValueError, TypeError, ZeroDivisionError, OverflowError, KeyError, AttributeError):
        notes.append("Its EXIF focal length could not be read.")
        return None
    if focal is None or not math.isfinite(focal) or focal <= 0:
        return None
    across = height if turned else width
    fov = math.degrees(2 * math.atan(across / (2 * focal)))
    if not MIN_FOV <= fov <= MAX_FOV:
        notes.append(f"Its EXIF focal length would mean a field of view of {fov:.1f} degrees and was not believed.")
        return None
    notes.append(f"Field of view {fov:.1f} degrees from its EXIF focal length, {source}.")
    return fov


def fit_cameras(cameras: Cameras, height: int, width: int) -> Cameras:
    """The cameras of `fit_to`'s results: cut to the largest centred window of the aspect, then resized."""
    top, left, cut_h, cut_w = _centred_window(cameras.height, cameras.width, height, width)
    return cameras.cropped(top, left, cut_h, cut_w).resized(height, width)


def _centred_window(h: int, w: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of the largest window of aspect width / height, to the pixel."""
    cut_h, cut_w = min(h, max(1, round(w * height / width))), min(w, max(1, round(h * width / height)))
    return (h - cut_h) // 2, (w - cut_w) // 2, cut_h, cut_w


def fit_to(
    image: Float[Tensor, "3 h w"], cameras: Cameras, height: int, width: int
) -> tuple[Tensor, Cameras, tuple[str, ...]]:
    """Cut the largest centred window of the wanted aspect, then resize with an anti-aliasing filter.

    Args:
        image: (3, H, W) in [0, 1].
        cameras: of any batch shape, for that image size; they follow the cut and the resize exactly.

    Returns:
        image (3, height, width), cameras of that size, and the sentences that say what was done.

    Raises:
        ValueError: if the cameras are for another image size.
    """
    h, w = image.shape[-2:]
    if (cameras.height, cameras.width) != (h, w):
        raise ValueError(
            f"the camera is for {cameras.width} x {cameras.height} pixels but the image has {w} x {h}; "
            "give matching ones"
        )
    notes = []
    top, left, cut_h, cut_w = _centred_window(h, w, height, width)
    if (cut_h, cut_w) != (h, w):
        image = image[:, top : top + cut_h, left : left + cut_w]
        notes.append(f"Cut from {w} x {h} to the centred {cut_w} x {cut_h} pixels, the model's aspect.")
    if (cut_h, cut_w) != (height, width):
        enlarged = height > cut_h or width > cut_w
        mode = "bicubic" if enlarged else "bilinear"
        image = torch.nn.functional.interpolate(
            image[None], (height, width), mode=mode, align_corners=False, antialias=True
        )[0].clamp(0, 1)
        verb = "Enlarged" if enlarged else "Resized"
        notes.append(f"{verb} from {cut_w} x {cut_h} to {width} x {height} pixels.")
    return image, fit_cameras(cameras, height, width), tuple(notes)


def save_image(path: str | Path, image: Float[Tensor, "c h w"]) -> None:
    """Write a picture (1 or 3 channels in [0, 1], clamped) as 8-bit PNG or JPEG by the suffix, atomically."""
    data = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    with output_file(path) as temporary:
        Image.fromarray(data[..., 0] if data.shape[-1] == 1 else data).save(temporary)


_DEPTH_COLORS = (
    (0.10, 0.07, 0.22), (0.20, 0.25, 0.60), (0.13, 0.55, 0.65), (0.40, 0.75, 0.45), (0.92, 0.80, 0.30),
    (0.98, 0.96, 0.85),
)  # fmt: skip
"""Far (dark) to near (light), lightness rising all the way so that it also reads in grey."""


def depth_picture(depth: Float[Tensor, "1 h w"], near: float, far: float) -> Float[Tensor, "3 h w"]:
    """Colours for z-depth, linear in inverse depth: light is ``near``, dark is ``far``, black is unknown (0)."""
    known = depth > 0
    unit = ((1 / depth.clamp_min(1e-6) - 1 / far) / max(1 / near - 1 / far, 1e-9)).clamp(0, 1)
    colors = depth.new_tensor(_DEPTH_COLORS)
    place = unit[0] * (len(colors) - 1)
    low = place.floor().clamp_max(len(colors) - 2).long()
    mixed = torch.lerp(colors[low], colors[low + 1], (place - low)[..., None])
    return mixed.permute(2, 0, 1) * known
