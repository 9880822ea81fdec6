"""CLIP and DINOv2 folders as initial weights of a run: sizes and tokenizers follow, all towers are filled."""

from __future__ import annotations

import pytest
import torch
import transformers
from conditioning.test_towers import END, VOCABULARY, write_tokenizer

from latent3d.conditioning.towers import CLIPTextConfig
from latent3d.object_presets_paper import (
    ln3diff_objaverse_image_tiny,
    ln3diff_objaverse_text_tiny,
    ln3diff_shapenet_tiny,
)
from latent3d.training.engine import build_system, train
from latent3d.training.foreign import random_towers, with_towers
from latent3d.weights import save_weights

CPU = torch.device("cpu")
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folders ``clip``, ``registers`` and ``dino``."""
    root = tmp_path_factory.mktemp("towers")
    torch.manual_seed(3)
    words = {
        **SIZES, "vocab_size": len(VOCABULARY), "max_position_embeddings": 12,
        "eos_token_id": END, "bos_token_id": END - 1, "pad_token_id": END,
    }  # fmt: skip
    vision = {**SIZES, "image_size": 28, "patch_size": 14}
    clip = transformers.CLIPModel(transformers.CLIPConfig(text_config=words, vision_config=vision, projection_dim=16))
    clip.save_pretrained(root / "clip")
    write_tokenizer(root / "clip")
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14, "image_size": 42}
    transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(**sizes, num_register_tokens=2)
    ).save_pretrained(root / "registers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 8, "image_size": 40}
    transformers.Dinov2Model(transformers.Dinov2Config(**sizes)).save_pretrained(root / "dino")
    return root


def state(folder) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_towers_of_pictures_take_sizes_and_weights_of_their_folders(root):
    weights = {"conditioner.picture": str(root / "clip"), "conditioner.appended": str(root / "registers")}
    plain = ln3diff_objaverse_image_tiny()
    config = with_towers(plain.replace(initial_weights=weights))
    assert (plain.system.conditioner.appended.layers, config.system.conditioner.appended.layers) == (1, 2)
    model = build_system(config, CPU)
    clip, dino = state(root / "clip"), state(root / "registers")
    own = model.conditioner.picture.tower.network.state_dict()
    name = "vision_model.encoder.layers.0.mlp.fc1.weight"
    assert any(torch.equal(value, clip[name]) for key, value in own.items() if key.endswith("layers.0.mlp.fc1.weight"))
    name = "embeddings.register_tokens"
    assert torch.equal(model.conditioner.appended.network.state_dict()[name], dino[name])
    assert random_towers(model, config) == []
    assert random_towers(model, plain) == ["conditioner.picture", "conditioner.appended"]
    assert random_towers(model, plain.replace(initial_weights={"conditioner": "x"})) == []


def test_words_bring_their_tokenizer_and_the_run_keeps_it(root, tmp_path):
    """Text as CLIP reads it: trained, stopped and gone on with; the checkpoint needs no other folder."""
    config = ln3diff_objaverse_text_tiny()
    conditioner = config.system.conditioner.replace(
        text=CLIPTextConfig(width=16, hidden=32, layers=1, heads=2, length=12, vocabulary=9, embedding=16)
    )
    told = conditioner.denoiser_fields()
    system = config.system.replace(conditioner=conditioner, denoiser=config.system.denoiser.replace(**told), mesh=None)
    stages = tuple(stage.replace(sheet_every=0) for stage in config.stages if stage.name != "mesh")
    weights = {"conditioner.text": str(root / "clip")}
    config = with_towers(config.replace(system=system, stages=stages, initial_weights=weights))
    assert config.system.conditioner.text.vocabulary == len(VOCABULARY)
    assert config.system.conditioner.text.tokenizer_bytes > 100
    assert train(config, tmp_path, progress=False, stage="vae").reason == "finished"
    assert train(config, tmp_path, progress=False).reason == "finished"
    model = build_system(config, CPU)
    assert model.conditioner.text.numbers(["a mug"])[0, -1] == END


def test_the_first_encoder_starts_as_a_dinov2(root):
    model = build_system(ln3diff_shapenet_tiny().replace(initial_weights={"encoder": str(root / "dino")}), CPU)
    name = "encoder.layer.2.mlp.fc1.weight"
    assert torch.equal(model.encoder.network.state_dict()[name], state(root / "dino")[name])


def test_own_weights_fill_a_tower_as_well(root, tmp_path):
    config = ln3diff_shapenet_tiny()
    source = build_system(config.replace(seed=5), CPU)
    save_weights(tmp_path / "picture", source.conditioner.picture, {})
    config = with_towers(config.replace(initial_weights={"conditioner.picture": str(tmp_path / "picture")}))
    model = build_system(config, CPU)
    for name, value in model.conditioner.picture.state_dict().items():
        assert torch.equal(value, source.conditioner.picture.state_dict()[name])


def test_wrong_folders_are_refused(root, tmp_path):
    config = ln3diff_objaverse_image_tiny()
    with pytest.raises(ValueError, match="describes a model of type 'dinov2'"):
        with_towers(config.replace(initial_weights={"conditioner.picture": str(root / "dino")}))
    with pytest.raises(ValueError, match="has other sizes"):
        build_system(config.replace(initial_weights={"conditioner.appended": str(root / "registers")}), CPU)
    sizes = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 8}
    transformers.Dinov2Model(transformers.Dinov2Config(**sizes, image_size=32)).save_pretrained(tmp_path / "wide")
    with pytest.raises(ValueError, match="hidden_size 24"):
        build_system(ln3diff_shapenet_tiny().replace(initial_weights={"encoder": str(tmp_path / "wide")}), CPU)
    with pytest.raises(FileNotFoundError):
        build_system(config.replace(initial_weights={"conditioner.picture": str(tmp_path / "none")}), CPU)


def test_random_towers_are_named_when_a_run_begins(tmp_path, capsys):
    config = ln3diff_shapenet_tiny()
    train(config.replace(stages=config.stages[:1]), tmp_path)
    said = capsys.readouterr().err
    assert "'conditioner.picture' has random weights and is never trained" in said
