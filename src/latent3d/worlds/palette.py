"""Random colours and materials with the restraint of photographs: mostly greys, browns, muted tones, few vivid ones."""

from __future__ import annotations

import colorsys
import math
from typing import Any

import numpy as np

from latent3d.worlds import patterns as tx
from latent3d.worlds.colours import linear_from_srgb
from latent3d.worlds.tables import SceneBuilder

Rng = np.random.Generator

# (hue range in turns, saturation range, value range) in sRGB
_RANGES = {
    "white": ((0.05, 0.65), (0.0, 0.08), (0.82, 0.98)),
    "neutral": ((0.05, 0.65), (0.0, 0.12), (0.25, 0.85)),
    "warm": ((0.05, 0.13), (0.08, 0.4), (0.45, 0.92)),
    "wood": ((0.05, 0.10), (0.3, 0.65), (0.22, 0.75)),
    "muted": ((0.0, 1.0), (0.1, 0.4), (0.3, 0.85)),
    "vivid": ((0.0, 1.0), (0.5, 0.95), (0.35, 0.95)),
    "dark": ((0.0, 1.0), (0.0, 0.3), (0.04, 0.2)),
    "green": ((0.17, 0.36), (0.3, 0.7), (0.18, 0.55)),
    "earth": ((0.05, 0.14), (0.15, 0.45), (0.25, 0.65)),
    "metal": ((0.05, 0.65), (0.0, 0.1), (0.45, 0.8)),
    "sky": ((0.54, 0.62), (0.15, 0.6), (0.6, 0.95)),
}


def uniform(rng: Rng, low: float, high: float) -> float:
    """A float in [low, high)."""
    return low + (high - low) * rng.random()


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """A float whose logarithm is uniform."""
    return math.exp(uniform(rng, math.log(low), math.log(high)))


def pick(rng: Rng, values):
    """One of a sequence."""
    return values[int(rng.random() * len(values))]


def chance(rng: Rng, probability: float) -> bool:
    """True with a probability."""
    return rng.random() < probability


def seed_of(rng: Rng) -> int:
    """Texture seed: fits float32 exactly."""
    return int(rng.random() * (1 << 20))


def colour(rng: Rng, kind: str) -> np.ndarray:
    """Linear RGB of a named range of colours."""
    hue, saturation, value = (uniform(rng, *span) for span in _RANGES[kind])
    return linear_from_srgb(np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value)))


def related(rng: Rng, base: np.ndarray, spread: float = 0.5) -> np.ndarray:
    """A colour near another one: lighter or darker, a little turned."""
    factor = math.exp(uniform(rng, -spread, spread) * 2.0)
    return np.clip(base * factor * np.exp(rng.normal(size=3) * 0.12 * spread), 0.004, 0.95)


def any_colour(rng: Rng) -> np.ndarray:
    """A colour with the frequencies of furnished places."""
    kinds = ("white", "neutral", "neutral", "warm", "wood", "muted", "muted", "vivid", "dark", "earth")
    return colour(rng, pick(rng, kinds))


def make(
    builder: SceneBuilder, rng: Rng, texture: int, base: np.ndarray, period: float, *, spread: float = 0.6, **options
) -> int:
    """Material of a texture about a base colour; a quarter of the second colours are free."""
    second = any_colour(rng) if chance(rng, 0.25) else related(rng, base, spread)
    third = any_colour(rng) if chance(rng, 0.4) else related(rng, base, spread)
    settings: dict[str, Any] = {
        "seed": seed_of(rng),
        "contrast": uniform(rng, 0.5, 1.0),
        "parameters": (rng.random(), rng.random()),
        "grain": uniform(rng, 0.05, 0.6) if chance(rng, 0.7) else 0.04,
        "stain": uniform(rng, 0.05, 0.6) if chance(rng, 0.8) else 0.05,
    }
    settings.update(options)
    return builder.material(texture, (base, second, third), period=period, **settings)


def glossy(rng: Rng, strength: float = 0.5) -> dict[str, Any]:
    """Options of a shiny material."""
    return {"specular": strength * uniform(rng, 0.2, 1.0), "exponent": log_uniform(rng, 8, 120)}


