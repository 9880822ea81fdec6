import hashlib
import os

import pytest
import torch

from latent3d.evaluation.distributions import frechet_distance
from latent3d.evaluation.features import extract, random_conv, score_name, to_uint8
from latent3d.evaluation.video_features import build_video_extractor, i3d, random3d


def _clips(n=6, frames=8, side=16, speed=2, seed=0):
    """Windows that slide over random smooth pictures, `speed` pixels per frame: (n, frames, 3, side, side)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, side // 4, (side + 4 * frames) // 4, generator=generator)
    wide = torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear")
    return to_uint8(
        torch.stack([wide[..., speed * i : speed * i + side] for i in range(frames)], 1).flatten(0, 1)
    ).view(n, frames, 3, side, side)


class StandIn(torch.nn.Module):
    """Takes what StyleGAN-V's I3D takes; its two "logits" are the mean of channel 0 and its mean change over time."""

    def forward(
        self, x: torch.Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False
    ) -> torch.Tensor:
        assert not rescale
        assert not resize
        assert return_features
        assert x.shape[1] == 3
        assert x.shape[3] == 224
        assert x.shape[4] == 224
        change = (x[:, 0, 1:] - x[:, 0, :-1]).mean([1, 2, 3])
        return torch.stack([x[:, 0].mean([1, 2, 3]), change], 1)


@pytest.fixture
def stand_in(tmp_path):
    path = tmp_path / "i3d_torchscript.pt"
    torch.jit.script(StandIn()).save(str(path))
    return path


def test_i3d_is_called_as_documented(stand_in):
    extractor = build_video_extractor("i3d", stand_in)
    assert score_name("FVD", extractor.name) == "FVD"
    assert extractor.sha256 == hashlib.sha256(stand_in.read_bytes()).hexdigest()
    # A ramp over 10 frames from black to white: mean 0 in [-1, 1], change 2 / 9 per frame.
    ramp = torch.linspace(0, 1, 10)[None, :, None, None, None].expand(1, 10, 3, 16, 16)
    features = extractor(to_uint8(ramp.flatten(0, 1)).view(1, 10, 3, 16, 16))
    torch.testing.assert_close(features, torch.tensor([[0.0, 2 / 9]]), atol=4e-3, rtol=0)
    # Zeros against ones: the means differ by 2, and the distance is its square.
    black, white = (torch.full((3, 10, 3, 16, 16), value, dtype=torch.uint8) for value in (0, 255))
    assert frechet_distance(extractor(black), extractor(white)) == pytest.approx(4)


def test_the_crop_and_the_stretch_are_told_apart(stand_in):
    """A wide clip, black but for white edges: the crop of its middle is black, the stretched clip is not."""
    clip = torch.zeros(1, 10, 3, 16, 48, dtype=torch.uint8)
    clip[..., :8] = clip[..., 40:] = 255
    crop, stretch = build_video_extractor("i3d", stand_in), build_video_extractor("i3d_stretch", stand_in)
    assert crop(clip)[0, 0] == -1
    assert stretch(clip)[0, 0] == pytest.approx(-1 + 2 / 3, abs=1e-3)
    assert crop.name == stretch.name == "i3d"
    assert "centre crop" in crop.resize_rule
    assert "stretched" in stretch.resize_rule
    tall = clip.transpose(-1, -2).contiguous()
    assert crop(tall)[0, 0] == -1
    square = _clips(1, 10)
    torch.testing.assert_close(crop(square), stretch(square))


def test_sizes_that_do_not_divide_still_fill_the_crop(stand_in):
    clip = torch.full((1, 10, 3, 17, 23), 255, dtype=torch.uint8)
    torch.testing.assert_close(build_video_extractor("i3d", stand_in)(clip), torch.tensor([[1.0, 0.0]]))


@pytest.mark.skipif("LATENT3D_I3D" not in os.environ, reason="set LATENT3D_I3D to i3d_torchscript.pt")
def test_the_published_check_value_of_i3d():
    """Zeros against ones, 8 clips of 30 frames at 64 x 64: 151.26 by common_metrics_on_video_quality."""
    extractor = i3d(os.environ["LATENT3D_I3D"])
    black, white = (torch.full((8, 30, 3, 64, 64), value, dtype=torch.uint8) for value in (0, 255))
    assert frechet_distance(extractor(black), extractor(white)) == pytest.approx(151.26, abs=0.1)


def test_random3d_is_the_same_everywhere():
    extractor = random3d()
    assert extractor.sha256 == "7743df7f8dd275e60526a3c0c43e9673a6781c4e69bc19f99d377fda097c3f1b"
    features = extractor(_clips())
    assert features.shape == (6, 96)
    torch.testing.assert_close(features, random3d()(_clips()))
    assert score_name("FVD", extractor.name) == "FVD_random3d"
    levels = features.view(6, 3, 32).square().mean((0, 2)).sqrt()
    assert levels.max() / levels.min() < 4


def test_random3d_sees_time_where_frames_alone_are_the_same():
    clips, extractor = _clips(24), random3d()
    reference = extractor(clips)
    shuffled = clips[:, torch.tensor([3, 0, 6, 2, 7, 4, 1, 5])]
    frames = [extract(random_conv(), each.flatten(0, 1)) for each in (clips, shuffled)]
    assert frechet_distance(*frames) < 1e-6
    assert frechet_distance(reference, extractor(clips)) < 1e-6
    moved = {speed: frechet_distance(reference, extractor(_clips(24, speed=speed))) for speed in (0, 1, 4)}
    assert frechet_distance(reference, extractor(shuffled)) > 1e-2
    assert 1e-3 < moved[1] < moved[0]
    assert moved[4] > 1e-3


def test_random3d_distance_grows_with_noise_and_flicker():
    clips, extractor = _clips(24), random3d()
    reference, plain = extractor(clips), clips.float() / 255
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(plain.shape, generator=generator)
    flicker = torch.randn(24, 8, 1, 1, 1, generator=generator)

    def distance(x):
        return frechet_distance(reference, extractor(to_uint8(x.flatten(0, 1)).view_as(clips)))

    for change in (noise, flicker):
        values = [distance(plain + strength * change) for strength in (0.02, 0.05, 0.15)]
        assert 1e-4 < values[0] < values[1] < values[2]


def test_unusable_clips_and_weights_are_named(tmp_path, stand_in):
    with pytest.raises(ValueError, match="at least 10 frames, not 8; ask for more views"):
        i3d(stand_in)(_clips())
    with pytest.raises(ValueError, match="at least 4 frames, not 3"):
        random3d()(_clips(frames=3))
    with pytest.raises(ValueError, match="at least 16 x 16 pixels, not 8 x 8"):
        random3d()(_clips(side=8))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        i3d(tmp_path / "nowhere.pt")
    (tmp_path / "bad.pt").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="not a TorchScript archive"):
        i3d(tmp_path / "bad.pt")
    torch.jit.script(torch.nn.Identity()).save(str(tmp_path / "other.pt"))
    with pytest.raises(ValueError, match="does not take rescale, resize, return_features; give"):
        i3d(tmp_path / "other.pt")
    with pytest.raises(ValueError, match="needs its weights as a local path"):
        build_video_extractor("i3d")
    with pytest.raises(ValueError, match="unknown video extractor 'c3d'; choose random3d, i3d, i3d_stretch"):
        build_video_extractor("c3d")
