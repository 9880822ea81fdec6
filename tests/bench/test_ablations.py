"""The comparison program: one small comparison from end to end, stopped on the way; equal data; the table's numbers."""

from __future__ import annotations

import json
import os
import signal

import ablation_runs
import ablation_scores
import ablation_table
import ablations
import numpy as np
import pytest
import torch
from ablation_runs import VARIANTS, Plan, Workshop, settle, step_seconds, steps_for
from ablation_scores import BETWEEN, DECODER, IMAGES, RECONSTRUCTED, REFINED, between_protocol
from ablation_table import Scores, claims, markdown, read_scores, summarise

from latent3d.data.shards import render_bank
from latent3d.evaluation.protocols import get_protocol
from latent3d.evaluation.scoring import TRUTH
from latent3d.systems import ggs_training
from latent3d.systems.ggs import GGSSystem


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    return str(render_bank(tmp_path_factory.mktemp("rooms"), "rooms", "train", 0, 4, 4, 1, 32, shard_clips=4))


@pytest.fixture
def shop(rooms, tmp_path):
    plan = Plan(preset="ggs_rooms_tiny", bank=(rooms,), batch=2, steps=2, decoder_steps=1, prior_steps=2)
    return Workshop(tmp_path, plan, {}, torch.device("cpu"), progress=False)


def command(out, rooms, *more: str) -> list[str]:
    fixed = "--preset ggs_rooms_tiny --weights none --batch 2 --steps 2 --seeds 1 --scenes 2 --family rooms --quiet"
    small = "--sampling-steps 1 --iterations 2 --refinements 1 --splats 200 --threads 1 --device cpu"
    return ["--out", str(out), "--bank", rooms, *fixed.split(), *small.split(), *more]


def test_a_comparison_is_stopped_goes_on_and_gives_the_table(rooms, tmp_path, monkeypatch, capsys):
    trained: list[str] = []
    terms = GGSSystem.training_terms

    def counted(self, batch, stage, generator):
        if torch.is_grad_enabled():
            trained.append(stage)
            if trained.count("twin") == 1 and stage == "twin":
                os.kill(os.getpid(), signal.SIGINT)  # in the second variant, after the first is finished
        return terms(self, batch, stage, generator)

    monkeypatch.setattr(GGSSystem, "training_terms", counted)
    arguments = command(tmp_path, rooms, "--only", "ggs,no3d")
    assert ablations.main(arguments) == ablations.STOPPED
    assert "goes on" in capsys.readouterr().err
    assert trained == ["prior"] * 2 + ["scene"] * 2 + ["decoder", "twin"]
    rows = json.loads((tmp_path / "ablations_ggs_two_ref.json").read_text())["rows"]
    assert {row["variant"] for row in rows.values()} == {"ggs"}

    judged: list[str] = []
    answers = ablation_scores.answers
    monkeypatch.setattr(ablation_scores, "answers", lambda *args: [judged.append(args[1].title), answers(*args)][1])
    assert ablations.main(arguments) == 0
    assert trained[6:] == ["twin"]  # the step that was left
    assert judged == ["No3D twin"] * 2
    record = json.loads((tmp_path / "ablations_ggs_two_ref.json").read_text())
    ways = {IMAGES, DECODER, REFINED, RECONSTRUCTED, TRUTH}
    assert set(record["rows"]) == {f"ggs/{way}" for way in ways} | {
        f"no3d/{way}" for way in (TRUTH, IMAGES, RECONSTRUCTED)
    }
    for key, row in record["rows"].items():
        if not key.endswith(TRUTH):
            assert row["metrics"]["psnr"]["scenes"] == 2
            assert row["metrics"]["seconds"]["mean"] > 0
        if key.split("/")[1] in (DECODER, REFINED, RECONSTRUCTED):
            assert row["metrics"][f"{BETWEEN}distance"]["mean"] > 0
            assert row["metrics"][f"{BETWEEN}psnr"]["scenes"] == 2
    assert record["rows"]["no3d/reconstructed"]["ratio"][f"{BETWEEN}distance"]["mean"] > 0
    text = (tmp_path / "ablations_ggs_two_ref.md").read_text()
    assert "| No3D twin | reconstructed |" in text
    assert "- GGS, splats, over No3D twin: " in text
    assert (tmp_path / "sheets" / "no3d-0.png").is_file()
    assert not (tmp_path / "runs" / "ggs-0" / "checkpoints").exists()

    assert ablations.main(arguments) == 0
    assert len(trained) == 7
    assert len(judged) == 2
    other = command(tmp_path, rooms, "--only", "ggs")
    other[other.index("--steps") + 1] = "3"
    assert ablations.main(other) == 2
    assert "steps 2, not 3" in capsys.readouterr().err


