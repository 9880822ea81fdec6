"""A folder in Stable Video Diffusion's layout fills a system unchanged, and the prior gets what it was trained on."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from latent3d.conditioning.image import ImageEncoder, ImageEncoderConfig
from latent3d.denoisers.video_unet import VideoUNet
from latent3d.geometry.cameras import Cameras
from latent3d.presets import PRESETS, ggs_re10k
from latent3d.training.command import train_command, with_pretrained
from latent3d.training.engine import _check_system as check_system
from latent3d.training.engine import build_system
from latent3d.training.prior import find_prior
from latent3d.training.prior import load_prior as fill
from training.prior_folder import UNET, write_prior

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("svd")


@pytest.fixture(scope="module")
def written(folder):
    return write_prior(folder)


@pytest.fixture(scope="module")
def config(folder, written):
    return with_pretrained(PRESETS["ggs_re10k_tiny"](), str(folder), None)


@pytest.fixture(scope="module")
def system(config):
    return build_system(config, CPU).eval()


def scene(b=1, m=3, height=32, width=48):
    generator = torch.Generator().manual_seed(1)
    w2c = torch.eye(4).repeat(b, m, 1, 1)
    w2c[:, :, 0, 3] = torch.linspace(0, 0.3, m)
    k = torch.tensor([[40.0, 0, width / 2], [0, 40, height / 2], [0, 0, 1]]).repeat(b, m, 1, 1)
    return torch.rand(b, m, 3, height, width, generator=generator), Cameras(w2c, k, height, width)


def test_sizes_come_from_the_folder_and_what_is_ours_stays(config):
    preset = PRESETS["ggs_re10k_tiny"]().system
    denoiser = config.system.denoiser
    assert (denoiser.layers, denoiser.context_dim, denoiser.channels) == (2, 8, UNET.channels)
    assert (denoiser.camera, denoiser.checkpointing) == (preset.denoiser.camera, preset.denoiser.checkpointing)
    assert denoiser.reference_scale == pytest.approx(1 / 0.2)
    assert config.system.image_encoder == ImageEncoderConfig(
        width=16, hidden=24, layers=2, heads=2, image_size=28, embedding=8
    )
    assert config.system.vae.kind == "AutoencoderKLTemporalDecoder"
    assert (config.system.epipolar, config.system.head) == (preset.epipolar, preset.head)


@torch.no_grad()
def test_the_system_computes_what_diffusers_computes(system, written):
    """No references, cameras given: merges at zero leave the U-Net's output as it is."""
    images, cameras = scene()
    context = system.context_of(images, cameras, torch.tensor([True, False, False]))
    noisy = torch.randn(1, 3, 4, 4, 6, generator=torch.Generator().manual_seed(2))
    level = torch.full((1, 3), 0.4)
    ours = system.denoiser.velocity(
        system.denoiser(noisy, torch.zeros_like(noisy), level, context.plucker, context.tokens)
    )
    ids = torch.tensor([[6.0, 127.0, 0.02]])
    inputs = torch.cat([noisy, torch.zeros_like(noisy)], 2)
    theirs = written["unet"](inputs, torch.tensor(0.4), context.tokens, ids).sample
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert not torch.equal(written["unet"](inputs, torch.tensor(0.4), 0 * context.tokens, ids).sample, theirs)


@torch.no_grad()
def test_the_prior_gets_latents_in_the_scales_of_its_training(system, written):
    """Noisy latents scaled to unit variance, conditioning latents as the autoencoder gives them."""
    images, cameras = scene()
    is_reference = torch.tensor([True, False, False])
    seen = []
    handle = system.denoiser.conv_in.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    context = system.context_of(images, cameras, is_reference)
    z = torch.randn(1, 3, 4, 4, 6, generator=torch.Generator().manual_seed(2))
    system(z, torch.tensor([1.0]), context)
    handle.remove()
    raw = written["vae"].encode(images[0, :1] * 2 - 1).latent_dist.mode()
    noisy, reference = seen[0].chunk(2, 1)
    torch.testing.assert_close(reference[:1], raw, atol=1e-5, rtol=1e-4)
    assert not reference[1:].any()
    torch.testing.assert_close(noisy[:1], raw * 0.2, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(noisy[1:], z[0, 1:] / 2**0.5, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_the_context_is_clips_embedding_of_the_first_reference(system, written):
    from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing

    images, cameras = scene(m=3)
    context = system.context_of(images, cameras, torch.tensor([False, True, True]))
    assert torch.equal(context.tokens, system.image_encoder(images[:, 1]))
    # on a smooth picture the two ways to resize differ little, and so do the embeddings
    y, x = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 96), indexing="ij")
    smooth = torch.stack([x, y, 0.5 + 0.4 * torch.sin(3 * x + y)])[None]
    small = (_resize_with_antialiasing(smooth * 2 - 1, (28, 28)) + 1) / 2
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    expected = written["image_encoder"]((small - mean[:, None, None]) / std[:, None, None]).image_embeds
    ours = system.image_encoder(smooth)[:, 0]
    spread = (written["image_encoder"](torch.zeros(1, 3, 28, 28)).image_embeds - expected).norm()
    assert (ours - expected).norm() < 0.1 * spread


