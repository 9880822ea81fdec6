"""The video U-Net against diffusers' own class: same weights, same results; cameras start without effect."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from safetensors.torch import load_file

from latent3d.denoisers.video_unet import VideoUNet, VideoUNetConfig
from tests.denoisers.common import make_inputs, shake, without_gradient

TINY = VideoUNetConfig.tiny(4)
# the published configuration of Stable Video Diffusion's U-Net (14 frames), in the words of its config.json
SVD = {
    "addition_time_embed_dim": 256,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 1024,
    "down_block_types": ["CrossAttnDownBlockSpatioTemporal"] * 3 + ["DownBlockSpatioTemporal"],
    "in_channels": 8,
    "layers_per_block": 2,
    "num_attention_heads": [5, 10, 20, 20],
    "num_frames": 14,
    "out_channels": 4,
    "projection_class_embeddings_input_dim": 768,
    "sample_size": 96,
    "transformer_layers_per_block": 1,
    "up_block_types": ["UpBlockSpatioTemporal"] + ["CrossAttnUpBlockSpatioTemporal"] * 3,
}


@pytest.fixture(scope="module")
def original() -> UNetSpatioTemporalConditionModel:
    torch.manual_seed(0)
    return shake(UNetSpatioTemporalConditionModel(**TINY.diffusers_arguments())).eval()


@pytest.fixture(scope="module")
def loaded(original, tmp_path_factory) -> VideoUNet:
    """Saved by diffusers in the layout of a published prior, read as files, loaded into ours."""
    folder = tmp_path_factory.mktemp("prior") / "unet"
    original.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    network = VideoUNetConfig.from_diffusers(config, camera=TINY.camera).build()
    network.load_prior(load_file(folder / "diffusion_pytorch_model.safetensors"))
    return network.eval()


def _original_velocity(original, inputs, level: float, context) -> torch.Tensor:
    ids = torch.tensor(TINY.added_time_ids).expand(len(inputs.noisy), -1)
    return original(torch.cat([inputs.noisy, inputs.reference], 2), torch.tensor(level), context, ids).sample


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 7)])
@pytest.mark.parametrize("references", [(), (0,)])
def test_zero_merges_and_equal_levels_reproduce_diffusers(original, loaded, tokens, height, width, references):
    inputs = make_inputs(height=height, width=width, references=references)
    inputs = inputs._replace(c_noise=torch.full((2, 3), 0.3))
    context = torch.randn(2, tokens, TINY.context_dim, generator=torch.Generator().manual_seed(2))
    expected = _original_velocity(original, inputs, 0.3, context)
    velocity = loaded.velocity(loaded(*inputs, context))
    torch.testing.assert_close(velocity, expected, atol=1e-5, rtol=1e-5)
    # in double precision nothing is left but the order of sums
    double = [part.double() for part in inputs]
    ids = torch.tensor(TINY.added_time_ids).expand(2, -1)
    try:
        expected = original.double()(torch.cat(double[:2], 2), torch.tensor(0.3), context.double(), ids).sample
        velocity = loaded.double().velocity(loaded(*double, context.double()))
    finally:
        original.float()
        loaded.float()
    torch.testing.assert_close(velocity, expected, atol=1e-12, rtol=1e-9)


@torch.no_grad()
def test_no_context_is_the_unconditional_zero_token(original, loaded):
    inputs = make_inputs(posed=False)._replace(c_noise=torch.full((2, 3), -0.2))
    expected = _original_velocity(original, inputs, -0.2, torch.zeros(2, 1, TINY.context_dim))
    torch.testing.assert_close(loaded.velocity(loaded(*inputs)), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_tap_is_what_enters_the_output_norm(original, loaded):
    inputs = make_inputs(posed=False)._replace(c_noise=torch.full((2, 3), 0.1))
    seen = []
    handle = original.conv_norm_out.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    _original_velocity(original, inputs, 0.1, torch.zeros(2, 1, TINY.context_dim))
    handle.remove()
    torch.testing.assert_close(loaded(*inputs).flatten(0, 1), seen[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_cameras_start_without_effect_and_gain_one_with_the_merges():
    torch.manual_seed(0)
    network, inputs = TINY.build(), make_inputs()
    free = network(*inputs._replace(plucker=None))
    assert torch.equal(network(*inputs), free)
    shake(network.camera_merges)
    assert (network(*inputs) - free).abs().max() > 1e-4


def test_merges_learn_from_the_first_step_and_the_encoder_from_the_second():
    torch.manual_seed(0)
    network, inputs = TINY.build(), make_inputs()
    network(*inputs).square().mean().backward()
    assert all(merge.weight.grad.abs().max() > 0 for merge in network.camera_merges)


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    network = shake(TINY.build())
    context = torch.randn(2, 3, TINY.context_dim)
    network.velocity(network(*make_inputs(), context)).square().mean().backward()
    assert without_gradient(network) == []


def test_svd_layout_matches_diffusers_key_by_key():
    config = VideoUNetConfig.from_diffusers(SVD, checkpointing=True)
    # the U-Net's own file does not know how its conditioning latents were scaled
    assert config.replace(reference_scale=1 / 0.18215) == VideoUNetConfig.svd()
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in SVD.items()}
    with torch.device("meta"):
        ours, theirs = config.build(), UNetSpatioTemporalConditionModel(**arguments)
    base = {key: value.shape for key, value in ours.state_dict().items() if not key.startswith("camera_")}
    assert base == {key: value.shape for key, value in theirs.state_dict().items()}
    assert sum(shape.numel() for shape in base.values()) == 1_524_623_082
    # four widths of 16 temporal attentions: 6 down, 1 in the middle, 9 up
    assert [merge.in_features for merge in ours.camera_merges] == (
        [320] * 2 + [640] * 2 + [1280] * 2 + [1280] + [1280] * 3 + [640] * 3 + [320] * 3
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"in_channels": 9},
        {"transformer_layers_per_block": 2},
        {"up_block_types": ["CrossAttnUpBlockSpatioTemporal"] * 4},
        {"layers_per_block": [2, 2, 2, 1]},
    ],
)
def test_foreign_architectures_are_refused(changes):
    with pytest.raises(ValueError, match="mirrored"):
        VideoUNetConfig.from_diffusers({**SVD, **changes})


def test_loading_is_strict_and_leaves_the_network_alone():
    network = TINY.build()
    state = dict(network.state_dict())
    base = {key: value + 1 for key, value in state.items() if not key.startswith("camera_")}
    before = network.conv_in.weight.clone()
    missing = {key: value for key, value in base.items() if key != "conv_out.bias"}
    with pytest.raises(ValueError, match=r"1 missing \(conv_out.bias\)"):
        network.load_prior(missing)
    with pytest.raises(ValueError, match=r"1 unknown \(extra\)"):
        network.load_prior({**base, "extra": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"conv_in.weight \(1,\) instead of \(64, 8, 3, 3\)"):
        network.load_prior({**base, "conv_in.weight": torch.zeros(1)})
    assert torch.equal(network.conv_in.weight, before)
    network.load_prior(base)
    assert torch.equal(network.conv_in.weight, before + 1)


@torch.no_grad()
def test_small_has_no_cross_attention_and_refuses_what_it_was_not_built_for():
    network = TINY.replace(context_dim=None, camera=None).build()
    assert not any(
        "attn2" in name or ("norm2.weight" in name and "transformer" in name) for name in network.state_dict()
    )
    inputs = make_inputs()
    with pytest.raises(ValueError, match="without a context"):
        network(*inputs._replace(plucker=None), torch.zeros(2, 1, 16))
    with pytest.raises(ValueError, match="without a camera encoder"):
        network(*inputs)
