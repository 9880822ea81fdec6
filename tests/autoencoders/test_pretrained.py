"""Foreign weights: folders by diffusers give what diffusers computes; misfits are named; the real TAEF2 pair."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from latent3d.autoencoders.image_vae import ImageVAE, ImageVAEConfig
from latent3d.autoencoders.pretrained import config_from_diffusers, load_image_vae, load_taef2

WEIGHTS = "diffusion_pytorch_model.safetensors"
NORMALISED = {"scaling_factor": 0.18215, "block_out_channels": (32, 32), "latent_channels": 4}
KL = {
    **NORMALISED,
    "shift_factor": 0.1,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
}
TINY = {
    "encoder_block_out_channels": (8, 8, 8),
    "decoder_block_out_channels": (16, 16, 16),
    "num_encoder_blocks": (1, 1, 2),
    "num_decoder_blocks": (2, 1, 1),
}
IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def write(folder: Path, kind: str, **settings: object) -> torch.nn.Module:
    """A folder in diffusers' layout, written by diffusers, with random weights."""
    import diffusers

    torch.manual_seed(0)
    network = getattr(diffusers, kind)(**settings).eval()
    network.save_pretrained(folder)
    return network


def change(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@torch.no_grad()
def test_kl_folder_computes_what_diffusers_computes(tmp_path: Path) -> None:
    network = write(tmp_path, "AutoencoderKL", **KL)
    vae = ImageVAE.from_pretrained(tmp_path)
    latents = vae.encode(IMAGES)
    torch.testing.assert_close(latents, (network.encode(IMAGES * 2 - 1).latent_dist.mean - 0.1) * 0.18215)
    theirs = network.decode(latents / 0.18215 + 0.1).sample / 2 + 0.5
    torch.testing.assert_close(vae.decode(latents, clamp=False), theirs)
    assert not vae.training


@torch.no_grad()
def test_tiny_folder_computes_what_diffusers_computes(tmp_path: Path) -> None:
    network = write(tmp_path, "AutoencoderTiny", **TINY)
    vae = load_image_vae(tmp_path)
    assert vae.factor == 4
    latents = vae.encode(IMAGES, sample=True)
    torch.testing.assert_close(latents, network.encode(IMAGES * 2 - 1).latents)
    torch.testing.assert_close(vae.decode(latents, clamp=False), network.decode(latents).sample / 2 + 0.5)


@torch.no_grad()
def test_video_folder_computes_what_diffusers_computes(tmp_path: Path) -> None:
    settings = NORMALISED | {"down_block_types": ("DownEncoderBlock2D",) * 2}
    network = write(tmp_path, "AutoencoderKLTemporalDecoder", **settings)
    vae = load_image_vae(tmp_path)
    clips = torch.rand(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    latents = vae.encode(clips)
    theirs = network.encode(clips.flatten(0, 1) * 2 - 1).latent_dist.mean * 0.18215
    torch.testing.assert_close(latents.flatten(0, 1), theirs)
    decoded = network.decode(theirs / 0.18215, num_frames=3).sample / 2 + 0.5
    torch.testing.assert_close(vae.decode(latents, clamp=False).flatten(0, 1), decoded)


@torch.no_grad()
def test_statistics_per_channel_are_used(tmp_path: Path) -> None:
    mean, std = [0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0]
    network = write(tmp_path, "AutoencoderKL", **KL | {"latents_mean": mean, "latents_std": std, "shift_factor": None})
    raw = network.encode(IMAGES * 2 - 1).latent_dist.mean
    expected = (raw - torch.tensor(mean)[:, None, None]) * 0.18215 / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(load_image_vae(tmp_path).encode(IMAGES), expected)


@torch.no_grad()
def test_sharded_weights_and_old_attention_names(tmp_path: Path) -> None:
    network = write(tmp_path, "AutoencoderKL", **KL)
    state = load_file(tmp_path / WEIGHTS)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for key, value in state.items():
        for new, name in old.items():
            key = key.replace(f"attentions.0.{new}.", f"attentions.0.{name}.")
        renamed[key] = value.contiguous()
    assert set(renamed) != set(state)
    (tmp_path / WEIGHTS).unlink()
    shards = {"a.safetensors": sorted(renamed)[::2], "b.safetensors": sorted(renamed)[1::2]}
    for name, keys in shards.items():
        save_file({key: renamed[key] for key in keys}, tmp_path / name)
    weight_map = {key: name for name, keys in shards.items() for key in keys}
    (tmp_path / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    vae = load_image_vae(tmp_path)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(vae.network.state_dict()[key], value)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.safetensors"):
        load_image_vae(tmp_path)


def test_loaded_module_travels_by_its_own_configuration(tmp_path: Path) -> None:
    write(tmp_path, "AutoencoderTiny", **TINY)
    vae = load_image_vae(tmp_path)
    again = ImageVAEConfig.from_dict(json.loads(json.dumps(vae.config.to_dict()))).build()
    again.load_state_dict(vae.state_dict())
    assert torch.equal(again.eval().encode(IMAGES), vae.encode(IMAGES))


def test_misfitting_weights_are_named(tmp_path: Path) -> None:
    write(tmp_path, "AutoencoderTiny", **TINY)
    state = load_file(tmp_path / WEIGHTS)
    state["extra.weight"] = torch.zeros(1)
    del state["encoder.layers.0.bias"]
    state["decoder.layers.0.bias"] = torch.zeros(5)
    save_file(state, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=r"do not fit") as caught:
        load_image_vae(tmp_path)
    for part in ("missing encoder.layers.0.bias", "unexpected extra.weight", "decoder.layers.0.bias has shape (5,)"):
        assert part in str(caught.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_image_vae(tmp_path)
    write(tmp_path, "AutoencoderTiny", **TINY)
    (tmp_path / WEIGHTS).rename(tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="safetensors files only"):
        load_image_vae(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        load_image_vae(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"taef2_encoder\.pth"):
        load_taef2(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "VQModel"}, "VQModel"),
        ({"in_channels": 4}, "in_channels is 4"),
        ({"upsample_fn": "bilinear"}, "nearest"),
        ({"_class_name": "AutoencoderKL", "down_block_types": ["AttnDownEncoderBlock2D"]}, "AttnDownEncoderBlock2D"),
    ],
)
def test_unsupported_settings_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from_diffusers({"_class_name": "AutoencoderTiny"} | changes)


def test_real_pair_restores_a_photo(shared_data: Callable[[str], Path]) -> None:
    vae = load_taef2(shared_data("weights_taef2"))
    photo = Image.open(shared_data("scene_photos_depth_anything/demo01.jpg")).convert("RGB").resize((256, 256))
    images = torch.from_numpy(np.array(photo)).permute(2, 0, 1).float() / 255
    with torch.no_grad():
        latents = vae.encode(images)
        restored = vae.decode(latents)
    assert latents.shape == (32, 32, 32)
    assert 0.8 < float(latents.std()) < 1.25
    assert -10 * float((restored - images).square().mean().log10()) > 26  # a wrong group norm costs 1.4 dB and more