def test_what_is_trained_of_a_prior(config):
    """Everything; only what was added; that and low-rank changes of the attention."""

    def trained(stage, **changes):
        denoiser = config.system.denoiser.replace(lora_rank=changes.pop("rank", 0))
        model = config.system.replace(denoiser=denoiser, **changes).build()
        return {name for name, _ in model.trainable(stage)}

    everything, added = trained("scene"), trained("scene", adapt="added")
    low_rank = trained("scene", adapt="added", rank=2)
    assert added < everything
    assert {name.split(".")[0] for name in added} == {"denoiser", "epipolar", "head", "velocity"}
    prefixes = ("denoiser.camera_encoder.", "denoiser.camera_merges.")
    assert all(name.startswith(prefixes) for name in added if name.startswith("denoiser."))
    assert added < low_rank
    assert all(name.endswith(("lora_down", "lora_up")) for name in low_rank - added)
    assert not any(
        name.startswith(("vae.", "image_encoder.")) for stage in ("twin", "decoder") for name in trained(stage)
    )


def test_the_tiny_preset_trains_on_a_prior_and_goes_on_without_it(folder, written, tmp_path):
    """All options that save memory at once; the frozen prior ends as it began."""
    copy = tmp_path / "prior"
    shutil.copytree(folder, copy)
    overrides = (
        "system.adapt=added", "system.denoiser.lora_rank=2", "system.denoiser.checkpointing=true", "*.autocast=bf16",
        "*.frozen_dtype=bf16", "*.steps=1", "*.accumulate=1",
    )  # fmt: skip
    common = {"device": "cpu", "threads": 1, "progress": False, "overrides": overrides, "prior": str(copy)}
    assert train_command("ggs_re10k_tiny", tmp_path / "run", stage="twin", **common).reason == "finished"
    for file in copy.rglob("*.safetensors"):
        file.unlink()  # the checkpoint holds everything
    assert train_command("ggs_re10k_tiny", tmp_path / "run", **common).stage == "decoder"
    from latent3d.training.checkpoints import list_checkpoints, load_checkpoint

    tensors = load_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])[1]["model"]
    kept = tensors["denoiser.conv_in.weight"]
    assert torch.equal(kept.float(), written["unet"].conv_in.weight.bfloat16().float())
    assert tensors["denoiser.camera_merges.0.weight"].abs().max() > 0
    ups = [value for name, value in tensors.items() if name.endswith("lora_up")]
    assert any(value.abs().max() > 0 for value in ups)


def test_misfits_name_file_and_key(folder, written, config, tmp_path):
    model = config.system.build()
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    file = broken / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    del state["conv_in.bias"]
    save_file(state, file)
    with pytest.raises(ValueError, match=r"unet: .*1 missing \(conv_in.bias\)"):
        fill(model, broken)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="cut off or damaged"):
        fill(model, broken)
    (broken / "image_encoder" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model.safetensors is missing"):
        fill(model, broken)
    (broken / "unet" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config.json is missing"):
        with_pretrained(PRESETS["ggs_re10k_tiny"](), str(broken), None)
    path = broken / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"latent_channels": 8}))
    shutil.copy(folder / "unet" / "config.json", broken / "unet" / "config.json")
    with pytest.raises(ValueError, match="8 latent channels and the U-Net 4"):
        with_pretrained(PRESETS["ggs_re10k_tiny"](), str(broken), None)
    with pytest.raises(ValueError, match="no video U-Net"):
        with_pretrained(PRESETS["ggs_rooms_tiny"](), str(folder), None)


