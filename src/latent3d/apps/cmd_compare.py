"""``latent3d compare``: what changed between two results of ``latent3d evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from latent3d.apps.options import option


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Differences between two results of evaluate, with intervals over scenes; paired where the scenes are the same."""

    first: tyro.conf.Positional[Path]
    """Result (.json) to compare with."""
    second: tyro.conf.Positional[Path]
    """Result (.json) that is compared; positive differences mean that it is larger."""
    out: Annotated[Path | None, option("FILE", "none")] = None
    """Markdown file for the table."""

    def run(self) -> None:
        from latent3d.evaluation.comparison import compare
        from latent3d.evaluation.records import read_record
        from latent3d.io.atomic import write_text

        first, second = read_record(self.first), read_record(self.second)
        text = compare(first, second, _names(self.first, self.second))
        print(text, end="")
        if self.out is not None:
            write_text(self.out, text)


def _names(first: Path, second: Path) -> tuple[str, str]:
    """Short names that tell the files apart: file names, with as many folders as it takes."""
    one, two = (path.resolve().with_suffix("").parts for path in (first, second))
    for count in range(1, max(len(one), len(two)) + 1):
        if one[-count:] != two[-count:]:
            return "/".join(one[-count:]), "/".join(two[-count:])
    return "first", "second"
