"""What a trained model answers, and whether asking it leaves anything behind."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from medbench.errors import PluginError
from medbench.models.modules import modules_of
from medbench.run.embed import prompt_features
from medbench.run.fit import Fitted, guarded
from medbench.testing.answers import Answers, answers, unlike
from medbench.testing.inputs import COUNT, Inputs, inputs
from medbench.testing.results import NotApplicable, Refused
from medbench.testing.subject import Subject
from medbench.testing.training import trained

#: Between batches and between devices, relative to the largest value: floating-point sums are
#: taken in another order, and a GPU's convolutions round to 10 bits.
BATCHES, DEVICES = 1e-3, 1e-2
#: Of an image that is drawn in steps, each on top of the last, rounding grows: pixels may differ,
#: on average by this.
DRAWN = 0.02
#: Drawn step by step, each on top of the last, so that rounding grows.
GENERATED = ("generate_images", "generate_reports")


def outputs(subject: Subject) -> str:
    """Answers keep their contracts, and so do the methods that only some tasks use."""
    if not set(subject.cell.capabilities) - {"fit"}:
        raise Refused("it declares nothing that a task could use")
    model, given = subject.fitted(), inputs(subject.image_size)
    found = answers(subject.cell, model, given)
    _same_space(found)
    _prompts(subject, model)
    _head(subject, model, found)
    _pooling(model)
    return ", ".join(
        name if isinstance(value, list) else f"{name} {list(value.shape)}"
        for name, value in found.items()
    )


def _same_space(found: Answers) -> None:
    widths = {
        name: np.shape(found[name])[1]
        for name in ("encode_images", "encode_volumes", "pool_slices", "encode_texts")
        if name in found
    }
    if "encode_texts" in widths and len(set(widths.values())) > 1:
        told = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise Refused(f"texts and images are not in one space: {told} features")


def _prompts(subject: Subject, model: Any) -> None:
    """Zero-shot: prompts of every label, their features, a temperature."""
    if not hasattr(model, "class_prompts"):
        return
    if "encode_texts" not in subject.cell.capabilities:
        raise Refused("it has class_prompts, and its spec does not declare encode_texts")
    prompts = prompt_features(subject.cell, Fitted(model, {}, {}, None, []))
    temperature = float(getattr(model, "temperature", float("nan")))
    if not temperature > 0:
        raise Refused(f"temperature is {temperature}, not a positive number")
    if hasattr(model, "neutral_prompts"):
        with guarded(subject.cell, "neutral_prompts"):
            neutral = list(model.neutral_prompts(subject.cell.task))
        if {len(rows) for rows in prompts} != {len(neutral)}:
            raise Refused(f"{len(neutral)} neutral prompts, and labels have another number")


def _head(subject: Subject, model: Any, found: Answers) -> None:
    """A head of the model's own gives a logit for each label."""
    features = found.get("encode_images")
    if not hasattr(model, "classification_head") or not isinstance(features, np.ndarray):
        return
    with guarded(subject.cell, "classification_head"), torch.no_grad():
        logits = model.classification_head(features.shape[1], 3)(torch.from_numpy(features))
    if tuple(logits.shape) != (COUNT, 3):
        raise Refused(f"classification_head gives shape {tuple(logits.shape)}, not [B, labels]")


def _pooling(model: Any) -> None:
    if not hasattr(model, "pool_slices"):
        return
    stages = getattr(model, "image_stages", ())
    if isinstance(stages, str) or not all(isinstance(name, str) for name in stages):
        raise Refused(f"image_stages is {stages!r}, not names of stages")
    most = getattr(model, "max_slices", 0)
    if type(most) is not int or most < 0:
        raise Refused(f"max_slices is {most!r}, not a number of slices")


def determinism(subject: Subject) -> str:
    """Nothing that is asked twice is answered twice, whatever the state of global generators; and
    the model's last stage, trained again, ends in the same bits."""
    given = inputs(subject.image_size)
    model = subject.fitted()
    first = answers(subject.cell, model, given)
    for what, other in (("asked again", model), ("another object", subject.fitted())):
        torch.manual_seed(1)
        gap = unlike(first, answers(subject.cell, other, given), 0.0)
        if gap:
            raise Refused(f"{what}, {gap}")
    own = [stage for stage in subject.stages if not stage.cls]
    if not own:
        return "answers; it trains nothing of its own"
    _, again, _ = trained(subject, own[-1])
    kept = subject.states[own[-1].name]
    wrong = [n for n in kept if n not in again or not torch.equal(kept[n], again[n])]
    if wrong:
        raise Refused(
            f"stage '{own[-1].name}', trained again from the same seed, differs in {wrong[0]!r}: "
            "draw from torch's global generator, or from one seeded with (run.seed, epoch)"
        )
    return f"answers, and training of '{own[-1].name}'"


