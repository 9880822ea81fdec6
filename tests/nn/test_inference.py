"""Networks prepared for inference: same results, same names, and gradients where somebody asks for them."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from latent3d.autoencoders.image_vae import ImageVAEConfig
from latent3d.autoencoders.triplane_decoder import PlaneUpsamplerConfig
from latent3d.denoisers.plane_dit import PlaneDiTConfig
from latent3d.hardware import require_compiler
from latent3d.nn.inference import DIRECT_PRODUCTS, DirectLinear, compile_network, for_inference
from tests.denoisers.common import shake


@pytest.mark.parametrize("shape", [(2**9, 64), (2, 2**8, 64), (1, 3, 2**8, 64)])
@pytest.mark.parametrize("bias", [True, False])
def test_large_products_give_the_same_through_onednn(shape: tuple[int, ...], bias: bool):
    plain = nn.Linear(64, 128, bias)
    direct = for_inference(copy.deepcopy(plain), direct=True)
    assert type(direct) is DirectLinear
    x = torch.randn(shape)
    assert x.numel() * 128 >= DIRECT_PRODUCTS
    with torch.no_grad():
        torch.testing.assert_close(direct(x), plain(x), rtol=1e-5, atol=1e-5)
        across = x.transpose(-1, -2).contiguous().transpose(-1, -2)
        torch.testing.assert_close(direct(across), plain(x), rtol=1e-5, atol=1e-5)
        assert torch.equal(direct(x[..., :2, :]), plain(x[..., :2, :]))  # small ones stay with PyTorch
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(direct(x), plain(x))


def test_gradients_flow_where_they_are_asked_for():
    direct = for_inference(nn.Linear(64, 128), direct=True)
    direct(torch.randn(512, 64)).square().sum().backward()
    assert direct.weight.grad.abs().max() > 0


def test_only_plain_linear_layers_change_and_only_if_asked():
    class Own(nn.Linear):
        pass

    network = nn.Sequential(nn.Linear(4, 4), Own(4, 4), nn.Conv2d(4, 4, 3))
    for_inference(network)
    assert type(network[0]) is nn.Linear
    names = list(network.state_dict())
    for_inference(network, direct=True)
    assert [type(layer) for layer in network] == [DirectLinear, Own, nn.Conv2d]
    assert list(network.state_dict()) == names
    assert network[2].weight.is_contiguous()


def kl() -> nn.Module:
    return ImageVAEConfig(
        kind="AutoencoderKL", latent_channels=4, patch_size=1, block_out_channels=(16, 32), encoder_layers=(1, 1),
        decoder_layers=None, mid_attention=True, linear_path=False,
    ).build()  # fmt: skip


@pytest.mark.parametrize(
    ("build", "call", "shape"),
    [
        (lambda: PlaneUpsamplerConfig(width=8, features=4).build(32), lambda net, x: net(x), (3, 32, 4, 4)),
        (kl, lambda net, x: net.decode(x, clamp=False), (2, 4, 8, 8)),
        (kl, lambda net, x: net.encode(x), (2, 3, 16, 16)),
    ],
)
def test_convolutions_that_prefer_it_are_channels_last_with_the_same_result(build, call, shape):
    network, x = shake(build()).eval(), torch.rand(shape)
    with torch.no_grad():
        expected = call(network, x)
        for_inference(network, direct=True)
        three = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)]
        assert three
        assert all(layer.weight.is_contiguous(memory_format=torch.channels_last) for layer in three)
        torch.testing.assert_close(call(network, x), expected, rtol=1e-4, atol=1e-4)


def can_compile() -> bool:
    try:
        require_compiler()
    except ValueError:
        return False
    return True


def test_networks_of_blocks_are_compiled_block_by_block_and_others_whole():
    blocks, whole = PlaneDiTConfig.tiny().build(), nn.Linear(2, 2)
    for network in (blocks, whole):
        names = list(network.state_dict())
        compile_network(network)
        assert list(network.state_dict()) == names
    compiled = {name for name, module in blocks.named_modules() if module._compiled_call_impl is not None}
    assert compiled == {"blocks.0", "blocks.1"}
    assert whole._compiled_call_impl is not None


@pytest.mark.skipif(not can_compile(), reason="needs a C++ compiler and Python's headers")
def test_a_compiled_network_gives_the_same_and_its_blocks_share_a_compilation():
    """In a process of its own: the shape checks of the tests are no code to compile."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("compiled_network.py"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["difference"] < 1e-5
    assert found["graphs"] == 1
