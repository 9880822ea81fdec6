"""``latent3d plan``: a sheet to read, without weights and without a network."""

from __future__ import annotations


def test_a_plan_is_printed(run):
    code, out, err = run("plan", "ggs_re10k_tiny", "--stage", "scene", "--device-name", "A100", "--devices", "2")
    assert (code, err) == (0, "")
    for words in ("denoiser", "GFLOP per step", "GB on 2 x A100: fits in 80 GB", "1,000 steps", "Nothing was measured"):
        assert words in out
    assert "stage twin" not in out


def test_objects_are_planned_but_for_their_surfaces(run):
    code, out, err = run("plan", "ln3diff_objaverse_image_tiny")
    assert (code, err) == (0, "")
    for words in ("stage vae", "stage diffusion", "conditioner", "depends on values: mesh", "sampling: one", "leanest"):
        assert words in out
    assert "stage mesh" not in out
    code, out, err = run("plan", "ln3diff_objaverse_image_tiny", "--stage", "mesh")
    assert (code, out) == (2, "")
    assert "choose vae or diffusion" in err


def test_unknown_names_are_one_sentence(run):
    for arguments in (("plan", "ggs_unknown"), ("plan", "ggs_re10k_tiny", "--device-name", "abacus")):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert "choose one of" in err
