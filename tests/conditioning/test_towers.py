"""CLIP and DINOv2 from folders in their real layout with random weights, against transformers itself."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from latent3d.conditioning.conditioner import Conditioner, ConditionerConfig
from latent3d.conditioning.image import CLIP_MEAN, CLIP_STD
from latent3d.conditioning.pretrained import load_clip_picture, load_clip_text, load_dinov2
from latent3d.conditioning.towers import IMAGENET_MEAN, IMAGENET_STD, CLIPTextConfig

LETTERS = [chr(code) for code in range(33, 127)]
WORDS = ["mu", "mug</w>", "<|startoftext|>", "<|endoftext|>"]
VOCABULARY = {word: number for number, word in enumerate([*LETTERS, *(f"{x}</w>" for x in LETTERS), *WORDS])}
END = VOCABULARY["<|endoftext|>"]
TEXTS = ["A mug", "", "a very long chair, longer than the tower"]


def write_tokenizer(folder: Path) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "vocab.json").write_text(json.dumps(VOCABULARY))
    (folder / "merges.txt").write_text("#version: 0.2\nm u\nmu g</w>\n")
    names = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 12, "unk_token": "<|endoftext|>", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def normalised(pictures: torch.Tensor, mean: tuple, std: tuple) -> torch.Tensor:
    return (pictures - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A whole CLIP, a Stable Diffusion folder, and DINOv2 of both kinds; the two written models beside."""
    root = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 8,
    }
    words = {
        **sizes, "vocab_size": len(VOCABULARY), "max_position_embeddings": 12,
        "eos_token_id": END, "bos_token_id": END - 1, "pad_token_id": END,
    }  # fmt: skip
    vision = {**sizes, "image_size": 28, "patch_size": 14}
    clip = transformers.CLIPModel(transformers.CLIPConfig(text_config=words, vision_config=vision, projection_dim=8))
    clip.save_pretrained(root / "clip")
    write_tokenizer(root / "clip")
    plain = transformers.CLIPTextModel(transformers.CLIPTextConfig(**words))
    plain.save_pretrained(root / "diffusion" / "text_encoder")
    write_tokenizer(root / "diffusion" / "tokenizer")
    dino = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14, "image_size": 70}
    transformers.Dinov2Model(transformers.Dinov2Config(**dino)).save_pretrained(root / "dino")
    registers = transformers.Dinov2WithRegistersConfig(**dino, num_register_tokens=3)
    transformers.Dinov2WithRegistersModel(registers).save_pretrained(root / "registers")
    return {path.name: path for path in root.iterdir()}


def test_words_of_a_whole_clip(folders):
    encoder = load_clip_text(folders["clip"])
    out = encoder(TEXTS)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folders["clip"])
    inputs = tokenizer(TEXTS, padding="max_length", max_length=12, truncation=True, return_tensors="pt")
    assert torch.equal(encoder.numbers(TEXTS), inputs.input_ids)
    assert encoder.numbers(TEXTS)[2, -1] == END
    model = transformers.CLIPTextModelWithProjection.from_pretrained(folders["clip"])
    theirs = model(input_ids=inputs.input_ids)
    torch.testing.assert_close(out.tokens, theirs.last_hidden_state)
    torch.testing.assert_close(out.pooled, theirs.text_embeds)
    config = encoder.config
    assert out.tokens.shape[1:] == (config.token_count, config.token_dim)
    assert out.pooled.shape[1:] == (config.pooled_dim,)


def test_words_of_a_stable_diffusion_folder_have_no_projection(folders):
    encoder = load_clip_text(folders["diffusion"])
    model = transformers.CLIPTextModel.from_pretrained(folders["diffusion"] / "text_encoder")
    theirs = model(input_ids=encoder.numbers(TEXTS))
    torch.testing.assert_close(encoder(TEXTS).tokens, theirs.last_hidden_state)
    torch.testing.assert_close(encoder(TEXTS).pooled, theirs.pooler_output)


def test_the_tokenizer_travels_with_the_weights(folders):
    encoder = load_clip_text(folders["clip"])
    copy = CLIPTextConfig.from_dict(json.loads(json.dumps(encoder.config.to_dict()))).build()
    with pytest.raises(ValueError, match="no tokenizer"):
        CLIPTextConfig().replace(layers=1, width=8, hidden=8, heads=1, vocabulary=9).build()(["a"])
    copy.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(copy(TEXTS).tokens, encoder(TEXTS).tokens)


def test_patches_and_embedding_of_a_picture(folders):
    encoder, pictures = load_clip_picture(folders["clip"]), torch.rand(2, 3, 28, 28)
    model = transformers.CLIPVisionModelWithProjection.from_pretrained(folders["clip"])
    theirs = model(pixel_values=normalised(pictures, CLIP_MEAN, CLIP_STD))
    out = encoder(pictures)
    torch.testing.assert_close(out.tokens, theirs.last_hidden_state[:, 1:])
    torch.testing.assert_close(out.pooled, theirs.image_embeds)
    assert out.tokens.shape[1:] == (encoder.config.token_count, encoder.config.token_dim)


