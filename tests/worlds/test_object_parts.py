"""Primitives of objects: closed, outward, of known volume; coordinates without jumps; tiles that hold what they say."""

import math

import numpy as np
import pytest
import trimesh

from latent3d.worlds.object_assembly import corner_normals
from latent3d.worlds.object_captions import Words, listed, with_article
from latent3d.worlds.object_materials import COLOURS, Palette
from latent3d.worlds.object_outlines import arc, bezier, circle, inset, rectangle, rotation
from latent3d.worlds.object_parts import (
    bar,
    box,
    cylinder,
    ellipsoid,
    lathe,
    loft,
    runs,
    signed_volume,
    slab,
    torus,
    tube,
    upright,
)  # fmt: skip
from latent3d.worlds.object_tiles import GRID, PAINTERS, TILE, in_tile, paint_atlas, paint_tile

BEND = bezier([(0, 0, 0), (1, 0, 0), (1, 0, 1)], 12)
CUP = np.array([(0.8, 0.0), (1.0, 1.0), (0.9, 1.0), (0.7, 0.0)])
RING_OF_64 = 0.5 * 64 * math.sin(2 * math.pi / 64)  # area of the polygon in the unit circle

PARTS = {
    "box": (box(1, 2, 0.5), 1.0),
    "box with rows": (box(1, 2, 0.5, rows=4), 1.0),
    "round box": (box(1, 1, 1, 0.2), None),
    "cylinder": (cylinder(1, 2, 64), 2 * RING_OF_64),
    "cone": (cylinder(1, 3, 64, top=0.0), RING_OF_64),
    "stump": (cylinder(2, 3, 64, top=1.0), 7 * RING_OF_64),
    "bevelled cylinder": (cylinder(1, 2, 64, bevel=0.1), None),
    "ball": (ellipsoid(1, 2, 3, 96, 64), 8 * math.pi),
    "torus": (torus(1.0, 0.2, 96, 64), 2 * math.pi**2 * 0.04),
    "tube": (tube(BEND, 0.1, 32), None),
    "ring of tube": (tube(np.column_stack([circle(48), np.zeros(48)]), 0.1, 24, loop=True), None),
    "bar": (bar((0, 0, 0), (0, 0.3, 1), 0.1, 0.2), None),
    "tapered bar": (bar((0, 0, 0), (1, 0.1, 0), 0.1, taper=0.4, round_=True), None),
    "wall": (lathe(CUP, 64, loop=True, crest=1), None),
    "star": (slab(circle(10, 0.0) * np.where(np.arange(10) % 2, 0.5, 1.0)[:, None], 0, 1), None),
    "panel": (upright(rectangle(2, 1, 0.2), 0.0, 0.1, 0.02), None),
    "mirrored": (box(1, 2, 3).moved(x=4).mirrored(), 6.0),
    "moved about": (box(1, 2, 3).turned(0, 30).leaning(0, x=0.3, y=-0.2).scaled(2).moved(1, 2, 3), 48.0),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_are_watertight_outward_and_of_known_volume(name):
    part, volume = PARTS[name]
    mesh = trimesh.Trimesh(part.points, part.faces, process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(signed_volume(part.points, part.faces))
    assert mesh.volume > 0
    assert mesh.area_faces.min() > 0
    assert part.uvs.shape == (*part.faces.shape, 2)
    assert part.groups.shape == part.faces.shape[:1]
    assert np.isfinite(part.uvs).all()
    if volume is not None:
        assert mesh.volume == pytest.approx(volume, rel=5e-3)


def test_rounding_takes_away_little_and_keeps_the_extent():
    part = box(1, 1, 1, 0.1)
    assert 0.95 < signed_volume(part.points, part.faces) < 1.0
    assert np.allclose(np.ptp(part.points, axis=0), 1.0)


def test_box_coordinates_have_the_scale_of_the_part_and_run_along_it():
    part = box(0.1, 0.2, 2.0)
    corners = part.points[part.faces]
    for a, b in ((0, 1), (1, 2), (2, 0)):
        sides = np.linalg.norm(corners[:, a] - corners[:, b], axis=1)
        assert np.allclose(np.linalg.norm(part.uvs[:, a] - part.uvs[:, b], axis=1), sides)
    upright_faces = np.ptp(corners[..., 2], axis=1) > 1
    assert np.allclose(np.ptp(part.uvs[upright_faces, :, 1], axis=1), 2.0), "grain runs along the longest side"


def test_patterns_around_the_axis_have_no_seam():
    part = cylinder(1.0, 2.0, 24)
    side = np.abs(part.points[part.faces][..., 2].mean(1) - 1.0) < 0.9
    assert np.ptp(part.uvs[side, :, 0], axis=1).max() < 1.01 * 2 * math.sin(math.pi / 24)
    where = {}
    for point, uv in zip(part.faces[side].ravel(), part.uvs[side].reshape(-1, 2), strict=True):
        assert np.allclose(where.setdefault(int(point), uv), uv)


def test_coordinates_turn_back_at_the_crest_of_a_wall():
    part = lathe(CUP, 16, loop=True, crest=1)
    v = part.uvs[..., 1]
    rim = np.isclose(part.points[part.faces][..., 2], 1.0)
    assert v[rim].max() < 0.11, "both rims lie near the crest"
    assert v.max() == pytest.approx(0.1 + np.hypot(0.2, 1.0) + 0.1), "over the rim, down inside and below"


def test_curved_surfaces_are_smooth_and_edges_stay_sharp():
    ball = ellipsoid(1, 1, 1, 24, 12)
    normals = corner_normals(ball.points, ball.faces, ball.groups)
    assert np.abs(normals - ball.points[ball.faces]).max() < 0.12
    cube = box(2, 2, 2)
    normals = corner_normals(cube.points, cube.faces, cube.groups)
    assert np.allclose(np.abs(normals).max(-1), 1.0), "every corner shows the normal of its own side"
    assert np.allclose(np.linalg.norm(normals, axis=-1), 1.0)


def test_a_tapered_loft_shares_normals_within_its_groups_only():
    square = rectangle(2, 2)
    rings = np.stack([np.column_stack([square * s, np.full(4, z)]) for s, z in ((1.0, 0.0), (0.5, 1.0))])
    part = loft(rings, columns=np.arange(4))
    normals = corner_normals(part.points, part.faces, part.groups)
    assert np.allclose(normals, normals[:, :1]), "flat sides are flat"


def test_runs_break_at_sharp_turns():
    assert runs(np.array([(0, 0), (1, 0), (2, 0.1), (2, 1)]), loop=False).tolist() == [0, 0, 1]
    assert runs(rectangle(1, 1), loop=True).tolist() == [1, 2, 3, 4]
    assert set(runs(circle(24), loop=True)) == {0}


def test_curves_and_outlines():
    assert np.allclose(bezier([(0, 0), (1, 2), (2, 0)], 3), [(0, 0), (1, 1), (2, 0)])
    assert np.allclose(arc(2.0, 0, 90, 2), [(2, 0), (0, 2)])
    assert np.allclose(inset(rectangle(2, 4), 0.5), rectangle(1, 3))
    assert np.allclose(np.abs(rectangle(2, 4, 0.3)).max(0), (1, 2))
    assert np.allclose(rotation(2, 90) @ [1, 0, 0], [0, 1, 0])
    assert np.allclose(rotation(0, 90) @ [0, 1, 0], [0, 0, 1])


@pytest.mark.parametrize("pattern", PAINTERS)
def test_tiles_show_the_colours_they_name(pattern):
    palette = Palette(np.random.default_rng(3))
    material = palette.of("paint", pattern, "red", "white")
    tile = paint_tile(material)
    assert tile.shape == (TILE, TILE, 3)
    assert tile.min() >= 0
    assert tile.max() <= 1
    assert np.array_equal(tile, paint_tile(material))
    nearest = np.linalg.norm(tile[..., None, :] - np.stack(material.rgb), axis=-1).argmin(-1)
    shares = [(nearest == k).mean() for k in range(2)]
    assert shares[0] >= 0.4
    if pattern in ("stripes", "bands", "checks", "dots", "speckles", "livery"):
        assert shares[1] > 0.08
        assert shares[0] > 0.45


def test_the_atlas_keeps_materials_apart():
    palette = Palette(np.random.default_rng(0))
    skins = [palette.of("paint", "plain", name) for name in ("red", "green", "blue", "yellow", "white")]
    atlas = paint_atlas(skins)
    assert atlas.shape == (GRID * TILE, GRID * TILE, 3)
    for place, skin in enumerate(skins):
        corners = in_tile(np.array([(0.0, 0.0), (1.0, 1.0)]), place) * GRID * TILE
        (u0, v0), (u1, v1) = corners.astype(int)
        assert np.allclose(atlas[v0 - 4 : v1 + 4, u0 - 4 : u1 + 4], skin.rgb[0], atol=0.05)
    with pytest.raises(ValueError, match="atlas holds 16"):
        paint_atlas([palette.of("paint", "plain", "red") for _ in range(17)])


def test_no_two_colours_share_a_range():
    names = [name for name in COLOURS if name not in ("silver", "golden", "copper", "smoke")]
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            overlaps = [a[0] <= b[1] and b[0] <= a[1] for a, b in zip(COLOURS[first], COLOURS[second], strict=True)]
            assert not all(overlaps), (first, second)


def test_captions_are_sentences_from_full_to_bare():
    words = Words("side table", "red wooden", "red", ("a round top", "four legs", "a shelf"), aliases=("stand",))
    captions = words.captions()
    assert captions[0] == "a red wooden side table with a round top and four legs"
    assert captions[1] == "a red wooden side table with a round top, four legs and a shelf"
    assert captions[-1] == "a side table"
    assert "a red wooden stand with a round top and four legs" in captions
    assert len(set(captions)) == len(captions)
    assert Words("lamp", "orange", "orange").captions() == ("an orange lamp", "a lamp")
    free = Words("composition", "", "red", phrases=("a cube on a ball", "a cube and a ball")).captions()
    assert free[0] == "a composition of a cube on a ball"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert with_article("oval top") == "an oval top"
