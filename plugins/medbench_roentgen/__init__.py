"""RoentGen as a medbench plugin: its spec, and nothing that costs an import."""

from __future__ import annotations

from collections.abc import Sequence

from medbench import ModelSpec, Variant, hookimpl
from medbench_roentgen.files import FILES

ROENTGEN = ModelSpec(
    name="roentgen",
    title="RoentGen",
    description="Chest radiographs from impressions: Stable Diffusion adapted to radiographs by "
    "training its U-Net, its text encoder, or both.",
    cls="medbench_roentgen.model:RoentGen",
    config="medbench_roentgen.config:RoentGenConfig",
    presets={
        "tiny": {
            "start": "scenes",
            "image_size": 64,
            "latent_channels": 8,
            "vae_channels": (16, 32, 64, 64),
            "vae_layers": 1,
            "vae_attention": False,
            "unet_channels": (64, 128),
            "unet_layers": 1,
            "unet_heads": 4,
            "norm_groups": 8,
            "text_layers": 2,
            "text_width": 128,
            "text_heads": 4,
            "window": 60,
            "quick_gelu": False,
            "vae_crop": 32,
            "vae_epochs": 1,
            "vae_batch": 8,
            "vae_lr": 3e-3,
            "base_epochs": 1,
            "base_batch": 32,
            "domain.context": 60,
            "train.steps": 400,
            "train.batch": 32,
            "train.accumulation": 1,
            "train.lr": 1e-3,
            "train.schedule": "cosine",
            "train.warmup": 0.1,
            "train.block": 50,
            "sampling.steps": 20,
            "sampling.batch": 64,
        },
        "small": {
            "start": "scenes",
            "image_size": 128,
            "latent_channels": 8,
            "vae_channels": (64, 128, 256, 256),
            "vae_layers": 1,
            "vae_attention": False,
            "unet_channels": (192, 384, 576),
            "unet_layers": 2,
            "unet_heads": 8,
            "norm_groups": 32,
            "text_layers": 4,
            "text_width": 256,
            "text_heads": 4,
            "quick_gelu": False,
            "vae_crop": 64,
            "vae_epochs": 4,
            "vae_batch": 64,
            "vae_lr": 1e-3,
            "base_epochs": 20,
            "base_batch": 256,
            "base_lr": 4e-4,
            "domain.text_layers": 4,
            "domain.text_width": 256,
            "domain.text_epochs": 10,
            "train.steps": 4000,
            "train.batch": 256,
            "train.accumulation": 1,
            "train.lr": 3e-4,
            "train.schedule": "cosine",
            "train.warmup": 0.05,
            "train.block": 500,
            "sampling.batch": 256,
            "sampling.bf16": True,
        },
        "paper": {"sampling.bf16": True},
    },
    needs_weights=("paper",),
    parts=("domain",),
    weight_files=FILES,
    variants=(
        Variant(
            name="unet",
            description="the U-Net alone is trained; the text encoder stays as it starts",
            config={"train.text_encoder": False},
            own_weights=True,
        ),
        Variant(
            name="text-encoder",
            description="the text encoder alone is trained; the U-Net stays as it starts",
            config={"train.unet": False},
            own_weights=True,
        ),
        Variant(
            name="domain-encoder",
            description="a text encoder of the domain in CLIP's place, frozen (RadBERT, SapBERT; "
            "tiny, small: a BERT trained on the training reports)",
            config={"prompts": "domain", "train.text_encoder": False},
            own_weights=True,
        ),
        Variant(
            name="base",
            description="control: the general model as it is, not adapted",
            config={"adapted": False},
            own_weights=True,
        ),
        Variant(
            name="unconditional",
            description="control: RoentGen drawing from the empty prompt, whatever is asked",
            config={"sampling.prompted": False},
        ),
    ),
    capabilities=("generate_images", "encode_texts", "fit"),
    pretraining=("scenes", "mimic-cxr"),
    weights_data=("laion-5b", "mimic-cxr"),
    paper="Chambon et al., RoentGen, arXiv:2211.12737, 2022; Nature Biomedical Engineering, 2024, "
    "doi:10.1038/s41551-024-01246-y",
    licence="Apache-2.0 (this implementation); Stable Diffusion v1-4 and RoentGen: CreativeML "
    "Open RAIL-M",
)


@hookimpl
def medbench_models() -> Sequence[ModelSpec]:
    return [ROENTGEN]
