"""Scenes that grow: plans, fusion, origins, resumption, and what existing splats do to a sample."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.view_order import cameras_between
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.origin import Origin
from latent3d.representations.views import Views
from latent3d.systems.carried_pixels import lift_surface
from latent3d.systems.fusion import contradicted, in_view, seen_surface
from latent3d.systems.fusion import fuse as fuse_onto
from latent3d.systems.growth import Chunk, grow, plan_growth, seed_scene
from latent3d.systems.origins import origin_of
from systems.common import SIZE, batched, shaken, smooth_images, tiny_system, walk_cameras


@pytest.fixture(scope="module")
def system():
    return shaken(tiny_system()).eval()


def scene_inputs(references: int, targets: int) -> tuple[Views, Cameras]:
    """References spread over a walk, and the cameras between and beyond them."""
    cameras = walk_cameras(references + targets)
    shown = torch.linspace(0, len(cameras) - 1, references).round().long()
    rest = torch.tensor([i for i in range(len(cameras)) if i not in shown.tolist()], dtype=torch.long)
    return Views(smooth_images(references), cameras[shown]), cameras[rest]


def wall(cameras: Cameras, depth: float, color: float = 0.5) -> Gaussians:
    """What the cameras (v,) see of a wall at a z-depth, one splat per pixel."""
    maps = torch.full((1, len(cameras), 1, SIZE, SIZE), depth)
    return lift_surface(torch.full((1, len(cameras), 3, SIZE, SIZE), color), maps, cameras[None])[0]


def test_every_view_is_planned_once_and_every_pair_is_known_by_then():
    cameras = walk_cameras(20)
    order = torch.tensor([0, 19, 5, 10, 15, *[i for i in range(20) if i not in (0, 19, 5, 10, 15)]])
    chunks = plan_growth(cameras[order], 5, views=6, together=2)
    assert sorted(target for chunk in chunks for target in chunk.targets) == list(range(5, 20))
    assert {view for chunk in chunks for view in chunk.references} == set(range(5))
    assert all(len(chunk.references) + len(chunk.targets) <= 6 for chunk in chunks)
    known = {0}
    for chunk in chunks:
        assert chunk.references[0] in known
        known |= set(chunk.references)
    # Along a walk, neighbours make the pairs: 0-5-10-15-19.
    assert [chunk.references for chunk in chunks] == [(0, 2), (2, 3), (3, 4), (4, 1)]
    assert next(order[list(chunk.targets)].tolist() for chunk in chunks) == [1, 2, 3, 4]


def test_one_reference_and_many_views_go_outwards():
    chunks = plan_growth(walk_cameras(10), 1, views=4)
    assert chunks == (Chunk((0,), (1, 2, 3)), Chunk((0,), (4, 5, 6)), Chunk((0,), (7, 8, 9)))


def test_references_without_targets_are_still_taken_up():
    assert plan_growth(walk_cameras(3), 3, together=2) == (Chunk((0, 1), ()), Chunk((1, 2), ()))


def test_the_nearest_others_join_a_pair():
    chunks = plan_growth(walk_cameras(5), 5)
    assert all(max(chunk.references) - min(chunk.references) == 2 for chunk in chunks)
    assert all(len(set(chunk.references)) == 3 for chunk in chunks)
    assert [chunk.references[:2] for chunk in chunks] == [(0, 1), (1, 2), (2, 3), (3, 4)]


@pytest.mark.parametrize(("references", "views"), [(0, 8), (4, 8), (2, 2), (3, 3), (1, 1)])
def test_plans_that_cannot_be_are_refused(references, views):
    with pytest.raises(ValueError, match="cannot grow"):
        plan_growth(walk_cameras(3), references, views)


def test_cameras_between_lie_on_the_way():
    cameras = walk_cameras(7)
    between = cameras_between(cameras[torch.tensor([0, 6, 3])], per_gap=2)
    torch.testing.assert_close(between.centers[:, 0], cameras.centers[torch.tensor([1, 2, 4, 5]), 0], atol=1e-2, rtol=0)
    torch.testing.assert_close(between.k, cameras.k[:1].expand(4, 3, 3))


def test_origin_known_answers():
    camera = walk_cameras(1)
    surface = torch.full((1, 1, SIZE, SIZE), 2.0)
    surface[..., : SIZE // 2] = 0  # nothing is known on the left
    points = torch.tensor([[0.3, 0, 2.0], [0.3, 0, 1.0], [0.3, 0, 4.0], [-0.3, 0, 2.0], [9.0, 0, 2.0], [0.3, 0, -2.0]])
    splats = wall(camera, 2.0)[: len(points)]
    splats = replace(splats, means=points)
    origin = origin_of(splats, torch.zeros(6, dtype=torch.bool), camera, surface)
    inter, inv = int(Origin.INTERPOLATED), int(Origin.INVENTED)
    assert origin.tolist() == [inter, inter, inv, inv, inv, inv]
    seen = origin_of(splats, torch.ones(6, dtype=torch.bool), camera, surface)
    assert (seen == int(Origin.SEEN)).all()


def fuse(old, old_origin, new, fresh):
    """`growth.fuse` with the surfaces that a chunk's fresh references see."""
    seen = (new.origin == int(Origin.SEEN)) & fresh[new.source]
    surface = seen_surface(new.gaussians[seen], new.cameras[fresh], new.low_pass_px)
    return fuse_onto(old, old_origin, new, fresh, surface)


