"""The torch modules that a model holds, and the parameters in them."""

from __future__ import annotations

from typing import Any


def modules_of(model: Any) -> list[Any]:
    """The torch modules of a model: itself, or those it holds."""
    import torch

    if isinstance(model, torch.nn.Module):
        return [model]
    return [m for m in vars(model).values() if isinstance(m, torch.nn.Module)]


def count_parameters(model: Any) -> dict[str, int]:
    """Total and trainable parameters: as the model says, else counted on its torch modules."""
    if model is None:
        return {"total": 0, "trainable": 0}
    if hasattr(model, "parameter_counts"):
        counted: dict[str, int] = model.parameter_counts()
        return counted
    parameters = {id(p): p for module in modules_of(model) for p in module.parameters()}
    total = sum(p.numel() for p in parameters.values())
    return {
        "total": total,
        "trainable": sum(p.numel() for p in parameters.values() if p.requires_grad),
    }
