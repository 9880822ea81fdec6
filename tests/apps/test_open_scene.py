"""Scenes from disk know where their splats come from, and can be looked at by origin."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latent3d.apps.open_scene import open_scene
from latent3d.io.splat_files import write_splats
from latent3d.io.video import read_video
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.origin import ORIGIN_ATTRIBUTE, Origin


def three_balls() -> Gaussians:
    """A red ball on the left (seen), a green one in the middle (interpolated), a blue one on the right (invented)."""
    return Gaussians(
        means=torch.tensor([[-1.0, 0, 4], [0, 0, 4], [1.0, 0, 4]]),
        quaternions=torch.tensor([[1.0, 0, 0, 0]]).expand(3, 4),
        scales=torch.full((3, 3), 0.2),
        opacities=torch.full((3,), 0.95),
        colors=torch.eye(3),
    )


@pytest.fixture
def scene(tmp_path):
    path = tmp_path / "scene.ply"
    write_splats(path, three_balls(), extra={ORIGIN_ATTRIBUTE: torch.tensor([0.0, 1, 2])})
    return path


def test_origin_comes_from_the_file(scene, tmp_path):
    opened = open_scene(scene)
    assert torch.equal(opened.origin, torch.tensor([0, 1, 2]))
    assert torch.equal(opened.only([Origin.SEEN, Origin.INVENTED]).origin, torch.tensor([0, 2]))
    assert torch.equal(opened.only([Origin.INVENTED]).gaussians.means, opened.gaussians.means[2:])
    write_splats(tmp_path / "other.ply", three_balls())
    bare = open_scene(tmp_path / "other.ply")
    assert bare.origin is None
    with pytest.raises(ValueError, match="does not say which splats are seen"):
        bare.only([Origin.SEEN])


@pytest.mark.parametrize("bad", [-1.0, 3.0, 0.5, float("nan"), float("inf")])
@pytest.mark.parametrize("command", ["view", "render"])
def test_bad_origin_in_a_file(scene, run, bad, command):
    data = scene.read_bytes()
    scene.write_bytes(data[:-4] + np.float32(bad).tobytes())  # the last number of the last splat
    code, _, err = run(command, scene)
    assert code == 2
    assert "Traceback" not in err
    assert str(scene) in err
    assert "'origin'" in err
    assert [path.name for path in scene.parent.iterdir()] == ["scene.ply"]


def test_film_of_some_origins(scene, run):
    """Each film shows its balls, on the path of the whole scene."""
    options = ("--trajectory", "dolly", "--strength", 0.01, "--frames", 2, "--side", 64)
    for only, expected in (((), [1, 1, 1]), (("invented",), [0, 0, 1]), (("seen", "interpolated"), [1, 1, 0])):
        code, out, err = run("render", scene, *options, *(word for kind in only for word in ("--only", kind)))
        assert code == 0, err
        film = scene.parent / f"{'_'.join(('dolly', *only))}.mp4"
        assert str(film) in out
        frame = read_video(film)[0][0].float()
        frame = frame / 255 if frame.max() > 1 else frame
        strong = [bool(frame[c].max() > 0.5) for c in range(3)]
        assert strong == [bool(e) for e in expected]
    code, _, err = run("render", scene, *options, "--only", "hidden")
    assert code == 2


def test_no_splat_of_that_origin(tmp_path, run):
    write_splats(tmp_path / "s.ply", three_balls(), extra={ORIGIN_ATTRIBUTE: torch.zeros(3)})
    code, _, err = run("render", tmp_path / "s.ply", "--only", "invented")
    assert code == 2
    assert "no splat of this scene is invented" in err
    assert [path.name for path in tmp_path.iterdir()] == ["s.ply"]
