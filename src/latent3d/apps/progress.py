"""Progress bars; they live outside samplers and writers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tqdm import tqdm


class Progress(Protocol):
    """Called with a stage's name and its number of steps; the result is called once per finished step."""

    def __call__(self, stage: str, total: int) -> Callable[[], None]: ...


def quiet(stage: str, total: int) -> Callable[[], None]:
    """No bar."""
    return lambda: None


def bar(stage: str, total: int) -> Callable[[], None]:
    """A tqdm bar on stderr that closes itself after its last step."""
    line = tqdm(total=total, desc=f"{stage:<10}", leave=True, dynamic_ncols=True)

    def step() -> None:
        line.update()
        if line.n >= total:
            line.close()

    return step
