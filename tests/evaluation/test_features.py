import hashlib

import pytest
import torch

from latent3d.evaluation.distributions import frechet_distance
from latent3d.evaluation.features import (
    FeatureExtractor,
    build_extractor,
    clip,
    dino,
    extract,
    inception,
    random_conv,
    score_name,
    to_uint8,
)


def _images(n=6, side=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, side // 4, side // 4, generator=generator)
    return to_uint8(torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear"))


def test_random_conv_is_the_same_everywhere():
    extractor = random_conv()
    assert isinstance(extractor, FeatureExtractor)
    assert extractor.sha256 == "3c4e626927630acbac4ffc9ed125e602a0a259f62034811101388f15350af586"
    features = extractor(_images())
    assert features.shape == (6, 128)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, random_conv()(_images()))
    torch.testing.assert_close(extract(extractor, _images(), batch=4), features, atol=1e-5, rtol=1e-5)
    # Levels stay on one scale, so that no level rules a distance alone.
    levels = features.view(6, 4, 32).square().mean((0, 2)).sqrt()
    assert levels.max() / levels.min() < 4


def test_random_conv_distance_grows_with_blur_noise_and_colour():
    truth, extractor = _images(40), random_conv()
    reference = extractor(truth)

    def distance(change):
        return frechet_distance(reference, extractor(to_uint8(change(truth.float() / 255))))

    def blur(times):
        def function(x):
            for _ in range(times):
                x = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
            return x

        return function

    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    assert distance(lambda x: x) < 1e-6
    assert 1e-4 < distance(blur(1)) < distance(blur(4))
    assert 1e-4 < distance(lambda x: x + 0.02 * noise) < distance(lambda x: x + 0.1 * noise)
    assert 1e-4 < distance(lambda x: 0.95 * x) < distance(lambda x: 0.7 * x)


def test_names_are_reserved_for_inception():
    assert score_name("FD", "inception") == "FID"
    assert score_name("KD", "inception") == "KID"
    assert score_name("FD", "random_conv") == "FD_random_conv"
    assert score_name("KD", "clip") == "KD_clip"
    assert score_name("FVD", "i3d") == "FVD"
    assert score_name("FVD", "inception") == "FVD_inception"
    with pytest.raises(ValueError, match="unknown distance"):
        score_name("FID", "clip")


def test_absent_weights_are_named(tmp_path):
    for build in (inception, clip, dino):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            build(tmp_path / "nowhere")
    (tmp_path / "bad.pt").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="TorchScript"):
        inception(tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="local path"):
        build_extractor("clip")
    with pytest.raises(ValueError, match="unknown feature extractor"):
        build_extractor("vgg")


def test_inception_takes_a_torchscript_file(tmp_path):
    class Pool(torch.nn.Module):
        def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
            return x.float().mean([2, 3]) if return_features else x.float()

    path = tmp_path / "inception-2015-12-05.pt"
    torch.jit.script(Pool()).save(str(path))
    extractor = build_extractor("inception", path)
    assert extractor.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    torch.testing.assert_close(extractor(_images()), _images().float().mean((2, 3)))


def test_transformers_folders_load(tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, Dinov2Config, Dinov2Model

    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    network = CLIPVisionModelWithProjection(CLIPVisionConfig(image_size=28, patch_size=14, projection_dim=24, **small))
    network.save_pretrained(tmp_path / "clip", safe_serialization=True)
    Dinov2Model(Dinov2Config(image_size=28, patch_size=14, **small)).save_pretrained(tmp_path / "dino")
    images = _images(3, side=40)
    features = build_extractor("clip", tmp_path / "clip")
    assert features(images).shape == (3, 24)
    assert len(features.sha256) == 64
    assert "28" in features.resize_rule
    assert build_extractor("dino", tmp_path / "dino")(images).shape == (3, 32)
