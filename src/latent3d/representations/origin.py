"""Where the splats of a generated scene come from: what was seen, what follows from it, what the model made up."""

from __future__ import annotations

from enum import IntEnum


class Origin(IntEnum):
    """Origin of one splat; files store the number as the attribute `ORIGIN_ATTRIBUTE`.

    Attributes:
        SEEN: a pixel of a reference picture.
        INTERPOLATED: from a generated view, at a place that a reference picture shows: inside its frame and not behind
            the surface it sees there.
        INVENTED: from a generated view, at a place that no reference shows: outside all frames or hidden in them.
    """

    SEEN = 0
    INTERPOLATED = 1
    INVENTED = 2


ORIGIN_ATTRIBUTE = "origin"
"""Name of the attribute in .ply files of splats."""
