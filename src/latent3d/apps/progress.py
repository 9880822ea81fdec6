"""Progress bars; they live outside samplers and writers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from tqdm import tqdm


@runtime_checkable
class Progress(Protocol):
    """Called with a stage's name and its number of steps; the result is called once per finished step."""

    def __call__(self, stage: str, total: int) -> Callable[[], None]: ...


_open_bars: list[tqdm] = []


def quiet(stage: str, total: int) -> Callable[[], None]:
    """No bar."""
    return lambda: None


def bar(stage: str, total: int) -> Callable[[], None]:
    """A tqdm bar on stderr that closes itself after its last step."""
    line = tqdm(total=total, desc=f"{stage:<10}", leave=True, dynamic_ncols=True)

    _open_bars.append(line)

    def step() -> None:
        line.update()
        if line.n >= total:
            line.close()
            _open_bars.remove(line)

    return step


def close_bars() -> None:
    """End the lines of bars that an error cut short, so that a message starts on its own line."""
    while _open_bars:
        _open_bars.pop().close()
