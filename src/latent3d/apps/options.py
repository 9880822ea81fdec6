"""How options without a fixed default present themselves in ``--help``."""

from __future__ import annotations

import tyro


def option(metavar: str, default: str):
    """Annotation of an option whose default is worked out later: shows ``metavar`` and says ``default`` in words."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")
