"""Procedural objects: closed parts, true captions, disjoint splits, within their box and their tiles."""

import re
from functools import cache

import cv2
import numpy as np
import pytest
import torch
import trimesh

from latent3d.worlds import OBJECT_LABELS, label_text, make_object
from latent3d.worlds.object_materials import COLOURS
from latent3d.worlds.object_parts import signed_volume
from latent3d.worlds.object_tiles import GRID, MARGIN, TILE, paint_tile
from latent3d.worlds.objects import HALF_SIZE, OBJECT_SPLITS, assemble_object

SEEDS = range(14)
ALIASES = {
    "car": {"sedan", "hatchback", "off-roader", "van", "pickup", "truck", "lorry", "bus", "convertible"},
    "plane": {"airliner", "business jet", "fighter jet"},
    "table": {"desk"},
    "lamp": {"lantern"},
    "mug": {"cup"},
}


@cache
def built(seed, label):
    """Parts and mesh, made once for all tests that only look at them."""
    _, made = assemble_object(seed, label)
    return made, made.mesh(HALF_SIZE)


def closed(faces):
    """Every edge is used once in each direction."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    keys, back = (np.sort(edges[:, k] * (faces.max() + 1) + edges[:, 1 - k]) for k in (0, 1))
    return np.array_equal(keys, back) and (np.diff(keys) > 0).all()


def face_areas(mesh):
    a, b, c = mesh.corners().unbind(1)
    return torch.linalg.cross(b - a, c - a).norm(dim=-1) / 2


@pytest.mark.parametrize("label", OBJECT_LABELS)
def test_parts_are_closed_and_look_outwards(label):
    for seed in SEEDS:
        made, _ = built(seed, label)
        for part in made.parts:
            assert closed(part.faces), seed
            assert signed_volume(part.points - part.points.mean(0), part.faces) > 0, seed
            assert np.unique(part.faces).size == len(part.points), "no point is left over"
            assert np.isfinite(part.points).all()


@pytest.mark.parametrize("label", OBJECT_LABELS)
def test_others_find_the_parts_watertight(label):
    for seed in range(3):
        _, mesh = built(seed, label)
        whole = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
        assert whole.is_watertight
        assert whole.is_winding_consistent
        assert whole.volume > 0


@pytest.mark.parametrize("label", OBJECT_LABELS)
def test_meshes_fit_their_box_and_are_of_moderate_size(label):
    counts = []
    for seed in SEEDS:
        _, mesh = built(seed, label)
        low, high = mesh.bounds()
        assert torch.isfinite(mesh.vertices).all()
        assert (high - low).max().item() == pytest.approx(2 * HALF_SIZE, abs=1e-5)
        assert torch.allclose(low, -high, atol=1e-5), "centred"
        assert (high - low).min() > 0.04
        counts.append(len(mesh))
    assert min(counts) >= 300
    assert max(counts) <= 8000
    assert np.median(counts) >= 600


@pytest.mark.parametrize("label", OBJECT_LABELS)
def test_texture_coordinates_stay_inside_the_tiles_of_the_materials(label):
    for seed in SEEDS:
        made, mesh = built(seed, label)
        place = mesh.uvs.numpy() * GRID * TILE
        tiles = np.floor(place / TILE)
        assert (tiles == tiles[:, :1]).all(), "a face lies in one tile"
        inside = place - tiles * TILE
        assert inside.min() >= MARGIN - 1e-3
        assert inside.max() <= TILE - MARGIN + 1e-3
        numbers = tiles[:, 0, 1] * GRID + tiles[:, 0, 0]
        order = {material: number for number, material in enumerate(made.materials())}
        expected = np.repeat([order[skin] for skin in made.skins], [len(part.faces) for part in made.parts])
        assert (numbers == expected).all()
        assert mesh.texture.shape == (3, GRID * TILE, GRID * TILE)


@pytest.mark.parametrize("label", OBJECT_LABELS)
def test_normals_are_unit_and_on_the_side_of_their_faces(label):
    for seed in range(8):
        _, mesh = built(seed, label)
        assert torch.allclose(mesh.normals.norm(dim=-1), torch.ones(len(mesh), 3), atol=1e-4)
        facing = (mesh.normals * mesh.face_normals()[:, None]).sum(-1)
        areas = face_areas(mesh)
        assert areas[facing.amin(1) < 0.3].sum() < 0.02 * areas.sum()


def test_same_arguments_same_object_and_splits_differ():
    for label in OBJECT_LABELS:
        first, again = (make_object(5, label) for _ in range(2))
        assert first.captions == again.captions
        for name in ("vertices", "faces", "uvs", "texture", "normals"):
            assert torch.equal(getattr(first.mesh, name), getattr(again.mesh, name))
    meshes = {make_object(seed, "lamp", split=split).mesh.vertices.numpy().tobytes() for split in OBJECT_SPLITS
              for seed in range(4)}  # fmt: skip
    assert len(meshes) == 12


def test_without_a_label_all_are_drawn_and_the_object_is_that_of_its_label():
    drawn = [make_object(seed, split="val") for seed in range(40)]
    assert {model.label for model in drawn} == set(OBJECT_LABELS)
    named = make_object(7, drawn[7].label, split="val")
    assert named.captions == drawn[7].captions
    assert torch.equal(named.mesh.vertices, drawn[7].mesh.vertices)
    assert [label_text(label) for label in ("mug", "car")] == ["a mug", "a car"]


def test_unknown_names_are_refused():
    for arguments in ({"label": "house"}, {"split": "dev"}, {"seed": -1}):
        with pytest.raises(ValueError):
            make_object(**({"seed": 0} | arguments))


@pytest.mark.parametrize("label", OBJECT_LABELS)
def test_captions_name_the_object(label):
    for seed in SEEDS:
        made, _ = built(seed, label)
        captions = made.words.captions()
        assert label in captions[0]
        assert captions[-1].endswith(made.words.noun)
        names = {label, *ALIASES.get(label, ())}
        assert set(made.words.aliases) <= names or label in ("mug",)
        for caption in captions:
            assert re.match(r"(a|an|two|three|four|five) ", caption), caption
            assert "  " not in caption
            assert not re.search(r"\ba [aeio]|\ban [^aeiou]", caption), caption
            if label != "composition":
                assert any(name in caption for name in names), caption
        assert len(set(captions)) == len(captions) >= 3


def belong(rgb, name):
    """Which sRGB colours (N, 3) may go by a name, with room for shading and grain; by another library's conversion."""
    hue, saturation, value = cv2.cvtColor(rgb[None].astype(np.float32), cv2.COLOR_RGB2HSV)[0].T
    (h0, h1), (s0, s1), (v0, v1) = COLOURS[name]
    turned = np.abs((hue - (h0 + h1) / 2 + 180) % 360 - 180) <= (h1 - h0) / 2 + 10
    full = (saturation >= s0 - 0.1) & (saturation <= s1 + 0.1)
    return turned & full & (value >= 0.65 * v0) & (value <= 1.1 * v1)


