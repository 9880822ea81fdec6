"""What planes are made of. Lengths are in units of the fuselage (about 1 long); the nose is at -y."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latent3d.worlds.object_assembly import Assembly
from latent3d.worlds.object_materials import Material
from latent3d.worlds.object_outlines import bezier
from latent3d.worlds.object_parts import Part, bar, box, cylinder, ellipsoid, lathe, loft, tube
from latent3d.worlds.palette import chance, pick

AIRFOIL = np.array(
    [(1.0, 0.0), (0.7, 0.055), (0.4, 0.085), (0.15, 0.075), (0.03, 0.035), (0.0, 0.0), (0.03, -0.02), (0.2, -0.035),
     (0.6, -0.025)]
)  # fmt: skip
"""Section of a wing of unit chord, leading edge at 0: (along the chord, up)."""


@dataclass(frozen=True)
class Craft:
    """A fuselage of length 1.

    Attributes:
        radius: where it is widest.
        nose, tail: lengths of the stretches that taper.
        lift: how far the tail is raised, in radii.
        tall: height over width.
    """

    radius: float
    nose: float
    tail: float
    lift: float
    tall: float = 1.0


def plane_skins(made: Assembly) -> tuple[Material, Material, Material]:
    """Fuselage, wings and tail: one colour, or a livery with a fin in its second colour."""
    rng, palette = made.rng, made.palette
    hull = pick(rng, (palette.main, "white", "white", "silver", palette.main, "grey"))
    second = pick(rng, [c for c in (palette.main, palette.accent, "red", "blue") if c != hull])
    body = palette.paint(hull)
    if chance(rng, 0.55):
        body = palette.of("paint", "livery", hull, second, stretch=True)
    wings = palette.paint(second) if chance(rng, 0.25) else palette.of("paint", "plain", hull)
    fin = palette.paint(second) if chance(rng, 0.6) else wings
    return body, wings, fin


def fuselage(craft: Craft) -> Part:
    """Sections along y; surface coordinates run around from the belly."""
    round_, middle = 1 - np.cos(np.linspace(0.12, 1, 6) * np.pi / 2), np.linspace(craft.nose, 1 - craft.tail, 5)[1:]
    stations = np.concatenate([craft.nose * round_, middle, 1 - craft.tail * np.linspace(1, 0, 7)[1:]])
    nose = np.clip(stations / craft.nose, 0, 1)
    tail = np.sin(np.clip((1 - stations) / craft.tail, 0, 1) * np.pi / 2)
    radius = craft.radius * np.sqrt(np.clip(1 - (1 - nose) ** 2, 0, 1)) * (0.16 + 0.84 * tail)
    z = craft.lift * craft.radius * (1 - tail) - 0.12 * craft.radius * (1 - nose) ** 2
    angle = np.arange(20) / 20 * 2 * np.pi - np.pi / 2
    rings = np.stack(
        [radius[:, None] * np.cos(angle), np.broadcast_to(stations[:, None] - 0.5, (len(stations), 20)),
         z[:, None] + craft.tall * radius[:, None] * np.sin(angle)], -1,
    )  # fmt: skip
    return loft(rings, ends=("smooth", "smooth"))


def wing(
    root: tuple[float, float, float], span: float, chord: float, tip: float, sweep: float, rise: float = 0.0,
    *, thick: float = 1.0, bent: float = 0.0,
) -> Part:  # fmt: skip
    """A wing to +x from the leading edge of its root.

    Args:
        root: leading edge at the middle of the plane.
        span: length of this half; chord, tip: depths at root and tip.
        sweep: how far the tip's leading edge lies behind the root's.
        rise: how far the tip lies above the root.
        thick: scale of the section's height.
        bent: height of a winglet.
    """
    rings = []
    for t in np.linspace(0, 1, 5):
        depth = chord + (tip - chord) * t
        section = AIRFOIL * np.array([depth, depth * thick])
        y, z = root[1] + sweep * t + section[:, 0], root[2] + rise * t + section[:, 1]
        rings.append(np.column_stack([np.full(len(section), root[0] + span * t), y, z]))
    if bent:
        section = AIRFOIL * np.array([0.5 * tip, 0.5 * tip * thick])
        x, y = root[0] + 1.03 * span - section[:, 1], rings[-1][:, 1].min() + 0.45 * tip + section[:, 0]
        rings.append(np.column_stack([x, y, np.full(len(section), root[2] + rise + bent)]))
    return loft(np.stack(rings), columns=np.repeat([0, 1], [5, 4])).boxed()  # above and below


def add_tail(
    made: Assembly, wings: Material, fin: Material, craft: Craft, high: float, span: float, t_tail: bool, sweep: float
) -> None:
    """Fin and tail plane.

    Args:
        high, sweep: height of the fin, and how far it leans back.
        span: of each half of the tail plane.
        t_tail: the tail plane sits on top of the fin.
    """
    y, z = 0.5 - 0.17, craft.lift * craft.radius
    upright = wing((0, 0, 0), high, 0.16, 0.09, sweep, thick=0.8).turned(1, -90).moved(0, y, z * 0.7)
    made.add(fin, upright)
    level = z * 0.7 + high if t_tail else z * 0.8
    back = y + sweep * 0.9 + 0.005 if t_tail else y + 0.045
    made.add(wings, wing((0, back, level), span, 0.11, 0.06, 0.06, 0.0 if t_tail else 0.015).both_sides())


def _nacelle(radius: float, length: float) -> Part:
    """The skin of a jet engine along y from 0."""
    shape = [(0, 0.03), (0.78, 0.03), (0.86, 0), (0.95, 0.04), (1, 0.25), (0.85, 0.7), (0.6, 1), (0, 1)]
    return lathe(np.array(shape) * [radius, length], 18).turned(0, -90)


def add_jet(
    made: Assembly, skin: Material, dark: Material, x: float, y: float, z: float, radius: float, length: float
) -> None:
    """A jet engine, the middle of its mouth at (x, y, z)."""
    made.add(skin, _nacelle(radius, length).moved(x, y, z))
    throat = cylinder(0.74 * radius, 0.01, 16).turned(0, 90).moved(x, y + 0.028 * length, z)
    made.add(dark, throat, ellipsoid(0.22 * radius, 0.4 * radius, 0.22 * radius, 10, 6).moved(x, y + 0.02 * length, z))
    made.add(dark, cylinder(0.42 * radius, 0.02, 12).turned(0, -90).moved(x, y + length - 0.012, z))


def add_windows(made: Assembly, dark: Material, craft: Craft, first: float, last: float, count: int) -> None:
    """A row of panes along each side."""
    pane = box(1.99 * craft.radius, 0.011, 0.0165).moved(z=0.2 * craft.radius * craft.tall)
    made.add(dark, (pane.moved(y=float(y)) for y in np.linspace(first, last, count)))


def add_cockpit(made: Assembly, dark: Material, craft: Craft) -> None:
    """The pilots' panes on the nose."""
    pane = ellipsoid(0.66 * craft.radius, 0.32 * craft.nose, 0.34 * craft.radius, 16, 8).turned(0, 20)
    made.add(dark, pane.moved(0, -0.5 + 0.45 * craft.nose, 0.5 * craft.radius * craft.tall))