def test_text_takes_the_place_of_a_picture_in_the_shared_space(folders):
    text, picture = load_clip_text(folders["clip"], "embedding"), load_clip_picture(folders["clip"], "embedding")
    config = ConditionerConfig(text=text.config, picture=picture.config, shared=True, pooled=False)
    conditioner = config.build()
    conditioner.text.load_state_dict(text.state_dict())
    conditioner.picture.load_state_dict(picture.state_dict())
    fields = config.denoiser_fields()
    assert (fields["context_dim"], fields["pooled_dim"]) == (8, None)
    pictures = torch.rand(2, 3, 28, 28)
    both = conditioner(captions=["a mug", "a lamp"], pictures=pictures, kept=torch.tensor([[1, 1, 1], [1, 1, 0]]) > 0)
    assert both.pooled is None
    assert both.tokens.shape == (2, 1, 8)
    torch.testing.assert_close(both.tokens.norm(dim=-1), torch.full((2, 1), 18.4))
    torch.testing.assert_close(both.tokens[0, 0], picture(pictures).tokens[0, 0])
    torch.testing.assert_close(both.tokens[1, 0], text(["a mug", "a lamp"]).tokens[1, 0])


@pytest.mark.parametrize(("name", "registers"), [("dino", 0), ("registers", 3)])
def test_dinov2_gives_its_patches_and_is_never_trained(folders, name, registers):
    encoder, pictures = load_dinov2(folders[name], image_size=56), torch.rand(2, 3, 56, 56)
    kind = transformers.Dinov2WithRegistersModel if registers else transformers.Dinov2Model
    theirs = kind.from_pretrained(folders[name])(normalised(pictures, IMAGENET_MEAN, IMAGENET_STD)).last_hidden_state
    out = encoder(pictures)
    torch.testing.assert_close(out.tokens, theirs[:, 1 + registers :])
    torch.testing.assert_close(out.pooled, theirs[:, 0])
    assert out.tokens.shape[1:] == (encoder.config.token_count, encoder.config.token_dim) == (16, 16)
    assert not encoder.train().training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_loading_prints_nothing(folders, capfd):
    load_clip_text(folders["clip"])
    load_dinov2(folders["dino"])
    assert capfd.readouterr() == ("", "")


def test_what_is_missing_or_damaged_is_named(folders, tmp_path):
    clip, dino = tmp_path / "clip", tmp_path / "dino"
    shutil.copytree(folders["clip"], clip)
    shutil.copytree(folders["dino"], dino)
    with pytest.raises(ValueError, match="describes a model of type 'clip'"):
        load_dinov2(clip)
    state = load_file(dino / "model.safetensors")
    first = next(iter(state))
    save_file({key: value for key, value in state.items() if key != first}, dino / "model.safetensors")
    with pytest.raises(ValueError, match=f"lack 1 tensors .*{first}"):
        load_dinov2(dino)
    save_file({**state, first: torch.zeros(1, 2, 3)}, dino / "model.safetensors")
    with pytest.raises(ValueError, match="do not fit"):
        load_dinov2(dino)
    (dino / "model.safetensors").write_bytes(b"\x08\x00\x00\x00")
    with pytest.raises(ValueError, match="are damaged"):
        load_dinov2(dino)
    (dino / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        load_dinov2(dino)
    (clip / "merges.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"merges\.txt is missing"):
        load_clip_text(clip)
    (clip / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        load_clip_picture(clip)
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        load_clip_text(tmp_path)


def test_presets_of_the_papers_sizes_say_what_the_denoisers_expect():
    """By their fields alone: the towers are not built."""
    image = ConditionerConfig.large_image().denoiser_fields()
    assert (image["context_dim"], image["appended_dim"], image["appended_tokens"], image["pooled_dim"]) == (
        1024, 1024, 256, 768,
    )  # fmt: skip
    text = ConditionerConfig.large_text()
    assert (text.denoiser_fields()["context_dim"], text.denoiser_fields()["pooled_dim"]) == (768, None)
    assert text.text.token_count == 77
    shared = ConditionerConfig.large_shared()
    assert (shared.denoiser_fields()["context_dim"], shared.picture.token_count) == (768, 1)
    with torch.device("meta"):
        whole = Conditioner(ConditionerConfig.large_image())
    millions = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in whole.named_children()}
    assert millions["picture"] == pytest.approx(304.0, abs=0.1)
    assert millions["appended"] == pytest.approx(304.4, abs=0.1)
