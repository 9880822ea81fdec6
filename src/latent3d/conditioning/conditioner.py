"""`Conditioner`: classes, texts and pictures to one `Condition`, with nothing where nothing is known.

Letters: B = batch, H, W = image size, K = 3 kinds of condition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from latent3d.conditioning.condition import NO_LABEL, Condition, drop_mask
from latent3d.conditioning.picture import FOREGROUND, SmallViTConfig, prepare_picture
from latent3d.conditioning.text import ByteTextEncoderConfig, Encoding
from latent3d.conditioning.towers import CLIPPictureConfig, CLIPTextConfig, DINOv2Config, FrozenTower
from latent3d.config import Config

KINDS = ("label", "text", "picture")
"""What an object may be asked for by: the columns of the masks."""


@dataclass(frozen=True, kw_only=True)
class ConditionerConfig(Config):
    """The encoders of a model, and how often each is heard in training.

    Attributes:
        classes: number of classes; 0 for a model without.
        text, picture: encoders whose tokens are read by cross-attention, one after the other, and whose pooled vectors
            stand side by side.
        appended: encoder of the picture whose tokens are appended in self-attention.
        shared: text and picture are embeddings of one space (CLIP) and take the same place, the picture first: a model
            trained with pictures then listens to texts (LN3Diff++ on ShapeNet and FFHQ).
        pooled: whether the denoiser gets the pooled vectors.
        foreground: share of the prepared picture that the object takes.
        drop: probability that a training sample is told nothing at all.
        keep_label, keep_text, keep_picture: probability of each kind in the other samples, drawn independently.
    """

    classes: int = 0
    text: ByteTextEncoderConfig | CLIPTextConfig | None = None
    picture: SmallViTConfig | CLIPPictureConfig | None = None
    appended: SmallViTConfig | DINOv2Config | None = None
    shared: bool = False
    pooled: bool = True
    foreground: float = FOREGROUND
    drop: float = 0.15
    keep_label: float = 0.5
    keep_text: float = 0.5
    keep_picture: float = 0.5

    @classmethod
    def small(cls, classes: int = 0) -> ConditionerConfig:
        """Bytes and 8x8 patches, trained with the model: nothing to download."""
        return cls(classes=classes, text=ByteTextEncoderConfig(), picture=SmallViTConfig())

    @classmethod
    def large_image(cls) -> ConditionerConfig:
        """LN3Diff++'s picture model: CLIP ViT-L/14 patches and embedding, DINOv2 ViT-L/14 patches appended."""
        return cls(picture=CLIPPictureConfig.large(), appended=DINOv2Config(), keep_picture=1.0)

    @classmethod
    def large_text(cls) -> ConditionerConfig:
        """LN3Diff++'s text model: the words of CLIP ViT-L/14."""
        return cls(text=CLIPTextConfig(), pooled=False, keep_text=1.0)

    @classmethod
    def large_shared(cls) -> ConditionerConfig:
        """LN3Diff++ on ShapeNet and FFHQ: CLIP's embedding of a picture in training, and of a text later."""
        text = CLIPTextConfig(tokens="embedding")
        picture = CLIPPictureConfig.large().replace(tokens="embedding")
        return cls(text=text, picture=picture, shared=True, pooled=False, keep_text=0.0, keep_picture=1.0)

    @classmethod
    def tiny(cls, classes: int = 3) -> ConditionerConfig:
        """For tests; fits `PlaneDiTConfig.tiny`."""
        appended = SmallViTConfig.tiny(embedding=24).replace(image_size=8)
        return cls(classes=classes, text=ByteTextEncoderConfig.tiny(), picture=SmallViTConfig.tiny(), appended=appended)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which of `KINDS` the model listens to."""
        has = (self.classes > 0, self.text is not None, self.picture is not None or self.appended is not None)
        return tuple(kind for kind, there in zip(KINDS, has, strict=True) if there)

    @property
    def taught(self) -> tuple[str, ...]:
        """Those of `kinds` that training samples are ever told."""
        odds = dict(zip(KINDS, (self.keep_label, self.keep_text, self.keep_picture), strict=True))
        return tuple(kind for kind in self.kinds if odds[kind] > 0)

    @property
    def paired(self) -> bool:
        """Whether encoders of text and picture are both trained here, so that the one can teach the other."""
        return isinstance(self.text, ByteTextEncoderConfig) and isinstance(self.picture, SmallViTConfig)

    def denoiser_fields(self) -> dict[str, Any]:
        """The fields of a denoiser's configuration that say what it is told, for ``replace(**fields)``."""
        readers = [part for part in (self.text, self.picture) if part is not None]
        pooled = sum(part.pooled_dim for part in (readers[:1] if self.shared else readers))
        return {
            "classes": self.classes,
            "context_dim": readers[0].token_dim if readers else None,
            "pooled_dim": pooled if self.pooled and readers else None,
            "appended_dim": None if self.appended is None else self.appended.token_dim,
            "appended_tokens": 0 if self.appended is None else self.appended.token_count,
        }

    def build(self) -> Conditioner:
        """The encoders with random weights.

        Raises:
            ValueError: for encoders of text and picture whose widths differ.
        """
        return Conditioner(self)


