"""What both denoisers promise: shapes, roles, noise levels per frame, half precision, clear refusals."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from latent3d.denoisers.base import Denoiser, check_inputs, reference_mask
from latent3d.denoisers.multiview_transformer import MultiViewTransformerConfig
from latent3d.denoisers.video_unet_config import VideoUNetConfig
from tests.denoisers.common import Inputs, make_inputs, shake

CONFIGS = {"transformer": MultiViewTransformerConfig.tiny(4), "unet": VideoUNetConfig.tiny(4)}


@pytest.fixture(params=CONFIGS, scope="module")
def network(request):
    torch.manual_seed(0)
    return shake(CONFIGS[request.param].build()).eval()


@pytest.mark.parametrize("config", [*CONFIGS.values(), MultiViewTransformerConfig.small(8), VideoUNetConfig.small(8)])
def test_configurations_travel_as_dictionaries(config):
    assert type(config).from_dict(config.to_dict()) == config


@pytest.mark.parametrize("config", [MultiViewTransformerConfig.small(8), VideoUNetConfig.small(8)])
def test_small_presets_have_about_fifteen_million_parameters(config):
    with torch.device("meta"):
        network = config.build()
    assert 13e6 < sum(parameter.numel() for parameter in network.parameters()) < 17e6


def test_reading_a_configuration_does_not_import_diffusers():
    code = (
        "import sys, latent3d.denoisers.video_unet_config, latent3d.denoisers.multiview_transformer\n"
        "sys.exit('diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("views", "height", "width"), [(1, 8, 8), (2, 5, 7), (5, 4, 10)])
@pytest.mark.parametrize("posed", [True, False])
def test_any_number_of_views_of_any_size(network, views, height, width, posed):
    inputs = make_inputs(batch=2, views=views, height=height, width=width, posed=posed)
    features = network(*inputs)
    assert isinstance(network, Denoiser)
    assert features.shape == (2, views, network.feature_channels, height, width)
    assert network.velocity(features).shape == inputs.noisy.shape
    assert features.isfinite().all()


def test_scenes_of_a_batch_do_not_mix(network):
    inputs = make_inputs(batch=3)
    alone = network(*(part[1:2] for part in inputs))
    torch.testing.assert_close(network(*inputs)[1:2], alone, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_noise_level_of_a_frame_is_an_input_of_its_own(network):
    inputs = make_inputs()
    other = inputs._replace(c_noise=inputs.c_noise + torch.tensor([0.0, 0.0, 0.5]))
    before, after = network(*inputs), network(*other)
    change = (after - before).abs().amax(dim=(0, 2, 3, 4))
    assert after.isfinite().all()
    assert change[2] > change[:2].max() > 0  # strongest on the frame itself, seen by the others


@torch.no_grad()
def test_role_of_a_frame_changes_the_result(network):
    inputs = make_inputs(references=(0,))
    dropped = inputs._replace(reference=torch.zeros_like(inputs.reference))
    assert (network(*inputs) - network(*dropped)).abs().max() > 1e-3


def test_role_is_whether_the_reference_latent_is_present():
    inputs = make_inputs(views=4, references=(1, 3))
    assert reference_mask(inputs.reference).flatten(1).tolist() == [[0, 1, 0, 1]] * 2


@torch.no_grad()
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_condition_starts_without_effect_and_gains_one(config):
    torch.manual_seed(0)
    network, inputs = shake(config.replace(condition_channels=5).build()), make_inputs()
    torch.nn.init.zeros_(network.condition_in.weight)
    torch.nn.init.zeros_(network.condition_in.bias)
    condition = torch.randn(2, 3, 5, 8, 8)
    free = network(*inputs)
    assert torch.equal(network(*inputs, condition=condition), free)
    torch.nn.init.normal_(network.condition_in.weight)
    assert (network(*inputs, condition=condition) - free).abs().max() > 1e-3
    with pytest.raises(ValueError, match="must have 5 channels"):
        network(*inputs, condition=condition[:, :, :4])


def test_a_condition_needs_its_layer(network):
    with pytest.raises(ValueError, match="condition_channels"):
        network(*make_inputs(), condition=torch.zeros(2, 3, 5, 8, 8))


@torch.no_grad()
def test_cached_rays_give_the_same_for_all_scenes_and_for_some(network):
    inputs = make_inputs(height=6, width=10)
    cached = network.precompute(inputs.plucker)
    assert torch.equal(network(*inputs._replace(plucker=cached)), network(*inputs))
    part = Inputs(*(tensor[1:] for tensor in inputs))
    torch.testing.assert_close(network(*part._replace(plucker=cached[1:])), network(*part))


@torch.no_grad()
def test_cameras_change_the_result(network):
    inputs = make_inputs()
    assert (network(*inputs) - network(*inputs._replace(plucker=-inputs.plucker))).abs().max() > 1e-3


def test_half_precision_autocast_stays_close(network):
    inputs = make_inputs()
    exact = network.velocity(network(*inputs))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network.velocity(network(*inputs))
    rough.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    network.zero_grad()
    assert (rough.float() - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noisy": torch.zeros(2, 3, 5, 8, 8)}, "must have shape"),
        ({"reference": torch.zeros(2, 3, 4, 8, 9)}, "shape of the noisy"),
        ({"c_noise": torch.zeros(2)}, "one noise level per frame"),
        ({"plucker": torch.zeros(2, 3, 6, 32, 64)}, "Plücker"),
    ],
)
def test_inputs_that_do_not_fit_are_named(change, message):
    inputs = make_inputs()._replace(**change)
    with pytest.raises(ValueError, match=message):
        check_inputs(*inputs, latent_channels=4, downscale=8)


def test_a_network_refuses_ray_maps_of_another_scale(network):
    with pytest.raises(ValueError, match="Plücker"):
        network(*make_inputs()._replace(plucker=torch.zeros(2, 3, 6, 32, 32)))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_checkpointing_changes_neither_values_nor_gradients(config):
    torch.manual_seed(0)
    plain = shake(config.build())
    frugal = config.replace(checkpointing=True).build()
    frugal.load_state_dict(plain.state_dict())
    inputs, gradients = make_inputs(), []
    for network in (plain, frugal):
        features = network(*inputs)
        network.velocity(features).square().mean().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, atol=1e-6, rtol=1e-4)
