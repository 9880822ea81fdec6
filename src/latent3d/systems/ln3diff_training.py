"""The losses of LN3Diff++, stage by stage (sections 3.2 to 3.5). Each returns named terms, unweighted.

Letters: b = objects, v = views, k = rendered views, p = side of a crop, c = channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor

from latent3d.conditioning.condition import Condition
from latent3d.conditioning.contrast import contrastive_loss, similarities
from latent3d.diffusion.continuous import LinearVP
from latent3d.diffusion.objectives import flow_matching_loss
from latent3d.diffusion.parameterization import alpha_and_s, match_leading, time_from_sigma, v_from_noise
from latent3d.diffusion.schedules import (
    logit_normal_times,
    lognormal_sigmas,
    scaled_linear_betas,
    sigmas_from_betas,
)
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.object_cameras import orbit
from latent3d.memory import in_parts, recomputed
from latent3d.nn.discriminators import adversarial_terms, novel_view_adversarial
from latent3d.rendering.volume import VolumeConfig, render_rays
from latent3d.representations.objects import ObjectLatents, ObjectViews
from latent3d.representations.triplane import TriPlane
from latent3d.representations.views import Views
from latent3d.systems import object_losses as losses
from latent3d.systems.object_patches import as_images, cut, patch_boxes, patch_rays
from latent3d.systems.object_views import views_at, with_others_views

if TYPE_CHECKING:
    from latent3d.systems.ln3diff import LN3DiffSystem


@dataclass(frozen=True)
class Crops:
    """Square windows of pictures, and what was rendered there; all (b, k, ., p, p).

    Attributes:
        images, alphas, depths: of the pictures; depths None where there are none.
        rgb, alpha, depth: rendered.
        seen: which of the k views the model was given, (k,) bool.
    """

    images: Tensor
    alphas: Tensor
    depths: Tensor | None
    rgb: Tensor
    alpha: Tensor
    depth: Tensor
    seen: Tensor

    def of_given(self) -> Crops:
        """Those of the views that the model was given."""
        some = self.seen
        depths = None if self.depths is None else self.depths[:, some]
        rendered = self.rgb[:, some], self.alpha[:, some], self.depth[:, some]
        return Crops(self.images[:, some], self.alphas[:, some], depths, *rendered, some[some])


def vae_terms(system: LN3DiffSystem, batch: ObjectViews, generator: torch.Generator) -> dict[str, Tensor]:
    """Reconstruction of crops of given and novel views, the latent's divergence from a normal, adversaries."""
    posterior = system.seen(batch.given)
    planes = system.planes_of(posterior.sample(generator))
    if system.novel_discriminator is not None and batch.inputs == batch.shape[1]:
        batch = with_others_views(batch)
    crops = render_crops(system, planes, batch, generator)
    seen, novel = crops.rgb[:, crops.seen], crops.rgb[:, ~crops.seen]
    if system.novel_discriminator is not None:  # data with one view per object have no pictures of others
        crops = crops.of_given()
    terms = {"kl": losses.kl_divergence(posterior.mean, posterior.log_variance), **picture_terms(system, crops)}
    if system.discriminator is not None:
        terms |= adversarial_terms(system.discriminator, crops.images, crops.rgb)
    if system.novel_discriminator is not None:
        pair = novel_view_adversarial(system.novel_discriminator, seen, novel)
        terms |= {f"novel_{name}": value for name, value in pair.items()}
    return terms


def picture_terms(system: LN3DiffSystem, crops: Crops) -> dict[str, Tensor]:
    """What renderings and pictures differ in."""
    terms = {
        "l1": losses.l1(crops.rgb, crops.images),
        "l2": losses.foreground_l2(crops.rgb, crops.images, crops.alphas, system.config.background_weight),
        "alpha": losses.alpha_l1(crops.alpha, crops.alphas),
        "smoothness": losses.depth_smoothness(crops.depth, crops.images, crops.alphas > 0.5),
    }
    if system.perceptual is not None:
        terms["perceptual"] = recomputed(system.perceptual, crops.rgb, crops.images)
    if crops.depths is not None:
        terms["depth"] = losses.scale_shift_depth(crops.depth, crops.depths, crops.depths > 0)
    return terms


