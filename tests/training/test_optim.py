"""Schedules, parameter groups, averages, the log and the sheets."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from latent3d.training.config import StageConfig
from latent3d.training.metrics import MetricsLog, read_metrics
from latent3d.training.muon import orthogonalised
from latent3d.training.optim import (
    Ema,
    build_optimizer,
    learning_rate_factor,
    optimizer_tensors,
    parameter_groups,
    restore_optimizer,
    set_learning_rate,
)
from latent3d.training.sheets import LABEL_HEIGHT, colour_depth, draw_sheet, save_sheet


def stage(**changes):
    return StageConfig(**({"name": "s", "steps": 110, "warmup_steps": 10, "loss_weights": {"x": 1.0}} | changes))


@pytest.mark.parametrize(
    ("schedule", "middle", "last"),
    [("constant", 1.0, 1.0), ("linear", 0.55, 0.1), ("cosine", 0.55, 0.1)],
)
def test_schedules_at_known_points(schedule, middle, last):
    config = stage(schedule=schedule, final_factor=0.1)
    assert learning_rate_factor(0, config) == pytest.approx(0.1)
    assert learning_rate_factor(9, config) == pytest.approx(1.0)
    assert learning_rate_factor(10, config) == pytest.approx(1.0)
    assert learning_rate_factor(60, config) == pytest.approx(middle)
    assert learning_rate_factor(110, config) == pytest.approx(last)
    assert learning_rate_factor(35, stage(schedule="cosine")) == pytest.approx(0.5 + 0.5 * math.cos(math.pi / 4))


def network():
    torch.manual_seed(0)
    return nn.ModuleDict({"encoder": nn.Linear(3, 3), "encoder_head": nn.Linear(3, 2), "other": nn.Linear(3, 2)})


def test_groups_by_longest_prefix_and_by_shape():
    named = dict(network().named_parameters())
    config = stage(lr_multipliers={"encoder": 0.1, "encoder_head": 3.0}, weight_decay=0.2)
    optimizer = build_optimizer(named, config)
    set_learning_rate(optimizer, 0.01)
    found = {
        name: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for name, parameter in named.items()
        if any(parameter is one for one in group["params"])
    }
    assert found["encoder.weight"] == (pytest.approx(0.001), 0.2)
    assert found["encoder.bias"] == (pytest.approx(0.001), 0.0)
    assert found["encoder_head.weight"] == (pytest.approx(0.03), 0.2)
    assert found["other.bias"] == (pytest.approx(0.01), 0.0)
    with pytest.raises(ValueError, match="starts with 'decoder'"):
        parameter_groups(named, stage(lr_multipliers={"decoder": 1.0}))


def test_betas_by_prefix_are_those_that_adamw_uses():
    """A step with gradients g1 then g2: with beta1 = 0 the direction is the last gradient's alone."""
    named = dict(network().named_parameters())
    config = stage(betas_by_prefix={"encoder": (0.5, 0.9), "encoder_head": (0.0, 0.999)}, betas=(0.8, 0.99))
    optimizer = build_optimizer(named, config)
    found = {
        name: group["betas"]
        for group in optimizer.param_groups
        for name, parameter in named.items()
        if any(parameter is one for one in group["params"])
    }
    assert found["encoder.weight"] == found["encoder.bias"] == (0.5, 0.9)
    assert found["encoder_head.weight"] == (0.0, 0.999)
    assert found["other.bias"] == (0.8, 0.99)
    for value in (3.0, -2.0):
        for parameter in named.values():
            parameter.grad = torch.full_like(parameter, value)
        optimizer.step()
    momentum = {name: float(optimizer.state[p]["exp_avg"].flatten()[0]) for name, p in named.items()}
    assert momentum["encoder_head.weight"] == pytest.approx(-2.0)
    assert momentum["encoder.weight"] == pytest.approx(0.5 * 0.5 * 3 - 0.5 * 2)
    assert momentum["other.weight"] == pytest.approx(0.8 * 0.2 * 3 - 0.2 * 2)
    assert StageConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="betas_by_prefix: no parameter trained in stage 's' starts with 'critic'"):
        parameter_groups(named, stage(betas_by_prefix={"critic": (0.0, 0.999)}))


