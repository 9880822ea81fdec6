"""The field's network: the paper's size and formulas, named outputs, and settings that make no network."""

import math

import pytest
import torch

from latent3d.nn.triplane_field import TriPlaneFieldConfig, colors_from_raw, density_from_raw


def test_the_papers_field_has_its_number_of_parameters():
    field = TriPlaneFieldConfig().build()
    assert sum(parameter.numel() for parameter in field.parameters()) == 2372


def test_density_and_colours_of_known_raw_values():
    raw = torch.tensor([1.0, -30.0, 31.0])
    torch.testing.assert_close(density_from_raw(raw), torch.tensor([math.log(2), 0.0, 30.0]), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(density_from_raw(raw, 10.0), 10 * density_from_raw(raw))
    colors = colors_from_raw(torch.tensor([0.0, -100.0, 100.0]))
    torch.testing.assert_close(colors, torch.tensor([0.5, -0.001, 1.001]))


def test_one_hidden_layer_by_hand():
    field = TriPlaneFieldConfig(features=2, hidden=3, channels=1, density_scale=5.0).build().double()
    features = torch.randn(4, 2, dtype=torch.float64)
    first, last = field.layers
    hidden = torch.log1p(torch.exp(features @ first.weight.T + first.bias))
    out = hidden @ last.weight.T + last.bias
    values = field(features)
    torch.testing.assert_close(values.raw, out[:, 0])
    torch.testing.assert_close(values.density, 5 * torch.log1p(torch.exp(out[:, 0] - 1)))
    torch.testing.assert_close(values.colors, 1.002 / (1 + torch.exp(-out[:, 1:])) - 0.001)


@pytest.mark.parametrize("activation", ["softplus", "relu", "silu"])
def test_named_outputs_have_their_widths_and_carry_gradients(activation):
    config = TriPlaneFieldConfig(
        features=5, hidden=8, layers=3, channels=4, extra={"deformation": 3, "weights": 21}, activation=activation
    )
    field = config.build()
    values = field(torch.randn(2, 7, 5))
    assert values.raw.shape == values.density.shape == (2, 7)
    assert values.colors.shape == (2, 7, 4)
    assert {name: value.shape for name, value in values.extra.items()} == {
        "deformation": (2, 7, 3),
        "weights": (2, 7, 21),
    }
    (values.raw.sum() + values.colors.sum() + sum(value.sum() for value in values.extra.values())).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in field.parameters())


def test_a_field_without_colours():
    values = TriPlaneFieldConfig(channels=0).build()(torch.randn(2, 7, 32))
    assert values.colors.shape == (2, 7, 0)


def test_values_are_in_single_precision_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        values = TriPlaneFieldConfig(extra={"a": 1}).build()(torch.randn(2, 7, 32))
    assert {values.raw.dtype, values.density.dtype, values.colors.dtype, values.extra["a"].dtype} == {torch.float32}


def test_configuration_round_trip_and_wrong_settings():
    config = TriPlaneFieldConfig(layers=2, extra={"a": 2})
    assert TriPlaneFieldConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="hidden layer"):
        TriPlaneFieldConfig(layers=0)
    with pytest.raises(ValueError, match="width of at least one"):
        TriPlaneFieldConfig(extra={"a": 0})
    with pytest.raises(ValueError, match="scales must be positive"):
        TriPlaneFieldConfig(density_scale=0.0)
    with pytest.raises(ValueError, match="scales must be positive"):
        TriPlaneFieldConfig(color_scale=-1.0)


def test_the_gain_of_colours_is_a_factor_on_the_raw_value():
    field = TriPlaneFieldConfig(features=4, hidden=8).build()
    strong = TriPlaneFieldConfig(features=4, hidden=8, color_scale=3.0).build()
    strong.load_state_dict(field.state_dict())
    features = torch.randn(20, 4)
    plain, gained = field(features).colors, strong(features).colors
    logit = torch.logit((plain + 0.001) / 1.002)
    torch.testing.assert_close(gained, 1.002 * torch.sigmoid(3 * logit) - 0.001)
    torch.testing.assert_close(strong(features).density, field(features).density)


def test_wrong_activations_are_refused():
    with pytest.raises(ValueError, match="must be one of"):
        TriPlaneFieldConfig.from_dict({"activation": "tanh"})
