"""The image autoencoder: shapes, normalisation, the linear start, training terms, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from latent3d.autoencoders.blocks import LinearPatches, cosine_patch_basis
from latent3d.autoencoders.image_vae import (
    ImageVAEConfig,
    edge_loss,
    image_vae_small,
    image_vae_small_tiny,
    kl_to_standard_normal,
)

KL = ImageVAEConfig(
    kind="AutoencoderKL",
    latent_channels=4,
    patch_size=2,
    block_out_channels=(8, 16),
    encoder_layers=(1, 1),
    decoder_layers=None,
    act="silu",
    norm_groups=4,
)
TEMPORAL = KL.replace(
    kind="AutoencoderKLTemporalDecoder", patch_size=1, block_out_channels=(32, 32), encoder_layers=(2, 2)
)  # two layers: with one, diffusers leaves the attention of this decoder unused
CONFIGS = [image_vae_small_tiny(), KL, TEMPORAL]
BY_KIND = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_images(count: int, size: int = 32) -> Tensor:
    """Gratings of low frequency with random colours."""
    grid = torch.linspace(0, 1, size)
    phases, colours = torch.rand(count, 2, generator=seeded(0)), torch.rand(count, 3, 1, 1, generator=seeded(1))
    rows = torch.sin(2 * math.pi * (grid + phases[:, :1]))
    columns = torch.sin(2 * math.pi * (grid + phases[:, 1:]))
    return 0.5 + 0.4 * colours * (rows[:, None, :, None] * columns[:, None, None, :])


def psnr(images: Tensor, targets: Tensor) -> float:
    return -10 * math.log10(float((images - targets).square().mean()))


@BY_KIND
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_any_leading_shape(config: ImageVAEConfig, batch: tuple[int, ...]) -> None:
    vae = config.build().eval()
    images = torch.rand(*batch, 3, 32, 16, generator=seeded(0))
    with torch.no_grad():
        latents = vae.encode(images)
        restored = vae.decode(latents)
    assert latents.shape == (*batch, config.latent_channels, 32 // vae.factor, 16 // vae.factor)
    assert restored.shape == images.shape
    assert 0 <= restored.min() <= restored.max() <= 1


def test_frames_are_coded_one_by_one() -> None:
    vae = image_vae_small_tiny().build().eval()
    images = torch.rand(2, 3, 3, 16, 16, generator=seeded(0))
    with torch.no_grad():
        together = vae.decode(vae.encode(images))
        alone = vae.decode(vae.encode(images[1, 2]))
    torch.testing.assert_close(together[1, 2], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("factor", "count"), [(2, 12), (4, 7), (8, 16)])
def test_patch_basis_is_orthonormal_and_ordered(factor: int, count: int) -> None:
    basis, std = cosine_patch_basis(factor, count)
    torch.testing.assert_close(basis @ basis.T, torch.eye(count), rtol=0, atol=1e-5)
    assert (std.diff() <= 0).all()
    first = basis[0].reshape(3, factor, factor)
    torch.testing.assert_close(first, first.mean() * torch.ones_like(first))  # brightness comes first


def test_a_complete_basis_restores_everything() -> None:
    images = torch.rand(2, 3, 8, 8, generator=seeded(0))
    linear = LinearPatches(latent_channels=12, factor=2)
    torch.testing.assert_close(linear.decode(linear.encode(images)), images, rtol=0, atol=1e-5)


def test_more_functions_than_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="13 were asked for"):
        cosine_patch_basis(2, 13)


@BY_KIND
def test_untrained_it_already_shows_smooth_pictures(config: ImageVAEConfig) -> None:
    images = smooth_images(4)
    with torch.no_grad():
        vae = config.replace(latent_channels=8).build().eval()
        assert psnr(vae.decode(vae.encode(images)), images) > 30


def test_normalisation_gives_unit_variance_and_leaves_the_pictures_alone() -> None:
    vae = image_vae_small_tiny(8).build().eval()
    images = smooth_images(6)
    with torch.no_grad():
        before = vae.decode(vae.encode(images))
        vae.fit_normalization(images.reshape(2, 3, 3, 32, 32))
        latents = vae.encode(images)
        after = vae.decode(latents)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(8), rtol=0, atol=1e-4)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(8), rtol=1e-3, atol=0)
    assert {"latent_mean", "latent_std"} <= set(vae.state_dict())


def test_a_constant_channel_does_not_divide_by_zero() -> None:
    vae = image_vae_small_tiny(4).build().eval()
    vae.fit_normalization(torch.full((2, 3, 16, 16), 0.5))
    assert vae.encode(torch.rand(1, 3, 16, 16)).isfinite().all()


@pytest.mark.parametrize("config", [image_vae_small_tiny(), KL], ids=lambda config: config.kind)
def test_samples_spread_by_the_posterior(config: ImageVAEConfig) -> None:
    vae = config.build().eval()
    images = smooth_images(1, 16).expand(400, 3, 16, 16)
    with torch.no_grad():
        vae.latent_std.fill_(2.0)
        mean = vae.encode(images)
        draws = vae.encode(images, sample=True, generator=seeded(3))
        again = vae.encode(images, sample=True, generator=seeded(3))
    assert torch.equal(draws, again)
    assert float((draws - mean).std()) == pytest.approx(0.05 / 2, rel=0.05)  # both kinds start at std 0.05


def test_no_noise_without_sampling() -> None:
    vae = image_vae_small_tiny().build().eval()
    images = smooth_images(2)
    assert torch.equal(vae.encode(images), vae.encode(images))


@BY_KIND
def test_training_improves_every_term(config: ImageVAEConfig) -> None:
    torch.manual_seed(0)
    vae = config.build()
    images = torch.rand(4, 3, 16, 16, generator=seeded(0))
    optimizer = torch.optim.Adam(vae.parameters(), lr=3e-3)
    history = []
    for step in range(25):
        terms = vae.training_terms(images, seeded(step))
        assert set(terms) == {"l1", "mse", "edge", "kl"}
        assert all(term.shape == () and term.isfinite() for term in terms.values())
        optimizer.zero_grad()
        (terms["l1"] + 0.5 * terms["edge"] + 1e-4 * terms["kl"]).backward()
        optimizer.step()
        history.append({name: float(term.detach()) for name, term in terms.items()})
    assert all(parameter.grad is not None for parameter in vae.parameters())
    for name in ("l1", "mse", "edge"):
        assert history[-1][name] < 0.97 * history[0][name]


def test_terms_depend_on_the_generator_only() -> None:
    vae, images = image_vae_small_tiny().build(), smooth_images(2)
    first, again, other = (vae.training_terms(images, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first["mse"], again["mse"])
    assert not torch.equal(first["mse"], other["mse"])


def test_half_precision_autocast_returns_full_precision() -> None:
    vae, images = image_vae_small_tiny().build(), smooth_images(2)
    with torch.autocast("cpu", torch.bfloat16):
        latents = vae.encode(images)
        restored = vae.decode(latents)
    assert latents.dtype == restored.dtype == torch.float32
    torch.testing.assert_close(restored, vae.decode(vae.encode(images)), rtol=0, atol=0.02)


def test_float64_works() -> None:
    vae = image_vae_small_tiny().build().double()
    restored = vae.decode(vae.encode(smooth_images(2).double()))
    assert restored.dtype == torch.float64


def test_kl_has_the_textbook_value() -> None:
    mean, std = torch.tensor([0.0, 1.0, -0.3]), torch.tensor([1.0, 1.0, 0.2])
    theirs = torch.distributions.kl_divergence(torch.distributions.Normal(mean, std), torch.distributions.Normal(0, 1))
    torch.testing.assert_close(kl_to_standard_normal(mean, std), theirs)


def test_edge_loss_ignores_brightness_and_sees_blur() -> None:
    step = torch.zeros(1, 3, 16, 16)
    step[..., 8:] = 1
    blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(step, (2, 2, 2, 2), "replicate"), 5, 1)
    assert edge_loss(step + 0.1, step) < 1e-6
    assert edge_loss(blurred, step) > edge_loss(0.5 * (blurred + step), step) > 0.01
    # one level, against black: one jump of 1 among 15 differences along x, none along y
    assert float(edge_loss(step, torch.zeros_like(step), levels=1)) == pytest.approx(1 / 15)


@pytest.mark.parametrize("config", [*CONFIGS, image_vae_small(), image_vae_small(16)])
def test_configuration_round_trip_builds_the_same_module(config: ImageVAEConfig) -> None:
    again = ImageVAEConfig.from_dict(config.to_dict())
    assert again == config
    vae = again.build()
    vae.load_state_dict(config.build().state_dict())
    assert vae.factor == config.factor


def test_small_preset_is_small() -> None:
    parameters = sum(parameter.numel() for parameter in image_vae_small(8).build().parameters())
    assert image_vae_small().factor == 8
    assert 1.0e6 < parameters < 2.5e6


def test_refusals_say_what_to_do() -> None:
    vae = image_vae_small_tiny(4).build()
    with pytest.raises(ValueError, match="not a multiple of 8; resize or crop"):
        vae.encode(torch.zeros(1, 3, 20, 16))
    with pytest.raises(ValueError, match="4 latent channels, not 8"):
        vae.decode(torch.zeros(1, 8, 2, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "VQModel"}, "AutoencoderTiny"),
        ({"encoder_layers": (1,)}, "one number per entry"),
        ({"decoder_layers": (1, 2, 3)}, "one number per entry"),
        ({"block_out_channels": (8, 16)}, "equal block_out_channels"),
        ({"decoder_channels": (8, 16)}, "equal decoder_channels"),
        ({"scaling_factor": 0.0}, "positive"),
        ({"kind": "AutoencoderKL", "encoder_layers": (1, 2), "decoder_layers": None}, "equal encoder_layers"),
        ({"kind": "AutoencoderKL"}, "no decoder_layers"),
    ],
)
def test_impossible_configurations_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image_vae_small_tiny().replace(**changes)
