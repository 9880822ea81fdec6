"""docs/conventions.md names a test for every convention, and all of them exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def _rows() -> list[str]:
    lines = (ROOT / "docs/conventions.md").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("|") and not line.startswith(("|---", "| convention |"))]


def missing_tests(text: str) -> list[str]:
    missing = []
    for file, name in REFERENCE.findall(text):
        path = ROOT / file
        tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.Module([], [])
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        if name not in names:
            missing.append(f"{file}::{name}")
    return missing


def test_every_convention_is_pinned_by_tests_that_exist():
    rows = _rows()
    assert len(rows) > 25
    unpinned = [row for row in rows if not REFERENCE.search(row)]
    assert not unpinned, "\n".join(unpinned)
    assert missing_tests("\n".join(rows)) == []


@pytest.mark.parametrize("planted", ["tests/test_config.py::test_no_such", "tests/none.py::test_x"])
def test_a_planted_reference_to_nothing_is_found(planted):
    assert missing_tests(f"`{planted}`") == [planted]


def test_the_ambiguous_word_for_poses_is_not_used():
    word = "extrin" + "sic"
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").rglob("*.md")]
    assert len(files) > 20
    using = [str(path.relative_to(ROOT)) for path in files if word in path.read_text(encoding="utf-8").lower()]
    assert using == []
