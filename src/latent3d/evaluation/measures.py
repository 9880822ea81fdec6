"""Everything that judges the pictures of scenes, in one record: it says what it is, and measures scene after scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from latent3d.evaluation.consistency import TSEDConfig
from latent3d.evaluation.features import FeatureExtractor, extract, to_uint8
from latent3d.evaluation.perceptual import PerceptualDistance
from latent3d.evaluation.protocols import ViewProtocol
from latent3d.evaluation.published import PublishedCases
from latent3d.evaluation.records import CLIP
from latent3d.evaluation.scoring import Prediction, SceneTask, path_images, score_prediction
from latent3d.evaluation.video_features import VideoExtractor
from latent3d.evaluation.warp_distance import WarpMetric


@dataclass(frozen=True)
class Measures:
    """What is measured besides the numbers that need no network.

    Attributes:
        extractor: of the distances between sets of images.
        perceptual: LPIPS, or None.
        video: of the distance between sets of clips, each a scene's path with the references' own pictures in their
            places, or None.
        warp: features that are compared between neighbouring views after a warp, or None.
    """

    extractor: FeatureExtractor
    perceptual: PerceptualDistance | None = None
    video: VideoExtractor | None = None
    warp: WarpMetric | None = None

    def conditions(self) -> dict[str, Any]:
        """What a record says of them; ``video`` and ``warp`` are absent where they are None."""
        extractor, perceptual = self.extractor, self.perceptual
        out: dict[str, Any] = {
            "extractor": {"name": extractor.name, "sha256": extractor.sha256, "resize_rule": extractor.resize_rule},
            "perceptual": None if perceptual is None else {"name": perceptual.name, "sha256": list(perceptual.sha256)},
        }
        if self.video is not None:
            out["video"] = self.video.to_dict() | {"clips": "a scene's path, references included"}
        if self.warp is not None:
            out["warp"] = self.warp.to_dict()
        return out

    def check(self, protocol: ViewProtocol | PublishedCases, scenes: int) -> None:
        """Raises ValueError where a scene has too few frames for the video extractor."""
        if self.video is not None:
            splits = [protocol.for_scene(index) for index in range(scenes)]
            self.video.check(min(len(split.references) + len(split.targets) for split in splits))

    def of(
        self, predictions: dict[str, Prediction], task: SceneTask, config: TSEDConfig
    ) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
        """Scores of every method on one scene, and features of its images (M, d) and, by `CLIP`, of its clip (1, d)."""
        scores = {
            name: score_prediction(item, task, config, self.perceptual, self.warp) for name, item in predictions.items()
        }
        features = {name: extract(self.extractor, to_uint8(item.images)) for name, item in predictions.items()}
        if self.video is not None:
            clips = {name: to_uint8(path_images(task, item.images)) for name, item in predictions.items()}
            features |= {CLIP + name: self.video(clip[None]) for name, clip in clips.items()}
        return scores, features
