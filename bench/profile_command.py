"""Where the time of `latent3d scene` and `latent3d object` goes: a flame graph and a table of the largest costs.

    python bench/profile_command.py scene --out FOLDER [--clock wall] [--threads 2] [options of latent3d scene]
    python bench/profile_command.py object --out FOLDER --weights DIR

Runs the command in this process and looks at its main thread every few milliseconds, imports included. Kernels that are
compiled only once are compiled by a first run that does not count. Writes scene.svg (open it in a browser: the mouse
tells names, places and seconds) and scene.md. Imports stand together, and so does what numba does to load kernels;
frames of other packages are shown three deep. ``--clock cpu`` counts processor time of the main thread (Linux), for a
machine that has other work; use one thread then.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType

from flame_graph import COLORS, Frame, Node, flame_graph, parts, tree
from tables import described, machine, markdown

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "latent3d"
DEFAULTS = {"scene": [str(ROOT / "examples" / "room.jpg")], "object": []}
INTERVAL = 0.002
OUTSIDE_LEVELS = 3
"""Frames of other packages that are shown below each other."""
NETWORKS = ("denoisers", "autoencoders", "conditioning", "nn", "diffusion")
THROUGH = (
    *("importlib/", "contextlib.py", "functools.py", "latent3d/memory.py"),
    *("torch/nn/modules/module.py", "torch/utils/_contextlib.py", "torch/autograd/function.py"),
)
"""Files whose frames only pass calls on."""
NAMELESS = ("<lambda>", "<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>")

RawStack = tuple[tuple[CodeType, int], ...]


class Sampler:
    """Seconds of the calling thread by stack, while in a ``with`` block; looked at every few milliseconds.

    Code that keeps the interpreter's lock delays a look; the time since the last one counts for what is seen then,
    which is where that code was called.
    """

    def __init__(self, clock: str = "wall", interval: float = INTERVAL) -> None:
        self.seconds: dict[RawStack, float] = defaultdict(float)
        self.interval, self._stop = interval, threading.Event()
        self._watched = threading.get_ident()
        self._now = _thread_clock(self._watched) if clock == "cpu" else time.perf_counter
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        last = self._now()
        while not self._stop.wait(self.interval):
            frame = sys._current_frames().get(self._watched)
            now = self._now()
            stack = []
            while frame is not None:
                stack.append((frame.f_code, frame.f_lineno))
                frame = frame.f_back
            self.seconds[tuple(reversed(stack))] += now - last
            last = now


def _thread_clock(thread: int) -> Callable[[], float]:
    """Processor seconds of a thread.

    Raises:
        SystemExit: where the system does not tell them.
    """
    if not hasattr(time, "pthread_getcpuclockid"):
        raise SystemExit("this system does not tell a thread's processor time; leave --clock cpu out")
    clock = time.pthread_getcpuclockid(thread)
    return lambda: time.clock_gettime(clock)


def place_of(code: CodeType) -> str:
    """File of a function from its package's folder on, without the machine's folders."""
    path = code.co_filename.replace("\\", "/")
    for mark in ("/site-packages/", f"{PACKAGE.parent.as_posix()}/", f"/python3.{sys.version_info.minor}/"):
        if mark in path:
            return path.rsplit(mark, 1)[1]
    return path.removeprefix("<frozen ").removesuffix(">").replace(".", "/") if "<frozen" in path else Path(path).name


def described_frame(code: CodeType, line: int) -> Frame:
    """Name, place and kind of a function."""
    place = place_of(code)
    name = code.co_qualname.replace("<locals>.", "")
    first, _, rest = place.partition("/")
    if first != "latent3d":
        return Frame(f"{name} ({first.removesuffix('.py')})", place, "packages")
    room = rest.split("/")[0].removesuffix(".py")
    kind = "networks" if room in NETWORKS else room if room in COLORS else "other rooms"
    return Frame(name, f"{place}:{code.co_firstlineno}", kind)


def imported(stack: Sequence[tuple[CodeType, int]]) -> tuple[Frame, ...]:
    """A stack with an import in it, as the packages that are being imported: two deep, or latent3d's own modules."""
    places = [place_of(code) for code, _ in stack if code.co_name == "<module>"]
    packages = [place.split("/")[0].removesuffix(".py") for place in places if "/" in place]
    foreign = [name for name in packages if name not in ("latent3d", "importlib")]
    chain = list(dict.fromkeys(foreign))[:2] or ["latent3d" if "latent3d" in packages else "python"]
    return (Frame("imports", "import statements, wherever they run", "imports"),
            *(Frame(name, f"import of {name}, first asked for here", "imports") for name in chain))  # fmt: skip


