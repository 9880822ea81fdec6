"""Where time went, as a tree of calls: flame graphs (SVG, top-down), and the parts that add up to everything.

A stack is a tuple of frames, the outermost first, with the seconds spent in its last frame.
"""

from __future__ import annotations

import html
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

WIDTH, ROW, HEAD, MARGIN = 1200, 19, 58, 8
CHARACTER = 6.3
"""Mean width in pixels of a character of the labels."""
COLORS = {
    "apps": "#f4c95d",
    "io": "#f2a65a",
    "systems": "#ee8a6d",
    "networks": "#e5739b",
    "rendering": "#8fb8ed",
    "other rooms": "#b9a7e0",
    "imports": "#a8d5ba",
    "kernels": "#7cc6c3",
    "packages": "#d6d9dd",
    "small": "#eeeeee",
}
"""Of the boxes, by kind of frame."""


class Frame(NamedTuple):
    """A function, or another thing that time is spent in.

    Attributes:
        name: what the box says.
        place: file and line, or other explanation, for the title that appears when the mouse is over the box.
        kind: key of `COLORS`.
    """

    name: str
    place: str
    kind: str


@dataclass
class Node:
    """A frame with the seconds spent in it and below it."""

    frame: Frame
    seconds: float = 0.0
    children: dict[Frame, Node] = field(default_factory=dict)

    @property
    def own(self) -> float:
        """Seconds spent in the frame itself."""
        return max(0.0, self.seconds - sum(child.seconds for child in self.children.values()))

    def sorted(self) -> list[Node]:
        """Children, the largest first."""
        return sorted(self.children.values(), key=lambda child: -child.seconds)


def tree(stacks: Mapping[tuple[Frame, ...], float], root: Frame) -> Node:
    """All stacks below one root."""
    top = Node(root)
    for stack, seconds in stacks.items():
        node = top
        node.seconds += seconds
        for frame in stack:
            node = node.children.setdefault(frame, Node(frame))
            node.seconds += seconds
    return top


def merged(node: Node, least: float) -> Node:
    """The tree with all children below ``least`` seconds put together, without what is below them."""
    small = [child for child in node.sorted() if child.seconds < least]
    children = {child.frame: merged(child, least) for child in node.sorted() if child.seconds >= least}
    total = sum(child.seconds for child in small)
    if small and total >= least:
        names = ", ".join(f"{child.frame.name} {child.seconds:.2f} s" for child in small[:4])
        frame = Frame(f"{len(small)} smaller", names, "small")
        children[frame] = Node(frame, total)
    return Node(node.frame, node.seconds, children)


def parts(root: Node, count: int, least: float = 0.02) -> list[tuple[tuple[str, ...], float]]:
    """At most ``count`` + 1 call paths that add up to the root, the largest first and the rest last.

    The largest path is opened again and again into its children, as long as there is room for those of at least
    ``least`` times the root; what is left of an opened path, its own time included, goes to the rest.
    """
    closed: list[tuple[tuple[str, ...], float]] = []
    leaves: list[tuple[tuple[str, ...], Node]] = [((), root)]
    while leaves:
        leaves.sort(key=lambda leaf: leaf[1].seconds)
        path, node = leaves.pop()
        large = [child for child in node.sorted() if child.seconds >= least * root.seconds]
        shown = sum(child.seconds for child in large)
        opens = bool(large) and (node is root or shown >= 0.6 * node.seconds)
        if opens and len(leaves) + len(closed) + len(large) <= count:
            leaves += [((*path, child.frame.name), child) for child in large]
        else:
            closed.append((path, node.seconds))
    closed.sort(key=lambda part: -part[1])
    rest = root.seconds - sum(seconds for _, seconds in closed)
    return closed + ([(("the rest",), rest)] if rest > 1e-9 * root.seconds else [])


def depth(node: Node) -> int:
    """Levels of the tree."""
    return 1 + max((depth(child) for child in node.children.values()), default=0)


def flame_graph(root: Node, title: str, least: float = 0.005) -> str:
    """The tree as an SVG picture, self-contained; boxes below ``least`` times the root are put together.

    The width of a box is its time, the root is at the top, siblings stand from large to small, and what is below a box
    was called by it.
    """
    shown = merged(root, least * root.seconds)
    height = HEAD + depth(shown) * ROW + MARGIN
    boxes: list[str] = []
    _boxes(shown, root.seconds, float(MARGIN), HEAD, WIDTH - 2 * MARGIN, boxes)
    kinds = {frame.kind for frame in _frames(shown)}
    legend, left = [], float(MARGIN)
    for kind, color in COLORS.items():
        if kind in kinds and kind != "small":
            legend.append(f'<rect x="{left:.0f}" y="34" width="12" height="12" rx="2" fill="{color}"/>')
            legend.append(f'<text x="{left + 16:.0f}" y="44">{html.escape(kind)}</text>')
            left += 34 + CHARACTER * len(kind)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}">',
            "<style>text { font: 11px Verdana, 'DejaVu Sans', sans-serif; fill: #222 } .title { font-size: 14px }",
            "g.box:hover rect { stroke: #222; stroke-width: 1.2 }</style>",
            f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
            f'<text class="title" x="{MARGIN}" y="21">{html.escape(title)}</text>',
            *legend,
            *boxes,
            "</svg>",
            "",
        ]
    )


def _boxes(node: Node, total: float, x: float, y: float, width: float, out: list[str]) -> None:
    share = node.seconds / total
    own = f", {node.own:.2f} s of it itself" if node.children and node.own > 0 else ""
    about = f"{node.frame.name}\n{node.frame.place}\n{node.seconds:.2f} s, {share:.1%}{own}"
    color = _tinted(COLORS[node.frame.kind], node.frame.name)
    out.append(
        f'<g class="box"><title>{html.escape(about)}</title>'
        f'<rect x="{x:.2f}" y="{y}" width="{width:.2f}" height="{ROW - 1}" rx="2" fill="{color}" stroke="#fff" '
        f'stroke-width="0.6"/>{_label(node, share, x, y, width)}</g>'
    )
    for child in node.sorted():
        part = width * child.seconds / node.seconds
        _boxes(child, total, x, y + ROW, part, out)
        x += part


def _label(node: Node, share: float, x: float, y: float, width: float) -> str:
    """The name with its share, or what the box has room for: the name, its telling part, the start of that."""
    room = int((width - 6) / CHARACTER)
    if room < 3:
        return ""
    name = node.frame.name
    owner, _, function = name.partition(" ")[0].rpartition(".")
    short = owner.rpartition(".")[2] if function in ("forward", "__call__", "build") and owner else function or name
    choices = (f"{name} {share:.0%}", name, f"{short} {share:.0%}", short)
    said = next((choice for choice in choices if len(choice) <= room), short[: room - 1] + "…")
    return f'<text x="{x + 3:.2f}" y="{y + 13}">{html.escape(said)}</text>'


def _tinted(color: str, name: str) -> str:
    """The colour, a little lighter or darker by name, so that neighbours of one kind can be told apart."""
    change = zlib.crc32(name.encode()) % 25 - 12
    channels = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{min(255, max(0, channel + change)):02x}" for channel in channels)


def _frames(node: Node) -> list[Frame]:
    return [node.frame, *(frame for child in node.children.values() for frame in _frames(child))]