def plain(builder: SceneBuilder, rng: Rng, kind: str, **options) -> int:
    """Untextured paint, plastic, metal: only grain and stains."""
    base = colour(rng, kind)
    return make(builder, rng, tx.PLAIN, base, 0.5, grain=uniform(rng, 0, 0.12), **options)


def wood(builder: SceneBuilder, rng: Rng, planks: bool = False, **options) -> int:
    """Wood of one tone; boards when ``planks``."""
    base = colour(rng, pick(rng, ("wood", "wood", "wood", "warm", "dark", "white")))
    dark = base * uniform(rng, 0.3, 0.8)
    settings: dict[str, Any] = {
        "seed": seed_of(rng),
        "grain": uniform(rng, 0.0, 0.25),
        "stain": uniform(rng, 0.1, 0.5),
    } | options
    if planks:
        return builder.material(
            tx.PLANKS,
            (base, dark * 0.5, dark),
            period=log_uniform(rng, 0.22, 0.6),
            contrast=uniform(rng, 0.5, 1.0),
            **settings,
        )
    angle = pick(rng, (0.0, math.pi / 2)) + rng.normal() * 0.02
    return builder.material(
        tx.WAVES, (base, related(rng, base, 0.15), dark), period=log_uniform(rng, 0.03, 0.12), angle=angle,
        contrast=uniform(rng, 0.3, 0.8), parameters=(0.4, 0.5), **settings,
    )  # fmt: skip


def fabric(builder: SceneBuilder, rng: Rng) -> int:
    """Cloth: weave, stripes, checks, dots, noise, plain."""
    base = any_colour(rng)
    texture = pick(
        rng, (tx.WEAVE, tx.WEAVE, tx.STRIPES, tx.CHECK, tx.DOTS, tx.NOISE, tx.NOISE, tx.PLAIN, tx.VORONOI, tx.WAVES)
    )
    period = log_uniform(rng, 0.012, 0.05) if texture == tx.WEAVE else log_uniform(rng, 0.04, 0.25)
    angle = pick(rng, (0.0, math.pi / 2, math.pi / 4))
    return make(
        builder, rng, texture, base, period, angle=angle, bump=uniform(rng, 0, 0.5), grain=uniform(rng, 0.1, 0.5)
    )


def wall_paint(builder: SceneBuilder, rng: Rng) -> int:
    """Walls: paint most often, then plaster, wallpaper, brick, tiles, boards."""
    base = colour(rng, pick(rng, ("white", "white", "neutral", "warm", "warm", "muted", "muted", "vivid")))
    choice = rng.random()
    if choice < 0.4:
        return make(builder, rng, tx.PLAIN, base, 1.0, grain=uniform(rng, 0.0, 0.15), bump=uniform(rng, 0, 0.3))
    if choice < 0.55:
        return make(
            builder,
            rng,
            tx.NOISE,
            base,
            log_uniform(rng, 0.3, 2.0),
            spread=0.25,
            bump=uniform(rng, 0, 0.6),
            contrast=0.5,
        )
    if choice < 0.72:
        texture = pick(rng, (tx.STRIPES, tx.DOTS, tx.CHECK, tx.WAVES, tx.VORONOI, tx.TILES, tx.RAMP))
        return make(
            builder, rng, texture, base, log_uniform(rng, 0.15, 0.7), spread=0.3, contrast=uniform(rng, 0.2, 0.8)
        )
    if choice < 0.84:
        brick = colour(rng, pick(rng, ("earth", "warm", "white", "wood", "neutral")))
        return make(builder, rng, tx.BRICK, brick, log_uniform(rng, 0.2, 0.35), bump=0.4, grain=0.35)
    if choice < 0.93:
        return make(builder, rng, tx.TILES, base, log_uniform(rng, 0.1, 0.4), spread=0.4, **glossy(rng, 0.4))
    return wood(builder, rng, planks=True, angle=pick(rng, (0.0, math.pi / 2)))