def test_optimizer_state_goes_there_and_back():
    """Also with a parameter that never had a gradient."""

    def step(net, optimizer):
        optimizer.zero_grad()
        net["other"](net["encoder"](torch.ones(1, 3))).square().sum().backward()
        optimizer.step()

    net = network()
    named = dict(net.named_parameters())
    optimizer = build_optimizer(named, stage())
    step(net, optimizer)
    twin = network()
    twin.load_state_dict(net.state_dict())
    twin_named = dict(twin.named_parameters())
    twin_optimizer = build_optimizer(twin_named, stage())
    tensors = optimizer_tensors(optimizer, named)
    assert "encoder.weight/exp_avg" in tensors
    assert not any(name.startswith("encoder_head") for name in tensors)
    restore_optimizer(twin_optimizer, twin_named, tensors)
    step(net, optimizer)
    step(twin, twin_optimizer)
    assert all(torch.equal(value, twin_named[name]) for name, value in named.items())
    with pytest.raises(ValueError, match="which this stage does not train"):
        restore_optimizer(twin_optimizer, {}, tensors)


def test_orthogonalised_keeps_singular_vectors_and_evens_singular_values():
    """Against a decomposition in float64, for wide, tall and square matrices of condition 100."""
    generator = torch.Generator().manual_seed(3)
    for rows, columns in ((6, 20), (20, 6), (8, 8)):
        u, _, vh = torch.linalg.svd(
            torch.randn(rows, columns, generator=generator, dtype=torch.float64), full_matrices=False
        )
        values = torch.logspace(-2, 0, len(vh), dtype=torch.float64)
        found = orthogonalised((u * values) @ vh)
        inner = u.mT @ found @ vh.mT
        off = inner - torch.diag(inner.diagonal())
        assert off.abs().max() < 1e-9
        assert 0.65 < inner.diagonal().min() <= inner.diagonal().max() < 1.25
        torch.testing.assert_close(found, (u * inner.diagonal()) @ vh)
    assert torch.equal(orthogonalised(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_muon_turns_matrices_and_kernels_and_leaves_the_rest_to_adamw():
    """First step by hand: Nesterov momentum of one gradient is a multiple of it, so the update is the orthogonalised
    gradient at a root mean square of 0.2; what AdamW keeps moves as AdamW alone moves it."""
    torch.manual_seed(1)
    net = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3), "head": nn.Linear(4, 2)})
    named = dict(net.named_parameters())
    config = stage(optimizer="muon", adamw_prefixes=("head",), weight_decay=0.1, learning_rate=0.02)
    optimizer = build_optimizer(named, config)
    set_learning_rate(optimizer, 0.02)
    before = {name: value.detach().clone() for name, value in named.items()}
    twin = {name: nn.Parameter(value.clone()) for name, value in before.items()}
    plain = build_optimizer(twin, stage(weight_decay=0.1, learning_rate=0.02))
    set_learning_rate(plain, 0.02)
    for name, parameter in named.items():
        parameter.grad = torch.randn_like(parameter)
        twin[name].grad = parameter.grad.clone()
    optimizer.step()
    plain.step()
    gradient = named["conv.weight"].grad.flatten(1)
    update = orthogonalised(gradient) * 0.2 * 27**0.5
    assert float(update.square().mean().sqrt()) == pytest.approx(0.2, rel=0.25)
    expected = before["conv.weight"] * (1 - 0.02 * 0.1) - 0.02 * update.view(4, 3, 3, 3)
    torch.testing.assert_close(named["conv.weight"].detach(), expected)
    for name in ("conv.bias", "head.weight", "head.bias"):
        assert torch.equal(named[name], twin[name]), name
    assert set(optimizer_tensors(optimizer, named)) >= {"conv.weight/momentum", "head.weight/exp_avg"}
    with pytest.raises(ValueError, match="adamw_prefixes: no parameter trained in stage 's' starts with 'tail'"):
        parameter_groups(named, stage(optimizer="muon", adamw_prefixes=("tail",)))
    assert not any(group["orthogonal"] for group in parameter_groups(named, stage(adamw_prefixes=("head",))))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_optimizer_goes_on_from_its_state(optimizer):
    """Five steps at once are three and two with the state saved between them."""
    config = stage(optimizer=optimizer, learning_rate=0.05)

    def steps(net, start, count, tensors=None):
        named = dict(net.named_parameters())
        made = build_optimizer(named, config)
        restore_optimizer(made, named, tensors or {})
        for number in range(start, start + count):
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(number))
            made.zero_grad()
            net["other"](net["encoder"](x)).square().sum().backward()
            made.step()
        return {name: value.clone() for name, value in optimizer_tensors(made, named).items()}

    whole, parted = network(), network()
    steps(whole, 0, 5)
    tensors = steps(parted, 0, 3)
    steps(parted, 3, 2, tensors)
    for name, value in whole.named_parameters():
        assert torch.equal(value, parted.get_parameter(name)), name


