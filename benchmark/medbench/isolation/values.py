"""Python values as JSON and tensors, and back: what calls of a model take and give, no more.

Containers keep their kind, tensors their device, and nothing can name code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

#: Tensors of a frame, by name.
Tensors = dict[str, "torch.Tensor"]


def pack(value: Any, tensors: Tensors) -> Any:
    """The JSON form of ``value``; its tensors and arrays are added to ``tensors``.

    Raises TypeError naming a type that cannot be sent to another process.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return _plain(value)
    if isinstance(value, list):
        return [pack(one, tensors) for one in value]
    if isinstance(value, tuple):
        return {"$tuple": [pack(one, tensors) for one in value]}
    if isinstance(value, Mapping):
        return {"$dict": [[pack(k, tensors), pack(v, tensors)] for k, v in value.items()]}
    if isinstance(value, Path):
        return {"$path": str(value)}
    import numpy as np

    if isinstance(value, np.generic):
        return pack(value.item(), tensors)
    return _tensor(value, tensors) or _object(value, tensors)


def unpack(packed: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """What `pack` was given. Raises ValueError for a form that it does not give."""
    if isinstance(packed, list):
        return [unpack(one, tensors) for one in packed]
    if not isinstance(packed, dict):
        return packed
    match next(iter(packed), ""), packed:
        case "$tuple", {"$tuple": list(values)}:
            return tuple(unpack(one, tensors) for one in values)
        case "$dict", {"$dict": list(pairs)}:
            return {unpack(k, tensors): unpack(v, tensors) for k, v in pairs}
        case "$path", {"$path": str(path)}:
            return Path(path)
        case "$tensor", {"$tensor": str(name), "device": str(device)} if name in tensors:
            return tensors[name] if device == "cpu" else tensors[name].to(device)
        case "$array", {"$array": str(name)} if name in tensors:
            return tensors[name].numpy()
        case "$sample", {"$sample": content}:
            from medbench.data.samples import Sample

            return Sample(**unpack(content, tensors))
        case "$stage", {"$stage": content}:
            from medbench.models.capabilities import Stage

            return Stage(**unpack(content, tensors))
        case "$task", {"$task": content}:
            from medbench.schemas.task import TaskSpec

            return TaskSpec.model_validate(content)
    raise ValueError(f"nothing is sent as {str(packed)[:100]}")


def _plain(value: bool | int | float | str | None) -> bool | int | float | str | None:
    """Of subclasses, such as numpy's float64, the plain value."""
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return None


def _tensor(value: Any, tensors: Tensors) -> dict[str, str] | None:
    """A tensor or an array; None for anything else."""
    import numpy as np
    import torch

    name = str(len(tensors))
    if isinstance(value, np.ndarray):
        # torch warns of memory that it may not write, such as a mapped file
        array = np.asarray(value, order="C")  # ascontiguousarray gives one of no axes one
        tensors[name] = torch.from_numpy(array if array.flags.writeable else array.copy())
        return {"$array": name}
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {"$tensor": name, "device": str(value.device)}
    return None


def _object(value: Any, tensors: Tensors) -> Any:
    from medbench.data.samples import Sample
    from medbench.models.capabilities import Stage

    for kind, mark in ((Sample, "$sample"), (Stage, "$stage")):
        if isinstance(value, kind):
            content = {field.name: getattr(value, field.name) for field in fields(kind)}
            return {mark: pack(content, tensors)}
    from medbench.schemas.task import TaskSpec

    if isinstance(value, TaskSpec):
        return {"$task": value.model_dump(mode="json", by_alias=True)}
    raise TypeError(
        f"a {type(value).__name__} cannot be sent between a plugin's process and medbench's"
    )