def test_a_prior_that_is_not_there_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="is no folder; give a folder with unet/"):
        find_prior("./nowhere/at-all")
    with pytest.raises(FileNotFoundError, match="could it be fetched from the Hugging Face hub"):
        train_command("ggs_re10k", tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_training_from_scratch_has_no_context(config):
    plain = with_pretrained(ggs_re10k(), "none", None)
    assert (plain.prior, plain.system.image_encoder) == (None, None)
    tiny = with_pretrained(PRESETS["ggs_re10k_tiny"](), "none", None).system.build()
    images, cameras = scene()
    assert tiny.context_of(images, cameras, torch.tensor([True, False, False])).tokens is None


def test_the_full_size_is_stable_video_diffusions(monkeypatch):
    """On the meta device, against diffusers' and transformers' own classes at the published sizes."""
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    system = ggs_re10k().system
    with torch.device("meta"):
        ours = {"denoiser": VideoUNet(system.denoiser), "image_encoder": ImageEncoder(system.image_encoder)}
        ours["vae"] = system.vae.build()
        theirs = {
            # the defaults of this class are the published 14-frame model
            "denoiser": UNetSpatioTemporalConditionModel(num_attention_heads=(5, 10, 20, 20)),
            "vae": AutoencoderKLTemporalDecoder(
                block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
                layers_per_block=2, scaling_factor=0.18215,
            ),
            "image_encoder": CLIPVisionModelWithProjection(
                CLIPVisionConfig(
                    hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16,
                    patch_size=14, projection_dim=1024, hidden_act="gelu",
                )
            ),
        }  # fmt: skip
    counts = {}
    for name, module in theirs.items():
        expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
        part = ours[name] if name == "denoiser" else ours[name].network
        found = {key: tuple(value.shape) for key, value in part.state_dict().items()}
        if name == "denoiser":
            found = {key: shape for key, shape in found.items() if not part.is_added(key)}
        assert found == expected
        counts[name] = sum(parameter.numel() for parameter in module.parameters())
    assert counts == {"denoiser": 1_524_623_082, "vae": 97_742_847, "image_encoder": 632_076_800}
    assert (system.height, system.width, system.views) == (320, 576, 8)
    assert system.vae.factor == system.denoiser.downscale == 8


@torch.no_grad()
def test_a_real_autoencoder_takes_the_place_of_the_small_one(shared_data, tmp_path):
    """TAEF2: 32 channels, factor 8; its stage falls away and its weights stay bit for bit."""
    from latent3d.autoencoders.pretrained import load_taef2

    pair = shared_data("weights_taef2")
    config = with_pretrained(PRESETS["ggs_rooms_tiny"](), None, pair)
    assert [stage.name for stage in config.stages] == ["geometry", "prior", "scene", "decoder"]
    assert config.system.vae.latent_channels == config.system.denoiser.latent_channels == 32
    system, reference = build_system(config, CPU), load_taef2(pair)
    images, cameras = scene(width=32)
    context = system.context_of(images, cameras, torch.tensor([True, False, False]))
    assert torch.equal(context.latents[:, 0], reference.encode(images[:, 0]))
    out = system(torch.randn(1, 3, 32, 4, 4), torch.tensor([1.0]), context)
    assert out.z0.shape == (1, 3, 32, 4, 4)
    with pytest.raises(FileNotFoundError, match=r"config.json is missing"):
        with_pretrained(PRESETS["ggs_rooms_tiny"](), None, tmp_path)


def test_an_autoencoder_folder_by_diffusers_fits_too(tmp_path):
    from diffusers import AutoencoderKL

    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    AutoencoderKL(
        block_out_channels=(32,) * 4, down_block_types=down, up_block_types=up, latent_channels=6
    ).save_pretrained(tmp_path / "kl")
    config = with_pretrained(PRESETS["ggs_re10k_tiny"](), None, tmp_path / "kl")
    assert (config.system.vae.kind, config.system.denoiser.latent_channels) == ("AutoencoderKL", 6)
    state = load_file(tmp_path / "kl" / "diffusion_pytorch_model.safetensors")
    weight = build_system(config, CPU).vae.network.encoder.conv_in.weight
    assert torch.equal(weight, state["encoder.conv_in.weight"])
    coarse = AutoencoderKL(block_out_channels=(32,) * 2, down_block_types=down[:2], up_block_types=up[:2])
    coarse.save_pretrained(tmp_path / "coarse")
    with pytest.raises(ValueError, match="reduces by 2, and the preset's other parts expect 8"):
        with_pretrained(PRESETS["ggs_re10k_tiny"](), None, tmp_path / "coarse")


def test_a_run_from_before_these_settings_goes_on(tmp_path):
    """Keys that its config.json lacks have their defaults; a value that differs is still refused."""
    config = PRESETS["ggs_rooms"]()
    old = config.to_dict()
    for name in ("image_encoder", "adapt"):
        del old["system"][name]
    (tmp_path / "config.json").write_text(json.dumps(old))
    check_system(config, tmp_path)
    old["system"]["views"] = 7
    (tmp_path / "config.json").write_text(json.dumps(old))
    with pytest.raises(ValueError, match="configured otherwise"):
        check_system(config, tmp_path)
