"""The losses of GGS, stage by stage (GGS sections 3.2 to 3.4; spec 4 and 5). Each returns named terms, unweighted.

Letters: b = scenes, m = views, j = novel views, h/w = latent rows and columns, H/W = image rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from latent3d.autoencoders.image_vae import edge_loss
from latent3d.diffusion.parameterization import c_in, c_noise, v_from_z0
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.rays import unproject
from latent3d.memory import recomputed
from latent3d.rendering.base import stack
from latent3d.rendering.splats import render_gaussians
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.views import Views
from latent3d.systems.existing_scene import approximate_scene
from latent3d.systems.ggs_guidance import anchor_of, drops_references, without_references

if TYPE_CHECKING:
    from latent3d.systems.ggs import GGSSystem
    from latent3d.systems.ggs_records import Denoised, SceneContext

SEEN_ALPHA = 0.5
"""Rendered depth counts where alpha is above this."""


def choose_references(views: int, weights: tuple[float, ...], generator: torch.Generator) -> Tensor:
    """A random set of references as a mask (views,): usually the first view, or the first and the last, else any."""
    limit = min(len(weights), max(views - 1, 1))
    count = int(torch.multinomial(torch.tensor(weights[:limit]), 1, generator=generator)) + 1
    index = torch.randperm(views, generator=generator)[:count]
    if torch.rand((), generator=generator) < 0.6:
        index = torch.linspace(0, views - 1, count).round().long() if count > 1 else torch.tensor([0])
    mask = torch.zeros(views, dtype=torch.bool)
    mask[index] = True
    return mask


def draw_sigma(system: GGSSystem, count: int, generator: torch.Generator) -> Tensor:
    """Training noise levels, ln sigma ~ N(noise_mean, noise_std^2), within the sampler's range."""
    config = system.config
    normal = torch.randn(count, generator=generator)
    return torch.exp(config.noise_mean + config.noise_std * normal).clamp(config.sigma_min, config.sigma_max)


def split(batch: Views, novel: int) -> tuple[Views, Views]:
    """The M views that are denoised and the J further ones."""
    views = batch.shape[1] - novel
    return batch[:, :views], batch[:, views:]


def vae_terms(system: GGSSystem, batch: Views, generator: torch.Generator) -> dict[str, Tensor]:
    """Reconstruction and prior of the image autoencoder on all frames."""
    return system.vae.training_terms(batch.images.flatten(0, 1), generator)


def geometry_terms(system: GGSSystem, batch: Views, generator: torch.Generator) -> dict[str, Tensor]:
    """Depth of one, two or more views of each scene, all of them clean.

    Where several views are seen, parallax tells the depth in any unit of length, and ``unit_jitter`` changes the unit
    by chance; a single view must guess from what rooms look like, and keeps metres.
    """
    assert system.geometry is not None
    weights = torch.tensor(system.config.reference_weights[: batch.shape[1]])
    count = int(torch.multinomial(weights, 1, generator=generator)) + 1
    index = torch.randperm(batch.shape[1], generator=generator)[:count]
    chosen = batch[:, index]
    assert chosen.depths is not None
    cameras, depths = chosen.cameras, chosen.depths
    if count > 1 and system.config.unit_jitter > 1:
        power = 2 * torch.rand(batch.shape[0], generator=generator) - 1
        factor = (system.config.unit_jitter**power).to(depths)[:, None].expand(-1, count)
        cameras, depths = cameras.scaled(factor), depths * factor[..., None, None, None]
    return system.geometry.training_terms(chosen.images, cameras, depths)


def prior_terms(system: GGSSystem, batch: Views, generator: torch.Generator) -> dict[str, Tensor]:
    """Image-to-video diffusion without poses: the first frame is the reference, v is the network's own output."""
    return _velocity_terms(system, batch, generator, posed=False)


def twin_terms(system: GGSSystem, batch: Views, generator: torch.Generator) -> dict[str, Tensor]:
    """The pose-conditional twin without 3D: same inputs, v from the network's own output layer."""
    return _velocity_terms(system, batch, generator, posed=True)


