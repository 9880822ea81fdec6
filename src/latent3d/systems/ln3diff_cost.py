"""What one training pass of LN3Diff++ costs: all its networks on inputs of the right shapes.

Made for tensors without values (meta, fake), on which nothing that depends on values can run. The field is asked at as
many points as rays have samples; where these lie, and the compositing of what they say, is left out.

Letters: b = objects, v = views, k = rendered views, n = points of all samples, p = side of a crop, s = samples per ray,
f = feature channels per plane.
"""

from __future__ import annotations

from functools import partial

import torch
from einops import rearrange, repeat
from torch import Tensor

from latent3d.conditioning.condition import Condition
from latent3d.conditioning.contrast import similarities
from latent3d.conditioning.towers import CLIPText
from latent3d.geometry.cameras import Cameras
from latent3d.memory import in_parts, recomputed
from latent3d.nn.discriminators import adversarial_terms, novel_view_adversarial
from latent3d.rendering.occupancy import QUERY_POINTS
from latent3d.representations.views import Views
from latent3d.systems.ln3diff import LN3DiffSystem, asked_in_parts
from latent3d.systems.object_losses import kl_divergence

OCCUPANCY_CELLS = 64
"""Along an axis of the grid by which rendering skips empty space."""


def network_pass(system: LN3DiffSystem, stage: str, objects: int, views: int) -> Tensor:
    """A scalar that depends on all trained networks of a stage as its loss does, gradients included.

    Args:
        system: on any device.
        stage: of training.
        objects: b. views: v, those that the encoder sees.

    Raises:
        ValueError: for a stage that follows surfaces.
    """
    if stage == "conditioner":
        assert system.conditioner is not None
        size = system.config.image_size
        text, picture = system.conditioner.pair(
            ["an object"] * objects, torch.zeros(objects, 3, size, size, device=system.latent_mean.device)
        )
        return similarities(text, picture).square().mean()
    seen = _blank_views(objects, views, system.config.image_size, system.latent_mean.device)
    if stage == "vae":
        return _autoencoder(system, seen)
    if stage == "diffusion":
        return _diffusion(system, seen)
    raise ValueError(f"the stage '{stage}' follows surfaces and cannot be counted; choose vae or diffusion")


def _autoencoder(system: LN3DiffSystem, views: Views) -> Tensor:
    config = system.config
    posterior = system.seen(views)
    planes = system.planes_of(posterior.sample()).planes
    volume = config.training_volume
    samples = volume.coarse + (volume.guided if config.guided else volume.fine)
    side = min(config.patch, config.render_size or config.image_size)
    density, colors = asked_in_parts(
        partial(_asked, system, planes.mean((1, 3, 4))),
        planes.new_zeros(len(planes), config.rendered * side**2 * samples, 3),
    )
    colors = rearrange(colors[..., :3], "b (k y x s) c -> b k c y x s", k=config.rendered, y=side, x=side)
    pictures = colors.mean(-1)
    truth = torch.zeros_like(pictures)
    terms = [kl_divergence(posterior.mean, posterior.log_variance), density.mean(), pictures.square().mean()]
    if system.perceptual is not None:
        terms.append(recomputed(system.perceptual, pictures, truth))
    if system.discriminator is not None:
        terms += adversarial_terms(system.discriminator, truth, pictures).values()
    if system.novel_discriminator is not None:
        half = (config.rendered + 1) // 2
        terms += novel_view_adversarial(system.novel_discriminator, pictures[:, half:], pictures[:, :half]).values()
    return torch.stack([term.float() for term in terms]).sum()


def _diffusion(system: LN3DiffSystem, views: Views) -> Tensor:
    assert system.denoiser is not None
    with torch.no_grad():
        clean = system.encode(views, sample=True)
    time = clean.new_full((len(views),), 0.5)
    condition = _condition(system, views.images[:, 0])
    return in_parts(system.denoiser, clean, time, condition, lean=None, leanest=1).float().square().mean()


def _asked(system: LN3DiffSystem, features: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """What the field says, of features (b, f) that are repeated for each point as if they were sampled from planes."""
    values = system.field(repeat(features, "b f -> b n f", n=points.shape[1]).clone())
    return values.density, values.colors


@torch.no_grad()
def sampling_pass(system: LN3DiffSystem, views: int) -> None:
    """What one object, told of a picture or the like, takes in memory at most: a step of the sampler with guidance,
    its planes, and as many rays as are worked on at once. ``views`` see it together (those of a film are in parts).

    Raises:
        ValueError: for an autoencoder without denoiser.
    """
    denoiser = system.denoiser
    if denoiser is None:
        raise ValueError("an autoencoder alone cannot sample; give it a denoiser")
    config, size = system.config, system.config.image_size
    noise = torch.zeros(1, *config.latent_shape, device=system.latent_mean.device)
    told = _condition(system, noise.new_zeros(1, 3, size, size))
    cached = denoiser.precompute(Condition.cat([told, told.null()]))
    latents = in_parts(
        lambda some, known: denoiser(some, some.new_full((), 0.5), known), torch.cat([noise, noise]), cached,
        lean=4, leanest=1,
    )  # fmt: skip
    planes = system.decode(latents[:1].float()).planes
    pictures = noise.new_zeros(views, config.field.channels + 3, size, size)
    grid = pictures.new_zeros(3, OCCUPANCY_CELLS**3)  # densities, and what they are made of
    points = max(config.volume.chunk_rays * (config.volume.coarse + config.volume.fine), QUERY_POINTS)
    asked_in_parts(partial(_asked, system, planes.mean((1, 3, 4))), pictures.new_zeros(1, points, 3))
    del grid


def _condition(system: LN3DiffSystem, pictures: Tensor) -> Condition:
    """What training tells of each object: pictures (b, 3, H, W), words; classes cost nothing."""
    conditioner = system.conditioner
    assert conditioner is not None
    kinds, b = conditioner.config.taught, len(pictures)
    shown = pictures if "picture" in kinds else None
    if "text" not in kinds:
        return conditioner(pictures=shown)
    if not isinstance(conditioner.text, CLIPText):
        return conditioner(captions=["an object"] * b, pictures=shown)
    tower = conditioner.text.config  # its tokenizer comes with weights only
    with torch.no_grad():
        conditioner.text.network(input_ids=torch.zeros(b, tower.length, dtype=torch.long, device=pictures.device))
    if shown is not None:
        return conditioner(pictures=shown)
    pooled = pictures.new_zeros(b, tower.pooled_dim) if conditioner.config.pooled else None
    return Condition(pictures.new_zeros(b, tower.token_count, tower.token_dim), pooled=pooled)


def _blank_views(b: int, v: int, size: int, device: torch.device) -> Views:
    w2c, k = (torch.eye(n, device=device).repeat(b, v, 1, 1) for n in (4, 3))
    depths = torch.ones(b, v, 1, size, size, device=device)
    images = torch.zeros(b, v, 3, size, size, device=device)
    return Views(images, Cameras(w2c, k, size, size), depths, alphas=torch.ones_like(depths))
