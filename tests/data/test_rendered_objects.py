"""Banks of objects that others rendered: what is chosen, what is unknown, what is left out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from data.test_objects import at_shapenet_focal, shapenet
from data.tiny_objects import box
from latent3d.data.captures.collect import Reading
from latent3d.data.captures.renders import read_eg3d
from latent3d.data.object_bank import ObjectBank, ObjectStream, render_object_bank
from latent3d.data.rendered_objects import Faces, RenderedObjects, usable_folders
from latent3d.data.view_sampling import ViewSampling
from latent3d.geometry.object_cameras import sphere
from latent3d.rendering.meshes import render_mesh


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two objects of 7 views, one with depth and captions."""
    root = tmp_path_factory.mktemp("renders")
    for name, sides in (("a", (0.9, 0.5, 0.7)), ("b", (0.4, 0.9, 0.3))):
        views = render_mesh(box(sides), at_shapenet_focal(sphere(7, 4, 2.3, size=40)))
        shapenet(root / name, views, depth=name == "a")
    (root / "a" / "caption.txt").write_text("a red box\n\n a box \n")
    return root / "a", root / "b"


def test_a_bank_of_renderings(folders, tmp_path):
    source = RenderedObjects(folders, views=4, size=32)
    render_object_bank(tmp_path, source, 0, 4)
    bank = ObjectBank(tmp_path)
    assert bank.names == ["a", "b", "a", "b"]
    assert bank.captions == [("a red box", "a box"), ()] * 2
    assert bank.labels.tolist() == [-1] * 4
    first, second = bank.sample(0), bank.sample(1)
    assert (first.views.depths > 0).any()
    assert not second.views.depths.any()
    assert second.points.isnan().all()
    assert first.points.abs().max() < 0.48
    on_surface = ((first.points.abs() / torch.tensor([0.45, 0.25, 0.35])).amax(-1) - 1).abs()
    assert on_surface.median() < 0.03
    assert not torch.equal(first.views.cameras.w2c, bank.sample(2).views.cameras.w2c)  # other views in the next round
    batch = ObjectStream(tmp_path, 2, ViewSampling(mode="frames", views=2, novel=1)).batch(0)
    assert batch.shape == (2, 3)


def test_views_that_show_nothing_make_room_for_others(folders, tmp_path):
    views = render_mesh(box(), at_shapenet_focal(sphere(6, 4, 2.3, size=40)))
    shapenet(tmp_path / "c", views)
    for number in (0, 3):
        Image.fromarray(np.zeros((40, 40, 4), np.uint8)).save(tmp_path / "c" / "rgb" / f"{number:06d}.png")
    for index in range(4):
        assert len(RenderedObjects((tmp_path / "c",), views=4, size=16)(index).views) == 4
    with pytest.raises(ValueError, match="4 usable views of 5; ask for fewer --views"):
        RenderedObjects((tmp_path / "c",), views=5, size=16)(0)
    heard = []
    assert usable_folders([*folders, tmp_path / "c"], 5, heard.append) == list(folders)
    assert len(heard) == 1
    with pytest.raises(ValueError, match="none of the folders"):
        usable_folders([*folders], 8, heard.append)
    assert "7 usable views of 8" in heard[-1]


def test_a_bank_of_faces(tmp_path):
    camera = [*torch.diag(torch.tensor([1.0, -1, -1, 1])).flatten().tolist(), 4.2, 0, 0.5, 0, 4.2, 0.5, 0, 0, 1]
    camera[11] = 2.7
    for number in range(3):
        Image.fromarray(np.full((32, 32, 3), 50 * number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": [[f"{n}.png", camera] for n in range(3)]}))
    capture = read_eg3d(tmp_path / "dataset.json", Reading())
    render_object_bank(tmp_path / "bank", Faces(capture, 24), 0, 3)
    bank = ObjectBank(tmp_path / "bank")
    assert bank.names == ["0.png", "1.png", "2.png"]
    face = bank.views(2)
    assert (face.alphas == 1).all()
    torch.testing.assert_close(face.images, torch.full((1, 3, 24, 24), 100 / 255))
    torch.testing.assert_close(face.cameras.centers, torch.tensor([[0.0, -2.7, 0.0]]), rtol=0, atol=1e-5)
