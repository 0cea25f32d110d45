"""Small architectures that open_clip lists, and folders of weights in each published layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medbench.models.capabilities import State
from medbench.models.weights import read_weights
from medbench_open_clip.files import FILES

TEXTS = ["Chest X-ray, nodule", "no edema is seen; the heart is of normal size", "x"]
WORDS = ["chest", "x", "-", "ray", ",", "nodule", "no", "edema", "is", "seen", ";", "the", "heart"]

_TEXT = {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
_VIT = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
_BERT = {
    "hf_model_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
    "hf_tokenizer_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
    "hf_proj_type": "mlp",
    "hf_pooler_type": "cls_last_hidden_state_pooler",
    "context_length": 24,
}
TIMM = {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"}

#: open_clip's ``model_cfg``, by name.
MODELS: dict[str, dict[str, Any]] = {
    "toy-vit": {"embed_dim": 24, "vision_cfg": _VIT, "text_cfg": _TEXT},
    "toy-vit-quickgelu": {
        "embed_dim": 24, "vision_cfg": _VIT, "text_cfg": _TEXT, "quick_gelu": True,
    },
    "toy-resnet": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8},
        "text_cfg": _TEXT,
    },
    "toy-coca": {
        "embed_dim": 24,
        "vision_cfg": {
            **_VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True,
        },
        "text_cfg": {**_TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {
            "context_length": 20, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1,
            "attn_pooler_heads": 2,
        },
        "custom_text": True,
    },
    "toy-bias": {
        "embed_dim": 24,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": TIMM,
        "text_cfg": {**_TEXT, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    },
    "toy-biomedclip": {"embed_dim": 24, "vision_cfg": TIMM, "text_cfg": _BERT},
}  # fmt: skip


def list_in_open_clip(folder: Path) -> None:
    """Have open_clip list `MODELS`, until the process ends."""
    import open_clip

    for name, config in MODELS.items():
        (folder / f"{name}.json").write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(folder)


def scramble(network: nn.Module, seed: int = 3) -> nn.Module:
    """Random values throughout: gains of 1 and biases of 0 would hide a mix-up."""
    generator = torch.Generator().manual_seed(seed)
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=generator) * 0.1
            value.copy_(drawn.abs() + 0.5 if key.endswith("running_var") else drawn)
    return network.eval()


def state_of(path: Path) -> State:
    """Weights at a path, with the files beside them as the plugin asks for them."""
    return read_weights(path, FILES)


def write_bert(folder: Path) -> None:
    """``config.json`` and tokenizer of a small BERT."""
    from transformers import BertConfig, BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    folder.mkdir(parents=True, exist_ok=True)
    words = folder / "words.txt"
    words.write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizerFast(vocab=str(words)).save_pretrained(folder)
    words.unlink()
    BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=40,
    ).save_pretrained(folder)  # fmt: skip
