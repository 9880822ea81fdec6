"""The encoder that is a DINOv2: it starts out as one, freedom of the views, places and planes of the latent."""

import pytest
import torch
import transformers
from torch.nn import functional as F

from latent3d.autoencoders.multiview_encoder import LOG_VARIANCE_LIMIT
from latent3d.autoencoders.pretrained import start_from_dinov2
from latent3d.autoencoders.vit_encoder import ViTEncoderConfig
from latent3d.geometry.cameras import Cameras
from latent3d.representations.views import Views

TINY = ViTEncoderConfig.tiny(2)


def views_of(b: int, v: int, size: int = 32, seed: int = 0) -> Views:
    generator = torch.Generator().manual_seed(seed)
    k, w2c = torch.eye(3).expand(b, v, 3, 3), torch.eye(4).expand(b, v, 4, 4)
    return Views(torch.rand(b, v, 3, size, size, generator=generator), Cameras(w2c, k, size, size))


def test_the_default_has_the_size_of_the_paper():
    """DINOv2 ViT-S/14 has 22.06 M parameters with positions for 37 x 37 patches; 16 x 16 are 1113 rows fewer."""
    with torch.device("meta"):
        encoder = ViTEncoderConfig().build()
    dinov2 = 22_056_576 - (37**2 - 16**2) * 384 - 384  # nor is there a mask token
    skips, last = 6 * (2 * 384 + 1) * 384, 385 * 96
    assert sum(p.numel() for p in encoder.parameters()) == dinov2 + skips + last
    assert ViTEncoderConfig().latent_size(128) == 32


@pytest.mark.parametrize("size", [32, 48])
def test_shapes_with_any_number_and_size_of_views(size: int):
    encoder = TINY.build()
    for v in (1, 3):
        posterior = encoder(views_of(2, v, size))
        assert posterior.mean.shape == posterior.log_variance.shape == (2, 3, 2, 8, 8)
        assert posterior.log_variance.abs().max() <= LOG_VARIANCE_LIMIT
    assert TINY.latent_size(size) == 8


def test_the_latent_is_the_mean_over_the_views():
    encoder, views = TINY.build().eval(), views_of(1, 3)
    each = torch.cat([encoder(views[:, i : i + 1]).mean for i in range(3)])
    torch.testing.assert_close(encoder(views).mean[0], each.mean(0))


def test_a_patch_becomes_the_cells_at_its_place_and_planes_have_channels_of_their_own():
    encoder, views = TINY.build().eval(), views_of(1, 1)
    encoder.tokens = lambda images: F.one_hot(torch.tensor([[6] * 16]), 16).float()
    with torch.no_grad():
        encoder.to_moments.weight.zero_()
        encoder.to_moments.bias.copy_(torch.arange(48.0))
    first = encoder(views).mean[0]
    # order of the last layer: row and column within the patch, plane, moment, channel
    for i, j, plane, channel in ((0, 0, 0, 0), (0, 1, 2, 1), (1, 0, 1, 0), (1, 1, 2, 1)):
        assert first[plane, channel, i, j] == ((2 * i + j) * 3 + plane) * 4 + channel
    assert torch.equal(first[..., :2, :2].repeat(1, 1, 4, 4), first)
    tokens = torch.zeros(1, 16, 16)
    tokens[0, 6, 0] = 1.0  # second row, third column of patches
    encoder.tokens = lambda images: tokens
    with torch.no_grad():
        encoder.to_moments.weight[:, 0] = 1.0
    change = (encoder(views).mean[0] - first).abs().amax((0, 1)) > 0
    assert change.nonzero().tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]


def test_it_starts_out_as_the_dinov2_of_a_folder(tmp_path):
    """At the folder's own resolution and at another one."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "mlp_ratio": 4, "patch_size": 8}
    network = transformers.Dinov2Model(transformers.Dinov2Config(**sizes, image_size=56)).eval()
    network.save_pretrained(tmp_path)
    for side in (32, 56):
        encoder = TINY.replace(image_size=side).build().eval()
        start_from_dinov2(encoder, tmp_path)
        images = torch.rand(2, 3, side, side)
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        theirs = network((images - mean[:, None, None]) / std[:, None, None]).last_hidden_state[:, 1:]
        torch.testing.assert_close(encoder.tokens(images), theirs, rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            torch.nn.init.normal_(encoder.skips[0].weight)
        assert (encoder.tokens(images) - theirs).abs().max() > 1e-2


def test_the_last_block_reads_what_the_first_gave():
    """Four blocks: the third begins with what the second gave, the fourth with what the first gave."""
    encoder = TINY.replace(depth=4).build().eval()
    seen: list[torch.Tensor] = []
    for layer in encoder.network.encoder.layer:
        layer.register_forward_hook(lambda module, args, out: seen.append(out))
    entered: list[torch.Tensor] = []
    for skip in encoder.skips:
        skip.register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    encoder.tokens(torch.rand(1, 3, 32, 32))
    for number, (before, kept) in enumerate(((1, 1), (2, 0))):
        assert torch.equal(entered[number], torch.cat([seen[before], seen[kept]], -1))
    assert len(TINY.build().skips) == 1
    assert len(TINY.replace(skips=False).build().skips) == 0


def test_checkpointing_changes_nothing():
    views = views_of(1, 2)
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = TINY.replace(checkpointing=checkpointing).build()
        encoder(views).mean.square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters()])
    for plain, saved in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, saved)


def test_errors_are_sentences(tmp_path):
    with pytest.raises(ValueError, match="must be a multiple of the patch 14"):
        ViTEncoderConfig(image_size=128)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        start_from_dinov2(TINY.build(), tmp_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 8, "image_size": 32}
    transformers.Dinov2Model(transformers.Dinov2Config(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="num_attention_heads 4, and the encoder heads 2"):
        start_from_dinov2(TINY.build(), tmp_path)
