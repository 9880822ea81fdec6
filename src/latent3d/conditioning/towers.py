"""Large frozen encoders through transformers: CLIP's two towers and DINOv2. `pretrained` fills them from local folders.

Letters: B = batch, S = side of the prepared picture, L, E = number and width of tokens, P = width of the pooled vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from latent3d.conditioning.image import ImageEncoder, ImageEncoderConfig
from latent3d.conditioning.text import Encoding
from latent3d.config import Config

EMBEDDING_LENGTH = 18.4
"""Length of CLIP's embedding where it is the context token itself (LN3Diff++ table VI)."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class FrozenTower(nn.Module):
    """A network that is never trained, whatever mode the system is in; its weights are kept with the system's."""

    def _freeze(self) -> None:
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenTower:
        return super().train(False)


@dataclass(frozen=True, kw_only=True)
class CLIPTextConfig(Config):
    """Sizes of a `CLIPText`; the defaults are ViT-L/14's text tower.

    Attributes:
        tokens: "words" for the last states of all tokens, as Stable Diffusion reads them; "embedding" for a single
            token, the projected embedding at a length of 18.4.
        width, hidden, layers, heads, length, vocabulary, act: of the transformer.
        embedding: width of the projected embedding; None for a tower without projection, whose pooled vector is the
            state at the end of the text.
        end, padding: token numbers.
        tokenizer_bytes: size of the tokenizer's description, which is kept among the weights.
    """

    tokens: Literal["words", "embedding"] = "words"
    width: int = 768
    hidden: int = 3072
    layers: int = 12
    heads: int = 12
    length: int = 77
    vocabulary: int = 49408
    act: str = "quick_gelu"
    embedding: int | None = 768
    end: int = 49407
    padding: int = 49407
    tokenizer_bytes: int = 0

    @property
    def token_dim(self) -> int:
        """E."""
        return self.width if self.tokens == "words" else self.pooled_dim

    @property
    def pooled_dim(self) -> int:
        """P."""
        return self.width if self.embedding is None else self.embedding

    @property
    def token_count(self) -> int:
        """L."""
        return self.length if self.tokens == "words" else 1

    def build(self) -> CLIPText:
        """The encoder with random weights and no tokenizer (see `pretrained.load_clip_text`)."""
        return CLIPText(self)


