"""The ladder and the two denoisers: the switches of each row, equal data and equal time, and a small comparison."""

from __future__ import annotations

import json

import ablations_ln3diff
import numpy as np
import pytest
import torch
from ablations_ln3diff_runs import DENOISERS, LADDER, ObjectPlan, ObjectWorkshop, steps_of

from latent3d.data.object_bank import render_object_bank
from latent3d.data.object_sources import ObjectCameras, ProceduralObjects
from latent3d.evaluation.object_metrics import RECONSTRUCTION_COLUMNS


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    source = ProceduralObjects(ObjectCameras(views=4, size=32), labels=("mug",))
    return str(render_object_bank(tmp_path_factory.mktemp("objects") / "bank", source, 0, 4))


@pytest.fixture
def shop(bank, tmp_path):
    plan = ObjectPlan(
        preset="ln3diff_shapes_tiny", bank=(bank,), batch=2, steps=2, denoiser_batch=2,
        denoiser_steps=dict.fromkeys(DENOISERS, 2), seconds=dict.fromkeys(DENOISERS, 0.1),
    )  # fmt: skip
    return ObjectWorkshop(tmp_path, plan, torch.device("cpu"), progress=False)


def test_each_rung_changes_what_it_says(shop):
    systems = [shop.config(name, 0).system for name in LADDER]
    switches = [
        (d.kind, d.inject, getattr(e, "plucker", None), d.cross_plane, d.self_plane)
        for d, e in ((system.decoder, system.encoder) for system in systems)
    ]
    assert switches == [
        ("conv", "adaln", False, False, False),
        ("transformer", "input", False, False, False),
        ("transformer", "adaln", False, False, False),
        ("transformer", "adaln", True, False, False),
        ("transformer", "adaln", True, True, False),
        ("transformer", "adaln", True, True, True),
        ("transformer", "adaln", None, True, True),
    ]
    # Everything else is equal: stages, data, seed, and all other sizes.
    for name in LADDER:
        config = shop.config(name, 3)
        assert config.stages == shop.config("conv", 3).stages
        assert config.data == shop.config("conv", 3).data
        assert config.seed == 3
        assert config.system.decoder.width == systems[0].decoder.width


def test_denoisers_get_equal_time_and_rungs_equal_steps():
    seconds = {"conv": 0.5, "vit": 2.0, "fm_dit": 0.3, "ddpm_unet": 0.1}
    assert steps_of(seconds, 10, None) == (300, {"fm_dit": 2000, "ddpm_unet": 6000})
    assert steps_of(seconds, 10, 50) == (50, {"fm_dit": 50, "ddpm_unet": 150})


def test_denoisers_need_an_autoencoder(bank, tmp_path, capsys):
    with pytest.raises(SystemExit):
        ablations_ln3diff.parse(["--out", str(tmp_path), "--only", "fm_dit"])
    assert "--weights" in capsys.readouterr().err


def test_means_spreads_and_paired_differences_of_the_ladder():
    def record(psnr):
        columns = {key: [None] * len(psnr) for key in RECONSTRUCTION_COLUMNS} | {"psnr": psnr}
        return {"methods": {"reconstruction": {"per_scene": columns}}}

    records = {"conv": {0: record([10.0, 20]), 1: record([12.0, 22])}, "vit": {0: record([13.0, 23])}}
    rows = ablations_ln3diff.ladder_rows(records)
    assert rows["conv"]["metrics"]["psnr"]["mean"] == 16
    assert rows["conv"]["metrics"]["psnr"]["seeds"] == pytest.approx(np.std([15, 17], ddof=1))
    assert rows["vit"]["difference"]["psnr"] | {"scenes": 2} == {"mean": 2, "low": 2, "high": 2, "scenes": 2}
    assert rows["vit"]["metrics"]["ssim"]["mean"] is None
    plan = ObjectPlan(preset="ln3diff_shapes_tiny", bank=(), batch=2)
    text = ablations_ln3diff.ladder_markdown(rows, plan, records, 2)
    assert "| + ViT | 18.00 ± 5.00 | - | - | - | - | 18.92 | +2.00 [+2.00, +2.00] |" in text


def test_a_small_comparison_from_end_to_end(bank, tmp_path, capsys):
    arguments = (
        f"--out {tmp_path} --bank {bank} --preset ln3diff_shapes_tiny --steps 2 --seeds 1 --objects 2 --batch 2 "
        "--denoiser-batch 2 --sampling-steps 1 --training-shapes 0 --only conv,plane_encoder,fm_dit "
        "--quiet --device cpu --threads 1"
    ).split()
    assert ablations_ln3diff.main(arguments) == 0
    assert "| 2D convolution |" in capsys.readouterr().out
    ladder = json.loads((tmp_path / "ladder.json").read_text())
    assert list(ladder["rows"]) == ["conv", "plane_encoder"]
    assert ladder["rows"]["conv"]["metrics"]["psnr"]["scenes"] == 2
    text = (tmp_path / "denoisers.md").read_text()
    assert "| flow matching + DiT: none@1 |" in text
    assert "| prior_decoded |" in text
    # The denoiser's run holds the rung's autoencoder, with the scale of its latents measured.
    from latent3d.weights import load_weights

    rung, denoiser = (load_weights(tmp_path / "weights" / name)[0] for name in ("plane_encoder-0", "fm_dit-0"))
    for key in rung:
        if key.startswith(("encoder.", "decoder.", "field.")):
            torch.testing.assert_close(rung[key], denoiser[key])
    assert float((denoiser["latent_std"] - 1).abs().max()) > 1e-3
    # Started again, it has nothing left to do.
    before = (tmp_path / "weights" / "conv-0" / "weights.safetensors").stat().st_mtime_ns
    assert ablations_ln3diff.main(arguments) == 0
    assert (tmp_path / "weights" / "conv-0" / "weights.safetensors").stat().st_mtime_ns == before
