"""What a network looks like: an open_clip name, or the configuration beside published weights.

Nothing is downloaded. What open_clip would fetch (the configuration and the tokenizer of a Hugging
Face text tower) is taken from the files that lie beside the weights. These come inside the state,
as uint8 tensors named after the files: see `FILES` and `split`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from medbench.errors import UsageError, WeightsError, unknown_name
from medbench.models.capabilities import State
from medbench.models.clip import MEAN, STD, clip_layout
from medbench.models.tokenizer import VOCABULARY, tokenize
from medbench_open_clip.files import (
    FILES,
    OPEN_CLIP_CONFIG,
    PREPROCESSOR,
    TOKENIZER,
    TRANSFORMERS_CONFIG,
)

Files = Mapping[str, bytes]
Tokenizer = Callable[[Sequence[str]], torch.Tensor]

#: Text towers whose configuration is that of BERT-base (Devlin et al. 2019: 12 layers of 768, 12
#: heads, 30,522 word pieces), which is what transformers gives without further values.
_BERT_BASE = (
    "bert-base-uncased",
    "google-bert/bert-base-uncased",
    "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
    "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract-fulltext",
    "microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract",
    "microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract-fulltext",
)

PMC_CLIP = "pmc-clip"
#: Lin et al. 2023 (arXiv 2303.07240) and the configuration RN50_fusion4 of its code: CLIP's
#: ResNet-50, and PubMedBERT, whose class token is projected by one matrix. Without the fusion
#: module, which has no part in either embedding.
_PMC_CLIP: dict[str, Any] = {
    "embed_dim": 768,
    "vision_cfg": {"image_size": 224, "layers": [3, 4, 6, 3], "width": 64},
    "text_cfg": {
        "context_length": 77,
        "hf_model_name": "microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract-fulltext",
        "hf_tokenizer_name": "microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract-fulltext",
        "hf_proj_type": "linear",
        "hf_pooler_type": "cls_last_hidden_state_pooler",
    },
}


@dataclass(frozen=True)
class Architecture:
    """A network of open_clip without its weights.

    Attributes:
        name: for messages.
        model: open_clip's ``model_cfg``.
        mean, std: of the three channels, for images in [0, 1].
    """

    name: str
    model: Mapping[str, Any]
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    @property
    def image_size(self) -> int:
        """Pixels a side. Raises UsageError for a network that sees another shape than a square."""
        size = self.model["vision_cfg"].get("image_size", 224)
        sides = set(size) if isinstance(size, list | tuple) else {size}
        if len(sides) != 1:
            raise UsageError(f"'{self.name}' sees images of {size} pixels, which are not square.")
        return int(sides.pop())


def split(state: State) -> tuple[dict[str, bytes], dict[str, torch.Tensor]]:
    """A state as read -> the files of `FILES` that came with it, and the weights."""
    files = {k: v.cpu().numpy().tobytes() for k, v in state.items() if k in FILES}
    return files, {k: v for k, v in state.items() if k not in FILES}


# --- where an architecture comes from -----------------------------------------------------------


def named(name: str) -> Architecture:
    """The architecture that open_clip knows by a name, or `PMC_CLIP`.

    Channel statistics are those of the weights that open_clip lists under the name, where these
    agree (as SigLIP's do), else CLIP's. Raises UsageError naming the nearest for an unknown name.
    """
    import open_clip  # takes seconds, so only here

    if name == PMC_CLIP:
        return Architecture(name, _PMC_CLIP)
    known = name.replace("/", "-")
    model = open_clip.get_model_config(known) if ":" not in known else None
    if model is None:
        raise unknown_name("open_clip model", name, [*open_clip.list_models(), PMC_CLIP])
    tags = open_clip.list_pretrained_tags_by_model(known)
    published = [open_clip.get_pretrained_cfg(known, tag) for tag in tags]
    statistics = {(tuple(p.get("mean") or MEAN), tuple(p.get("std") or STD)) for p in published}
    mean, std = statistics.pop() if len(statistics) == 1 else (MEAN, STD)
    return Architecture(name, model, mean, std)


def described(files: Files) -> Architecture | None:
    """The architecture that the files beside the weights describe; None where none does.

    ``open_clip_config.json``, or else a ``config.json`` of transformers' ``CLIPModel``. Raises
    WeightsError for a configuration that cannot be read or is of another kind of model.
    """
    if OPEN_CLIP_CONFIG in files:
        config = _json(files, OPEN_CLIP_CONFIG)
        model = config.get("model_cfg", config)
        if not isinstance(model, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(model):
            raise WeightsError(
                f"{OPEN_CLIP_CONFIG} beside the weights has no model_cfg with embed_dim, "
                "vision_cfg and text_cfg. Fetch the folder again as it was published."
            )
        images = config.get("preprocess_cfg") or {}
        mean, std = images.get("mean") or MEAN, images.get("std") or STD
        return Architecture(f"the model of {OPEN_CLIP_CONFIG}", model, tuple(mean), tuple(std))
    if TRANSFORMERS_CONFIG not in files:
        return None
    model = _clip_of_transformers(_json(files, TRANSFORMERS_CONFIG))
    images = _json(files, PREPROCESSOR) if PREPROCESSOR in files else {}
    mean, std = images.get("image_mean") or MEAN, images.get("image_std") or STD
    return Architecture("the CLIPModel of config.json", model, tuple(mean), tuple(std))


def fitting_names(weights: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of open_clip's vision transformers whose image tower has the shape of these weights."""
    import open_clip

    given = clip_layout(weights)
    positions, projection = given.get("visual.positional_embedding"), given.get("visual.proj")
    if positions is None or projection is None:
        return []
    layers = {key.split(".")[3] for key in given if key.startswith("visual.transformer.resblocks.")}
    found = []
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        tower = config["vision_cfg"]
        grid = tower.get("image_size", 224) // (tower.get("patch_size") or 1)
        if (
            list(positions.shape) == [grid**2 + 1, tower.get("width", 768)]
            and projection.shape[1] == config["embed_dim"]
            and len(layers) == tower.get("layers", 12)
        ):
            found.append(name)
    return found


def _json(files: Files, name: str) -> dict[str, Any]:
    try:
        content = json.loads(files[name].decode("utf-8"))
    except ValueError as error:
        raise WeightsError(f"{name} beside the weights is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{name} beside the weights holds no JSON object.")
    return content


def _clip_of_transformers(config: dict[str, Any]) -> dict[str, Any]:
    """``config.json`` of a ``CLIPModel`` -> open_clip's ``model_cfg``."""
    if config.get("model_type") != "clip":
        raise WeightsError(
            f"config.json beside the weights describes a model of type "
            f"'{config.get('model_type')}', not 'clip'. Give a CLIPModel, or a folder with "
            f"{OPEN_CLIP_CONFIG}, or name the architecture with --set model=NAME."
        )
    from transformers import CLIPConfig

    whole: Any = CLIPConfig.from_dict(config)  # fills in what the file leaves at its default
    vision, text = whole.vision_config, whole.text_config
    acts = {vision.hidden_act, text.hidden_act}
    if len(acts) != 1 or not acts <= {"quick_gelu", "gelu"} or text.vocab_size != VOCABULARY:
        raise WeightsError(
            f"config.json beside the weights describes a CLIP with activation "
            f"{' and '.join(sorted(acts))} and {text.vocab_size:,} tokens; quick_gelu or gelu and "
            f"CLIP's own {VOCABULARY:,} tokens can be run."
        )
    return {
        "embed_dim": whole.projection_dim,
        "quick_gelu": acts == {"quick_gelu"},
        "vision_cfg": {
            "image_size": vision.image_size,
            "layers": vision.num_hidden_layers,
            "width": vision.hidden_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "patch_size": vision.patch_size,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
            "norm_kwargs": {"eps": vision.layer_norm_eps},
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
            "mlp_ratio": text.intermediate_size / text.hidden_size,
            "norm_kwargs": {"eps": text.layer_norm_eps},
        },
    }


# --- what is made of it -------------------------------------------------------------------------


def build(architecture: Architecture, files: Files) -> nn.Module:
    """The network with random weights, in evaluation mode: a CLIP, CustomTextCLIP or CoCa.

    ``files`` are needed for a Hugging Face text tower alone. Raises WeightsError when its
    configuration is not there, or when open_clip or timm has no such network.
    """
    import open_clip
    import timm

    model = dict(architecture.model)
    vision, text = dict(model["vision_cfg"]), dict(model["text_cfg"])
    custom = bool(model.pop("custom_text", False)) or bool(text.get("hf_model_name"))
    cls = open_clip.CLIP
    if custom:
        cls = open_clip.CoCa if "multimodal_cfg" in model else open_clip.CustomTextCLIP
    if vision.get("timm_model_name"):
        if not timm.is_model(vision["timm_model_name"]):  # a name with hf-hub: would be downloaded
            raise WeightsError(f"timm has no image tower '{vision['timm_model_name']}'.")
        vision["timm_model_pretrained"] = False
    with TemporaryDirectory() as folder:
        if text.get("hf_model_name"):
            config = _text_config(text["hf_model_name"], files)
            (Path(folder) / TRANSFORMERS_CONFIG).write_bytes(config)
            text |= {"hf_model_name": folder, "hf_model_pretrained": False}
        try:
            network: nn.Module = cls(**{**model, "vision_cfg": vision, "text_cfg": text})
        except (AssertionError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise WeightsError(
                f"open_clip cannot build {architecture.name}: {type(error).__name__}: {error}. "
                "Check its configuration, or install the version of open_clip it was made with."
            ) from error
    if architecture.name == PMC_CLIP:
        # Its code gives BERT no attention mask, so that words attend to padding; no token has
        # the id -1, so none is masked here either.
        network.text.config.pad_token_id = -1  # type: ignore[union-attr]
    return network.eval()


def tokenizer(architecture: Architecture, files: Files) -> Tokenizer:
    """Texts -> token ids int64 [B, context], as the text tower expects them.

    CLIP's own byte pairs, or the Hugging Face tokenizer among ``files``. Raises WeightsError when
    one is needed and not there.
    """
    text = architecture.model["text_cfg"]
    context = int(text.get("context_length", 77))
    if not text.get("hf_tokenizer_name"):
        return lambda texts: tokenize(texts, context)
    if not any(name in files for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        raise WeightsError(
            f"The texts of {architecture.name} need the tokenizer of '{text['hf_tokenizer_name']}',"
            " which is not beside the weights, and nothing is downloaded. Put its tokenizer.json "
            "(or vocab.txt) and tokenizer_config.json into the folder of the weights, and give "
            "--weights that folder."
        )
    from open_clip.tokenizer import HFTokenizer

    with TemporaryDirectory() as folder:
        if text.get("hf_model_name") and TRANSFORMERS_CONFIG not in files:
            config = _text_config(text["hf_model_name"], files)
            (Path(folder) / TRANSFORMERS_CONFIG).write_bytes(config)
        for name in (TRANSFORMERS_CONFIG, *TOKENIZER):
            if name in files:
                code = name in (TRANSFORMERS_CONFIG, "tokenizer_config.json")
                content = _without_code(files, name) if code else files[name]
                (Path(folder) / name).write_bytes(content)
        options = {**text.get("tokenizer_kwargs", {}), "trust_remote_code": False}
        try:
            found = HFTokenizer(
                folder,
                context_length=context,
                tokenizer_mode=text.get("tokenizer_mode"),
                **{**options, "local_files_only": True},
            )
        except (ImportError, KeyError, OSError, TypeError, ValueError) as error:
            raise WeightsError(
                f"The tokenizer beside the weights cannot be read: {error}. Fetch tokenizer.json "
                "and tokenizer_config.json again as they were published."
            ) from error
    return lambda texts: found(list(texts))


def _text_config(name: str, files: Files) -> bytes:
    """``config.json`` of a Hugging Face text tower."""
    if TRANSFORMERS_CONFIG in files:
        return _without_code(files, TRANSFORMERS_CONFIG)
    if name in _BERT_BASE:
        return json.dumps({"model_type": "bert"}).encode()
    raise WeightsError(
        f"The text tower is '{name}', whose config.json is not beside the weights, and nothing is "
        "downloaded. Put it into the folder of the weights, and give --weights that folder."
    )


def _without_code(files: Files, name: str) -> bytes:
    """A configuration without ``auto_map``, by which transformers would fetch and run code."""
    content = _json(files, name)
    content.pop("auto_map", None)
    return json.dumps(content).encode()
