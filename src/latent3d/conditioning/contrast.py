"""Texts and pictures of one object say the same: the contrastive objective of CLIP (Radford et al. 2021, figure 3).

Letters: B = batch, P = width of the pooled vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

TEMPERATURE = 0.07
"""What cosines are divided by: where CLIP's learned temperature starts."""


def similarities(text: Float[Tensor, "B P"], picture: Float[Tensor, "B P"]) -> Float[Tensor, "B B"]:
    """Cosines between each text (row) and each picture (column)."""
    return F.normalize(text.float(), dim=-1) @ F.normalize(picture.float(), dim=-1).T


def contrastive_loss(
    text: Float[Tensor, "B P"],
    picture: Float[Tensor, "B P"],
    captions: Sequence[str],
    temperature: float = TEMPERATURE,
) -> Float[Tensor, ""]:
    """Mean cross-entropy of finding the picture of each text and the text of each picture, in the batch.

    Small worlds repeat themselves: equal captions share their pictures, each being as right as the other.

    Args:
        text, picture: row i of both belongs to object i.
        captions: of the objects, B.
        temperature: of the softmax, > 0.

    Raises:
        ValueError: if there are more or fewer captions than vectors.
    """
    if not len(captions) == len(text) == len(picture):
        raise ValueError(f"{len(captions)} captions for {len(text)} texts and {len(picture)} pictures; give as many")
    number = {caption: index for index, caption in enumerate(dict.fromkeys(captions))}
    which = torch.tensor([number[caption] for caption in captions], device=text.device)
    target = (which[:, None] == which[None]).float()
    target = target / target.sum(1, keepdim=True)  # symmetric, so that rows and columns need the same
    logits = similarities(text, picture) / temperature
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