def render_crops(system: LN3DiffSystem, planes: TriPlane, batch: ObjectViews, generator: torch.Generator) -> Crops:
    """Volume rendering of one window in each of k views per object."""
    config = system.config
    index = choose_views(batch, config.rendered, generator)
    views = views_at(batch.views[:, index], config.render_size or config.image_size)
    assert views.alphas is not None
    boxes = patch_boxes(views.alphas, min(config.patch, views.images.shape[-1]), 1, config.foreground_share, generator)
    origins, directions = patch_rays(views.cameras, boxes)
    # distance along the ray times this is z-depth
    axis = views.cameras.w2c[..., 2, :3].repeat_interleave(boxes.size**2, 1)
    along = (directions * axis).sum(-1)
    depths = None if views.depths is None else cut(views.depths, boxes)
    guide = None
    if config.guided and depths is not None:
        guide = rearrange(depths, "b k 1 h w -> b (k h w)") / along
    seen = render_rays(
        system.field_of(planes), origins, directions, planes.half_size, config.training_volume,
        generator=generator if system.training else None, guide=guide,
    )  # fmt: skip
    rgb, alpha, depth = (
        as_images(part, boxes)
        for part in (seen.rgb[..., :3], seen.alpha[..., None], (seen.distance * along)[..., None])
    )
    given = index.to(rgb.device) < batch.inputs
    return Crops(cut(views.images, boxes), cut(views.alphas, boxes), depths, rgb, alpha, depth, given)


def choose_views(batch: ObjectViews, count: int, generator: torch.Generator) -> Tensor:
    """Numbers of ``count`` views to render: novel ones and given ones in turn, as far as there are such."""
    novel = batch.inputs + torch.randperm(batch.shape[1] - batch.inputs, generator=generator)
    given = torch.randperm(batch.inputs, generator=generator)
    pairs = min(len(novel), len(given))
    turns = torch.stack([novel[:pairs], given[:pairs]], 1).flatten()
    return torch.cat([turns, novel[pairs:], given[pairs:]])[:count]


def mesh_terms(system: LN3DiffSystem, batch: ObjectViews, generator: torch.Generator) -> dict[str, Tensor]:
    """Renderings of the FlexiCubes surface against pictures, masks, depths and normals, and its regularisers."""
    assert system.mesh is not None
    return system.mesh.training_terms(frozen_planes(system, batch), chosen_views(system, batch, generator))


def splats_terms(system: LN3DiffSystem, batch: ObjectViews, generator: torch.Generator) -> dict[str, Tensor]:
    """Renderings of the Gaussians against pictures, masks and depths."""
    assert system.splats is not None
    planes = frozen_planes(system, batch)
    return system.splats.training_terms(planes, system.field_of(planes), chosen_views(system, batch, generator))


@torch.no_grad()
def frozen_planes(system: LN3DiffSystem, batch: ObjectViews) -> TriPlane:
    """Feature planes of the objects, without history."""
    return system.planes_of(system.seen(batch.given).mean)


def chosen_views(system: LN3DiffSystem, batch: ObjectViews, generator: torch.Generator) -> Views:
    """The views (b, k) that a step renders."""
    return batch.views[:, choose_views(batch, system.config.rendered, generator)]


def diffusion_terms(
    system: LN3DiffSystem, batch: ObjectViews | ObjectLatents, generator: torch.Generator
) -> dict[str, Tensor]:
    """The denoiser's error on latents of the frozen encoder, under conditions of which some are dropped. The latents
    are made here from views, or were made before."""
    assert system.denoiser is not None
    assert system.conditioner is not None
    if isinstance(batch, ObjectLatents):
        clean = batch.mean + batch.std * torch.randn(batch.mean.shape, generator=generator).to(batch.mean)
    else:
        with torch.no_grad():
            clean = system.encode(batch.given, sample=True, generator=generator)
    return {"diffusion": denoising_error(system, clean, drawn_condition(system, batch, generator), generator)}


def conditioner_terms(
    system: LN3DiffSystem, batch: ObjectViews | ObjectLatents, generator: torch.Generator
) -> dict[str, Tensor]:
    """How badly texts and pictures of the batch find each other. Learnt from the denoiser's error alone, a small
    encoder of bytes says the same of every text: the error that a caption explains is small beside the noise's."""
    assert system.conditioner is not None
    text, picture = system.conditioner.pair(batch.captions, *drawn_pictures(batch, generator))
    return {"contrast": contrastive_loss(text, picture, batch.captions)}


