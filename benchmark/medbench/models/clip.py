"""CLIP of any size, and the checkpoint layouts it is published in.

The network is open_clip's own. Checkpoints come in its layout (which is OpenAI's) or in that of
Hugging Face's ``CLIPModel``; `clip_layout` turns the second into the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from medbench.errors import WeightsError
from medbench.models.tokenizer import VOCABULARY, tokenize

#: Channel means and standard deviations that OpenAI's CLIP was trained with.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def published(source: str, value: Any) -> dict[str, Any]:
    """Field metadata: the published value and where it stands; another value is ours."""
    return {"source": source, "published": value}


ASSUMED: dict[str, Any] = {
    "assumed": True
}  #: field metadata: the paper leaves it open and we chose

_VIT_L = "openai/clip-vit-large-patch14"


class ClipConfig(BaseModel):
    """Dimensions of a CLIP. The defaults are ViT-L/14 at 224 px, 427.6 M parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    embed_dim: int = Field(
        768, ge=1, description="shared space", json_schema_extra=published(_VIT_L, 768)
    )
    image_size: int = Field(
        224, ge=32, description="pixels a side", json_schema_extra=published(_VIT_L, 224)
    )
    vision_layers: int | tuple[int, int, int, int] = Field(
        24,
        description="transformer layers, or the blocks of a ModifiedResNet's four stages",
        json_schema_extra=published(_VIT_L, 24),
    )
    vision_width: int = Field(
        1024,
        ge=8,
        description="width of the transformer, or of the ResNet's first stage",
        json_schema_extra=published(_VIT_L, 1024),
    )
    vision_patch: int = Field(
        14,
        ge=1,
        description="patch of the transformer, unused by a ResNet",
        json_schema_extra=published(_VIT_L, 14),
    )
    text_layers: int = Field(
        12, ge=1, description="text transformer", json_schema_extra=published(_VIT_L, 12)
    )
    text_width: int = Field(
        768, ge=8, description="text transformer", json_schema_extra=published(_VIT_L, 768)
    )
    text_heads: int = Field(
        12, ge=1, description="text transformer", json_schema_extra=published(_VIT_L, 12)
    )
    context: int = Field(
        77, ge=2, description="tokens of a text", json_schema_extra=published(_VIT_L, 77)
    )
    quick_gelu: bool = Field(
        True,
        description="the activation of OpenAI's weights",
        json_schema_extra=published(_VIT_L, True),
    )

    @model_validator(mode="after")
    def _fits(self) -> ClipConfig:
        if self.text_width % self.text_heads:
            raise ValueError("text_width is not a multiple of text_heads")
        if isinstance(self.vision_layers, tuple) and self.image_size % 32:
            raise ValueError("image_size of a ResNet is not a multiple of 32")
        return self


def build_clip(config: ClipConfig) -> nn.Module:
    """An ``open_clip.CLIP`` of these dimensions with random weights, in evaluation mode.

    A convolutional image tower is laid out channels-last, which is faster on CPU and GPU.
    """
    import open_clip  # takes seconds, so only here

    clip: nn.Module = open_clip.CLIP(
        embed_dim=config.embed_dim,
        vision_cfg={
            "image_size": config.image_size,
            "layers": config.vision_layers,
            "width": config.vision_width,
            "patch_size": config.vision_patch,
        },
        text_cfg={
            "context_length": config.context,
            "vocab_size": VOCABULARY,
            "width": config.text_width,
            "heads": config.text_heads,
            "layers": config.text_layers,
        },
        quick_gelu=config.quick_gelu,
    )
    if isinstance(config.vision_layers, tuple):
        clip.visual.to(memory_format=torch.channels_last)
    return clip.eval()


