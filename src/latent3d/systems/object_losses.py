"""Terms of the loss of LN3Diff++'s autoencoder, unweighted, one function per term (LN3Diff sections 3.2 and 5).

Pictures are (..., 3, H, W) or rays (..., 3), in [0, 1]; alphas have one channel in the same place. Which pixels are
rendered at all is chosen in `object_patches`.

Letters: b = objects, n = pictures, c = channels, H/W = rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from latent3d.autoencoders.image_vae import edge_loss
from latent3d.config import Config
from latent3d.geometry.precision import full_precision
from latent3d.nn.fixed_features import RandomFeatures
from latent3d.rendering.similarity import ssim

Mask = Bool[Tensor, "*batch 1 H W"] | Float[Tensor, "*batch 1 H W"]


def l1(rgb: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Mean |rgb - target| over pixels (or rays) and channels."""
    return (rgb - target).abs().mean()


def foreground_l2(
    rgb: Float[Tensor, "*shape"],
    target: Float[Tensor, "*shape"],
    alpha: Float[Tensor, "*single"],
    background_weight: float = 1.0,
) -> Float[Tensor, ""]:
    """Foreground mean + background_weight x background mean of (rgb - target)^2, as LN3Diff does on ShapeNet.

    A small object on a large background counts as much as a large one. A pixel belongs to the foreground with weight
    alpha and to the background with 1 - alpha; a part that is empty counts 0.
    """
    error = (rgb - target).square()
    inside = alpha.to(error).expand_as(error)
    return _weighted_mean(error, inside) + background_weight * _weighted_mean(error, 1 - inside)


def alpha_l1(alpha: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Mean |alpha - target| over pixels or rays."""
    return (alpha - target).abs().mean()


@full_precision
def scale_shift_depth(
    depth: Float[Tensor, "*batch 1 H W"],
    target: Float[Tensor, "*batch 1 H W"],
    mask: Mask,
    alpha: float = 0.5,
    cutoff: float = 0.2,
    levels: int = 4,
) -> Float[Tensor, ""]:
    """Depth error that does not depend on scale and shift (MiDaS, Ranftl et al. 2020, equations 4, 5, 7 and 11).

    Per picture, with M pixels of the mask: s, t = argmin sum (s d + t - d*)^2 in closed form, R = s d + t - d*, and

        loss = sum R^2 / (2 M) + alpha sum_k sum (|dR_k / dx| + |dR_k / dy|) / M_k

    where R_k is R at every 2^k-th pixel and only neighbours within the mask are compared. Pictures with a loss above
    the cut-off are left out, because a wrong s and t teach nothing; the others are averaged (0 where none is left).

    Args:
        depth, target: in scene units, which the cut-off is in as well.
        mask: where both are known. alpha: weight of the gradients. levels: number of scales k.
    """
    d, t, m = (_wide(part).reshape(-1, *part.shape[-2:]) for part in (depth, target, mask))
    count = m.sum((1, 2))
    scale, shift = scale_and_shift(d, t, m)
    gap = scale[:, None, None] * d + shift[:, None, None] - t
    loss = (m * gap.square()).sum((1, 2)) / (2 * count.clamp_min(1))
    for level in range(levels):
        coarse, known = (part[:, :: 2**level, :: 2**level] for part in (gap, m))
        slopes = sum((_both(known, axis) * coarse.diff(dim=axis).abs()).sum((1, 2)) for axis in (1, 2))
        loss = loss + alpha * slopes / known.sum((1, 2)).clamp_min(1)
    kept = (loss.detach() <= cutoff) & (count >= 2)
    return _weighted_mean(loss, kept.to(loss))


def scale_and_shift(
    depth: Float[Tensor, "n H W"], target: Float[Tensor, "n H W"], mask: Float[Tensor, "n H W"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """s, t = argmin sum mask (s depth + t - target)^2 per picture: s = cov / var, t = mean* - s mean.

    Where the depth is constant (or the mask empty) s is 0.
    """
    count = mask.sum((1, 2)).clamp_min(1)
    mean, mean_target = ((mask * part).sum((1, 2)) / count for part in (depth, target))
    offset = mask * (depth - mean[:, None, None])
    variance = offset.square().sum((1, 2)) / count
    scale = (offset * target).sum((1, 2)) / count / variance.clamp_min(1e-8)
    return scale, mean_target - scale * mean


def depth_smoothness(
    depth: Float[Tensor, "*batch 1 H W"],
    image: Float[Tensor, "*batch 3 H W"] | None = None,
    mask: Mask | None = None,
    sharpness: float = 10.0,
) -> Float[Tensor, ""]:
    """Mean over neighbours i, j (right and below) of exp(-sharpness |I_i - I_j|) (d_i - d_j)^2.

    Squared differences of rendered depth as in PersonNeRF (Weng et al. 2023) and RegNeRF, less where the picture has an
    edge (Godard et al. 2017), |I_i - I_j| being the mean over channels. Without an image all neighbours count alike.

    Args:
        depth: rendered, in scene units.
        image: guide in [0, 1], no gradient reaches it.
        mask: only neighbours that are both within it count: at a silhouette depth jumps to "none".
    """
    terms = []
    for axis in (-1, -2):
        gap = _wide(depth).diff(dim=axis).square()
        counted = torch.ones_like(gap) if mask is None else _both(mask.to(gap), axis)
        if image is not None:
            slope = _wide(image.detach()).diff(dim=axis).abs().mean(-3, keepdim=True)
            gap = torch.exp(-sharpness * slope) * gap
        terms.append(_weighted_mean(gap, counted))
    return torch.stack(terms).mean()


def kl_divergence(mean: Float[Tensor, "*shape"], log_variance: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) = sum (mean^2 + exp(lv) - 1 - lv) / 2 over all but b, mean over b."""
    mean, log_variance = _wide(mean), _wide(log_variance)
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1).mean()


