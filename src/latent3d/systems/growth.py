"""Scenes that grow: any number of references and views, a few at a time (GGS sections 3.4 and 4.3; spec 6).

Every chunk takes one to three references and a handful of target views. What exists already is rendered into all of
them and conditions the model, which so only fills in what is missing; its splats are then fused into the scene. Memory
per chunk does not depend on the length of the path, but for the splats themselves.

Letters: m = all views (references first, then targets), k = references, n = splats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.view_order import path_order, view_distances
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.origin import Origin
from latent3d.representations.views import Views
from latent3d.systems.ggs import GGSOutput, GGSSystem, SamplingStep
from latent3d.systems.origins import SURFACE_TOLERANCE, SampledSurface, origin_of

SHOWN_ALPHA = 0.9
"""A pixel that the scene covers this much is not filled again."""
COARSER = 1.5
"""A surface is replaced by a view that shows it with splats this much smaller."""
MIN_OPACITY = 0.005
"""Splats below this opacity are never drawn and are left out."""
MARGIN = 0.2
"""Splats this share of the picture outside its frame still condition a view."""


@dataclass(frozen=True)
class Chunk:
    """What is made in one go: numbers of reference and target views."""

    references: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class GrownScene:
    """A scene on its way.

    Attributes:
        output: all views and the splats so far; views that are still to be made are black.
        surfaces: z-depth of what each reference sees, 0 for nothing and in references that are not in the scene yet.
        done: number of chunks in it.
    """

    output: GGSOutput
    surfaces: Float[Tensor, "k 1 H W"]
    done: int


def plan_growth(cameras: Cameras, references: int, views: int = 8, together: int = 3) -> tuple[Chunk, ...]:
    """Chunks of at most ``views`` views that cover all of them.

    References are taken up along the path, each with the nearest one that is known by then and with the nearest others,
    since depth agrees best among views that are matched together; a target belongs to the pair it is closest to. With a
    single reference all chunks look from it.

    Args:
        cameras: (m,), references first.
        references: their number K.
        views: per chunk, references included.
        together: references per chunk, where there are so many.

    Raises:
        ValueError: without a reference, or if a chunk holds no more views than its references.
    """
    together = min(together, references)
    if not 1 <= references <= len(cameras) or views <= together or (references > 1 and together < 2):
        raise ValueError(
            f"a scene cannot grow from {references} references among {len(cameras)} views in chunks of {views} with "
            f"{together} references; give at least one reference, two per chunk, and more views per chunk"
        )
    distance = view_distances(cameras)
    order = path_order(cameras[:references]).tolist()
    pairs: list[tuple[int, ...]] = [
        (min(order[:place], key=lambda known: float(distance[known, view])), view)
        for place, view in enumerate(order)
        if place
    ]
    members: dict[tuple[int, ...], list[int]] = {pair: [] for pair in pairs or [(order[0],)]}
    for target in range(references, len(cameras)):
        pair = min(members, key=lambda ends: sum(float(distance[target, end]) for end in ends) / len(ends))
        members[pair].append(target)
    chunks = []
    for pair, targets in members.items():
        targets.sort(key=lambda target: (float(distance[pair[0], target] - distance[pair[-1], target]), target))
        others = sorted(set(range(references)) - set(pair), key=lambda other: float(distance[other, list(pair)].sum()))
        shown = pair + tuple(others[: together - len(pair)])
        room = views - len(shown)
        groups = [targets[start : start + room] for start in range(0, len(targets), room)] or [[]]
        chunks += [Chunk(shown, tuple(group)) for group in groups]
    return tuple(chunks)


def seed_scene(system: GGSSystem, references: Views, targets: Cameras) -> GrownScene:
    """The scene before its first chunk."""
    cameras = Cameras.cat([references.cameras, targets]) if len(targets) else references.cameras
    config, m, device = system.config, len(cameras), references.images.device
    images = references.images.new_zeros(m, 3, config.height, config.width)
    images[: len(references)] = references.images
    with torch.no_grad():
        latent = system.vae.encode(references.images[:1, None])[:, 0]
    channels, h, w = latent.shape[1:]
    return GrownScene(
        GGSOutput(
            gaussians=_no_splats(device),
            latent_gaussians=_no_splats(device, config.head.features),
            images=images,
            depths=images.new_zeros(m, 1, h, w),
            latents=images.new_zeros(m, channels, h, w),
            cameras=cameras,
            is_reference=torch.arange(m, device=device) < len(references),
            origin=torch.zeros(0, dtype=torch.long, device=device),
            source=torch.zeros(0, dtype=torch.long, device=device),
            low_pass_px=config.decoder.low_pass_px,
        ),
        images.new_zeros(len(references), 1, config.height, config.width),
        0,
    )


def _no_splats(device: torch.device, features: int = 0) -> Gaussians:
    nothing = torch.zeros(0, 4, device=device)
    colors = nothing[:, :3]
    return Gaussians(
        colors, nothing, colors, nothing[:, 0], colors, nothing.new_zeros(0, features) if features else None
    )


def grow(
    system: GGSSystem,
    scene: GrownScene,
    chunks: Sequence[Chunk],
    *,
    steps: int = 30,
    seed: int = 0,
    bf16: bool = False,
    on_step: Callable[[SamplingStep], None] | None = None,
) -> Iterator[GrownScene]:
    """Make the chunks that are not done yet, one after the other; yields the scene after each.

    Args:
        scene: from `seed_scene`, or what an interrupted run had reached: the rest then comes out the same.
        chunks: the whole plan.
        steps, bf16, on_step: see `GGSSystem.sample`. Chunk i is sampled with ``seed`` + i.

    Raises:
        ValueError: if the model cannot be conditioned on splats.
    """
    for number in range(scene.done, len(chunks)):
        output, chunk = scene.output, chunks[number]
        views = torch.tensor(chunk.references + chunk.targets)
        shown, asked = views[: len(chunk.references)], views[len(chunk.references) :]
        known = output.gaussians[in_view(output.gaussians, output.cameras[views])]
        new = system.sample(
            Views(output.images[shown], output.cameras[shown]), output.cameras[asked], steps=steps, seed=seed + number,
            bf16=bf16, existing=known if len(known) else None, on_step=on_step,
        )  # fmt: skip
        earlier = {view for before in chunks[:number] for view in before.references}
        fresh = torch.tensor([view not in earlier for view in views.tolist()]) & new.is_reference.cpu()
        scene = joined(scene, new, views, fresh)
        yield scene


def joined(scene: GrownScene, new: GGSOutput, views: Int[Tensor, " c"], fresh: Bool[Tensor, " c"]) -> GrownScene:
    """The scene with a chunk's views and with those of its splats that it did not have.

    Args:
        new: the chunk, c views.
        views: their numbers in the scene.
        fresh: which of them are references that the scene has not had.
    """
    output, device = scene.output, new.images.device
    seen = (new.origin == int(Origin.SEEN)) & fresh.to(device)[new.source]
    surface = seen_surface(new.gaussians[seen], new.cameras[fresh], new.low_pass_px)
    old_kept, new_kept = fuse(output.gaussians, output.origin, new, fresh, surface)
    surfaces = scene.surfaces.index_copy(0, views[fresh].to(device), surface[:, :1])
    added, origin = new.gaussians[new_kept], new.origin[new_kept]
    # A chunk knows of its own references alone; others may show what it had to invent.
    known = surfaces.flatten(1).amax(1) > 0
    references = output.cameras[: len(surfaces)][known.cpu()]
    origin = torch.minimum(origin, origin_of(added, origin == int(Origin.SEEN), references, surfaces[known]))
    place = views.to(device)
    output = replace(
        output,
        gaussians=Gaussians.cat([output.gaussians[old_kept], added]),
        latent_gaussians=Gaussians.cat([output.latent_gaussians, new.latent_gaussians]),
        images=output.images.index_copy(0, place, new.images),
        depths=output.depths.index_copy(0, place, new.depths),
        latents=output.latents.index_copy(0, place, new.latents),
        origin=torch.cat([output.origin[old_kept], origin]),
        source=torch.cat([output.source[old_kept], place[new.source[new_kept]]]),
    )
    return GrownScene(output, surfaces, scene.done + 1)


@torch.no_grad()
def fuse(
    old: Gaussians,
    old_origin: Int[Tensor, " n"],
    new: GGSOutput,
    fresh: Bool[Tensor, " c"],
    surface: Float[Tensor, "f 2 H W"],
) -> tuple[Bool[Tensor, " n"], Bool[Tensor, " a"]]:
    """Which splats of a scene and of a new chunk stay when they are joined, so that nothing is there twice.

    What a new reference sees replaces what had been made up in front of it, and coarser splats of the same surface. A
    new splat is left out where the scene covers its pixel already: always in generated views, which were made to agree
    with the scene; in new references if the scene has the same surface there; in references that the scene had before.

    Args:
        old, old_origin: splats of the scene and their `Origin`.
        new: of the chunk, c views.
        fresh: which of its views are references that the scene has not had.
        surface: what these see, see `seen_surface`.
    """
    drawn = new.gaussians.opacities >= MIN_OPACITY
    drawn &= (new.origin != int(Origin.SEEN)) | fresh.to(drawn.device)[new.source]
    old_kept = torch.ones(len(old), dtype=torch.bool, device=old.means.device)
    if not len(old):
        return old_kept, drawn
    if bool(fresh.any()):
        there = SampledSurface(old.means, new.cameras[fresh], surface[:, :1])
        before = (there.depth > 0) & (there.z < (1 + SURFACE_TOLERANCE) * there.depth)
        same = before & (there.z > (1 - SURFACE_TOLERANCE) * there.depth)
        coarser = same & (_size(old) > COARSER * there.of(surface[:, 1:])[:, 0])
        old_kept = ~((before & (old_origin != int(Origin.SEEN))) | coarser).any(0)
    covered = seen_surface(old[old_kept], new.cameras, new.low_pass_px)
    for view in range(len(new.cameras)):
        index = (drawn & (new.source == view)).nonzero()[:, 0]
        there = SampledSurface(new.gaussians.means[index], new.cameras[view : view + 1], covered[view : view + 1, :1])
        same = (there.z - there.depth).abs() < SURFACE_TOLERANCE * there.depth
        drawn[index] = ~torch.where(fresh[view], same, there.depth > 0)[0]
    return old_kept, drawn


def seen_surface(gaussians: Gaussians, cameras: Cameras, low_pass: float) -> Float[Tensor, "v 2 H W"]:
    """z-depth of what splats show, 0 where they cover less than `SHOWN_ALPHA`; and the size of the splats there.

    View by view, with the splats in view, so that memory does not grow with the scene.
    """
    maps = gaussians.means.new_zeros(len(cameras), 2, cameras.height, cameras.width)
    for view in range(len(cameras)):
        camera = cameras[view : view + 1]
        near = gaussians[in_view(gaussians, camera)]
        sized = replace(near, colors=None, features=_size(near)[:, None], harmonics=None)
        render = render_gaussians(sized, camera, low_pass=low_pass)
        assert render.features is not None
        shown = render.alpha >= SHOWN_ALPHA
        size = render.features / render.alpha.clamp_min(SHOWN_ALPHA)
        maps[view] = (torch.cat([render.depth, size], 1) * shown)[0]
    return maps


def _size(gaussians: Gaussians) -> Float[Tensor, " n"]:
    """Extent of splats along the surface they lie on: the middle one of their standard deviations."""
    return gaussians.scales.median(-1).values


def in_view(gaussians: Gaussians, cameras: Cameras) -> Bool[Tensor, " n"]:
    """Splats whose centres lie before one of the cameras (v,), in or near its frame."""
    count = len(cameras)
    pixels, z = cameras.project(gaussians.means.expand(count, *gaussians.means.shape))
    place = pixels / pixels.new_tensor([cameras.width, cameras.height])
    return ((z > 0) & (place > -MARGIN).all(-1) & (place < 1 + MARGIN).all(-1)).any(0)
