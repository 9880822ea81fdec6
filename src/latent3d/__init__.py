"""latent3d: generating 3D with latent diffusion."""

__version__ = "0.1.0"
