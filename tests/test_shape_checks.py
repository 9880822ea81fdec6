"""A wrong shape fails under test and costs nothing in production."""

import subprocess
import sys

import pytest
import torch
from jaxtyping import TypeCheckError

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.rays import pixel_grid, rays_z1
from latent3d.representations.gaussians import Gaussians


def test_planted_wrong_shape_in_a_record_fails():
    with pytest.raises(TypeCheckError, match="k"):
        Cameras(w2c=torch.eye(4).expand(2, 4, 4), k=torch.eye(3).expand(5, 3, 3), height=4, width=4)
    with pytest.raises(TypeCheckError, match="opacities"):
        Gaussians(
            means=torch.zeros(3, 3),
            quaternions=torch.zeros(3, 4),
            scales=torch.ones(3, 3),
            opacities=torch.ones(3, 1),
        )


def test_planted_wrong_shape_in_a_function_fails():
    cameras = Cameras.from_fov(torch.eye(4), 60.0, 4, 4)
    homogeneous = torch.cat([pixel_grid(4, 4).flatten(0, 1), torch.ones(16, 1)], -1)
    with pytest.raises(TypeCheckError, match="pixels"):
        rays_z1(homogeneous, cameras)


def test_production_does_not_check():
    code = (
        "import torch; from latent3d.geometry.cameras import Cameras; "
        "Cameras(w2c=torch.zeros(2, 4, 4), k=torch.zeros(5, 3, 3), height=4, width=4)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