class Conditioner(nn.Module):
    """The encoders of a model and the rule for what is absent (see `Condition`).

    Args:
        config: which encoders.
    """

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        self.config = config
        _check(config)
        self.text = None if config.text is None else config.text.build()
        self.picture = None if config.picture is None else config.picture.build()
        self.appended = None if config.appended is None else config.appended.build()

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of all encoders but the frozen ones."""
        for name in ("text", "picture", "appended"):
            part = getattr(self, name)
            if part is not None and not isinstance(part, FrozenTower):
                for inner, parameter in part.named_parameters():
                    yield f"{name}.{inner}", parameter

    def draw(self, batch: int, generator: torch.Generator | None = None) -> Bool[Tensor, "batch 3"]:
        """Which kinds each training sample is told: all of them nothing at once (``drop``), else a random subset."""
        settings = self.config
        device = "cpu" if generator is None else generator.device
        odds = torch.tensor([settings.keep_label, settings.keep_text, settings.keep_picture], device=device)
        kept = torch.rand(batch, len(KINDS), generator=generator, device=device) < odds
        return kept & ~drop_mask(batch, settings.drop, generator)[:, None]

    def forward(
        self,
        labels: Int[Tensor, " B"] | None = None,
        captions: Sequence[str] | None = None,
        pictures: Float[Tensor, "B 3 H W"] | None = None,
        alphas: Float[Tensor, "B 1 H W"] | None = None,
        *,
        kept: Bool[Tensor, "B 3"] | None = None,
    ) -> Condition:
        """What the denoiser is told of a batch; without any argument, nothing.

        Args:
            labels: class numbers, -1 where unknown.
            captions: texts, empty where there is none.
            pictures: sRGB in [0, 1] over white, of any size; they are prepared here (see `prepare_picture`).
            alphas: coverage of the pictures; None where the whole picture is the object.
            kept: which kinds are told (see `draw`); None for all that are given.

        Raises:
            ValueError: for a kind that the model does not listen to, or batches of different sizes.
        """
        batch = self._batch(labels, captions, pictures)
        if batch is None:
            return Condition()
        if kept is None:
            kept = torch.ones(batch, len(KINDS), dtype=torch.bool)
        label_kept, text_kept, picture_kept = kept.unbind(1)
        text = None
        if self.text is not None and captions is not None:
            there = torch.tensor([bool(caption) for caption in captions])
            text = _masked(self.text(captions), text_kept & there.to(text_kept.device))
        picture = appended = None
        if pictures is not None:
            if self.picture is not None:
                picture = _masked(self.picture(self._prepared(pictures, alphas, self.picture)), picture_kept)
            if self.appended is not None:
                appended = _masked(self.appended(self._prepared(pictures, alphas, self.appended)), picture_kept)
        joined = self._joined(text, picture, batch)
        if labels is not None:
            labels = labels.masked_fill(~label_kept.to(labels.device), NO_LABEL)
        tokens, pooled = (None, None) if joined is None else (joined.tokens, joined.pooled)
        beside = None if appended is None else appended.tokens
        return Condition(tokens, beside, pooled if self.config.pooled else None, labels)

    def pair(
        self,
        captions: Sequence[str],
        pictures: Float[Tensor, "B 3 H W"],
        alphas: Float[Tensor, "B 1 H W"] | None = None,
    ) -> tuple[Float[Tensor, "B P"], Float[Tensor, "B P"]]:
        """Pooled vectors of texts and of pictures, which are to agree where both are of one object.

        Raises:
            ValueError: for a conditioner without one of the two encoders.
        """
        if self.text is None or self.picture is None:
            raise ValueError("a conditioner without both text and picture has no pairs to learn from")
        return self.text(captions).pooled, self.picture(self._prepared(pictures, alphas, self.picture)).pooled

    def _batch(self, labels: Tensor | None, captions: Sequence[str] | None, pictures: Tensor | None) -> int | None:
        given = {
            kind: len(part) for kind, part in zip(KINDS, (labels, captions, pictures), strict=True) if part is not None
        }
        for kind in given:
            if kind not in self.config.kinds:
                known = " or ".join(self.config.kinds) or "nothing"
                raise ValueError(f"this model cannot be asked by {kind}; it listens to {known}")
        if len(set(given.values())) > 1:
            raise ValueError(f"give as many of each kind, found {given}")
        return next(iter(given.values()), None)

    def _prepared(self, pictures: Tensor, alphas: Tensor | None, encoder: Any) -> Tensor:
        return prepare_picture(pictures, alphas, encoder.config.image_size, self.config.foreground)

    def _joined(self, text: Encoding | None, picture: Encoding | None, batch: int) -> Encoding | None:
        """Tokens one after the other and pooled vectors side by side, zeros for what is absent."""
        given = next((part for part in (text, picture) if part is not None), None)
        if given is None or (self.config.shared and (text is None or picture is None)):
            return given
        if self.config.shared and text is not None and picture is not None:
            seen = (picture.tokens != 0).flatten(1).any(1)
            tokens = torch.where(seen[:, None, None], picture.tokens, text.tokens)
            return Encoding(tokens, torch.where(seen[:, None], picture.pooled, text.pooled))
        parts = []
        for part, config in ((text, self.config.text), (picture, self.config.picture)):
            if part is None and config is not None:
                empty = given.tokens.new_zeros(batch, config.token_count, config.token_dim)
                part = Encoding(empty, given.pooled.new_zeros(batch, config.pooled_dim))
            parts += [] if part is None else [part]
        return Encoding(torch.cat([part.tokens for part in parts], 1), torch.cat([part.pooled for part in parts], 1))


def _masked(encoding: Encoding, kept: Tensor) -> Encoding:
    """Zeros for the samples outside ``kept``."""
    gone = ~kept.to(encoding.tokens.device)
    return Encoding(encoding.tokens.masked_fill(gone[:, None, None], 0), encoding.pooled.masked_fill(gone[:, None], 0))


def _check(config: ConditionerConfig) -> None:
    if config.text is None or config.picture is None:
        return
    if config.text.token_dim != config.picture.token_dim:
        raise ValueError(
            f"text tokens of width {config.text.token_dim} and picture tokens of width {config.picture.token_dim} "
            "cannot be read together; give both encoders the same embedding"
        )
    sizes = [(part.token_count, part.pooled_dim) for part in (config.text, config.picture)]
    if config.shared and sizes[0] != sizes[1]:
        raise ValueError("a shared place needs as many tokens, and as wide a vector, from the text as from the picture")
