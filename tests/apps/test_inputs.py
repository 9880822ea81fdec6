"""From pictures and cameras to what a model takes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from latent3d.apps.inputs import DEFAULT_FOV, DEFAULT_VIEWS, MAX_VIEWS, read_inputs
from latent3d.apps.scene import film_path
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.trajectories import trajectory
from latent3d.io.camera_files import write_cameras


def save_picture(path, width=60, height=40):
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(path)
    return path


def line_of_cameras(n: int, height: int = 40, width: int = 60) -> Cameras:
    c2w = torch.eye(4).repeat(n, 1, 1)
    c2w[:, 0, 3] = torch.arange(n) * 0.1
    return Cameras.from_fov(c2w, 50.0, height, width)


def test_single_picture_defaults(tmp_path):
    inputs = read_inputs(save_picture(tmp_path / "a.png"))
    references, notes = inputs.fitted(32, 32)
    targets = inputs.targets_for(32, 32, depth=2.0)
    assert references.images.shape == (1, 3, 32, 32)
    assert len(targets) == DEFAULT_VIEWS - 1
    assert torch.equal(references.cameras.c2w[0], torch.eye(4))
    assert any("Cut from 60 x 40" in note for note in notes[0])
    assert any(f"{DEFAULT_FOV:.1f} degrees, the default" in note for note in inputs.camera_notes)
    # The field of view belongs to the whole picture; the square cut out of it sees 40 of 60 columns.
    focal = 30 / math.tan(math.radians(DEFAULT_FOV / 2)) * 32 / 40
    assert references.cameras.k[0, 0, 0].item() == pytest.approx(focal)
    assert targets.k[0, 0, 0].item() == pytest.approx(focal)
    assert references.cameras.k[0, 0, 2].item() == pytest.approx(16)


def test_path_is_scaled_by_depth_and_strength(tmp_path):
    path = save_picture(tmp_path / "a.png")
    inputs = read_inputs(path, trajectory="dolly", strength=0.5, num_views=4)
    moves = trajectory("dolly", 4, depth=3.0, strength=0.5)[1:]
    assert torch.allclose(inputs.targets_for(32, 32, depth=3.0).c2w, moves, atol=1e-6)


def test_walk_depends_on_the_seed(tmp_path):
    path = save_picture(tmp_path / "a.png")
    first, second = (
        read_inputs(path, trajectory="walk", seed=seed).targets_for(32, 32, 1.0).centers for seed in (0, 1)
    )
    assert not torch.allclose(first, second)


def test_camera_file_with_names(tmp_path):
    cameras = line_of_cameras(6)
    names = [None, None, "b.png", None, "a.png", None]
    write_cameras(tmp_path / "c.json", cameras, names)
    pictures = [save_picture(tmp_path / name) for name in ("a.png", "b.png")]
    inputs = read_inputs(pictures, cameras=tmp_path / "c.json")
    references, _ = inputs.fitted(32, 32)
    targets = inputs.targets_for(32, 32, depth=1.0)
    assert torch.allclose(references.cameras.centers[:, 0], torch.tensor([0.4, 0.2]))
    assert torch.allclose(targets.centers[:, 0], torch.tensor([0.0, 0.1, 0.3, 0.5]))
    ordered = torch.cat([references.cameras.centers, targets.centers])[list(inputs.order), 0]
    assert torch.allclose(ordered, torch.arange(6) * 0.1)


def test_pictures_may_be_scaled_copies_of_what_the_cameras_took(tmp_path):
    write_cameras(tmp_path / "c.json", line_of_cameras(3))
    inputs = read_inputs(save_picture(tmp_path / "a.png", 120, 80), cameras=tmp_path / "c.json")
    references, _ = inputs.fitted(40, 60)
    assert torch.allclose(references.cameras.k[0], line_of_cameras(3).k[0], rtol=1e-5)
    assert torch.allclose(inputs.targets_for(40, 60, 1.0).k[0], line_of_cameras(3).k[0], rtol=1e-5)


@pytest.mark.parametrize("num_views", [2, 3, 5, 12])
def test_some_of_many_cameras_are_chosen_evenly(tmp_path, num_views):
    write_cameras(tmp_path / "c.json", line_of_cameras(50))
    inputs = read_inputs(save_picture(tmp_path / "a.png"), cameras=tmp_path / "c.json", num_views=num_views)
    places = inputs.targets_for(40, 60, 1.0).centers[:, 0] / 0.1
    assert len(places) == num_views - 1
    gaps = places.diff()
    assert (gaps >= 1).all()
    assert gaps.numel() == 0 or gaps.max() - gaps.min() <= 1.01


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trajectory": "orbti"}, "did you mean 'orbit'"),
        ({"strength": 0.0}, "goes nowhere"),
        ({"strength": float("nan")}, "goes nowhere"),
        ({"fov_degrees": 0.5}, "not usable"),
        ({"fov_degrees": float("nan")}, "not usable"),
        ({"num_views": 1}, "give 2 to"),
        ({"num_views": MAX_VIEWS + 1}, "give 2 to"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        read_inputs(save_picture(tmp_path / "a.png"), **options)


def test_cameras_and_pictures_that_do_not_belong_together(tmp_path):
    path, file = save_picture(tmp_path / "a.png"), tmp_path / "c.json"
    write_cameras(file, line_of_cameras(2))
    with pytest.raises(ValueError, match="3 images were given but .* only 2 cameras"):  # noqa: RUF043
        read_inputs([path, path, path], cameras=file)
    with pytest.raises(ValueError, match="leaves no view to generate"):
        read_inputs([path, path], cameras=file)
    with pytest.raises(ValueError, match="2 images need to know"):
        read_inputs([path, path])
    with pytest.raises(ValueError, match="drop --trajectory and --fov"):
        read_inputs(path, cameras=file, fov_degrees=60.0)
    with pytest.raises(ValueError, match="fewer than --views 5"):
        read_inputs(path, cameras=file, num_views=5)
    with pytest.raises(ValueError, match="has 40 x 60 pixels but its camera"):
        read_inputs(save_picture(tmp_path / "b.png", 40, 60), cameras=file)
    write_cameras(file, line_of_cameras(MAX_VIEWS + 1))
    with pytest.raises(ValueError, match="choose up to"):
        read_inputs(path, cameras=file)
    with pytest.raises(ValueError, match="no image was given"):
        read_inputs([])


def test_tensors_are_taken_as_they_are_and_checked():
    inputs = read_inputs(torch.full((3, 40, 60), 0.25))
    assert torch.allclose(inputs.fitted(32, 32)[0].images, torch.tensor(0.25))
    with pytest.raises(ValueError, match="divide 8-bit values"):
        read_inputs(torch.full((3, 40, 60), 200.0))
    with pytest.raises(ValueError, match="shape"):
        read_inputs(torch.zeros(40, 60, 3))


def test_film_goes_through_all_views_and_home():
    keys = line_of_cameras(4)
    film = film_path(keys, frames_per_view=5)
    assert len(film) == 6 * 5
    places = film.centers[:, 0]
    assert torch.allclose(places[:16:5], keys.centers[:, 0], atol=1e-6)
    assert (places[:16].diff() > 0).all()
    assert (places[15:].diff() < 0).all()
    closed = Cameras.from_fov(trajectory("orbit", 8), 60.0, 40, 60)
    film = film_path(closed, frames_per_view=5)
    assert len(film) == 8 * 5
    steps = (film.centers.roll(-1, 0) - film.centers).norm(dim=-1)
    assert steps.max() < 3 * steps.median()
