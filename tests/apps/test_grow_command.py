"""``latent3d scene --grow`` and ``--refine``: what is written, going on after an interruption, what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from latent3d.apps.pipelines import GGS
from latent3d.geometry.cameras import Cameras
from latent3d.io.camera_files import write_cameras
from latent3d.io.splat_files import read_splats
from latent3d.representations.origin import Origin
from latent3d.systems import growth


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """Three pictures of 48 x 48 with their cameras, and two cameras without pictures."""
    folder = tmp_path_factory.mktemp("capture")
    c2w = torch.eye(4).repeat(5, 1, 1)
    c2w[:, 0, 3] = torch.tensor([0.0, 0.2, 0.4, 0.1, 0.3])
    names = [f"{index}.png" for index in range(5)]
    for index in range(3):
        Image.effect_noise((48, 48), 60 + 20 * index).convert("RGB").save(folder / names[index])
    cameras = Cameras.from_fov(c2w, 60.0, 48, 48)
    write_cameras(folder / "cameras.json", cameras, names, [True, True, True, False, False])
    write_cameras(folder / "pictures_only.json", cameras[:3], names[:3], [True] * 3)
    return folder


def command(capture, weights, out, *more, cameras="cameras.json"):
    pictures = [capture / f"{index}.png" for index in range(3)]
    return ("scene", *pictures, "--cameras", capture / cameras, "--weights", weights, "--steps", 1, "--out", out, *more)


def test_grown_scene_has_all_files_and_an_origin_for_every_splat(run, capture, weights, tmp_path):
    code, said, _ = run(*command(capture, weights, tmp_path / "out", "--grow"))
    assert code == 0
    assert "viewer.html" in said
    splats, extra = read_splats(tmp_path / "out/scene.ply")
    counts = torch.bincount(extra["origin"].long(), minlength=3).tolist()
    card = json.loads((tmp_path / "out/card.json").read_text())
    assert card["outputs"]["origin"] == {kind.name.lower(): counts[int(kind)] for kind in Origin}
    assert card["outputs"]["splats"] == len(splats)
    assert card["chunks"] == 2
    assert card["job"] == "grown scene"
    assert len(list((tmp_path / "out/views").glob("view_*.png"))) == 5
    assert not (tmp_path / "out.part").exists()


def test_views_are_laid_out_between_pictures(run, capture, weights, tmp_path):
    code, _, _ = run(*command(capture, weights, tmp_path / "out", "--grow", cameras="pictures_only.json"))
    assert code == 0
    assert len(list((tmp_path / "out/views").glob("view_*.png"))) == 3 + 2 * 5


def test_an_interrupted_growth_goes_on_to_the_same_scene(run, capture, weights, tmp_path, monkeypatch):
    whole = command(capture, weights, tmp_path / "whole", "--grow")
    assert run(*whole)[0] == 0
    fuse, calls = growth.fuse, iter(range(100))

    def stop_at_the_second(*args):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return fuse(*args)

    parted = command(capture, weights, tmp_path / "parted", "--grow")
    with monkeypatch.context() as patch:
        patch.setattr(growth, "fuse", stop_at_the_second)
        code, said, _ = run(*parted)
    assert code == 130
    assert "goes on" in said
    assert not (tmp_path / "parted").exists()
    assert (tmp_path / "parted.part/preview.png").is_file()
    kept = tmp_path / "parted.part/scene.safetensors"
    whole_file = kept.read_bytes()
    kept.write_bytes(whole_file[: len(whole_file) // 2])
    code, _, error = run(*parted)
    assert code == 2
    assert "scene.safetensors" in error
    kept.write_bytes(whole_file)
    # Only the same inputs and settings may go on.
    code, _, error = run(*parted, "--seed", 5)
    assert code == 2
    assert "unfinished scene" in error
    assert "parted.part" in error
    assert run(*parted)[0] == 0
    assert not (tmp_path / "parted.part").exists()
    assert (tmp_path / "parted/scene.ply").read_bytes() == (tmp_path / "whole/scene.ply").read_bytes()


def test_a_strange_part_folder_is_named_and_left_alone(run, capture, weights, tmp_path):
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part/notes.txt").write_text("mine")
    code, _, error = run(*command(capture, weights, tmp_path / "out", "--grow"))
    assert code == 2
    assert "out.part" in error
    assert (tmp_path / "out.part/notes.txt").is_file()


def test_refinement_changes_the_splats_and_keeps_their_origin(capture, weights):
    model = GGS.from_pretrained(weights)
    scene = model.grow([capture / "0.png", capture / "1.png"], cameras=capture / "cameras.json", steps=1, num_views=4)
    refined = scene.refined(3)
    assert refined.card["refinement"] == {"iterations": 3}
    count = len(refined.output.gaussians)
    assert refined.output.origin.shape == refined.output.source.shape == (count,)
    assert not torch.equal(refined.output.gaussians.colors[:10], scene.output.gaussians.colors[:10])


def test_refining_a_negative_number_of_steps_is_refused(run, capture, weights, tmp_path):
    code, _, error = run(*command(capture, weights, tmp_path / "out", "--refine", -1))
    assert code == 2
    assert "refinement" in error


def test_the_scene_so_far_is_shown_while_it_grows(capture, weights):
    shown = []
    GGS.from_pretrained(weights).grow(
        [capture / f"{index}.png" for index in range(3)], cameras=capture / "cameras.json", steps=2,
        on_step=shown.append,
    )  # fmt: skip
    assert [state.step for state in shown] == [1, 2, 1, 2]
    assert len(shown[2].gaussians) > len(shown[1].gaussians)
    assert all(s.gaussians.colors is not None for s in shown)


@pytest.mark.parametrize("grown", [False, True])
def test_cameras_in_a_strange_unit_are_brought_to_the_models_and_back(capture, weights, tmp_path, monkeypatch, grown):
    from latent3d.apps import pipelines
    from latent3d.io.camera_files import read_cameras

    cameras = read_cameras(capture / "cameras.json").cameras
    names, roles = [f"{index}.png" for index in range(5)], [True, True, True, False, False]
    write_cameras(tmp_path / "large.json", cameras.scaled(100.0), names, roles)
    model, pictures = GGS.from_pretrained(weights), [capture / f"{index}.png" for index in range(3)]
    make = model.grow if grown else model.sample

    def scene(file, depth):
        monkeypatch.setattr(pipelines, "matched_depth", lambda _: depth)
        return make(pictures, cameras=file, steps=1)

    usual, strange = scene(capture / "cameras.json", 2.0), scene(tmp_path / "large.json", 200.0)
    first, second = usual.output, strange.output
    torch.testing.assert_close(second.gaussians.means, 100 * first.gaussians.means, atol=0.5, rtol=1e-3)
    torch.testing.assert_close(second.gaussians.scales, 100 * first.gaussians.scales, atol=0.05, rtol=1e-2)
    torch.testing.assert_close(second.cameras.w2c, first.cameras.scaled(100.0).w2c)
    torch.testing.assert_close(second.depths, 100 * first.depths, atol=0.5, rtol=1e-2)
    assert any("multiplied by 0.01 " in note for note in strange.card["cameras"])
    assert any("multiplied by 1 " in note for note in usual.card["cameras"])


def test_live_shows_every_step_and_then_the_scene_until_ctrl_c(run, capture, weights, tmp_path, monkeypatch):
    from latent3d.apps import cmd_scene
    from latent3d.io import viewer_live

    shown = []

    class Recorder:
        address = "http://localhost:1"

        def __init__(self, start, port):
            assert start.w2c.shape == (4, 4)

        def update(self, gaussians, origin=None, note=""):
            shown.append((len(gaussians), origin, note))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            shown.append("closed")

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(viewer_live, "LiveViewer", Recorder)
    monkeypatch.setattr(cmd_scene.time, "sleep", interrupt)
    code, said, _ = run(*command(capture, weights, tmp_path / "out", "--live", "--steps", 2))
    assert code == 0
    assert "http://localhost:1" in said
    assert [item[2] for item in shown[:2]] == ["step 1 of 2", "step 2 of 2"]
    count, origin, _ = shown[2]
    assert origin.shape == (count,)
    assert shown[3:] == ["closed"]