def readable(stack: RawStack) -> tuple[Frame, ...]:
    """A stack as the graph shows it."""
    starts = (
        i for mark in ("latent3d/apps/cmd_", "latent3d/") for i, (code, _) in enumerate(stack) if mark in place_of(code)
    )
    stack = tuple(
        (code, line)
        for code, line in stack[next(starts, 0) :]
        if code.co_name not in NAMELESS and not place_of(code).startswith(THROUGH)
    )
    if any(code.co_name == "<module>" for code, _ in stack):
        return imported(stack)
    places = [place_of(code) for code, _ in stack]
    compiled = next((i for i, place in enumerate(places) if place.startswith("numba/")), None)
    if compiled is not None:
        asked = next((code for code, _ in reversed(stack[:compiled]) if place_of(code).startswith("latent3d/")), None)
        by = Frame(asked.co_qualname, place_of(asked), "kernels") if asked else Frame("numba", "numba", "kernels")
        return (Frame("numba: loading kernels", "reading compiled kernels from disk, or compiling them", "kernels"), by)
    frames: list[Frame] = []
    outside = 0
    for (code, line), place in zip(stack, places, strict=True):
        outside = 0 if place.startswith("latent3d/") else outside + 1
        if outside <= OUTSIDE_LEVELS:
            frames.append(described_frame(code, line))
    return tuple(frames)


def cost_tree(seconds: dict[RawStack, float], name: str) -> Node:
    """The tree of what was seen."""
    stacks: dict[tuple[Frame, ...], float] = defaultdict(float)
    for stack, value in seconds.items():
        stacks[readable(stack)] += value
    return tree(stacks, Frame(name, "everything from the first import to the end", "apps"))


def costs_table(root: Node, count: int = 16) -> str:
    """The call paths that add up to everything, as Markdown; long paths are cut in front."""
    rows = [
        (" › ".join(("… " if len(path) > 4 else "",) * (len(path) > 4) + path[-4:]) or root.frame.name, seconds,
         f"{seconds / root.seconds:.1%}")
        for path, seconds in parts(root, count)
    ]  # fmt: skip
    return markdown(("where", "s", "share"), rows)


def run_command(words: Sequence[str]) -> int:
    """Run latent3d in this process; its exit code."""
    from latent3d.apps.cli import main as latent3d

    try:
        latent3d(words)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Profile a command and write what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=DEFAULTS)
    parser.add_argument("--out", type=Path, default=Path("out/profile"))
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--once", action="store_true", help="no run before that compiles kernels")
    options, more = parser.parse_known_args(arguments)
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    given = more if any(not word.startswith("--") for word in more[:1]) else [*DEFAULTS[options.command], *more]
    with tempfile.TemporaryDirectory() as place:
        words = [options.command, *given, "--out", str(Path(place) / "result"), "--overwrite"]
        if not options.once:
            subprocess.run([sys.executable, "-c", "from latent3d.apps.cli import main; main()", *words], check=True)
        with Sampler(options.clock) as sampler:
            code = run_command(words)
    if code:
        return code
    name = f"latent3d {options.command}"
    root = cost_tree(sampler.seconds, name)
    kind = "processor seconds of the main thread" if options.clock == "cpu" else "seconds"
    title = f"{name}: {root.seconds:.1f} {kind}, {options.threads} thread{'s' * (options.threads > 1)}"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.command}.svg").write_text(flame_graph(root, title), encoding="utf-8")
    table = costs_table(root)
    text = f"# {title}\n\n{described(machine(options.threads, options.clock))}\n\n{table}"
    (options.out / f"{options.command}.md").write_text(text, encoding="utf-8")
    print(f"\n{title}\n\n{table}\nwrote {options.out}/{options.command}.svg and .md")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