def _velocity_terms(system: GGSSystem, batch: Views, generator: torch.Generator, posed: bool) -> dict[str, Tensor]:
    weights = system.config.reference_weights if posed else (1.0,)
    views = batch.shape[1]
    role = choose_references(views, weights, generator) if posed else torch.arange(views) == 0
    if drops_references(system, generator):
        batch, role = without_references(batch, role)
    b = len(batch)
    clean = encode(system, batch.images)
    sigma = draw_sigma(system, b, generator).to(clean.device)
    noise = torch.randn(clean.shape, generator=generator).to(clean.device)
    is_target = (~role).to(clean)[None, :, None, None, None]
    levels = torch.where(role.to(clean.device), system.config.sigma_min, sigma[:, None])
    level = levels[..., None, None, None]
    noisy = clean + is_target * level * noise
    plucker = condition = None
    if posed:
        context = system.context_of(batch.images, batch.cameras, role.to(clean.device))
        plucker, tokens, condition = context.plucker, context.tokens, system.condition_of(context)
    else:
        tokens = system.embed(batch.images[:, role])
    features = system.denoise(c_in(level) * noisy, clean * (1 - is_target), c_noise(levels), plucker, tokens, condition)
    velocity = system.denoiser.velocity(features).float()
    truth = v_from_z0(noisy, clean, level)
    error = ((velocity - truth) ** 2 * is_target).sum() / (is_target.sum() * b * clean[0, 0].numel())
    return {"diffusion": error}