def test_all_variants_of_a_seed_see_the_same_frames_and_the_next_seed_others(shop):
    views, seeds = 4, (0, 1)
    batches = {}
    for seed in seeds:
        for name in VARIANTS:
            config = shop.config(name, seed)
            stage = config.stages[0]
            batch = config.data.stream(stage, 16 * seed).batch(1)
            batches[name, seed] = batch.images[:, :views]
            assert batch.shape[1] == views + config.system.novel * VARIANTS[name].splats
        assert all(torch.equal(batches[name, seed], batches["ggs", seed]) for name in VARIANTS)
    assert not torch.equal(batches["ggs", 0], batches["ggs", 1])


def test_all_variants_of_a_seed_draw_the_same_references_and_noise(shop, monkeypatch):
    noises: list[torch.Tensor] = []
    truth = ggs_training.v_from_z0

    def target(noisy, clean, level):
        noises.append(((noisy - clean) / level)[level.expand_as(noisy) > 0.01])
        return truth(noisy, clean, level)

    monkeypatch.setattr(ggs_training, "v_from_z0", target)
    for name in ("ggs", "no3d", "no_novel", "categorical", "plain"):
        config = shop.config(name, 0)
        batch = config.data.stream(config.stages[0], 0).batch(0)
        with torch.no_grad():
            torch.manual_seed(0)
            config.system.build().training_terms(batch, config.stages[0].name, torch.Generator().manual_seed(7))
    assert len(noises) == 5
    assert noises[0].numel() > 100
    for noise in noises[1:]:
        torch.testing.assert_close(noise, noises[0], rtol=1e-3, atol=1e-3)


def test_variants_differ_in_what_their_name_says(shop):
    configs = {name: shop.config(name, 0) for name in VARIANTS}
    base = configs["ggs"]
    assert base.system.geometry is None
    assert [stage.name for stage in base.stages] == ["scene", "decoder"]
    assert "reference_depth" not in base.stages[1].loss_weights
    assert [stage.name for stage in configs["no3d"].stages] == ["twin"]
    assert configs["no3d"].system == base.system
    assert configs["no_novel"].system.novel == 0
    assert not set(configs["no_depth"].stages[0].loss_weights) & set(ablation_runs.DEPTH_TERMS)
    assert set(base.stages[0].loss_weights) - set(configs["no_depth"].stages[0].loss_weights) == set(
        ablation_runs.DEPTH_TERMS
    )
    assert configs["categorical"].system.head.depth.kind == "categorical"
    assert configs["plain"].system.epipolar.kind == "plain"
    assert configs["ggs_geometry"].system.geometry is not None
    assert "reference_depth" in configs["ggs_geometry"].stages[1].loss_weights
    assert {config.stages[0].steps for config in configs.values()} == {2}
    assert len({config.stages[0].learning_rate for config in configs.values()}) == 1


@pytest.mark.parametrize("name", ["no_novel", "no_depth", "categorical", "plain", "ggs_geometry", "no3d_geometry"])
def test_every_variant_makes_a_step(shop, name):
    config = shop.config(name, 0)
    for index in range(len(config.stages)):
        assert step_seconds(config, index, torch.device("cpu"), steps=1) > 0


def test_equal_steps_fit_the_slowest_variant_and_the_decoder_into_the_minutes():
    seconds = {"ggs": 2.0, "no3d": 1.0, "decoder": 3.0, "prior": 0.5}
    assert steps_for(seconds, 10) == (210, 60, 1200)
    assert steps_for({"no3d": 1.0, "prior": 0.5}, 10)[0] == 600


def test_a_folder_keeps_its_plan(tmp_path):
    asked = Plan(preset="ggs_rooms", bank=("a",), batch=8)
    plan = settle(tmp_path, asked, lambda: asked.replace(steps=50, seconds={"ggs": 1.5}))
    assert settle(tmp_path, asked, lambda: pytest.fail("decided twice")) == plan
    with pytest.raises(ValueError, match="batch 8, not 4"):
        settle(tmp_path, asked.replace(batch=4), lambda: asked)


def test_views_between_lie_midway_beside_the_same_references():
    two, frames = between_protocol(get_protocol("ggs_two_ref"))
    assert frames == [0, 1, 3, 5, 7, 9, 11, 13, 14]
    assert (two.references, two.views) == ((0, 8), 9)
    one, frames = between_protocol(get_protocol("ggs_one_ref"))
    assert frames == [0, 1, 3, 5, 7, 9, 11, 13]
    assert one.references == (0,)
    outside, frames = between_protocol(get_protocol("ggs_two_ref_outside"))  # of views 0, 1, 2, 5, 6, 7
    assert frames == [1, 3, 4, 7, 10, 11, 13]
    assert outside.references == (2, 4)