def output_of(system, splats: Gaussians, cameras: Cameras, roles: list[bool], origin: Origin):
    """A chunk's result whose splats are given, all of them from its first view."""
    start = seed_scene(system, Views(smooth_images(len(cameras)), cameras), cameras[:0]).output
    count = len(splats)
    return replace(
        start,
        gaussians=splats,
        origin=torch.full((count,), int(origin), dtype=torch.long),
        source=torch.zeros(count, dtype=torch.long),
        is_reference=torch.tensor(roles),
        low_pass_px=0.3,
    )


def test_nothing_is_there_twice(system):
    camera = walk_cameras(1)
    old = wall(camera, 2.0)
    generated = output_of(system, wall(camera, 2.0), camera, [False], Origin.INVENTED)
    kept, added = fuse(old, torch.zeros(len(old), dtype=torch.long), generated, torch.tensor([False]))
    assert kept.all()
    assert not added.any()
    reference = output_of(system, wall(camera, 2.0), camera, [True], Origin.SEEN)
    kept, added = fuse(old, torch.zeros(len(old), dtype=torch.long), reference, torch.tensor([True]))
    assert kept.all()
    assert not added.any()
    known = output_of(system, wall(camera, 7.0), camera, [True], Origin.SEEN)
    assert not fuse(old, torch.zeros(len(old), dtype=torch.long), known, torch.tensor([False]))[1].any()


def test_what_is_seen_replaces_what_was_made_up_before_it_and_leaves_the_rest(system):
    camera = walk_cameras(1)
    front, behind, beside = wall(camera, 1.0), wall(camera, 5.0), wall(camera, 2.0)
    beside = replace(beside, means=beside.means + torch.tensor([50.0, 0, 0]))
    old = Gaussians.cat([front, behind, beside])
    made_up = torch.full((len(old),), int(Origin.INVENTED), dtype=torch.long)
    new = output_of(system, wall(camera, 2.0), camera, [True], Origin.SEEN)
    kept, added = fuse(old, made_up, new, torch.tensor([True]))
    shares = [part.float().mean().item() for part in kept.split(SIZE * SIZE)]
    assert shares == [0.0, 1.0, 1.0]
    assert added.all()
    # What another reference saw in front of it stays: neither is more certain than the other.
    kept, _ = fuse(old, torch.zeros_like(made_up), new, torch.tensor([True]))
    assert kept.all()


def test_a_closer_look_replaces_a_coarse_one(system):
    camera = walk_cameras(1)
    old = wall(camera, 2.0)
    old = replace(old, scales=4 * old.scales)
    new = output_of(system, wall(camera, 2.0), camera, [True], Origin.SEEN)
    kept, added = fuse(old, torch.zeros(len(old), dtype=torch.long), new, torch.tensor([True]))
    assert not kept.any()
    assert added.all()


def test_a_splat_that_no_picture_shows_at_its_place_is_wrong():
    camera = walk_cameras(1)
    surface, grey = torch.full((1, 1, SIZE, SIZE), 2.0), torch.full((1, 3, SIZE, SIZE), 0.5)
    inner = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    inner[4:-4, 4:-4] = True

    def share(depth, color, views=1, cameras=None):
        wrong = contradicted(
            wall(camera, depth, color), cameras or Cameras.cat([camera] * views), surface.expand(views, -1, -1, -1),
            grey.expand(views, -1, -1, -1),
        )  # fmt: skip
        return wrong.reshape(SIZE, SIZE)[inner].float().mean().item()

    assert share(1.0, 0.9) == 1.0, "in front, and of another colour"
    assert share(1.0, 0.55) == 0.0, "in front, and the colour is there"
    assert share(2.0, 0.9) == 0.0, "on the surface"
    assert share(4.0, 0.9) == 0.0, "hidden behind it"
    # One reference sees it on its surface, one through it: as many for it as against it.
    splats = wall(camera, 1.0, 0.9)
    surfaces = torch.cat([surface, torch.full_like(surface, 1.0)])
    wrong = contradicted(splats, Cameras.cat([camera, camera]), surfaces, grey.expand(2, -1, -1, -1))
    assert wrong.float().mean() > 0.9
    surfaces = torch.cat([surfaces, torch.full_like(surface, 1.0)])
    assert not contradicted(splats, Cameras.cat([camera] * 3), surfaces, grey.expand(3, -1, -1, -1)).any()


