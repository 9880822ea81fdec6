"""Imports go down only, the lower rooms touch nothing outside, and ``import latent3d`` is light and silent."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import latent3d

PACKAGE = Path(latent3d.__file__).parent
RECORDS = {"geometry", "representations"}
MODELS = {"autoencoders", "conditioning", "denoisers"}
SYSTEMS = RECORDS | MODELS | {"rendering", "diffusion", "nn", "systems"}
EVERYTHING = {path.stem for path in PACKAGE.iterdir()}

MAY_IMPORT = {
    "config": set(),
    "optional": set(),
    "hardware": set(),
    "memory": set(),
    "weights": {"config"},
    "presets": EVERYTHING - {"apps", "presets"},
    "object_presets": EVERYTHING - {"apps", "presets", "object_presets"},
    "object_presets_paper": EVERYTHING - {"apps", "presets", "object_presets"},
    "geometry": set(),
    "representations": {"geometry"},
    "rendering": RECORDS,
    "diffusion": set(),
    "nn": set(),
    "conditioning": RECORDS | {"nn"},
    "autoencoders": RECORDS | {"nn"},
    "denoisers": RECORDS | {"nn", "conditioning"},
    "systems": SYSTEMS,
    "worlds": RECORDS | {"rendering"},
    "io": RECORDS,
    "data": RECORDS | {"worlds", "io", "rendering"},
    "training": SYSTEMS | {"data", "worlds", "weights", "io", "presets", "evaluation", "hardware"},
    "evaluation": SYSTEMS | {"data", "worlds", "weights", "io", "hardware"},
    "apps": EVERYTHING,
}
"""Rooms (packages, modules) that each room may import, besides itself, ``config``, ``memory`` and ``optional``."""

PURE = ("geometry", "representations", "rendering", "diffusion", "nn", "conditioning", "autoencoders", "denoisers")
"""Rooms at or below ``systems`` (which is added below): no files, command line, logging or user interface.

One kind of file is excepted: ``pretrained.py`` imports foreign weights, and reads the folder that it is given.
"""
OUTSIDE_WORLD = {
    *("argparse", "tyro", "click", "logging", "tqdm", "viser", "tensorboard", "rich"),
    *("io", "json", "shutil", "tempfile", "subprocess", "PIL", "imageio", "av", "safetensors"),
}


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path, source: str) -> list[tuple[int, str]]:
    """Line and absolute dotted name of every import of a file, wherever in it."""
    package = ("latent3d", *path.relative_to(PACKAGE).parts[:-1])
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*base, *([node.module] if node.module else [])))
            found += [(node.lineno, f"{stem}.{alias.name}") for alias in node.names]
    return found


def upward_imports(path: Path, source: str) -> list[str]:
    room = _room(path)
    allowed = MAY_IMPORT[room] | {room, "config", "memory", "optional", "__version__"}
    arrows = []
    for line, name in _imports(path, source):
        parts = name.split(".")
        if parts[0] == "latent3d" and len(parts) > 1 and parts[1] not in allowed:
            arrows.append(f"{path.relative_to(PACKAGE)}:{line}: {room} must not import {parts[1]}")
    return arrows


def outside_contacts(path: Path, source: str) -> list[str]:
    contacts = [
        f"{path.relative_to(PACKAGE)}:{line}: {_room(path)} must not use {name}"
        for line, name in _imports(path, source)
        if name.split(".")[0] in OUTSIDE_WORLD
    ]
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"open", "print", "input"}
        ):
            contacts.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {_room(path)} must not call {node.func.id}()")
    return contacts


def _modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def test_every_room_has_its_place_in_the_order():
    assert {_room(path) for path in _modules()} <= set(MAY_IMPORT)


def test_imports_go_down_only():
    arrows = [arrow for path in _modules() for arrow in upward_imports(path, path.read_text(encoding="utf-8"))]
    assert not arrows, "\n".join(arrows)


def test_systems_and_below_touch_no_files_and_no_user_interface():
    rooms = {*PURE, "systems"}
    contacts = [
        contact
        for path in _modules()
        if _room(path) in rooms and path.name != "pretrained.py"
        for contact in outside_contacts(path, path.read_text(encoding="utf-8"))
    ]
    assert not contacts, "\n".join(contacts)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("geometry/x.py", "from latent3d.representations.views import Views"),
        ("nn/x.py", "import latent3d.geometry.cameras"),
        ("rendering/x.py", "def f():\n    from latent3d.systems import ggs"),
        ("diffusion/x.py", "from latent3d import nn"),
        ("representations/x.py", "from ..rendering.base import Rendering"),
        ("worlds/x.py", "from latent3d.denoisers.base import Denoiser"),
    ],
)
def test_a_planted_upward_import_is_found(file, source):
    assert len(upward_imports(PACKAGE / file, source)) == 1


def test_downward_and_sideways_imports_are_free():
    source = (
        "from latent3d.geometry.rays import x\nfrom . import base\nfrom latent3d.config import Config\nimport torch"
    )
    assert upward_imports(PACKAGE / "rendering/x.py", source) == []


@pytest.mark.parametrize("source", ["import logging", "from PIL import Image", "print(1)", "with open('a') as f: pass"])
def test_a_planted_contact_with_the_outside_is_found(source):
    assert len(outside_contacts(PACKAGE / "systems/x.py", source)) == 1


HEAVY = ("torch", "diffusers", "transformers", "numba", "viser", "av", "cv2", "scipy", "trimesh", "tyro", "PIL")


def test_importing_the_package_is_light_and_silent():
    code = f"import latent3d, sys, json; sys.stderr.flush(); out = [m for m in {HEAVY} if m in sys.modules]"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{code}; sys.exit(json.dumps(out) if out else 0)"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_module_imports_silently():
    """Nothing prints at import, in any module that needs no optional package."""
    names = [
        ".".join(("latent3d", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in _modules()
        if "triton" not in path.name
    ]
    code = "import importlib, json, sys\nfor name in json.loads(sys.argv[1]): importlib.import_module(name)"
    command = [sys.executable, "-W", "ignore", "-c", code, json.dumps(names)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
