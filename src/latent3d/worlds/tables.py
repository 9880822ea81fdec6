"""A procedural scene as four packed float32 tables, and the builder that fills them.

Both tracers (`tracer`, compiled loops; `tracer_torch`, tensors) read exactly these tables. World axes: metres, z up.

Primitive row (`PRIMITIVE_WIDTH` numbers): 0 kind, 1:4 centre, 4:13 rotation R (row-major, local = R (world - centre)),
13:16 half sizes of the local bounding box, 16:19 shape parameters, 19 material, 20 flags (1: casts no shadow),
21:23 texture offset (u, v) in metres, 23 group number.

Material row (`MATERIAL_WIDTH`): 0 texture, 1:4 / 4:7 / 7:10 linear colours A / B / C, 10 texture period in metres,
11:13 cosine and sine of the texture angle, 13 seed, 14 contrast, 15:17 texture parameters, 17 grain, 18 stain,
19 specular strength, 20 specular exponent, 21 emission, 22 bump, 23 spare.

Light row (`LIGHT_WIDTH`): 0 kind (0 lamp, 1 sun), 1:4 position or unit direction towards the sun, 4:7 and 7:10 the two
half axes of the area, 10:13 linear colour times power, 13 casts shadows.

Environment (`ENVIRONMENT_WIDTH`): 0:3 zenith, 3:6 horizon, 6:9 ground colour, 9:12 direction to the sun, 12:15 glow,
15 cloud amount, 16 seed, 17 dome radius in metres, 18:21 dome centre, 21:24 / 24:27 ambient light from above / below,
27 occlusion strength, 28 occlusion reach in metres, 29 haze per metre, 30 cloud period, 31 hill height (rad).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

PRIMITIVE_WIDTH = 24
MATERIAL_WIDTH = 24
LIGHT_WIDTH = 14
ENVIRONMENT_WIDTH = 32

# Shapes. The first block has closed forms, the second is marched along a distance function.
BOX, ELLIPSOID, FRUSTUM, TAPER = 0, 1, 2, 3
ROUND_BOX, TUBE, BOWL, VASE, BLOB, TORUS, CAPSULE, ARCH = 8, 9, 10, 11, 12, 13, 14, 15
FIRST_MARCHED = ROUND_BOX
CLOSED_FORM_KINDS = (BOX, ELLIPSOID, FRUSTUM, TAPER)
MARCHED_KINDS = (ROUND_BOX, TUBE, BOWL, VASE, BLOB, TORUS, CAPSULE, ARCH)
OTHER_WORLD_KINDS = (TAPER, TORUS, CAPSULE, ARCH)  # never drawn by the training families

Vector = Sequence[float] | np.ndarray
"""Three numbers."""

NO_SHADOW = 1
LAMP, SUN = 0, 1


@dataclass(frozen=True)
class Scene:
    """Packed tables of one scene (column layout in the module's docstring).

    Attributes:
        primitives: (N, 24) float32.
        materials: (M, 24) float32.
        lights: (L, 14) float32.
        environment: (32,) float32.
        bounds_min, bounds_max: (N, 3) float32 world bounding boxes of the primitives, metres.
    """

    primitives: np.ndarray
    materials: np.ndarray
    lights: np.ndarray
    environment: np.ndarray
    bounds_min: np.ndarray
    bounds_max: np.ndarray


def yaw_matrix(angle: float) -> np.ndarray:
    """Rotation about +z by ``angle`` radians, local to world."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def tilt_matrix(axis: int, angle: float) -> np.ndarray:
    """Rotation about a coordinate axis (0 x, 1 y, 2 z) by ``angle`` radians."""
    c, s = math.cos(angle), math.sin(angle)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    out = np.eye(3)
    out[i, i], out[i, j], out[j, i], out[j, j] = c, -s, s, c
    return out


class SceneBuilder:
    """Collects primitives, materials and lights; `frame` nests rigid placements so that furniture is built locally."""

    def __init__(self) -> None:
        self._primitives: list[list[float]] = []
        self._materials: list[list[float]] = []
        self._lights: list[list[float]] = []
        self.environment = np.zeros(ENVIRONMENT_WIDTH)
        self._rotation = np.eye(3)
        self._offset = np.zeros(3)
        self._group = 0

    @contextlib.contextmanager
    def frame(
        self, x: float, y: float, z: float = 0.0, yaw: float = 0.0, tilt: np.ndarray | None = None
    ) -> Iterator[None]:
        """Everything added inside is placed at (x, y, z) metres, turned by ``yaw`` radians (then by ``tilt``)."""
        rotation, offset = self._rotation, self._offset
        local = yaw_matrix(yaw) if tilt is None else yaw_matrix(yaw) @ tilt
        self._rotation, self._offset = rotation @ local, rotation @ np.array([x, y, z]) + offset
        self._group += 1
        try:
            yield
        finally:
            self._rotation, self._offset = rotation, offset

    def material(
        self,
        texture: int,
        colours: Sequence[Vector],
        *,
        period: float = 0.5,
        angle: float = 0.0,
        seed: int = 0,
        contrast: float = 1.0,
        parameters: tuple[float, float] = (0.5, 0.5),
        grain: float = 0.0,
        stain: float = 0.0,
        specular: float = 0.0,
        exponent: float = 20.0,
        emission: float = 0.0,
        bump: float = 0.0,
    ) -> int:
        """Add a material; ``colours`` are up to three linear RGB triples. Returns its number."""
        triples = [*colours, colours[-1], colours[-1]][:3]
        row = [float(texture), *triples[0], *triples[1], *triples[2], period, math.cos(angle), math.sin(angle)]
        row += [float(seed), contrast, *parameters, grain, stain, specular, exponent, emission, bump, 0.0]
        self._materials.append(row)
        return len(self._materials) - 1

    def add(
        self,
        kind: int,
        centre: Vector,
        half: Vector,
        material: int,
        *,
        rotation: np.ndarray | None = None,
        parameters: Vector = (0.0, 0.0, 0.0),
        flags: int = 0,
        uv: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Add a primitive: ``half`` are the half sizes (metres) of its local box, ``rotation`` local to frame."""
        turn = self._rotation if rotation is None else self._rotation @ rotation
        x, y, z = self._rotation @ np.asarray(centre, dtype=float) + self._offset
        row = [float(kind), x, y, z, *turn.T.reshape(-1).tolist(), *half, *parameters, float(material), float(flags)]
        self._primitives.append([*row, *uv, float(self._group)])

    def box(self, centre: Vector, half: Vector, material: int, **options) -> None:
        """Axis-aligned (in the current frame) box."""
        self.add(BOX, centre, half, material, **options)

    def ball(self, centre: Vector, radius: float | Sequence[float], material: int, **options) -> None:
        """Sphere or, with three radii, ellipsoid."""
        half = (radius,) * 3 if isinstance(radius, int | float) else radius
        self.add(ELLIPSOID, centre, half, material, **options)

    def cylinder(
        self, centre: Vector, radius: float, half_height: float, material: int, *, top: float = 1.0, **options
    ) -> None:
        """Upright cylinder; ``top`` is the ratio of the upper to the lower radius (0 makes a cone)."""
        widest = radius * max(1.0, top)
        parameters = (1.0, top, 0.0) if top <= 1 else (1.0 / top, 1.0, 0.0)
        self.add(FRUSTUM, centre, (widest, widest, half_height), material, parameters=parameters, **options)

    def lamp(self, position: Vector, radius: float, colour: Vector, shadow: bool = True) -> None:
        """Horizontal square area light with half side ``radius`` metres at a position in the current frame."""
        x, y, z = self._rotation @ np.asarray(position, dtype=float) + self._offset
        self._lights.append([LAMP, x, y, z, radius, 0, 0, 0, radius, 0, *colour, float(shadow)])

    def sun(self, direction: Vector, spread: float, colour: Vector) -> None:
        """Directional light from ``direction`` (towards the sun) with half angle ``spread`` radians."""
        towards = np.asarray(direction, dtype=float)
        towards = towards / np.linalg.norm(towards)
        side = np.cross(towards, [0.0, 0.0, 1.0] if abs(towards[2]) < 0.9 else [1.0, 0.0, 0.0])
        side = side / np.linalg.norm(side) * spread
        other = np.cross(towards, side)
        self._lights.append([SUN, *towards, *side, *other, *colour, 1.0])

    def build(self) -> Scene:
        """Pack the tables.

        Raises:
            ValueError: without any primitive or light.
        """
        if not self._primitives or not self._lights:
            raise ValueError("a scene needs at least one primitive and one light; add them before build()")
        primitives = np.array(self._primitives, dtype=np.float32)
        turn = np.abs(primitives[:, 4:13].reshape(-1, 3, 3))
        reach = np.einsum("nji,nj->ni", turn, primitives[:, 13:16]) * (1 + 1e-5) + 1e-4
        centre = primitives[:, 1:4]
        return Scene(
            primitives,
            np.array(self._materials, dtype=np.float32),
            np.array(self._lights, dtype=np.float32),
            self.environment.astype(np.float32),
            (centre - reach).astype(np.float32),
            (centre + reach).astype(np.float32),
        )