def test_average_is_the_weighted_sum_of_its_past():
    """Against a float64 loop: mean <- d mean + (1 - d) value, d = min(decay, (1 + t) / (10 + t))."""
    parameter = nn.Parameter(torch.zeros(3))
    ema = Ema({"p": parameter}, decay=0.5)
    expected = np.zeros(3)
    for step in range(30):
        value = np.random.default_rng(step).normal(size=3)
        parameter.data.copy_(torch.from_numpy(value))
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    np.testing.assert_allclose(ema.tensors()["p"].numpy(), expected, rtol=1e-5)
    live = parameter.detach().clone()
    with ema.applied():
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-5)
    assert torch.equal(parameter, live)
    with pytest.raises(ValueError, match="averages other parameters"):
        ema.restore({"q": live})


def test_log_is_valid_json_and_ends_at_the_resumed_step(tmp_path):
    log = MetricsLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.write({"stage": "s", "step": step, "global_step": step, "loss": 0.5, "odd": float("nan")})
    log.close()
    MetricsLog(tmp_path, 2).close()
    rows = read_metrics(tmp_path)
    assert [row["global_step"] for row in rows] == [1, 2]
    assert rows[0]["odd"] is None
    assert all(json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())


def test_sheet_shows_rows_at_their_place(tmp_path):
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(2, 3, 16, 16)
    depth = torch.linspace(1, 4, 8).expand(1, 3, 1, 8, 8)  # (scenes, views, 1, H, W)
    path = save_sheet(tmp_path / "sheets" / "a.png", {"red": red, "depth": depth})
    pixels = np.asarray(Image.open(path))
    assert pixels.shape == (2 * (16 + LABEL_HEIGHT), 3 * 16, 3)
    assert (pixels[LABEL_HEIGHT : LABEL_HEIGHT + 16, :32] == (255, 0, 0)).all()
    row = pixels[2 * LABEL_HEIGHT + 16, :16].astype(int).sum(-1)
    assert row[0] > row[-1]  # near is brighter
    assert (np.diff(row) <= 0).all()
    assert [item.name for item in path.parent.iterdir()] == ["a.png"]
    with pytest.raises(ValueError, match="shape"):
        draw_sheet({"flat": torch.zeros(3, 4, 4)})
    with pytest.raises(ValueError, match="at least one row"):
        draw_sheet({})


def test_unknown_depth_is_black():
    depths = torch.tensor([[0.0, 1.0], [2.0, float("inf")]]).view(1, 1, 2, 2)
    colours = colour_depth(depths)
    assert (colours[0, :, 0, 0] == 0).all()
    assert (colours[0, :, 1, 1] == 0).all()
    assert colours[0, :, 0, 1].sum() > colours[0, :, 1, 0].sum()
    assert colour_depth(torch.zeros(1, 1, 2, 2)).abs().sum() == 0
