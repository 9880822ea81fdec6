import pytest
import torch

from latent3d.evaluation.baselines import fill_holes, nearest_reference, repeat_references, warp_references
from latent3d.evaluation.image_metrics import psnr
from latent3d.evaluation.visibility import seen_mask
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.rays import unproject
from latent3d.representations.views import Views

from .plane_world import EDGE, FAR, NEAR, plane_clip


def test_the_clip_is_its_own_known_answer():
    clip = plane_clip(views=3)
    points = unproject(clip.cameras, clip.depths)
    on_far, on_near = (points[..., 2] - FAR).abs() < 1e-4, (points[..., 2] - NEAR).abs() < 1e-4
    assert bool((on_far | on_near).all())
    assert bool((points[..., 0][on_near] < EDGE).all())
    assert 0.2 < on_near.float().mean() < 0.6


def test_repeated_reference_is_the_nearest_one():
    clip = plane_clip()
    picked = nearest_reference(clip[[0, 7]].cameras, clip[list(range(1, 7))].cameras)
    assert picked.tolist() == [0, 0, 0, 1, 1, 1]
    torch.testing.assert_close(repeat_references(clip[[0, 7]], clip.cameras)[-1], clip.images[7])
    # Same place, other directions: the angle decides.
    turned = torch.eye(4).repeat(2, 1, 1)
    turned[1, 0, 0] = turned[1, 2, 2] = -1
    cameras = Cameras.from_fov(turned, 60.0, 64, 64)
    assert nearest_reference(cameras, cameras).tolist() == [0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_warp_to_the_own_camera_gives_the_picture_back(dtype):
    clip = plane_clip(views=2).to(dtype)
    warp = warp_references(clip[[0]], clip[[0]].cameras)
    assert warp.images.dtype == dtype
    assert psnr(warp.images, clip.images[:1]).item() > 40
    assert warp.covered.float().mean() > 0.98
    relative = ((warp.depths - clip.depths[:1]).abs() / clip.depths[:1])[warp.covered]
    assert relative.median() < 1e-3


def test_warp_by_true_depth_is_far_better_than_repeating():
    clip = plane_clip()
    for references in ([0], [0, 7]):
        targets = [i for i in range(8) if i not in references]
        truth = clip[targets]
        warp = warp_references(clip[references], truth.cameras)
        repeated = psnr(repeat_references(clip[references], truth.cameras), truth.images).mean()
        seen = seen_mask(clip[references], truth)
        assert psnr(warp.images, truth.images, seen).mean() > repeated + 8
        # Covered by the warp and visible by the depth test are nearly the same pixels.
        assert (warp.covered == seen).float().mean() > 0.97


def test_warp_needs_depths():
    clip = plane_clip(views=2)
    with pytest.raises(ValueError, match="depths"):
        warp_references(Views(clip.images, clip.cameras), clip.cameras)


def test_holes_take_their_surroundings():
    values = torch.full((1, 2, 13, 10), 0.25)
    known = torch.ones(1, 1, 13, 10, dtype=torch.bool)
    known[..., 4:9, 3:8] = False
    torch.testing.assert_close(fill_holes(torch.where(known, values, 9.0), known), values)
    ramp = torch.linspace(0, 1, 10).expand(1, 1, 13, 10)
    filled = fill_holes(ramp * known, known)
    torch.testing.assert_close(filled[known], ramp[known])
    assert (filled - ramp).abs().max() < 0.25
    assert fill_holes(values, torch.zeros_like(known)).abs().max() == 0


def test_seen_mask_knows_disocclusion_and_the_image_border():
    clip = plane_clip()
    seen = seen_mask(clip[[0]], clip)
    assert seen[0].float().mean() > 0.99
    fraction = seen.float().mean((1, 2, 3))
    assert (fraction.diff() < 0.01).all()
    points = unproject(clip.cameras, clip.depths)[7]
    position, _ = clip.cameras[0].project(points.reshape(-1, 3))
    inside = ((position >= 0) & (position < 64)).all(-1).view(64, 64)
    assert not seen[7, 0][~inside].any()
    assert (~inside).sum() > 20
    # A point of the far plane right behind the near one's edge is hidden in the first view and uncovered later.
    assert (inside & ~seen[7, 0] & (points[..., 2] > FAR - 0.1)).sum() > 20
    assert seen[7, 0][inside & (points[..., 2] < NEAR + 0.1)].all()
    with pytest.raises(ValueError, match="depths"):
        seen_mask(Views(clip.images, clip.cameras), clip)
    blind = Views(clip.images, clip.cameras, torch.zeros_like(clip.depths))
    assert not seen_mask(clip, blind).any()