def test_splats_far_outside_do_not_condition_a_view():
    camera = walk_cameras(1)
    splats = wall(camera, 2.0)
    assert in_view(splats, camera).all()
    assert not in_view(replace(splats, means=-splats.means), camera).any()
    assert not in_view(replace(splats, means=splats.means + torch.tensor([50.0, 0, 0])), camera).any()


@pytest.mark.parametrize("references", [1, 3])
def test_a_grown_scene_is_whole_and_goes_on_exactly(system, references):
    shown, asked = scene_inputs(references, 5)
    start = seed_scene(system, shown, asked)
    chunks = plan_growth(start.output.cameras, references, views=4)
    states = list(grow(system, start, chunks, steps=2, seed=3))
    assert [state.done for state in states] == list(range(1, len(chunks) + 1))
    output = states[-1].output
    count = len(output.gaussians)
    assert output.origin.shape == output.source.shape == (count,)
    assert count > 0
    assert (output.images.flatten(1).std(1) > 0).all(), "every view was made"
    torch.testing.assert_close(output.images[:references], shown.images)
    torch.testing.assert_close(output.cameras.w2c, torch.cat([shown.cameras.w2c, asked.w2c]))
    seen = output.origin == int(Origin.SEEN)
    assert output.is_reference[output.source[seen]].all()
    assert not output.is_reference[output.source[~seen]].any()
    again = list(grow(system, states[0], chunks, steps=2, seed=3))[-1].output
    for field in fields(Gaussians):
        first, second = (getattr(part.gaussians, field.name) for part in (output, again))
        assert (first is None and second is None) or torch.equal(first, second)
    view = render_gaussians(output.gaussians, output.cameras[:1], low_pass=output.low_pass_px)
    assert view.alpha.mean() > 0.5


def test_existing_splats_reach_the_targets_and_are_moved_with_the_world(system):
    shown, asked = scene_inputs(1, 2)
    existing = wall(shown.cameras, 1.5, color=0.9)
    free = system.sample(shown, asked, steps=1, seed=0)
    bound = system.sample(shown, asked, steps=1, seed=0, existing=existing)
    assert (free.latents - bound.latents).abs().max() > 1e-3
    from latent3d.geometry.cameras import invert_rigid
    from systems.common import rigid

    pose = rigid()
    moved = Views(shown.images, shown.cameras.relative_to(invert_rigid(pose)))
    same = system.sample(
        moved, asked.relative_to(invert_rigid(pose)), steps=1, seed=0, existing=existing.transformed(pose)
    )
    torch.testing.assert_close(same.latents, bound.latents, atol=2e-3, rtol=1e-3)


def test_a_model_without_geometry_can_be_conditioned_on_splats():
    system = shaken(tiny_system(geometry=None)).eval()
    shown, asked = scene_inputs(2, 2)
    context = system.context_of(
        torch.cat([shown.images, shown.images * 0])[None], batched(Cameras.cat([shown.cameras, asked])),
        torch.tensor([True, True, False, False]), [wall(shown.cameras, 1.5)],
    )  # fmt: skip
    assert context.relative is None
    assert context.carried is not None
    assert (context.carried[0, 2:, 3] > 0.5).float().mean() > 0.5
    torch.testing.assert_close(context.carried[0, :2, :3], shown.images)
    assert len(system.sample(shown, asked, steps=1, existing=wall(shown.cameras, 1.5)).gaussians)


def test_a_model_that_cannot_see_splats_says_so():
    kind = tiny_system(geometry=None).config.denoiser
    system = tiny_system(geometry=None, denoiser=kind.replace(condition_channels=0)).eval()
    shown, asked = scene_inputs(1, 1)
    with pytest.raises(ValueError, match="condition_channels"):
        system.sample(shown, asked, steps=1, existing=wall(shown.cameras, 1.5))


def test_the_first_step_already_gives_a_scene(system):
    shown, asked = scene_inputs(1, 2)
    states = []

    def keep(state):
        assert not torch.is_autocast_enabled("cpu")
        states.append(state)

    out = system.sample(shown, asked, steps=3, seed=0, bf16=True, on_step=keep)
    assert [(state.step, state.steps) for state in states] == [(1, 3), (2, 3), (3, 3)]
    for state in states:
        assert state.gaussians.means.dtype == state.gaussians.colors.dtype == torch.float32
        rendering = render_gaussians(state.gaussians, out.cameras[:1])
        assert rendering.rgb is not None
        assert rendering.alpha.mean() > 0.1