class CLIPText(FrozenTower):
    """Texts through CLIP's text tower.

    The tokenizer travels with the weights, as the bytes of its JSON description: a checkpoint needs no other folder.

    Args:
        config: sizes.
    """

    tokenizer: Tensor

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        from transformers import CLIPTextConfig as TowerConfig  # heavy: only when it is built
        from transformers import CLIPTextModel, CLIPTextModelWithProjection

        self.config = config
        kind = CLIPTextModel if config.embedding is None else CLIPTextModelWithProjection
        self.network = kind(
            TowerConfig(
                vocab_size=config.vocabulary,
                hidden_size=config.width,
                intermediate_size=config.hidden,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                max_position_embeddings=config.length,
                hidden_act=config.act,
                projection_dim=config.embedding or config.width,
                eos_token_id=config.end,
                bos_token_id=None,
                pad_token_id=None,
            )
        )
        self.register_buffer("tokenizer", torch.zeros(config.tokenizer_bytes, dtype=torch.uint8))
        self._tokenizer: Any = None
        self._freeze()

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Encoding:
        """Texts to tokens (B, L, E) and pooled (B, P). What is longer than the tower's length is cut.

        Raises:
            ValueError: for an encoder without a tokenizer.
        """
        numbers = self.numbers(texts).to(self.tokenizer.device)
        out = self.network(input_ids=numbers)
        embedding = out.pooler_output if self.config.embedding is None else out.text_embeds
        if self.config.tokens == "embedding":
            return _as_token(embedding)
        return Encoding(out.last_hidden_state, embedding)

    def numbers(self, texts: Sequence[str]) -> Int[Tensor, "B n"]:
        """Token numbers, padded to the tower's length; the end is kept where a text is cut."""
        if not len(self.tokenizer):
            raise ValueError(
                "this CLIP text encoder has no tokenizer; load it from a folder with tokenizer files and weights"
            )
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_str(bytes(self.tokenizer.tolist()).decode())
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(self.config.length)
        rows = [entry.ids for entry in self._tokenizer.encode_batch(list(texts))]
        padded = [row + [self.config.padding] * (self.config.length - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.long).reshape(len(rows), self.config.length)


@dataclass(frozen=True, kw_only=True)
class CLIPPictureConfig(ImageEncoderConfig):
    """Sizes of a `CLIPPicture`: those of the tower, and what of it is read.

    Attributes:
        tokens: "patches" for the last states of all patches; "embedding" for a single token, the projected embedding at
            a length of 18.4.
    """

    tokens: Literal["patches", "embedding"] = "patches"

    @classmethod
    def large(cls) -> CLIPPictureConfig:
        """ViT-L/14, which LN3Diff++ reads."""
        return cls(width=1024, hidden=4096, layers=24, heads=16, embedding=768, act="quick_gelu")

    @property
    def token_dim(self) -> int:
        """E."""
        return self.width if self.tokens == "patches" else self.embedding

    @property
    def pooled_dim(self) -> int:
        """P."""
        return self.embedding

    @property
    def token_count(self) -> int:
        """L."""
        return (self.image_size // self.patch_size) ** 2 if self.tokens == "patches" else 1

    def build(self) -> CLIPPicture:  # type: ignore[override]
        """The encoder with random weights."""
        return CLIPPicture(self)


class CLIPPicture(FrozenTower):
    """Prepared pictures through CLIP's vision tower.

    Args:
        config: sizes.
    """

    def __init__(self, config: CLIPPictureConfig) -> None:
        super().__init__()
        self.config = config
        self.tower = ImageEncoder(config)
        self._freeze()

    @torch.no_grad()
    def forward(self, pictures: Float[Tensor, "B 3 S S"]) -> Encoding:
        """Pictures in [0, 1] to tokens (B, L, E) and pooled (B, P), the projected embedding."""
        out = self.tower.states(pictures)
        if self.config.tokens == "embedding":
            return _as_token(out.image_embeds)
        return Encoding(out.last_hidden_state[:, 1:], out.image_embeds)


@dataclass(frozen=True, kw_only=True)
class DINOv2Config(Config):
    """Sizes of a `DINOv2`; the defaults are ViT-L/14 with registers.

    Attributes:
        width, layers, heads, mlp_ratio: of the transformer.
        patch_size: pixels per side.
        registers: number of register tokens, which are left out of the result; 0 for the first release.
        trained_size: side of the pictures that the positions were made for.
        image_size: side of the pictures that are given, a multiple of the patch.
        gated: whether the feed-forward layers are gated (the giant model).
    """

    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp_ratio: int = 4
    patch_size: int = 14
    registers: int = 4
    trained_size: int = 518
    image_size: int = 224
    gated: bool = False

    @property
    def token_dim(self) -> int:
        """E."""
        return self.width

    @property
    def pooled_dim(self) -> int:
        """P = E."""
        return self.width

    @property
    def token_count(self) -> int:
        """L."""
        return (self.image_size // self.patch_size) ** 2

    def build(self) -> DINOv2:
        """The encoder with random weights."""
        return DINOv2(self)


class DINOv2(FrozenTower):
    """Prepared pictures through DINOv2 (Oquab et al. 2023; registers: Darcet et al. 2024).

    Args:
        config: sizes.
    """

    def __init__(self, config: DINOv2Config) -> None:
        super().__init__()
        import transformers  # heavy: only when it is built

        self.config = config
        sizes: dict[str, Any] = {
            "hidden_size": config.width,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "mlp_ratio": config.mlp_ratio,
            "patch_size": config.patch_size,
            "image_size": config.trained_size,
            "use_swiglu_ffn": config.gated,
        }
        kind: Any = transformers.Dinov2Model  # its class and its configuration go together
        described: Any = transformers.Dinov2Config(**sizes)
        if config.registers:
            kind = transformers.Dinov2WithRegistersModel
            described = transformers.Dinov2WithRegistersConfig(**sizes, num_register_tokens=config.registers)
        self.network = kind(described)
        self._freeze()

    @torch.no_grad()
    def forward(self, pictures: Float[Tensor, "B 3 S S"]) -> Encoding:
        """Pictures in [0, 1] to patch tokens (B, L, E) and the class token (B, E)."""
        mean, std = (pictures.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        out = self.network(pixel_values=(pictures - mean) / std)
        return Encoding(out.last_hidden_state[:, 1 + self.config.registers :], out.pooler_output)


def _as_token(embedding: Float[Tensor, "B E"]) -> Encoding:
    """The embedding at the length of 18.4 as the only token."""
    scaled = EMBEDDING_LENGTH * F.normalize(embedding.float(), dim=-1)
    return Encoding(scaled[:, None], scaled)
