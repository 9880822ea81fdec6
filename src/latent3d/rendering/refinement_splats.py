"""The splats under refinement: free parameters with their Adam, and what adds and removes them.

Rows are splats. Whatever rearranges them (cloning, splitting, pruning) rearranges Adam's moments and the splats'
descent along with them. Letters: N splats.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from latent3d.geometry.cameras import Cameras
from latent3d.geometry.precision import full_precision
from latent3d.geometry.rotations import quaternion_to_matrix
from latent3d.representations.gaussians import Gaussians

SPLIT_SHRINK = 1.6
"""A splat's two halves are this much smaller than it (3DGS)."""
LEAST_SCALE = 1e-12
LEAST_OPACITY = 1e-4
"""Opacities start at least this far from 0 and 1, where a logit would be infinite."""


class FreeSplats:
    """Splats as unconstrained parameters: means, quaternions, log scales, logit opacities, plain colours, harmonics.

    Attributes:
        values: parameters by name, (N, ...) each.
        parent: (N,) index of the starting splat that each descends from.
        optimizer: Adam with one group per parameter, whose learning rates may be changed from outside.
    """

    def __init__(self, gaussians: Gaussians, rates: dict[str, float]) -> None:
        """Start from splats with colours; ``rates`` are learning rates by parameter, of which absent ones are dropped.

        The splats themselves are not written to.
        """
        opacities = gaussians.opacities.clamp(LEAST_OPACITY, 1 - LEAST_OPACITY)
        start: dict[str, Tensor | None] = {
            "means": gaussians.means,
            "quaternions": gaussians.quaternions,
            "log_scales": gaussians.scales.clamp_min(LEAST_SCALE).log(),
            "logits": torch.logit(opacities),
            "colors": gaussians.colors,
            "harmonics": gaussians.harmonics,
        }
        self.values = {
            name: nn.Parameter(value.detach().clone().contiguous())
            for name, value in start.items()
            if value is not None
        }
        groups = [{"params": [value], "lr": rates[name], "name": name} for name, value in self.values.items()]
        # 3DGS's epsilon: gradients of means are tiny in large scenes, and must not vanish beside it
        self.optimizer = torch.optim.Adam(groups, eps=1e-15, fused=True)
        self.parent = torch.arange(len(gaussians), device=gaussians.means.device)

    def __len__(self) -> int:
        return self.values["means"].shape[0]

    def activated(self) -> Gaussians:
        """The splats as the renderer takes them, with gradients to the parameters."""
        return Gaussians(
            means=self.values["means"],
            quaternions=self.values["quaternions"],
            scales=self.values["log_scales"].exp(),
            opacities=self.values["logits"].sigmoid(),
            colors=self.values["colors"],
            harmonics=self.values.get("harmonics"),
        )

    def opacities(self) -> Float[Tensor, " n"]:
        """In [0, 1], without history."""
        return self.values["logits"].detach().sigmoid()

    @torch.no_grad()
    def take(self, index: Int[Tensor, " m"], fresh: int = 0) -> None:
        """Keep the rows ``index``, in this order and as often as they are named; the last ``fresh`` of them are new
        splats, for which Adam has no past."""
        for group in self.optimizer.param_groups:
            old = group["params"][0]
            value = nn.Parameter(old[index])
            state = self.optimizer.state.pop(old, {})
            for name in ("exp_avg", "exp_avg_sq"):
                if name in state:
                    state[name] = state[name][index]
                    state[name][len(index) - fresh :] = 0
            if state:
                self.optimizer.state[value] = state
            group["params"][0] = self.values[group["name"]] = value
        self.parent = self.parent[index]

    @torch.no_grad()
    def grow(self, wanted: Bool[Tensor, " n"], wide: Bool[Tensor, " n"], generator: torch.Generator) -> None:
        """Put two splats in the place of every wanted one: halves drawn from it where it is wide, else a clone beside
        it (3DGS sec. 5.2).

        A clone and its original get the opacity 1 - sqrt(1 - alpha), with which the two blend at their centre to what
        one was before (Bulò et al. 2024, "Revising densification in Gaussian splatting", eq. 10).
        """
        device, count = wanted.device, len(self)
        split, clone = (wanted & wide).nonzero()[:, 0], (wanted & ~wide).nonzero()[:, 0]
        rest = (~(wanted & wide)).nonzero()[:, 0]
        positions = torch.empty(count, dtype=torch.long, device=device)
        positions[rest] = torch.arange(len(rest), device=device)
        first = len(rest) + len(clone)
        self.take(torch.cat([rest, clone, split, split]), len(clone) + 2 * len(split))

        pair = torch.cat([positions[clone], torch.arange(len(rest), first, device=device)])
        logits = self.values["logits"]
        # sqrt(1 - alpha) = sqrt(sigmoid(-logit)); the logit of 1 - p is log((1 - p) / p)
        passed = torch.sigmoid(-logits[pair]).sqrt()
        logits[pair] = torch.log((1 - passed).clamp_min(LEAST_OPACITY) / passed)

        scales = self.values["log_scales"][first:].exp()
        noise = torch.randn(scales.shape, generator=generator, dtype=torch.float64).to(scales)
        axes = quaternion_to_matrix(self.values["quaternions"][first:])
        self.values["means"][first:] += (axes * (scales * noise)[:, None]).sum(-1)
        self.values["log_scales"][first:] -= math.log(SPLIT_SHRINK)

    @torch.no_grad()
    def prune(self, keep: Bool[Tensor, " n"]) -> None:
        """Remove the splats that are not to be kept."""
        if not bool(keep.all()):
            self.take(keep.nonzero()[:, 0])


class ScreenGradients:
    """Mean length of the loss's gradient by every splat's place on the screen, over the views that it showed in.

    3DGS densifies where the gradient by the projected centre, in units of half an image, is long. The rasteriser here
    gives gradients by world positions; those by screen positions follow: with g the gradient in camera axes, a centre
    moves by one half-image width when its point moves by z (W / 2) / fx along the camera's x-axis, so the gradient is
    g_x z W / (2 fx), and likewise along y. Left out is that the shape of a splat's ellipse varies over the screen, to
    first order by its width over its distance. A splat without any gradient did not show.
    """

    def __init__(self, means: Float[Tensor, "n 3"]) -> None:
        """Nothing seen yet, of N splats."""
        self.total = means.new_zeros(len(means))
        self.count = means.new_zeros(len(means))

    @torch.no_grad()
    @full_precision
    def add(self, means: Float[Tensor, "n 3"], gradients: Float[Tensor, "n 3"], camera: Cameras) -> None:
        """Count one view. camera: (1,)."""
        lengths = screen_gradients(means, gradients, camera).norm(dim=-1)
        self.total += lengths
        self.count += lengths > 0

    def mean(self) -> Float[Tensor, " n"]:
        """Of all views so far; 0 where a splat never showed."""
        return self.total / self.count.clamp_min(1)


def screen_gradients(
    means: Float[Tensor, "n 3"], gradients: Float[Tensor, "n 3"], camera: Cameras
) -> Float[Tensor, "n 2"]:
    """Gradients by screen positions in half images, from those by world positions; see `ScreenGradients`."""
    w2c, k = camera.w2c[0], camera.k[0]
    depth = means @ w2c[2, :3] + w2c[2, 3]
    half = torch.stack([camera.width / (2 * k[0, 0]), camera.height / (2 * k[1, 1])])
    return (gradients @ w2c[:2, :3].T) * half * depth[:, None]
