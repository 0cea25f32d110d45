"""A folder in diffusers' layout, as read into one state, to what `LatentDiffusion` loads.

Tensors come as ``unet.``, ``vae.`` and ``text_encoder.`` with the names that diffusers and
transformers gave them over the years; small files as uint8 under their paths in the folder.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import torch

from medbench.errors import WeightsError
from medbench.models.capabilities import State
from medbench_roentgen.files import AUTOENCODER, FILES, SAFETY_CHECKER, SCHEDULER

#: Names of attention in an autoencoder that was saved before diffusers 0.12, and since.
_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD = re.compile(r"(vae\..*attentions\.\d+\.)(query|key|value|proj_attn)(\.\w+)\Z")


@dataclass(frozen=True)
class Checkpoint:
    """What a state holds.

    Attributes:
        tensors: by `LatentDiffusion`'s keys.
        schedule: the scheduler's configuration; None for a state that was trained here.
        safety_checker: whether the folder has one.
    """

    tensors: dict[str, torch.Tensor]
    schedule: dict[str, Any] | None
    safety_checker: bool


def read_checkpoint(state: State) -> Checkpoint:
    """A state that was trained here, or one of a folder. Raises WeightsError for a folder without a
    scheduler's configuration: how much noise a step stands for cannot be told from weights."""
    tensors = {_key(k): v for k, v in state.items() if k not in FILES and not _no_weight(k)}
    tensors = {k: _linear(k, v) for k, v in tensors.items()}
    if "scaling" in tensors:
        return Checkpoint(tensors, None, False)
    if SCHEDULER not in state:
        raise WeightsError(
            f"The folder of the weights has no {SCHEDULER}, so that it is not known how much noise "
            "a step stands for. Give the whole folder in diffusers' layout (model_index.json, "
            "scheduler, text_encoder, unet, vae), as save_pretrained writes it."
        )
    schedule = _json(state, SCHEDULER)
    if not {"beta_start", "beta_end", "beta_schedule"} <= set(schedule):
        raise WeightsError(
            f"{SCHEDULER} beside the weights says nothing of beta_start, beta_end and "
            "beta_schedule. Fetch the folder again as it was published."
        )
    vae = _json(state, AUTOENCODER) if AUTOENCODER in state else {}
    tensors["scaling"] = torch.tensor(float(vae.get("scaling_factor") or 0.18215))
    return Checkpoint(tensors, schedule, SAFETY_CHECKER in state)


def _key(key: str) -> str:
    if match := _OLD.match(key):
        before, name, after = match.groups()
        return f"{before}{_ATTENTION[name]}{after}"
    if key.startswith("text_encoder.") and not key.startswith("text_encoder.model."):
        return f"text_encoder.model.{key.removeprefix('text_encoder.').removeprefix('text_model.')}"
    return key


def _linear(key: str, value: torch.Tensor) -> torch.Tensor:
    """The oldest autoencoders keep the matrices of attention as convolutions of 1 x 1."""
    old = value.ndim == 4 and key.startswith("vae.") and ".attentions." in key
    return value[:, :, 0, 0] if old else value


def _no_weight(key: str) -> bool:
    return key.endswith("position_ids") or key.startswith("safety_checker.")


def _json(state: State, name: str) -> dict[str, Any]:
    try:
        content = json.loads(bytes(state[name].tolist()).decode("utf-8"))
    except ValueError as error:
        raise WeightsError(f"{name} beside the weights is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{name} beside the weights holds no JSON object.")
    return content
