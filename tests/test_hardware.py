"""Detection: what the processor says decides, and nothing else."""

from __future__ import annotations

import pytest

from latent3d import hardware


def cpu(monkeypatch: pytest.MonkeyPatch, vendor: str, flags: str) -> None:
    answers = {"vendor_id": vendor, "flags": flags}
    monkeypatch.setattr(hardware, "_cpu_info", lambda *names: answers[names[0]])


def test_bf16_is_what_the_processor_lists(monkeypatch):
    cpu(monkeypatch, "GenuineIntel", "sse2 avx512f avx512_bf16")
    assert hardware.has_bf16("cpu")
    assert hardware.in_bf16("auto", "cpu")
    cpu(monkeypatch, "AuthenticAMD", "sse2 avx2")
    assert not hardware.has_bf16("cpu")
    assert not hardware.in_bf16("auto", "cpu")
    assert not hardware.has_bf16("mps")


def test_a_named_precision_is_taken_at_its_word(monkeypatch):
    cpu(monkeypatch, "AuthenticAMD", "avx2")
    assert hardware.in_bf16("bf16", "cpu")
    cpu(monkeypatch, "AuthenticAMD", "avx512_bf16")
    assert not hardware.in_bf16("fp32", "cpu")
    with pytest.raises(ValueError, match="choose auto, bf16 or fp32"):
        hardware.in_bf16("half", "cpu")


@pytest.mark.parametrize(
    ("vendor", "flags", "wanted"),
    [
        ("AuthenticAMD", "avx2 avx512f", True),
        ("GenuineIntel", "avx2 avx512f", False),
        ("AuthenticAMD", "avx2", False),
        ("", "", False),
    ],
)
def test_onednn_is_asked_where_mkl_holds_back(monkeypatch, vendor, flags, wanted):
    torch = pytest.importorskip("torch")
    cpu(monkeypatch, vendor, flags)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert hardware.onednn_is_faster() is wanted


def test_a_missing_compiler_is_one_sentence(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert hardware.cpp_compiler() is None
    with pytest.raises(ValueError, match=r"C\+\+ compiler.*install one.*or leave compiling out"):
        hardware.require_compiler()


def test_missing_headers_are_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "cpp_compiler", lambda: "g++")
    monkeypatch.setattr(hardware.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(ValueError, match=r"headers.*python3-dev.*or leave compiling out"):
        hardware.require_compiler()
    (tmp_path / "Python.h").touch()
    hardware.require_compiler()
