"""Identity cards of the image-generation metrics."""

from __future__ import annotations

from importlib import import_module

import pytest

from medbench.metrics import image_diversity, image_frechet
from medbench.metrics.cards import card_sha256
from medbench.metrics.image_cards import FID, IMAGE_GENERATION, KID

LOWER_IS_BETTER = ("fid-", "kid-", "ms-ssim", "memorised")


def test_each_metric_has_a_card_of_its_own_and_a_function() -> None:
    names = [spec.name for spec in IMAGE_GENERATION]
    assert names[:4] == ["fid-xrv", "fid-inception", "fid-inception-torchvision", "fid-phantom"]
    assert names[10:] == [
        "label-auroc",
        *(f"alignment-recall@{k}" for k in (1, 5, 10)),
        *(f"image-recall@{k}" for k in (1, 5, 10)),
        "memorised-share",
        *(f"report-{measure}" for measure in ("finding-f1", "bleu-4", "rouge-l")),
    ]
    assert len({card_sha256(spec) for spec in IMAGE_GENERATION}) == len(names) == 21
    for spec in IMAGE_GENERATION:
        module, _, function = spec.function.partition(":")
        assert callable(getattr(import_module(module), function))
        assert spec.higher_is_better != spec.name.startswith(LOWER_IS_BETTER)
        assert "interval" in spec.aggregation
    assert all(spec.backbone and spec.normalisation != "none" for spec in (*FID, *KID))
    assert all("biased upward" in spec.definition for spec in FID)


def test_scales_of_the_cards_are_those_computed() -> None:
    assert image_diversity.SCALES == (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    assert sum(image_diversity.SCALES) == pytest.approx(1, abs=1e-3)
    assert image_frechet.GROUPS == 20
