"""Foreign autoencoder weights: folders in the layout of diffusers, and the TAEF2 pair of ``.pth`` files.

`read_config` and `read_tensors` read any folder in that layout, for the other parts of a pre-trained model as well.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latent3d.autoencoders.image_vae import KINDS, ImageVAE, ImageVAEConfig
from latent3d.autoencoders.vit_encoder import ViTEncoder
from latent3d.nn.pretrained import read_dinov2_network

WEIGHTS_NAME = "diffusion_pytorch_model"
# Names that old Stable Diffusion weights use for the projections of the mid attention.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_ATTENTION_KEY = re.compile(r"(.*\.attentions\.\d+\.)(query|key|value|proj_attn)(\.(?:weight|bias))$")


def load_image_vae(folder: str | Path) -> ImageVAE:
    """The autoencoder in a diffusers folder: ``config.json`` and ``diffusion_pytorch_model*.safetensors``.

    The class comes from the configuration's ``_class_name``. Loading is strict; the normalisation comes from
    ``scaling_factor``, ``shift_factor``, ``latents_mean`` and ``latents_std`` where the configuration has them.

    Raises:
        FileNotFoundError: when the folder lacks one of the files.
        ValueError: for another class, an unsupported setting, or weights that do not fit (keys and shapes named).
    """
    folder = Path(folder)
    values = read_config(folder)
    vae = config_from_diffusers(values).build()
    state = {_current_key(key): value for key, value in read_tensors(folder).items()}
    _load_strictly(vae.network, state, str(folder))
    mean, std = values.get("latents_mean"), values.get("latents_std")
    if mean is not None and std is not None:  # z = (raw - mean) * scale / std
        vae.latent_mean.copy_(torch.tensor(mean).reshape_as(vae.latent_mean))
        vae.latent_std.copy_(torch.tensor(std).reshape_as(vae.latent_std) / vae.config.scaling_factor)
    return vae.eval()


def load_autoencoder(folder: str | Path) -> ImageVAE:
    """The autoencoder in a folder of either kind: TAEF2's pair of files, or diffusers' layout. Errors as in both."""
    return load_taef2(folder) if _is_taef2(folder) else load_image_vae(folder)


def autoencoder_config(folder: str | Path) -> ImageVAEConfig:
    """The configuration of `load_autoencoder` without reading weights. Errors as there."""
    return taef2_config() if _is_taef2(folder) else config_from_diffusers(read_config(Path(folder)))


def _is_taef2(folder: str | Path) -> bool:
    return any((Path(folder) / f"taef2_{side}.pth").is_file() for side in ("encoder", "decoder"))


def start_from_dinov2(encoder: ViTEncoder, folder: str | Path) -> None:
    """Fill the transformer of a `ViTEncoder` with a local DINOv2 (without registers) in the layout of transformers.

    Its positions are brought to the encoder's number of patches once. Skips and the last layer stay as they are.

    Raises:
        FileNotFoundError, ValueError: as `nn.pretrained.read_dinov2_network`, or for a DINOv2 of another size.
    """
    config, network = encoder.config, read_dinov2_network(folder)
    theirs = network.config
    for ours, name in (
        ("width", "hidden_size"), ("depth", "num_hidden_layers"), ("heads", "num_attention_heads"),
        ("mlp_ratio", "mlp_ratio"), ("patch_size", "patch_size"),
    ):  # fmt: skip
        if getattr(config, ours) != getattr(theirs, name):
            raise ValueError(
                f"the DINOv2 in '{folder}' has {name} {getattr(theirs, name)}, and the encoder {ours} "
                f"{getattr(config, ours)}; give the model that the encoder is shaped like, or set the encoder's {ours}"
            )
    state = {key: value for key, value in network.state_dict().items() if key != "embeddings.mask_token"}
    patches = (config.image_size // config.patch_size) ** 2
    with torch.no_grad():
        like = torch.empty(1, 1 + patches, config.width)
        positions = network.embeddings.interpolate_pos_encoding(like, config.image_size, config.image_size)
    _load_strictly(encoder.network, {**state, "embeddings.position_embeddings": positions.detach()}, str(folder))


def config_from_diffusers(values: dict[str, Any]) -> ImageVAEConfig:
    """Our configuration from the dictionary in a diffusers ``config.json``.

    Raises:
        ValueError: for another class or a setting that `ImageVAEConfig` cannot express.
    """
    kind = values.get("_class_name")
    if kind not in KINDS:
        raise ValueError(f"config.json describes a '{kind}'; this loader knows {', '.join(KINDS)}")
    for name in ("in_channels", "out_channels"):
        if values.get(name, 3) != 3:
            raise ValueError(f"an autoencoder of RGB images is needed, but {name} is {values[name]}")
    common = {
        "kind": kind,
        "patch_size": 1,
        "linear_path": False,
        "latent_channels": values.get("latent_channels", 4),
        "scaling_factor": values.get("scaling_factor") or 1.0,
        "shift_factor": values.get("shift_factor") or 0.0,
    }
    if kind == "AutoencoderTiny":
        if values.get("upsample_fn", "nearest") != "nearest" or values.get("upsampling_scaling_factor", 2) != 2:
            raise ValueError("only AutoencoderTiny with nearest upsampling by 2 is supported")
        return ImageVAEConfig(
            **common,
            block_out_channels=tuple(values.get("encoder_block_out_channels", (64,) * 4)),
            decoder_channels=tuple(values.get("decoder_block_out_channels", (64,) * 4)),
            encoder_layers=tuple(values.get("num_encoder_blocks", (1, 3, 3, 3))),
            decoder_layers=tuple(values.get("num_decoder_blocks", (3, 3, 3, 1))),
            act=values.get("act_fn", "relu"),
            posterior_std=0.0,
        )
    foreign = set(values.get("down_block_types", ())) - {"DownEncoderBlock2D"}
    foreign |= set(values.get("up_block_types", ())) - {"UpDecoderBlock2D"}
    if foreign:
        raise ValueError(f"blocks of type {', '.join(sorted(foreign))} are not supported in an image autoencoder")
    widths = tuple(values.get("block_out_channels", (64,)))
    return ImageVAEConfig(
        **common,
        block_out_channels=widths,
        encoder_layers=(values.get("layers_per_block", 1),) * len(widths),
        decoder_layers=None,
        act=values.get("act_fn", "silu"),
        norm_groups=values.get("norm_num_groups", 32),
        mid_attention=values.get("mid_block_add_attention", True),
        quant_conv=values.get("use_quant_conv", True),
        post_quant_conv=values.get("use_post_quant_conv", True),
    )


def taef2_config() -> ImageVAEConfig:
    """TAEF2, the small autoencoder of the 32-channel FLUX.2 latent: 64 channels throughout, pooled coarsest blocks.

    Latents of photographs have mean near 0 and standard deviation near 0.87, hence the scaling factor.
    """
    return ImageVAEConfig(
        kind="AutoencoderTiny",
        latent_channels=32,
        patch_size=1,
        linear_path=False,
        block_out_channels=(64,) * 4,
        encoder_layers=(1, 3, 3, 3),
        decoder_layers=(3, 3, 3, 1),
        act="relu",
        mid_pool=True,
        posterior_std=0.0,
        scaling_factor=1.15,
    )


def load_taef2(folder: str | Path) -> ImageVAE:
    """TAEF2 from ``taef2_encoder.pth`` and ``taef2_decoder.pth``, state dictionaries of plain sequences of layers.

    Raises:
        FileNotFoundError: when one of the files is missing.
        ValueError: when keys or shapes do not fit.
    """
    state: dict[str, Tensor] = {}
    for side in ("encoder", "decoder"):
        path = Path(folder) / f"taef2_{side}.pth"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; TAEF2 needs taef2_encoder.pth and taef2_decoder.pth")
        for key, value in torch.load(path, map_location="cpu", weights_only=True).items():
            index, rest = key.split(".", 1)
            # The published decoder counts its leading clamp as layer 0; diffusers clamps outside the sequence.
            position = int(index) - (side == "decoder")
            state[f"{side}.layers.{position}.{rest}"] = value.float()
    vae = taef2_config().build()
    _load_strictly(vae.network, state, str(folder))
    return vae.eval()


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a folder in diffusers' layout.

    Raises:
        FileNotFoundError, ValueError: it is not there, or not valid JSON.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; give the folder that holds the model's config.json")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); download it again") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} should hold a JSON object; download it again")
    return values


def read_tensors(folder: Path, stem: str = WEIGHTS_NAME) -> dict[str, Tensor]:
    """Tensors of ``<stem>.safetensors`` (or its shards, or the ``fp16`` variant) in diffusers' layout.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is cut off or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        whole = (f"{stem}.safetensors", f"{stem}.fp16.safetensors")
        names = [name for name in whole if (folder / name).is_file()][:1]
    missing = [name for name in names if not (folder / name).is_file()]
    if not names or missing:
        wanted = missing[0] if missing else f"{stem}.safetensors"
        raise FileNotFoundError(f"{folder / wanted} is missing; weights are read from safetensors files only")
    state: dict[str, Tensor] = {}
    for name in names:
        try:
            state |= load_file(folder / name)
        except SafetensorError as error:
            raise ValueError(f"{folder / name} is cut off or damaged ({error}); download it again") from error
    return state


def _current_key(key: str) -> str:
    match = _OLD_ATTENTION_KEY.match(key)
    return f"{match[1]}{_OLD_ATTENTION[match[2]]}{match[3]}" if match else key


def _load_strictly(network: torch.nn.Module, state: dict[str, Tensor], source: str) -> None:
    own = network.state_dict()
    problems = [f"missing {key}" for key in own if key not in state]
    problems += [f"unexpected {key}" for key in state if key not in own]
    problems += [
        f"{key} has shape {tuple(state[key].shape)}, expected {tuple(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    if problems:
        shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
        raise ValueError(f"the weights in {source} do not fit their configuration: {shown}")
    network.load_state_dict(state)
