"""Published weights into a network of open_clip, wholly or not at all."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from medbench.models.clip import check_fit, clip_layout, strip_wrappers


def load_network(network: nn.Module, weights: Mapping[str, torch.Tensor], name: str) -> None:
    """Load a checkpoint of open_clip, OpenAI, transformers' ``CLIPModel`` or PMC-CLIP.

    The text tower's keys may stand under ``text.`` or not, whichever way the network has them.
    Raises WeightsError naming keys that are missing, unexpected or of another shape.
    """
    own = network.state_dict()
    wanted = clip_layout(own)  # without "text.", and without buffers that hold no weights
    given = clip_layout(pmc_clip_layout(weights))
    for key in ("logit_scale", "logit_bias"):  # one value, with or without a dimension
        if key in given and key in wanted and given[key].numel() == 1:
            given[key] = given[key].reshape(wanted[key].shape)
    check_fit(name, wanted, given)
    keys = {key.removeprefix("text."): key for key in own}
    network.load_state_dict({keys[key]: value for key, value in given.items()}, strict=False)


def pmc_clip_layout(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """PMC-CLIP's own names -> open_clip's, without the fusion module; others as they are."""
    state = strip_wrappers(weights)
    if "img_special_token" not in state:
        return state
    result: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        if key.startswith("visual.") or key == "logit_scale":
            result[key] = value
        elif key == "text_projection":
            result["text.proj.weight"] = value.T  # a matrix [in, out] -> a Linear [out, in]
        elif key.startswith("text_encoder.") and not key.startswith("text_encoder.pooler."):
            result["text.transformer." + key.removeprefix("text_encoder.")] = value
    return result
