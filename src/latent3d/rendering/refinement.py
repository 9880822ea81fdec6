"""Photometric refinement: splats optimised so that posed pictures come out (3D Gaussian Splatting, Kerbl et al. 2023).

Two uses. A generated scene is improved on its references and generated views (GGS's refined variant: Splatfacto for
5,000 iterations). A scene is reconstructed from pictures alone, starting from `scatter_splats`.

As in 3DGS: Adam, L1 + D-SSIM, cloning and splitting where the screen-space gradient is long, pruning of transparent
and of overgrown splats. Unlike there: no reset of opacities, which takes thousands of iterations to recover from; views
come in turn, as often as their weights say; what is large or far is judged by distance, since a generated scene has few
cameras close together. Letters: V views, N splats, H, W image size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent3d.config import Config
from latent3d.geometry.cameras import Cameras
from latent3d.geometry.precision import full_precision
from latent3d.rendering.base import LOW_PASS_PX, Rendering
from latent3d.rendering.refinement_splats import FreeSplats, ScreenGradients
from latent3d.rendering.refinement_start import scatter_splats as scatter_splats
from latent3d.rendering.refinement_start import scene_extent
from latent3d.rendering.similarity import ssim
from latent3d.rendering.smoothing import finest_footprint
from latent3d.rendering.splats import Backend, render_gaussians
from latent3d.representations.gaussians import Gaussians
from latent3d.representations.views import Views

OVERGROWN = 2.0
"""A splat is overgrown only if it has become this many times as large as the one that it descends from."""


@dataclass(frozen=True, kw_only=True)
class RefinementConfig(Config):
    """Attributes:
    iterations: steps of the optimiser; 5000 as in GGS's refined variant, a few hundred are usual on a CPU.
    views_per_step: views rendered per step.
    means_px: learning rate of the centres: pixels, at the scene's extent (the median depth of the splats that the views
        show), by which a splat moves per step; it decays exponentially to ``means_decay`` of itself. 3DGS's 1.6e-4 of
        the extent is 0.16 pixels at a focal length of 1,000 pixels; counted in the extent, small pictures would stand
        still.
    scales_rate: learning rate of the logarithms of the scales.
    quaternions_rate, opacities_rate, colors_rate: learning rates of quaternions, of opacities' logits and of colours;
        harmonics beyond the constant one learn at a twentieth of the colours' rate.
    structural_weight: share of 1 - SSIM in the loss; the rest is the mean absolute difference.
    depth_weight: weight of the mean relative difference between rendered depth and the views' depths, where those are
        known. With the starting scene's own rendered depths it keeps the geometry where it is.
    densify_every: steps between two rounds of densification and pruning; 0 for none.
    densify_until: share of the steps after which the number of splats stays.
    gradient_threshold: mean gradient by the screen position, in half images, above which a splat is doubled.
    split_px: splats with a standard deviation above this many pixels are split, others cloned.
    max_splats: densification stops at this number, taking the longest gradients first.
    prune_opacity: splats below this are removed.
    largest_size: splats with a standard deviation above this share of the extent, or of their distance from the nearest
        camera if that is larger, are removed if they were not half as large at the start; so neither the far nor what
        was given large is taken for the overgrown.
    low_pass_px: low-pass in square pixels at which the scene is rendered, see `render_gaussians`.
    backend: of the rasteriser.
    seed: of the order of views and of where halves of split splats lie.
    """

    iterations: int = 5000
    views_per_step: int = 1
    means_px: float = 0.1
    means_decay: float = 0.01
    scales_rate: float = 5e-3
    quaternions_rate: float = 1e-3
    opacities_rate: float = 0.05
    colors_rate: float = 2.5e-3
    structural_weight: float = 0.2
    depth_weight: float = 0.0
    densify_every: int = 100
    densify_until: float = 0.5
    gradient_threshold: float = 2e-4
    split_px: float = 1.0
    max_splats: int = 300_000
    prune_opacity: float = 0.005
    largest_size: float = 0.1
    low_pass_px: float = LOW_PASS_PX
    backend: Backend = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.iterations < 0 or self.views_per_step < 1 or self.densify_every < 0:
            raise ValueError(
                "iterations and densify_every must be at least 0 and views_per_step at least 1, got "
                f"{self.iterations}, {self.densify_every} and {self.views_per_step}"
            )
        if not 0 <= self.structural_weight <= 1 or self.depth_weight < 0:
            raise ValueError(
                "structural_weight must lie between 0 and 1 and depth_weight must not be negative, got "
                f"{self.structural_weight} and {self.depth_weight}"
            )


def gentle_refinement(iterations: int = 30, low_pass_px: float = LOW_PASS_PX) -> RefinementConfig:
    """For a scene that a model made, on its references: small steps, no densification, and few of them.

    3DGS's rates are made for starts that are far off. A generated scene is near what it can be, and at those rates it
    learns two references by heart, at the cost of views beside them (`bench/refinement.py`).
    """
    return RefinementConfig(
        iterations=iterations,
        means_px=0.02,
        scales_rate=1e-3,
        opacities_rate=0.01,
        densify_every=0,
        low_pass_px=low_pass_px,
    )


@dataclass(frozen=True)
class Refined:
    """Refined splats.

    Attributes:
        gaussians: N' splats without history; features follow their splats unchanged.
        parent: index of the input splat that each output splat descends from, (N',) int64.
        losses: loss of every step, (iterations,).
    """

    gaussians: Gaussians
    parent: Int[Tensor, " n"]
    losses: Float[Tensor, " steps"]


@torch.enable_grad()
@full_precision
def refine(
    gaussians: Gaussians,
    views: Views,
    config: RefinementConfig,
    *,
    weights: Float[Tensor, " v"] | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> Refined:
    """Optimise splats on posed pictures. Same seed, same machine, same number of threads: same result.

    Args:
        gaussians: N >= 1 splats with colours, with or without harmonics; not written to.
        views: images (V, 3, H, W) and cameras (V,), V >= 1, on the splats' device; depths if ``depth_weight`` > 0.
        config: what to do; 0 iterations return the splats as they are.
        weights: how much each view counts, (V,), not negative; all alike by default. A view with weight 0 is not used.
        on_step: called with (step, iterations, loss) after every step, steps from 0.

    Raises:
        ValueError: for splats without colours, no splats, no views, sizes or weights that do not fit, missing depths,
            or views that show none of the splats.
    """
    share = _check(gaussians, views, config, weights)
    parent = torch.arange(len(gaussians), device=gaussians.means.device)
    if config.iterations == 0:
        return Refined(gaussians, parent, torch.zeros(0))
    dtype = torch.float64 if gaussians.means.dtype == torch.float64 else torch.float32
    start, views = gaussians.detach().to(dtype), views.to(dtype)
    if bool((share == 0).any()):
        views, share = views[(share > 0).to(views.images.device)], share[share > 0]
    extent = scene_extent(start.means, views.cameras)
    pixel = extent / float(views.cameras.k[:, 0, 0].mean())
    splats = FreeSplats(start, _rates(config, pixel))
    order = torch.Generator().manual_seed(config.seed)
    turn = _Turns(share, order)
    seen = ScreenGradients(start.means)
    last_growth = int(config.densify_until * config.iterations)
    losses = []
    for step in range(config.iterations):
        decay = config.means_decay ** (step / config.iterations)
        splats.optimizer.param_groups[0]["lr"] = config.means_px * pixel * decay
        grows = config.densify_every > 0 and step < last_growth
        losses.append(_step(splats, views, [turn.next() for _ in range(config.views_per_step)], config, seen, grows))
        if grows and (step + 1) % config.densify_every == 0:
            _densify(splats, seen, views.cameras, config, order)
            large = _overgrown(splats, start, views.cameras, extent, config.largest_size)
            splats.prune(~large & (splats.opacities() >= config.prune_opacity))
            seen = ScreenGradients(splats.values["means"])
        if on_step is not None:
            on_step(step, config.iterations, losses[-1])
    splats.prune(splats.opacities() >= config.prune_opacity)
    features = None if start.features is None else start.features[splats.parent]
    return Refined(replace(splats.activated().detach(), features=features), splats.parent, torch.tensor(losses))


def _step(
    splats: FreeSplats, views: Views, chosen: list[int], config: RefinementConfig, seen: ScreenGradients, grows: bool
) -> float:
    """One step of Adam on the mean loss of the chosen views; returns that loss.

    Views are taken back one by one, since densification wants every view's own gradient.
    """
    parameters = list(splats.values.values())
    loss_sum = 0.0
    for parameter in parameters:
        parameter.grad = None
    for index in chosen:
        view = views[index : index + 1]
        rendering = render_gaussians(
            splats.activated(), view.cameras, backend=config.backend, low_pass=config.low_pass_px
        )
        loss = view_loss(rendering, view, config)
        gradients = torch.autograd.grad(loss, parameters)
        loss_sum += loss.item()
        if grows:
            seen.add(splats.values["means"].detach(), gradients[0], view.cameras)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            gradient = gradient / len(chosen) if len(chosen) > 1 else gradient
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
    splats.optimizer.step()
    return loss_sum / len(chosen)


def view_loss(rendering: Rendering, view: Views, config: RefinementConfig) -> Float[Tensor, ""]:
    """(1 - w) |I - I*| + w (1 - SSIM) (3DGS, eq. 7), plus the weighted alpha |z - z*| / z* where z* is known."""
    assert rendering.rgb is not None
    loss = (1 - config.structural_weight) * (rendering.rgb - view.images).abs().mean()
    if config.structural_weight > 0:
        loss = loss + config.structural_weight * (1 - ssim(rendering.rgb, view.images).mean())
    if config.depth_weight > 0:
        assert view.depths is not None
        known = view.depths > 0
        relative = (rendering.depth - view.depths).abs() / view.depths.where(known, torch.ones_like(view.depths))
        loss = loss + config.depth_weight * (relative * known * rendering.alpha.detach()).mean()
    return loss


def _densify(
    splats: FreeSplats, seen: ScreenGradients, cameras: Cameras, config: RefinementConfig, generator: torch.Generator
) -> None:
    """Double the splats with long gradients, as far as there is room."""
    lengths = seen.mean()
    wanted = lengths > config.gradient_threshold
    room = max(0, config.max_splats - len(splats))
    if int(wanted.sum()) > room:
        longest = lengths.masked_fill(~wanted, -1).sort(descending=True, stable=True).indices[:room]
        wanted = torch.zeros_like(wanted).index_fill(0, longest, True)
    if bool(wanted.any()):
        footprint = finest_footprint(splats.values["means"], cameras)
        widest = splats.values["log_scales"].detach().amax(-1).exp()
        splats.grow(wanted, widest > config.split_px * footprint, generator)


@torch.no_grad()
def _overgrown(splats: FreeSplats, start: Gaussians, cameras: Cameras, extent: float, share: float) -> Tensor:
    """Which splats have become too large for where they are, (N,)."""
    distance = torch.cdist(splats.values["means"], cameras.centers).amin(1).clamp_min(extent)
    width = splats.values["log_scales"].amax(-1).exp()
    return (width > share * distance) & (width > OVERGROWN * start.scales.amax(-1)[splats.parent])


class _Turns:
    """Which view comes next: in the long run each as often as its share, in a varying order.

    Every view earns its share per turn, the richest comes next and pays 1; a random part of a share breaks ties.
    """

    def __init__(self, share: Float[Tensor, " v"], generator: torch.Generator) -> None:
        self.share, self.generator = share, generator
        self.credit = torch.zeros_like(share)

    def next(self) -> int:
        """Index of a view."""
        self.credit += self.share
        luck = self.share * torch.rand(self.share.shape, generator=self.generator, dtype=self.share.dtype)
        chosen = int((self.credit + luck).argmax())
        self.credit[chosen] -= 1
        return chosen


def _rates(config: RefinementConfig, pixel: float) -> dict[str, float]:
    """Learning rates of the parameters at the start; ``pixel`` is a pixel's width at the scene's extent."""
    return {
        "means": config.means_px * pixel,
        "quaternions": config.quaternions_rate,
        "log_scales": config.scales_rate,
        "logits": config.opacities_rate,
        "colors": config.colors_rate,
        "harmonics": config.colors_rate / 20,
    }


def _check(gaussians: Gaussians, views: Views, config: RefinementConfig, weights: Tensor | None) -> Float[Tensor, " v"]:
    """Share of every view in the steps (float64, on the CPU), or ValueError for what cannot be refined."""
    if gaussians.colors is None:
        raise ValueError("only splats with colours can be refined on pictures; give `colors`")
    if len(gaussians) == 0:
        raise ValueError("there are no splats to refine; start from `scatter_splats`")
    cameras, shape = views.cameras, tuple(views.images.shape)
    if len(shape) != 4 or shape[0] == 0:
        raise ValueError(f"refinement takes images of shape (V, 3, H, W) with V >= 1, got {shape}")
    count = shape[0]
    if tuple(cameras.shape) != (count,) or shape[1:] != (3, cameras.height, cameras.width):
        raise ValueError(
            f"images of shape {shape} do not fit {tuple(cameras.shape)} cameras of {cameras.height} x {cameras.width} "
            "pixels (height x width)"
        )
    if config.depth_weight > 0 and (views.depths is None or tuple(views.depths.shape) != (count, 1, *shape[2:])):
        found = "none" if views.depths is None else tuple(views.depths.shape)
        raise ValueError(
            f"depth_weight is positive, so depths ({count}, 1, {shape[2]}, {shape[3]}) are needed: {found}"
        )
    if weights is None:
        return torch.full((count,), 1 / count, dtype=torch.float64)
    share = weights.detach().to("cpu", torch.float64)
    if tuple(share.shape) != (count,) or not bool(torch.isfinite(share).all()) or bool((share < 0).any()):
        raise ValueError(f"weights must be {count} finite numbers that are not negative, one per view")
    if float(share.sum()) == 0:
        raise ValueError("all views have weight 0; give at least one a positive weight")
    return share / share.sum()
