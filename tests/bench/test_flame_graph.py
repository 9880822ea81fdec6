"""Flame graphs: a tree whose parts add up, an SVG that is one, and a sampler that sees where time goes."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from flame_graph import COLORS, MARGIN, WIDTH, Frame, flame_graph, merged, parts, tree
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_command import Sampler, cost_tree, costs_table, place_of, readable

SVG = "{http://www.w3.org/2000/svg}"


def frame(name: str, kind: str = "packages") -> Frame:
    return Frame(name, f"{name}.py:1", kind)


def known():
    a, b, c, d = (frame(name) for name in "abcd")
    return tree({(a,): 1.0, (a, b): 2.0, (a, c): 4.0, (d,): 2.97, (d, frame("<&>")): 0.03}, frame("all", "apps"))


stacks = st.dictionaries(
    st.lists(st.sampled_from([frame(name) for name in "abcdef"]), min_size=1, max_size=5).map(tuple),
    st.floats(0.001, 10),
    min_size=1,
    max_size=30,
)


def test_seconds_of_a_known_tree():
    root = known()
    assert root.seconds == pytest.approx(10)
    a, d = root.sorted()
    assert (a.frame.name, a.seconds, a.own) == ("a", 7.0, 1.0)
    assert [child.frame.name for child in a.sorted()] == ["c", "b"]
    assert d.own == pytest.approx(2.97)


def test_small_boxes_are_put_together_and_keep_the_sum():
    a, b, c, d = (frame(name) for name in "abcd")
    root = merged(tree({(a,): 9.0, (b,): 0.4, (c, d): 0.3}, frame("all")), 0.5)
    assert [(child.frame.name, child.seconds) for child in root.sorted()] == [("a", 9.0), ("2 smaller", 0.7)]
    assert "b 0.40 s" in root.sorted()[1].frame.place


@given(stacks)
@settings(max_examples=30, deadline=None)
def test_parts_add_up_and_do_not_contain_each_other(given_stacks):
    root = tree(given_stacks, frame("all"))
    found = parts(root, 8)
    assert math.fsum(seconds for _, seconds in found) == pytest.approx(root.seconds)
    assert len(found) <= 9
    paths = [path for path, _ in found]
    assert not [(p, q) for p in paths for q in paths if p != q and q[: len(p)] == p]


def test_known_parts():
    assert parts(known(), 8)[0] == (("a", "c"), 4.0)
    assert parts(known(), 8)[1] == (("d",), pytest.approx(3.0))
    assert parts(known(), 8)[-1] == (("the rest",), pytest.approx(1.0))


@given(stacks)
@settings(max_examples=20, deadline=None)
def test_boxes_lie_within_the_box_above_and_are_as_wide_as_their_time(given_stacks):
    root = tree(given_stacks, frame("all"))
    svg = ElementTree.fromstring(flame_graph(root, "a title & more"))
    assert svg.tag == SVG + "svg"
    rows: dict[float, list[tuple[float, float]]] = {}
    for box in svg.iter(SVG + "g"):
        rect = box.find(SVG + "rect")
        rows.setdefault(float(rect.get("y")), []).append((float(rect.get("x")), float(rect.get("width"))))
        assert box.find(SVG + "title").text
    (top,) = rows[min(rows)]
    assert top == (MARGIN, WIDTH - 2 * MARGIN)
    above = [top]
    for _, boxes in sorted(rows.items()):
        boxes.sort()
        assert all(x + width <= other + 0.05 for (x, width), (other, _) in pairwise(boxes))
        for x, width in boxes:
            assert any(left - 0.05 <= x and x + width <= left + room + 0.05 for left, room in above)
        above = boxes
    # Children of the root are as wide as their share of its time.
    second = rows.get(sorted(rows)[1], []) if len(rows) > 1 else []
    assert sum(width for _, width in second) == pytest.approx(top[1], rel=0.01)


def test_names_are_escaped_and_titles_tell_seconds():
    text = flame_graph(known(), "what <we> saw", least=0.0)
    svg = ElementTree.fromstring(text)
    titles = [title.text for title in svg.iter(SVG + "title")]
    assert any(title.startswith("<&>\n<&>.py:1\n0.03 s, 0.3%") for title in titles)
    assert any("7.00 s, 70.0%, 1.00 s of it itself" in title for title in titles)
    assert "what <we> saw" in [label.text for label in svg.iter(SVG + "text")]


def test_every_color_is_one():
    assert all(len(color) == 7 and int(color[1:], 16) >= 0 for color in COLORS.values())


def busy(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        math.sqrt(2.0)


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="no clock of a thread")
def test_the_sampler_sees_where_time_goes():
    with Sampler("cpu", interval=0.001) as sampler:
        busy(0.3)
    root = cost_tree(sampler.seconds, "test")
    names = {code.co_name for stack in sampler.seconds for code, _ in stack}
    assert "busy" in names
    inside = sum(s for stack, s in sampler.seconds.items() if any(code.co_name == "busy" for code, _ in stack))
    assert inside == pytest.approx(root.seconds, rel=0.2)
    assert root.seconds == pytest.approx(0.3, rel=0.3)  # processor time, whatever else runs
    assert costs_table(root).startswith("| where | s | share |")


def code_at(file: str, name: str):
    source = f"def {name}():\n    pass\n" if name != "<module>" else "pass"
    module = compile(source, file, "exec")
    return module if name == "<module>" else module.co_consts[0]


def test_stacks_are_readable_imports_together_and_packages_three_deep():
    site = "/x/lib/python3.11/site-packages/"
    run = (code_at(f"{site}latent3d/apps/cmd_scene.py", "run"), 1)
    assert place_of(run[0]) == "latent3d/apps/cmd_scene.py"
    cli = (code_at(f"{site}latent3d/apps/cli.py", "main"), 1)
    foreign = [(code_at(f"{site}torch/a.py", f"f{i}"), i) for i in range(9)]
    passing = (code_at(f"{site}torch/nn/modules/module.py", "_call_impl"), 1)
    seen = readable((cli, run, passing, *foreign))
    assert [one.name for one in seen] == ["run", "f0 (torch)", "f1 (torch)", "f2 (torch)"]
    loading = readable((run, (code_at(f"{site}torch/__init__.py", "<module>"), 1), *foreign))
    assert [one.name for one in loading] == ["imports", "torch"]
    kernels = readable((run, (code_at(f"{site}numba/core/dispatcher.py", "compile"), 1)))
    assert [one.kind for one in kernels] == ["kernels", "kernels"]
