"""RadCLIP as a medbench plugin: its spec, and nothing that costs an import."""

from __future__ import annotations

from collections.abc import Sequence

from medbench import ModelSpec, Variant, hookimpl
from medbench.models.presets import GENERAL_CLIP

RADCLIP = ModelSpec(
    name="radclip",
    title="RadCLIP",
    description="CLIP whose image tower is fine-tuned on 2-D radiology image-text pairs against "
    "the frozen text tower, with an attention-based slice pooling adapter for volumes.",
    cls="medbench_radclip.model:Radclip",
    config="medbench_radclip.config:RadclipConfig",
    presets={
        "tiny": {
            **GENERAL_CLIP["tiny"],
            "pairs_epochs": 3,
            "pairs_batch": 128,
            "pairs_lr": 5e-4,
            "volumes_epochs": 40,
            "volumes_batch": 64,
            "volumes_lr": 5e-4,
        },
        "small": {
            **GENERAL_CLIP["small"],
            "pairs_epochs": 10,
            "pairs_batch": 256,
            "pairs_lr": 5e-4,
            "volumes_epochs": 40,
            "volumes_batch": 64,
            "volumes_lr": 5e-4,
        },
        "paper": dict(GENERAL_CLIP["paper"]),
    },
    needs_weights=("paper",),
    variants=(
        Variant(
            name="mean-pooling",
            description="the same image tower, slice embeddings averaged",
            config={"pooling": "mean"},
        ),
        Variant(
            name="max-pooling",
            description="the same image tower, element-wise maximum over slices",
            config={"pooling": "max"},
        ),
        Variant(
            name="mean-head",
            description="control: a linear head on averaged slices, trained on the adapter's texts",
            config={"pooling": "mean-head"},
        ),
        Variant(
            name="clip",
            description="the general-domain base model, unadapted, slice embeddings averaged",
            config={"adapted": False, "pooling": "mean"},
            own_weights=True,
        ),
        Variant(
            name="no-base",
            description="control: the same training from random weights (text tower random, too)",
            config={"general": False},
            own_weights=True,
            from_scratch=True,
        ),
    ),
    capabilities=("encode_images", "encode_texts", "encode_volumes", "encode_patches", "fit"),
    adaptation="linear-probe",
    pretraining=("scenes", "image-text-pairs"),
    overlaps=("crystal-clean", "chexpert"),
    paper="Lu et al., RadCLIP, IEEE TNNLS 36(10):17613-17622, 2025; arXiv:2403.09948",
    licence="Apache-2.0 (this implementation); published weights under their own terms",
)


@hookimpl
def medbench_models() -> Sequence[ModelSpec]:
    return [RADCLIP]
