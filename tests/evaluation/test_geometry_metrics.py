import pytest
import torch

from latent3d.evaluation.geometry_metrics import depth_scores, fit_scale_shift, non_flatness


def _depth(seed=0):
    return 1 + 3 * torch.rand(2, 1, 12, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_scale_and_shift_of_the_known_answer():
    depth = _depth()
    scale, shift = fit_scale_shift((depth - 0.3) / 2, depth)
    assert (scale, shift) == (pytest.approx(2), pytest.approx(0.3))


def test_fit_respects_its_mask_and_refuses_a_constant():
    depth = _depth()
    mask = torch.zeros_like(depth, dtype=torch.bool)
    mask[..., :8] = True
    prediction = torch.where(mask, (depth - 0.3) / 2, torch.full_like(depth, 100.0))
    assert fit_scale_shift(prediction, depth, mask) == (pytest.approx(2), pytest.approx(0.3))
    with pytest.raises(ValueError, match="not determined"):
        fit_scale_shift(torch.ones_like(depth), depth)


def test_scores_of_a_depth_ten_percent_too_deep():
    depth = _depth()
    scores = depth_scores(1.1 * depth, depth)
    assert scores.abs_rel == pytest.approx(0.1)
    assert scores.sq_rel == pytest.approx(float(0.01 * depth.mean()))
    assert scores.rmse == pytest.approx(float(0.1 * depth.square().mean().sqrt()))
    assert scores.rmse_log == pytest.approx(0.0953, abs=1e-4)
    assert scores.log10 == pytest.approx(0.0414, abs=1e-4)
    assert (scores.delta1, scores.delta2, scores.delta3) == (1, 1, 1)
    assert depth_scores(1.3 * depth, depth).delta1 == 0
    assert depth_scores(1.3 * depth, depth).delta2 == 1


@pytest.mark.parametrize("alignment", ["median", "scale_shift", "scale_shift_disparity"])
def test_alignments_undo_a_scale(alignment):
    depth = _depth()
    assert depth_scores(0.4 * depth, depth, alignment=alignment).abs_rel == pytest.approx(0, abs=1e-9)


def test_disparity_alignment_undoes_a_shift_of_disparity():
    depth = _depth()
    prediction = 1 / (0.5 / depth + 0.2)
    assert depth_scores(prediction, depth, alignment="scale_shift_disparity").abs_rel == pytest.approx(0, abs=1e-9)
    assert depth_scores(prediction, depth).abs_rel > 0.1


def test_unknown_depth_and_cap_do_not_count():
    depth = _depth()
    depth[..., 0] = 0
    prediction = depth.clone()
    prediction[..., 0] = 7
    prediction[depth > 3] = 1
    scores = depth_scores(prediction, depth, cap=3.0)
    assert scores.abs_rel == 0
    assert scores.pixels == int(((depth > 0) & (depth <= 3)).sum())
    with pytest.raises(ValueError, match="true depth"):
        depth_scores(prediction, torch.zeros_like(depth))
    with pytest.raises(ValueError, match="unknown depth alignment"):
        depth_scores(prediction, depth, alignment="mean")


def test_non_flatness_known_answers():
    constant, ramp = torch.full((1, 64, 64), 0.9), torch.linspace(0.75, 1.25, 64 * 64).view(1, 64, 64)
    levels = torch.where(torch.arange(64) < 32, 0.8, 1.2).expand(1, 64, 64)
    for depths, answer in ((constant, 1.0), (levels, 2.0), (ramp, 64.0), (torch.cat([constant, levels]), 1.5)):
        assert non_flatness(depths, 0.75, 1.25) == pytest.approx(answer, abs=1e-3)
    with pytest.raises(ValueError, match="near < far"):
        non_flatness(ramp, 1.0, 1.0)
