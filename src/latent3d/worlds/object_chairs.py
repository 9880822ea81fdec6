"""Chairs: with legs, backs, arms and cushions of many kinds; see also `object_soft_chairs`.

Lengths are metres; the sitter looks towards -y.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from latent3d.worlds.object_assembly import Assembly
from latent3d.worlds.object_captions import with_article
from latent3d.worlds.object_materials import Material
from latent3d.worlds.object_outlines import bezier, circle, rectangle
from latent3d.worlds.object_parts import Part, bar, box, lathe, slab, tube, upright
from latent3d.worlds.object_soft_chairs import armchair, office_chair, shell_chair
from latent3d.worlds.palette import chance, pick, uniform


@dataclass(frozen=True)
class Seat:
    """Where the parts of a chair meet: half width and half depth of the seat, its under side and its top."""

    x: float
    y: float
    low: float
    high: float


def chair(made: Assembly) -> None:
    """Any chair."""
    kind = pick(made.rng, ("dining", "dining", "dining", "dining", "armchair", "office", "shell"))
    {"dining": _dining, "armchair": armchair, "office": office_chair, "shell": shell_chair}[kind](made)


def _dining(made: Assembly) -> None:
    rng, palette = made.rng, made.palette
    high = uniform(rng, 0.42, 0.5)
    thick = uniform(rng, 0.03, 0.06)
    seat = Seat(uniform(rng, 0.2, 0.27), uniform(rng, 0.19, 0.25), high - thick, high)
    frame = pick(rng, (palette.any_wood, palette.any_wood, palette.any_wood, palette.metal, palette.plastic))()
    soft = palette.fabric(palette.accent) if chance(rng, 0.6) else palette.leather()
    seat_fact = ""
    outline, inner = _seat(made, seat)
    made.add(frame, slab(outline, seat.low, seat.high, 0.3 * thick))
    if chance(rng, 0.45):
        plump = uniform(rng, 0.03, 0.07)
        made.add(soft, slab(outline * 0.94, seat.high, seat.high + plump, 0.45 * plump))
        seat_fact = with_article(f"{soft.colour} seat cushion")
    legs = _legs(made, inner, frame)
    back = _back(made, inner, frame, soft)
    arms = _arms(made, inner, frame) if chance(rng, 0.25) else ""
    made.say("rocking chair" if "rockers" in legs else "chair", frame, [legs, back, arms, seat_fact])


def _seat(made: Assembly, seat: Seat) -> tuple[np.ndarray, Seat]:
    """Outline of the seat, and the rectangle within it that other parts are joined to."""
    kind = pick(made.rng, ("square", "square", "soft", "round", "tapered"))
    width, depth = 2 * seat.x, 2 * seat.y
    if kind == "round":
        return circle(28) * np.array([seat.x, seat.y]) * 1.06, replace(seat, x=0.8 * seat.x, y=0.8 * seat.y)
    outline = rectangle(width, depth, {"square": 0.015, "soft": 0.09, "tapered": 0.03}[kind], 4)
    if kind == "tapered":
        outline = outline * np.stack([1 - 0.12 * outline[:, 1] / seat.y, np.ones(len(outline))], 1)
    return outline, seat


# ---------------------------------------------------------------- legs


def _legs(made: Assembly, seat: Seat, material: Material) -> str:
    """Adds something to stand on; says what."""
    rng = made.rng
    kind = pick(
        rng, ("straight", "straight", "tapered", "tapered", "splayed", "turned", "sled", "pedestal", "rockers", "tube")
    )
    if kind == "sled":
        return _sled(made, seat, material)
    if kind == "pedestal":
        return _pedestal(made, seat, material)
    if kind == "tube":
        return _cantilever(made, seat)
    splay = {"splayed": uniform(rng, 0.15, 0.28), "tapered": uniform(rng, 0.0, 0.06)}.get(kind, 0.0)
    width = uniform(rng, 0.032, 0.05)
    round_ = kind in ("splayed", "turned") or chance(rng, 0.3)
    rise = 0.06 if kind == "rockers" else 0.0
    for sx in (-1, 1):
        for sy in (-1, 1):
            x, y = sx * (seat.x - 0.8 * width), sy * (seat.y - 0.8 * width)
            foot = (x + sx * splay * seat.low, y + sy * splay * seat.low, rise)
            if kind == "turned":
                made.add(material, _turned_leg(seat.low, width).moved(x, y))
            else:
                taper = 0.5 if kind in ("tapered", "splayed") else 1.0
                made.add(material, bar((x, y, seat.low + 0.005), foot, width, taper=taper, round_=round_))
    if kind == "rockers":
        _rockers(made, seat, material, width)
        return "two curved rockers"
    if kind in ("straight", "turned") and chance(rng, 0.5):
        _stretchers(made, seat, material, width)
    return f"four {'round ' if round_ and kind == 'straight' else ''}{kind} legs"


def _turned_leg(height: float, width: float) -> Part:
    """A leg from the lathe: beads and a waist."""
    z = np.array([0, 0.04, 0.1, 0.2, 0.3, 0.55, 0.68, 0.72, 0.78, 0.82, 0.88, 1.0]) * height
    r = np.array([0.3, 0.42, 0.5, 0.36, 0.4, 0.62, 0.45, 0.62, 0.62, 0.42, 0.55, 0.6]) * width
    return lathe([(0, 0), *zip(r, z, strict=True), (0, height)], 12)


def _stretchers(made: Assembly, seat: Seat, material: Material, width: float) -> None:
    z, thin = uniform(made.rng, 0.25, 0.5) * seat.low, 0.5 * width
    x, y = seat.x - 0.8 * width, seat.y - 0.8 * width
    made.add(material, bar((-x, -y, z), (-x, y, z), thin), bar((x, -y, z), (x, y, z), thin))
    cross = 0.0 if chance(made.rng, 0.5) else y
    made.add(material, bar((-x, cross, z), (x, cross, z), thin))


def _rockers(made: Assembly, seat: Seat, material: Material, width: float) -> None:
    for side in (-1, 1):
        x = side * (seat.x - 0.8 * width)
        reach = seat.y + 0.17
        path = bezier([(x, -reach, 0.13), (x, -0.4 * reach, 0.0), (x, 0.4 * reach, 0.0), (x, reach, 0.13)], 14)
        made.add(material, tube(path, 0.5, section=rectangle(0.9 * width, 0.9 * width, 0.005, 1)))


def _sled(made: Assembly, seat: Seat, material: Material) -> str:
    """Two closed frames that lie on the floor."""
    r = uniform(made.rng, 0.011, 0.017)
    x, y, z = seat.x - 0.03, seat.y - 0.02, seat.low
    for side in (-1, 1):
        corner = 0.06
        path = np.array(
            [(side * x, -y, z), (side * x, -y, corner), (side * x, -y, r), (side * x, -y + corner, r),
             (side * x, y - corner, r), (side * x, y, r), (side * x, y, corner), (side * x, y, z)]
        )  # fmt: skip
        front = bezier(path[1:4], 6)
        back = bezier(path[4:7], 6)
        made.add(material, tube(np.concatenate([path[:1], front, back, path[-1:]]), r))
    made.add(material, bar((-x, 0, z - r), (x, 0, z - r), 1.6 * r, round_=True))
    return "a sled base"


def _pedestal(made: Assembly, seat: Seat, material: Material) -> str:
    foot, stem = uniform(made.rng, 0.2, 0.27), uniform(made.rng, 0.022, 0.04)
    z = seat.low
    profile = [(0, 0), (foot, 0), (foot, 0.012), (0.5 * foot, 0.035), (1.4 * stem, 0.07), (stem, 0.14), (stem, 0.8 * z)]
    made.add(material, lathe([*profile, (1.5 * stem, 0.93 * z), (0.45 * seat.x, z), (0, z)], 28))
    return "a round pedestal base"


def _cantilever(made: Assembly, seat: Seat) -> str:
    """One bent tube: up in front, along the floor, open at the back."""
    metal = made.palette.metal(pick(made.rng, ("silver", "black", "golden")))
    r, x, y, z = 0.014, seat.x + 0.005, seat.y, seat.low + 0.005
    half = [(x, y, z), *bezier([(x, -y + 0.08, z), (x, -y, z), (x, -y, z - 0.08)], 6),
            *bezier([(x, -y, 0.09), (x, -y, r), (x, -y + 0.09, r)], 6)]  # fmt: skip
    for side in (-1, 1):
        made.add(metal, tube(np.array([*half, (x, y, r)]) * np.array([side, 1, 1]), r))
    made.add(metal, bar((-x, y, r), (x, y, r), 2 * r, round_=True))
    return f"a bent {metal.colour} metal tube frame"


# ---------------------------------------------------------------- backs and arms


def _back(made: Assembly, seat: Seat, material: Material, soft: Material) -> str:
    """Adds a back that leans; says what."""
    rng = made.rng
    kind = pick(rng, ("slats", "ladder", "solid", "rounded", "spindles", "cross", "padded"))
    height, lean = uniform(rng, 0.34, 0.56), uniform(rng, 0.06, 0.24)
    y, x = seat.y - 0.02, seat.x - 0.02
    base, top = seat.low + 0.004, seat.high + height
    post = uniform(rng, 0.026, 0.04)
    parts: list[Part] = []
    padding: list[Part] = []
    if kind != "spindles":
        raised = top if kind in ("slats", "ladder", "cross") else seat.high + 0.55 * height
        parts += [bar((s * x, y, base), (s * x, y, raised), post, taper=0.85) for s in (-1, 1)]
    if kind in ("slats", "cross"):
        rail = uniform(rng, 0.05, 0.1)
        parts.append(upright(rectangle(2 * x + post, rail, 0.02), y - 0.016, y + 0.016, 0.005).moved(z=top - rail / 2))
        low = seat.high + 0.1
        parts.append(box(2 * x, 0.024, 0.035, 0.004).moved(0, y, low - 0.035))
        if kind == "slats":
            count = int(rng.integers(3, 7))
            spread = np.linspace(-1, 1, count) * (x - 0.055)
            wide = min(0.05, 0.6 * 2 * x / count)
            parts += [bar((p, y, low - 0.01), (p, y, top - 0.6 * rail), wide, 0.016) for p in spread]
        else:
            parts += [bar((s * x, y, low), (-s * x, y + 0.004 * s, top - rail), 0.034, 0.016) for s in (-1, 1)]
    elif kind == "ladder":
        count = int(rng.integers(3, 6))
        rung = uniform(rng, 0.035, 0.065)
        for z in np.linspace(seat.high + 0.14, top - rung / 2, count):
            parts.append(upright(rectangle(2 * x, rung, 0.012), y - 0.012, y + 0.012, 0.004).moved(z=float(z)))
    elif kind in ("solid", "rounded", "padded"):
        low = seat.high + uniform(rng, 0.0, 0.12)
        radius = 0.03 if kind != "rounded" else 0.48 * min(2 * x, top - low)
        outline = rectangle(2 * x + 0.04, top - low, radius, 8)
        if kind == "rounded":  # straight below, round above
            outline = np.where(outline[:, 1:] < 0, np.sign(outline) * [[x + 0.02, (top - low) / 2]], outline)
            outline = outline[np.r_[True, np.linalg.norm(np.diff(outline, axis=0), axis=1) > 1e-6]]
        thick = 0.035 if kind == "padded" else 0.014
        (padding if kind == "padded" else parts).append(
            upright(outline, y - thick - 0.005, y + thick - 0.005, 0.6 * thick).moved(z=(low + top) / 2)
        )
    else:
        hoop = bezier(
            [(-x, y, base), (-1.05 * x, y, top), (0, y, top + 0.25 * height), (1.05 * x, y, top), (x, y, base)], 24
        )
        parts.append(tube(hoop, 0.4 * post, 8))
        for p in np.linspace(-0.62, 0.62, int(rng.integers(4, 8))) * x:
            z = float(np.interp(p, hoop[:, 0], hoop[:, 2]))
            parts.append(bar((p, y, base), (p, y, z), 0.4 * post, round_=True, n=8))
    made.add(material, (part.leaning(seat.high, y=lean) for part in parts))
    made.add(soft, (part.leaning(seat.high, y=lean) for part in padding))
    return {
        "slats": "a slatted back", "ladder": "a ladder back", "solid": "a solid back", "rounded": "a rounded back",
        "spindles": "a hoop back with spindles", "cross": "a crossed back", "padded": f"a padded {soft.colour} back",
    }[kind]  # fmt: skip


def _arms(made: Assembly, seat: Seat, material: Material) -> str:
    z, width = seat.high + uniform(made.rng, 0.16, 0.24), uniform(made.rng, 0.035, 0.055)
    for side in (-1, 1):
        x = side * (seat.x + 0.012)
        made.add(material, bar((x, -0.6 * seat.y, seat.low), (x, -0.6 * seat.y, z), 0.03))
        made.add(material, box(width, 1.85 * seat.y, 0.026, 0.008).moved(x, 0.12 * seat.y, z))
    return "armrests"
