"""Our own ``cameras.json`` (see `latent3d.io.camera_files`) beside its pictures, with distortion and depth.

Next to what the format asks for, a frame may carry ``dist`` (k1 k2 p1 p2 [k3 [k4 k5 k6]]), ``depth`` (a file of
z-depths) and ``depth_metres_per_unit`` (scene units per stored number).
"""

from __future__ import annotations

from pathlib import Path

from latent3d.data.captures.capture import Capture
from latent3d.data.captures.collect import Collector, Reading, find_picture, number, numbers, read_json
from latent3d.data.captures.lens import Lens
from latent3d.data.captures.pictures import DepthFile


def read_own(path: Path, reading: Reading) -> Capture:
    """A ``cameras.json``; frames that name no picture are cameras only."""
    content = read_json(path)
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list):
        raise ValueError(f"'{path}' has no list 'frames'; see the format in docs/formats.md")
    collector = Collector(path.parent, "cameras.json", reading)
    named = any(isinstance(frame, dict) and frame.get("image", frame.get("file")) for frame in frames)
    for index, frame in enumerate(frames):
        picture = frame.get("image", frame.get("file")) if isinstance(frame, dict) else None
        with collector.frame(str(picture or f"frame {index}")):
            if not isinstance(frame, dict):
                raise ValueError("a frame must be an object with 'camera_to_world' and 'K'")
            if named and not isinstance(picture, str):
                raise ValueError("the frame names no picture")
            height, width = (round(number(frame.get(s, content.get(s)), f"'{s}'")) for s in ("height", "width"))
            dist = frame.get("dist") or []
            lens = Lens(tuple(numbers(dist, (len(dist),), "'dist'"))) if any(dist) else Lens()
            depth = frame.get("depth")
            unit = number(frame.get("depth_metres_per_unit"), "'depth_metres_per_unit'", 0.001)
            collector.metric = collector.metric or depth is not None
            collector.add(
                str(picture or f"frame {index}"),
                frame.get("camera_to_world"),
                numbers(frame.get("K"), (3, 3), "'K'"),
                (height, width),
                find_picture(path.parent, picture) if isinstance(picture, str) else None,
                lens,
                DepthFile(path.parent / depth, unit) if isinstance(depth, str) else None,
            )
    return collector.capture()
