"""Adaptor as a medbench plugin: its spec, and nothing that costs an import."""

from __future__ import annotations

from collections.abc import Sequence

from medbench import ModelSpec, Variant, hookimpl

ADAPTOR = ModelSpec(
    name="adaptor",
    title="Adaptor",
    description="A small cross-attention module, pre-trained contrastively on radiographs and "
    "reports between a frozen image encoder and a frozen text encoder.",
    cls="medbench_adaptor.model:AdaptorModel",
    config="medbench_adaptor.config:AdaptorConfig",
    presets={
        "tiny": {
            "encoders": "stand-in",
            "dim": 128,
            "heads": 4,
            "hidden": 256,
            "batch": 128,
            "lr": 5e-4,
        },
        "small": {
            "encoders": "stand-in",
            "vision_stand_in.image_size": 128,
            "vision_stand_in.vision_width": 64,
            "vision_stand_in.vision_dim": 256,
            "vision_stand_in.vision_epochs": 10,
            "vision_stand_in.vision_batch": 256,
            "text_stand_in.text_layers": 4,
            "text_stand_in.text_width": 256,
            "text_stand_in.text_epochs": 10,
            "dim": 256,
            "heads": 4,
            "hidden": 512,
            "batch": 256,
            "lr": 5e-4,
        },
        "paper": {},
    },
    needs_weights=("paper",),
    parts=("vision", "text"),
    weight_files=("tokenizer.json", "vocab.txt", "config.json"),
    variants=(
        Variant(
            name="resnet-ae",
            description="image encoder: a ResNet autoencoder of radiographs (tiny, small: an "
            "autoencoder of scenes)",
            config={"vision": "resnet-ae"},
            own_weights=True,
        ),
        Variant(
            name="dinov2-s",
            description="image encoder: DINOv2 ViT-S/14 (tiny, small: half the default's width)",
            config={"vision": "dinov2-s"},
            own_weights=True,
        ),
        Variant(
            name="cxr-bert",
            description="text encoder: CXR-BERT (tiny, small: trained on the training reports)",
            config={"text": "cxr-bert"},
            own_weights=True,
        ),
        Variant(
            name="biobert",
            description="text encoder: BioBERT; no stand-in, preset paper only",
            config={"text": "biobert"},
            own_weights=True,
            presets=("paper",),
        ),
        Variant(
            name="clinicalbert",
            description="text encoder: ClinicalBERT; no stand-in, preset paper only",
            config={"text": "clinicalbert"},
            own_weights=True,
            presets=("paper",),
        ),
        Variant(
            name="pubmedbert",
            description="text encoder: PubMedBERT; no stand-in, preset paper only",
            config={"text": "pubmedbert"},
            own_weights=True,
            presets=("paper",),
        ),
        Variant(
            name="no-adaptor",
            description="control: the frozen image encoder alone",
            config={"adapted": False},
            own_weights=True,
            lacks=("encode_texts",),
        ),
    ),
    capabilities=("encode_images", "encode_texts", "encode_patches", "fit"),
    adaptation="linear-probe",
    # DINOv2, and text encoders of which some read MIMIC-CXR's reports; a finished Adaptor did, too
    weights_data=("lvd-142m", "mimic-cxr/train"),
    pretraining=("scenes", "mimic-cxr"),
    paper="Qin et al., Freeze the backbones, ICASSP 2024, pp. 1686-1690; arXiv:2401.01179",
    licence="Apache-2.0 (this implementation); published weights under their own terms",
)


@hookimpl
def medbench_models() -> Sequence[ModelSpec]:
    return [ADAPTOR]