def scores_of(psnr, distance=None, way=IMAGES) -> dict[str, Scores]:
    distances = {} if distance is None else {f"{BETWEEN}distance": np.array(distance, dtype=float)}
    numbers = {metric: np.full_like(np.array(psnr, dtype=float), np.nan) for metric in ablation_table.METRICS}
    return {way: Scores(numbers | {"psnr": np.array(psnr, dtype=float)}, distances)}


def test_means_spreads_and_paired_differences_are_those_of_a_small_table():
    base = scores_of([[10, 20, 30], [12, 22, 32]])
    other = scores_of([[9, 19, 29], [11, 21, 31]])
    rows = summarise({"ggs": base, "plain": other})
    own = rows[f"ggs/{IMAGES}"]
    assert own["metrics"]["psnr"]["mean"] == pytest.approx(21)
    assert own["metrics"]["psnr"]["seeds"] == pytest.approx(2**0.5)  # of 20 and 22
    assert own["metrics"]["psnr"]["low"] < 21 < own["metrics"]["psnr"]["high"]
    assert own["metrics"]["ssim"]["mean"] is None
    assert own["difference"] == {}
    change = rows[f"plain/{IMAGES}"]["difference"]["psnr"]
    assert (change["mean"], change["low"], change["high"]) == pytest.approx((-1, -1, -1))  # the scenes' spread cancels


def test_a_ratio_of_distances_is_paired_by_draw():
    draws = np.array([2.0, 1.0, 3.0, 2.0])
    base = scores_of([[1.0]], [draws], DECODER)
    twin = scores_of([[1.0]], [1.5 * draws], RECONSTRUCTED)
    ratio = summarise({"ggs": base, "no3d": twin})[f"no3d/{RECONSTRUCTED}"]["ratio"][f"{BETWEEN}distance"]
    assert (ratio["mean"], ratio["low"], ratio["high"]) == pytest.approx((1.5, 1.5, 1.5))


class Stored:
    """What `read_scores` asks of a cache."""

    def __init__(self, offset: float) -> None:
        generator = torch.Generator().manual_seed(1)
        self.real = torch.randn(6, 5, generator=generator)
        self.offset = offset

    def entries(self, count):
        own = {"psnr": 20.0 + self.offset, "tsed": None}
        return [{"scores": {TRUTH: {}, DECODER: own, BETWEEN + DECODER: {"psnr": 3.0}}} for _ in range(count)]

    def features(self, count):
        fake = self.real + self.offset
        return {TRUTH: self.real, DECODER: fake, BETWEEN + TRUTH: self.real, BETWEEN + DECODER: fake}


def test_scores_are_read_by_way_and_distances_are_those_of_shifted_features():
    out = read_scores([Stored(1.0), Stored(2.0)], 3, draws=4)
    assert set(out) == {TRUTH, DECODER}
    assert out[TRUTH].distances == {}
    assert out[DECODER].numbers["psnr"].tolist() == [[21.0] * 3, [22.0] * 3]
    assert out[DECODER].numbers[f"{BETWEEN}psnr"].tolist() == [[3.0] * 3] * 2
    assert np.isnan(out[DECODER].numbers["tsed"]).all()
    for kind in ("distance", f"{BETWEEN}distance"):
        values = out[DECODER].distances[kind]
        assert values.shape == (2, 5)
        # A shift by c in each of d = 5 features, with equal covariances: d c^2, whichever scenes are drawn.
        np.testing.assert_allclose(values, np.array([[5.0], [20.0]]).repeat(5, 1), rtol=1e-4)


def test_the_table_prints_rows_differences_and_the_claim():
    base = scores_of([[10.0, 20.0]], [[2.0, 2.0, 2.0]], DECODER)
    twin = scores_of([[8.0, 18.0]], [[2.5, 2.5, 2.5]], RECONSTRUCTED)
    plan = Plan(preset="ggs_rooms", bank=("x",), batch=8, steps=100)
    record = {
        "plan": plan.to_dict(),
        "judging": ablation_scores.Judging().to_dict(),
        "extractor": "random_conv",
        "seeds": {"ggs": [0], "no3d": [0]},
        "rows": summarise({"ggs": base, "no3d": twin}),
        "claims": claims({"ggs": base, "no3d": twin}),
    }
    text = markdown(record)
    assert "| GGS | splats | 15.00 ± " in text
    assert "| No3D twin | reconstructed | -2.00 [-2.00, -2.00] |" in text
    assert "1.25 [1.25, 1.25] |" in text
    assert "- GGS, splats, over No3D twin: 0.80 [0.80, 0.80]" in text
    assert "FD_random_conv of 3D scenes" in text
