"""Clips: determinism, splits, cameras, depth and normals that agree with the pictures, families that differ."""

import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample

from latent3d.evaluation.visibility import seen_mask
from latent3d.geometry.rays import unproject
from latent3d.worlds import FAMILIES, SPLITS, TEST_SEEDS, plan_shot, sample_clip
from latent3d.worlds.clips import MIXED_WEIGHTS, clip_times
from latent3d.worlds.paths import DENSE_TIMES
from latent3d.worlds.patterns import OTHER_WORLD_TEXTURES
from latent3d.worlds.tables import OTHER_WORLD_KINDS
from latent3d.worlds.tracer_torch import TorchTracer

SMALL = {"num_views": 2, "height": 40, "width": 48}
SPLIT_OF = {"rooms": "train", "open": "train", "objects": "train", "other": "test"}


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("images", "depths", "normals"))


@pytest.mark.parametrize("family", ["rooms", "open", "objects", "mixed", "other"])
def test_same_arguments_give_the_same_bits(family):
    first, again = (sample_clip(family, "test", TEST_SEEDS[0], **SMALL) for _ in range(2))
    assert same(first, again)
    assert torch.equal(first.cameras.w2c, again.cameras.w2c)
    assert first.images.dtype == torch.float32
    assert first.images.shape == (2, 3, 40, 48)
    assert 0 <= first.images.min() <= first.images.max() <= 1
    assert (first.cameras.height, first.cameras.width) == (40, 48)


def test_threads_change_nothing():
    assert same(sample_clip("objects", "train", 3, **SMALL), sample_clip("objects", "train", 3, threads=2, **SMALL))


def test_splits_are_disjoint_and_families_differ():
    tables = [plan_shot("rooms", split, 5).tracer.scene.primitives.tobytes() for split in SPLITS]
    tables += [plan_shot(family, "test", 5).tracer.scene.primitives.tobytes() for family in FAMILIES]
    assert len(set(tables)) == len(SPLITS) + len(FAMILIES) - 1  # the test room is there twice
    seeds = {plan_shot("rooms", split, index).time_seed.entropy for split in SPLITS for index in range(3)}
    assert len(seeds) == 9


def test_mixed_draws_every_training_family():
    drawn = {plan_shot("mixed", "train", index).family for index in range(24)}
    assert drawn == set(MIXED_WEIGHTS)


def test_unknown_names_and_training_on_the_test_family_are_refused():
    for family, split in (("room", "train"), ("rooms", "dev"), ("other", "train")):
        with pytest.raises(ValueError):
            sample_clip(family, split, 0)
    with pytest.raises(ValueError, match="num_views"):
        sample_clip("rooms", "train", 0, num_views=0)


def test_other_world_shares_no_shape_texture_or_motion_with_training():
    for index in range(6):
        scene = plan_shot("other", "test", index).tracer.scene
        used = scene.materials[scene.primitives[:, 19].astype(int), 0].astype(int)
        assert set(used) <= set(OTHER_WORLD_TEXTURES)
        assert set(scene.primitives[:, 0].astype(int)) & set(OTHER_WORLD_KINDS)
    for family in MIXED_WEIGHTS:
        for index in range(6):
            scene = plan_shot(family, "train", index).tracer.scene
            assert not set(scene.primitives[:, 0].astype(int)) & set(OTHER_WORLD_KINDS)
            assert not set(scene.materials[:, 0].astype(int)) & set(OTHER_WORLD_TEXTURES)


def test_first_views_do_not_depend_on_extra_views_or_size():
    plain = sample_clip("rooms", "val", 2, num_views=3, height=32, width=32)
    more = sample_clip("rooms", "val", 2, num_views=3, height=32, width=32, extra_views=2)
    large = sample_clip("rooms", "val", 2, num_views=3, height=64, width=64)
    assert len(more) == 5
    assert same(plain, more[:3])
    assert torch.equal(plain.cameras.w2c, large.cameras.w2c)
    assert torch.allclose(plain.cameras.resized(64, 64).k, large.cameras.k)


def test_extra_times_lie_strictly_between():
    times = clip_times(8, 10, np.random.default_rng(0))
    main, extra = times[:8], times[8:]
    assert np.allclose(main, np.arange(8) / 7)
    assert (np.diff(extra) > 0).all()
    assert np.abs(extra[:, None] - main).min() > 0.15 / 7 - 1e-9
    assert set((extra[:7] * 7).astype(int)) <= set(range(7))
    assert len(clip_times(1, 2, np.random.default_rng(0))) == 3