def batches(subject: Subject) -> str:
    """One by one, in pairs and in reverse order the answers are those of one batch."""
    model, given = subject.fitted(), inputs(subject.image_size)
    skip = ("generate_images",)  # a few inputs of it show the same, and it is slow
    whole = answers(subject.cell, model, given, skip)
    rows = list(range(len(given)))
    ways = {
        "one by one": [[row] for row in rows],
        "in pairs": [rows[n : n + 2] for n in range(0, len(rows), 2)],
        "in reverse order": [rows[::-1]],
    }
    for way, parts in ways.items():
        other = _in_parts(subject, model, given, parts, skip)
        gap = unlike(whole, other, BATCHES)
        if gap:
            raise Refused(
                f"asked {way} instead of all at once, {gap}. Inputs of a batch must not see each "
                "other, nor what a mask hides"
            )
    if "generate_images" in subject.cell.capabilities:
        only = tuple(name for name in whole)
        some = given.take([0, 1])
        pair = answers(subject.cell, model, some, _but_pictures(only))
        alone = _in_parts(subject, model, some, [[1], [0]], _but_pictures(only))
        gap = np.abs(np.subtract(pair["generate_images"], alone["generate_images"])).mean()
        if gap > DRAWN:
            raise Refused(
                f"asked one by one, generated images differ by {gap:.3f} in the mean pixel. A seed "
                "and a prompt fix their image"
            )
    return f"{len(rows)} at once, in pairs, one by one, in reverse order"


def _but_pictures(names: tuple[str, ...]) -> tuple[str, ...]:
    return (*(name.partition("[")[0] for name in names), "encode_patches")


def _in_parts(
    subject: Subject, model: Any, given: Inputs, parts: list[list[int]], skip: tuple[str, ...]
) -> Answers:
    """Answers to parts of the inputs, put back into their order."""
    found = [answers(subject.cell, model, given.take(part), skip) for part in parts]
    order = np.argsort([row for part in parts for row in part])
    joined: Answers = {}
    for name, first in found[0].items():
        if isinstance(first, list):
            texts = [text for part in found for text in part[name]]
            joined[name] = [str(texts[n]) for n in order]
        else:
            joined[name] = np.concatenate([part[name] for part in found])[order]
    return joined


def side_effects(subject: Subject) -> str:
    """Everything that a call could change is as it was."""
    subject.must_be_in_process()
    model, given = subject.fitted(), inputs(subject.image_size)
    before = _surroundings(model, given)
    answers(subject.cell, model, given)
    after = _surroundings(model, given)
    changed = [name for name in before if name not in after or not _equal(before, after, name)]
    changed += [name for name in after if name not in before]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise Refused(f"answering changes {', '.join(changed[:3])}{more}")
    return f"{len(before):,} things are as they were"


def _surroundings(model: Any, given: Inputs) -> dict[str, Any]:
    """Weights, buffers, modes, inputs, generators and torch's switches, copied."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    found: dict[str, Any] = {
        "the generator of random": repr(python),
        "numpy's global generator": repr(legacy),
        "torch's generator": torch.get_rng_state(),
        "whether gradients are on": torch.is_grad_enabled(),
        "torch's default type": torch.get_default_dtype(),
        "torch's number of threads": torch.get_num_threads(),
    }
    for name, tensor in given.tensors().items():
        found[f"its input {name}"] = tensor.clone()
    for number, module in enumerate(modules_of(model)):
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.is_meta:  # it has no values that could change
                continue
            found[f"{name} (module {number})"] = tensor.detach().clone()
        for name, parameter in module.named_parameters():
            found[f"requires_grad of {name} (module {number})"] = parameter.requires_grad
        for name, part in module.named_modules():
            found[f"the mode of {name or 'module'} (module {number})"] = part.training
    for name, value in vars(model).items():
        if isinstance(value, torch.Tensor):
            found[f"attribute {name}"] = value.detach().clone()
    return found


def _equal(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> bool:
    one, other = before[name], after[name]
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    return bool(one == other)


def devices(subject: Subject) -> str:
    """Encoders answer alike on both; what is generated is drawn by another generator there."""
    if not torch.cuda.is_available():
        raise NotApplicable("torch sees no GPU here")
    if not set(subject.cell.capabilities) - {"fit", *GENERATED}:
        raise NotApplicable("it only generates, and a GPU draws other numbers")
    given = inputs(subject.image_size)
    here = answers(subject.cell, subject.fitted(), given, GENERATED)
    cell = replace(subject.cell, device="cuda")
    try:
        there = answers(cell, subject.fitted("cuda"), given, GENERATED)
    except PluginError as error:
        raise Refused(f"on the GPU: {error}") from error
    gap = unlike(here, there, DEVICES)
    if gap:
        raise Refused(f"between CPU and GPU, {gap}")
    return torch.cuda.get_device_name()