def add_airscrew(made: Assembly, metal: Material, blades: int, x: float, y: float, z: float, radius: float) -> None:
    """A propeller whose hub is at (x, y, z)."""
    hub = lathe([(0, 0), (0.026, 0), (0.022, 0.025), (0.012, 0.045), (0, 0.052)], 14).turned(0, 90)
    made.add(metal, hub.moved(x, y + 0.012, z))
    for k in range(blades):
        blade = bar((0, -0.012, 0.0), (0, -0.012, radius), 0.03, 0.008, taper=0.6).turned(1, 360.0 * k / blades + 20)
        made.add(metal, blade.moved(x, y, z))


def add_gear(made: Assembly, metal: Material, dark: Material, craft: Craft) -> None:
    """Two wheels on struts in front, a small one at the tail."""
    top = craft.radius * craft.tall
    for side in (-1, 1):
        foot = (side * 0.11, -0.22, -top - 0.075)
        made.add(metal, bar((side * 0.4 * craft.radius, -0.18, -0.7 * top), foot, 0.014, round_=True, n=8))
        made.add(dark, cylinder(0.036, 0.024, 16, bevel=0.007).turned(1, 90).moved(foot[0] - 0.012, foot[1], foot[2]))
    z = craft.lift * craft.radius
    made.add(metal, bar((0, 0.4, z), (0, 0.43, z - 0.07), 0.01, rows=1))
    made.add(dark, cylinder(0.018, 0.014, 12, bevel=0.004).turned(1, 90).moved(-0.007, 0.43, z - 0.075))


def add_floats(made: Assembly, skin: Material, metal: Material, craft: Craft) -> str:
    """Two hulls below the fuselage; says so."""
    top = craft.radius * craft.tall
    for side in (-1, 1):
        x, z = side * 0.12, -top - 0.11
        line = bezier([(x, -0.46, z + 0.03), (x, -0.3, z - 0.015), (x, 0.0, z), (x, 0.2, z + 0.015)], 10)
        radii = np.interp(np.linspace(0, 1, 10), [0, 0.15, 0.4, 0.8, 1], [0.006, 0.03, 0.037, 0.025, 0.006])
        made.add(skin, tube(line, radii, 12))
        for y in (-0.25, -0.05):
            made.add(metal, bar((side * 0.5 * craft.radius, y, -0.6 * top), (x, y, z + 0.02), 0.014, round_=True, n=8))
    made.add(metal, bar((-0.12, -0.25, -top - 0.1), (0.12, -0.25, -top - 0.1), 0.012, round_=True, n=8))
    return "two floats"
