"""Training with a compiled denoiser: what is compiled, and what is said where it cannot be."""

import pytest

from latent3d.presets import ggs_rooms_tiny
from latent3d.training.config import apply_overrides
from latent3d.training.engine import build_system


def test_the_denoiser_is_compiled_and_nothing_else(monkeypatch):
    monkeypatch.setattr("latent3d.training.engine.require_compiler", lambda: None)
    config = apply_overrides(ggs_rooms_tiny(), ["compile=true"])
    model = build_system(config, "cpu")
    compiled = {name for name, module in model.named_modules() if module._compiled_call_impl is not None}
    assert compiled == {f"denoiser.blocks.{number}" for number in range(len(model.denoiser.blocks))}
    plain = build_system(config.replace(compile=False), "cpu")
    assert list(model.state_dict()) == list(plain.state_dict())


def test_a_system_without_denoiser_is_refused(monkeypatch, tiny_config):
    monkeypatch.setattr("latent3d.training.engine.require_compiler", lambda: None)
    with pytest.raises(ValueError, match="no denoiser"):
        build_system(tiny_config.replace(compile=True), "cpu")


def test_without_a_compiler_nothing_begins(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"C\+\+ compiler"):
        build_system(ggs_rooms_tiny().replace(compile=True), "cpu")