def count(parameters: Iterable[nn.Parameter]) -> int:
    """Number of values."""
    return sum(p.numel() for p in parameters)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """float [B, 3, H, W] in [0, 1] -> the same with CLIP's channel statistics, channels-last."""
    mean = images.new_tensor(MEAN).view(1, 3, 1, 1)
    std = images.new_tensor(STD).view(1, 3, 1, 1)
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def image_features(clip: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """float [B, 3, H, W] in [0, 1] -> projected features float32 [B, D], not normalised."""
    features: torch.Tensor = clip.visual(normalise(images))  # type: ignore[operator]
    return features.float()


def text_features(clip: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """int64 [B, context] -> projected features float32 [B, D], not normalised.

    Attention is causal and the feature is read at the end token, so the columns behind the last
    end token of the batch decide nothing and are not computed.
    """
    end = tokens.argmax(dim=1)  # [B]; the end token has the highest id
    length = int(end.max()) + 1
    model: Any = clip
    x = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]  # [B, L, W]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x)[torch.arange(len(x), device=x.device), end]  # [B, W]
    features: torch.Tensor = x @ model.text_projection  # [B, D]
    return features.float()


@torch.no_grad()
def embed_texts(
    clip: nn.Module, texts: Sequence[str], context: int, batch: int = 256
) -> torch.Tensor:
    """Texts -> features float32 [B, D], L2-normalised, on the device of ``clip``."""
    tokens = tokenize(texts, context).to(next(clip.parameters()).device)
    parts = [text_features(clip, tokens[i : i + batch]) for i in range(0, len(tokens), batch)]
    if not parts:
        return next(clip.parameters()).new_zeros(0, clip.text_projection.shape[1])  # type: ignore
    return nn.functional.normalize(torch.cat(parts), dim=-1)


def is_image_key(key: str) -> bool:
    """Whether a key of a CLIP state dict belongs to the image tower and its projection."""
    return key.startswith("visual.")


# --- checkpoint layouts -------------------------------------------------------------------------

_WRAPPERS = ("module.", "model.", "clip.", "_orig_mod.")
_NOT_WEIGHTS = re.compile(
    r"(.*\.)?(position_ids|input_resolution|context_length|vocab_size|attn_mask"
    r"|num_batches_tracked)\Z"
)
_HF_BLOCK = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_HF_NAMES = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "logit_scale": "logit_scale",
}
_HF_LAYER = re.compile(r"(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)\Z")
_HF_PROJECTIONS = {
    "visual_projection.weight": "visual.proj",
    "text_projection.weight": "text_projection",
}


def strip_wrappers(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Remove what DataParallel, compilation or an enclosing module put before every key."""
    result = dict(state)
    while result:
        prefix = next((p for p in _WRAPPERS if all(k.startswith(p) for k in result)), None)
        if prefix is None:
            break
        result = {key[len(prefix) :]: value for key, value in result.items()}
    return result


def clip_layout(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict of open_clip, OpenAI or Hugging Face's ``CLIPModel`` -> open_clip's layout.

    Buffers that hold no weights (position ids, masks, sizes) are left out. Keys that belong to
    none of the layouts are passed on, for `load_clip` to name.
    """
    plain = {k: v for k, v in strip_wrappers(state).items() if not _NOT_WEIGHTS.match(k)}
    if any(key.startswith(("vision_model.", "text_model.")) for key in plain):
        return _from_hugging_face(plain)
    # open_clip's CustomTextCLIP keeps the text tower under "text.".
    return {key.removeprefix("text."): value for key, value in plain.items()}


def _from_hugging_face(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    result: dict[str, torch.Tensor] = {}
    attention: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in state.items():
        match = _HF_LAYER.match(key)
        if key in _HF_NAMES:
            result[_HF_NAMES[key]] = value
        elif key in _HF_PROJECTIONS:
            result[_HF_PROJECTIONS[key]] = value.T  # a Linear [out, in] -> a matrix [in, out]
        elif match:
            tower, layer, part, kind = match.groups()
            block = "visual." if tower == "vision" else ""
            block += f"transformer.resblocks.{layer}."
            if part in _HF_BLOCK:
                result[f"{block}{_HF_BLOCK[part]}.{kind}"] = value
            elif re.fullmatch(r"self_attn\.[qkv]_proj", part):
                name = f"{block}attn.in_proj_{kind}"
                attention.setdefault(name, {})[part[len("self_attn.")]] = value
            else:
                result[key] = value
        else:
            result[key] = value
    for name, parts in attention.items():
        if set(parts) == set("qkv"):  # else the joined key is reported as missing
            result[name] = torch.cat([parts["q"], parts["k"], parts["v"]])
    return result


def check_fit(
    what: str, expected: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]
) -> None:
    """Raise WeightsError, naming keys, unless both have the same keys and shapes."""
    missing = sorted(set(expected) - set(given))
    unexpected = sorted(set(given) - set(expected))
    shapes = sorted(
        f"{key} {tuple(given[key].shape)}, not {tuple(expected[key].shape)}"
        for key in set(expected) & set(given)
        if given[key].shape != expected[key].shape
    )
    problems = [
        f"{len(keys)} {kind}: {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}"
        for kind, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if keys
    ]
    if problems:
        raise WeightsError(
            f"The weights do not fit {what} ({len(expected)} tensors expected, {len(given)} "
            f"given): {'; '.join(problems)}. Check that the checkpoint and --preset have the same "
            "architecture."
        )


def load_clip(clip: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Load a checkpoint in any of the layouts of `clip_layout`, wholly or not at all.

    Raises WeightsError naming keys that are missing, unexpected or of another shape.
    """
    own = clip.state_dict()
    given = clip_layout(state)
    wanted = {key: value for key, value in own.items() if not _NOT_WEIGHTS.match(key)}
    if given.get("logit_scale") is not None:
        given["logit_scale"] = given["logit_scale"].reshape(())
    check_fit("CLIP", wanted, given)
    clip.load_state_dict(given, strict=False)
