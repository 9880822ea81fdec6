"""What a run adds to the weights it started from, saved apart: it comes back exactly, and on no other weights."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from latent3d.apps.cmd_train import Train
from latent3d.nn.lora import LORA_SUFFIXES
from latent3d.presets import PRESETS
from latent3d.systems.ggs import GGSConfig
from latent3d.training.command import train_command, with_pretrained
from latent3d.training.export import export_adapter, export_weights
from latent3d.weights import load_module, load_weights, read_json, save_weights, weights_hash
from training.prior_folder import write_prior
from training.test_prior import scene

SETTINGS = ("system.adapt=added", "system.denoiser.lora_rank=2", "*.steps=1", "*.accumulate=1", "*.sheet_every=0")
BF16 = ("*.autocast=bf16", "*.frozen_dtype=bf16")


def train(out, *more, **options):
    common = {"device": "cpu", "threads": 1, "progress": False, "stage": "twin"}
    train_command("ggs_re10k_tiny", out, overrides=(*SETTINGS, *more), **common, **options)
    return out


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    folder = tmp_path_factory.mktemp("svd")
    write_prior(folder)
    return folder


@pytest.fixture(scope="module")
def run(prior, tmp_path_factory):
    return train(tmp_path_factory.mktemp("run"), *BF16, prior=str(prior))


@pytest.fixture(scope="module")
def adapter(run, tmp_path_factory):
    return export_adapter(run, tmp_path_factory.mktemp("adapter") / "a", dtype="fp32")


@torch.no_grad()
def test_on_its_base_it_computes_what_the_run_computes(run, adapter, tmp_path):
    whole = load_module(export_weights(run, tmp_path / "whole", dtype="fp32"), GGSConfig)[0].eval()
    joined = load_module(adapter, GGSConfig)[0].eval()
    state = whole.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in joined.state_dict().items())
    images, cameras = scene()
    noisy = torch.randn(1, 3, 4, 4, 6, generator=torch.Generator().manual_seed(2))
    outputs = []
    for system in (whole, joined):
        context = system.context_of(images, cameras, torch.tensor([True, False, False]))
        outputs.append(system(noisy, torch.tensor([1.0]), context).z0)
    assert torch.equal(*outputs)
    # ... and that is not what the base alone computes.
    for name, parameter in joined.named_parameters():
        if name.endswith(".lora_up"):
            parameter.zero_()
    context = joined.context_of(images, cameras, torch.tensor([True, False, False]))
    assert not torch.equal(joined(noisy, torch.tensor([1.0]), context).z0, outputs[0])


def test_it_holds_what_was_added_and_nothing_of_the_prior(adapter, prior, run, tmp_path):
    added = load_file(adapter / "weights.safetensors")
    low_rank = [name for name in added if name.endswith(LORA_SUFFIXES)]
    assert len(low_rank) > 8
    assert not any(name.startswith(("vae.network.", "image_encoder.network.")) for name in added)
    ours = [name for name in added if name.startswith("denoiser.") and name not in low_rank]
    assert all(name.startswith(("denoiser.camera_encoder.", "denoiser.camera_merges.")) for name in ours)
    about, card = read_json(adapter / "config.json")["base"], read_json(adapter / "card.json")
    assert card["base"]["sha256"] == about["sha256"]
    assert card["base"]["name"] == str(prior)
    assert card["base"]["tensors_added"] == len(added)
    assert "denoiser.conv_in.weight" in about["taken"]["bf16"]  # as the run held it
    assert "twin" in [stage["name"] for stage in card["training"]["stages"]]
    whole = export_weights(run, tmp_path / "whole", dtype="fp32")
    sizes = [sum(file.stat().st_size for file in folder.glob("*.safetensors")) for folder in (adapter, whole)]
    assert sizes[0] < sizes[1] / 2


def test_the_base_may_have_moved_and_has_to_be_the_same(adapter, prior, tmp_path, monkeypatch):
    moved, other = tmp_path / "moved", tmp_path / "other"
    shutil.copytree(prior, moved)
    shutil.copytree(prior, other)
    file = other / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    save_file(state | {"conv_in.bias": state["conv_in.bias"] + 1e-3}, file)
    expected = load_weights(adapter)[0]
    found = load_weights(adapter, moved)[0]
    assert found.keys() == expected.keys()
    with pytest.raises(ValueError, match=r"is an adapter of .* holds other weights .* set LATENT3D_BASE to the folder"):
        load_weights(adapter, other)
    monkeypatch.setenv("LATENT3D_BASE", str(moved))
    assert torch.equal(load_weights(adapter)[0]["denoiser.conv_in.bias"], expected["denoiser.conv_in.bias"])
    monkeypatch.setenv("LATENT3D_BASE", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"'.*nowhere' is no folder; set LATENT3D_BASE"):
        load_weights(adapter)
    (moved / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="is missing"):
        load_weights(adapter, moved)


def test_low_rank_changes_of_weights_of_our_own(tmp_path):
    """A whole system that has none of its own is the start of one with them, and the base of its adapter."""
    plain = with_pretrained(PRESETS["ggs_re10k_tiny"](), "none", None).system
    torch.manual_seed(0)
    base = save_weights(tmp_path / "base", plain.build(), plain, max_shard_bytes=100_000)
    start = f'initial_weights={{"": "{base}"}}'
    run = train(tmp_path / "run", start, prior="none")
    adapter = export_adapter(run, tmp_path / "adapter", dtype="fp32")
    about = read_json(adapter / "config.json")["base"]
    assert about["sha256"] == weights_hash(base)
    state, whole = load_weights(adapter)[0], load_weights(export_weights(run, tmp_path / "whole", dtype="fp32"))[0]
    assert state.keys() == whole.keys()
    assert all(torch.equal(value, whole[name]) for name, value in state.items())
    # The twin trains no 3D module: what the adapter holds are low-rank changes and camera layers.
    added = load_file(adapter / "weights.safetensors")
    assert all(name.startswith("denoiser.") for name in added)
    assert any(name.endswith(LORA_SUFFIXES) for name in added)
    command = {"stage": "twin", "device": "cpu", "threads": 1, "prior": "none", "set": (*SETTINGS, start)}
    again = tmp_path / "again"
    Train(preset="ggs_re10k_tiny", out=run, **command, export_adapter=again, export_dtype="fp32").run()
    assert weights_hash(again) == weights_hash(adapter)
    assert not (tmp_path / "whole" / "config.json").read_text().count('"base"')


def test_runs_without_a_base_are_exported_whole(tmp_path, run):
    train(tmp_path / "run", prior="none")
    with pytest.raises(ValueError, match="started from no other weights"):
        export_adapter(tmp_path / "run", tmp_path / "adapter")
    strange = with_pretrained(PRESETS["ggs_re10k_tiny"](), "none", None).system.build()
    other = save_weights(tmp_path / "other", {name: value + 1 for name, value in strange.state_dict().items()}, {})
    with pytest.raises(ValueError, match=r"nothing in the run in .* is still as in"):
        export_adapter(run, tmp_path / "adapter", other)
    with pytest.raises(FileNotFoundError, match="no training run"):
        export_adapter(tmp_path, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
