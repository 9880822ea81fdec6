"""What one training pass of GGS costs: all its networks on inputs of the right shapes, without geometry or rendering.

Made for tensors without values (meta, fake), on which nothing that depends on values can run.

Letters: b = scenes, m = views, j = novel views, k = references, c = latent channels, h/w = latent size, H/W = image
size, n/q/s = sources, latent pixels and samples of the epipolar transformer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from latent3d.geometry.cameras import Cameras
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.views import Views
from latent3d.systems.carried_pixels import reference_depth
from latent3d.systems.epipolar_transformer import EpipolarLines, EpipolarTransformerConfig
from latent3d.systems.ggs import GGSConfig, GGSSystem
from latent3d.systems.splat_decoder import PixelEvidence

EVIDENCE_CHANNELS = 13
"""Maps per pixel that the 3D decoder reads."""


def network_pass(system: GGSSystem, stage: str, scenes: int) -> Tensor:
    """A scalar that depends on all trained networks of a stage as its loss does, gradients included.

    Args:
        system: on any device; as many references as training ever gives are assumed.
        stage: of training.
        scenes: b.
    """
    config = system.config
    device = system.vae.latent_mean.device
    novel = config.novel if stage in ("scene", "decoder") else 0
    images = torch.zeros(scenes, config.views + novel, 3, config.height, config.width, device=device)
    if stage == "vae":
        return torch.stack(list(system.vae.training_terms(images[:, 0]).values())).sum()
    if stage == "geometry":
        raise ValueError("the stage 'geometry' matches values and cannot be counted; choose another stage")
    with torch.no_grad():
        clean = system.vae.encode(images).float()
        tokens = system.embed(images)
    posed, frozen = stage != "prior", stage == "decoder"
    depth, seen = clean.new_zeros(()), min(len(config.reference_weights), config.views)
    if posed and system.geometry is not None:
        with torch.set_grad_enabled(frozen):
            references = Views(images[:, :seen], _cameras(config, scenes, seen, device))
            depth = reference_depth(system.geometry, references, agreed=False)
    with torch.set_grad_enabled(not frozen):
        features = _denoise(system, clean[:, : config.views], tokens, posed)
        if stage in ("prior", "twin"):
            return system.denoiser.velocity(features).float().square().mean()
        features, loss = _splat_networks(system, features, clean)
    if not frozen:
        return loss
    with torch.no_grad():
        system.vae.decode(clean[:, : config.views])
    pixels = images.new_zeros(*features.shape[:2], EVIDENCE_CHANNELS, *images.shape[-2:])
    raw = system.decoder.frames(pixels, features, clean[:, : config.views])
    return depth.square().mean() + _total(_splats(system, raw, pixels))


@torch.no_grad()
def sampling_pass(system: GGSSystem, views: int) -> None:
    """What a scene of so many views, one of them given, takes in memory at most: what stays during sampling, a step of
    the sampler, and the decoding at the end.

    Splats and renders are stood in for by tensors of their size.
    """
    config, m = system.config, views
    pixels = system.vae.latent_mean.new_zeros(1, m, 3, config.height, config.width)
    reference = system.vae.encode(pixels[:, :1]).float()
    clean = reference.new_zeros(1, m, *reference.shape[2:])
    h, w = clean.shape[-2:]
    known = None if system.geometry is None else pixels.new_zeros(1, m + 1, 5, config.height, config.width)
    stays = (torch.zeros_like(pixels), known)  # the references among blank pictures, and what they show elsewhere
    features, _ = _splat_networks(system, _denoise(system, clean, system.embed(pixels), posed=True), clean)
    splat = 14 + config.head.features
    coarse = features.new_zeros(m * h * w, 2 * splat)  # as they are, and as the renderer has them
    renders = features.new_zeros(m, config.head.features + 5, h, w)
    decoded = system.vae.decode(clean).float()
    evidence = torch.cat([decoded, pixels.new_zeros(1, m, EVIDENCE_CHANNELS - 3, *pixels.shape[-2:])], 2)
    raw = system.decoder.frames(evidence, features, clean)
    fine = _splats(system, raw, evidence)
    del stays, coarse, renders, fine


def _denoise(system: GGSSystem, clean: Tensor, tokens: Tensor | None, posed: bool) -> Tensor:
    config = system.config
    b, m, _, h, w = clean.shape
    plucker = clean.new_zeros(b, m, 6, config.height, config.width) if posed else None
    condition = None
    if posed and config.denoiser.condition_channels:
        condition = clean.new_zeros(b, m, config.denoiser.condition_channels, h, w)
    return system.denoise(clean, clean, clean.new_zeros(b, m), plucker, tokens, condition)


def _splat_networks(system: GGSSystem, features: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Epipolar transformer, splat head and velocity head; renders are stood in for by the head's own outputs."""
    config = system.config
    b, m, _, h, w = features.shape
    features = system.epipolar(features, _lines(config.epipolar, features)).float()
    head = system.head
    known = features.new_zeros(b, m, 2, h, w)
    x = head.block(torch.cat([features, known], 2).flatten(0, 1))
    raw = head.to_gaussian(x).float()
    loss = head.to_depth(x).float().square().mean() + head.to_trust(x).float().square().mean() + raw.square().mean()
    seen, level = raw[:, -config.head.features :], features.new_ones(b * m)
    velocity, rendered = system.velocity(seen, raw[:, :1].sigmoid(), clean[:, :m].flatten(0, 1), level, level)
    return features, loss + velocity.square().mean() + rendered.square().mean()


def _splats(system: GGSSystem, raw: Tensor, pixels: Tensor) -> list[Gaussians]:
    """Full-resolution splats, of all views alike."""
    maps = pixels.split([3, 1, 1, 3, 1, 1, 1, 2], 2)[:7]
    b, m = raw.shape[:2]
    return system.decoder.activated(raw, PixelEvidence(*maps), _cameras(system.config, b, m, raw.device))


def _total(splats: list[Gaussians]) -> Tensor:
    """A scalar that depends on all of them."""
    parts = [(s.means, s.quaternions, s.scales, s.opacities, s.colors) for s in splats]
    return torch.stack([part.square().mean() for scene in parts for part in scene if part is not None]).sum()


def _cameras(config: GGSConfig, b: int, m: int, device: torch.device) -> Cameras:
    w2c, k = (torch.eye(n, device=device).repeat(b, m, 1, 1) for n in (4, 3))
    return Cameras(w2c, k, config.height, config.width)


def _lines(config: EpipolarTransformerConfig, features: Tensor) -> EpipolarLines:
    b, m, _, h, w = features.shape
    n = m - 1 if config.max_sources is None else min(m - 1, config.max_sources)
    samples = config.samples if config.kind == "epipolar" else 0
    shape = (b, m, n, h * w, samples)
    corners = features.new_zeros(*shape[:-1], 4 * samples)
    sources = features.new_zeros(b, m, n, dtype=torch.long)
    rays = None if config.kind == "epipolar" else features.new_zeros(b, m, h * w, 6, dtype=torch.float32)
    return EpipolarLines(sources, corners.long(), corners.float(), features.new_ones(shape, dtype=torch.float32), rays)