def floor_cover(builder: SceneBuilder, rng: Rng) -> int:
    """Floors: boards, tiles, carpet, concrete, terrazzo, checks."""
    angle = pick(rng, (0.0, math.pi / 2, math.pi / 2, math.pi / 4, rng.random() * 3.0))
    choice = rng.random()
    if choice < 0.42:
        return wood(builder, rng, planks=True, angle=angle, **(glossy(rng, 0.3) if chance(rng, 0.5) else {}))
    base = colour(rng, pick(rng, ("neutral", "warm", "earth", "muted", "dark", "white")))
    if choice < 0.6:
        return make(
            builder, rng, tx.TILES, base, log_uniform(rng, 0.2, 0.7), angle=angle, spread=0.4, **glossy(rng, 0.4)
        )
    if choice < 0.76:
        return make(builder, rng, tx.NOISE, base, log_uniform(rng, 0.1, 0.8), spread=0.4, grain=0.5, bump=0.3)
    if choice < 0.84:
        return make(builder, rng, tx.CHECK, base, log_uniform(rng, 0.3, 1.0), angle=angle, **glossy(rng, 0.4))
    if choice < 0.92:
        return make(builder, rng, tx.TERRAZZO, base, log_uniform(rng, 0.05, 0.2), **glossy(rng, 0.4))
    return make(
        builder,
        rng,
        pick(rng, (tx.COBBLE, tx.BRICK, tx.WEAVE, tx.PLAIN)),
        base,
        log_uniform(rng, 0.1, 0.4),
        angle=angle,
    )


def object_skin(builder: SceneBuilder, rng: Rng, size: float) -> int:
    """Anything a small thing of ``size`` metres may be covered with."""
    choice = rng.random()
    if choice < 0.3:
        return plain(
            builder, rng, pick(rng, ("white", "neutral", "muted", "vivid", "dark", "metal")), **glossy(rng, 0.8)
        )
    if choice < 0.4:
        return wood(builder, rng)
    if choice < 0.5:
        return fabric(builder, rng)
    texture = pick(
        rng,
        (tx.CHECK, tx.STRIPES, tx.STRIPES, tx.DOTS, tx.NOISE, tx.NOISE, tx.VORONOI, tx.BRICK, tx.TILES, tx.TEXT,
         tx.PICTURE, tx.PICTURE, tx.RAMP, tx.TERRAZZO, tx.COBBLE, tx.WAVES, tx.LANDSCAPE),
    )  # fmt: skip
    period = size * (
        log_uniform(rng, 0.6, 1.5) if texture in (tx.PICTURE, tx.LANDSCAPE, tx.RAMP) else log_uniform(rng, 0.12, 0.8)
    )
    if texture == tx.TEXT:
        period = size * log_uniform(rng, 0.06, 0.15)
    options = glossy(rng, 0.6) if chance(rng, 0.4) else {}
    return make(
        builder,
        rng,
        texture,
        any_colour(rng),
        period,
        angle=pick(rng, (0.0, 0.0, math.pi / 2, rng.random() * 3)),
        **options,
    )


def poster(builder: SceneBuilder, rng: Rng, half_width: float) -> int:
    """A picture, a landscape, a page of text or an abstract print, sized to ``half_width`` metres."""
    choice = rng.random()
    if choice < 0.5:
        texture, period = tx.PICTURE, half_width
    elif choice < 0.75:
        texture, period = tx.LANDSCAPE, half_width
    elif choice < 0.88:
        texture, period = tx.TEXT, half_width / uniform(rng, 7.0, 14.0)
    else:
        texture, period = pick(rng, (tx.NOISE, tx.VORONOI, tx.RAMP, tx.STRIPES)), half_width * uniform(rng, 0.3, 1.0)
    if texture == tx.TEXT:
        ink = (colour(rng, "white"), colour(rng, "dark"), colour(rng, "vivid"))
        return builder.material(tx.TEXT, ink, period=period, seed=seed_of(rng), parameters=(0.5, rng.random()))
    base = colour(rng, "sky") if texture == tx.LANDSCAPE else any_colour(rng)
    second = colour(rng, pick(rng, ("neutral", "muted", "vivid", "dark")))
    third = colour(rng, "green") if texture == tx.LANDSCAPE else any_colour(rng)
    return builder.material(texture, (base, second, third), period=period, seed=seed_of(rng), contrast=1.0)