@pytest.mark.parametrize("label", OBJECT_LABELS)
def test_the_colours_that_captions_name_cover_the_surface(label):
    for seed in SEEDS:
        made, mesh = built(seed, label)
        texels = (mesh.uvs.mean(1) * GRID * TILE).long()
        colours = mesh.texture[:, texels[:, 1], texels[:, 0]].T.numpy()
        areas = face_areas(mesh).numpy()
        share = areas[belong(colours, made.words.colour)].sum() / areas.sum()
        assert made.words.colour in made.words.captions()[0]
        assert share > 0.12, (seed, made.words, share)
        assert made.area(made.main) > 0.2 * sum(map(made.area, made.materials()))


@pytest.mark.parametrize("label", OBJECT_LABELS)
def test_every_material_shows_each_colour_it_is_named_for(label):
    for seed in range(4):
        for material in built(seed, label)[0].materials():
            tile = paint_tile(material).reshape(-1, 3)
            for name in material.colours:
                assert belong(tile, name).mean() > 0.05, (material.pattern, name)


def test_objects_look_towards_minus_y():
    for seed in SEEDS:
        made, _ = built(seed, "chair")
        points = np.concatenate([part.points for part in made.parts])
        top = points[points[:, 2] > points[:, 2].max() - 0.1 * np.ptp(points[:, 2])]
        assert top[:, 1].mean() > 0, "the back of a chair is behind"
        made, _ = built(seed, "plane")
        points = np.concatenate([part.points for part in made.parts])
        assert points[points[:, 2].argmax(), 1] > 0 or "biplane" in made.words.noun, "the fin is at the tail"
        assert points[:, 1].min() >= -0.65


def test_mugs_are_hollow_with_walls_of_true_thickness():
    for seed in SEEDS:
        made, _ = built(seed, "mug")
        vessel = made.parts[0]
        hull = trimesh.Trimesh(vessel.points, vessel.faces, process=False).convex_hull
        assert 0.02 < signed_volume(vessel.points, vessel.faces) / hull.volume < 0.45
        floor = vessel.points[np.hypot(*vessel.points[:, :2].T) < 1e-9, 2]
        assert 0.002 < np.ptp(floor) < 0.02, "the bottom is closed and has two sides"


def test_every_atlas_has_room_for_its_materials():
    most = max(len(built(seed, label)[0].materials()) for label in OBJECT_LABELS for seed in SEEDS)
    assert 5 <= most <= GRID * GRID
