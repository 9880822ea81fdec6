"""Banks of latents: what is stored comes back, batches are a function of (seed, step), training reads them."""

import numpy as np
import pytest
import torch

from latent3d.data.latent_bank import LatentStream, write_latent_bank
from latent3d.data.object_bank import ObjectBank, render_object_bank
from latent3d.data.object_sources import ObjectCameras, ProceduralObjects
from latent3d.object_presets import ln3diff_shapes_tiny
from latent3d.representations.views import Views
from latent3d.systems.ln3diff import LN3DiffConfig
from latent3d.training.engine import train
from latent3d.training.export import export_weights
from latent3d.weights import load_module


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> ObjectBank:
    folder = tmp_path_factory.mktemp("objects")
    render_object_bank(folder, ProceduralObjects(ObjectCameras(views=3, size=32), "val", ()), count=5)
    return ObjectBank(folder)


def encode(views: Views) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean colours as a latent: known values."""
    mean = views.images.mean((1, 3, 4))[:, None, :, None, None].expand(-1, 3, 3, 2, 2)
    return mean, torch.full_like(mean, 0.25)


@pytest.fixture
def folder(bank: ObjectBank, tmp_path):
    return write_latent_bank(
        tmp_path / "latents", bank, encode, {"weights": "abc"}, inputs=2, pictures=2, shard_objects=2
    )


def test_latents_come_back_with_what_is_known_of_their_objects(bank: ObjectBank, folder):
    stream = LatentStream(folder, 5)
    batch = stream.batch(0)
    assert len(stream) == len(batch) == 5
    assert batch.mean.shape == (5, 3, 3, 2, 2)
    assert float(batch.std.unique()) == 0.25
    order = [bank.names.index(name) for name in stream.describe(0)]
    assert batch.labels.tolist() == bank.labels[order].tolist()
    for row, item in enumerate(order):
        assert batch.captions[row] in bank.captions[item]
        shown = bank.views(item)
        errors = (shown.images - batch.images[row]).abs().flatten(1).amax(1)
        assert errors.min() < 1e-6
        assert torch.equal(shown.alphas[errors.argmin()], batch.alphas[row])
        inputs = np.random.default_rng([item, 2]).permutation(3)[:2]
        expected = bank.views(item, inputs).images.mean((0, 2, 3))
        torch.testing.assert_close(batch.mean[row, 0, :, 0, 0], expected, atol=1e-3, rtol=0)


def test_batches_depend_on_seed_and_step_only(folder):
    first, again, other = (LatentStream(folder, 2, seed=seed) for seed in (0, 0, 1))
    torch.testing.assert_close(first.batch(3).images, again.batch(3).images)
    assert first.describe(3) == again.describe(3)
    assert [other.describe(step) for step in range(4)] != [first.describe(step) for step in range(4)]


def test_a_bank_goes_on_where_it_stopped_and_refuses_another_encoder(bank: ObjectBank, folder):
    calls = []

    def counted(views: Views):
        calls.append(len(views))
        return encode(views)

    write_latent_bank(folder, bank, counted, {"weights": "abc"}, inputs=2, pictures=2, shard_objects=2)
    assert calls == []
    with pytest.raises(ValueError, match="holds another bank"):
        write_latent_bank(folder, bank, encode, {"weights": "other"}, inputs=2, pictures=2, shard_objects=2)
    with pytest.raises(ValueError, match="ask for 1 to 3"):
        write_latent_bank(folder, bank, encode, {}, inputs=4)


def test_diffusion_trains_on_latents(bank: ObjectBank, tmp_path):
    system = ln3diff_shapes_tiny().system.build()

    folder = write_latent_bank(tmp_path / "latents", bank, system.posterior, {}, inputs=2, pictures=1)
    config = ln3diff_shapes_tiny()
    data = config.data.replace(kind="latents", bank=(str(folder),), val_bank=(str(folder),))
    batch = data.stream(config.stages[-1], 0).batch(0)
    assert batch[:1].to(torch.float32).shape == (1,)
    terms = system.training_terms(batch, "diffusion", torch.Generator().manual_seed(0))
    terms["diffusion"].backward()
    assert any(float(p.grad.abs().sum()) > 0 for p in system.denoiser.parameters() if p.grad is not None)
    rows = system.eval().sample_sheet(batch, "diffusion", torch.Generator().manual_seed(0))
    assert list(rows) == ["picture given", "told nothing", "told label", "told text", "told picture"]
    with pytest.raises(ValueError, match="latents come from a bank"):
        data.replace(bank=()).stream(config.stages[-1], 0)


def test_a_run_goes_from_pictures_to_latents_in_one_folder(bank: ObjectBank, tmp_path):
    """The autoencoder on objects, its export encodes them, diffusion goes on in the same folder."""
    config = ln3diff_shapes_tiny()
    keep = tuple(stage for stage in config.stages if stage.name in ("vae", "diffusion"))
    objects = ProceduralObjects(ObjectCameras(views=3, size=32), "val", ())
    folder = str(render_object_bank(tmp_path / "objects", objects, count=4))
    data = config.data.replace(bank=(folder,), val_bank=(folder,))
    config = config.replace(stages=keep, data=data)
    train(config, tmp_path / "run", stage="vae", progress=False)
    weights = export_weights(tmp_path / "run", tmp_path / "weights")
    system, _ = load_module(weights, LN3DiffConfig)
    assert float((system.latent_std - 1).abs().max()) > 0  # normalised when the stage ended
    latents = str(
        write_latent_bank(tmp_path / "latents", ObjectBank(folder), system.posterior, {}, inputs=2, pictures=1)
    )
    config = config.replace(data=data.replace(kind="latents", bank=(latents,), val_bank=(latents,)))
    result = train(config, tmp_path / "run", progress=False)
    assert (result.reason, result.stage, result.step) == ("finished", "diffusion", 3)
