"""latent3d: generating 3D with latent diffusion."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latent3d.apps.objects import LN3Diff, Prompt
    from latent3d.apps.pipelines import GGS

__version__ = "0.1.0"
__all__ = ["GGS", "LN3Diff", "Prompt", "__version__"]

_FACADE = {"GGS": "apps.pipelines", "LN3Diff": "apps.objects", "Prompt": "apps.objects"}


def __getattr__(name: str) -> Any:
    # The facade is imported when it is first used, so that `import latent3d` stays light.
    if name in _FACADE:
        return getattr(importlib.import_module(f"latent3d.{_FACADE[name]}"), name)
    raise AttributeError(f"module 'latent3d' has no attribute '{name}'")
