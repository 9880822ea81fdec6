"""Every attention of the package runs in PyTorch's fused kernel, on a CPU too: no matrix of weights is ever stored."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from latent3d.autoencoders.image_vae import ImageVAEConfig
from latent3d.autoencoders.multiview_encoder import MultiViewEncoderConfig
from latent3d.autoencoders.triplane_decoder import PlaneUpsamplerConfig, TriPlaneDecoderConfig
from latent3d.autoencoders.vit_encoder import ViTEncoderConfig
from latent3d.conditioning.condition import Condition
from latent3d.conditioning.image import ImageEncoderConfig
from latent3d.conditioning.picture import SmallViTConfig
from latent3d.conditioning.text import ByteTextEncoderConfig
from latent3d.conditioning.towers import CLIPPictureConfig, DINOv2Config
from latent3d.denoisers.latent_unet import LatentUNetConfig
from latent3d.denoisers.multiview_transformer import MultiViewTransformerConfig
from latent3d.denoisers.plane_dit import PlaneDiTConfig
from latent3d.denoisers.video_unet_config import VideoUNetConfig
from latent3d.geometry.cameras import Cameras
from latent3d.representations.views import Views
from tests.denoisers.common import make_inputs

FUSED = "_scaled_dot_product_flash_attention_for_cpu"
PLANES = torch.zeros(1, 3, 4, 4, 4)
PICTURES = torch.rand(2, 3, 32, 32)


class Counted(TorchDispatchMode):
    """Counts fused attentions, and softmaxes, which an attention that is not fused needs."""

    def __init__(self) -> None:
        super().__init__()
        self.fused = self.plain = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.fused += name == FUSED
        self.plain += name in ("_softmax", "_safe_softmax")
        return function(*args, **(kwargs or {}))


def views() -> Views:
    k, w2c = torch.eye(3).expand(1, 2, 3, 3), torch.eye(4).expand(1, 2, 4, 4)
    return Views(PICTURES[None], Cameras(w2c, k, 32, 32), torch.rand(1, 2, 1, 32, 32))


def condition(config: PlaneDiTConfig | LatentUNetConfig) -> Condition:
    return Condition(tokens=torch.randn(1, 3, config.context_dim))


CALLS: dict[str, Callable[[], tuple[nn.Module, Callable]]] = {
    "PlaneDiT": lambda: (
        PlaneDiTConfig.tiny().build(),
        lambda n: n(PLANES, torch.tensor(0.5), condition(n.config)),
    ),
    "LatentUNet": lambda: (
        LatentUNetConfig.tiny().build(),
        lambda n: n(PLANES, torch.tensor(0.5), condition(n.config)),
    ),
    "MultiViewTransformer": lambda: (MultiViewTransformerConfig.tiny(4).build(), lambda n: n(*make_inputs())),
    "VideoUNet": lambda: (VideoUNetConfig.tiny(4).build(), lambda n: n(*make_inputs())),
    "TriPlaneDecoder": lambda: (
        TriPlaneDecoderConfig(
            latent_size=4, width=16, depth=2, heads=2, upsampler=PlaneUpsamplerConfig(width=4, multipliers=(1, 2))
        ).build(),
        lambda n: n(PLANES),
    ),
    "MultiViewEncoder": lambda: (
        MultiViewEncoderConfig(latent_channels=2, width=8, multipliers=(1, 2), heads=2, head_channels=4).build(),
        lambda n: n(views()),
    ),
    "ViTEncoder": lambda: (ViTEncoderConfig.tiny(2).build(), lambda n: n(views())),
    "AutoencoderKL": lambda: (
        ImageVAEConfig(
            kind="AutoencoderKL", latent_channels=4, patch_size=1, block_out_channels=(16, 32), encoder_layers=(1, 1),
            decoder_layers=None, mid_attention=True, linear_path=False,
        ).build(),
        lambda n: n.decode(n.encode(PICTURES)),
    ),
    "ImageEncoder": lambda: (ImageEncoderConfig.tiny().build(), lambda n: n(PICTURES)),
    "CLIPPicture": lambda: (CLIPPictureConfig.tiny().build(), lambda n: n(PICTURES)),
    "DINOv2": lambda: (
        DINOv2Config(width=16, layers=2, heads=2, trained_size=28, image_size=28).build(),
        lambda n: n(PICTURES[..., :28, :28]),
    ),
    "SmallViT": lambda: (SmallViTConfig.tiny().build(), lambda n: n(PICTURES[..., :16, :16])),
    "ByteTextEncoder": lambda: (ByteTextEncoderConfig.tiny().build(), lambda n: n(["a red chair", "a lamp"])),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_attention_is_fused(name: str):
    network, call = CALLS[name]()
    with Counted() as counted:
        call(network)
    assert counted.fused > 0
    assert counted.plain == 0
