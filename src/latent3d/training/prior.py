"""Pre-trained parts of a system: Stable Video Diffusion's folder in the layout of diffusers, or an autoencoder alone.

A prior is a folder with ``unet/``, ``vae/`` and ``image_encoder/``, each with ``config.json`` and safetensors; the
model's own sizes come from there. Loading is strict. Nothing is converted but the place of one factor: outside the
autoencoder latents have unit variance, and `VideoUNetConfig.reference_scale` undoes that where the prior was trained
with unscaled conditioning latents.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latent3d.autoencoders.pretrained import (
    WEIGHTS_NAME,
    autoencoder_config,
    load_autoencoder,
    read_config,
    read_tensors,
)
from latent3d.conditioning.image import ImageEncoderConfig
from latent3d.denoisers.video_unet_config import VideoUNetConfig
from latent3d.training.config import TrainConfig
from latent3d.weights import load_into

UNET, VAE, IMAGE_ENCODER = "unet", "vae", "image_encoder"
PRIOR_PARTS = [
    ("denoiser.", UNET, WEIGHTS_NAME),
    ("vae.network.", VAE, WEIGHTS_NAME),
    ("image_encoder.network.", IMAGE_ENCODER, "model"),
]
"""What a system calls the tensors of a prior, and where they lie (see `latent3d.weights.read_base`)."""
OLD_BUFFER = "vision_model.embeddings.position_ids"
"""Plain counting, which old versions of transformers wrote into their files."""


def find_prior(source: str | Path) -> Path:
    """The folder of a prior: the one that is named, else the model of that name on the Hugging Face hub.

    A model of the hub is downloaded once (the three parts only) and found in the hub's cache later, also offline.

    Raises:
        FileNotFoundError: no such folder, and no such model that could be downloaded.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    name = str(source)
    if name.count("/") != 1 or name.startswith((".", "~", "/")):
        raise FileNotFoundError(
            f"the prior '{name}' is no folder; give a folder with {UNET}/, {VAE}/ and {IMAGE_ENCODER}/, "
            "or the name of a model on the Hugging Face hub (owner/model)"
        )
    from huggingface_hub import snapshot_download  # heavy, and only needed here

    parts = (UNET, VAE, IMAGE_ENCODER)
    wanted = [
        f"{part}/{file}" for part in parts for file in ("config.json", "*.safetensors", "*.safetensors.index.json")
    ]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=["*.fp16.*"]))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileNotFoundError(
            f"the prior '{name}' is neither a folder nor could it be fetched from the Hugging Face hub "
            f"({reason[:200]}); connect to the internet, accept the model's licence there and log in if it asks for "
            "it, or download it elsewhere and give its folder"
        ) from error


def with_prior(config: TrainConfig, folder: Path) -> TrainConfig:
    """A run whose autoencoder, image encoder and video U-Net have the sizes of a prior; reads the small files only.

    Raises:
        FileNotFoundError, ValueError: a missing or unreadable ``config.json``, or an architecture that is not covered.
        ValueError: the system has no video U-Net.
    """
    system: Any = config.system
    old = getattr(system, "denoiser", None)
    if not isinstance(old, VideoUNetConfig):
        raise ValueError("this preset has no video U-Net to load a prior into; train ggs_re10k, or leave --prior out")
    vae = autoencoder_config(folder / VAE)
    base = VideoUNetConfig.from_diffusers(read_config(folder / UNET))
    if vae.latent_channels != base.latent_channels:
        raise ValueError(
            f"{folder}: the autoencoder has {vae.latent_channels} latent channels and the U-Net "
            f"{base.latent_channels}; take both from the same model"
        )
    sizes = ("latent_channels", "channels", "attention", "layers", "heads", "context_dim", "added_time_dim")
    denoiser = old.replace(
        **{name: getattr(base, name) for name in sizes},
        downscale=vae.factor,
        noise_scale=1.0,
        reference_scale=1.0 / vae.scaling_factor,
    )
    encoder = ImageEncoderConfig.from_transformers(read_config(folder / IMAGE_ENCODER))
    return config.replace(system=system.replace(vae=vae, denoiser=denoiser, image_encoder=encoder))


def load_prior(model: Any, folder: Path, autoencoder: bool = True) -> None:
    """Fill autoencoder (unless another one is used), image encoder and base of the video U-Net of a system, strictly.

    Raises:
        FileNotFoundError, ValueError: missing or damaged files, or weights that do not fit, naming keys and shapes.
    """
    if autoencoder:
        load_into(model.vae, load_autoencoder(folder / VAE).state_dict(), f"the weights in {folder / VAE}")
    state = read_tensors(folder / IMAGE_ENCODER, "model")
    state = {key: value for key, value in state.items() if key != OLD_BUFFER}
    load_into(model.image_encoder.network, state, f"the weights in {folder / IMAGE_ENCODER}")
    try:
        model.denoiser.load_prior(read_tensors(folder / UNET))
    except ValueError as error:
        raise ValueError(f"{folder / UNET}: {error}") from error


def with_autoencoder(config: TrainConfig, folder: Path) -> TrainConfig:
    """A run in the latents of a pre-trained autoencoder, which is kept: the stage that would train it falls away.

    Args:
        folder: diffusers' layout (``AutoencoderKL``, ``AutoencoderTiny``, ``AutoencoderKLTemporalDecoder``), or TAEF2's
            pair of files.

    Raises:
        FileNotFoundError, ValueError: as `autoencoder_config`, or where the sizes do not go together.
    """
    system: Any = config.system
    if not hasattr(system, "vae"):
        raise ValueError("this preset has no autoencoder to replace; leave --autoencoder out")
    vae = autoencoder_config(folder)
    if vae.factor != system.vae.factor:
        raise ValueError(
            f"{folder}: this autoencoder reduces by {vae.factor}, and the preset's other parts expect "
            f"{system.vae.factor}; choose one with that factor"
        )
    denoiser = system.denoiser.replace(latent_channels=vae.latent_channels)
    stages = tuple(stage for stage in config.stages if stage.name != "vae")
    return config.replace(system=system.replace(vae=vae, denoiser=denoiser), stages=stages)