@pytest.mark.parametrize("family", list(SPLIT_OF))
def test_first_camera_is_the_world_and_paths_are_moderate(family):
    for index in range(3):
        shot = plan_shot(family, SPLIT_OF[family], index)
        poses = np.stack([shot.path.pose(float(t)) for t in DENSE_TIMES])
        assert np.allclose(poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1), np.eye(3), atol=1e-12)
        assert np.allclose(np.linalg.det(poses[:, :3, :3]), 1)
        turn = np.degrees(np.arccos(np.clip((poses[0, :3, 2] * poses[-1, :3, 2]).sum(), -1, 1)))
        assert turn < 65
        assert 0.1 < np.linalg.norm(poses[-1, :3, 3] - poses[0, :3, 3]) < 3.2
        assert np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).max() < 0.3, "no jumps"
    clip = sample_clip(family, SPLIT_OF[family], 0, **SMALL)
    assert torch.equal(clip.cameras.w2c[0], torch.eye(4))
    assert (clip.depths > 0.2).all()
    assert (clip.depths <= 50.0).all()


@pytest.mark.parametrize("family", list(SPLIT_OF))
def test_normals_are_unit_and_face_the_camera(family):
    clip = sample_clip(family, SPLIT_OF[family], 1, supersample=1, **SMALL)
    assert torch.allclose(clip.normals.norm(dim=1), torch.ones(2, 40, 48), atol=1e-4)
    to_camera = clip.cameras.centers[:, None, None] - unproject(clip.cameras, clip.depths)
    facing = (clip.normals.permute(0, 2, 3, 1) * to_camera).sum(-1) / to_camera.norm(dim=-1)
    assert facing.min() > -2e-3


def test_depth_normals_agree():
    """On smooth surfaces the cross product of neighbouring points is the normal."""
    clip = sample_clip("rooms", "train", 4, num_views=1, height=64, width=64, supersample=1, effects=False)
    points, normals = unproject(clip.cameras, clip.depths)[0], clip.normals[0].permute(1, 2, 0)
    right, down = points[:-1, 1:] - points[:-1, :-1], points[1:, :-1] - points[:-1, :-1]
    estimate = torch.nn.functional.normalize(torch.cross(down, right, dim=-1), dim=-1)
    agreement = (estimate * normals[:-1, :-1]).sum(-1)
    assert (agreement > 0.99).float().mean() > 0.7


@pytest.mark.parametrize(("family", "index"), [("rooms", 0), ("rooms", 1), ("open", 1), ("objects", 2), ("other", 0)])
def test_warping_by_true_depth_reproduces_the_colours(family, index):
    """Pixels of the last view, looked up in the first by depth and pose: colours agree where both see it."""
    clip = sample_clip(family, SPLIT_OF[family], index, num_views=2, height=96, width=96, effects=False)
    seen = seen_mask(clip[:1], clip[1:], 0.01)[0, 0]
    assert seen.float().mean() > 0.2, "the ends of a path share content"
    pixel, _ = clip.cameras[0].project(unproject(clip.cameras[1:], clip.depths[1:]).reshape(-1, 3))
    grid = (2 * pixel / 96 - 1).reshape(1, 96, 96, 2)
    warped = grid_sample(clip.images[:1], grid, align_corners=False, padding_mode="border")[0]
    error = ((warped - clip.images[1]) ** 2).mean(0)[seen]
    shifted = ((clip.images[0] - clip.images[1]) ** 2).mean(0)[seen]
    psnr, unwarped = (-10 * torch.log10(value.mean()) for value in (error, shifted))
    assert psnr > 20
    assert psnr > unwarped + 4
    assert error.median() < 3e-4


@pytest.mark.parametrize(("family", "index"), [("rooms", 2), ("open", 0), ("objects", 1), ("other", 3)])
@pytest.mark.parametrize("supersample", [1, 2])
def test_tensor_twin_of_the_tracer(family, index, supersample):
    shot = plan_shot(family, SPLIT_OF[family], index)
    poses = np.stack([shot.path.pose(0.0), shot.path.pose(1.0)])
    k = np.array([[18.0, 0, 12], [0, 18.0, 12], [0, 0, 1]])
    options = {"exposure": shot.exposure, "supersample": supersample}
    loops = shot.tracer.render(poses, k, 24, 24, **options)
    colours, depths, normals = TorchTracer(shot.tracer.scene).render(poses, k, 24, 24, **options)
    assert (np.abs(depths.numpy() / loops.depths - 1) < 1e-3).mean() >= 0.995
    assert np.mean((colours.numpy() - loops.colours) ** 2) < 1e-4
    assert (np.abs(normals.numpy() - loops.normals).max(-1) < 1e-3).mean() >= 0.995


def test_supersample_is_one_or_two():
    with pytest.raises(ValueError, match="supersample"):
        sample_clip("rooms", "train", 0, supersample=3)


def test_pictures_are_neither_black_nor_blown_out_nor_flat():
    images = torch.cat([sample_clip("mixed", "val", index, **SMALL).images for index in range(8)])
    means = images.mean(dim=(1, 2, 3))
    assert ((means > 0.2) & (means < 0.8)).all()
    assert images.std(dim=(2, 3)).mean() > 0.1
