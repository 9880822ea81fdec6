"""latent3d: generating 3D with latent diffusion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latent3d.apps.pipelines import GGS

__version__ = "0.1.0"
__all__ = ["GGS", "__version__"]


def __getattr__(name: str) -> Any:
    # The facade is imported when it is first used, so that `import latent3d` stays light.
    if name == "GGS":
        from latent3d.apps.pipelines import GGS

        return GGS
    raise AttributeError(f"module 'latent3d' has no attribute '{name}'")
