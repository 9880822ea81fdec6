"""Networks that are not trained: neither parameters nor state, the same everywhere; foreign weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from latent3d.nn.discriminators import FeatureDiscriminatorConfig
from latent3d.nn.fixed_features import RandomFeatures, fixed
from latent3d.nn.lpips import TRUNKS, feature_distance
from latent3d.nn.pretrained import LpipsWeights, read_dinov2


def test_a_fixed_module_computes_the_same_and_has_no_state():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1, bias=False)).eval()
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    before = module(images)
    assert fixed(module) is module
    assert torch.equal(module(images), before)
    assert list(module.parameters()) == []
    assert dict(module.state_dict()) == {}
    assert module.double()(images.double()).dtype == torch.float64
    before.sum().backward()
    assert images.grad is not None


def test_random_features_follow_their_seed_and_see_contrast_only():
    features = RandomFeatures((8, 6), seed=3)
    images = torch.rand(2, 3, 16, 16)
    maps = features(images)
    assert [tuple(m.shape) for m in maps] == [(2, 8, 16, 16), (2, 6, 8, 8)]
    assert all(torch.equal(a, b) for a, b in zip(maps, RandomFeatures((8, 6), seed=3)(images), strict=True))
    assert not torch.equal(maps[0], RandomFeatures((8, 6), seed=4)(images)[0])
    plain = features(torch.rand(1, 3, 1, 1).expand(1, 3, 16, 16))
    assert all(float(m.abs().max()) < 1e-5 for m in plain)
    brighter = features(images + 0.25)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(maps, brighter, strict=True))
    with torch.device("meta"):
        assert RandomFeatures((8,)).weight_0.device.type == "cpu"  # fixed weights exist even where others do not
    with pytest.raises(ValueError, match="at least 2 pixels"):
        features(images[..., :1])


def test_the_loss_is_the_metric_and_differentiable():
    torch.manual_seed(0)
    layers, taps = TRUNKS["alex"]()
    heads = tuple(torch.rand(layers[tap - 1].out_channels) for tap in taps)
    images, truth = torch.rand(2, 2, 3, 40, 40).unbind(0)
    expected = feature_distance(layers, taps, heads, images, truth)
    module = LpipsWeights("alex", layers, taps, heads).module()
    images.requires_grad_()
    distance = module(images, truth)
    torch.testing.assert_close(distance, expected.detach())
    distance.sum().backward()
    assert images.grad.isfinite().all()
    assert images.grad.abs().sum() > 0
    assert dict(module.state_dict()) == {}
    same = truth.clone().requires_grad_()
    module(same, truth).sum().backward()
    assert (same.grad == 0).all()


@pytest.fixture
def dino_folder(tmp_path):
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(tmp_path)
    return tmp_path


def test_dinov2_from_a_folder(dino_folder):
    """Its last layer, normed, is what transformers itself returns."""
    backbone = read_dinov2(dino_folder, (1, 2), size=28).train()
    images = torch.rand(2, 3, 20, 20, requires_grad=True)
    maps = backbone(images)
    assert [tuple(m.shape) for m in maps] == [(2, 8, 2, 2)] * 2
    assert backbone.channels == (8, 8)
    assert not backbone.network.training
    assert dict(backbone.state_dict()) == {}
    square = torch.rand(1, 3, 28, 28)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    ready = (square - mean[:, None, None]) / std[:, None, None]
    tokens = backbone.network(ready).last_hidden_state[:, 1:]
    mine = backbone.network.layernorm(backbone(square)[1].flatten(2).mT)
    torch.testing.assert_close(mine, tokens)
    config = FeatureDiscriminatorConfig(
        backbone="dinov2", folder=str(dino_folder), layers=(1, 2), size=28, head_width=4
    )
    critic = config.build()
    assert critic(images).shape == (2, 2)
    assert all(name.startswith("heads.") for name in critic.state_dict())
    critic(images).sum().backward()
    assert images.grad.abs().sum() > 0


def test_wrong_folders_are_named(dino_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="local folder of DINOv2"):
        read_dinov2(tmp_path / "none", (1,))
    with pytest.raises(ValueError, match="layers 1 to 2"):
        read_dinov2(dino_folder, (3,), size=28)
    with pytest.raises(ValueError, match="choose a multiple"):
        read_dinov2(dino_folder, (1,), size=30)
    (dino_folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        read_dinov2(dino_folder, (1,), size=28)
    (dino_folder / "config.json").write_text('{"model_type": "clip_vision_model"}')
    with pytest.raises(ValueError, match="of type 'clip_vision_model'"):
        read_dinov2(dino_folder, (1,), size=28)
