"""A model asked everything that it declares, each answer held against its contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medbench.errors import PluginError
from medbench.run.embed import check_features, encode
from medbench.run.fit import guarded
from medbench.run.request import RunSpec
from medbench.testing.inputs import Inputs

#: Floats with one row per input, or texts.
Answer = npt.NDArray[np.float32] | list[str]
Answers = dict[str, Answer]


def answers(cell: RunSpec, model: Any, given: Inputs, skip: Sequence[str] = ()) -> Answers:
    """What the model answers, by method; feature maps as ``encode_patches[0]`` and so on.

    Raises PluginError where an answer breaks its contract, CellError where the model raises.
    """
    found: Answers = {}
    for name, ask in _ASK.items():
        if name not in skip and _asked(cell, model, name):
            found.update(ask(cell, model, given))
    return found


def _asked(cell: RunSpec, model: Any, name: str) -> bool:
    if name == "pool_slices":
        return "encode_volumes" in cell.capabilities and hasattr(model, name)
    return name in cell.capabilities


def _images(cell: RunSpec, model: Any, given: Inputs) -> Answers:
    return {"encode_images": encode(cell, model, "encode_images", given.images)}


def _volumes(cell: RunSpec, model: Any, given: Inputs) -> Answers:
    found = encode(cell, model, "encode_volumes", given.slices, given.slice_mask)
    return {"encode_volumes": found}


def _pooled(cell: RunSpec, model: Any, given: Inputs) -> Answers:
    """As in a run: existing slices are embedded, and padded with zeros."""
    flat = encode(cell, model, "encode_images", given.slices[given.slice_mask])
    padded = torch.zeros(*given.slice_mask.shape, flat.shape[1])
    padded[given.slice_mask] = torch.from_numpy(flat)
    return {"pool_slices": encode(cell, model, "pool_slices", padded, given.slice_mask)}


def _texts(cell: RunSpec, model: Any, given: Inputs) -> Answers:
    with guarded(cell, "encode_texts"), torch.inference_mode():
        answer = model.encode_texts(list(given.texts))
    found = check_features(cell, "encode_texts", answer, len(given))
    lengths = np.linalg.norm(found, axis=1)
    if np.abs(lengths - 1).max() > 1e-3:
        raise _refused(
            cell, "encode_texts", f"rows of length {lengths.min():.3g} to {lengths.max():.3g}, not "
            "L2-normalised"
        )  # fmt: skip
    return {"encode_texts": found}


def _patches(cell: RunSpec, model: Any, given: Inputs) -> Answers:
    with guarded(cell, "encode_patches"), torch.no_grad():
        answer = model.encode_patches(given.images.to(cell.device))
    maps = [answer] if isinstance(answer, torch.Tensor) else list(answer)
    found: Answers = {}
    for number, one in enumerate(maps):
        if not isinstance(one, torch.Tensor) or one.ndim != 4 or one.shape[-1] != one.shape[-2]:
            raise _refused(cell, "encode_patches", f"{_shape(one)}, not [B, D, h, h]")
        found[f"encode_patches[{number}]"] = _floats(cell, "encode_patches", one, len(given))
    if not maps:
        raise _refused(cell, "encode_patches", "no map")
    sides = [one.shape[-1] for one in maps]
    if sides != sorted(sides, reverse=True):
        raise _refused(cell, "encode_patches", f"maps of {sides} a side, not finest first")
    return found


def _reports(cell: RunSpec, model: Any, given: Inputs) -> Answers:
    with guarded(cell, "generate_reports"), torch.inference_mode():
        found = model.generate_reports(given.views.to(cell.device), given.view_mask.to(cell.device))
    if isinstance(found, str) or len(found) != len(given):
        raise _refused(cell, "generate_reports", f"{len(found)} answers to {len(given)} studies")
    if not all(isinstance(text, str) for text in found):
        raise _refused(cell, "generate_reports", "something else than texts")
    return {"generate_reports": list(found)}


def _pictures(cell: RunSpec, model: Any, given: Inputs) -> Answers:
    """Two at most: it may take long."""
    with guarded(cell, "generate_images"), torch.inference_mode():
        found = model.generate_images(list(given.texts[:2]), list(given.seeds[:2]))
    if not isinstance(found, torch.Tensor) or found.ndim != 4 or found.shape[1] != 3:
        raise _refused(cell, "generate_images", f"{_shape(found)}, not [B, 3, H, W]")
    values = _floats(cell, "generate_images", found, len(given.seeds[:2]))
    if values.min() < -1e-3 or values.max() > 1 + 1e-3:
        raise _refused(
            cell, "generate_images", f"values from {values.min():.3g} to {values.max():.3g}, not "
            "in [0, 1]"
        )  # fmt: skip
    return {"generate_images": values}


_ASK: Mapping[str, Callable[[RunSpec, Any, Inputs], Answers]] = {
    "encode_images": _images,
    "encode_volumes": _volumes,
    "pool_slices": _pooled,
    "encode_texts": _texts,
    "encode_patches": _patches,
    "generate_reports": _reports,
    "generate_images": _pictures,
}


def _floats(
    cell: RunSpec, method: str, answer: torch.Tensor, expected: int
) -> npt.NDArray[np.float32]:
    """What `medbench.run.embed.check_features` asks, of a tensor of any shape."""
    flat = check_features(cell, method, answer.flatten(1), expected)
    return flat.reshape(expected, *answer.shape[1:])


def _shape(answer: Any) -> str:
    if isinstance(answer, torch.Tensor):
        return f"shape {tuple(answer.shape)}"
    return type(answer).__name__


def _refused(cell: RunSpec, method: str, what: str) -> PluginError:
    return PluginError(
        f"{cell.title}: {method} of model '{cell.model.name}' breaks its contract: it returned "
        f"{what}."
    )


def unlike(one: Answers, other: Answers, tolerance: float) -> str:
    """Where two models, or two calls, answer differently; empty when they agree.

    Floats may differ by ``tolerance`` times the largest absolute value of the first answer; with a
    tolerance of 0 they must be equal in every bit. Texts must be equal.
    """
    for method, first in one.items():
        second = other[method]
        if isinstance(first, list) or isinstance(second, list):
            wrong = [n for n, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
            if wrong:
                return f"{method}: {len(wrong)} of {len(first)} texts differ"
            continue
        if first.shape != second.shape:
            return f"{method}: shapes {first.shape} and {second.shape}"
        gap = float(np.abs(first - second).max())
        scale = float(np.abs(first).max())
        if gap > tolerance * scale:
            return f"{method}: answers differ by up to {gap:.3g}, where values reach {scale:.3g}"
    return ""