def drawn_pictures(batch: ObjectViews | ObjectLatents, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A picture per object (b, 3, H, W) and its coverage: one of the views, or what stands beside the latents."""
    if isinstance(batch, ObjectLatents):
        return batch.images, batch.alphas
    chosen = batch.views[:, int(torch.randint(batch.shape[1], (), generator=generator))]
    assert chosen.alphas is not None
    return chosen.images, chosen.alphas


def drawn_condition(system: LN3DiffSystem, batch: ObjectViews | ObjectLatents, generator: torch.Generator) -> Condition:
    """What a training batch is told: of each object a random part of class, caption and one of its pictures."""
    assert system.conditioner is not None
    kinds = system.conditioner.config.taught
    images, alphas = drawn_pictures(batch, generator)
    kept = system.conditioner.draw(len(batch), generator).to(images.device)
    with torch.set_grad_enabled(torch.is_grad_enabled() and not system.conditioner.config.paired):
        return system.conditioner(
            batch.labels if "label" in kinds else None,
            batch.captions if "text" in kinds else None,
            images if "picture" in kinds else None,
            alphas if "picture" in kinds else None,
            kept=kept,
        )


def denoising_error(system: LN3DiffSystem, clean: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
    """Mean square error of what the network gives: the velocity (flow, t logit-normal), or v or the noise (variance
    preserving, levels as the process draws them)."""
    config, count, network = system.config, len(clean), system.denoiser
    assert network is not None

    def denoise(noisy: Tensor, time: Tensor) -> Tensor:
        return in_parts(network, noisy, time, condition, lean=None, leanest=1).float()

    noise = torch.randn(clean.shape, generator=generator).to(clean)
    draw = {"mean": config.noise_mean, "std": config.noise_std, "generator": generator}
    if config.objective == "flow":
        time = logit_normal_times((count,), **draw).to(clean)  # type: ignore[arg-type]
        return flow_matching_loss(denoise, clean, time, noise)
    if config.process == "lsgm":
        process = LinearVP()
        sigma = process.sigma(process.importance_times((count,), generator=generator)).to(clean)
    elif config.process == "ddpm":
        table = sigmas_from_betas(scaled_linear_betas())
        sigma = table[torch.randint(len(table), (count,), generator=generator)].to(clean)
    else:
        sigma = lognormal_sigmas((count,), **draw).to(clean)  # type: ignore[arg-type]
    alpha, s = (match_leading(level, clean) for level in alpha_and_s(sigma))
    answer = denoise(alpha * clean + s * noise, time_from_sigma(sigma))
    target = noise if config.objective == "eps" else v_from_noise(clean, noise, sigma)
    return (answer - target).square().mean()


PICTURE_TERMS = {"vae": vae_terms, "mesh": mesh_terms, "splats": splats_terms}
"""By stage, of those that need pictures of objects."""

LATENT_TERMS = {"conditioner": conditioner_terms, "diffusion": diffusion_terms}
"""By stage, of those that latents and one picture of each object serve as well."""


def sheet_of(
    system: LN3DiffSystem, batch: ObjectViews | ObjectLatents, stage: str, generator: torch.Generator, objects: int = 6
) -> dict[str, Tensor]:
    """Rows of pictures of some objects: truth beside reconstruction; or samples, told nothing, the class, the text, or
    the picture that stands in the first row."""
    if stage == "conditioner":
        return _finds(system, batch, generator, objects)
    batch = batch[:objects]
    quick = system.config.volume.replace(coarse=32, fine=32)
    if stage == "diffusion":
        return _samples(system, batch, generator, quick)
    assert isinstance(batch, ObjectViews)
    last = batch.views[:, -1:]
    planes = frozen_planes(system, batch)
    seen = system.render(planes, last.cameras, quick)
    depth = torch.where(seen.alpha > 0.5, seen.depth, 0)
    rows = {"truth": last.images[:, 0], "field": seen.rgb[:, 0, :3].clamp(0, 1), "depth": depth[:, 0]}
    if stage == "mesh" and system.mesh is not None:
        rows["mesh"] = system.mesh.pictures(planes, last.cameras)
    if stage == "splats" and system.splats is not None:
        rows["splats"] = system.splats.pictures(planes, system.field_of(planes), last.cameras)[:, 0]
    return rows


def _finds(
    system: LN3DiffSystem, batch: ObjectViews | ObjectLatents, generator: torch.Generator, objects: int
) -> dict[str, Tensor]:
    """The picture that belongs to each of some texts, and the one among the batch that the text finds."""
    assert system.conditioner is not None
    images, alphas = drawn_pictures(batch, generator)
    text, picture = system.conditioner.pair(batch.captions, images, alphas)
    found = similarities(text, picture).argmax(1)[:objects]
    return {"picture of the text": images[:objects], "picture found": images[found]}


def _samples(
    system: LN3DiffSystem, batch: ObjectViews | ObjectLatents, generator: torch.Generator, config: VolumeConfig
) -> dict[str, Tensor]:
    assert system.conditioner is not None
    if isinstance(batch, ObjectLatents):
        images, alphas = batch.images, batch.alphas
    else:
        assert batch.views.alphas is not None
        images, alphas = batch.views.images[:, -1], batch.views.alphas[:, -1]
    count = len(batch)
    front = orbit(8, size=system.config.image_size)[1:2].to(images.device)
    cameras = Cameras.cat([front[None]] * count)
    told: dict[str, dict[str, Any]] = {
        "label": {"labels": batch.labels},
        "text": {"captions": batch.captions},
        "picture": {"pictures": images, "alphas": alphas},
    }
    conditions = {"nothing": None} | {
        kind: system.conditioner(**told[kind]) for kind in system.conditioner.config.taught
    }
    seeds = torch.randint(2**31, (count,), generator=generator).tolist()
    rows = {"picture given": images}
    for kind, condition in conditions.items():
        latents = system.sample(seeds, condition, steps=25, guidance=2.0).latents
        rows[f"told {kind}"] = system.render(system.decode(latents), cameras, config).rgb[:, 0, :3].clamp(0, 1)
    return rows
