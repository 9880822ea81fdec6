"""Films: there and back, odd sizes, bad input."""

from __future__ import annotations

import pytest
import torch

from latent3d.io.video import read_video, write_video


def moving_square(frames: int = 9, height: int = 48, width: int = 64) -> torch.Tensor:
    film = torch.zeros(frames, 3, height, width)
    film[:, 2] = 0.6
    for t in range(frames):
        film[t, :, 8:24, 2 + 4 * t : 18 + 4 * t] = torch.tensor([0.9, 0.2, 0.3])[:, None, None]
    return film


def test_round_trip(tmp_path):
    film = moving_square()
    encoder = write_video(tmp_path / "a.mp4", film, fps=12)
    back, rate = read_video(tmp_path / "a.mp4")
    assert encoder in ("libx264", "libopenh264", "h264", "mpeg4")
    assert back.shape == film.shape
    assert rate == 12
    assert (back - film).abs().mean() < 0.03
    # Each frame is nearest to its own original: none is lost, doubled or out of order.
    distance = (back[:, None] - film[None]).abs().mean(dim=(2, 3, 4))
    assert torch.equal(distance.argmin(1), torch.arange(len(film)))


def test_odd_sizes_are_extended_by_repeating(tmp_path):
    film = moving_square(3, 47, 63)
    write_video(tmp_path / "a.mp4", (frame for frame in film))
    back, _ = read_video(tmp_path / "a.mp4")
    assert back.shape == (3, 3, 48, 64)
    assert (back[:, :, :47, :63] - film).abs().mean() < 0.03
    assert (back[:, :, 47] - back[:, :, 46]).abs().mean() < 0.05


def test_film_is_h264_in_a_browsers_pixel_format(tmp_path):
    av = pytest.importorskip("av")
    if write_video(tmp_path / "a.mp4", moving_square(2)) == "mpeg4":
        pytest.skip("this build of PyAV has no H.264 encoder")
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert context.name == "h264"
        assert context.pix_fmt == "yuv420p"


def test_nothing_is_left_behind_when_frames_fail(tmp_path):
    def frames():
        yield torch.zeros(3, 16, 16)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", frames())
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(tmp_path / "a.mp4", [])
    with pytest.raises(ValueError, match="share one size"):
        write_video(tmp_path / "a.mp4", [torch.zeros(3, 16, 16), torch.zeros(3, 16, 18)])
    assert list(tmp_path.iterdir()) == []


def test_reader_refuses_what_is_no_film(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_video(tmp_path / "none.mp4")
    (tmp_path / "a.mp4").write_bytes(b"no film")
    with pytest.raises(ValueError, match="not a film"):
        read_video(tmp_path / "a.mp4")