@dataclass(frozen=True, kw_only=True)
class PerceptualConfig(Config):
    """Which perceptual distance.

    Attributes:
        kind: ``lpips_alex`` and ``lpips_vgg`` are LPIPS (Zhang et al. 2018), from the local files ``trunk``
            (torchvision's AlexNet or VGG16) and ``heads`` (the published linear heads); ``random_conv`` is the
            substitute where there are no weights, see `Perceptual`.
        widths, seed: channels per level of the random convolutions, and what their weights are drawn from.
        features, edges, structure: weights of the parts of ``random_conv``.
    """

    kind: Literal["random_conv", "lpips_alex", "lpips_vgg"] = "random_conv"
    trunk: str = ""
    heads: str = ""
    widths: tuple[int, ...] = (16, 32, 64)
    seed: int = 0
    features: float = 1.0
    edges: float = 1.0
    structure: float = 0.5

    def build(self) -> Perceptual:
        """Raises FileNotFoundError or ValueError where the files of LPIPS are absent or of another network."""
        return Perceptual(self)


class Perceptual(nn.Module):
    """A distance of pictures beyond pixel by pixel; its weights are fixed, and no part of a checkpoint.

    With ``random_conv`` it is a substitute for LPIPS, the sum of three parts:

    - features: squared distance of the locally normalised responses of random convolutions at growing scales
      (`nn.fixed_features.RandomFeatures`), so texture counts as such, also where contrast is low;
    - edges: finite differences at three scales (`autoencoders.image_vae.edge_loss`), against blur;
    - structure: (1 - SSIM) / 2.

    It punishes blur, missing texture and shifted edges more than L1 does. It knows nothing about what people notice:
    its values are no LPIPS, cannot be compared with published ones, and semantic similarity means nothing to it.
    """

    def __init__(self, config: PerceptualConfig) -> None:
        super().__init__()
        self.config = config
        if config.kind == "random_conv":
            self.network: nn.Module = RandomFeatures(config.widths, config.seed)
            return
        from latent3d.nn.pretrained import read_lpips

        weights = read_lpips(config.trunk, config.heads)
        if f"lpips_{weights.name}" != config.kind:
            raise ValueError(f"'{config.trunk}' is the network of lpips_{weights.name}, but {config.kind} is asked for")
        self.network = weights.module()

    def forward(self, images: Float[Tensor, "*batch 3 H W"], truth: Float[Tensor, "*batch 3 H W"]) -> Float[Tensor, ""]:
        """Mean distance of pictures in [0, 1]; the sides are at least 8 pixels, for LPIPS 32.

        Raises:
            ValueError: for smaller pictures.
        """
        smallest = 8 if self.config.kind == "random_conv" else 32
        if min(images.shape[-2:]) < smallest:
            raise ValueError(f"{self.config.kind} needs pictures of {smallest} pixels a side, got {images.shape[-2:]}")
        x, y = (part.reshape(-1, *part.shape[-3:]) for part in (images, truth))
        if self.config.kind != "random_conv":
            return self.network(x, y).mean()
        window = min(11, min(x.shape[-2:]) // 2 * 2 - 1)
        parts = {
            "features": self._feature_distance(x, y),
            "edges": edge_loss(x, y),
            "structure": (1 - ssim(x.float(), y.float(), window=window).mean()) / 2,
        }
        return torch.stack([getattr(self.config, name) * value.float() for name, value in parts.items()]).sum()

    def _feature_distance(self, x: Float[Tensor, "n 3 H W"], y: Float[Tensor, "n 3 H W"]) -> Float[Tensor, ""]:
        levels = zip(self.network(x), self.network(y), strict=True)
        return torch.stack([(_normalized(a) - _normalized(b)).square().sum(1).mean() for a, b in levels]).mean()


def _normalized(features: Float[Tensor, "n c h w"], floor: float = 0.05) -> Float[Tensor, "n c h w"]:
    """Vectors of about unit length where there is contrast, fading to zero below the floor."""
    features = features.float()
    return features * torch.rsqrt(features.square().sum(1, keepdim=True) + features.shape[1] * floor**2)


def _wide(values: Tensor) -> Tensor:
    """At least float32."""
    return values if values.dtype == torch.float64 else values.float()


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """sum(w x) / sum(w); 0 where all weights are 0."""
    return (weights * values).sum() / weights.sum().clamp_min(1e-6)


def _both(mask: Tensor, axis: int) -> Tensor:
    """Product of the mask at each pixel and at the next one along an axis."""
    length = mask.shape[axis] - 1
    return mask.narrow(axis, 0, length) * mask.narrow(axis, 1, length)
