"""The back end for GPUs: Triton kernels behind two autograd functions, gradients by hand.

`render` projects inside the kernels (gradients to the splats); `blend` takes splats that torch projected, and is the
way to gradients for cameras. All views go in one launch of each kernel and share their features.

What waits for the device: by default one number per call, the pairs of splat and tile, from which the lists are
allocated. With ``TritonOptions(entries=...)`` nothing does and every shape is known beforehand, so that a call, its
backward pass included, can be captured in a CUDA graph (after one call outside, which compiles the kernels).

The kernels run on CPU tensors too where TRITON_INTERPRET=1 was set before triton was imported: slowly, for tests.
Letters: V views, N splats, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from latent3d.rendering import splats_triton_kernels as kernels
from latent3d.rendering import splats_triton_projection as projection_kernels
from latent3d.rendering.base import TritonOptions
from latent3d.rendering.projection import ANTIALIAS_FLOOR, ProjectedSplats, tile_rectangles
from latent3d.rendering.splats_triton_order import order_entries

if tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 7):
    raise ImportError(f"it needs triton 3.7 or newer, found {triton.__version__}")

TILE: int = kernels.TILE.value
BLOCK = 32
"""Splats per step of a program."""
WARPS = 8
"""Per program. With 4, the backward pass does not fit in the registers of a GPU."""
LEAST_WIDTH = 16
"""Narrowest block of channels that is worth a matrix unit; more channels are filled up to a multiple, to be aligned."""
GROUP_CHANNELS = 384
"""Most channels that one program holds in its registers on the way there."""
BACKWARD_CHANNELS = 64
"""Most channels that one program holds in its registers on the way back."""
MOST_PIXELS = 2**23
"""Offsets in a block of channels of a picture are counted in 31 bits."""
INTERPRETED: bool = triton.knobs.runtime.interpret


def unusable(device: str) -> str | None:
    """Why the kernels cannot run on tensors of a type of device, or None if they can."""
    if INTERPRETED:
        return None
    if device == "cpu":
        return "it renders on a GPU, the splats are on 'cpu'"
    try:
        triton.runtime.driver.active.get_current_target()
    except Exception as error:  # driver, linker or C compiler: whatever is missing says so in its own way
        return f"triton finds no working driver or C compiler: {error}"
    return None


@dataclass(frozen=True)
class _Settings:
    height: int
    width: int
    options: TritonOptions
    low_pass: float = 0.3
    near: float = 0.01
    antialiased: bool = False

    def __post_init__(self) -> None:
        if self.height * self.width > MOST_PIXELS:
            raise ValueError(
                f"the triton back end renders at most {MOST_PIXELS} pixels per view, "
                f"got {self.height} x {self.width}; render in parts or use 'torch'"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Columns and rows of tiles."""
        return -(-self.width // TILE), -(-self.height // TILE)

    @property
    def floor(self) -> float:
        return ANTIALIAS_FLOOR if self.antialiased else 0.0

    def sizes(self, splats: Tensor, channels: Tensor, count: int) -> tuple[int, ...]:
        """What the blending kernels are told about shapes, after their pointers."""
        columns, rows = self.grid
        stride, per_view = channels.shape[2], int(channels.shape[0] > 1)
        return splats.shape[1], count, stride, per_view, self.height, self.width, columns, columns * rows

    def compiled(self, dtype: torch.dtype) -> dict:
        """Precision of products, and what else the compiler is told."""
        precision: str = self.options.precision
        if dtype == torch.float64:
            precision = "ieee"
        elif precision == "bf16" and INTERPRETED:
            precision = "bf16 as float32"
        return {"PRECISION": precision, "num_warps": WARPS, "num_stages": 2, "enable_fp_fusion": True}


def channel_blocks(count: int) -> tuple[int, int, int]:
    """Widths of a group's two blocks, powers of two, the second 0 if one is enough; and how many groups there are."""
    groups = max(1, -(-count // GROUP_CHANNELS))
    width = max(-(-count // groups), LEAST_WIDTH)
    first = 1 << (width.bit_length() - 1)
    rest = width - first
    return first, max(triton.next_power_of_2(rest), LEAST_WIDTH) if rest else 0, groups


def _aligned(channels: Tensor) -> Tensor:
    """Channels as the kernels want them: few as they are, more filled up with zeros to whole cache lines."""
    count = channels.shape[-1]
    return channels.contiguous() if count <= LEAST_WIDTH else F.pad(channels, (0, -count % LEAST_WIDTH)).contiguous()


def _blend_forward(splats: Tensor, depths: Tensor, rects: Tensor, channels: Tensor, settings: _Settings) -> tuple:
    """Order and blend projected splats: images (V, C, H, W), depths and alphas (V, H, W), and what is kept."""
    views = splats.shape[0]
    columns, rows = settings.grid
    entries, starts, found, capacity = order_entries(rects, depths, settings.grid, settings.options.entries)
    shape, count = (views, settings.height, settings.width), channels.shape[2]
    channels = _aligned(channels)
    images = splats.new_empty(views, count, *shape[1:])
    depth, alpha, remaining = (splats.new_empty(shape) for _ in range(3))
    last = torch.empty(shape, dtype=torch.int32, device=splats.device)
    first, second, groups = channel_blocks(count)
    kernels.blend_kernel[(views * columns * rows, groups)](
        splats, channels, entries, starts, found, images, depth, alpha, remaining, last,
        *settings.sizes(splats, channels, count), capacity,
        BLOCK=BLOCK, FIRST=first, SECOND=second, **settings.compiled(splats.dtype),
    )  # fmt: skip
    return images, depth, alpha, (splats, channels, entries, starts, depth, alpha, remaining, last)


def _blend_backward(kept: Sequence[Tensor], gradients: Sequence[Tensor], settings: _Settings) -> tuple[Tensor, Tensor]:
    """Gradients (V, N, 7) of what is on the screens, and of the channels."""
    splats, channels = kept[:2]
    columns, rows = settings.grid
    d_splats, d_channels = torch.zeros_like(splats), torch.zeros_like(channels)
    count = gradients[0].shape[1]
    width = min(max(triton.next_power_of_2(count), LEAST_WIDTH), BACKWARD_CHANNELS)
    kernels.blend_backward_kernel[(splats.shape[0] * columns * rows,)](
        *kept, *(g.contiguous() for g in gradients), d_splats, d_channels, *settings.sizes(splats, channels, count),
        BLOCK=BLOCK, WIDTH=width, **settings.compiled(splats.dtype),
    )  # fmt: skip
    return d_splats, d_channels[..., :count]


class _Blend(torch.autograd.Function):
    """Blending of splats that torch projected; gradients to all that `ProjectedSplats` holds and to the channels."""

    @staticmethod
    def forward(ctx, means, conics, depths, opacities, channels, rects, settings):
        splats = torch.cat([means, conics, depths[..., None], opacities[..., None]], -1)
        images, depth, alpha, kept = _blend_forward(splats, depths, rects, channels, settings)
        ctx.save_for_backward(*kept)
        ctx.settings = settings
        return images, depth, alpha

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        kept = ctx.saved_tensors
        with torch.cuda.device_of(kept[0]):
            d_splats, d_channels = _blend_backward(kept, gradients, ctx.settings)
        means, conics, depths, opacities = d_splats.split([2, 3, 1, 1], -1)
        return means, conics, depths[..., 0], opacities[..., 0], d_channels, None, None


class _Render(torch.autograd.Function):
    """Projection and blending; gradients to the splats and the channels, none to the cameras."""

    @staticmethod
    def forward(ctx, means, quaternions, scales, opacities, channels, w2c, k, settings):
        inputs = tuple(t.contiguous() for t in (means, quaternions, scales, opacities, w2c, k))
        views, total = w2c.shape[0], means.shape[0]
        splats, depths = means.new_empty(views, total, 7), means.new_empty(views, total)
        rects = torch.empty(views, total, 4, dtype=torch.int32, device=means.device)
        blocks = triton.cdiv(total, projection_kernels.BLOCK.value)
        projection_kernels.project_kernel[(blocks, views)](
            *inputs, splats, depths, rects, total, settings.height, settings.width,
            LOW_PASS=settings.low_pass, NEAR=settings.near, FLOOR=settings.floor, enable_fp_fusion=True,
        )  # fmt: skip
        images, depth, alpha, kept = _blend_forward(splats, depths, rects, channels, settings)
        ctx.save_for_backward(*inputs, rects, *kept)
        ctx.settings = settings
        return images, depth, alpha

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        inputs, rects, kept = ctx.saved_tensors[:6], ctx.saved_tensors[6], ctx.saved_tensors[7:]
        settings, (views, total) = ctx.settings, rects.shape[:2]
        with torch.cuda.device_of(rects):
            d_splats, d_channels = _blend_backward(kept, gradients, settings)
            out = [torch.empty_like(tensor) for tensor in inputs[:4]]
            projection_kernels.project_backward_kernel[(triton.cdiv(total, projection_kernels.BLOCK.value),)](
                *inputs, rects, d_splats, *out, views, total, settings.height, settings.width,
                LOW_PASS=settings.low_pass, FLOOR=settings.floor, enable_fp_fusion=True,
            )  # fmt: skip
        return *out, d_channels, None, None, None


def render(
    means: Float[Tensor, "n 3"],
    quaternions: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    channels: Float[Tensor, "v_or_1 n c"],
    w2c: Float[Tensor, "v 4 4"],
    k: Float[Tensor, "v 3 3"],
    height: int,
    width: int,
    low_pass: float,
    near: float,
    antialiased: bool,
    options: TritonOptions,
) -> tuple[Float[Tensor, "v c h w"], Float[Tensor, "v 1 h w"], Float[Tensor, "v 1 h w"]]:
    """Project and blend, with gradients to everything but the cameras.

    Returns:
        sum(w F), sum(w z) / max(alpha, 1e-6) and alpha.

    Raises:
        ValueError: for more pairs of splat and tile than 31 bits count, or more than 2^23 pixels per view.
    """
    settings = _Settings(height, width, options, low_pass, near, antialiased)
    with torch.cuda.device_of(means):
        images, depth, alpha = _Render.apply(means, quaternions, scales, opacities, channels, w2c, k, settings)
    return images, depth[:, None], alpha[:, None]


def blend(
    projected: ProjectedSplats, channels: Float[Tensor, "v_or_1 n c"], height: int, width: int, options: TritonOptions
) -> tuple[Float[Tensor, "v c h w"], Float[Tensor, "v 1 h w"], Float[Tensor, "v 1 h w"]]:
    """Blend splats that torch projected, with gradients to all of them. Returns and raises as `render`."""
    rects = tile_rectangles(projected, height, width, TILE)
    with torch.cuda.device_of(channels):
        images, depth, alpha = _Blend.apply(
            projected.means, projected.conics, projected.depths, projected.opacities, channels, rects,
            _Settings(height, width, options),
        )  # fmt: skip
    return images, depth[:, None], alpha[:, None]
