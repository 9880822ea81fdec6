"""Processes that prepare data never fork: a child of a process that has computed in parallel can hang."""

import ast
from pathlib import Path

import latent3d

PACKAGE = Path(latent3d.__file__).parent


def unsafe_workers(source: str) -> list[str]:
    """Calls that would start processes otherwise than by ``spawn``, as "line: what"."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).split(".")[-1]
        keywords = {keyword.arg for keyword in node.keywords}
        first = ast.literal_eval(node.args[0]) if node.args and isinstance(node.args[0], ast.Constant) else None
        if name == "ProcessPoolExecutor" and "mp_context" not in keywords:
            found.append(f"{node.lineno}: a pool without mp_context")
        if name in {"get_context", "set_start_method"} and first != "spawn":
            found.append(f"{node.lineno}: {name}({first!r})")
        if name == "DataLoader" and "num_workers" in keywords and "multiprocessing_context" not in keywords:
            found.append(f"{node.lineno}: a loader without multiprocessing_context")
        if ast.unparse(node.func) in {"os.fork", "multiprocessing.Process", "multiprocessing.Pool"}:
            found.append(f"{node.lineno}: {ast.unparse(node.func)}")
    return found


def test_all_processes_of_the_package_are_spawned():
    found = {path.name: unsafe_workers(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
    assert not {name: calls for name, calls in found.items() if calls}


def test_a_planted_fork_is_found():
    planted = (
        "ProcessPoolExecutor(2)\nget_context('fork')\nDataLoader(data, num_workers=2)\nos.fork()\n"
        "ProcessPoolExecutor(2, mp_context=get_context('spawn'))"
    )
    assert [call.split(":")[0] for call in unsafe_workers(planted)] == ["1", "2", "3", "4"]
