"""Real parts at their smallest: a tiny GGS model with random weights, and a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latent3d.apps.cli import main
from latent3d.presets import ggs_rooms_tiny
from latent3d.weights import save_weights


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """Folder of a tiny model with random weights."""
    torch.manual_seed(0)
    config = ggs_rooms_tiny().system
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    card = {"licence": "Apache-2.0", "data": "random numbers"}
    return save_weights(folder, config.build(), config, card)


@pytest.fixture(scope="session")
def picture(tmp_path_factory) -> Path:
    """A 60 x 40 photo-like JPEG."""
    ys, xs = np.mgrid[:40, :60]
    data = np.stack([xs * 4, ys * 6, (xs // 8 + ys // 8) % 2 * 200], -1).astype(np.uint8)
    path = tmp_path_factory.mktemp("picture") / "photo.jpg"
    Image.fromarray(data).save(path, quality=95)
    return path


@pytest.fixture
def run(capsys) -> Callable[..., tuple[int, str, str]]:
    """``run("scene", path, ...)``: the command line in this process; exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        code = caught.value.code
        return (code if isinstance(code, int) else 0 if code is None else 1), out, err

    return call
