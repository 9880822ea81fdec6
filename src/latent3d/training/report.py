"""What a person sees of a run: a progress bar with the time left, and short notices."""

from __future__ import annotations

import sys

from tqdm import tqdm


class Reporter:
    """Progress on stderr, or silence."""

    def __init__(self, visible: bool) -> None:
        self.visible = visible

    def say(self, text: str) -> None:
        """One line that does not break the bar."""
        if self.visible:
            tqdm.write(text, file=sys.stderr)

    def bar(self, title: str, total: int, done: int) -> tqdm:
        """A bar over ``total`` steps of which ``done`` are behind; rarely redrawn where stderr is a file."""
        interval = 0.2 if sys.stderr.isatty() else 15.0
        return tqdm(
            total=total, initial=done, desc=title, unit="step", disable=not self.visible, mininterval=interval,
            dynamic_ncols=True,
        )  # fmt: skip
