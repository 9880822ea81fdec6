"""The runner on the plane world with an oracle: a system that knows the true depth, so that its scores are known."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from latent3d.evaluation.baselines import warp_references
from latent3d.evaluation.command import evaluate_command
from latent3d.evaluation.comparison import compare
from latent3d.evaluation.perceptual import lpips
from latent3d.evaluation.protocols import PROTOCOLS
from latent3d.evaluation.records import read_record
from latent3d.evaluation.runner import EvaluationConfig, evaluate
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.rays import unproject
from latent3d.nn.lpips import TRUNKS
from latent3d.rendering.base import LOW_PASS_PX
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.views import Views

from .plane_world import plane_clip

SIZE = 64


@dataclass(frozen=True)
class Planes:
    """A source of two scenes."""

    count: int = 2

    def __len__(self) -> int:
        return self.count

    def scene(self, index: int) -> Views:
        return plane_clip(size=SIZE, seed=index)

    def describe(self) -> dict:
        return {"source": "test", "family": "planes", "indices": f"0..{self.count - 1}"}


@dataclass(frozen=True)
class Output:
    gaussians: Gaussians
    images: torch.Tensor
    depths: torch.Tensor
    is_reference: torch.Tensor
    low_pass_px: float = LOW_PASS_PX


class Oracle:
    """Knows every scene's depth: references' pixels as small splats; 2D pictures by the true-depth warp."""

    def __init__(self) -> None:
        self.clips = [plane_clip(size=SIZE, seed=index) for index in range(3)]
        self.calls: list[tuple[int, int]] = []

    def sample(self, references: Views, targets: Cameras, *, steps: int, seed: int, bf16: bool = False) -> Output:
        self.calls.append((steps, seed))
        assert references.depths is None, "a model must not see true depth"
        clip = next(clip for clip in self.clips if torch.equal(clip.images[0], references.images[0]))
        index = [int((clip.images - image).abs().amax((1, 2, 3)).argmin()) for image in references.images]
        known = replace(references, depths=clip.depths[index])
        warp = warp_references(known, targets)
        k = len(references)
        return Output(
            gaussians=_lift(known),
            images=torch.cat([references.images, warp.images]),
            depths=torch.nn.functional.avg_pool2d(torch.cat([known.depths, warp.depths]), 4),
            is_reference=torch.arange(k + len(targets)) < k,
        )

    def round_trip(self, images: torch.Tensor) -> torch.Tensor:
        return (images * 16).round() / 16


def _lift(views: Views) -> Gaussians:
    depths = views.depths.flatten()
    focal = views.cameras.k[0, 0, 0]
    n = len(depths)
    return Gaussians(
        means=unproject(views.cameras, views.depths).reshape(n, 3),
        quaternions=torch.tensor([1.0, 0, 0, 0]).expand(n, 4).contiguous(),
        scales=(0.35 * depths / focal)[:, None].expand(n, 3).contiguous(),
        opacities=torch.full((n,), 0.98),
        colors=views.images.permute(0, 2, 3, 1).reshape(n, 3).contiguous(),
    )


def _run(out, model, source=None, protocol="ggs_two_ref", **options):
    options.setdefault("config", EvaluationConfig(steps=(1,)))
    weights = {"name": "oracle", "sha256": "0" * 64}
    return evaluate(
        model,
        Planes() if source is None else source,
        PROTOCOLS[protocol],
        out,
        weights=weights,
        progress=False,
        **options,
    )


def _mean(record, method, key):
    return record["methods"][method]["scores"][key]["mean"]


@pytest.fixture(scope="module")
def oracle_run(tmp_path_factory):
    out, model = tmp_path_factory.mktemp("oracle"), Oracle()
    return out, model, _run(out, model)


def test_the_oracle_reaches_the_true_depth_warp(oracle_run):
    _, model, record = oracle_run
    assert model.calls == [(1, 0), (1, 1)]
    warp, repeated = _mean(record, "warp_true_depth", "psnr"), _mean(record, "nearest_reference", "psnr")
    assert warp > repeated + 6
    # The 2D pictures are that warp, up to what the record's rounding leaves.
    assert _mean(record, "decoded_2d@1", "psnr") == pytest.approx(warp, abs=1e-6)
    assert record["methods"]["decoded_2d@1"]["distances"] == record["methods"]["warp_true_depth"]["distances"]
    # Splats blur a little and leave holes open; their own depth carries the references as the true one does.
    assert _mean(record, "splats@1", "psnr_seen") > repeated + 5
    assert _mean(record, "splats@1", "abs_rel") < 0.05
    assert 0.5 < _mean(record, "splats@1", "sharpness_seen") < 1.2
    # ... except at outlines, where a splat's depth mixes both surfaces.
    assert warp - 6 < _mean(record, "warp_model_depth@1", "psnr") < warp + 0.5


def test_the_autoencoder_row_scores_the_true_pictures_restored(oracle_run):
    _, _, record = oracle_run
    clips = [plane_clip(size=SIZE, seed=index) for index in range(2)]
    errors = [(((clip.images[1:-1] * 16).round() / 16 - clip.images[1:-1]) ** 2).mean((1, 2, 3)) for clip in clips]
    expected = torch.stack([-10 * error.log10() for error in errors]).mean().item()
    assert _mean(record, "autoencoder", "psnr") == pytest.approx(expected, abs=1e-3)
    assert _mean(record, "autoencoder", "abs_rel") is None


def test_the_truth_row_is_perfect(oracle_run):
    record = oracle_run[2]
    assert _mean(record, "truth", "tsed") == 1
    assert _mean(record, "truth", "ssim") == pytest.approx(1)
    assert _mean(record, "truth", "psnr") is None  # infinite
    assert _mean(record, "warp_true_depth", "tsed") > 0.8


def test_the_record_says_what_it_depends_on(oracle_run):
    out, _, record = oracle_run
    assert read_record(out / "ggs_two_ref_planes.json") == record
    assert record["extractor"]["name"] == "random_conv"
    assert len(record["extractor"]["sha256"]) == 64
    assert record["weights"]["sha256"] == "0" * 64
    assert record["scenes"] == {"source": "test", "family": "planes", "indices": "0..1", "count": 2, "targets": 12}
    assert record["resolution"] == [SIZE, SIZE]
    assert record["versions"]["torch"]
    assert record["tsed"]["headline"] == 2.0
    assert "FD_random_conv" in record["methods"]["splats@1"]["distances"]
    gain = record["gain_over_nearest_reference"]["warp_true_depth"]["mean"]
    assert gain == pytest.approx(_mean(record, "warp_true_depth", "psnr") - _mean(record, "nearest_reference", "psnr"))


def test_the_table_has_every_method_and_never_says_fid(oracle_run):
    out, _, record = oracle_run
    text = (out / "ggs_two_ref_planes.md").read_text()
    for name in record["methods"]:
        assert f"| {name} |" in text
    assert "FD_random_conv" in text
    assert "FID" not in text + json.dumps(record)
    assert compare(record, record).count("+0.00") >= 5


def test_the_sheet_has_a_row_per_scene(oracle_run):
    with Image.open(oracle_run[0] / "ggs_two_ref_planes.png") as picture:
        # references 2, truth, blend, homography, flow, warp, autoencoder, splats, decoded, model warp, 2 depths
        assert picture.size[0] == 13 * (SIZE + 4) - 4
        assert picture.size[1] > 2 * SIZE
        assert np.asarray(picture).std() > 20


def test_an_interrupted_run_continues(oracle_run, tmp_path):
    class Interrupted(Oracle):
        def sample(self, *args, **kwargs):
            if len(self.calls) == 1:
                raise KeyboardInterrupt
            return super().sample(*args, **kwargs)

    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, Interrupted())
    model = Oracle()
    record = _run(tmp_path, model)
    assert model.calls == [(1, 1)]
    expected = oracle_run[2]["methods"]["splats@1"]["scores"]
    scores = record["methods"]["splats@1"]["scores"]
    assert {k: v for k, v in scores.items() if k != "seconds"} == {k: v for k, v in expected.items() if k != "seconds"}
    # A longer list continues too; another seed or other weights do not.
    longer = Oracle()
    assert _run(tmp_path, longer, Planes(3))["scenes"]["count"] == 3
    assert (1, 2) in longer.calls
    assert (1, 1) not in longer.calls
    other = Oracle()
    _run(tmp_path, other, Planes(1), config=EvaluationConfig(steps=(1,), seed=5))
    assert other.calls == [(1, 5)]
    assert not list(tmp_path.rglob(".*"))


def test_baselines_alone_need_no_model(tmp_path):
    record = _run(tmp_path, None, protocol="ggs_one_ref")
    assert list(record["methods"]) == ["truth", "nearest_reference", "warp_true_depth"]
    assert record["weights"] is None
    assert _mean(record, "warp_true_depth", "psnr_unseen") < _mean(record, "warp_true_depth", "psnr_seen")


def test_the_command_writes_all_tables(tmp_path):
    records = evaluate_command(out=tmp_path, family="rooms", scenes=1, split="val", baselines_only=True, progress=False)
    assert [record["protocol"]["name"] for record in records] == ["ggs_one_ref", "ggs_two_ref"]
    text = (tmp_path / "results.md").read_text()
    assert "ggs_one_ref on rooms" in text
    assert "ggs_two_ref on rooms" in text
    assert _mean(records[1], "truth", "tsed") == 1


def test_captures_run_without_depth(tmp_path, shared_data):
    record = evaluate_command(
        out=tmp_path,
        protocol="ggs_one_ref",
        data=shared_data("posed_fox"),
        stride=6,
        baselines_only=True,
        progress=False,
    )[0]
    assert list(record["methods"]) == ["truth", "nearest_reference"]
    assert _mean(record, "nearest_reference", "psnr_seen") is None
    assert _mean(record, "truth", "tsed") > 0.5


def test_senseless_runs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing to evaluate"):
        _run(tmp_path, None, Planes(0))
    with pytest.raises(ValueError, match="sha256"):
        evaluate(Oracle(), Planes(), PROTOCOLS["ggs_one_ref"], tmp_path, progress=False)
    with pytest.raises(FileNotFoundError):
        evaluate_command("no_such_weights", tmp_path, progress=False)


def test_lpips_from_local_files_has_a_column_of_its_own(tmp_path):
    layers, taps = TRUNKS["alex"]()
    torch.save({f"features.{key}": value for key, value in layers.state_dict().items()}, tmp_path / "trunk.pth")
    heads = {f"lin{i}.model.1.weight": torch.ones(1, layers[t - 1].out_channels, 1, 1) for i, t in enumerate(taps)}
    torch.save(heads, tmp_path / "alex.pth")
    perceptual = lpips(tmp_path / "trunk.pth", tmp_path / "alex.pth")
    record = _run(tmp_path / "out", None, Planes(1), perceptual=perceptual)
    assert record["perceptual"]["name"] == "lpips_alex"
    assert _mean(record, "truth", "lpips") == 0
    assert 0 < _mean(record, "warp_true_depth", "lpips") < _mean(record, "nearest_reference", "lpips")
    assert "| LPIPS |" in (tmp_path / "out" / "ggs_two_ref_planes.md").read_text()
    plain = _run(tmp_path / "out", None, Planes(1))
    with pytest.raises(ValueError, match="perceptual"):
        compare(plain, record)


def test_interpolation_has_the_baselines_of_two_pictures_and_extrapolation_has_not(oracle_run, tmp_path):
    record = oracle_run[2]
    blend, flow = _mean(record, "blend", "psnr"), _mean(record, "flow_warp", "psnr")
    assert _mean(record, "nearest_reference", "psnr") - 1 < blend < flow < _mean(record, "warp_true_depth", "psnr")
    outside = _run(tmp_path, None, Planes(1), protocol="ggs_two_ref_outside")
    assert list(outside["methods"]) == ["truth", "nearest_reference", "warp_true_depth"]


def test_clips_and_warps_are_scored_where_they_are_asked_for(oracle_run, tmp_path):
    from latent3d.evaluation.dense_features import dense_random_conv
    from latent3d.evaluation.video_features import VideoExtractor, random3d
    from latent3d.evaluation.warp_distance import WarpMetric

    measures = {"video": random3d(), "warp": WarpMetric(dense_random_conv())}
    record = _run(tmp_path, Oracle(), **measures)
    # Nothing else changes, and records without these two do not mention them.
    plain = oracle_run[2]
    assert plain["methods"]["splats@1"]["per_scene"]["psnr"] == record["methods"]["splats@1"]["per_scene"]["psnr"]
    assert not {"video", "warp"} & plain.keys()
    assert _mean(plain, "truth", "warp_distance") is None
    fvd = {name: method["distances"]["FVD_random3d"] for name, method in record["methods"].items() if name != "truth"}
    assert 0 < fvd["warp_true_depth"] < 0.1 * fvd["nearest_reference"]
    assert _mean(record, "truth", "warp_distance") < 0.04
    assert _mean(record, "truth", "warp_distance") < _mean(record, "nearest_reference", "warp_distance")
    assert _mean(record, "nearest_reference", "warp_distance_own") is None
    assert _mean(record, "truth", "warp_distance_own") == pytest.approx(
        _mean(record, "truth", "warp_distance"), abs=0.01
    )
    assert 0.5 < _mean(record, "splats@1", "warp_overlap_own") <= 1
    assert _mean(record, "splats@1", "warp_distance_own") < 0.15
    text = (tmp_path / "ggs_two_ref_planes.md").read_text()
    for part in ("| FVD_random3d |", "| WD_random_conv |", "| WD_random_conv, own depth |", "N = 2 clips"):
        assert part in text
    assert "| FVD |" not in text
    assert "MEt3R" not in text
    assert "WD_" not in (oracle_run[0] / "ggs_two_ref_planes.md").read_text()
    assert "FVD_random3d" in compare(record, record)
    with pytest.raises(ValueError, match="differ in 'video'"):
        compare(plain, record)
    with pytest.raises(ValueError, match="at least 10 frames, not 8; ask for more views"):
        _run(tmp_path, None, video=VideoExtractor("i3d", "0" * 64, "none", 10, lambda clips: clips.flatten(1)))


def test_the_command_takes_both_by_name(tmp_path):
    common = {"out": tmp_path, "baselines_only": True, "progress": False}
    record = evaluate_command(
        family="rooms", scenes=2, split="val", protocol="ggs_two_ref", views=4, video_extractor="random3d",
        warp_extractor="random_conv", **common,
    )[0]  # fmt: skip
    assert record["video"]["name"] == "random3d"
    assert record["video"]["sha256"] != record["warp"]["extractor"]["sha256"]
    assert _mean(record, "truth", "warp_distance") < _mean(record, "nearest_reference", "warp_distance")
    with pytest.raises(ValueError, match="of scenes; leave"):
        evaluate_command(protocol="objects_generation", warp_extractor="random_conv", **common)
    with pytest.raises(ValueError, match="unknown video extractor"):
        evaluate_command(video_extractor="x", **common)
