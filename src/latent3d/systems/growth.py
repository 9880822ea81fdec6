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
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.origin import Origin
from latent3d.representations.views import Views
from latent3d.systems.fusion import contradicted, fuse, in_view, seen_surface
from latent3d.systems.ggs import GGSOutput, GGSSystem, SamplingStep
from latent3d.systems.ggs_guidance import Guidance
from latent3d.systems.origins import origin_of


@dataclass(frozen=True)
class Chunk:
    """What is made in one go: numbers of reference and target views."""

    references: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class GrownScene:
    """A scene on its way.

    Attributes:
        output: all views and the splats so far; views that are still to be made are black. Its latent splats are those
            of the last chunk.
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
    guidance: Guidance = 1.0,
    on_step: Callable[[SamplingStep], None] | None = None,
) -> Iterator[GrownScene]:
    """Make the chunks that are not done yet, one after the other; yields the scene after each.

    Args:
        scene: from `seed_scene`, or what an interrupted run had reached: the rest then comes out the same.
        chunks: the whole plan.
        steps, bf16, guidance, on_step: see `GGSSystem.sample`. Chunk i is sampled with ``seed`` + i.

    Raises:
        ValueError: if the model cannot be conditioned on splats, or guided.
    """
    for number in range(scene.done, len(chunks)):
        output, chunk = scene.output, chunks[number]
        views = torch.tensor(chunk.references + chunk.targets)
        shown, asked = views[: len(chunk.references)], views[len(chunk.references) :]
        known = output.gaussians[in_view(output.gaussians, output.cameras[views])]
        new = system.sample(
            Views(output.images[shown], output.cameras[shown]), output.cameras[asked], steps=steps, seed=seed + number,
            bf16=bf16, existing=known if len(known) else None, guidance=guidance, on_step=on_step,
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
    known = (surfaces.flatten(1).amax(1) > 0).nonzero()[:, 0]
    references = output.cameras[known.cpu()], surfaces[known], output.images[known]
    old_kept &= ~contradicted(output.gaussians, *references)
    new_kept &= ~contradicted(new.gaussians, *references)
    added, origin = new.gaussians[new_kept], new.origin[new_kept]
    # A chunk knows of its own references alone; others may show what it had to invent.
    origin = torch.minimum(origin, origin_of(added, origin == int(Origin.SEEN), *references[:2]))
    place = views.to(device)
    output = replace(
        output,
        gaussians=Gaussians.cat([output.gaussians[old_kept], added]),
        latent_gaussians=new.latent_gaussians,
        images=output.images.index_copy(0, place, new.images),
        depths=output.depths.index_copy(0, place, new.depths),
        latents=output.latents.index_copy(0, place, new.latents),
        origin=torch.cat([output.origin[old_kept], origin]),
        source=torch.cat([output.source[old_kept], place[new.source[new_kept]]]),
    )
    return GrownScene(output, surfaces, scene.done + 1)