def scene_terms(system: GGSSystem, batch: Views, generator: torch.Generator) -> dict[str, Tensor]:
    """The joint stage: diffusion through the splats, low-resolution renders at all views, latents, depth."""
    config = system.config
    views, novel = split(batch, config.novel)
    role = choose_references(views.shape[1], config.reference_weights, generator)
    dropped = drops_references(system, generator)
    if dropped:
        batch, role = without_references(batch, role)
        views, novel = split(batch, config.novel)
    role = role.to(batch.images.device)
    b, m = views.shape
    with torch.no_grad():
        existing = None if dropped else existing_splats(system, novel, generator)
        context = system.context_of(views.images, views.cameras, role, existing)
        clean = encode(system, batch.images)
    h, w = clean.shape[-2:]
    sigma = draw_sigma(system, b, generator).to(clean.device)
    noise = torch.randn(clean[:, :m].shape, generator=generator).to(clean.device)
    noisy = clean[:, :m] + sigma[:, None, None, None, None] * noise
    state = system(
        noisy, sigma, context, anchored(views, novel.cameras, role), draw_depth(system, b, m, h, w, generator)
    )
    level = system.noise_levels(sigma, context)[..., None, None, None]
    target = 1 - context.role
    noisy = noisy + context.role * (clean[:, :m] - noisy)
    error = (state.velocity - v_from_z0(noisy, clean[:, :m], level)) ** 2
    small = F.avg_pool2d(batch.images.flatten(0, 1), batch.images.shape[-1] // w).unflatten(0, batch.shape)
    terms = {
        "diffusion": (error * target).sum() / (target.expand_as(error).sum()),
        "low_res": (state.rgb[:, :m] - small[:, :m]).abs().mean(),
        "latent": ((state.rendered_latents - clean) ** 2).mean(),
        "opacity": (1 - state.alpha).mean(),
    }
    if config.novel:
        terms["novel_low_res"] = (state.rgb[:, m:] - small[:, m:]).abs().mean()
    if batch.depths is not None:
        terms |= depth_terms(system, batch, views, state, context, (h, w))
    return terms


def depth_terms(
    system: GGSSystem, batch: Views, views: Views, state: Denoised, context: SceneContext, size: tuple[int, int]
) -> dict[str, Tensor]:
    """Depth supervision: ``point`` is the paper's distance of splat means to true points, over the scene's mean depth;
    ``depth`` the error of the heads' ln depth; ``rendered_depth`` that of renders where they are opaque."""
    assert batch.depths is not None
    h, w = size
    m, span = views.shape[1], system.config.depth_range
    small = median_pool(batch.depths, h, w)
    known = (small > 0).to(small)
    truth = span.relative(small)
    points = unproject(context.cameras.resized(h, w), small[:, :m].clamp_min(span.near))
    means = torch.stack([scene.means for scene in state.splats])
    means = rearrange(means, "b (m k y x) c -> b m k y x c", m=m, y=h, x=w)[:, :, 0]
    scale = (small * known).sum((1, 2, 3, 4)) / known.sum((1, 2, 3, 4)).clamp_min(1)
    gap = (
        F.huber_loss(means, points, reduction="none", delta=0.5).sum(-1)
        / scale.clamp_min(span.near)[:, None, None, None]
    )
    seen = known * (state.alpha > SEEN_ALPHA)
    rendered = (torch.log(state.depth_map.clamp_min(span.near)) - torch.log(small.clamp_min(span.near))).abs()
    log = (span.depth(state.depth.mean).log() - span.depth(truth[:, :m]).log()).abs()
    return {
        "point": (gap * known[:, :m, 0]).mean(),
        "depth": (log * known[:, :m]).mean(),
        "rendered_depth": (rendered * seen).sum() / seen.sum().clamp_min(1),
    }


def decoder_terms(system: GGSSystem, batch: Views, generator: torch.Generator) -> dict[str, Tensor]:
    """The second stage: full-resolution splats rendered at random views, the diffusion model frozen.

    The paper decodes true latents (t = 0). In a share ``refined`` of the batches the targets are the model's own
    one-step estimates from a random noise level, as they will be at test.
    """
    config = system.config
    views, novel = split(batch, config.novel)
    b, m = views.shape
    role = choose_references(m, config.reference_weights, generator).to(batch.images.device)
    context = system.context_of(views.images, views.cameras, role, existing_splats(system, novel, generator))
    with torch.no_grad():
        latents = encode(system, views.images)
        if torch.rand((), generator=generator) < config.refined:
            sigma = draw_sigma(system, b, generator).to(latents.device)
            noise = torch.randn(latents.shape, generator=generator).to(latents.device)
            latents = system(latents + sigma[:, None, None, None, None] * noise, sigma, context).z0
        final = system(latents, latents.new_full((b,), config.sigma_min), context)
    scenes = system.decode_3d(final.features, latents, context, final.depth_map)
    cameras = Cameras.cat([context.cameras, anchored(views, novel.cameras, role)], 1)
    chosen = torch.randperm(batch.shape[1], generator=generator)[: config.render_views]
    render = partial(render_gaussians, low_pass=config.decoder.low_pass_px)
    renders = [recomputed(render, scene, cameras[i, chosen], level="leanest") for i, scene in enumerate(scenes)]
    rgb = stack(renders, "rgb")
    truth = batch.images[:, chosen]
    terms = {
        "l1": (rgb - truth).abs().mean(),
        "mse": ((rgb - truth) ** 2).mean(),
        "edge": edge_loss(rgb, truth),
        "empty": (1 - stack(renders, "alpha")).mean(),
    }
    if batch.depths is not None and views.depths is not None:
        near = config.depth_range.near
        true_depth = batch.depths[:, chosen]
        depth = stack(renders, "depth").clamp_min(near)
        known = (true_depth > 0).to(depth)
        terms["depth"] = ((depth.log() - true_depth.clamp_min(near).log()).abs() * known).mean()
        if context.relative is not None:
            true_relative = config.depth_range.relative(views.depths[:, role])
            known = (views.depths[:, role] > 0).to(true_relative)
            gap = config.depth_range.log_ratio * (context.relative - true_relative).abs()
            terms["reference_depth"] = (gap * known).sum() / known.sum().clamp_min(1)
    return terms


def existing_splats(system: GGSSystem, novel: Views, generator: torch.Generator) -> list[Gaussians] | None:
    """In a share ``existing_share`` of the batches: some of the further views as a scene that is there already.

    Raises:
        ValueError: for clips without depth.
    """
    config = system.config
    if not config.existing_share or torch.rand((), generator=generator) >= config.existing_share:
        return None
    if novel.depths is None:
        raise ValueError("a model that is conditioned on splats learns from clips with depth; set existing_share to 0")
    count = int(torch.randint(1, novel.shape[1] + 1, (), generator=generator))
    chosen = novel[:, torch.randperm(novel.shape[1], generator=generator)[:count]]
    assert chosen.depths is not None
    return approximate_scene(chosen.images, chosen.depths, chosen.cameras, config.condition_stride, generator)


def encode(system: GGSSystem, images: Tensor) -> Tensor:
    """Clean latents (b, m, c, h, w), without gradient."""
    with torch.no_grad():
        return system.vae.encode(images).float()


def anchored(views: Views, cameras: Cameras, role: Tensor) -> Cameras:
    """Cameras (b, j) moved to the frame of the first reference, as `GGSSystem.context_of` moves the views'."""
    first = anchor_of(role)
    return cameras.relative_to(views.cameras.c2w[:, first : first + 1].expand_as(cameras.w2c))


def draw_depth(system: GGSSystem, b: int, m: int, h: int, w: int, generator: torch.Generator) -> Tensor:
    """Random numbers for the depth head's training sample, see `SplatHead.forward`."""
    depth = system.config.head.depth
    if depth.kind == "gaussian":
        return torch.randn(b, m, 1, h, w, generator=generator)
    return torch.rand(b, m, depth.samples, h, w, generator=generator)


def median_pool(depths: Tensor, height: int, width: int) -> Tensor:
    """Depth maps (b, v, 1, H, W) -> (b, v, 1, height, width), the median of each patch: no mixing across edges."""
    patches = F.pixel_unshuffle(depths.flatten(0, 1), depths.shape[-1] // width)
    return patches.median(1, keepdim=True).values.unflatten(0, depths.shape[:2])


@torch.no_grad()
def finish_stage(system: GGSSystem, stage: str, batch: Views) -> None:
    """What follows a stage: latents get zero mean and unit variance per channel once the autoencoder is trained."""
    if stage == "vae":
        system.vae.fit_normalization(batch.images.flatten(0, 1))


def trainable(system: GGSSystem, stage: str) -> Iterable[tuple[str, nn.Parameter]]:
    """Parameters that a stage trains; of a prior that is kept, only what was added to it."""
    prefixes = {
        "vae": ("vae.",),
        "geometry": ("geometry.",),
        "prior": ("denoiser.",),
        "twin": ("denoiser.",),
        "scene": ("denoiser.", "epipolar.", "head.", "velocity."),
        "decoder": ("decoder.", "geometry."),
    }[stage]
    prior: Any = system.denoiser
    for name, parameter in system.named_parameters():
        kept = system.config.adapt == "added" and name.startswith("denoiser.")
        if name.startswith(prefixes) and not (kept and not prior.is_added(name.removeprefix("denoiser."))):
            yield name, parameter


TERMS: dict[str, Callable[[GGSSystem, Views, torch.Generator], dict[str, Tensor]]] = {
    "vae": vae_terms,
    "geometry": geometry_terms,
    "prior": prior_terms,
    "twin": twin_terms,
    "scene": scene_terms,
    "decoder": decoder_terms,
}


@torch.no_grad()
def sheet(system: GGSSystem, batch: Views, stage: str, generator: torch.Generator) -> dict[str, Tensor]:
    """Rows of pictures of the first scene of a batch (of single frames: of all scenes)."""
    images = batch.images.flatten(0, 1)[:12] if stage == "vae" else batch.images[0]
    rows = {"truth": images}
    if stage == "vae":
        return rows | {"restored": system.vae.decode(system.vae.encode(images))}
    if stage == "geometry" and system.geometry is not None and batch.depths is not None:
        out = system.geometry(batch.images[:1, :2], batch.cameras[:1, :2])
        depth = system.geometry.config.depth_range.depth(out.relative[0])
        return {"truth": images[:2], "depth": batch.depths[0, :2], "estimate": depth}
    if stage in ("prior", "twin"):
        return rows
    views, _ = split(batch, system.config.novel)
    m = views.shape[1]
    ends = torch.tensor([0, m - 1]) if m > 2 else torch.tensor([0])
    rest = torch.tensor([i for i in range(m) if i not in ends.tolist()])
    out = system.sample(views[0][ends], views.cameras[0][rest], steps=8, seed=0)
    splats = render_gaussians(out.gaussians, out.cameras, low_pass=out.low_pass_px)
    order = torch.cat([ends, rest])
    rows = {
        "truth": views.images[0][order],
        "decoded in 2D": out.images,
        "splats": stack([splats], "rgb")[0].clamp(0, 1),
    }
    depths = {} if views.depths is None else {"true depth": views.depths[0][order]}
    return rows | depths | {"depth of splats": splats.depth, "depth of latent splats": out.depths}
