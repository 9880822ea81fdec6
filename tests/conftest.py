"""What all tests share: run-time shape checks, one thread per worker, and the way to data outside the repository.

Shapes: every function and dataclass in a module of ``latent3d`` that imports jaxtyping is checked with beartype against
its annotations while the tests run; a normal import checks nothing. Modules with compiled functions (numba, Triton) are
left out, because a compiler needs the bare function.
"""

from __future__ import annotations

import ast
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
import torch
from jaxtyping import install_import_hook

COMPILERS = {"numba", "triton"}


def _is_checked(source: str) -> bool:
    """Whether a module imports jaxtyping, and neither imports a compiler nor decorates a function with one."""
    imported, decorators = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported.update(alias.name.split(".")[0] for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.split(".")[0])
        decorators.update(
            ast.unparse(item).split("(")[0].split(".")[-1] for item in getattr(node, "decorator_list", [])
        )
    compiled = bool(imported & COMPILERS) or any(name.endswith("jit") or name == "compiled" for name in decorators)
    return "jaxtyping" in imported and not compiled


def _checked_modules() -> list[str]:
    package = Path(importlib.util.find_spec("latent3d").origin).parent
    files = [path for path in sorted(package.rglob("*.py")) if path.name != "__init__.py"]
    plain = [path for path in files if _is_checked(path.read_text(encoding="utf-8"))]
    return [".".join(("latent3d", *path.relative_to(package).with_suffix("").parts)) for path in plain]


install_import_hook(_checked_modules(), "beartype.beartype")
hypothesis.settings.register_profile("latent3d", deadline=None, derandomize=True)
hypothesis.settings.load_profile("latent3d")

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_draws_in_every_run():
    """What a test draws from torch's global generator is the same alone, in company and in any order."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """``shared_data("posed_fox/cameras.json")``: a file or folder of ../shared/data; skips where it is absent."""

    def locate(name: str) -> Path:
        for folder in Path(__file__).resolve().parents:
            candidate = folder / "shared" / "data" / name
            if candidate.exists():
                return candidate
        pytest.skip(f"needs shared/data/{name} beside the repository, which is not there")

    return locate
