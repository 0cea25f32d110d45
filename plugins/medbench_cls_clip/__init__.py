"""CLS-CLIP as a medbench plugin: its spec, and nothing that costs an import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medbench import ModelSpec, Variant, hookimpl
from medbench.models.presets import GENERAL_CLIP


def _general(preset: str) -> dict[str, Any]:
    """The shared general CLIP. Its patch is unused by a ResNet, but part of the checkpoint's key:
    it is what the other plugins' default has."""
    return {**GENERAL_CLIP[preset], "vision_patch": 14}


CLS_CLIP = ModelSpec(
    name="cls-clip",
    title="CLS-CLIP",
    description="CLIP adapted to chest radiographs by contrastive language supervision: both "
    "towers trained on images and their reports with symmetric InfoNCE.",
    cls="medbench_cls_clip.model:ClsClip",
    config="medbench_cls_clip.config:ClsClipConfig",
    presets={
        "tiny": {
            **_general("tiny"),
            "pretrain.epochs": 8,
            "pretrain.batch": 64,
            "pretrain.lr": 6e-4,
            "pretrain.tokens": 40,
            "adapter_size": 16,
            "guidance.steps": 20,
            "guidance.crops": 4,
        },
        "small": {
            **_general("small"),
            "pretrain.epochs": 10,
            "pretrain.batch": 256,
            "pretrain.lr": 5e-4,
            "adapter_size": 64,
        },
        "paper": {},
    },
    needs_weights=("paper",),
    variants=(
        Variant(
            name="adapters",
            description="the same training of bottleneck adapters behind every block, and of the "
            "normalisation layers, alone",
            config={"trained": "adapters"},
        ),
        Variant(
            name="supervised",
            description="no language: the general model fine-tuned on the task's labels",
            config={"language": False},
            adaptation="fine-tune",
        ),
        Variant(
            name="clip",
            description="no language: a linear probe on the general model",
            config={"language": False},
        ),
        Variant(
            name="random",
            description="control: a linear probe on random weights",
            config={"language": False, "general": False},
            own_weights=True,
            from_scratch=True,
        ),
    ),
    capabilities=(
        "encode_images",
        "encode_texts",
        "encode_patches",
        "generate_images",
        "fit",
    ),
    adaptation="linear-probe",
    # OpenAI's CLIP, or a finished CLS-CLIP of somebody's (`pretrain.done`)
    weights_data=("openai-wit", "mimic-cxr/train"),
    pretraining=("scenes", "mimic-cxr"),
    paper="Wiehe et al., Language over Labels, AACL-IJCNLP Student Research Workshop 2022",
    licence="Apache-2.0 (this implementation); published weights under their own terms",
)


@hookimpl
def medbench_models() -> Sequence[ModelSpec]:
    return [CLS_CLIP]
