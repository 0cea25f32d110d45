"""UniCrossAdapter as a medbench plugin: its spec, and nothing that costs an import."""

from __future__ import annotations

from collections.abc import Sequence

from medbench import ModelSpec, Variant, hookimpl
from medbench.models.presets import GENERAL_CLIP

UNICROSSADAPTER = ModelSpec(
    name="unicrossadapter",
    title="UniCrossAdapter",
    description="Reports of radiographs from a frozen CLIP with small adapters in both towers that "
    "attend to each other, and a Transformer encoder and decoder on top.",
    cls="medbench_unicrossadapter.model:UniCrossAdapter",
    config="medbench_unicrossadapter.config:UniCrossAdapterConfig",
    presets={
        "tiny": {
            **GENERAL_CLIP["tiny"],
            "layers": 2,
            "feed_forward": 512,
            # whitening takes its statistics from images as they lie: moved or mirrored ones do not
            # fit them, and are read a third as well
            "train_size": 64,
            "flip": False,
            "epochs": 10,
            "batch": 16,
            "lr": 2e-3,
            "whiten": 96,
            "standardise": True,
            "schedule": "cosine",
            "alike": True,
            # Adam adds it to the gradient: at this rate it would wipe out what learns slowly
            "weight_decay": 0.0,
        },
        "small": {
            **GENERAL_CLIP["small"],
            "feed_forward": 1024,
            "train_size": 128,
            "flip": False,
            "epochs": 20,
            "batch": 32,
            "lr": 1e-3,
            "whiten": 96,
            "standardise": True,
            "schedule": "cosine",
            "alike": True,
            "weight_decay": 0.0,
        },
        "paper": {},
    },
    needs_weights=("paper",),
    parts=("clip",),
    variants=(
        Variant(
            name="mimic",
            description="the published settings for MIMIC-CXR: 6+6 layers, one view, longer "
            "reports, rarer words left out",
            config={
                "layers": 6,
                "max_length": 78,
                "min_frequency": 10,
                "views": 1,
                "dropout": 0.1,
            },
            own_weights=True,
        ),
        Variant(
            name="no-adapters",
            description="the frozen CLIP as it is, under the same encoder and decoder",
            config={"image_adapters": False, "text_adapters": False},
            own_weights=True,
        ),
        Variant(
            name="image-adapters",
            description="adapters in the image encoder alone, and so without interaction",
            config={"text_adapters": False},
            own_weights=True,
        ),
        Variant(
            name="text-adapters",
            description="adapters in the text encoder alone, and so without interaction",
            config={"image_adapters": False},
            own_weights=True,
        ),
        Variant(
            name="no-interaction",
            description="adapters in both encoders that do not attend to each other",
            config={"interaction": False},
            own_weights=True,
        ),
        Variant(
            name="random-clip",
            description="the same training with a CLIP of frozen random weights",
            config={"general": False},
            own_weights=True,
            from_scratch=True,
        ),
        Variant(
            name="as-released",
            description="LEAKS: adapters see the words to be predicted in training, as in the "
            "released code; never to be ranked beside the others",
            config={"leaks": True},
            own_weights=True,
            protocols=("paper-compat",),
        ),
    ),
    capabilities=("generate_reports", "fit"),
    # OpenAI's CLIP; a whole model was trained on the training part of its task
    weights_data=("openai-wit", "iu-xray/train", "mimic-cxr/train"),
    pretraining=("scenes",),
    paper="Chen et al., UniCrossAdapter, arXiv:2503.15940, 2025",
    licence="Apache-2.0 (this implementation)",
)


@hookimpl
def medbench_models() -> Sequence[ModelSpec]:
    return [UNICROSSADAPTER]
